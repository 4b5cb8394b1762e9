use std::sync::Arc;

use ed25519_dalek::SigningKey;
use hickory_proto::rr::RecordType;
use rand_core::OsRng;
use tokio::sync::watch;

use super::*;
use crate::certs::{Certs, Rotation};
use crate::listen::{Homes, Limits, Rate};
use crate::proto::cert::{Certificate, System};
use crate::proto::client::{ClientKeys, QueryPadding, Session};
use crate::proto::message::HEADER;
use crate::serve::strangers::QUEUE;

const START: u64 = 1_800_000_000;
const NOW: Now = Now {
    unix_s: START,
    uptime_s: 5,
    moment_us: 5_000_000,
    uptime_ms: 5_000,
};
const AGREEMENT: Duration = Duration::from_micros(50);

struct Rig {
    clerk: Clerk,
    cert: Certificate,
    published: watch::Sender<Arc<Keyring>>,
}

fn place() -> Place {
    Place {
        way: Way::Udp(0),
        peer: "192.0.2.1:4000".parse().unwrap(),
    }
}

/// One of some homes: none has all places.
fn one_of_many(n: usize) -> Place {
    let [.., third, last] = (n % 2_000).to_be_bytes();
    Place {
        peer: ([10, 64, third, last], 4000).into(),
        ..place()
    }
}

fn rig() -> Rig {
    rig_with(None)
}

fn rig_with(rate: Option<Rate>) -> Rig {
    let clock: crate::clock::Clock = Arc::new(|| START);
    let provider = SigningKey::from_bytes(&[5; 32]);
    let certs = Certs::signing(provider, Rotation::default(), clock.clone()).unwrap();
    let ring = Arc::clone(&certs.keyring().borrow());
    let (published, keyring) = watch::channel(Arc::clone(&ring));
    let cert = ring
        .keys()
        .iter()
        .map(|key| key.cert().clone())
        .find(|cert| cert.system == System::XChaCha20Poly1305)
        .unwrap();
    let server = Server {
        provider_name: "2.dnscrypt-cert.clerk.example".to_owned(),
        keyring,
        limits: Limits::SERVER,
        homes: Homes::default(),
        counters: Arc::default(),
        clock,
    };
    Rig {
        clerk: Clerk::new(
            server,
            Bounds {
                kept_bytes: 1 << 20,
                waiting: Limits::SERVER.in_flight,
                ahead: 2,
            },
            rate.map(|rate| Arc::new(Rates::new(rate, Homes::default()))),
        ),
        cert,
        published,
    }
}

impl Rig {
    fn client(&self) -> Session {
        Session::new(&self.cert, &ClientKeys::generate(OsRng)).unwrap()
    }

    /// A client whose key is known since it asked before.
    fn known(&mut self) -> Session {
        let client = self.client();
        assert_eq!(self.ask(&client, "first.example"), Taken::Stranger);
        self.strangers(Duration::ZERO);
        self.answer_all();
        self.clerk.out.packets.clear();
        client
    }

    fn ask(&mut self, client: &Session, name: &str) -> Taken {
        let packet = sealed(client, name);
        self.clerk.take(place(), &packet, NOW)
    }

    fn strangers(&mut self, busy: Duration) -> usize {
        self.clerk.begin_strangers(busy);
        let mut served = 0;
        while self.clerk.serve_stranger(NOW) {
            self.clerk.spent(AGREEMENT);
            served += 1;
        }
        served
    }

    /// The resolver answers everything that it was asked.
    fn answer_all(&mut self) -> usize {
        let asks = std::mem::take(&mut self.clerk.out.asks);
        for ask in &asks {
            let query = message::Query::read(&ask.query.message).unwrap();
            let mut answer = query.refuse(0, None);
            answer.truncate(HEADER + query.question().len());
            answer[11] = 0;
            answer[7] = 1;
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 192, 0, 2, 1]);
            self.clerk.answered(ask.number, Heard::Answer(answer), NOW);
        }
        asks.len()
    }

    fn dropped(&self, reason: Dropped) -> usize {
        self.clerk.server.counters.dropped(reason)
    }
}

fn sealed(client: &Session, name: &str) -> Vec<u8> {
    let query = message::query(7, name, RecordType::A, 1232).unwrap();
    let padding = QueryPadding::Udp { target: 256 };
    client.seal_query(&query, &[3; 12], padding).unwrap()
}

/// What anybody can make who knows the certificate.
fn garbage(cert: &Certificate, n: usize) -> Vec<u8> {
    let mut packet = cert.magic.to_vec();
    packet.resize(256, 0x55);
    packet[8..16].copy_from_slice(&n.to_be_bytes());
    packet
}

#[test]
fn strangers_beyond_the_queue_are_dropped_and_counted_and_cost_no_agreement() {
    let mut rig = rig();

    for n in 0..QUEUE + 100 {
        let taken = rig.clerk.take(place(), &garbage(&rig.cert, n), NOW);
        assert_eq!(taken, Taken::Stranger);
    }

    assert_eq!(rig.dropped(Dropped::StrangersOverBudget), 100);
    assert_eq!(rig.dropped(Dropped::BadTag), 0, "nobody has looked at them");
    assert!(!rig.clerk.is_idle());
}

#[test]
fn somebody_whose_key_is_known_is_served_at_once_whatever_crowd_waits() {
    let mut rig = rig();
    let client = rig.known();
    for n in 0..2 * QUEUE {
        rig.clerk.take(place(), &garbage(&rig.cert, n), NOW);
    }

    let taken = rig.ask(&client, "first.example");

    assert_eq!(taken, Taken::Done);
    assert_eq!(rig.clerk.out.packets.len(), 1);
    assert_eq!(rig.dropped(Dropped::BadTag), 0);
}

#[test]
fn garbage_is_worked_on_within_the_budget_only_and_leaves_no_key_behind() {
    let mut rig = rig();
    for n in 0..100 {
        rig.clerk.take(place(), &garbage(&rig.cert, n), NOW);
    }

    let served = rig.strangers(Duration::from_micros(300));

    assert_eq!(served, 2, "a third of what was spent on the others");
    assert_eq!(rig.dropped(Dropped::BadTag), served);
    assert!(rig.clerk.keys.kept.is_empty());
}

#[test]
fn a_slow_resolver_delays_no_answer_that_is_kept() {
    let mut rig = rig();
    let client = rig.known();
    for n in 0..100 {
        rig.ask(&client, &format!("slow{n}.example"));
    }
    assert_eq!(rig.clerk.out.packets.len(), 0);

    rig.ask(&client, "first.example");

    assert_eq!(rig.clerk.out.packets.len(), 1);
    assert_eq!(rig.clerk.out.asks.len(), 100);
}

#[test]
fn more_than_may_be_in_flight_are_dropped_and_counted() {
    let mut rig = rig();
    let client = rig.known();

    let slow = sealed(&client, "slow.example");
    for n in 0..Limits::SERVER.in_flight + 3 {
        rig.clerk.take(one_of_many(n), &slow, NOW);
    }

    assert_eq!(rig.dropped(Dropped::Overloaded), 3);
    assert_eq!(rig.clerk.out.asks.len(), 1, "asked once for all of them");
}

#[test]
fn a_home_whose_questions_nobody_answers_leaves_places_for_another() {
    let mut rig = rig();
    let client = rig.known();
    let slow = sealed(&client, "slow.example");
    for _ in 0..Limits::SERVER.in_flight {
        rig.clerk.take(place(), &slow, NOW);
    }
    assert!(rig.dropped(Dropped::Overloaded) > 0);
    let asks = rig.clerk.out.asks.len();

    let other = sealed(&client, "other.example");
    rig.clerk.take(one_of_many(2), &other, NOW);

    assert_eq!(rig.clerk.out.asks.len(), asks + 1);
}

#[test]
fn who_joined_a_question_of_one_that_is_turned_away_asks_by_themselves_and_nothing_is_held_against_the_name()
 {
    let mut rig = rig();
    let client = rig.known();
    let slow = sealed(&client, "slow.example");
    for n in 0..3 {
        rig.clerk.take(one_of_many(n), &slow, NOW);
    }
    let first = rig.clerk.out.asks.pop().unwrap();

    rig.clerk
        .answered(first.number, Heard::Busy(vec![0; 12]), NOW);

    let refused: Vec<_> = rig.clerk.out.packets.drain(..).map(|(to, _)| to).collect();
    assert_eq!(refused, [one_of_many(0)], "SERVFAIL");
    let second = rig.clerk.out.asks.pop().unwrap();
    assert_eq!(second.query.source, one_of_many(1).peer);
    let answer = message::Query::read(&second.query.message)
        .unwrap()
        .refuse(3, None);
    rig.clerk
        .answered(second.number, Heard::Answer(answer), NOW);
    let served: Vec<_> = rig.clerk.out.packets.drain(..).map(|(to, _)| to).collect();
    assert_eq!(served, [one_of_many(1), one_of_many(2)]);
}

#[test]
fn an_unanswered_question_is_counted_for_everybody_who_asked_it() {
    let mut rig = rig();
    let client = rig.known();
    rig.ask(&client, "mute.example");
    rig.ask(&client, "mute.example");
    let number = rig.clerk.out.asks[0].number;

    rig.clerk.answered(number, Heard::Silence, NOW);

    assert_eq!(rig.dropped(Dropped::Unanswered), 2);
    assert!(rig.clerk.out.packets.is_empty());
}

#[test]
fn a_stranger_that_was_authentic_is_none_any_more_and_answers_can_be_opened() {
    let mut rig = rig();
    let client = rig.client();
    let query = message::query(7, "www.example", RecordType::A, 1232).unwrap();

    assert_eq!(rig.ask(&client, "www.example"), Taken::Stranger);
    assert_eq!(rig.strangers(Duration::ZERO), 1);
    assert_eq!(rig.answer_all(), 1);
    assert_eq!(rig.ask(&client, "www.example"), Taken::Done);

    assert_eq!(rig.clerk.out.packets.len(), 2);
    for (_, packet) in rig.clerk.out.packets.drain(..) {
        let answer = client.open_response(packet, &query, &[3; 12]).unwrap();
        assert_eq!(answer[7], 1);
    }
    assert_eq!(rig.clerk.server.counters.get(Counted::Shared), 1);
}

#[test]
fn certificates_are_answered_and_unknown_magics_are_not() {
    let mut rig = rig();
    let query = message::query(1, "2.dnscrypt-cert.clerk.example", RecordType::TXT, 1232).unwrap();

    rig.clerk.take(place(), &query, NOW);
    rig.clerk.take(place(), &[7; 300], NOW);

    assert_eq!(rig.clerk.out.packets.len(), 1);
    assert_eq!(rig.dropped(Dropped::UnknownMagic), 1);
}

#[test]
fn when_the_certificates_change_the_keys_that_were_kept_go() {
    let mut rig = rig();
    let client = rig.known();
    let ring = Arc::clone(&rig.published.borrow());

    rig.published.send_replace(Arc::default());
    rig.ask(&client, "first.example");
    rig.published.send_replace(ring);

    assert_eq!(rig.dropped(Dropped::UnknownMagic), 1);
    assert_eq!(rig.ask(&client, "first.example"), Taken::Stranger);
}

#[test]
fn a_source_beyond_its_rate_is_dropped_before_anything_is_computed_for_it() {
    let mut rig = rig_with(Some(Rate {
        per_second: 10.try_into().unwrap(),
        burst: 3.try_into().unwrap(),
    }));
    let client = rig.known();
    for _ in 0..4 {
        rig.ask(&client, "first.example");
    }
    assert_eq!(rig.clerk.out.packets.len(), 2);
    assert_eq!(rig.dropped(Dropped::OverRate), 2);

    let connected = Place {
        way: Way::Tcp(Id::default()),
        ..place()
    };
    rig.clerk.take(connected, &[7; 300], NOW);
    assert_eq!(rig.clerk.out.refused.len(), 1);
    let other = Place {
        peer: "192.0.2.2:4000".parse().unwrap(),
        ..place()
    };
    let later = Now {
        moment_us: NOW.moment_us + 100_000,
        ..NOW
    };
    rig.clerk
        .take(other, &sealed(&client, "first.example"), NOW);
    rig.clerk
        .take(place(), &sealed(&client, "first.example"), later);
    assert_eq!(rig.clerk.out.packets.len(), 4);
}

/// Later by so many seconds.
fn later(seconds: u64) -> Now {
    Now {
        unix_s: START + seconds,
        uptime_s: NOW.uptime_s + seconds,
        moment_us: NOW.moment_us + seconds * 1_000_000,
        uptime_ms: NOW.uptime_ms + seconds * 1_000,
    }
}

/// The lifetime of what the rig's resolver answers.
const LIFETIME_S: u64 = 256;

#[test]
fn a_stranger_gets_what_is_near_its_end_and_only_a_home_has_it_asked_anew() {
    let mut rig = rig();
    rig.clerk.server.homes = Homes::within([("10.64.0.0".parse().unwrap(), 16)]);
    let client = rig.known();
    let packet = sealed(&client, "first.example");
    let home = Place {
        peer: "10.64.0.16:4000".parse().unwrap(),
        ..place()
    };
    let near_end = later(LIFETIME_S - 10);

    for _ in 0..9 {
        rig.clerk.take(place(), &packet, near_end);
    }
    assert_eq!(rig.clerk.out.packets.len(), 9);
    assert_eq!(rig.clerk.out.asks.len(), 0, "strangers");
    for _ in 0..9 {
        rig.clerk.take(home, &packet, near_end);
    }

    assert_eq!(rig.clerk.out.packets.len(), 18);
    assert_eq!(rig.clerk.out.asks.len(), 1, "once");
    assert_eq!(rig.clerk.out.asks[0].query.asking, Asking::Ahead);
    assert_eq!(rig.clerk.server.counters.get(Counted::Ahead), 1);
}

#[test]
fn who_waits_longer_than_one_likes_to_is_given_the_stale_answer_and_the_next_ones_at_once() {
    let mut rig = rig();
    let client = rig.known();
    let packet = sealed(&client, "first.example");
    let ended = later(LIFETIME_S);

    rig.clerk.take(place(), &packet, ended);
    assert_eq!(rig.clerk.out.packets.len(), 0);
    let due_ms = rig.clerk.poll_timeout().unwrap();
    rig.clerk.handle_timeout(Now {
        uptime_ms: due_ms,
        ..ended
    });
    assert_eq!(rig.clerk.out.packets.len(), 1);
    rig.clerk.take(place(), &packet, later(LIFETIME_S + 3));

    assert_eq!(rig.clerk.out.packets.len(), 2);
    assert_eq!(rig.clerk.out.asks.len(), 1);
    assert_eq!(rig.clerk.poll_timeout(), None);
    assert_eq!(rig.clerk.server.counters.get(Counted::Stale), 2);
    assert_eq!(rig.clerk.server.counters.get(Counted::Shared), 1);
}

#[test]
fn one_for_whom_there_is_no_place_gets_a_stale_answer_where_there_is_one() {
    let mut rig = rig();
    let client = rig.known();
    let ended = later(LIFETIME_S);
    let slow = sealed(&client, "slow.example");
    for n in 0..Limits::SERVER.in_flight {
        rig.clerk.take(one_of_many(n), &slow, ended);
    }

    // It has as many as others.
    let one_more = one_of_many(7);
    rig.clerk.take(one_more, &slow, ended);
    rig.clerk
        .take(one_more, &sealed(&client, "first.example"), ended);

    assert_eq!(rig.dropped(Dropped::Overloaded), 1);
    assert_eq!(rig.clerk.out.packets.len(), 1);
    assert_eq!(rig.clerk.server.counters.get(Counted::Stale), 1);
}

#[test]
fn one_whose_place_is_given_to_another_home_gets_a_stale_answer_or_none_and_its_question_ends() {
    let mut rig = rig();
    let client = rig.known();
    let ended = later(LIFETIME_S);
    let most = Limits::SERVER.in_flight / 4;
    let alone = |n: u8| Place {
        peer: ([198, 51, n, 1], 4000).into(),
        ..place()
    };
    for name in ["first.example", "slow.example"] {
        let packet = sealed(&client, name);
        rig.clerk.take(alone(3), &packet, ended);
    }
    let other = sealed(&client, "other.example");
    for (n, count) in [(3, most - 2), (0, most), (1, most), (2, most)] {
        for _ in 0..count {
            rig.clerk.take(alone(n), &other, ended);
        }
    }
    assert_eq!(
        (rig.clerk.out.asks.len(), rig.clerk.out.packets.len()),
        (3, 0)
    );

    let new = sealed(&client, "new.example");
    rig.clerk.take(place(), &new, ended);
    assert_eq!(rig.clerk.server.counters.get(Counted::Stale), 1);
    assert_eq!(rig.dropped(Dropped::Overloaded), 0);
    for _ in 0..4 {
        rig.clerk.take(place(), &new, ended);
    }

    assert_eq!(rig.clerk.out.packets.len(), 1);
    assert_eq!(rig.dropped(Dropped::Overloaded), 4);
    assert_eq!(rig.clerk.out.ended, [2, 3]);
}
