//! The name server of two zones, which lies: in all the ways in which a resolver can be led to believe something about
//! other zones, or about a signed one, that is not so. And a resolver that others forward to, with forgers beside it.

use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dnscrypt_proxy::proto::Transport;
use hickory_proto::op::Message;
use hickory_proto::rr::RData;

use super::draft::{Draft, Section};
use super::speech::{self, Said, Speech};
use super::{Figures, spoil};
use crate::dice::Dice;
use crate::netns::Netns;
use crate::topology::{LIAR, ZONE_SERVER};
use crate::zones::{EVIL_ZONE, MANY_NAMES, MANY_UNSIGNED_NAMES, SEALED_ZONE};

/// How long the true server may think.
const PATIENCE: Duration = Duration::from_millis(500);
/// Questions about its zones, and not about names in them, that are answered with the truth at first.
const HONEST: u32 = 200;
/// True answers that are kept.
const KEPT: usize = 4_096;
const LARGEST: usize = 4_096;
/// Lies to one question at most.
const MOST: u64 = 6;
/// One question in so many gets the truth behind the lies; another part gets nothing at all.
const TRUTHS: f64 = 0.4;
const SILENCES: f64 = 0.02;
const LASTING_S: u32 = 86_400;
/// Of a forwarder's answers: those that somebody guesses at, and those that tell more than was asked.
const GUESSES: f64 = 0.1;
const FOREIGN: f64 = 0.5;
const OWN: [u8; 4] = [203, 0, 113, 99];
const RIGHT: [u8; 4] = [203, 0, 113, 10];
const RRSIG: u16 = 46;
const NS: u16 = 2;
const A: u16 = 1;
const CNAME: u16 = 5;
const DNAME: u16 = 39;
const SOA: u16 = 6;
const TC: u8 = 2;
const TCP_THREADS: usize = 4;

/// As what it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The only server of two zones.
    NameServer,
    /// The one that is asked for everything. It may say what it likes about one zone; all other names have the web server's
    /// address, and what guesses at those questions is another's.
    Forwarder,
}

/// It lies while it lives.
pub(super) struct Liar {
    _speech: Speech,
}

impl Liar {
    pub(super) fn start(
        netns: &Netns,
        role: Role,
        figures: &Arc<Figures>,
        dice: &mut Dice,
    ) -> Result<Self> {
        let at: SocketAddr = format!("{LIAR}:53").parse().context("an address")?;
        let (udp, tcp) = netns.enter(|| {
            let udp = UdpSocket::bind(at).context("binding the liar")?;
            let tcp = TcpListener::bind(at).context("binding the liar")?;
            Ok((udp, tcp))
        })?;
        let mut speech = Speech::default();
        for _ in 0..TCP_THREADS {
            let mut tongue = Tongue::new(netns, role, figures, dice)?;
            let tcp = tcp.try_clone().context("sharing a listener")?;
            speech.over_tcp(tcp, move |stream| converse(stream, &mut tongue))?;
        }
        let mut tongue = Tongue::new(netns, role, figures, dice)?;
        speech.over_udp(udp, figures, move |query| {
            tongue.answers(query, Transport::Udp)
        })?;
        Ok(Self { _speech: speech })
    }
}

/// Questions, and answers in frames; those of a name server are not all what they say, and it hears one question.
fn converse(mut stream: TcpStream, tongue: &mut Tongue) -> Result<()> {
    loop {
        let query = speech::question(&mut stream)?;
        let said = tongue.answers(&query, Transport::Tcp);
        for lie in said.lies {
            tongue.frame(&mut stream, &lie)?;
            tongue.figures.told(true);
        }
        if let Some(truth) = said.truth {
            tongue.frame(&mut stream, &truth)?;
        }
        if tongue.role == Role::NameServer {
            return Ok(());
        }
    }
}

/// What is said to a question.
struct Tongue {
    role: Role,
    dice: Dice,
    /// Questions about its zones that are still answered with the truth.
    honest: u32,
    figures: Arc<Figures>,
    /// Its own: an answer to another tongue never comes here.
    asking: UdpSocket,
    /// What the zone's true server said.
    truths: HashMap<Vec<u8>, Vec<u8>>,
}

impl Tongue {
    fn new(netns: &Netns, role: Role, figures: &Arc<Figures>, dice: &mut Dice) -> Result<Self> {
        let asking = netns.enter(|| {
            let asking = UdpSocket::bind((LIAR, 0)).context("binding UDP")?;
            asking
                .connect((ZONE_SERVER, 53))
                .context("connecting UDP")?;
            Ok(asking)
        })?;
        Ok(Self {
            role,
            dice: Dice::new(dice.roll(u64::MAX)),
            honest: HONEST,
            figures: Arc::clone(figures),
            asking,
            truths: HashMap::new(),
        })
    }

    fn answers(&mut self, query: &[u8], transport: Transport) -> Said {
        let mut said = Said::default();
        let Some((draft, name)) = Draft::to(query) else {
            return said;
        };
        let lower = name.to_lowercase();
        let is_below = |zone: &str| {
            let zone = format!("{zone}.");
            lower == zone || lower.ends_with(&format!(".{zone}"))
        };
        if self.role == Role::Forwarder && !is_below(EVIL_ZONE) {
            return self.guesses(&draft, &lower, transport);
        }
        if let Some(truth) = self.about_itself(query, &draft, &lower) {
            said.truth = Some(truth);
            return said;
        }
        let is_sealed = is_below(SEALED_ZONE);
        if !is_sealed && !is_below(EVIL_ZONE) {
            self.figures.stray(&lower);
        }
        if self.dice.happens(SILENCES) {
            return said;
        }
        for _ in 0..=self.dice.roll(MOST) {
            let lie = match is_sealed {
                true if self.dice.happens(0.8) => self.about_what_is_signed(query),
                _ => Some(self.about_others(draft.clone(), &lower)),
            };
            said.lies.extend(lie);
        }
        if self.dice.happens(TRUTHS) {
            said.truth = match is_sealed {
                true => self.truth(query),
                false => Some(own(draft).bytes()),
            };
        }
        said
    }

    /// What forgers say who see nothing of a question but that it was asked, and the truth. Over TCP nobody guesses.
    fn guesses(&mut self, draft: &Draft, name: &str, transport: Transport) -> Said {
        let mut said = Said::default();
        if transport == Transport::Udp && self.dice.happens(GUESSES) {
            for _ in 0..=self.dice.roll(MOST) {
                said.lies.push(self.guess(draft.clone(), name));
            }
        }
        let mut truth = draft.clone();
        if truth.kind == A {
            truth.own_address(1, RIGHT);
        }
        if self.dice.happens(FOREIGN) {
            // The truth of what was asked, and more than was asked.
            for section in [Section::Answer, Section::Authority, Section::Additional] {
                let victim = self.victim_but(name);
                truth.address(section, &victim, LASTING_S, super::FORGED_BYTES);
            }
            self.take_over(&mut truth);
            said.lies.push(truth.bytes());
        } else {
            said.truth = Some(truth.bytes());
        }
        said
    }

    /// Nearly an answer to the question.
    fn guess(&mut self, mut draft: Draft, name: &str) -> Vec<u8> {
        let victim = self.victim_but(name);
        let whole = |mut draft: Draft| {
            draft.own_address(LASTING_S, super::FORGED_BYTES);
            draft.bytes()
        };
        match self.dice.roll(6) {
            0 => draft.id[spoil::place(&mut self.dice, 2)] ^= 1 << self.dice.roll(8),
            1 => draft.question_of(&victim),
            2 => draft.respell(spoil::place(&mut self.dice, 64)),
            3 => draft.flags[0] = 1,
            4 => draft.flags[0] |= TC,
            _ => {
                let mut bytes = whole(draft);
                bytes.truncate(spoil::place(&mut self.dice, bytes.len()));
                return bytes;
            }
        }
        whole(draft)
    }

    fn frame(&mut self, stream: &mut TcpStream, answer: &[u8]) -> Result<()> {
        let len = u16::try_from(answer.len())?;
        let told = match self.dice.roll(8) {
            _ if self.role == Role::Forwarder => len,
            0 => len.wrapping_add(1),
            1 => len / 2,
            2 => 0,
            3 => u16::MAX,
            _ => len,
        };
        stream.write_all(&told.to_be_bytes())?;
        stream.write_all(answer)?;
        Ok(())
    }

    /// Records of names that are not this server's, or the same with more turns.
    fn about_others(&mut self, mut draft: Draft, name: &str) -> Vec<u8> {
        let victim = self.victim();
        let poisoned = |draft: &mut Draft, section| {
            draft.address(section, &victim, LASTING_S, super::FORGED_BYTES);
        };
        match self.dice.roll(15) {
            12.. => return self.damaged(draft),
            0 => {
                draft = own(draft);
                poisoned(&mut draft, Section::Additional);
                self.take_over(&mut draft);
            }
            1 => {
                draft = own(draft);
                poisoned(&mut draft, Section::Answer);
            }
            2 => {
                draft.named(Section::Answer, name, CNAME, LASTING_S, &victim);
                poisoned(&mut draft, Section::Answer);
            }
            3 => self.take_over(&mut draft),
            4 => {
                // A delegation within the zone, to a server outside of it that is said to be here.
                draft.named(Section::Authority, name, NS, LASTING_S, "ns.plain.");
                draft.address(Section::Additional, "ns.plain.", LASTING_S, self.here());
            }
            5 => {
                draft.question_of(&victim);
                poisoned(&mut draft, Section::Answer);
            }
            6 => {
                draft = own(draft);
                draft.id = [spoil::byte(&mut self.dice), spoil::byte(&mut self.dice)];
            }
            7 => {
                draft = own(draft);
                draft.flags[0] = spoil::byte(&mut self.dice);
                poisoned(&mut draft, Section::Answer);
            }
            8 => {
                draft.named(Section::Answer, name, DNAME, LASTING_S, "plain.");
                poisoned(&mut draft, Section::Answer);
            }
            9 => {
                // No end to it: each name is another one's alias, or its servers have names of that kind.
                let next = format!("r{}.{EVIL_ZONE}.", self.dice.roll(1 << 40));
                let (section, kind) = match self.dice.happens(0.7) {
                    true => (Section::Answer, CNAME),
                    false => (Section::Authority, NS),
                };
                draft.named(section, name, kind, 1, &next);
            }
            10 => {
                // A denial of somebody else's name.
                draft.flags[1] = 3;
                draft.soa(
                    ["plain.", "lab.", "."][spoil::place(&mut self.dice, 3)],
                    SOA,
                );
            }
            _ => {
                draft.flags[0] |= TC;
                poisoned(&mut draft, Section::Answer);
            }
        }
        draft.bytes()
    }

    /// No message any more, or one whose names lead nowhere.
    fn damaged(&mut self, draft: Draft) -> Vec<u8> {
        let mut bytes = own(draft.clone()).bytes();
        match self.dice.roll(3) {
            0 => return self.looped(draft),
            1 => bytes.truncate(spoil::place(&mut self.dice, bytes.len())),
            _ => spoil::message(&mut bytes, &mut self.dice),
        }
        bytes
    }

    /// Says that others' zones have moved here.
    fn take_over(&mut self, draft: &mut Draft) {
        let zone = ["plain.", "many.plain.", "lab.", ".", "sealed.", "bogus."];
        let zone = zone[spoil::place(&mut self.dice, zone.len())];
        draft.named(Section::Authority, zone, NS, LASTING_S, "ns.evil.");
        for server in ["ns.evil.", "ns.plain.", "ns.lab.", "ns-root."] {
            draft.address(Section::Additional, server, LASTING_S, self.here());
        }
    }

    /// Names that point to themselves, to each other, ahead, and out of the message.
    fn looped(&mut self, draft: Draft) -> Vec<u8> {
        let mut bytes = own(draft).bytes();
        let end = bytes.len();
        let pointer = |to: usize| (0xc000 | u16::try_from(to).unwrap_or(0x3fff)).to_be_bytes();
        let owner = match self.dice.roll(5) {
            0 => pointer(end).to_vec(),
            1 => [pointer(end + 2), pointer(end)].concat(),
            2 => [&[1, b'a'][..], &pointer(end)].concat(),
            3 => pointer(end + 40).to_vec(),
            _ => pointer(0x3fff).to_vec(),
        };
        bytes.extend(owner);
        bytes.extend([0, 5, 0, 1, 0, 0, 1, 44, 0, 2]);
        bytes.extend(pointer(end));
        if let Some(count) = bytes.get_mut(7) {
            *count += 1;
        }
        bytes
    }

    /// The true answer of a signed zone with something changed.
    fn about_what_is_signed(&mut self, query: &[u8]) -> Option<Vec<u8>> {
        let truth = self.truth(query)?;
        let mut bytes = truth.clone();
        let mut message = Message::from_vec(&truth).ok()?;
        let is_signature = |kind: u16| kind == RRSIG;
        match self.dice.roll(8) {
            0 | 1 => {
                for record in &mut message.answers {
                    if let RData::A(address) = &mut record.data {
                        address.0 = super::FORGED_BYTES.into();
                    }
                }
                if self.dice.happens(0.5) {
                    let kept = |record: &hickory_proto::rr::Record| {
                        !is_signature(record.record_type().into())
                    };
                    message.answers.retain(kept);
                    message.authorities.retain(kept);
                }
            }
            2 => message.answers.clear(),
            3 => {
                message.answers.clear();
                message.metadata.response_code = hickory_proto::op::ResponseCode::NXDomain;
                if self.dice.happens(0.5) {
                    message.authorities.clear();
                }
            }
            4 => message.authorities.clear(),
            5 => message
                .answers
                .retain(|record| !is_signature(record.record_type().into())),
            6 => {
                let after = 12..bytes.len();
                spoil::flip(&mut bytes, after, &mut self.dice);
                return Some(bytes);
            }
            _ => {
                spoil::message(&mut bytes, &mut self.dice);
                return Some(bytes);
            }
        }
        message.metadata.authentic_data = true;
        message.to_vec().ok()
    }

    /// What the zone's true server says.
    fn truth(&mut self, query: &[u8]) -> Option<Vec<u8>> {
        let (id, rest) = query.split_at_checked(2)?;
        let mut answer = match self.truths.get(rest) {
            Some(known) => known.clone(),
            None => {
                let answer = self.ask(query)?;
                if self.truths.len() >= KEPT {
                    self.truths.clear();
                }
                self.truths.insert(rest.to_vec(), answer.clone());
                answer
            }
        };
        spoil::put(&mut answer, 0, id);
        Some(answer)
    }

    /// Asks the zone's true server; what is late, or answers something else, is passed over.
    fn ask(&self, query: &[u8]) -> Option<Vec<u8>> {
        let asked = Message::from_vec(query).ok()?;
        let is_it = |answer: &Message| {
            answer.metadata.id == asked.metadata.id && answer.queries == asked.queries
        };
        self.asking.send(query).ok()?;
        let (until, mut buffer) = (Instant::now() + PATIENCE, [0; LARGEST]);
        loop {
            let left = until.checked_duration_since(Instant::now())?;
            self.asking
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .ok()?;
            let len = self.asking.recv(&mut buffer).ok()?;
            let answer = buffer.get(..len)?;
            if Message::from_vec(answer).is_ok_and(|answer| is_it(&answer)) {
                return Some(answer.to_vec());
            }
        }
    }

    /// Another name than this one.
    fn victim_but(&mut self, name: &str) -> String {
        loop {
            let victim = self.victim();
            if victim != name {
                return victim;
            }
        }
    }

    fn victim(&mut self) -> String {
        let n = self.dice.roll(400);
        match self.dice.roll(6) {
            0 => "www.plain.".to_owned(),
            1 => "ns.plain.".to_owned(),
            2 => format!("n{n}.{MANY_NAMES}."),
            3 => format!("n{n}.{SEALED_ZONE}."),
            _ => format!("n{n}.{MANY_UNSIGNED_NAMES}."),
        }
    }

    /// Of its zones and where it is, which it does not lie about before it has been asked for a while: whom nobody believes
    /// to be a name server, or whose keys fail, nobody asks again.
    fn about_itself(&mut self, query: &[u8], draft: &Draft, name: &str) -> Option<Vec<u8>> {
        let is_own = [SEALED_ZONE, EVIL_ZONE]
            .iter()
            .any(|zone| name == format!("{zone}.") || name == format!("ns.{zone}."));
        if !is_own || self.honest == 0 {
            return None;
        }
        self.honest -= 1;
        if name.ends_with(&format!("{SEALED_ZONE}.")) {
            return self.truth(query);
        }
        let (mut draft, zone) = (draft.clone(), format!("{EVIL_ZONE}."));
        match (draft.kind, name == zone) {
            (A, false) => draft.own_address(LASTING_S, self.here()),
            (NS, true) => draft.named(Section::Answer, &zone, NS, LASTING_S, "ns.evil."),
            _ => draft.soa(&zone, SOA),
        }
        Some(draft.bytes())
    }

    fn here(&self) -> [u8; 4] {
        LIAR.parse::<std::net::Ipv4Addr>()
            .map_or(OWN, |ip| ip.octets())
    }
}

/// What this server may say of its own names.
fn own(mut draft: Draft) -> Draft {
    if draft.kind == A {
        draft.own_address(1, OWN);
    }
    draft
}
