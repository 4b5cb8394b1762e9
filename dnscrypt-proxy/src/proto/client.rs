//! The asking side: keys, one session per certificate, sealing a query, opening its response.
//!
//! ```text
//! query     client-magic(8) client-pk(32) client-nonce(12) tag(16) ciphertext
//! response  "r6fnvWj8" client-nonce(12) resolver-nonce(12) tag(16) ciphertext
//! ```
//! Sections of the draft: "Query Format", "Response Format", "Processing and Failure Handling".

mod pq;

pub use pq::{Asked, PqAnswer, PqQuery, PqSession, Ticket, UDP_PAYLOAD};

use rand_core::{CryptoRng, RngCore};
use thiserror::Error;
use x25519_dalek::{PublicKey, StaticSecret};

use super::MAX_QUERY;
use super::MAX_RESPONSE;
use super::cert::{Certificate, ClientMagic, System};
use super::dropped::Dropped;
use super::message;
use super::padding;
use super::seal::{HALF_NONCE, SharedKey, TAG, nonce};

/// First bytes of every encrypted response.
pub const RESOLVER_MAGIC: [u8; 8] = *b"r6fnvWj8";
/// Bytes of a query before its tag.
pub const QUERY_HEADER: usize = 52;
/// Bytes of a response before its tag.
pub const RESPONSE_HEADER: usize = 32;

/// A client's half of a nonce: what an answer is recognised by.
pub type ClientNonce = [u8; HALF_NONCE];

/// A client's key pair: one per network that it is on, or one per query.
pub struct ClientKeys {
    secret: StaticSecret,
    public: [u8; 32],
}

impl ClientKeys {
    /// Makes a fresh pair.
    pub fn generate(rng: impl RngCore + CryptoRng) -> Self {
        Self::from_secret(StaticSecret::random_from_rng(rng))
    }

    /// Takes a given secret: for vectors.
    #[must_use]
    pub fn from_secret(secret: StaticSecret) -> Self {
        let public = PublicKey::from(&secret).to_bytes();
        Self { secret, public }
    }
}

/// Why no session can be made from a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SessionError {
    /// The certificate is for a construction that is not spoken here.
    #[error("encryption system {} is not spoken here", .0.number())]
    NotSpoken(System),
    /// The resolver's key is of low order.
    #[error("the resolver's key is of low order")]
    WeakKey,
}

/// The message cannot be sent in one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the DNS query is too long to be sent encrypted")]
pub struct TooLong;

/// How a query is made longer than it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryPadding {
    /// The whole UDP packet reaches this many bytes; the answer may be as large as that.
    Udp {
        /// Bytes of the whole packet.
        target: usize,
    },
    /// Over TCP: up to 256 bytes, by a random choice.
    Tcp {
        /// A random byte.
        choice: u8,
    },
}

/// One client key and one certificate, with the key that they share.
#[derive(Debug)]
pub struct Session {
    magic: ClientMagic,
    public: [u8; 32],
    shared: SharedKey,
}

impl Session {
    /// Agrees with the certificate's key.
    pub fn new(cert: &Certificate, keys: &ClientKeys) -> Result<Self, SessionError> {
        let agree = match cert.system {
            System::XChaCha20Poly1305 => SharedKey::agree,
            #[cfg(feature = "xsalsa")]
            System::XSalsa20Poly1305 => SharedKey::agree_xsalsa,
            #[cfg(not(feature = "xsalsa"))]
            System::XSalsa20Poly1305 => return Err(SessionError::NotSpoken(cert.system)),
            System::XWing => return Err(SessionError::NotSpoken(cert.system)),
        };
        let resolver_key = cert
            .x25519_key()
            .ok_or(SessionError::NotSpoken(cert.system))?;
        let shared = agree(&keys.secret, &resolver_key).map_err(|_| SessionError::WeakKey)?;
        Ok(Self {
            magic: cert.magic,
            public: keys.public,
            shared,
        })
    }

    // MUST, "Query Format": whoever calls draws a nonce for each packet that is sealed.
    /// The packet that carries a DNS query. A nonce serves once per session, retries over TCP included.
    pub fn seal_query(
        &self,
        query: &[u8],
        client_nonce: &ClientNonce,
        how: QueryPadding,
    ) -> Result<Vec<u8>, TooLong> {
        let padded_len = match how {
            QueryPadding::Udp { target } => {
                padding::udp_query_len(query.len(), QUERY_HEADER, target)
            }
            QueryPadding::Tcp { choice } => padding::tcp_query_len(query.len(), choice),
        };
        let total = QUERY_HEADER + TAG + padded_len;
        if total > MAX_QUERY {
            return Err(TooLong);
        }
        let mut packet = Vec::with_capacity(total);
        packet.extend_from_slice(&self.magic);
        packet.extend_from_slice(&self.public);
        packet.extend_from_slice(client_nonce);
        packet.extend_from_slice(&[0; TAG]);
        packet.extend_from_slice(query);
        padding::pad(&mut packet, total);
        seal_in_place(&self.shared, client_nonce, QUERY_HEADER, &mut packet);
        Ok(packet)
    }

    /// The DNS response to `query` inside a packet, checked as far as the protocol says: magic, nonce,
    /// tag, padding, id and question.
    pub fn open_response(
        &self,
        mut packet: Vec<u8>,
        query: &[u8],
        expected: &ClientNonce,
    ) -> Result<Vec<u8>, Dropped> {
        packet = open_packet(&self.shared, packet, expected)?;
        message::check_response(&packet, query)?;
        Ok(packet)
    }
}

/// Seals what follows the header and the place of the tag.
fn seal_in_place(shared: &SharedKey, client_nonce: &ClientNonce, header: usize, packet: &mut [u8]) {
    if let Some((tag, plain)) = packet
        .get_mut(header..)
        .and_then(|rest| rest.split_first_chunk_mut::<TAG>())
    {
        *tag = shared.seal(&nonce(client_nonce, &[0; HALF_NONCE]), plain);
    }
}

/// The plaintext of a response without its padding.
// MUST, "Processing and Failure Handling": magic, nonce, seal, padding, in this order.
fn open_packet(
    shared: &SharedKey,
    mut packet: Vec<u8>,
    expected: &ClientNonce,
) -> Result<Vec<u8>, Dropped> {
    let header = ResponseHeader::read(&packet)?;
    if header.client_nonce != *expected {
        return Err(Dropped::UnknownNonce);
    }
    let ciphertext = packet
        .get_mut(RESPONSE_HEADER + TAG..)
        .ok_or(Dropped::TooShort)?;
    let nonce = nonce(expected, &header.resolver_nonce);
    shared
        .open(&nonce, &header.tag, ciphertext)
        .map_err(|_| Dropped::BadTag)?;
    let len = padding::unpadded_len(ciphertext).map_err(|_| Dropped::BadPadding)?;
    packet.drain(..RESPONSE_HEADER + TAG);
    packet.truncate(len);
    Ok(packet)
}

/// The nonce that a response answers, without opening it: to find whom it is for.
pub fn answered_nonce(packet: &[u8]) -> Result<ClientNonce, Dropped> {
    ResponseHeader::read(packet).map(|header| header.client_nonce)
}

struct ResponseHeader {
    client_nonce: ClientNonce,
    resolver_nonce: [u8; HALF_NONCE],
    tag: [u8; TAG],
}

impl ResponseHeader {
    fn read(packet: &[u8]) -> Result<Self, Dropped> {
        if packet.len() > MAX_RESPONSE {
            return Err(Dropped::TooLong);
        }
        let rest = packet
            .strip_prefix(&RESOLVER_MAGIC)
            .ok_or(Dropped::UnknownMagic)?;
        let (client_nonce, rest) = rest.split_first_chunk().ok_or(Dropped::TooShort)?;
        let (resolver_nonce, rest) = rest.split_first_chunk().ok_or(Dropped::TooShort)?;
        let tag = rest.first_chunk().ok_or(Dropped::TooShort)?;
        Ok(Self {
            client_nonce: *client_nonce,
            resolver_nonce: *resolver_nonce,
            tag: *tag,
        })
    }
}

#[cfg(test)]
mod tests;
