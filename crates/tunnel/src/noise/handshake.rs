//! The handshake: Noise IKpsk2 over X25519, ChaCha20-Poly1305 and BLAKE2s (whitepaper, sections 5.4.1 to 5.4.5).

use std::fmt;
use std::time::{Duration, Instant};

use rand_core::OsRng;
use x25519_dalek::{PublicKey, SharedSecret, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::cipher::{SessionKey, TAG_BYTES, open_once, seal_once};
use super::cookie::mac_key;
use super::hash::{derive, hash};
use super::word;
use crate::dropped::Dropped;

pub(crate) const INITIATION_BYTES: usize = 148;
pub(super) const RESPONSE_BYTES: usize = 92;

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";
/// TAI64's label of 1970 with the ten leap seconds until then.
const TAI64_1970: u64 = (1 << 62) + 10;
/// Times are told no finer than this, so that they tell nothing of the machine.
const STAMP_GRAIN: u32 = 1 << 24;
const STAMP_BYTES: usize = 12;

/// A time as TAI64N: only that each is later than the one before matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    seconds: u64,
    nanoseconds: u32,
}

impl Stamp {
    fn of(since_1970: Duration) -> Self {
        Self {
            seconds: TAI64_1970 + since_1970.as_secs(),
            nanoseconds: since_1970.subsec_nanos() & !(STAMP_GRAIN - 1),
        }
    }

    /// This time, or the next after `last` if that is later.
    pub(super) fn after(self, last: Self) -> Self {
        if self > last {
            return self;
        }
        match last.nanoseconds.checked_add(1) {
            Some(nanoseconds) => Self {
                nanoseconds,
                ..last
            },
            None => Self {
                seconds: last.seconds.saturating_add(1),
                nanoseconds: 0,
            },
        }
    }

    fn to_bytes(self) -> [u8; STAMP_BYTES] {
        let mut bytes = [0; STAMP_BYTES];
        bytes[..8].copy_from_slice(&self.seconds.to_be_bytes());
        bytes[8..].copy_from_slice(&self.nanoseconds.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; STAMP_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
        Self {
            seconds: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            nanoseconds: u32::from_be_bytes(rest),
        }
    }
}

/// Our key, and our calendar.
pub(crate) struct Identity {
    private: StaticSecret,
    public: PublicKey,
    /// An instant and the time since 1970 that it was then.
    calendar: (Instant, Duration),
}

impl Identity {
    pub(crate) fn new(private: StaticSecret, since_1970: Duration, now: Instant) -> Self {
        Self {
            public: PublicKey::from(&private),
            private,
            calendar: (now, since_1970),
        }
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        self.public.to_bytes()
    }

    pub(super) fn stamp(&self, now: Instant) -> Stamp {
        let (at, since_1970) = self.calendar;
        Stamp::of(since_1970 + now.saturating_duration_since(at))
    }

    /// Reads an initiation as far as one can without knowing whose it is.
    pub(crate) fn initiator(&self, initiation: &[u8]) -> Result<Initiator, Dropped> {
        let part = |at: usize| initiation.get(at..).ok_or(Dropped::Malformed);
        let ephemeral = *part(8)?.first_chunk().ok_or(Dropped::Malformed)?;
        let mut public: [u8; 32 + TAG_BYTES] =
            *part(40)?.first_chunk().ok_or(Dropped::Malformed)?;
        let stamp = *part(88)?.first_chunk().ok_or(Dropped::Malformed)?;

        let mut chain = Chain::new(&self.public);
        chain.absorb(&ephemeral);
        chain.mix(&ephemeral);
        let ephemeral = PublicKey::from(ephemeral);
        let key = chain.mix_for_key(agreed(&self.private.diffie_hellman(&ephemeral))?);
        chain.open(&key, &mut public)?;
        Ok(Initiator {
            public: *public.first_chunk().ok_or(Dropped::Malformed)?,
            index: word(initiation, 4).ok_or(Dropped::Malformed)?,
            ephemeral,
            chain,
            stamp,
        })
    }
}

/// What we know of a peer before any handshake with it.
pub(super) struct Keys {
    public: PublicKey,
    psk: Zeroizing<[u8; 32]>,
    /// Of both static keys.
    agreed: SharedSecret,
    mac_key: [u8; 32],
}

impl Keys {
    pub(super) fn new(us: &Identity, public: PublicKey, psk: [u8; 32]) -> Self {
        Self {
            agreed: us.private.diffie_hellman(&public),
            mac_key: mac_key(public.as_bytes()),
            public,
            psk: Zeroizing::new(psk),
        }
    }

    pub(super) fn public(&self) -> [u8; 32] {
        self.public.to_bytes()
    }

    pub(super) fn mac_key(&self) -> &[u8; 32] {
        &self.mac_key
    }
}

/// What a handshake ends with.
pub(super) struct Secrets {
    pub(super) index: u32,
    pub(super) peer_index: u32,
    pub(super) seal: SessionKey,
    pub(super) open: SessionKey,
}

/// An initiation of which the sender's key is known, though not yet proved.
#[derive(Clone)]
pub struct Initiator {
    public: [u8; 32],
    index: u32,
    ephemeral: PublicKey,
    chain: Chain,
    stamp: [u8; STAMP_BYTES + TAG_BYTES],
}

/// Whether both are of the same message.
impl PartialEq for Initiator {
    fn eq(&self, other: &Self) -> bool {
        let said = |of: &Self| (of.public, of.index, of.ephemeral, of.stamp);
        said(self) == said(other)
    }
}

impl Eq for Initiator {}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Initiator")
    }
}

impl Initiator {
    /// The key that it claims.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The time that it claims, if its sender has the key's private half.
    pub(super) fn stamp(&self, keys: &Keys) -> Result<Stamp, Dropped> {
        let mut stamp = self.stamp;
        let mut chain = self.chain.clone();
        let key = chain.mix_for_key(agreed(&keys.agreed)?);
        chain.open(&key, &mut stamp)?;
        let stamp = stamp.first_chunk().ok_or(Dropped::Malformed)?;
        Ok(Stamp::from_bytes(*stamp))
    }

    /// The response, without macs, and what both sides share by it.
    pub(super) fn respond(
        &self,
        keys: &Keys,
        index: u32,
    ) -> Result<(Secrets, [u8; RESPONSE_BYTES]), Dropped> {
        let mut chain = self.chain.clone();
        _ = chain.mix_for_key(agreed(&keys.agreed)?);
        chain.absorb(&self.stamp);

        let secret = StaticSecret::random_from_rng(OsRng);
        let ephemeral = PublicKey::from(&secret);
        chain.absorb(ephemeral.as_bytes());
        chain.mix(ephemeral.as_bytes());
        chain.mix(agreed(&secret.diffie_hellman(&self.ephemeral))?);
        chain.mix(agreed(&secret.diffie_hellman(&keys.public))?);
        let key = chain.mix_psk(&keys.psk);
        let tag = chain.seal(&key, &mut [])?;

        let message = joined(&[
            &[2, 0, 0, 0],
            &index.to_le_bytes(),
            &self.index.to_le_bytes(),
            ephemeral.as_bytes(),
            &tag,
        ]);
        let [theirs, ours] = chain.split()?;
        let secrets = Secrets {
            index,
            peer_index: self.index,
            seal: ours,
            open: theirs,
        };
        Ok((secrets, message))
    }
}

/// An initiation of ours that has not been answered.
pub(super) struct Pending {
    index: u32,
    secret: StaticSecret,
    chain: Chain,
}

impl Pending {
    /// The initiation, without macs, and what is needed to read its answer.
    pub(super) fn new(
        us: &Identity,
        keys: &Keys,
        index: u32,
        stamp: Stamp,
    ) -> (Self, [u8; INITIATION_BYTES]) {
        let secret = StaticSecret::random_from_rng(OsRng);
        let ephemeral = PublicKey::from(&secret);
        let mut chain = Chain::new(&keys.public);
        chain.absorb(ephemeral.as_bytes());
        chain.mix(ephemeral.as_bytes());
        let key = chain.mix_for_key(secret.diffie_hellman(&keys.public).as_bytes());
        let mut public = us.public();
        // A key of small order or a message of 256 GB: the peer refuses what we send, and nobody learns anything by it.
        let public_tag = chain.seal(&key, &mut public).unwrap_or_default();
        let key = chain.mix_for_key(keys.agreed.as_bytes());
        let mut stamp = stamp.to_bytes();
        let stamp_tag = chain.seal(&key, &mut stamp).unwrap_or_default();

        let message = joined(&[
            &[1, 0, 0, 0],
            &index.to_le_bytes(),
            ephemeral.as_bytes(),
            &public,
            &public_tag,
            &stamp,
            &stamp_tag,
        ]);
        let pending = Self {
            index,
            secret,
            chain,
        };
        (pending, message)
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// Reads the answer.
    pub(super) fn finish(
        &self,
        us: &Identity,
        keys: &Keys,
        response: &[u8],
    ) -> Result<Secrets, Dropped> {
        let part = |at: usize| response.get(at..).ok_or(Dropped::Malformed);
        let ephemeral: [u8; 32] = *part(12)?.first_chunk().ok_or(Dropped::Malformed)?;
        let mut empty: [u8; TAG_BYTES] = *part(44)?.first_chunk().ok_or(Dropped::Malformed)?;

        let mut chain = self.chain.clone();
        chain.absorb(&ephemeral);
        chain.mix(&ephemeral);
        let ephemeral = PublicKey::from(ephemeral);
        chain.mix(agreed(&self.secret.diffie_hellman(&ephemeral))?);
        chain.mix(agreed(&us.private.diffie_hellman(&ephemeral))?);
        let key = chain.mix_psk(&keys.psk);
        chain.open(&key, &mut empty)?;

        let [ours, theirs] = chain.split()?;
        Ok(Secrets {
            index: self.index,
            peer_index: word(response, 4).ok_or(Dropped::Malformed)?,
            seal: ours,
            open: theirs,
        })
    }
}

/// A secret that both keys had a part in.
fn agreed(secret: &SharedSecret) -> Result<&[u8; 32], Dropped> {
    let is_both = secret.was_contributory();
    is_both.then(|| secret.as_bytes()).ok_or(Dropped::Forged)
}

/// All parts, and zeros up to the message's end.
fn joined<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut message = [0; N];
    let mut bytes = parts.iter().copied().flatten();
    message.fill_with(|| bytes.next().copied().unwrap_or(0));
    message
}

/// Noise's symmetric state: the chaining key and the hash of all that was said.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct Chain {
    key: [u8; 32],
    hash: [u8; 32],
}

impl Chain {
    fn new(responder: &PublicKey) -> Self {
        let key = hash(&[CONSTRUCTION]);
        let named = hash(&[&key, IDENTIFIER]);
        Self {
            hash: hash(&[&named, responder.as_bytes()]),
            key,
        }
    }

    fn absorb(&mut self, said: &[u8]) {
        self.hash = hash(&[&self.hash, said]);
    }

    fn mix(&mut self, input: &[u8; 32]) {
        let [key] = *derive(&self.key, input);
        self.key = key;
    }

    fn mix_for_key(&mut self, input: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let [next, key] = *derive(&self.key, input);
        self.key = next;
        Zeroizing::new(key)
    }

    fn mix_psk(&mut self, psk: &[u8; 32]) -> Zeroizing<[u8; 32]> {
        let [next, said, key] = *derive(&self.key, psk);
        self.key = next;
        self.absorb(&said);
        Zeroizing::new(key)
    }

    /// Encrypts `data` where it is, and returns its tag.
    fn seal(&mut self, key: &[u8; 32], data: &mut [u8]) -> Result<[u8; TAG_BYTES], Dropped> {
        let tag = seal_once(key, &self.hash, data)?;
        self.hash = hash(&[&self.hash, data, &tag]);
        Ok(tag)
    }

    /// Decrypts `data`, which ends with its tag, where it is.
    fn open(&mut self, key: &[u8; 32], data: &mut [u8]) -> Result<(), Dropped> {
        let next = hash(&[&self.hash, data]);
        open_once(key, &self.hash, data)?;
        self.hash = next;
        Ok(())
    }

    /// The keys of what the initiator sends, and of what the responder does.
    fn split(&self) -> Result<[SessionKey; 2], Dropped> {
        let [initiator, responder] = &*derive(&self.key, &[]);
        Ok([SessionKey::new(initiator)?, SessionKey::new(responder)?])
    }
}
