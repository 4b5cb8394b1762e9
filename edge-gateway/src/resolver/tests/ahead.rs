//! What is asked ahead where recursion is our own: of servers on port 53, whose every question is seen on its way to nsd.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;

use hickory_proto::rr::RData;
use hickory_proto::rr::rdata::A;

use super::*;

/// What becomes of answers on their way back.
const WHOLE: u8 = 0;
const SPOILED: u8 = 1;
const SERVFAIL: u8 = 2;

/// An internet whose servers all have one address.
struct Seen {
    internet: Internet,
    servers: IpAddr,
    questions: Arc<Mutex<Vec<(String, RecordType)>>>,
    answers: Arc<AtomicU8>,
}

impl Seen {
    fn start() -> Self {
        let door = port_53();
        let servers = door.local_addr().unwrap().ip();
        let internet = Internet::start_behind(servers);
        let inside = UdpSocket::bind("127.0.0.1:0").unwrap();
        inside.connect(internet.address).unwrap();
        let questions: Arc<Mutex<Vec<_>>> = Arc::default();
        let answers: Arc<AtomicU8> = Arc::default();
        let (seen, how) = (Arc::clone(&questions), Arc::clone(&answers));
        // It ends with the test's process.
        let _passing = std::thread::spawn(move || {
            let mut packet = [0; 1500];
            while let Ok((len, from)) = door.recv_from(&mut packet) {
                let asked = Message::from_vec(&packet[..len]).unwrap();
                let question = &asked.queries[0];
                let name = question.name().to_lowercase().to_string();
                seen.lock().unwrap().push((name, question.query_type()));
                inside.send(&packet[..len]).unwrap();
                let len = inside.recv(&mut packet).unwrap();
                let answer = on_its_way(&packet[..len], how.load(Ordering::Relaxed));
                let _sent = door.send_to(&answer, from);
            }
        });
        Self {
            internet,
            servers,
            questions,
            answers,
        }
    }

    fn recursing(&self, dnssec: bool, zones: &[DnsZone]) -> Resolver {
        Resolver::new(&config::Dns {
            dnssec,
            upstream: Upstream::Recurse(vec![self.servers]),
            zones: zones.to_vec(),
            trust_anchor_file: Some(self.internet.dir.path().join("root.key")),
            ..config::Dns::forwarding_to(self.internet.address)
        })
        .unwrap()
    }

    /// How often servers were asked this.
    fn asked(&self, name: &str, kind: RecordType) -> usize {
        let questions = self.questions.lock().unwrap();
        let same = questions.iter().filter(|it| it.0 == name && it.1 == kind);
        same.count()
    }

    /// How often they were asked anything.
    fn asked_at_all(&self) -> usize {
        self.questions.lock().unwrap().len()
    }

    fn answers_come(&self, how: u8) {
        self.answers.store(how, Ordering::Relaxed);
    }
}

/// Port 53 of the first loopback address on which nobody has it.
fn port_53() -> UdpSocket {
    let mut addresses = (1..=250).map(|n| Ipv4Addr::new(127, 0, 53, n));
    let free = addresses.find_map(|address| UdpSocket::bind((address, 53)).ok());
    free.expect("port 53 of 127.0.53.1 to 127.0.53.250 is free, and this runs as root")
}

fn on_its_way(answer: &[u8], how: u8) -> Vec<u8> {
    let mut answer = Message::from_vec(answer).unwrap();
    match how {
        SERVFAIL => return error(&answer, ResponseCode::ServFail).to_vec().unwrap(),
        SPOILED => {
            for record in &mut answer.answers {
                if let RData::A(address) = &mut record.data {
                    *address = A::new(192, 0, 2, 66);
                }
            }
        }
        _ => {}
    }
    answer.to_vec().unwrap()
}

async fn ask_ahead(resolver: &Resolver, query: &Message) -> (Message, Outcome) {
    let query = query.to_vec().unwrap();
    let (answer, outcome) = resolver.answer(&query, Asking::Ahead).await;
    (Message::from_vec(&answer.unwrap()).unwrap(), outcome)
}

#[tokio::test]
async fn what_fails_ahead_is_told_and_the_answer_that_is_kept_stays() {
    let seen = Seen::start();
    let resolver = seen.recursing(true, &[]);
    let www = query("www.lab.", RecordType::A);
    ask(&resolver, &www).await;

    seen.answers_come(SERVFAIL);
    let (_, failed) = ask_ahead(&resolver, &www).await;
    seen.answers_come(WHOLE);
    ask_ahead(&resolver, &query("six.lab.", RecordType::AAAA)).await;
    seen.answers_come(SPOILED);
    let (spoiled, bogus) = ask_ahead(&resolver, &www).await;

    assert_eq!((failed, bogus), (Outcome::Failed, Outcome::Bogus));
    assert_eq!(spoiled.answers.len(), 0);
    let (kept, _) = ask(&resolver, &www).await;
    seen.answers_come(WHOLE);
    let (mended, _) = ask_ahead(&resolver, &www).await;
    for answer in [kept, mended] {
        assert_eq!(addresses(&answer), [WEB]);
        assert!(answer.metadata.authentic_data);
    }
}

#[tokio::test]
async fn what_is_wrongly_signed_is_no_answer_ahead_either() {
    let seen = Seen::start();
    let resolver = seen.recursing(true, &[]);

    let (answer, outcome) = ask_ahead(&resolver, &query("www.bogus.", RecordType::A)).await;

    assert_eq!(outcome, Outcome::Bogus);
    assert_eq!(answer.answers.len(), 0);
}

#[tokio::test]
async fn names_of_a_zone_with_resolvers_of_its_own_are_not_recursed_ahead() {
    let seen = Seen::start();
    let rule = DnsZone {
        name: Name::from_ascii("plain.").unwrap(),
        forward: vec![seen.internet.address],
        dnssec: false,
    };
    let resolver = seen.recursing(true, &[rule]);

    for (asked, own) in [("www.plain.", 0), ("alias.lab.", 1)] {
        let (answer, outcome) = ask_ahead(&resolver, &query(asked, RecordType::A)).await;
        assert_eq!(outcome, Outcome::Answered, "{asked}");
        assert_eq!(addresses(&answer), [WEB], "{asked}");
        assert_eq!(seen.asked(asked, RecordType::A), own, "{asked}");
    }
    assert_eq!(seen.asked("www.plain.", RecordType::A), 0);
}

#[tokio::test]
async fn records_of_zones_which_are_kept_are_not_asked_for_ahead() {
    let seen = Seen::start();
    let resolver = seen.recursing(true, &[]);

    for kind in [RecordType::NS, RecordType::DS, RecordType::DNSKEY] {
        let (_, outcome) = ask_ahead(&resolver, &query("lab.", kind)).await;
        assert_eq!(outcome, Outcome::Failed, "{kind}");
    }
    assert_eq!(seen.asked_at_all(), 0);
}

#[tokio::test]
async fn beyond_the_places_for_what_is_asked_ahead_nobody_is_asked() {
    let silent = port_53();
    let resolver = Resolver::new(&config::Dns {
        upstream: Upstream::Recurse(vec![silent.local_addr().unwrap().ip()]),
        ..config::Dns::forwarding_to(silent.local_addr().unwrap())
    })
    .unwrap();
    let www = query("www.lab.", RecordType::A);
    let mut waiting = Vec::new();

    for _ in 0..MAX_AHEAD {
        let mut asking = Box::pin(ask_ahead(&resolver, &www));
        let at_once = poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await;
        assert!(at_once.is_pending());
        waiting.push(asking);
    }

    assert_eq!(ask_ahead(&resolver, &www).await.1, Outcome::Busy);
}

#[tokio::test]
async fn an_answer_from_memory_is_asked_for_again_by_who_asks_ahead_and_by_nobody_else() {
    let seen = Seen::start();
    for dnssec in [true, false] {
        let resolver = seen.recursing(dnssec, &[]);
        for (name, kind, lifetime_s) in [
            ("www.lab.", RecordType::A, 300),
            ("www.plain.", RecordType::A, 300),
            ("www.lab.", RecordType::AAAA, 60),
            ("nothing.plain.", RecordType::A, 60),
            ("any.wild.lab.", RecordType::A, 300),
        ] {
            let asked = query(name, kind);
            ask(&resolver, &asked).await;
            let before = seen.asked(name, kind);
            ask(&resolver, &asked).await;
            assert_eq!(seen.asked(name, kind), before, "{name} {kind}");

            // Another worker asks a moment later.
            for _ in 0..2 {
                let (answer, outcome) = ask_ahead(&resolver, &asked).await;
                assert_eq!(outcome, Outcome::Answered, "{name} {kind}");
                assert_eq!(seen.asked(name, kind), before + 1, "{name} {kind}");
                let (answers, absence) = (&answer.answers, &answer.authorities);
                let said = if answers.is_empty() { absence } else { answers };
                let shortest_s = said.iter().map(|record| record.ttl).min();
                assert_eq!(shortest_s, Some(lifetime_s), "{answer}");
                let is_proven = dnssec && name.ends_with("lab.");
                assert_eq!(answer.metadata.authentic_data, is_proven, "{name} {kind}");
            }
        }
    }
}

#[tokio::test]
async fn an_alias_asked_for_ahead_leads_to_no_answer_from_memory() {
    let seen = Seen::start();
    for dnssec in [true, false] {
        let resolver = seen.recursing(dnssec, &[]);
        ask_ahead(&resolver, &query("www.plain.", RecordType::A)).await;
        let before = seen.asked("www.plain.", RecordType::A);

        let (answer, _) = ask_ahead(&resolver, &query("alias.lab.", RecordType::A)).await;

        assert_eq!(addresses(&answer), [WEB]);
        assert_eq!(seen.asked("www.plain.", RecordType::A), before + 1);
    }
}

#[tokio::test]
async fn zones_servers_and_keys_are_not_asked_for_with_every_question_ahead() {
    let seen = Seen::start();
    for dnssec in [true, false] {
        let resolver = seen.recursing(dnssec, &[]);
        ask_ahead(&resolver, &query("www.lab.", RecordType::A)).await;
        let before = seen.asked_at_all();

        ask_ahead(&resolver, &query("www.lab.", RecordType::MX)).await;

        assert_eq!(seen.asked_at_all(), before + 1);
    }
}

#[tokio::test]
async fn a_denial_asked_for_ahead_answers_other_questions() {
    let seen = Seen::start();
    let resolver = seen.recursing(true, &[]);

    let (_, first) = ask_ahead(&resolver, &query("nothing.lab.", RecordType::A)).await;
    let (_, second) = ask(&resolver, &query("never.lab.", RecordType::A)).await;

    assert_eq!((first, second), (Outcome::Answered, Outcome::Synthesized));
}
