//! What was proven for one question answers others: over nsd, which then dies, and for another validator that asks us.

use std::io::ErrorKind;

use tokio::net::UdpSocket as Socket;
use tokio::task::AbortHandle;

use super::*;

impl Internet {
    /// Ends nsd, and returns when its port is closed: its children outlive it for a moment.
    fn die(&mut self) {
        self.nsd.kill().unwrap();
        self.nsd.wait().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(self.address).unwrap();
        let pace = Some(Duration::from_millis(50));
        socket.set_read_timeout(pace).unwrap();
        let query = query(".", RecordType::SOA).to_vec().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            let sent = socket.send(&query);
            let heard = sent.and_then(|_| socket.recv(&mut [0; 1_500]));
            if heard.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
                return;
            }
        }
        panic!("nsd still answers on {}", self.address);
    }
}

/// One that has heard that there is no `nothing.lab.`, that `www.lab.` has no MX record, and what is at `*.wild.lab.`.
async fn learned(internet: &Internet) -> Resolver {
    let resolver = internet.resolver(true);
    for (name, kind) in [
        ("nothing.lab.", RecordType::A),
        ("www.lab.", RecordType::MX),
        ("wild.lab.", RecordType::MX),
        ("x.wild.lab.", RecordType::MX),
        ("plain.", RecordType::DS),
    ] {
        let (_, outcome) = ask(&resolver, &query(name, kind)).await;
        assert_eq!(outcome, Outcome::Answered, "{name}");
    }
    resolver
}

/// Questions that it can then deny by itself, and how.
const DENIED: [(&str, RecordType, ResponseCode); 6] = [
    ("never.lab.", RecordType::A, ResponseCode::NXDomain),
    ("x.Never.lab.", RecordType::TXT, ResponseCode::NXDomain),
    ("www.lab.", RecordType::TXT, ResponseCode::NoError),
    ("wild.lab.", RecordType::A, ResponseCode::NoError),
    ("y.wild.lab.", RecordType::AAAA, ResponseCode::NoError),
    ("a.www.lab.", RecordType::A, ResponseCode::NXDomain),
];

#[tokio::test]
async fn what_is_there_or_not_proven_to_be_missing_is_asked_for() {
    let mut internet = Internet::start();
    let resolver = learned(&internet).await;
    internet.die();

    for (name, kind) in [
        ("www.lab.", RecordType::A),
        ("x.wild.lab.", RecordType::A),
        ("alias.lab.", RecordType::A),
        ("oak.lab.", RecordType::A),
        ("lab.", RecordType::DS),
        ("www.plain.", RecordType::A),
        ("plain.", RecordType::A),
    ] {
        let (answer, outcome) = ask(&resolver, &query(name, kind)).await;
        assert_eq!(outcome, Outcome::Failed, "{name} {answer}");
    }
}

#[tokio::test]
async fn nothing_is_learned_from_what_is_not_validated_bogus_or_insecure() {
    let internet = Internet::start();
    for (validates, zone) in [(true, "bogus."), (true, "plain."), (false, "lab.")] {
        let resolver = internet.resolver(validates);
        for name in ["nothing.", "never.", "no."] {
            let asked = query(&format!("{name}{zone}"), RecordType::A);
            let (_, outcome) = ask(&resolver, &asked).await;
            assert_ne!(outcome, Outcome::Synthesized, "{name}{zone}");
        }
    }
}

#[tokio::test]
async fn a_gateway_that_is_told_to_asks_for_each_name() {
    let internet = Internet::start();
    let resolver = Resolver::new(&config::Dns {
        dnssec: true,
        aggressive_nsec: false,
        trust_anchor_file: Some(internet.dir.path().join("root.key")),
        ..config::Dns::forwarding_to(internet.address)
    });
    let resolver = resolver.unwrap();

    for name in ["nothing.lab.", "never.lab.", "no.lab."] {
        let (answer, outcome) = ask(&resolver, &query(name, RecordType::A)).await;
        assert_eq!(outcome, Outcome::Answered, "{name}");
        assert!(answer.metadata.authentic_data, "it is validated: {name}");
    }
}

#[tokio::test]
async fn what_was_proven_for_another_question_denies_a_name_when_nobody_can_be_asked() {
    let mut internet = Internet::start();
    let resolver = learned(&internet).await;
    internet.die();

    for (name, kind, code) in DENIED {
        let (answer, outcome) = ask(&resolver, &query(name, kind)).await;
        assert_eq!(outcome, Outcome::Synthesized, "{name} {answer}");
        assert_eq!(answer.metadata.response_code, code, "{name}");
        assert!(answer.metadata.authentic_data, "{name}");
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
        let lifetimes = answer.authorities.iter().map(|record| record.ttl);
        let is_counted = lifetimes.into_iter().all(|ttl| ttl > 0 && ttl <= 60);
        assert!(is_counted, "the zone's absences last a minute: {answer}");
    }
    let mut plain = query("never.lab.", RecordType::A);
    plain.edns = None;
    let (answer, _) = ask(&resolver, &plain).await;
    assert!(!answer.metadata.authentic_data);
    assert_eq!(answer.authorities.len(), 1, "the SOA");
}

#[tokio::test]
async fn who_asks_ahead_gets_what_is_said_now() {
    let internet = Internet::start();
    let resolver = learned(&internet).await;
    let asked = query("never.lab.", RecordType::A).to_vec().unwrap();

    let (_, ahead) = resolver.answer(&asked, Asking::Ahead).await;
    let (_, anyhow) = resolver.answer(&asked, Asking::Anyhow).await;

    assert_eq!(ahead, Outcome::Answered);
    assert_eq!(anyhow, Outcome::Synthesized);
}

#[tokio::test]
async fn a_zone_with_resolvers_of_its_own_is_not_denied_by_what_others_proved() {
    let internet = Internet::start();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("corp.zone"), zone("corp.", "")).unwrap();
    let address = UdpSocket::bind("127.0.0.80:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let nsd = start_nsd(dir.path(), address, &["corp."]);
    let inside = Internet { dir, address, nsd };
    inside.wait();
    let own = DnsZone {
        name: Name::from_ascii("corp.").unwrap(),
        forward: vec![address],
        dnssec: false,
    };
    let resolver = internet.resolver_with(true, &[own]);

    let (_, first) = ask(&resolver, &query("corn.", RecordType::A)).await;
    let (_, beside) = ask(&resolver, &query("corq.", RecordType::A)).await;
    let (answer, _) = ask(&resolver, &query("www.corp.", RecordType::A)).await;

    assert_eq!(first, Outcome::Answered);
    assert_eq!(beside, Outcome::Synthesized, "the root has no corp.");
    assert_eq!(addresses(&answer), [WEB]);
}

/// Answers whoever asks over UDP.
async fn serve(resolver: Arc<Resolver>) -> (SocketAddr, AbortHandle) {
    let socket = Socket::bind("127.0.0.81:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut packet = [0; 1_500];
        while let Ok((len, from)) = socket.recv_from(&mut packet).await {
            let (answer, _) = resolver.answer(&packet[..len], Asking::Anyhow).await;
            socket.send_to(&answer.unwrap(), from).await.unwrap();
        }
    });
    (address, serving.abort_handle())
}

#[tokio::test]
async fn another_validator_finds_the_proof_whole() {
    let mut internet = Internet::start();
    let (address, serving) = serve(Arc::new(learned(&internet).await)).await;
    let validator = || {
        Resolver::new(&config::Dns {
            dnssec: true,
            trust_anchor_file: Some(internet.dir.path().join("root.key")),
            ..config::Dns::forwarding_to(address)
        })
        .unwrap()
    };
    // So that the keys are kept where it asks.
    let (known, _) = ask(&validator(), &query("www.lab.", RecordType::A)).await;
    assert!(known.metadata.authentic_data);
    let validators = DENIED.map(|_| validator());
    internet.die();

    for ((name, kind, code), validator) in DENIED.into_iter().zip(validators) {
        let (answer, outcome) = ask(&validator, &query(name, kind)).await;
        assert_eq!(outcome, Outcome::Answered, "{name} {answer}");
        assert_eq!(answer.metadata.response_code, code, "{name}");
        assert!(answer.metadata.authentic_data, "{name}");
    }
    serving.abort();
}
