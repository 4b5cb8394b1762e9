//! What strangers may not do, and what nonsense gets.

use std::collections::BTreeSet;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::{Client, Device, Office};

/// Where each route is named once.
const ROUTER: &str = include_str!("../../src/api.rs");

/// RFC 5246, section 7.4.1.2, with the extensions that an Ed25519 server needs to go on.
fn tls_1_2_hello() -> Vec<u8> {
    let mut extensions = vec![0, 13, 0, 4, 0, 2, 8, 7];
    extensions.extend([0, 10, 0, 4, 0, 2, 0, 29]);
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    hello.extend([0, u8::try_from(extensions.len()).unwrap()]);
    hello.extend(extensions);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    const PROTOCOL_VERSION: u8 = 70;
    let office = Office::open().await;
    let mut stream = TcpStream::connect(office.addr).await.unwrap();
    stream.write_all(&tls_1_2_hello()).await.unwrap();

    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();

    assert_eq!(answer, [21, 3, 3, 0, 2, 2, PROTOCOL_VERSION]);
}

#[tokio::test]
async fn a_session_cannot_be_resumed() {
    let office = Office::open().await;
    let mut client = office.connect().await;
    assert_eq!(client.get("/healthz").await.status, 200);

    assert_eq!(client.tls().tls13_tickets_received(), 0);
}

#[tokio::test]
async fn a_body_larger_than_16_kib_is_refused_declared_or_not() {
    let office = Office::open().await;
    let body = vec![0; 16 * 1024 + 1];
    let declared = office
        .connect()
        .await
        .post("/v1/enrol", &body)
        .await
        .unwrap();
    assert_eq!(declared.problem(), (413, "too-large".to_owned()));

    let head = "POST /v1/enrol HTTP/1.1\r\nhost: x\r\ncontent-type: application/cbor\r\n\
                transfer-encoding: chunked\r\n\r\n4001\r\n";
    let chunked = office.connect().await.send(head, &body).await.unwrap();
    assert_eq!(chunked.problem(), (413, "too-large".to_owned()));
}

#[tokio::test]
async fn garbage_is_refused_and_uses_up_no_challenge() {
    let office = Office::open().await;
    let claim = office.claim().await;
    let device = Device::new();
    let mut client = office.connect().await;
    let challenge = client.challenge().await.unwrap();
    let good = device
        .answer(Some(&claim), &challenge, &client.exporter)
        .to_bytes();
    let mut trailing = good.clone();
    trailing.push(0);

    for garbage in [
        &b""[..],
        b"\xff",
        b"{\"v\":1}",
        &good[..good.len() - 1],
        &trailing,
    ] {
        let answer = client.post("/v1/enrol", garbage).await.unwrap();
        assert_eq!(
            answer.problem(),
            (400, "malformed".to_owned()),
            "{garbage:02x?}"
        );
    }

    assert_eq!(client.post("/v1/enrol", &good).await.unwrap().status, 200);
}

#[tokio::test]
async fn every_changed_byte_of_a_request_is_noticed() {
    let office = Office::open().await;
    let claim = office.claim().await;
    let device = Device::new();
    let mut client: Option<Client> = None;
    let mut left = 0;
    let mut position = 0;
    loop {
        if left == 0 {
            client = Some(office.connect().await);
            left = 16;
        }
        left -= 1;
        let client = client.as_mut().unwrap();
        let challenge = client.challenge().await.unwrap();
        let mut request = device
            .answer(Some(&claim), &challenge, &client.exporter)
            .to_bytes();
        let Some(byte) = request.get_mut(position) else {
            break;
        };
        *byte ^= 1;
        position += 1;

        let (status, code) = client.post("/v1/enrol", &request).await.unwrap().problem();

        let expected = matches!(
            (status, code.as_str()),
            (400, "malformed") | (403, "proof-invalid")
        );
        assert!(expected, "byte {position}: {status} {code}");
    }
    assert!(position > 300);
    assert_eq!(office.replay().await.fleet_entries, 0);
}

#[tokio::test]
async fn other_types_paths_and_methods_are_refused_as_problems() {
    let office = Office::open().await;
    let mut client = office.connect().await;
    let json = "POST /v1/enrol HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 2\r\n\r\n";

    let wrong_type = client.send(json, b"{}").await.unwrap();
    assert_eq!(wrong_type.problem(), (415, "wrong-type".to_owned()));
    assert_eq!(
        client.get("/v1/enrol").await.problem(),
        (405, "wrong-method".to_owned())
    );
    for path in [
        "/",
        "/v1/shard",
        "/v1/log/other/checkpoint",
        "/v1/log/fleet/tile/0/256.p/0",
        "/v1/log/%ff/checkpoint",
        "/v1/log/fleet/tile/%ff/000",
    ] {
        assert_eq!(
            client.get(path).await.problem(),
            (404, "not-found".to_owned()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn who_does_not_sign_as_a_gateway_hears_how_one_would() {
    let office = Office::open().await;

    let answer = office.connect().await.get("/v1/shard/1").await;

    assert_eq!(answer.problem(), (401, "not-signed".to_owned()));
    let told = "\r\nwww-authenticate: culvert-key\r\n";
    assert!(answer.head.contains(told), "{}", answer.head);
}

#[tokio::test]
async fn an_enrolment_without_a_challenge_proves_nothing() {
    let office = Office::open().await;
    let (mut first, mut second) = (office.connect().await, office.connect().await);
    let challenge = first.challenge().await.unwrap();
    let request = Device::new()
        .answer(None, &challenge, &second.exporter)
        .to_bytes();

    let answer = second.post("/v1/enrol", &request).await.unwrap();

    assert_eq!(answer.problem(), (403, "proof-invalid".to_owned()));
}

#[tokio::test]
async fn challenges_of_one_connection_come_to_an_end() {
    let office = Office::open().await;
    let mut client = office.connect().await;
    for _ in 0..16 {
        client.challenge().await.unwrap();
    }

    let answer = client.post("/v1/enrol/challenge", b"").await.unwrap();

    assert_eq!(answer.problem(), (429, "too-many-requests".to_owned()));
    assert_eq!(office.connect().await.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn a_header_that_does_not_end_is_cut_off() {
    let office = Office::open().await;
    let mut client = office.connect().await;

    let endless = format!("GET /healthz HTTP/1.1\r\nx: {}", "y".repeat(64 * 1024));
    let answer = client.send(&endless, b"").await;

    let refused = answer.map_or(true, |answer| answer.status == 431);
    assert!(refused);
    assert_eq!(office.connect().await.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn the_openapi_document_parses_and_names_every_route() {
    let office = Office::open().await;
    let answer = office.connect().await.get("/v1/openapi.json").await;

    let document: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap().keys();
    // A tile that is not full has the handler of one that is.
    let paths: BTreeSet<String> = paths.map(|path| path.replace(".p/{width}", "")).collect();
    let mut routes = BTreeSet::new();
    for route in ROUTER.split(".route(").skip(1) {
        let path = route.split('"').nth(1).unwrap();
        routes.insert(path.replace("{*", "{"));
    }
    assert_eq!(paths, routes);
    assert!(routes.contains("/v1/enrol"));
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path}");
            assert!(operation["responses"]["200"].is_object(), "{method} {path}");
        }
    }
    assert!(document["components"]["schemas"]["Problem"]["properties"]["code"].is_object());
}
