//! What a load asks: packets made ahead, so that the load costs little, and how their answers are read.

use std::borrow::Borrow;

use anyhow::{Context, Result, ensure};
use dnscrypt_proxy::proto::cert::Certificate;
use dnscrypt_proxy::proto::client::{
    Asked, ClientKeys, ClientNonce, PqSession, QueryPadding, RESOLVER_MAGIC, Session,
};
use dnscrypt_proxy::proto::message;
use rand_core::{OsRng, RngCore};

use crate::certificates::{now_s, refused};
use crate::zones::{MANY_NAMES, WILD_NAMES};

/// Packets that are sent again from the first when the last was sent: as many as plain DNS has ids.
pub(super) const AGAIN: usize = 65_536;
/// The least that clients pad to over UDP, the whole packet counted.
const PADDING: QueryPadding = QueryPadding::Udp { target: 256 };
/// Names that are asked for again and again.
const KNOWN: usize = 256;
/// The id of every sealed message: its nonce tells it apart.
const SEALED_ID: u16 = 0x4242;
const UDP_SIZE: u16 = 1_232;
const A: u16 = 1;

/// Which names are asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Names {
    /// A few, over and over.
    Known,
    /// In each question one that was never asked for before in this run of the bench.
    New {
        /// What no other set of questions has.
        run: usize,
    },
}

impl Names {
    fn message(self, id: u16, place: usize) -> Result<Vec<u8>> {
        let name = match self {
            Self::Known => format!("n{}.{MANY_NAMES}", place % KNOWN),
            Self::New { run } => format!("r{run}n{place}.{WILD_NAMES}"),
        };
        message::query(id, &name, A.into(), UDP_SIZE).map_err(refused("writing a query"))
    }

    fn lasting(self) -> Use {
        match self {
            Self::Known => Use::Again,
            Self::New { .. } => Use::Once,
        }
    }
}

/// Whether a packet may be sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Again,
    Once,
}

/// Packets in the order of their places, which their answers name.
pub(super) struct Questions {
    packets: Vec<Vec<u8>>,
    names: Names,
    lasting: Use,
    /// The end of every nonce: answers to another set are nobody's.
    salt: [u8; 4],
    opener: Opener,
}

/// What answers are opened with.
enum Opener {
    /// Nothing is sealed; the id is the place.
    Plain,
    /// One session for all, or one for each place.
    Sealed(Vec<Session>),
    PostQuantum(Vec<Asked>),
}

impl Questions {
    /// Plain DNS.
    pub(super) fn plain(names: Names, count: usize) -> Result<Self> {
        let packets = (0..count.min(AGAIN)).map(|place| names.message(plain_id(place), place));
        Ok(Self {
            packets: packets.collect::<Result<_>>()?,
            names,
            lasting: names.lasting(),
            salt: [0; 4],
            opener: Opener::Plain,
        })
    }

    /// Of one client under a classical certificate.
    pub(super) fn sealed(cert: &Certificate, names: Names, count: usize) -> Result<Self> {
        let session = Session::new(cert, &ClientKeys::generate(OsRng))?;
        let salt = salt();
        let packets = (0..count).map(|place| {
            let message = names.message(SEALED_ID, place)?;
            Ok(session.seal_query(&message, &nonce(place, salt), PADDING)?)
        });
        Ok(Self {
            packets: packets.collect::<Result<_>>()?,
            names,
            lasting: names.lasting(),
            salt,
            opener: Opener::Sealed(vec![session]),
        })
    }

    /// Each of a client that was never seen before, under a classical certificate.
    pub(super) fn new_keys(cert: &Certificate, count: usize) -> Result<Self> {
        let (names, salt) = (Names::Known, salt());
        let (mut packets, mut sessions) = (Vec::new(), Vec::new());
        for place in 0..count {
            let session = Session::new(cert, &ClientKeys::generate(OsRng))?;
            let message = names.message(SEALED_ID, place)?;
            packets.push(session.seal_query(&message, &nonce(place, salt), PADDING)?);
            sessions.push(session);
        }
        Ok(Self {
            packets,
            names,
            lasting: Use::Once,
            salt,
            opener: Opener::Sealed(sessions),
        })
    }

    /// Each with a ciphertext of its own, under a post-quantum certificate.
    pub(super) fn post_quantum(cert: &Certificate, count: usize) -> Result<Self> {
        let sessions = (0..count).map(|_| -> Result<_> { Ok(PqSession::new(cert, OsRng)?) });
        Self::of_sessions(sessions, Use::Once)
    }

    /// Of one client that has a ticket.
    pub(super) fn resumed(session: &PqSession, count: usize) -> Result<Self> {
        Self::of_sessions((0..count).map(|_| Ok(session)), Use::Again)
    }

    fn of_sessions(
        sessions: impl Iterator<Item = Result<impl Borrow<PqSession>>>,
        lasting: Use,
    ) -> Result<Self> {
        let (names, salt, now) = (Names::Known, salt(), now_s()?);
        let (mut packets, mut asked) = (Vec::new(), Vec::new());
        for (place, session) in sessions.enumerate() {
            let message = names.message(SEALED_ID, place)?;
            let nonce = nonce(place, salt);
            let query = session?
                .borrow()
                .seal_query(&message, &nonce, PADDING, now)?;
            packets.push(query.packet);
            asked.push(query.asked);
        }
        Ok(Self {
            packets,
            names,
            lasting,
            salt,
            opener: Opener::PostQuantum(asked),
        })
    }

    /// How many different ones there are.
    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether whoever is asked has to ask upstream.
    pub(super) fn are_misses(&self) -> bool {
        matches!(self.names, Names::New { .. })
    }

    /// How many may still be sent after so many.
    pub(super) fn left(&self, sent: usize) -> usize {
        match self.lasting {
            Use::Again => usize::MAX,
            Use::Once => self.len().saturating_sub(sent),
        }
    }

    /// The packet of a place.
    pub(super) fn packet(&self, place: usize) -> &[u8] {
        self.packets.get(place).map_or(&[], Vec::as_slice)
    }

    /// Which place an answer belongs to.
    pub(super) fn place_of(&self, answer: &[u8]) -> Option<usize> {
        if matches!(self.opener, Opener::Plain) {
            return answer
                .first_chunk()
                .copied()
                .map(u16::from_be_bytes)
                .map(usize::from);
        }
        let rest = answer.strip_prefix(&RESOLVER_MAGIC)?;
        let (place, rest) = rest.split_first_chunk()?;
        rest.starts_with(&self.salt)
            .then(|| usize::try_from(u64::from_le_bytes(*place)).ok())?
    }

    /// Opens an answer and makes sure that it has what was asked for.
    pub(super) fn read(&self, place: usize, answer: &[u8]) -> Result<()> {
        let message = match self.opener {
            Opener::Plain => self.names.message(plain_id(place), place)?,
            Opener::Sealed(_) | Opener::PostQuantum(_) => self.names.message(SEALED_ID, place)?,
        };
        let sealed = answer.to_vec();
        let opened = match &self.opener {
            Opener::Plain => message::check_response(answer, &message).map(|()| sealed),
            Opener::Sealed(sessions) => {
                let session = sessions.get(place).or(sessions.first());
                let session = session.context("an answer to nobody")?;
                session.open_response(sealed, &message, &nonce(place, self.salt))
            }
            Opener::PostQuantum(asked) => {
                let asked = asked.get(place).context("an answer to nobody")?;
                let answer = asked.open_response(sealed, &message, now_s()?);
                answer.map(|answer| answer.message)
            }
        };
        let opened = opened.map_err(refused("opening an answer"))?;
        let answers = opened.get(6..8).is_some_and(|count| count != [0, 0]);
        ensure!(
            message::rcode_low(&opened) == 0 && answers,
            "an answer without an address, code {}",
            message::rcode_low(&opened)
        );
        Ok(())
    }
}

fn plain_id(place: usize) -> u16 {
    u16::try_from(place % AGAIN).unwrap_or_default()
}

/// Never used twice by one session: places differ within a set, salts between sets.
fn nonce(place: usize, salt: [u8; 4]) -> ClientNonce {
    let mut nonce = [0; 12];
    let (first, rest) = nonce.split_at_mut(8);
    first.copy_from_slice(&(place as u64).to_le_bytes());
    rest.copy_from_slice(&salt);
    nonce
}

fn salt() -> [u8; 4] {
    // Not the end of the ticket's nonce.
    (OsRng.next_u32() >> 1).to_be_bytes()
}
