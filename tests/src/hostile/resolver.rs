//! A DNSCrypt resolver that lies beside the truth: boxes that do not open, that answer others' questions or come twice,
//! and certificates that are over, not yet valid, of another hand or of no shape at all.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dnscrypt_proxy::DnsCryptStamp;
use dnscrypt_proxy::certs::{Certs, Rotation};
use dnscrypt_proxy::clock;
use dnscrypt_proxy::proto::Transport;
use dnscrypt_proxy::proto::cert::{Certificate, System};
use dnscrypt_proxy::proto::message::Query;
use dnscrypt_proxy::proto::server::{KeyCache, Keyring, Opened, open};
use dnscrypt_proxy::proto::stamp::Props;
use ed25519_dalek::SigningKey;
use rand_core::{OsRng, RngCore};
use x25519_dalek::{PublicKey, StaticSecret};

use super::draft::{Draft, Section};
use super::speech::{self, Said, Speech};
use super::{CANARY_ZONE, FORGED_BYTES, Figures, spoil};
use crate::certificates::now_s;
use crate::dice::Dice;
use crate::netns::Netns;

const PROVIDER_NAME: &str = "2.dnscrypt-cert.liar.example";
/// Keys are replaced this often, and the old ones forgotten: whoever has these asks for certificates again.
const ROTATION: Duration = Duration::from_secs(10);
const KEPT_KEYS: usize = 1_024;
const REPLAYED: usize = 64;
/// A question that nothing true is said to takes one of the stub's 256 places for seconds.
const TRUTHS: f64 = 0.98;
const HOUR_S: u32 = 3_600;
const RIGHT: [u8; 4] = [203, 0, 113, 10];
const OWN: [u8; 4] = [203, 0, 113, 99];
const A: u16 = 1;
const TC: u8 = 2;
const LASTING_S: u32 = 86_400;
const LARGEST: usize = 4_096;
const BOX_HEADER: usize = 32;

/// It answers while it lives.
pub(super) struct LyingResolver {
    pub(super) stamp: String,
    _speech: Speech,
}

impl LyingResolver {
    pub(super) fn start(
        netns: &Netns,
        listen: SocketAddr,
        figures: &Arc<Figures>,
        dice: &mut Dice,
    ) -> Result<Self> {
        let (udp, tcp) = netns.enter(|| {
            let udp = UdpSocket::bind(listen).context("binding the lying resolver")?;
            let tcp = TcpListener::bind(listen).context("binding the lying resolver")?;
            Ok((udp, tcp))
        })?;
        let mut seed = [0; 32];
        OsRng.fill_bytes(&mut seed);
        let provider = SigningKey::from_bytes(&seed);
        let stamp = DnsCryptStamp {
            props: Props::default(),
            addr: listen,
            provider_key: provider.verifying_key().to_bytes(),
            provider_name: PROVIDER_NAME.to_owned(),
        };
        let keys = Arc::new(Mutex::new(Keys::new(provider)?));
        let mut mouth = || Mouth {
            dice: Dice::new(dice.roll(u64::MAX)),
            figures: Arc::clone(figures),
            keys: Arc::clone(&keys),
            cache: KeyCache::new(KEPT_KEYS),
            said: VecDeque::new(),
        };
        let (mut one, mut other) = (mouth(), mouth());
        let mut speech = Speech::default();
        speech.over_udp(udp, figures, move |packet| {
            one.answers(packet, Transport::Udp).unwrap_or_default()
        })?;
        speech.over_tcp(tcp, move |stream| converse(stream, &mut other))?;
        Ok(Self {
            stamp: stamp.to_string(),
            _speech: speech,
        })
    }
}

/// Over TCP the first frame counts: it is a lie in one case of four.
fn converse(mut stream: TcpStream, mouth: &mut Mouth) -> Result<()> {
    let packet = speech::question(&mut stream)?;
    let said = mouth.answers(&packet, Transport::Tcp)?;
    let lie = said.lies.first().filter(|_| mouth.dice.happens(0.25));
    let answer = lie.or(said.truth.as_ref()).or(said.lies.last());
    let answer = answer.context("nothing to say")?;
    let len = u16::try_from(answer.len())?;
    let told = if lie.is_some() && mouth.dice.happens(0.3) {
        len.wrapping_add(7)
    } else {
        len
    };
    stream.write_all(&told.to_be_bytes())?;
    stream.write_all(answer)?;
    mouth.figures.told(lie.is_some() || said.truth.is_none());
    Ok(())
}

/// True keys, and certificates that nobody may use.
struct Keys {
    provider: SigningKey,
    ring: Arc<Keyring>,
    false_certs: Vec<Vec<u8>>,
    false_magics: Vec<[u8; 8]>,
    made: Instant,
}

impl Keys {
    fn new(provider: SigningKey) -> Result<Self> {
        let mut keys = Self {
            provider,
            ring: Arc::default(),
            false_certs: Vec::new(),
            false_magics: Vec::new(),
            made: Instant::now(),
        };
        keys.renew()?;
        Ok(keys)
    }

    fn renew(&mut self) -> Result<()> {
        let certs = Certs::signing(self.provider.clone(), Rotation::default(), clock::system())?;
        self.ring = Arc::clone(&certs.keyring().borrow());
        self.made = Instant::now();
        let now = u32::try_from(now_s()?).context("a clock after 2106")?;
        let mut other = [0; 32];
        OsRng.fill_bytes(&mut other);
        let other = SigningKey::from_bytes(&other);
        let valid = [now - HOUR_S, now + HOUR_S];
        self.false_certs.clear();
        self.false_magics.clear();
        for (by, magic, [start, end]) in [
            (&self.provider, *b"expired!", [now - HOUR_S, now - 60]),
            (&self.provider, *b"not yet!", [now + 60, now + HOUR_S]),
            (&self.provider, *b"backward", [now + HOUR_S, now - HOUR_S]),
            (&self.provider, [0, 0, 0, 0, 0, 0, 0, 1], valid),
            (&self.provider, [0xff; 8], valid),
            (&other, *b"stranger", valid),
        ] {
            let cert = Certificate {
                system: System::XChaCha20Poly1305,
                resolver_key: PublicKey::from(&StaticSecret::random_from_rng(OsRng))
                    .to_bytes()
                    .to_vec(),
                magic,
                serial: u32::MAX,
                start,
                end,
                minor: 0,
            };
            self.false_certs.push(cert.sign(by));
            self.false_magics.push(magic);
        }
        Ok(())
    }
}

struct Mouth {
    dice: Dice,
    figures: Arc<Figures>,
    // Contended by two threads, for a clone each question.
    keys: Arc<Mutex<Keys>>,
    cache: KeyCache,
    /// Boxes that were true when they were said.
    said: VecDeque<Vec<u8>>,
}

impl Mouth {
    fn answers(&mut self, packet: &[u8], transport: Transport) -> Result<Said> {
        let keys = Arc::clone(&self.keys);
        let mut keys = keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.made.elapsed() > ROTATION {
            keys.renew()?;
        }
        if keys
            .false_magics
            .iter()
            .any(|magic| packet.starts_with(magic))
        {
            self.figures.fooled.fetch_add(1, Ordering::Relaxed);
        }
        let ring = Arc::clone(&keys.ring);
        let said = if ring.claims(packet) {
            drop(keys);
            self.boxes(&ring, packet, transport)
        } else {
            self.certificates(&keys, packet, transport)
        };
        Ok(said.unwrap_or_default())
    }

    fn certificates(&mut self, keys: &Keys, packet: &[u8], transport: Transport) -> Option<Said> {
        let query = Query::read(packet).ok()?;
        let now = now_s().ok()?;
        let truth = keys
            .ring
            .cert_answer(&query, packet.len(), transport, HOUR_S, now);
        let mut lies = Vec::new();
        for _ in 0..=self.dice.roll(4) {
            let mut lie = truth.clone();
            match self.dice.roll(3) {
                // A forger who guesses the id: right question, false certificates.
                0 => {
                    let certs: Vec<&[u8]> = keys.false_certs.iter().map(Vec::as_slice).collect();
                    lie = query.answer_txt(&certs, HOUR_S);
                    if self.dice.happens(0.8) {
                        spoil::put(&mut lie, 0, &[spoil::byte(&mut self.dice)]);
                    }
                }
                1 => spoil::message(&mut lie, &mut self.dice),
                _ => {
                    let all = 12..lie.len();
                    spoil::flip(&mut lie, all, &mut self.dice);
                }
            }
            lies.push(lie);
        }
        let mut said = truth;
        if self.dice.happens(0.5) {
            let mut certs: Vec<&[u8]> = keys.false_certs.iter().map(Vec::as_slice).collect();
            let [first, ..] = keys.ring.advertised(now)[..] else {
                return None;
            };
            certs.insert(spoil::place(&mut self.dice, certs.len()), first);
            said = query.answer_txt(&certs, HOUR_S);
        }
        Some(Said {
            lies,
            truth: Some(said),
        })
    }

    fn boxes(&mut self, ring: &Keyring, packet: &[u8], transport: Transport) -> Option<Said> {
        let mut sealer = Sealer {
            ring,
            cache: &mut self.cache,
            packet,
            transport,
            now: now_s().ok()?,
        };
        let name = sealer.name()?;
        let own = name.to_lowercase();
        let is_canary = own.ends_with(&format!(".{CANARY_ZONE}."));
        let address = if is_canary { RIGHT } else { OWN };
        let truth = sealer.seal(|draft| with_address(draft, address).bytes())?;
        // Another name: what is said of the asked one in its own box is believed, and rightly.
        let victim = loop {
            let victim = format!("n{}.{CANARY_ZONE}.", self.dice.roll(400));
            if victim != own {
                break victim;
            }
        };
        let dice = &mut self.dice;
        let mut lies = Vec::new();
        for _ in 0..=dice.roll(3) {
            lies.push(match dice.roll(if is_canary { 8 } else { 12 }) {
                0..=3 => broken(truth.clone(), dice),
                4 => self.said.pop_front().unwrap_or_default(),
                5..=7 => sealer.seal(|draft| of_another(draft, &victim, dice))?,
                _ => sealer.seal(|draft| of_its_own(draft, &victim, dice))?,
            });
        }
        self.said.push_back(truth.clone());
        if self.said.len() > REPLAYED {
            self.said.pop_front();
        }
        let is_told = is_canary || dice.happens(TRUTHS);
        Some(Said {
            lies,
            truth: is_told.then_some(truth),
        })
    }
}

/// Seals as many answers to one query as are wanted.
struct Sealer<'a> {
    ring: &'a Keyring,
    cache: &'a mut KeyCache,
    packet: &'a [u8],
    transport: Transport,
    now: u64,
}

impl Sealer<'_> {
    fn open(&mut self) -> Option<Opened> {
        let packet = self.packet.to_vec();
        open(self.ring, self.cache, packet, self.transport, self.now).ok()
    }

    fn name(&mut self) -> Option<String> {
        Draft::to(&self.open()?.query).map(|(_, name)| name)
    }

    fn seal(&mut self, answer: impl FnOnce(Draft) -> Vec<u8>) -> Option<Vec<u8>> {
        let opened = self.open()?;
        let (draft, _) = Draft::to(&opened.query)?;
        let sealed = opened.reply.seal(answer(draft), &opened.query, OsRng);
        Some(sealed.packet)
    }
}

/// A box that does not open, or is none.
fn broken(mut packet: Vec<u8>, dice: &mut Dice) -> Vec<u8> {
    let whole = packet.len();
    match dice.roll(4) {
        0 => spoil::flip(&mut packet, BOX_HEADER..whole, dice),
        1 => spoil::flip(&mut packet, 0..BOX_HEADER, dice),
        2 => packet.truncate(spoil::place(dice, whole)),
        _ => {
            let more = 1 + spoil::place(dice, LARGEST);
            spoil::noise(&mut packet, more, dice);
        }
    }
    packet
}

/// What answers another question, or none: whoever asked waits on.
fn of_another(mut draft: Draft, victim: &str, dice: &mut Dice) -> Vec<u8> {
    match dice.roll(3) {
        0 => draft.question_of(victim),
        1 => draft.id[0] ^= 0x55,
        _ => draft.flags[0] = 1,
    }
    with_address(draft, FORGED_BYTES).bytes()
}

/// What answers the question, and says more than was asked, less than there is, or nothing that can be read.
fn of_its_own(mut draft: Draft, victim: &str, dice: &mut Dice) -> Vec<u8> {
    match dice.roll(3) {
        0 => {
            draft = with_address(draft, OWN);
            for section in [Section::Answer, Section::Authority, Section::Additional] {
                draft.address(section, victim, LASTING_S, FORGED_BYTES);
            }
        }
        1 => draft.flags[0] |= TC,
        _ => {
            let mut bytes = with_address(draft, OWN).bytes();
            spoil::message(&mut bytes, dice);
            return bytes;
        }
    }
    draft.bytes()
}

fn with_address(mut draft: Draft, address: [u8; 4]) -> Draft {
    if draft.kind == A {
        draft.own_address(if address == OWN { LASTING_S } else { 1 }, address);
    }
    draft
}
