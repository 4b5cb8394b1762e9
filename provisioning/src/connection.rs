//! What the server knows about one TLS connection: the bytes that both ends export from it, and the one
//! challenge that may be open on it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use rand_core::{OsRng, RngCore};
use trust::{EnrolError, EnrolFacts, EnrolReq, ServerChallenge, Verified};
use x25519_dalek::StaticSecret;

use crate::enrol::Leased;

/// A device needs one or two; this many on one connection is somebody who tries things.
const MAX_CHALLENGES: u32 = 16;

/// The state of one connection.
pub(crate) struct Connection {
    exporter: [u8; 32],
    challenges: AtomicU32,
    // Requests of one HTTP/1.1 connection come one after the other, so nobody contends.
    open: Mutex<Option<OpenChallenge>>,
    leased: Mutex<Option<Leased>>,
}

struct OpenChallenge {
    secret: StaticSecret,
    challenge: ServerChallenge,
}

/// A connection has had all the challenges that it gets.
#[derive(Debug)]
pub(crate) struct TooManyChallenges;

/// Why a request that parses proves nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotProved {
    #[error("no challenge is open on this connection")]
    NoChallenge,
    #[error("{0}")]
    Proof(#[from] EnrolError),
}

impl Connection {
    pub(crate) fn new(exporter: [u8; 32]) -> Self {
        Self {
            exporter,
            challenges: AtomicU32::new(0),
            open: Mutex::new(None),
            leased: Mutex::new(None),
        }
    }

    pub(crate) fn exporter(&self) -> &[u8; 32] {
        &self.exporter
    }

    /// Opens a challenge in place of the one before.
    pub(crate) fn challenge(&self) -> Result<ServerChallenge, TooManyChallenges> {
        if self.challenges.fetch_add(1, Ordering::Relaxed) >= MAX_CHALLENGES {
            return Err(TooManyChallenges);
        }
        let secret = StaticSecret::random_from_rng(OsRng);
        let mut nonce = [0; 32];
        OsRng.fill_bytes(&mut nonce);
        let challenge = ServerChallenge::new(&secret, nonce);
        *self.slot() = Some(OpenChallenge {
            secret,
            challenge: challenge.clone(),
        });
        Ok(challenge)
    }

    /// Checks a request against the open challenge, which is used up whatever comes of it.
    pub(crate) fn check(&self, request: &EnrolReq) -> Result<Verified<EnrolFacts>, NotProved> {
        let open = self.slot().take().ok_or(NotProved::NoChallenge)?;
        Ok(request.check(&open.challenge, &open.secret, &self.exporter)?)
    }

    /// Remembers which lease the device at the other end has just got.
    pub(crate) fn set_leased(&self, leased: Leased) {
        *self.lease() = Some(leased);
    }

    /// The lease that was got over this connection.
    pub(crate) fn leased(&self) -> Option<Leased> {
        self.lease().clone()
    }

    /// The same, for the one time that it allows something to be written.
    pub(crate) fn take_leased(&self) -> Option<Leased> {
        self.lease().take()
    }

    fn lease(&self) -> std::sync::MutexGuard<'_, Option<Leased>> {
        self.leased
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<OpenChallenge>> {
        self.open
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;

    fn answer(challenge: &ServerChallenge, exporter: &[u8; 32]) -> EnrolReq {
        let device = SigningKey::from_bytes(&[1; 32]);
        let tunnel = StaticSecret::from([2; 32]);
        EnrolReq::build(&device, &tunnel, None, challenge, exporter, 0).unwrap()
    }

    #[test]
    fn a_challenge_is_good_for_one_request() {
        let connection = Connection::new([7; 32]);
        let request = answer(&connection.challenge().unwrap(), &[7; 32]);

        assert!(connection.check(&request).is_ok());
        assert_eq!(
            connection.check(&request).unwrap_err(),
            NotProved::NoChallenge
        );
    }

    #[test]
    fn a_request_recorded_on_another_connection_proves_nothing() {
        let connection = Connection::new([7; 32]);
        let request = answer(&connection.challenge().unwrap(), &[8; 32]);

        let refused = connection.check(&request).unwrap_err();

        assert_eq!(refused, NotProved::Proof(EnrolError::DeviceSignature));
    }

    #[test]
    fn a_request_for_the_challenge_before_is_refused() {
        let connection = Connection::new([7; 32]);
        let request = answer(&connection.challenge().unwrap(), &[7; 32]);
        connection.challenge().unwrap();

        assert_eq!(
            connection.check(&request).unwrap_err(),
            NotProved::Proof(EnrolError::Nonce)
        );
    }

    #[test]
    fn challenges_of_one_connection_come_to_an_end() {
        let connection = Connection::new([7; 32]);
        for _ in 0..MAX_CHALLENGES {
            connection.challenge().unwrap();
        }

        assert!(connection.challenge().is_err());
    }
}
