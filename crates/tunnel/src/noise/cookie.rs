//! Macs and cookies (whitepaper, sections 5.3 and 5.4.7): a message shows that its sender knows whom it speaks to, and under load
//! also that it receives at its address.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use chacha20::cipher::consts::U10;
use chacha20::hchacha;
use rand_core::{OsRng, RngCore};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::COOKIE_BYTES;
use super::cipher::{TAG_BYTES, open_with_nonce, seal_with_nonce};
use super::hash::{hash, mac};
use super::sources::Sources;
use crate::dropped::Dropped;

const MAC_LABEL: &[u8] = b"mac1----";
const COOKIE_LABEL: &[u8] = b"cookie--";
/// How long the secret that cookies are made of lives.
const SECRET_AGE: Duration = Duration::from_secs(120);
/// Bytes of both macs at a message's end.
const MACS: usize = 32;
const NONCE_BYTES: usize = 24;

/// What a checker says of a handshake message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may be worked on.
    Right,
    /// Its sender is to show that it receives at its address, by this.
    Ask([u8; COOKIE_BYTES]),
}

/// Checks what comes to one key.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Checker {
    mac_key: [u8; 32],
    cookie_key: [u8; 32],
    secret: [u8; 32],
    #[zeroize(skip)]
    secret_since: Option<Instant>,
    #[zeroize(skip)]
    sources: Sources,
}

impl Checker {
    pub(crate) fn new(public: &[u8; 32]) -> Self {
        Self {
            mac_key: mac_key(public),
            cookie_key: hash(&[COOKIE_LABEL, public]),
            secret: [0; 32],
            secret_since: None,
            sources: Sources::default(),
        }
    }

    /// Checks a handshake message; under load its sender must have been asked before, and is heard so often only.
    pub(crate) fn check(
        &mut self,
        message: &[u8],
        from: SocketAddr,
        is_under_load: bool,
        now: Instant,
    ) -> Result<Verdict, Dropped> {
        let (body, macs) = split(message)?;
        let (first, second) = macs.split_at(MACS / 2);
        if !bool::from(mac(&self.mac_key, &[body]).ct_eq(first)) {
            return Err(Dropped::WrongRecipient);
        }
        if !is_under_load {
            return Ok(Verdict::Right);
        }
        let cookie = Zeroizing::new(self.cookie(from, now));
        if bool::from(mac(&*cookie, &[body, first]).ct_eq(second)) {
            let may = self.sources.take(from.ip(), now);
            return may.then_some(Verdict::Right).ok_or(Dropped::RateLimited);
        }
        self.ask(message, &cookie, first).map(Verdict::Ask)
    }

    /// What only who receives at `from` can know.
    fn cookie(&mut self, from: SocketAddr, now: Instant) -> [u8; 16] {
        let is_fresh = |since: Instant| now.saturating_duration_since(since) < SECRET_AGE;
        if !self.secret_since.is_some_and(is_fresh) {
            OsRng.fill_bytes(&mut self.secret);
            self.secret_since = Some(now);
        }
        let port = from.port().to_be_bytes();
        match from {
            SocketAddr::V4(from) => mac(&self.secret, &[&from.ip().octets(), &port]),
            SocketAddr::V6(from) => mac(&self.secret, &[&from.ip().octets(), &port]),
        }
    }

    fn ask(
        &self,
        message: &[u8],
        cookie: &[u8; 16],
        first: &[u8],
    ) -> Result<[u8; COOKIE_BYTES], Dropped> {
        let mut reply = [0; COOKIE_BYTES];
        let mut nonce = [0; NONCE_BYTES];
        OsRng.fill_bytes(&mut nonce);
        let mut sealed = *cookie;
        let (key, short) = subkey(&self.cookie_key, &nonce);
        let tag = seal_with_nonce(&key, short, first, &mut sealed)?;
        let parts: [&[u8]; 5] = [
            &[3, 0, 0, 0],
            message.get(4..8).unwrap_or_default(),
            &nonce,
            &sealed,
            &tag,
        ];
        let mut bytes = parts.into_iter().flatten();
        reply.fill_with(|| bytes.next().copied().unwrap_or(0));
        Ok(reply)
    }
}

/// The key of the first mac of what goes to `public`.
pub(super) fn mac_key(public: &[u8; 32]) -> [u8; 32] {
    hash(&[MAC_LABEL, public])
}

/// Writes both macs to the end of `message` and returns the first.
pub(super) fn add_macs(
    mac_key: &[u8; 32],
    cookie: Option<[u8; 16]>,
    message: &mut [u8],
) -> [u8; 16] {
    let body = message.len().saturating_sub(MACS);
    let (body, macs) = message.split_at_mut(body);
    let first = mac(mac_key, &[body]);
    let second = cookie.map_or([0; 16], |cookie| mac(&cookie, &[body, &first]));
    let mut bytes = first.into_iter().chain(second);
    macs.fill_with(|| bytes.next().unwrap_or(0));
    first
}

/// Opens a cookie reply of the peer with the key `public` to a message with this first mac.
pub(super) fn open(public: &[u8; 32], reply: &[u8], first: &[u8; 16]) -> Result<[u8; 16], Dropped> {
    let nonce = reply.get(8..).and_then(<[u8]>::first_chunk);
    let nonce: &[u8; NONCE_BYTES] = nonce.ok_or(Dropped::Malformed)?;
    let sealed = reply.get(8 + NONCE_BYTES..).ok_or(Dropped::Malformed)?;
    let mut cookie: [u8; 16 + TAG_BYTES] = sealed.try_into().map_err(|_| Dropped::Malformed)?;
    let (key, short) = subkey(&hash(&[COOKIE_LABEL, public]), nonce);
    open_with_nonce(&key, short, first, &mut cookie)?;
    Ok(*cookie.first_chunk().ok_or(Dropped::Malformed)?)
}

/// XChaCha20-Poly1305's key and nonce (draft-irtf-cfrg-xchacha, section 2.3).
fn subkey(key: &[u8; 32], nonce: &[u8; NONCE_BYTES]) -> (Zeroizing<[u8; 32]>, [u8; 12]) {
    let (long, rest) = nonce.split_at(16);
    let key = hchacha::<U10>(key.into(), long.into());
    let mut short = [0; 12];
    short[4..].copy_from_slice(rest);
    (Zeroizing::new(key.into()), short)
}

/// The message and its macs.
fn split(message: &[u8]) -> Result<(&[u8], &[u8; MACS]), Dropped> {
    message.split_last_chunk().ok_or(Dropped::Malformed)
}
