//! Packets for a DNSCrypt server that are nearly right: sealed under real keys with spoiled messages inside, or right
//! inside and spoiled outside; certificates, tickets and relays' prefixes too.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use dnscrypt_proxy::DnsCryptStamp;
use dnscrypt_proxy::proto::cert::{Certificate, RESUME_MAGIC};
use dnscrypt_proxy::proto::client::{ClientNonce, PqSession, QueryPadding};
use dnscrypt_proxy::proto::seal::{SharedKey, nonce};
use dnscrypt_proxy::proto::{message, relay};
use rand_core::OsRng;
use x25519_dalek::{PublicKey, StaticSecret};

use super::spoil;
use crate::certificates::{now_s, refused};
use crate::dice::Dice;

/// Clients whose keys a server gets to know.
const CLIENTS: usize = 64;
const TXT: u16 = 16;
const TARGET: usize = 256;
const PADDING: QueryPadding = QueryPadding::Udp { target: TARGET };
const MAGIC: usize = 8;
const KEY: usize = 32;
const TAG: usize = 16;
const LONGEST: u64 = 9_000;

/// Makes packets for one server.
pub(super) struct Forge {
    dice: Dice,
    server: SocketAddr,
    provider: String,
    classical: Certificate,
    clients: Vec<([u8; KEY], SharedKey)>,
    full: PqSession,
    resumed: PqSession,
    now: u64,
    made: u64,
    salt: [u8; 4],
}

impl Forge {
    /// `resumed` has a ticket.
    pub(super) fn new(
        stamp: &DnsCryptStamp,
        [classical, post_quantum]: [&Certificate; 2],
        resumed: PqSession,
        dice: Dice,
    ) -> Result<Self> {
        let resolver = classical.x25519_key().context("no classical certificate")?;
        let clients = (0..CLIENTS).map(|_| {
            let secret = StaticSecret::random_from_rng(OsRng);
            let public = PublicKey::from(&secret).to_bytes();
            Ok((public, SharedKey::agree(&secret, &resolver)?))
        });
        let mut dice = dice;
        Ok(Self {
            server: stamp.addr,
            provider: stamp.provider_name.clone(),
            classical: classical.clone(),
            clients: clients.collect::<Result<_>>()?,
            full: PqSession::new(post_quantum, OsRng)?,
            resumed,
            now: now_s()?,
            made: 0,
            salt: std::array::from_fn(|_| spoil::byte(&mut dice)),
            dice,
        })
    }

    /// The next packet.
    pub(super) fn packet(&mut self) -> Result<Vec<u8>> {
        self.made += 1;
        let mut packet = match self.dice.roll(100) {
            0..=63 => self.sealed()?,
            64..=67 => self.stranger(),
            68..=73 => self.post_quantum(Which::Full)?,
            74..=85 => self.post_quantum(Which::Resumed)?,
            86..=91 => self.certificates()?,
            92..=95 => relay::wrap(self.target(), &self.sealed()?),
            _ => {
                let (mut noise, len) = (Vec::new(), self.dice.roll(600));
                spoil::noise(&mut noise, len as usize, &mut self.dice);
                noise
            }
        };
        if self.dice.happens(0.12) {
            self.spoil(&mut packet);
        }
        Ok(packet)
    }

    /// A message to be sealed: mostly spoiled.
    fn message(&mut self) -> Result<Vec<u8>> {
        let mut message = spoil::query(&mut self.dice)?;
        if self.dice.happens(0.85) {
            spoil::message(&mut message, &mut self.dice);
        }
        Ok(message)
    }

    fn sealed(&mut self) -> Result<Vec<u8>> {
        let mut plain = self.message()?;
        self.pad(&mut plain);
        let nonce_half = self.nonce();
        let client = spoil::place(&mut self.dice, CLIENTS);
        let (public, key) = self.clients.get(client).context("a client")?;
        let tag = key.seal(&nonce(&nonce_half, &[0; 12]), &mut plain);
        Ok([
            &self.classical.magic,
            &public[..],
            &nonce_half,
            &tag,
            &plain,
        ]
        .concat())
    }

    /// Padding as it should be, and in all the ways in which it should not.
    fn pad(&mut self, plain: &mut Vec<u8>) {
        let fill = TARGET.saturating_sub(plain.len() + MAGIC + KEY + 12 + TAG + 1);
        let odd = usize::try_from(self.dice.roll(130)).unwrap_or_default();
        match self.dice.roll(40) {
            // None at all, none that begins, two beginnings, nothing else.
            0 => {}
            1 => plain.resize(plain.len() + odd, 0),
            2 => plain.extend([0x80, 1, 0x80].iter().chain(&vec![0; odd])),
            3 => *plain = vec![0; odd],
            4 => plain.push(0x80),
            _ => {
                plain.push(0x80);
                plain.resize(plain.len() + fill, 0);
            }
        }
    }

    /// The right magic, and a key of nobody.
    fn stranger(&mut self) -> Vec<u8> {
        let mut packet = self.classical.magic.to_vec();
        spoil::noise(&mut packet, TARGET - MAGIC, &mut self.dice);
        if self.dice.happens(0.1) {
            // A point of low order.
            spoil::put(&mut packet, MAGIC, &[0; KEY]);
        }
        packet
    }

    fn post_quantum(&mut self, which: Which) -> Result<Vec<u8>> {
        let (message, nonce) = (self.message()?, self.nonce());
        let session = match which {
            Which::Full => &self.full,
            Which::Resumed => &self.resumed,
        };
        let mut packet = match session.seal_query(&message, &nonce, PADDING, self.now) {
            Ok(query) => query.packet,
            // What was made too long to be sealed goes as it is.
            Err(_) => message,
        };
        if self.dice.happens(0.1) {
            match which {
                Which::Full => spoil::flip(&mut packet, MAGIC..MAGIC + 1_120, &mut self.dice),
                // The ticket, or how long it says that it is.
                Which::Resumed => spoil::flip(&mut packet, MAGIC..MAGIC + 132, &mut self.dice),
            }
        }
        Ok(packet)
    }

    fn certificates(&mut self) -> Result<Vec<u8>> {
        let len = usize::try_from(self.dice.roll(4_200)).unwrap_or_default();
        let query = message::padded_query(7, &self.provider, TXT.into(), 4_096, len);
        let mut query = query.map_err(refused("writing a query for certificates"))?;
        if self.dice.happens(0.8) {
            spoil::message(&mut query, &mut self.dice);
        }
        Ok(query)
    }

    /// Whom a relay is to ask: the server itself, the world, nobody.
    fn target(&mut self) -> SocketAddr {
        let address: [u8; 4] = std::array::from_fn(|_| spoil::byte(&mut self.dice));
        match self.dice.roll(3) {
            0 => self.server,
            1 => SocketAddr::from((address, 443)),
            _ => SocketAddr::from(([0, 0, 0, 0], spoil::number(&mut self.dice))),
        }
    }

    /// Changes the outside.
    fn spoil(&mut self, packet: &mut Vec<u8>) {
        let (len, dice) = (packet.len(), &mut self.dice);
        match dice.roll(7) {
            0 => spoil::flip(packet, 0..MAGIC, dice),
            1 => spoil::flip(packet, MAGIC..len.min(80), dice),
            2 => packet.truncate(spoil::place(dice, len)),
            3 => {
                let more = usize::try_from(dice.roll(LONGEST)).unwrap_or_default();
                spoil::noise(packet, more, dice);
            }
            4 => spoil::put(packet, 0, &RESUME_MAGIC),
            5 => spoil::put(packet, 0, &[0xff; 10]),
            _ => spoil::flip(packet, 0..len, dice),
        }
    }

    /// Never twice.
    fn nonce(&mut self) -> ClientNonce {
        let mut nonce = [0; 12];
        spoil::put(&mut nonce, 0, &self.made.to_le_bytes());
        spoil::put(&mut nonce, 8, &self.salt);
        nonce
    }
}

#[derive(Clone, Copy)]
enum Which {
    Full,
    Resumed,
}
