//! The answering side: finding the key, opening a query, sealing the answer within its size. Sections of
//! the draft: "Processing and Failure Handling", "UDP Response Size", "Padding and Transport".

use std::sync::Arc;

use rand_core::{CryptoRng, RngCore};
use sha2::{Digest as _, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::cert::{Certificate, ClientMagic, RESUME_MAGIC, System};
use super::client::{ClientNonce, RESOLVER_MAGIC, RESPONSE_HEADER};
use super::curve::CurveSecret;
use super::dropped::Dropped;
use super::message;
use super::padding;
use super::pq::{Binding, CONTROL_HEAD, CONTROL_LEN, ResumeSecret, put_control};
use super::seal::{HALF_NONCE, SharedKey, TAG, nonce};
use super::tickets::{TICKET, TicketCert, TicketKeys};
use super::xwing::{CIPHERTEXT, XWingSecret};
use super::{MAX_QUERY, MAX_RESPONSE, Transport};

mod advertised;
mod kept;

pub use kept::KeyCache;
use kept::KeyId;

/// A certificate with its secret: everything needed to answer under it. The secret is erased on drop.
pub struct ResolverKey {
    cert: Certificate,
    wire: Vec<u8>,
    secret: Secret,
    /// Which of the provider's keys signed it; all zeros where it has but one.
    signer: [u8; 32],
}

/// What a certificate's public key is of. No secret is ever made from another one.
enum Secret {
    Classical(CurveSecret),
    PostQuantum(Box<(XWingSecret, Binding)>),
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
        let belongs = cert.system == System::XChaCha20Poly1305
            && cert.x25519_key() == Some(PublicKey::from(&secret).to_bytes());
        let secret = Secret::Classical(CurveSecret::new(secret));
        belongs
            .then_some(Self {
                cert,
                wire,
                secret,
                signer: [0; 32],
            })
            .ok_or(WrongSecret)
    }

    /// The same for a post-quantum certificate.
    pub fn post_quantum(
        cert: Certificate,
        wire: Vec<u8>,
        secret: XWingSecret,
    ) -> Result<Self, WrongSecret> {
        let belongs =
            cert.system == System::XWing && cert.resolver_key == secret.public().as_slice();
        let secret = Secret::PostQuantum(Box::new((secret, Binding::new(&cert))));
        belongs
            .then_some(Self {
                cert,
                wire,
                secret,
                signer: [0; 32],
            })
            .ok_or(WrongSecret)
    }

    /// The same key, of a provider that may have another key beside this one.
    #[must_use]
    pub fn signed_by(self, provider: [u8; 32]) -> Self {
        Self {
            signer: provider,
            ..self
        }
    }

    /// Reads the secret that [`to_secret_bytes`](Self::to_secret_bytes) put behind the certificate.
    pub fn from_secret(
        cert: Certificate,
        wire: Vec<u8>,
        secret: Zeroizing<[u8; 32]>,
    ) -> Result<Self, WrongSecret> {
        match cert.system {
            System::XChaCha20Poly1305 => Self::new(cert, wire, StaticSecret::from(*secret)),
            System::XWing => Self::post_quantum(cert, wire, XWingSecret::from_seed(secret)),
            System::XSalsa20Poly1305 => Err(WrongSecret),
        }
    }

    /// Certificate and secret, for a file that only the resolver may read.
    #[must_use]
    pub fn to_secret_bytes(&self) -> Zeroizing<Vec<u8>> {
        // Whole capacity at once: growing would leave copies of the secret behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.wire.len() + 32));
        bytes.extend_from_slice(&self.wire);
        bytes.extend_from_slice(match &self.secret {
            Secret::Classical(secret) => secret.as_bytes(),
            Secret::PostQuantum(secret) => secret.0.seed(),
        });
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
    tickets: Option<Arc<TicketKeys>>,
}

impl Keyring {
    /// Takes the keys that are valid.
    #[must_use]
    pub fn new(keys: Vec<Arc<ResolverKey>>) -> Self {
        Self {
            keys,
            tickets: None,
        }
    }

    /// The same ring, issuing and accepting tickets.
    #[must_use]
    pub fn with_tickets(self, tickets: Arc<TicketKeys>) -> Self {
        Self {
            tickets: Some(tickets),
            ..self
        }
    }

    /// The keys, in no particular order.
    #[must_use]
    pub fn keys(&self) -> &[Arc<ResolverKey>] {
        &self.keys
    }

    /// The keys under which tickets are issued and accepted.
    #[must_use]
    pub fn tickets(&self) -> Option<&Arc<TicketKeys>> {
        self.tickets.as_ref()
    }

    /// Whether a packet claims one of these keys, or a ticket.
    #[must_use]
    pub fn claims(&self, packet: &[u8]) -> bool {
        packet.first_chunk().is_some_and(|magic| {
            self.find(magic).is_some() || (*magic == RESUME_MAGIC && self.tickets.is_some())
        })
    }

    /// Whether opening a packet takes no key agreement: its key is kept, it comes with a ticket, or it is
    /// dropped before that. Says nothing of its seal.
    #[must_use]
    pub fn is_cheap(&self, cache: &KeyCache, packet: &[u8]) -> bool {
        let Some((magic, rest)) = packet.split_first_chunk() else {
            return true;
        };
        let id = self.find(magic).and_then(|key| match &key.secret {
            Secret::Classical(_) => rest.first_chunk().copied(),
            Secret::PostQuantum(_) => Some(Sha256::digest(rest.get(..CIPHERTEXT)?).into()),
        });
        id.is_none_or(|id| cache.holds(&(*magic, id)))
    }

    fn find(&self, magic: &ClientMagic) -> Option<&Arc<ResolverKey>> {
        self.keys.iter().find(|key| key.cert.magic == *magic)
    }

    fn valid(&self, magic: &ClientMagic, now: u64) -> Option<&ResolverKey> {
        let key = self.find(magic)?;
        key.cert.check_time(now).ok().map(|()| key.as_ref())
    }
}

/// A query that was authentic, and what its answer needs.
#[derive(Debug)]
pub struct Opened {
    /// The DNS query: well-formed, one question.
    pub query: Vec<u8>,
    /// What it asks.
    pub message: message::Query,
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
    // MUST, "Transport": queries of up to 4096 bytes are taken.
    if packet_len > MAX_QUERY {
        return Err(Dropped::TooLong);
    }
    let unlocked = if packet.starts_with(&RESUME_MAGIC) {
        unlock_resumed(keyring, &packet, now)?
    } else {
        unlock_full(keyring, cache, &packet, now)?
    };
    let Unlocked {
        shared,
        client_nonce,
        header,
        remember,
        form,
    } = unlocked;
    let rest = packet.get_mut(header..).ok_or(Dropped::TooShort)?;
    let (tag, ciphertext) = rest
        .split_first_chunk_mut::<TAG>()
        .ok_or(Dropped::TooShort)?;
    shared
        .open(&nonce(&client_nonce, &[0; HALF_NONCE]), tag, ciphertext)
        .map_err(|_| Dropped::BadTag)?;
    // Only now: garbage must not push out the keys of those who were authentic.
    if let Some(id) = remember {
        cache.insert(id, shared.clone());
    }
    // MUST, "Padding": whatever length there is, down to one byte.
    let len = padding::unpadded_len(ciphertext).map_err(|_| Dropped::BadPadding)?;
    packet.drain(..header + TAG);
    packet.truncate(len);
    let message = message::Query::read(&packet)?;
    Ok(Opened {
        query: packet,
        message,
        reply: Reply {
            shared,
            client_nonce,
            form,
            // MUST NOT, "UDP Response Size": no more than the query, whatever EDNS in it says.
            limit: match transport {
                Transport::Udp => packet_len.min(MAX_RESPONSE),
                Transport::Tcp => MAX_RESPONSE,
            },
        },
    })
}

/// The key of a query whose seal nobody has looked at yet.
struct Unlocked {
    shared: SharedKey,
    client_nonce: ClientNonce,
    /// Bytes before the tag.
    header: usize,
    remember: Option<KeyId>,
    form: Form,
}

fn unlock_full(
    keyring: &Keyring,
    cache: &mut KeyCache,
    packet: &[u8],
    now: u64,
) -> Result<Unlocked, Dropped> {
    let (magic, rest) = packet.split_first_chunk().ok_or(Dropped::TooShort)?;
    // MUST, "Processing and Failure Handling": unknown names, bad exchanges, seals, padding and messages
    // are refused, and nothing is said of it.
    let key = keyring.valid(magic, now).ok_or(Dropped::UnknownMagic)?;
    let exchange_len = match &key.secret {
        Secret::Classical(_) => 32,
        Secret::PostQuantum(_) => CIPHERTEXT,
    };
    let (exchange, rest) = rest
        .split_at_checked(exchange_len)
        .ok_or(Dropped::TooShort)?;
    let (client_nonce, rest) = rest.split_first_chunk().ok_or(Dropped::TooShort)?;
    if rest.len() < TAG {
        return Err(Dropped::TooShort);
    }
    let (id, form) = match &key.secret {
        Secret::Classical(_) => (exchange.try_into(), Form::Bare),
        // A client may use a ciphertext again: its hash finds the key as a public key does.
        Secret::PostQuantum(_) => (
            Ok(Sha256::digest(exchange).into()),
            keyring.with_control(&key.cert, now),
        ),
    };
    let id = (*magic, id.map_err(|_| Dropped::TooShort)?);
    let cached = cache.get(&id);
    let remember = cached.is_none().then_some(id);
    let shared = match cached {
        Some(shared) => shared,
        None => key.agree(exchange)?,
    };
    Ok(Unlocked {
        shared,
        client_nonce: *client_nonce,
        header: packet.len() - rest.len(),
        remember,
        form,
    })
}

fn unlock_resumed(keyring: &Keyring, packet: &[u8], now: u64) -> Result<Unlocked, Dropped> {
    let tickets = keyring.tickets.as_ref().ok_or(Dropped::UnknownMagic)?;
    let rest = packet
        .strip_prefix(&RESUME_MAGIC)
        .ok_or(Dropped::UnknownMagic)?;
    let (len, rest) = rest.split_first_chunk().ok_or(Dropped::TooShort)?;
    let (ticket, rest) = rest
        .split_at_checked(usize::from(u16::from_be_bytes(*len)))
        .ok_or(Dropped::TooShort)?;
    let (client_nonce, rest) = rest.split_first_chunk().ok_or(Dropped::TooShort)?;
    if rest.len() < TAG {
        return Err(Dropped::TooShort);
    }
    let open = tickets.open(ticket, now)?;
    // MUST, "Resumed Queries": the sealed certificate is one in use.
    let key = keyring
        .valid(&open.cert.magic, now)
        .filter(|key| key.cert.system == System::XWing && TicketCert::of(&key.cert) == open.cert)
        .ok_or(Dropped::TicketOfOtherCert)?;
    let form = if tickets.wants_renewal(open.expiry, now) {
        keyring.with_control(&key.cert, now)
    } else {
        Form::Control(None)
    };
    Ok(Unlocked {
        shared: open
            .secret
            .query_key(&open.cert.magic, client_nonce, ticket),
        client_nonce: *client_nonce,
        header: packet.len() - rest.len(),
        remember: None,
        form,
    })
}

impl ResolverKey {
    fn agree(&self, exchange: &[u8]) -> Result<SharedKey, Dropped> {
        match &self.secret {
            Secret::Classical(secret) => {
                let public = exchange.first_chunk().ok_or(Dropped::TooShort)?;
                SharedKey::of_point(&secret.agree(public)).map_err(|_| Dropped::WeakKey)
            }
            Secret::PostQuantum(secret) => {
                let (secret, binding) = secret.as_ref();
                let ciphertext = exchange.first_chunk().ok_or(Dropped::TooShort)?;
                let shared = secret.decapsulate(ciphertext).ok_or(Dropped::WeakKey)?;
                Ok(binding.full_key(&shared, ciphertext))
            }
        }
    }
}

impl Keyring {
    /// The form of answers that carry a ticket, if tickets are issued.
    fn with_control(&self, cert: &Certificate, now: u64) -> Form {
        let keys = self.tickets.as_ref();
        Form::Control(keys.map(|keys| Issue {
            keys: Arc::clone(keys),
            cert: TicketCert::of(cert),
            now,
        }))
    }
}

/// What stands before the DNS message of an answer.
#[derive(Debug)]
enum Form {
    /// Nothing.
    Bare,
    /// A control block, with a ticket if there is room for one.
    Control(Option<Issue>),
}

#[derive(Debug)]
struct Issue {
    keys: Arc<TicketKeys>,
    cert: TicketCert,
    now: u64,
}

/// What sealing an answer needs: made by [`open`], used once.
#[derive(Debug)]
pub struct Reply {
    shared: SharedKey,
    client_nonce: ClientNonce,
    form: Form,
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
    /// Whether the query came under a post-quantum certificate.
    #[must_use]
    pub fn is_post_quantum(&self) -> bool {
        matches!(self.form, Form::Control(_))
    }

    /// The longest DNS answer that will not be truncated.
    #[must_use]
    pub fn room(&self) -> usize {
        self.plain_room()
            .saturating_sub(self.form.least_control() + 1)
    }

    /// Seals an answer to `query`. What does not fit loses the ticket first, then padding; at last it
    /// becomes the question alone with TC set.
    // MUST, "UDP Response Size" and "Padding and Transport"; MUST NOT: silence because of the size.
    #[must_use]
    pub fn seal(self, answer: Vec<u8>, query: &[u8], mut rng: impl RngCore + CryptoRng) -> Sealed {
        let room = self.plain_room();
        let choice = self.shared.padding_choice(&self.client_nonce);
        let truncated = answer.len() > self.room();
        let answer = if truncated {
            message::truncated(&answer, query)
        } else {
            answer
        };
        let mut packet = Vec::with_capacity(RESPONSE_HEADER + TAG + room.min(answer.len() + 512));
        packet.extend_from_slice(&RESOLVER_MAGIC);
        packet.extend_from_slice(&self.client_nonce);
        let resolver_nonce = random_nonce(&mut rng);
        packet.extend_from_slice(&resolver_nonce);
        packet.extend_from_slice(&[0; TAG]);
        self.put_control(&mut packet, answer.len(), room, &mut rng);
        packet.extend_from_slice(&answer);
        let message = packet.len() - RESPONSE_HEADER - TAG;
        let len = padding::response_len(message, room, choice).unwrap_or(message + 1);
        padding::pad(&mut packet, RESPONSE_HEADER + TAG + len);
        if let Some((tag, plain)) = packet
            .get_mut(RESPONSE_HEADER..)
            .and_then(|rest| rest.split_first_chunk_mut::<TAG>())
        {
            *tag = self
                .shared
                .seal(&nonce(&self.client_nonce, &resolver_nonce), plain);
        }
        Sealed { packet, truncated }
    }

    /// Bytes of plaintext, padding included, that the transport leaves.
    fn plain_room(&self) -> usize {
        self.limit.saturating_sub(RESPONSE_HEADER + TAG)
    }

    fn put_control(
        &self,
        packet: &mut Vec<u8>,
        answer: usize,
        room: usize,
        rng: impl RngCore + CryptoRng,
    ) {
        let Form::Control(issue) = &self.form else {
            return;
        };
        let with_ticket = CONTROL_LEN + CONTROL_HEAD + TICKET + answer;
        let issued = issue
            .as_ref()
            .filter(|_| padding::fits_aligned(with_ticket, room))
            .and_then(|issue| {
                let secret = ResumeSecret::of(&self.shared, &issue.cert.magic, &self.client_nonce);
                issue.keys.issue(&secret, issue.cert, rng, issue.now)
            });
        match issued {
            Some((lifetime_s, ticket)) => put_control(packet, lifetime_s, &ticket),
            None => packet.extend_from_slice(&[0; CONTROL_LEN]),
        }
    }
}

impl Form {
    fn least_control(&self) -> usize {
        match self {
            Self::Bare => 0,
            Self::Control(_) => CONTROL_LEN,
        }
    }
}

// MUST, "Response Format".
/// A resolver's half of a nonce: random and never all zero, for that would be the query's nonce again.
fn random_nonce(mut rng: impl RngCore + CryptoRng) -> [u8; HALF_NONCE] {
    let mut half = [0; HALF_NONCE];
    while half == [0; HALF_NONCE] {
        rng.fill_bytes(&mut half);
    }
    half
}

#[cfg(test)]
mod tests;
