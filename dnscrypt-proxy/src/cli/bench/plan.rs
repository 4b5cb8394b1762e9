//! What a bench does: whom it asks, how fast, for how long, and how much may be under way.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand_core::{OsRng, RngCore as _};

use super::names::Names;
use super::tally::Tally;
use crate::cli::exit::{Failure, UNAVAILABLE, USAGE};
use crate::cli::{BenchArgs, Target, query};
use crate::clock;
use crate::proto::MAX_RESPONSE;
use crate::proto::client::{ClientNonce, QueryPadding, answered_nonce};
use crate::proto::message;
use crate::proto::stamp::DnsCryptStamp;
use crate::upstream::session::{Question, Session};
use crate::upstream::{Settings, Upstream};

/// Lookups a second that nobody has to be asked for: what an office sends.
pub(super) const POLITE_PER_S: u32 = 1_000;
/// UDP queries start at this size, and so may their answers.
const UDP_TARGET: usize = 512;

/// What a length of 16 bits can tell.
const LONGEST_PLAIN: usize = 65_535;

/// How fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// Evenly, so many a second, whatever comes back.
    PerSecond(u32),
    /// As many as are answered.
    Saturate,
}

impl Pace {
    /// How many are due after a time.
    pub(super) fn due(self, after: Duration) -> u64 {
        match self {
            Self::PerSecond(rate) => (after.as_secs_f64() * f64::from(rate)) as u64 + 1,
            Self::Saturate => u64::MAX,
        }
    }

    /// When a lookup is due.
    pub(super) fn at(self, number: u64) -> Duration {
        match self {
            Self::PerSecond(rate) => Duration::from_secs_f64(number as f64 / f64::from(rate)),
            Self::Saturate => Duration::ZERO,
        }
    }
}

/// All of it.
pub(super) struct Plan {
    pub(super) server: SocketAddr,
    pub(super) pace: Pace,
    pub(super) lasting: Duration,
    pub(super) in_flight: usize,
    pub(super) names: Names,
    pub(super) sealing: Sealing,
}

impl Plan {
    pub(super) fn new(args: &BenchArgs) -> Result<Self, Failure> {
        let pace = if args.saturate {
            Pace::Saturate
        } else {
            Pace::PerSecond(args.rate)
        };
        let server = args.target.address();
        let is_polite = matches!(pace, Pace::PerSecond(rate) if rate <= POLITE_PER_S);
        if !is_polite && !is_near(server.ip()) && !args.own_server {
            let message = format!(
                "more than {POLITE_PER_S} lookups a second are for servers of your own: say --own-server if {server} is one"
            );
            return Err(Failure::new(USAGE, message));
        }
        let rtype = query::record_type(&args.rtype)?;
        let names = match (&args.names, &args.random_under) {
            (Some(file), _) => Names::read(file, rtype)?,
            (None, Some(zone)) => Names::made_up(zone, rtype)?,
            (None, None) => Names::given(&args.name, rtype)?,
        };
        let sealing = match &args.target {
            Target::Plain(_) => Sealing::None,
            Target::Sealed(stamp) => Sealing::Under(session(stamp, args)?),
        };
        Ok(Self {
            server,
            pace,
            lasting: Duration::from_secs(args.duration_s.into()),
            in_flight: args.in_flight.into(),
            names,
            sealing,
        })
    }

    /// Whether lookups are sent after that time.
    pub(super) fn goes_on(&self, after: Duration) -> bool {
        after < self.lasting
    }
}

/// On this machine or a network of one's own.
fn is_near(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

fn session(stamp: &DnsCryptStamp, args: &BenchArgs) -> Result<Session, Failure> {
    let policy = args.policy.policy();
    let settings = Settings {
        policy,
        ..Settings::default()
    };
    let upstream = Upstream::new(vec![stamp.clone()], settings);
    let warmed = query::runtime()?.block_on(upstream.warm());
    warmed.map_err(|error| Failure::resolve(stamp.addr, &error))?;
    let certificate = upstream
        .health()
        .into_iter()
        .find_map(|health| health.certificate);
    let certificate = certificate
        .ok_or_else(|| Failure::new(UNAVAILABLE, format!("{}: no certificate", stamp.addr)))?;
    Session::new(&certificate, &mut None)
        .map_err(|error| Failure::new(UNAVAILABLE, format!("{}: {error}", stamp.addr)))
}

/// How lookups are dressed for the wire.
pub(super) enum Sealing {
    None,
    Under(Session),
}

/// One lookup, ready to be sent.
pub(super) struct Lookup {
    pub(super) packet: Vec<u8>,
    /// What its answer is opened with and compared to.
    pub(super) open: Opening,
}

pub(super) enum Opening {
    Plain,
    Sealed { question: Question, query: Vec<u8> },
}

impl Sealing {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::None => "plain",
            Self::Under(Session::Classical(_)) => "classical",
            Self::Under(Session::PostQuantum(_)) => "post-quantum",
        }
    }

    /// An answer that is longer is none.
    pub(super) fn longest_answer(&self) -> usize {
        match self {
            Self::None => LONGEST_PLAIN,
            Self::Under(_) => MAX_RESPONSE,
        }
    }

    /// `place` is found again in the answer; `None`: it does not fit the transport.
    pub(super) fn dress(&self, query: Vec<u8>, place: u32, how: QueryPadding) -> Option<Lookup> {
        let session = match self {
            Self::None => {
                return Some(Lookup {
                    packet: query,
                    open: Opening::Plain,
                });
            }
            Self::Under(session) => session,
        };
        let mut nonce: ClientNonce = [0; 12];
        OsRng.fill_bytes(&mut nonce);
        let (front, _) = nonce.split_at_mut(4);
        front.copy_from_slice(&place.to_be_bytes());
        let mut question = session.seal(&query, nonce, how, (clock::system())()).ok()?;
        let packet = std::mem::take(&mut question.packet);
        Some(Lookup {
            packet,
            open: Opening::Sealed { question, query },
        })
    }

    /// Whose answer a packet claims to be.
    pub(super) fn place_of(&self, packet: &[u8]) -> Option<u32> {
        match self {
            Self::None => {
                let id = packet.first_chunk().copied().map(u16::from_be_bytes)?;
                Some(id.into())
            }
            Self::Under(_) => {
                let nonce = answered_nonce(packet).ok()?;
                nonce.first_chunk().copied().map(u32::from_be_bytes)
            }
        }
    }

    /// The answer in a packet, if it is the one to this lookup.
    pub(super) fn open(&self, sent: &Lookup, packet: &[u8]) -> Option<Vec<u8>> {
        match (self, &sent.open) {
            (Self::Under(session), Opening::Sealed { question, query }) => session
                .open(question, packet.to_vec(), query, (clock::system())())
                .ok(),
            (_, _) => {
                message::check_response(packet, &sent.packet).ok()?;
                Some(packet.to_vec())
            }
        }
    }

    pub(super) fn unanswered(&self, sent: &Lookup) {
        if let (Self::Under(session), Opening::Sealed { question, .. }) = (self, &sent.open) {
            session.unanswered(question);
        }
    }
}

pub(super) const UDP: QueryPadding = QueryPadding::Udp { target: UDP_TARGET };

/// Says on stderr, once a second, how it goes.
pub(super) struct Progress {
    began: Instant,
    told: u64,
    answered: u64,
}

impl Progress {
    pub(super) fn new(began: Instant) -> Self {
        Self {
            began,
            told: 0,
            answered: 0,
        }
    }

    pub(super) fn look(&mut self, tally: &Tally, now: Instant) {
        let seconds = now.saturating_duration_since(self.began).as_secs();
        if seconds <= self.told {
            return;
        }
        let more = tally.answered - self.answered;
        let rate = more / (seconds - self.told);
        let p50 = tally.times.quantile(0.5).unwrap_or_default().as_secs_f64() * 1e3;
        let p99 = tally.times.quantile(0.99).unwrap_or_default().as_secs_f64() * 1e3;
        super::say(&format!(
            "{seconds:>4} s  {rate:>8} answers/s  {:>6} lost  p50 {p50:.3} ms, p99 {p99:.3} ms so far",
            tally.lost
        ));
        (self.told, self.answered) = (seconds, tally.answered);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_of_the_internet_is_not_near() {
        for far in ["9.9.9.9", "100.64.0.1", "2620:fe::9", "192.0.2.1"] {
            assert!(!is_near(far.parse().unwrap()), "{far}");
        }
        for near in [
            "127.0.0.53",
            "192.168.1.1",
            "10.0.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
        ] {
            assert!(is_near(near.parse().unwrap()), "{near}");
        }
    }

    #[test]
    fn lookups_are_due_evenly_from_the_first_moment() {
        let pace = Pace::PerSecond(10);

        assert_eq!(pace.due(Duration::ZERO), 1);
        assert_eq!(pace.due(Duration::from_millis(99)), 1);
        assert_eq!(pace.due(Duration::from_millis(101)), 2);
        assert_eq!(pace.at(10), Duration::from_secs(1));
    }
}
