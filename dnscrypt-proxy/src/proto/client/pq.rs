//! The asking side after a quantum computer: one encapsulation per network, tickets instead of it where
//! the resolver gives them. Sections of the draft: "Padding and Transport", "Stateless Resumption".

use std::sync::Arc;

use rand_core::{CryptoRng, RngCore};

use super::{ClientNonce, QueryPadding, SessionError, TooLong, open_packet, seal_in_place};
use crate::proto::MAX_QUERY;
use crate::proto::cert::{Certificate, ClientMagic, RESUME_MAGIC, System};
use crate::proto::dropped::Dropped;
use crate::proto::message;
use crate::proto::padding;
use crate::proto::pq::{Binding, FULL_HEADER, Offer, RESUMED_HEADER, ResumeSecret, split_control};
use crate::proto::seal::{SharedKey, TAG};
use crate::proto::xwing::{BadPublicKey, CIPHERTEXT, KemSecret, encapsulate};

/// A query longer than this should go over TCP: it would come in fragments.
pub const UDP_PAYLOAD: usize = 1232;
/// Longer tickets are not kept: they would fill the packets that they are to make small.
const MAX_TICKET: usize = 512;
/// No ticket is used for longer, whatever the resolver says.
const MAX_LIFETIME_S: u32 = 12 * 3600;

/// One encapsulation to one certificate, and the newest ticket. To be dropped when the network changes:
/// both would tell who moved. Queries that nothing may link need a session each.
#[derive(Debug)]
pub struct PqSession {
    magic: ClientMagic,
    cert_end: u32,
    ciphertext: Box<[u8; CIPHERTEXT]>,
    shared: SharedKey,
    ticket: Option<Arc<Ticket>>,
}

/// A resolver's ticket with the secret that goes with it.
pub struct Ticket {
    bytes: Vec<u8>,
    secret: ResumeSecret,
    /// Last unix second of its use.
    end: u64,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket(until {})", self.end)
    }
}

/// A query on its way: its packet, and what its answer is opened with.
#[derive(Debug)]
pub struct PqQuery {
    /// The packet.
    pub packet: Vec<u8>,
    /// Opens the answer.
    pub asked: Asked,
}

/// What opening the answer to one query needs.
#[derive(Debug)]
pub struct Asked {
    magic: ClientMagic,
    cert_end: u32,
    client_nonce: ClientNonce,
    shared: SharedKey,
    ticket: Option<Arc<Ticket>>,
}

/// An authentic answer.
#[derive(Debug)]
pub struct PqAnswer {
    /// The DNS response.
    pub message: Vec<u8>,
    /// A ticket that came with it, for [`PqSession::keep`].
    pub ticket: Option<Ticket>,
}

impl PqSession {
    /// Encapsulates to the certificate's key.
    pub fn new(cert: &Certificate, rng: impl RngCore + CryptoRng) -> Result<Self, SessionError> {
        Self::with(cert, |public| encapsulate(public, rng))
    }

    /// What [`new`](Self::new) does with given randomness: for vectors.
    #[cfg(test)]
    pub(in crate::proto) fn from_seed(
        cert: &Certificate,
        seed: &[u8; 64],
    ) -> Result<Self, SessionError> {
        Self::with(cert, |public| {
            crate::proto::xwing::encapsulate_from(public, seed)
        })
    }

    fn with(
        cert: &Certificate,
        encapsulate: impl FnOnce(&[u8]) -> Result<(KemSecret, [u8; CIPHERTEXT]), BadPublicKey>,
    ) -> Result<Self, SessionError> {
        if cert.system != System::XWing {
            return Err(SessionError::NotSpoken(cert.system));
        }
        let (secret, ciphertext) =
            encapsulate(&cert.resolver_key).map_err(|_| SessionError::WeakKey)?;
        Ok(Self {
            magic: cert.magic,
            cert_end: cert.end,
            shared: Binding::new(cert).full_key(&secret, &ciphertext),
            ciphertext: Box::new(ciphertext),
            ticket: None,
        })
    }

    /// The packet that carries a DNS query, resumed while there is a ticket. A nonce serves once per
    /// session, retries over TCP included. What is longer than [`UDP_PAYLOAD`] should go over TCP.
    pub fn seal_query(
        &self,
        query: &[u8],
        client_nonce: &ClientNonce,
        how: QueryPadding,
        now: u64,
    ) -> Result<PqQuery, TooLong> {
        // MUST NOT, "Ticket Issuance and Renewal": a ticket that is over is not used.
        let ticket = self.ticket.as_ref().filter(|ticket| now <= ticket.end);
        let (mut packet, shared) = match ticket {
            Some(ticket) => (
                ticket.head(),
                ticket
                    .secret
                    .query_key(&self.magic, client_nonce, &ticket.bytes),
            ),
            None => {
                let mut head = Vec::with_capacity(UDP_PAYLOAD);
                head.extend_from_slice(&self.magic);
                head.extend_from_slice(self.ciphertext.as_slice());
                (head, self.shared.clone())
            }
        };
        packet.extend_from_slice(client_nonce);
        let header = packet.len();
        let padded_len = match (how, ticket) {
            (QueryPadding::Tcp { choice }, _) => padding::tcp_query_len(query.len(), choice),
            (QueryPadding::Udp { target }, Some(_)) => {
                padding::udp_query_len(query.len(), header, target)
            }
            // More than fits one packet has been asked for.
            (QueryPadding::Udp { target }, None) if target > UDP_PAYLOAD => {
                padding::udp_query_len(query.len(), header, target)
            }
            (QueryPadding::Udp { .. }, None) => {
                padding::full_query_len(query.len(), UDP_PAYLOAD - FULL_HEADER - TAG)
            }
        };
        // MUST NOT, "Transport".
        if header + TAG + padded_len > MAX_QUERY {
            return Err(TooLong);
        }
        packet.extend_from_slice(&[0; TAG]);
        packet.extend_from_slice(query);
        padding::pad(&mut packet, header + TAG + padded_len);
        seal_in_place(&shared, client_nonce, header, &mut packet);
        let asked = Asked {
            magic: self.magic,
            cert_end: self.cert_end,
            client_nonce: *client_nonce,
            shared,
            ticket: ticket.cloned(),
        };
        Ok(PqQuery { packet, asked })
    }

    /// Uses a newer ticket from now on. One that would end sooner is not taken.
    pub fn keep(&mut self, ticket: Ticket) {
        let sooner = self
            .ticket
            .as_ref()
            .is_some_and(|kept| kept.end > ticket.end);
        if !sooner {
            self.ticket = Some(Arc::new(ticket));
        }
    }

    /// Gives up the ticket that a query without an answer used: the resolver may have lost its key, and says
    /// nothing of it. The next query carries the ciphertext.
    pub fn unanswered(&mut self, asked: &Asked) {
        let same = |kept: &Arc<Ticket>| {
            asked
                .ticket
                .as_ref()
                .is_some_and(|used| Arc::ptr_eq(kept, used))
        };
        if self.ticket.as_ref().is_some_and(same) {
            self.ticket = None;
        }
    }
}

impl Ticket {
    fn head(&self) -> Vec<u8> {
        let len = u16::try_from(self.bytes.len()).unwrap_or_default();
        let mut head = Vec::with_capacity(RESUMED_HEADER + self.bytes.len() + 512);
        head.extend_from_slice(&RESUME_MAGIC);
        head.extend_from_slice(&len.to_be_bytes());
        head.extend_from_slice(&self.bytes);
        head
    }
}

impl Asked {
    /// Whether the query used a ticket: silence may then be for the ticket's sake.
    #[must_use]
    pub fn resumed(&self) -> bool {
        self.ticket.is_some()
    }

    /// The DNS response to `query` inside a packet, checked as far as the protocol says, and the ticket
    /// beside it.
    pub fn open_response(
        &self,
        packet: Vec<u8>,
        query: &[u8],
        now: u64,
    ) -> Result<PqAnswer, Dropped> {
        let mut plain = open_packet(&self.shared, packet, &self.client_nonce)?;
        let (offer, response) = split_control(&plain)?;
        message::check_response(response, query)?;
        let ticket = offer.and_then(|offer| self.ticket_of(&offer, now));
        let control_len = plain.len() - response.len();
        plain.drain(..control_len);
        Ok(PqAnswer {
            message: plain,
            ticket,
        })
    }

    /// The ticket of an offer, if it is worth keeping.
    fn ticket_of(&self, offer: &Offer<'_>, now: u64) -> Option<Ticket> {
        let lifetime_s = offer.lifetime_s.min(MAX_LIFETIME_S);
        let end = now
            .saturating_add(u64::from(lifetime_s))
            .min(u64::from(self.cert_end));
        (offer.ticket.len() <= MAX_TICKET && end > now).then(|| Ticket {
            bytes: offer.ticket.to_vec(),
            secret: ResumeSecret::of(&self.shared, &self.magic, &self.client_nonce),
            end,
        })
    }
}

#[cfg(test)]
mod tests;
