//! The OpenAPI documents of the server and of a witness, and a judge of another hand who holds both to them.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use anyhow::Result;
use lab::{
    Courier, Device, Judged, Lab, Office, Peers, Programs, Running, SIGN, Schemathesis,
    StreamReader, Witness, wait_until,
};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);
const WITNESS_PORT: u16 = 8601;
const COURIER: &str = "127.0.0.1:8602";
const SERVER: &str = "198.18.2.2:8443";

/// A server whose logs a witness cosigns, and the judge beside it.
struct World {
    office: Office,
    judge: Schemathesis,
    _running: [Running; 2],
    lab: Lab,
}

impl World {
    fn new() -> Self {
        let lab = Lab::for_test().unwrap();
        let programs = Programs::of_this_build().unwrap();
        let witness = Witness::init(&lab, &programs, ("w1", WITNESS_PORT)).unwrap();
        let lines = [&witness.line(), "group enough all lab w1\nquorum enough\n"];
        let office = Office::init_witnessed(&lab, &programs, &lines.concat()).unwrap();
        witness.learn(&office).unwrap();
        let running = [witness.start().unwrap(), office.start().unwrap()];
        let folder = lab.folder("schemathesis").unwrap();
        let peers = Peers::of_this_build().unwrap();
        let judge = Schemathesis::new(&lab.office, &peers, folder).unwrap();
        let world = Self {
            office,
            judge,
            _running: running,
            lab,
        };
        wait_until("the first heads are published", PATIENCE, || {
            Ok(world
                .checkpoint("fleet")
                .ok()
                .zip(world.checkpoint("authority").ok()))
        })
        .unwrap();
        world
    }

    fn document(&self, command: &[&str]) -> Value {
        let text = self.office.cli(command).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn server(&self, document: &Value, more: &[&str]) -> Judged {
        let url = format!("https://{SERVER}");
        self.judge.judge(document, &url, more).unwrap()
    }

    /// The head that the witness has cosigned last.
    fn checkpoint(&self, log: &str) -> Result<String> {
        let url = format!("https://{SERVER}/v1/log/{log}/checkpoint");
        self.lab.office.run(&["curl", "-skf", &url])
    }
}

#[track_caller]
fn assert_sound(judged: &Judged, requests: usize) {
    assert!(judged.is_sound, "{}", judged.text);
    println!("{} requests, nothing found", judged.sent);
    assert!(judged.sent >= requests, "{}", judged.sent);
}

#[track_caller]
fn assert_seen(judged: &Judged, answers: &[(&str, &str, u16)]) {
    for (method, path, status) in answers {
        let answer = ((*method).to_owned(), (*path).to_owned(), *status);
        assert!(judged.answers.contains(&answer), "no {answer:?}");
    }
}

#[test]
fn the_server_does_what_its_description_says_and_nothing_else() {
    let world = World::new();
    let document = world.document(&["openapi"]);

    let judged = world.server(&document, &[]);

    assert_sound(&judged, 1000);
    let seen = [
        ("GET", "v1/openapi.json", 200),
        ("GET", "v1/log/fleet/checkpoint", 200),
        ("GET", "v1/log/authority/tile", 200),
        ("GET", "v1/log/authority/tile", 404),
        ("GET", "v1/authority/states/1", 200),
        ("POST", "v1/enrol/challenge", 200),
        ("POST", "v1/enrol", 400),
        ("POST", "v1/enrol", 415),
        ("GET", "v1/shard/0", 401),
    ];
    assert_seen(&judged, &seen);
}

#[test]
fn who_is_let_in_by_signature_gets_what_the_description_says() {
    let world = World::new();
    let document = world.document(&["openapi"]);
    let gateway = StreamReader::default();
    world.office.add_silent_gateway(&gateway.public()).unwrap();
    let device = Device::default();
    let code = world.office.claim().unwrap();
    let server = SERVER.parse().unwrap();
    let enrol = || device.enrol(server, Some(&code));
    world.lab.office.enter(enrol).unwrap();
    let places = (COURIER.parse().unwrap(), server);
    let courier = Courier::start(&world.lab.office, places, (device, gateway)).unwrap();
    let url = format!("http://{}", courier.address());
    let signed = [
        "-H",
        SIGN,
        "--include-path-regex",
        "^/v1/(shard|psk|gateway)",
    ];

    let judged = world.judge.judge(&document, &url, &signed).unwrap();

    assert_sound(&judged, 200);
    let seen = [
        ("GET", "v1/shard/1", 200),
        ("GET", "v1/shard/0", 403),
        ("GET", "v1/shard/1", 400),
        ("GET", "v1/shard/1", 401),
        ("POST", "v1/psk/keys", 200),
        ("POST", "v1/psk", 400),
        ("POST", "v1/gateway/kem", 400),
    ];
    assert_seen(&judged, &seen);
}

#[test]
fn a_witness_does_what_its_description_says_and_nothing_else() {
    let world = World::new();
    let mut document = world.document(&["witness", "openapi"]);
    let head = world.checkpoint("authority").unwrap();
    let stranger = head.replacen("lab/authority", "other/authority", 1);
    let unsigned = head.replacen("\n1\n", "\n2\n", 1);
    let examples = json!({
        "again": { "value": format!("old 1\n\n{head}") },
        "from another size": { "value": format!("old 0\n\n{head}") },
        "backwards": { "value": format!("old 2\n\n{head}") },
        "a stranger": { "value": format!("old 1\n\n{stranger}") },
        "not signed": { "value": format!("old 1\n\n{unsigned}") },
    });
    let body = "/paths/~1add-checkpoint/post/requestBody/content/text~1plain";
    document.pointer_mut(body).unwrap()["examples"] = examples;

    let url = format!("http://127.0.0.1:{WITNESS_PORT}");
    let judged = world.judge.judge(&document, &url, &[]).unwrap();

    assert_sound(&judged, 50);
    for status in [200, 400, 403, 404, 409] {
        assert_seen(&judged, &[("POST", "add-checkpoint", status)]);
    }
}

#[test]
fn a_description_that_lies_is_found_out() {
    let world = World::new();
    let document = world.document(&["openapi"]);
    let at = |pointer: &str| format!("/paths/{pointer}");
    let enrol = at("~1v1~1enrol/post/responses");
    let head = at("~1v1~1log~1{log}~1checkpoint/get/responses/200");
    let mut lies = vec![document.clone(); 4];
    let no_status = lies[0].pointer_mut(&enrol).unwrap();
    no_status.as_object_mut().unwrap().remove("415").unwrap();
    let other_type = lies[1].pointer_mut(&head).unwrap();
    other_type["content"] = json!({ "application/json": {} });
    let other_code = lies[2].pointer_mut(&enrol).unwrap();
    other_code["415"]["description"] = json!("not-found");
    let no_header = lies[3].pointer_mut(&head).unwrap();
    no_header["headers"]["etag"] = json!({ "schema": { "type": "string" } });
    let public = ["--include-path-regex", "^/v1/(enrol|log/.log./checkpoint)$"];
    let truth = world.server(&document, &public);
    assert_sound(&truth, 100);

    let words = [
        "Undocumented status code",
        "Undocumented Content-Type",
        "wrong-type is not among: not-found",
        "etag is described and missing",
    ];
    for (lie, words) in lies.iter().zip(words) {
        let judged = world.server(lie, &public);
        assert!(!judged.is_sound, "{}", judged.text);
        assert!(judged.text.contains(words), "{}", judged.text);
    }
}
