//! The answering side: finding the key, opening a query, sealing the answer within its size.

use std::collections::HashMap;
use std::sync::Arc;

use rand_core::{CryptoRng, RngCore};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::cert::{Certificate, ClientMagic};
use super::client::{ClientNonce, QUERY_HEADER, RESOLVER_MAGIC, RESPONSE_HEADER};
use super::dropped::Dropped;
use super::message;
use super::padding;
use super::seal::{HALF_NONCE, SharedKey, TAG, nonce};
use super::{MAX_QUERY, MAX_RESPONSE, Transport};

/// A certificate with its secret: everything needed to answer under it. The secret is erased on drop.
pub struct ResolverKey {
    cert: Certificate,
    wire: Vec<u8>,
    secret: StaticSecret,
}

/// The secret does not belong to the certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the secret key does not belong to the certificate")]
pub struct WrongSecret;

impl ResolverKey {
    /// Joins a verified certificate, its bytes and its secret.
    pub fn new(
        cert: Certificate,
        wire: Vec<u8>,
        secret: StaticSecret,
    ) -> Result<Self, WrongSecret> {
        if cert.x25519_key() != Some(PublicKey::from(&secret).to_bytes()) {
            return Err(WrongSecret);
        }
        Ok(Self { cert, wire, secret })
    }

    /// Certificate and secret, for a file that only the resolver may read.
    #[must_use]
    pub fn to_secret_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Whole capacity at once: growing would leave copies of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.wire.len() + 32));
        bytes.extend_from_slice(&self.wire);
        bytes.extend_from_slice(self.secret.as_bytes());
        bytes
    }

    /// What the certificate says.
    #[must_use]
    pub fn cert(&self) -> &Certificate {
        &self.cert
    }
}

impl std::fmt::Debug for ResolverKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResolverKey")
            .field("cert", &self.cert)
            .finish_non_exhaustive()
    }
}

/// The keys under which queries are accepted at one moment. Replaced as a whole when keys rotate.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    keys: Vec<Arc<ResolverKey>>,
}

impl Keyring {
    /// Takes the keys that are valid.
    #[must_use]
    pub fn new(keys: Vec<Arc<ResolverKey>>) -> Self {
        Self { keys }
    }

    /// The keys, in no particular order.
    #[must_use]
    pub fn keys(&self) -> &[Arc<ResolverKey>] {
        &self.keys
    }

    /// The certificates to hand out at a moment, as TXT data, the newest first.
    #[must_use]
    pub fn advertised(&self, now: u64) -> Vec<&[u8]> {
        let mut valid: Vec<_> = self
            .keys
            .iter()
            .filter(|key| key.cert.check_time(now).is_ok())
            .collect();
        valid.sort_by_key(|key| std::cmp::Reverse(key.cert.serial));
        valid.into_iter().map(|key| key.wire.as_slice()).collect()
    }

    /// Whether a packet claims one of these keys.
    #[must_use]
    pub fn claims(&self, packet: &[u8]) -> bool {
        packet
            .first_chunk()
            .is_some_and(|magic| self.find(magic).is_some())
    }

    fn find(&self, magic: &ClientMagic) -> Option<&Arc<ResolverKey>> {
        self.keys.iter().find(|key| key.cert.magic == *magic)
    }
}

/// A query that was authentic, and what its answer needs.
#[derive(Debug)]
pub struct Opened {
    /// The DNS query: well-formed, one question.
    pub query: Vec<u8>,
    /// Seals the answer.
    pub reply: Reply,
}

/// Opens a query. `cache` keeps the shared keys of clients that were authentic.
pub fn open(
    keyring: &Keyring,
    cache: &mut KeyCache,
    mut packet: Vec<u8>,
    transport: Transport,
    now: u64,
) -> Result<Opened, Dropped> {
    let packet_len = packet.len();
    let header = QueryHeader::read(&packet)?;
    let key = keyring.find(&header.magic).ok_or(Dropped::UnknownMagic)?;
    key.cert
        .check_time(now)
        .map_err(|_| Dropped::UnknownMagic)?;
    let id = (header.magic, header.client_key);
    let cached = cache.get(&id);
    let shared = match &cached {
        Some(shared) => shared.clone(),
        None => SharedKey::agree(&key.secret, &header.client_key).map_err(|_| Dropped::WeakKey)?,
    };
    let ciphertext = packet
        .get_mut(QUERY_HEADER + TAG..)
        .ok_or(Dropped::TooShort)?;
    shared
        .open(
            &nonce(&header.client_nonce, &[0; HALF_NONCE]),
            &header.tag,
            ciphertext,
        )
        .map_err(|_| Dropped::BadTag)?;
    if cached.is_none() {
        cache.insert(id, shared.clone());
    }
    let len = padding::unpadded_len(ciphertext).map_err(|_| Dropped::BadPadding)?;
    packet.drain(..QUERY_HEADER + TAG);
    packet.truncate(len);
    message::Query::read(&packet)?;
    Ok(Opened {
        query: packet,
        reply: Reply {
            shared,
            client_nonce: header.client_nonce,
            limit: match transport {
                Transport::Udp => packet_len.min(MAX_RESPONSE),
                Transport::Tcp => MAX_RESPONSE,
            },
        },
    })
}

struct QueryHeader {
    magic: ClientMagic,
    client_key: [u8; 32],
    client_nonce: ClientNonce,
    tag: [u8; TAG],
}

impl QueryHeader {
    fn read(packet: &[u8]) -> Result<Self, Dropped> {
        if packet.len() > MAX_QUERY {
            return Err(Dropped::TooLong);
        }
        let (magic, rest) = packet.split_first_chunk().ok_or(Dropped::TooShort)?;
        let (client_key, rest) = rest.split_first_chunk().ok_or(Dropped::TooShort)?;
        let (client_nonce, rest) = rest.split_first_chunk().ok_or(Dropped::TooShort)?;
        let tag = rest.first_chunk().ok_or(Dropped::TooShort)?;
        Ok(Self {
            magic: *magic,
            client_key: *client_key,
            client_nonce: *client_nonce,
            tag: *tag,
        })
    }
}

/// What sealing an answer needs: made by [`open`], used once.
#[derive(Debug)]
pub struct Reply {
    shared: SharedKey,
    client_nonce: ClientNonce,
    limit: usize,
}

/// An answer on its way out.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The packet.
    pub packet: Vec<u8>,
    /// Whether the answer was cut to its question because it did not fit.
    pub truncated: bool,
}

impl Reply {
    /// The longest DNS answer that will not be truncated.
    #[must_use]
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(RESPONSE_HEADER + TAG + 1)
    }

    /// Seals an answer to `query`; one that does not fit becomes the question alone with TC set.
    #[must_use]
    pub fn seal(self, answer: Vec<u8>, query: &[u8], rng: impl RngCore + CryptoRng) -> Sealed {
        let room = self.room() + 1;
        let choice = self.shared.padding_choice(&self.client_nonce);
        let (mut plain, len, truncated) = match padding::response_len(answer.len(), room, choice) {
            Some(len) => (answer, len, false),
            None => {
                let short = message::truncated(&answer, query);
                let len =
                    padding::response_len(short.len(), room, choice).unwrap_or(short.len() + 1);
                (short, len, true)
            }
        };
        padding::pad(&mut plain, len);
        let resolver_nonce = random_nonce(rng);
        let tag = self
            .shared
            .seal(&nonce(&self.client_nonce, &resolver_nonce), &mut plain);
        let mut packet = Vec::with_capacity(RESPONSE_HEADER + TAG + len);
        packet.extend_from_slice(&RESOLVER_MAGIC);
        packet.extend_from_slice(&self.client_nonce);
        packet.extend_from_slice(&resolver_nonce);
        packet.extend_from_slice(&tag);
        packet.extend_from_slice(&plain);
        Sealed { packet, truncated }
    }
}

/// A resolver's half of a nonce: random and never all zero, for that would be the query's nonce again.
fn random_nonce(mut rng: impl RngCore + CryptoRng) -> [u8; HALF_NONCE] {
    let mut half = [0; HALF_NONCE];
    while half == [0; HALF_NONCE] {
        rng.fill_bytes(&mut half);
    }
    half
}

type KeyId = (ClientMagic, [u8; 32]);

/// Shared keys of clients whose packets were authentic, so that their next query needs no X25519.
/// Two generations of at most half the bound each: the younger one fills, then replaces the older.
#[derive(Debug)]
pub struct KeyCache {
    young: HashMap<KeyId, SharedKey>,
    old: HashMap<KeyId, SharedKey>,
    half: usize,
}

impl KeyCache {
    /// Keeps at most `bound` keys; 0 keeps none.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            half: bound / 2,
        }
    }

    /// Forgets what was agreed under keys that are no longer in the ring.
    pub fn retain_only(&mut self, keyring: &Keyring) {
        for generation in [&mut self.young, &mut self.old] {
            generation.retain(|(magic, _), _| keyring.find(magic).is_some());
        }
    }

    /// How many keys are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether none is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn get(&mut self, id: &KeyId) -> Option<SharedKey> {
        if let Some(shared) = self.young.get(id) {
            return Some(shared.clone());
        }
        let shared = self.old.remove(id)?;
        self.insert(*id, shared.clone());
        Some(shared)
    }

    fn insert(&mut self, id: KeyId, shared: SharedKey) {
        if self.half == 0 {
            return;
        }
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, shared);
    }
}

#[cfg(test)]
mod tests;
