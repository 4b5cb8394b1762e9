//! Somebody who asks a server or a stub as its clients do, and knows what the answers must be.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dnscrypt_proxy::proto::cert::Certificate;
use dnscrypt_proxy::proto::client::{
    ClientKeys, ClientNonce, QueryPadding, Session, answered_nonce,
};
use dnscrypt_proxy::proto::message;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record};
use rand_core::OsRng;

use super::FORGED;
use crate::certificates::refused;
use crate::netns::Netns;
use crate::topology::WEB;

const PADDING: QueryPadding = QueryPadding::Udp { target: 512 };
const LARGEST: usize = 4_096;
const A: u16 = 1;
/// Whoever has not answered by then will not: resolvers try for eight seconds.
const PATIENCE: Duration = Duration::from_secs(9);

/// What is known of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    /// It has the web server's address; nothing stands between the resolver and that.
    Known,
    /// Likewise, and signed, but liars are asked: no answer is right too.
    KnownOrNothing,
    /// It has no address that can be proven.
    Nothing,
    /// Liars may say of it what they like, and of nothing else.
    Anything,
    /// Whoever answers is trusted, and may say anything at all.
    Whatever,
}

/// What came of lookups.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) asked: u64,
    pub(super) right: u64,
    pub(super) refused: u64,
    pub(super) unanswered: u64,
    /// What was wrong, and how often.
    pub(super) wrong: BTreeMap<String, u64>,
    /// Milliseconds that right answers took.
    pub(super) ms: Vec<f64>,
}

impl Tally {
    fn blame(&mut self, what: String) {
        // What is wrong in a thousand ways needs no longer list.
        if self.wrong.len() < 100 || self.wrong.contains_key(&what) {
            *self.wrong.entry(what).or_default() += 1;
        }
    }
}

/// By what it speaks.
enum Door {
    Sealed(Box<Session>),
    Plain,
}

/// One client.
pub(super) struct Asker {
    socket: UdpSocket,
    door: Door,
    waiting: HashMap<u64, Waiting>,
    /// What was not answered in time: a resolver may take longer than somebody waits, and may not lie then either.
    given_up: HashMap<u64, Waiting>,
    next: u64,
    pub(super) tally: Tally,
    /// Of signed names about which liars are asked.
    pub(super) signed: Tally,
}

struct Waiting {
    query: Vec<u8>,
    name: String,
    truth: Truth,
    since: Instant,
}

impl Asker {
    /// A router before a DNSCrypt server, with an address of its own.
    pub(super) fn sealed(
        netns: &Netns,
        (own, server): (IpAddr, SocketAddr),
        cert: &Certificate,
    ) -> Result<Self> {
        let session = Session::new(cert, &ClientKeys::generate(OsRng))?;
        Self::new(netns, (own, server), Door::Sealed(Box::new(session)))
    }

    /// A home's machine before a stub, likewise.
    pub(super) fn plain(netns: &Netns, (own, server): (IpAddr, SocketAddr)) -> Result<Self> {
        Self::new(netns, (own, server), Door::Plain)
    }

    fn new(netns: &Netns, (own, server): (IpAddr, SocketAddr), door: Door) -> Result<Self> {
        let socket = netns.enter(|| UdpSocket::bind((own, 0)).context("binding UDP"))?;
        socket.connect(server).context("connecting UDP")?;
        Ok(Self {
            socket,
            door,
            waiting: HashMap::new(),
            given_up: HashMap::new(),
            next: 0,
            tally: Tally::default(),
            signed: Tally::default(),
        })
    }

    /// How many questions have no answer yet.
    pub(super) fn under_way(&self) -> usize {
        self.waiting.len()
    }

    /// Asks and does not wait.
    pub(super) fn ask(&mut self, name: &str, truth: Truth) -> Result<()> {
        self.next += 1;
        let id = u16::try_from(self.next % 65_536).unwrap_or_default();
        let query =
            message::query(id, name, A.into(), 1_232).map_err(refused("writing a query"))?;
        let (number, packet) = match &self.door {
            Door::Plain => (u64::from(id), query.clone()),
            Door::Sealed(session) => {
                let sealed = session.seal_query(&query, &nonce(self.next), PADDING)?;
                (self.next, sealed)
            }
        };
        // A full buffer or a refusal shows as an answer that is missing.
        let _sent = self.socket.send(&packet);
        self.tally_of(truth).asked += 1;
        let waiting = Waiting {
            query,
            name: name.to_owned(),
            truth,
            since: Instant::now(),
        };
        self.given_up.remove(&number);
        if let Some(before) = self.waiting.insert(number, waiting) {
            self.tally_of(before.truth).unanswered += 1;
        }
        Ok(())
    }

    fn tally_of(&mut self, truth: Truth) -> &mut Tally {
        if truth == Truth::KnownOrNothing {
            &mut self.signed
        } else {
            &mut self.tally
        }
    }

    /// Takes answers for so long, and gives up on those that are overdue.
    pub(super) fn listen(&mut self, lasting: Duration) -> Result<()> {
        let (until, mut buffer) = (Instant::now() + lasting, [0; LARGEST]);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.socket
                .set_read_timeout(Some(left.max(Duration::from_micros(100))))
                .context("bounding the wait")?;
            if let Ok(len) = self.socket.recv(&mut buffer) {
                self.take(buffer.get(..len).unwrap_or_default());
            }
        }
        let is_overdue = |waiting: &Waiting| waiting.since.elapsed() >= PATIENCE;
        let overdue: Vec<(u64, Waiting)> = self
            .waiting
            .extract_if(|_, waiting| is_overdue(waiting))
            .collect();
        for (number, waiting) in overdue {
            self.tally_of(waiting.truth).unanswered += 1;
            self.given_up.insert(number, waiting);
        }
        Ok(())
    }

    /// Waits until everything is answered or overdue.
    pub(super) fn finish(&mut self) -> Result<()> {
        while !self.waiting.is_empty() {
            self.listen(Duration::from_millis(20))?;
        }
        Ok(())
    }

    fn take(&mut self, packet: &[u8]) {
        let number = match &self.door {
            Door::Plain => packet
                .first_chunk()
                .map(|id| u64::from(u16::from_be_bytes(*id))),
            Door::Sealed(_) => answered_nonce(packet).ok().and_then(|nonce| {
                let number = nonce.first_chunk()?;
                Some(u64::from_le_bytes(*number))
            }),
        };
        let in_time = number.and_then(|n| self.waiting.remove_entry(&n));
        let is_late = in_time.is_none();
        let late = || number.and_then(|n| self.given_up.remove_entry(&n));
        let Some((number, waiting)) = in_time.or_else(late) else {
            self.tally
                .blame("an answer to a question that nobody waits for".to_owned());
            return;
        };
        let opened = match &self.door {
            Door::Plain => {
                message::check_response(packet, &waiting.query).map(|()| packet.to_vec())
            }
            Door::Sealed(session) => {
                session.open_response(packet.to_vec(), &waiting.query, &nonce(number))
            }
        };
        let verdict = match opened {
            Ok(answer) => judge(&answer, &waiting.name, waiting.truth),
            Err(reason) => Verdict::Wrong(format!("an answer that cannot be used: {reason:?}")),
        };
        let tally = self.tally_of(waiting.truth);
        match verdict {
            Verdict::Wrong(what) => tally.blame(what),
            _ if is_late => {}
            Verdict::Right => {
                tally.right += 1;
                tally.ms.push(waiting.since.elapsed().as_secs_f64() * 1e3);
            }
            Verdict::Refused => tally.refused += 1,
        }
    }
}

enum Verdict {
    Right,
    /// SERVFAIL and its like.
    Refused,
    Wrong(String),
}

fn judge(answer: &[u8], name: &str, truth: Truth) -> Verdict {
    if truth == Truth::Whatever {
        let code = ResponseCode::from_low(message::rcode_low(answer));
        return if is_answer(code) {
            Verdict::Right
        } else {
            Verdict::Refused
        };
    }
    let answer = match Message::from_vec(answer) {
        Ok(answer) => answer,
        Err(error) => return Verdict::Wrong(format!("an answer that cannot be read: {error}")),
    };
    let sections = [&answer.answers, &answer.authorities, &answer.additionals];
    let all = || sections.into_iter().flatten();
    if let Some(record) = all().find(|record| address(record).is_some_and(|a| a == FORGED)) {
        let owner = record.name.to_string();
        let whose = match owner.trim_end_matches('.').eq_ignore_ascii_case(name) {
            true => "the asked name",
            false => "another name",
        };
        return Verdict::Wrong(format!(
            "{whose}, {}, has the liar's address",
            generic(&owner)
        ));
    }
    let code = answer.metadata.response_code;
    let is_answer = is_answer(code);
    let addresses: Vec<String> = answer.answers.iter().filter_map(address).collect();
    let wrong = || Verdict::Wrong(format!("{}: {code}, {addresses:?}", generic(name)));
    match truth {
        Truth::Anything | Truth::Whatever if is_answer => Verdict::Right,
        Truth::Known | Truth::KnownOrNothing if is_answer => match addresses.as_slice() {
            [one] if one == WEB && code == ResponseCode::NoError => Verdict::Right,
            _ if answer.metadata.truncation => Verdict::Refused,
            _ => wrong(),
        },
        Truth::Nothing if is_answer => wrong(),
        Truth::Nothing => Verdict::Right,
        Truth::Known | Truth::KnownOrNothing | Truth::Anything | Truth::Whatever => {
            Verdict::Refused
        }
    }
}

/// Of whatever there is or is not, and no failure.
fn is_answer(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

fn address(record: &Record) -> Option<String> {
    if let RData::A(address) = &record.data {
        Some(address.to_string())
    } else {
        None
    }
}

/// The same for names that differ in their number.
fn generic(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_digit() { '#' } else { c })
        .collect()
}

fn nonce(number: u64) -> ClientNonce {
    let mut nonce = [0x5a; 12];
    for (place, byte) in nonce.iter_mut().zip(number.to_le_bytes()) {
        *place = byte;
    }
    nonce
}

#[cfg(test)]
mod tests {
    use dnscrypt_proxy::proto::message::Query;

    use super::*;

    /// An answer of this code with these addresses.
    fn answer(code: u16, addresses: &[[u8; 4]]) -> Vec<u8> {
        let query = message::query(7, "n1.sealed", A.into(), 1_232).unwrap();
        let mut answer = Query::read(&query).unwrap().refuse(code, None);
        answer.truncate(answer.len() - 11);
        answer[11] = 0;
        for address in addresses {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
            answer.extend(address);
            answer[7] += 1;
        }
        answer
    }

    fn is_wrong(answer: &[u8], truth: Truth) -> bool {
        matches!(judge(answer, "n1.sealed", truth), Verdict::Wrong(_))
    }

    #[test]
    fn another_address_no_address_and_a_denial_are_wrong_and_a_failure_is_not() {
        for truth in [Truth::Known, Truth::KnownOrNothing] {
            assert!(is_wrong(&answer(0, &[[9, 9, 9, 9]]), truth));
            assert!(is_wrong(
                &answer(0, &[[203, 0, 113, 10], [9, 9, 9, 9]]),
                truth
            ));
            assert!(is_wrong(&answer(0, &[]), truth));
            assert!(is_wrong(&answer(3, &[]), truth));
            assert!(!is_wrong(&answer(2, &[]), truth));
            assert!(!is_wrong(&answer(0, &[[203, 0, 113, 10]]), truth));
        }
        assert!(is_wrong(&answer(0, &[[203, 0, 113, 10]]), Truth::Nothing));
        assert!(is_wrong(&answer(0, &[[6, 6, 6, 6]]), Truth::Anything));
        assert!(!is_wrong(&answer(0, &[[9, 9, 9, 9]]), Truth::Anything));
    }

    #[test]
    fn a_failure_is_right_for_a_name_that_nobody_can_prove_and_for_no_other() {
        for truth in [
            Truth::Known,
            Truth::KnownOrNothing,
            Truth::Anything,
            Truth::Whatever,
        ] {
            let failed = judge(&answer(2, &[]), "n1.sealed", truth);
            assert!(matches!(failed, Verdict::Refused), "{truth:?}");
        }
        for truth in [Truth::Anything, Truth::Whatever] {
            for code in [0, 3] {
                let answered = judge(&answer(code, &[]), "n1.sealed", truth);
                assert!(matches!(answered, Verdict::Right), "{truth:?}, {code}");
            }
        }
        let failed = judge(&answer(2, &[]), "n1.sealed", Truth::Nothing);
        assert!(matches!(failed, Verdict::Right));
    }
}
