use std::collections::HashSet;

use hickory_proto::rr::RecordType;
use rand_core::impls;

use super::*;
use crate::proto::Transport;
use crate::proto::message::{self, Query};
use crate::serve;
use crate::serve::forward::Zone;

const ROOT: &[u8] = &[0];
const PORTS: u32 = 16;

/// Numbers that look drawn and are the same each time.
struct Drawn(u64);

impl RngCore for Drawn {
    fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    fn next_u64(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ self.0 >> 29
    }

    fn fill_bytes(&mut self, to: &mut [u8]) {
        impls::fill_bytes_via_next(self, to);
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(to);
        Ok(())
    }
}

struct Rig {
    questions: Questions<Drawn>,
    events: Arc<Events>,
    next_port: u32,
    /// Whose each port is.
    servers: HashMap<u32, SocketAddr>,
    asked: u64,
}

fn server(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 53))
}

fn zone(suffix: &[u8], servers: &[u8]) -> Zone {
    Zone {
        suffix: suffix.into(),
        servers: servers.iter().map(|n| server(*n)).collect(),
    }
}

fn rig(zones: &[Zone]) -> Rig {
    let events: Arc<Events> = Arc::default();
    let mut rig = Rig {
        questions: Questions::new(Zones::new(zones), Arc::clone(&events), Drawn(7)),
        events,
        next_port: 1,
        servers: HashMap::new(),
        asked: 0,
    };
    rig.open_ports(0);
    rig
}

fn one_server() -> Rig {
    rig(&[zone(ROOT, &[1])])
}

fn question(name: &str, qtype: RecordType) -> Query {
    Query::read(&message::query(7, name, qtype, 1232).unwrap()).unwrap()
}

impl Rig {
    fn open_ports(&mut self, now_ms: u64) {
        for (server, address) in self.questions.wanted_ports(now_ms) {
            self.questions.port_opened(server, self.next_port, now_ms);
            self.servers.insert(self.next_port, address);
            self.next_port += 1;
        }
    }

    #[expect(clippy::result_large_err, reason = "as what is tested")]
    fn try_ask(&mut self, asked: Query, now_ms: u64) -> Result<u64, Ask> {
        self.try_ask_as(asked, Asking::Anyhow, now_ms)
    }

    #[expect(clippy::result_large_err, reason = "as what is tested")]
    fn try_ask_as(&mut self, asked: Query, asking: Asking, now_ms: u64) -> Result<u64, Ask> {
        self.asked += 1;
        let query = serve::Query {
            message: asked.to_upstream(1, 1232),
            source: server(99),
            transport: Transport::Udp,
            room: 512,
            asking,
        };
        let ask = Ask {
            number: self.asked,
            query,
            asked,
        };
        self.questions.ask(ask, now_ms).map(|()| self.asked)
    }

    fn ask(&mut self, name: &str, now_ms: u64) -> u64 {
        self.try_ask(question(name, RecordType::A), now_ms).unwrap()
    }

    /// The one datagram that goes out.
    fn sent(&mut self) -> (u32, Vec<u8>) {
        let all = self.all_sent();
        assert_eq!(all.len(), 1);
        all.into_iter().next().unwrap()
    }

    fn all_sent(&mut self) -> Vec<(u32, Vec<u8>)> {
        let mut sent = Vec::new();
        while let Some((port, datagrams)) = self.questions.poll_transmit() {
            sent.extend(datagrams.into_iter().map(|datagram| (port, datagram)));
        }
        sent
    }

    fn hear(&mut self, port: u32, datagram: &[u8]) {
        self.questions.handle_datagram(port, datagram, 10);
    }

    fn answers(&mut self) -> Vec<(u64, u8)> {
        let answers = std::mem::take(&mut self.questions.out.answers);
        let answers = answers.into_iter();
        answers
            .map(|(number, heard)| (number, message::rcode_low(&heard.into_message().unwrap())))
            .collect()
    }

    fn elsewhere(&mut self) -> Vec<(u64, Asking)> {
        let asks = std::mem::take(&mut self.questions.out.elsewhere);
        let asks = asks.into_iter();
        asks.map(|ask| (ask.number, ask.query.asking)).collect()
    }

    fn count(&self, event: Event) -> usize {
        self.events.get(event)
    }
}

/// A server's answer to a datagram: one A record.
fn answer(datagram: &[u8]) -> Vec<u8> {
    let mut answer = datagram[..datagram.len() - 11].to_vec();
    answer[2] |= 0x80;
    answer[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
    answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 192, 0, 2, 1]);
    answer
}

fn with_rcode(datagram: &[u8], rcode: u8) -> Vec<u8> {
    let mut answer = answer(datagram);
    answer[3] = rcode;
    answer
}

#[test]
fn an_answer_with_another_id_is_dropped_and_counted() {
    let mut rig = one_server();
    rig.ask("www.example", 0);
    let (port, sent) = rig.sent();
    let mut forged = answer(&sent);
    forged[1] ^= 1;

    rig.hear(port, &forged);

    assert_eq!(rig.answers(), []);
    assert_eq!(rig.count(Event::WrongId), 1);
    rig.hear(port, &answer(&sent));
    assert_eq!(rig.answers(), [(1, 0)], "the true one is still welcome");
}

#[test]
fn an_answer_on_another_port_is_dropped_and_counted() {
    let mut rig = one_server();
    rig.ask("www.example", 0);
    let (port, sent) = rig.sent();

    for other in (1..=PORTS).filter(|other| *other != port) {
        rig.hear(other, &answer(&sent));
    }

    assert_eq!(rig.answers(), []);
    assert_eq!(rig.count(Event::WrongId), 15);
}

#[test]
fn an_answer_to_another_question_is_dropped_and_counted() {
    let mut rig = one_server();
    rig.ask("www.example", 0);
    let (port, sent) = rig.sent();
    let mut other_name = answer(&sent);
    other_name[13] = b'x';
    let mut other_type = answer(&sent);
    let type_at = sent.len() - 11 - 3;
    other_type[type_at] ^= 1;

    rig.hear(port, &other_name);
    rig.hear(port, &other_type);

    assert_eq!(rig.answers(), []);
    assert_eq!(rig.count(Event::WrongQuestion), 2);
}

#[test]
fn what_is_no_answer_with_a_question_is_dropped_and_counted() {
    let mut rig = one_server();
    rig.ask("www.example", 0);
    let (port, sent) = rig.sent();
    let mut no_question = answer(&sent);
    no_question[5] = 0;

    for garbled in [&sent[..], &no_question, &answer(&sent)[..11], b""] {
        rig.hear(port, garbled);
    }

    assert_eq!(rig.answers(), []);
    assert_eq!(rig.count(Event::Garbled), 4);
}

#[test]
fn an_answer_in_other_letters_is_not_used_and_the_question_asked_over_tcp() {
    let mut rig = one_server();
    rig.ask("www.example", 0);
    let (port, sent) = rig.sent();
    let mut forged = answer(&sent);
    forged[13] ^= 0x20;

    rig.hear(port, &forged);

    assert_eq!(rig.answers(), []);
    assert_eq!(rig.count(Event::WrongCase), 1);
    assert_eq!(rig.elsewhere(), [(1, Asking::OverTcp)]);
    rig.hear(port, &answer(&sent));
    assert_eq!(rig.answers(), [], "it is asked elsewhere now");
}

#[test]
fn after_some_guesses_on_a_port_all_that_was_asked_from_it_goes_over_tcp() {
    let mut rig = one_server();
    rig.ask("www.example", 0);
    rig.ask("two.example", 0);
    let sent = rig.all_sent();
    let (port, first) = &sent[0];
    assert_eq!(*port, sent[1].0, "of one turn");

    for guess in 0..MAX_MISMATCHES {
        assert_eq!(rig.elsewhere(), []);
        let mut forged = answer(first);
        let id = u16::from_be_bytes([forged[0], forged[1]]);
        let wrong = id.wrapping_add(1_000 + guess as u16);
        forged[..2].copy_from_slice(&wrong.to_be_bytes());
        rig.hear(*port, &forged);
    }

    let mut elsewhere = rig.elsewhere();
    elsewhere.sort_by_key(|(number, _)| *number);
    assert_eq!(elsewhere, [(1, Asking::OverTcp), (2, Asking::OverTcp)]);
    assert_eq!(rig.questions.out.closed, [*port]);
    assert_eq!(rig.count(Event::Suspicious), 2);
    rig.hear(*port, &answer(first));
    assert_eq!(
        rig.answers(),
        [],
        "not even the right guess is used any more"
    );
}

#[test]
fn the_asked_name_is_in_letters_ids_and_ports_that_nobody_can_tell_beforehand() {
    let mut rig = one_server();
    let (mut ids, mut spellings, mut ports) = (HashSet::new(), HashSet::new(), HashSet::new());

    for n in 0..400 {
        rig.ask("a-name-with-letters.example", n);
        let (port, sent) = rig.sent();
        ids.insert(sent[..2].to_vec());
        spellings.insert(sent[12..40].to_vec());
        ports.insert(port);
        assert_eq!(sent[40..45], [0, 0, 1, 0, 1]);
        assert_eq!(sent.len(), 45 + 11, "EDNS without any option");
    }

    assert!(ids.len() > 395, "{}", ids.len());
    assert!(spellings.len() > 395, "{}", spellings.len());
    assert_eq!(ports.len(), PORTS as usize);
}

#[test]
fn a_port_is_left_for_another_one_after_some_use_or_time_and_closed_when_nothing_is_owed_on_it() {
    let mut rig = one_server();
    let first: HashSet<u32> = (1..=PORTS).collect();

    for n in 0..16 * 2 * 512 {
        rig.ask("www.example", n / 100);
        let (port, sent) = rig.sent();
        rig.hear(port, &answer(&sent));
        rig.open_ports(n / 100);
        rig.questions.handle_timeout(n / 100);
    }
    let closed: HashSet<u32> = rig.questions.out.closed.drain(..).collect();
    assert!(closed.is_superset(&first));

    let opened = rig.next_port;
    for _ in 0..PORTS {
        rig.open_ports(100_000);
    }
    assert_eq!(
        rig.next_port,
        opened + PORTS,
        "a minute later all are others"
    );
}

#[test]
fn a_silent_server_is_followed_by_the_next_and_asked_last_from_then_on() {
    let mut rig = rig(&[zone(ROOT, &[1, 2])]);
    rig.ask("www.example", 0);
    let (port, _) = rig.sent();
    assert_eq!(rig.servers[&port], server(1));

    rig.questions.handle_timeout(TRY_MS - 1);
    assert_eq!(rig.all_sent(), []);
    rig.questions.handle_timeout(TRY_MS);
    let (port, sent) = rig.sent();
    assert_eq!(rig.servers[&port], server(2));
    rig.hear(port, &answer(&sent));
    assert_eq!(rig.answers(), [(1, 0)]);

    rig.ask("two.example", 1_000);
    rig.sent();
    rig.questions.handle_timeout(1_000 + TRY_MS);
    rig.all_sent();
    rig.ask("three.example", 1_800);
    let (port, _) = rig.sent();
    assert_eq!(rig.servers[&port], server(2), "it has failed twice");
}

#[test]
fn an_answer_that_comes_after_the_question_was_asked_again_is_used_once() {
    let mut rig = one_server();
    rig.ask("www.example", 0);
    let (port, sent) = rig.sent();
    rig.questions.handle_timeout(TRY_MS);
    let (again_port, again) = rig.sent();

    rig.hear(port, &answer(&sent));
    rig.hear(again_port, &answer(&again));

    assert_eq!(rig.answers(), [(1, 0)]);
    assert_eq!(rig.count(Event::Late), 1);
    assert_eq!(rig.count(Event::WrongId), 0, "lateness is no guess");
}

#[test]
fn a_question_that_nobody_answers_fails_before_its_asker_asks_again() {
    let mut rig = rig(&[zone(ROOT, &[1, 2])]);
    rig.ask("www.example", 0);
    let mut datagrams = rig.all_sent().len();
    let mut now_ms = 0;

    while rig.questions.out.answers.is_empty() {
        now_ms = rig.questions.poll_timeout().unwrap();
        rig.questions.handle_timeout(now_ms);
        datagrams += rig.all_sent().len();
    }

    assert_eq!(rig.answers(), [(1, 2)]);
    assert_eq!(datagrams, MAX_TRIES);
    assert!(now_ms < 5_000, "{now_ms}");
    rig.questions.handle_timeout(now_ms + LINGER_MS + TRY_MS);
    assert!(
        rig.questions
            .ports
            .values()
            .all(|port| port.tries.is_empty())
    );
    assert_eq!(rig.questions.poll_timeout(), None);
}

#[test]
fn servers_that_refuse_are_asked_once_each() {
    let mut rig = rig(&[zone(ROOT, &[1, 2])]);
    rig.ask("www.example", 0);
    let mut asked = Vec::new();

    for _ in 0..2 {
        let (port, sent) = rig.sent();
        asked.push(rig.servers[&port]);
        rig.hear(port, &with_rcode(&sent, 5));
    }

    assert_eq!(asked, [server(1), server(2)]);
    assert_eq!(rig.answers(), [(1, 2)]);
    assert_eq!(rig.all_sent(), []);
}

#[test]
fn what_does_not_fit_a_datagram_is_asked_over_tcp() {
    let mut rig = one_server();
    rig.ask("www.example", 0);
    let (port, sent) = rig.sent();
    let mut cut = answer(&sent);
    cut[2] |= 2;

    rig.hear(port, &cut);

    assert_eq!(rig.elsewhere(), [(1, Asking::OverTcp)]);
    assert_eq!(rig.count(Event::Cut), 1);
    assert_eq!(rig.count(Event::Suspicious), 0);
}

#[test]
fn questions_go_to_the_zone_with_the_longest_name_and_others_are_given_back() {
    let mut rig = rig(&[
        zone(b"\x04corp\0", &[1]),
        zone(b"\x03lab\x04corp\0", &[2]),
        zone(b"\x03own\x04corp\0", &[]),
    ]);
    for (name, expected) in [
        ("corp", 1),
        ("www.Corp", 1),
        ("xlab.corp", 1),
        ("lab.corp", 2),
        ("www.LAB.corp", 2),
    ] {
        rig.ask(name, 0);
        let (port, _) = rig.sent();
        assert_eq!(rig.servers[&port], server(expected), "{name}");
    }

    for other in ["xcorp", "corp.example", "own.corp", "www.own.corp"] {
        let given_back = rig.try_ask(question(other, RecordType::A), 0);
        assert!(given_back.is_err(), "{other}");
    }
    for kind in [RecordType::ANY, RecordType::AXFR] {
        assert!(rig.try_ask(question("corp", kind), 0).is_err(), "{kind}");
    }
}

#[test]
fn without_a_port_the_question_is_given_back() {
    let events: Arc<Events> = Arc::default();
    let mut rig = one_server();
    rig.questions = Questions::new(Zones::new(&[zone(ROOT, &[1])]), events, Drawn(1));

    let given_back = rig.try_ask(question("www.example", RecordType::A), 0);

    assert_eq!(given_back.unwrap_err().number, 1);
    assert!(rig.questions.open.is_empty());
}

#[test]
fn a_server_that_says_bogus_makes_the_failure_one_that_nothing_older_stands_in_for() {
    let mut rig = rig(&[zone(ROOT, &[1, 2])]);
    rig.ask("www.example", 0);

    let (port, sent) = rig.sent();
    let mut bogus = sent;
    // It ends with an OPT record without options, which gets an extended error 6.
    bogus[2..4].copy_from_slice(&[0x81, 0x82]);
    let len_at = bogus.len() - 2;
    bogus[len_at..].copy_from_slice(&[0, 6]);
    bogus.extend_from_slice(&[0, 15, 0, 2, 0, 6]);
    rig.hear(port, &bogus);
    let (port, sent) = rig.sent();
    rig.hear(port, &with_rcode(&sent, 2));

    let answers = std::mem::take(&mut rig.questions.out.answers);
    assert!(matches!(answers[..], [(1, Heard::Refused(_))]));
}

#[test]
fn what_is_asked_ahead_is_no_lookup_of_anybodys() {
    let mut rig = one_server();
    let asked = question("www.example", RecordType::A);
    rig.try_ask_as(asked, Asking::Ahead, 0).unwrap();

    let (port, sent) = rig.sent();
    rig.hear(port, &with_rcode(&sent, 0));

    assert_eq!(rig.answers(), [(1, 0)]);
    assert_eq!(rig.count(Event::Asked), 1);
    assert_eq!(rig.count(Event::Answered), 0);
}

/// A server's answer that the name is another name for one in a top-level domain of four letters, which has an address.
fn alias(datagram: &[u8], top: &[u8; 4]) -> Vec<u8> {
    let mut answer = datagram[..datagram.len() - 11].to_vec();
    answer[2] |= 0x80;
    answer[6..12].copy_from_slice(&[0, 2, 0, 0, 0, 0]);
    answer.extend_from_slice(&[0xc0, 12, 0, 5, 0, 1, 0, 0, 1, 0, 0, 8, 1, b'x', 4]);
    let target_at = u8::try_from(answer.len() - 3).unwrap();
    answer.extend_from_slice(top);
    answer.extend_from_slice(&[
        0, 0xc0, target_at, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 10, 0, 0, 1,
    ]);
    answer
}

#[test]
fn an_answer_that_leads_to_a_name_of_other_servers_is_not_theirs_to_give() {
    for (asked, top) in [
        ("www.example", b"Corp"),
        ("www.corp", b"home"),
        ("www.corp", b"held"),
    ] {
        let corp = zone(b"\x04corp\0", &[2]);
        let mut rig = rig(&[zone(ROOT, &[1]), corp, zone(b"\x04held\0", &[])]);
        rig.ask(asked, 0);
        let (port, sent) = rig.sent();

        rig.hear(port, &alias(&sent, top));

        assert_eq!(rig.answers(), [], "{asked}");
        assert_eq!(rig.elsewhere(), [(1, Asking::Anyhow)], "{asked}");
        assert_eq!(rig.count(Event::Foreign), 1);
    }
}

#[test]
fn an_answer_that_leads_to_a_name_of_the_same_servers_is_taken() {
    for (asked, top) in [("www.example", b"home"), ("www.corp", b"CORP")] {
        let mut rig = rig(&[zone(ROOT, &[1]), zone(b"\x04corp\0", &[2])]);
        rig.ask(asked, 0);
        let (port, sent) = rig.sent();

        rig.hear(port, &alias(&sent, top));

        assert_eq!(rig.answers(), [(1, 0)], "{asked}");
    }
}
