//! What queries to one resolver are sealed with, whichever system its certificate is of.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rand_core::OsRng;

use crate::proto::cert::{Certificate, System};
use crate::proto::client::{
    self, Asked, ClientKeys, ClientNonce, PqSession, QueryPadding, SessionError, TooLong,
    UDP_PAYLOAD,
};
use crate::proto::dropped::Dropped;

/// A session under one certificate.
pub(crate) enum Session {
    Classical(client::Session),
    // Contended by the queries in flight, each for one seal or one ticket.
    PostQuantum(Mutex<PqSession>),
}

/// A sealed query, and what its answer is opened with.
pub(crate) struct Question {
    pub(crate) packet: Vec<u8>,
    pub(crate) nonce: ClientNonce,
    asked: Option<Asked>,
}

impl Session {
    /// `keys` are the client's where the system has such; they are made if there are none yet.
    pub(crate) fn new(
        certificate: &Certificate,
        keys: &mut Option<ClientKeys>,
    ) -> Result<Self, SessionError> {
        if certificate.system == System::XWing {
            return PqSession::new(certificate, OsRng)
                .map(|session| Self::PostQuantum(session.into()));
        }
        let keys = keys.get_or_insert_with(|| ClientKeys::generate(OsRng));
        client::Session::new(certificate, keys).map(Self::Classical)
    }

    /// Seals a query under a nonce that serves this once.
    pub(crate) fn seal(
        &self,
        query: &[u8],
        nonce: ClientNonce,
        how: QueryPadding,
        now: u64,
    ) -> Result<Question, TooLong> {
        let (packet, asked) = match self {
            Self::Classical(session) => (session.seal_query(query, &nonce, how)?, None),
            Self::PostQuantum(session) => {
                let sealed = lock(session).seal_query(query, &nonce, how, now)?;
                (sealed.packet, Some(sealed.asked))
            }
        };
        Ok(Question {
            packet,
            nonce,
            asked,
        })
    }

    /// The response to `query` in a packet. A ticket that comes with it serves the next query.
    pub(crate) fn open(
        &self,
        question: &Question,
        packet: Vec<u8>,
        query: &[u8],
        now: u64,
    ) -> Result<Vec<u8>, Dropped> {
        match (self, &question.asked) {
            (Self::Classical(session), _) => session.open_response(packet, query, &question.nonce),
            (Self::PostQuantum(session), Some(asked)) => {
                let answer = asked.open_response(packet, query, now)?;
                if let Some(ticket) = answer.ticket {
                    lock(session).keep(ticket);
                }
                Ok(answer.message)
            }
            (Self::PostQuantum(_), None) => Err(Dropped::UnknownNonce),
        }
    }

    /// Nothing came back in time: if the query had a ticket, the next one does without it.
    pub(crate) fn unanswered(&self, question: &Question) {
        if let (Self::PostQuantum(session), Some(asked)) = (self, &question.asked) {
            lock(session).unanswered(asked);
        }
    }
}

impl Question {
    /// Whether silence may be for a ticket's sake.
    pub(crate) fn is_resumed(&self) -> bool {
        self.asked.as_ref().is_some_and(Asked::resumed)
    }

    /// Whether it would have to be fragmented.
    pub(crate) fn is_too_long_for_udp(&self) -> bool {
        self.asked.is_some() && self.packet.len() > UDP_PAYLOAD
    }
}

fn lock(session: &Mutex<PqSession>) -> MutexGuard<'_, PqSession> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}
