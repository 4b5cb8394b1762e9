//! The edge away for as long as one likes: what the home's lookups get meanwhile, how soon after its return they
//! are fresh again, and whether any of them was ever on the provider's wire in clear.

use std::fmt::Write as _;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde::Serialize;

use crate::dns_peers::DnscryptStub;
use crate::observer::{Observer, allowed_in_the_lab};
use crate::programs::Programs;
use crate::topology::ROUTER_LAN;
use crate::wait::wait_until;
use crate::world::World;
use crate::zones::{MANY_NAMES, NAME_MARKER, WILD_NAMES};

/// Names that are known when the edge goes; each lives for a second.
const KNOWN: usize = 5;
/// How soon a stub knows that nobody answers: from then on nobody waits.
const FOUND_OUT_WITHIN: Duration = Duration::from_secs(8);
/// "At once", on a machine that does other things too.
const AT_ONCE: Duration = Duration::from_millis(200);
/// The limit from the edge's return to an answer of its own.
const BACK_WITHIN: Duration = Duration::from_secs(2);
/// What was fresh when the edge went may be so for this much longer, and no longer: the names live for a second.
const LINGER: Duration = Duration::from_secs(2);
/// A client asks again after this.
const PATIENCE: Duration = Duration::from_secs(3);
const ROUND: Duration = Duration::from_secs(1);
/// The lifetime of a stale answer (RFC 8767).
const STALE_TTL_S: u32 = 30;

/// Drops the DNSCrypt server's packets behind the tunnel, which stays up.
const CUT: &str = "table inet cut_dns {
chain input {
type filter hook input priority -300
meta l4proto { tcp, udp } th dport 443 drop
}
}
";

/// What is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Away {
    /// The gateway's DNSCrypt server; the tunnel stays.
    Resolver,
    /// The gateway, tunnel and all.
    Gateway,
}

impl std::str::FromStr for Away {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "resolver" => Ok(Self::Resolver),
            "gateway" => Ok(Self::Gateway),
            _ => Err(format!("{text:?} is not one of resolver, gateway")),
        }
    }
}

/// What is away for how long.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What is away.
    pub away: Away,
    /// For so many seconds.
    pub seconds: u64,
}

/// What one stub gave.
#[derive(Debug, Default, Serialize)]
pub struct Given {
    /// Which stub.
    pub stub: &'static str,
    /// Known names that were asked for while the edge was away; those that were still fresh at its start are not counted.
    pub asked: usize,
    /// Of them, those that got a stale answer.
    pub stale: usize,
    /// Of them, those that got a fresh one, which nobody can have given.
    pub fresh: usize,
    /// The longest wait for one, once the stub knew.
    pub longest_wait_ms: f64,
    /// New names that got an answer, from wherever.
    pub new_answered: usize,
    /// From the edge's return to its first own answer.
    pub back_after_ms: f64,
}

/// What it came to.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Everything held.
    pub ok: bool,
    /// What did not, one sentence each.
    pub failures: Vec<String>,
    /// What was away.
    pub away: Away,
    /// For how long.
    pub seconds: u64,
    /// By stub.
    pub given: Vec<Given>,
    /// WireGuard frames on the provider's wire.
    pub wireguard_frames: u64,
    /// Frames in clear there.
    pub clear_frames: u64,
}

impl Report {
    /// For a person.
    pub fn text(&self) -> String {
        let mut text = format!("{:?} away for {} s\n", self.away, self.seconds);
        for given in &self.given {
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{}: {} of {} known names got stale answers, {} fresh ones; longest wait {:.1} ms; {} new names answered; fresh again after {:.0} ms",
                given.stub,
                given.stale,
                given.asked,
                given.fresh,
                given.longest_wait_ms,
                given.new_answered,
                given.back_after_ms
            );
        }
        let _ = writeln!(
            text,
            "on the provider's wire: {} frames of WireGuard, {} in clear",
            self.wireguard_frames, self.clear_frames
        );
        for failure in &self.failures {
            let _ = writeln!(text, "NOT OK: {failure}");
        }
        text
    }
}

/// Builds a lab, takes the edge away and gives it back.
pub fn run(options: Options) -> Result<Report> {
    let world = World::protected()?;
    let programs = Programs::of_this_build()?;
    let _stub = DnscryptStub::start(&world.lab, &world.lab.home, &programs, &world.pop.stamp)?;
    let observer = Observer::start(&world.lab)?;
    let router = format!("{ROUTER_LAN}:53");
    let mut homes = [
        Home::start(&world, "cpe-agent", &router)?,
        Home::start(&world, "culvert-dns", DnscryptStub::LISTEN)?,
    ];
    for home in &mut homes {
        home.learn()?;
    }
    take_away(&world, options.away)?;
    let begun = Instant::now();
    let mut round = 0;
    while begun.elapsed() < Duration::from_secs(options.seconds) {
        let next = Instant::now() + ROUND;
        for home in &mut homes {
            home.ask_known(begun)?;
            if round % 10 == 5 {
                home.ask_new(round)?;
            }
        }
        round += 1;
        std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
    }
    give_back(&world, options.away)?;
    let back = Instant::now();
    std::thread::scope(|scope| {
        let waits: Vec<_> = homes
            .iter_mut()
            .map(|home| scope.spawn(|| home.wait_fresh(back)))
            .collect();
        let mut joined = waits.into_iter().map(|wait| wait.join());
        joined
            .try_for_each(|waited| waited.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let findings = observer.finish(&world.lab, &allowed_in_the_lab()?, &[NAME_MARKER])?;
    let given: Vec<_> = homes.into_iter().map(|home| home.given).collect();
    let mut failures = Vec::new();
    for given in &given {
        failures.extend(given.failures());
    }
    if findings.clear > 0 || !findings.markers.is_empty() {
        failures.push(format!("in clear: {findings:?}"));
    }
    Ok(Report {
        ok: failures.is_empty(),
        failures,
        away: options.away,
        seconds: options.seconds,
        given,
        wireguard_frames: findings.wireguard,
        clear_frames: findings.clear,
    })
}

fn take_away(world: &World, away: Away) -> Result<()> {
    match away {
        Away::Resolver => {
            let rules = world.lab.work().join("cut-dns.nft");
            std::fs::write(&rules, CUT).context("writing the cut")?;
            let rules = rules.to_string_lossy().into_owned();
            world.lab.pop.run(&["nft", "-f", &rules]).map(drop)
        }
        Away::Gateway => stop_or_go(world, Signal::SIGSTOP),
    }
}

fn give_back(world: &World, away: Away) -> Result<()> {
    match away {
        Away::Resolver => {
            let remove = ["nft", "delete", "table", "inet", "cut_dns"];
            world.lab.pop.run(&remove).map(drop)
        }
        Away::Gateway => stop_or_go(world, Signal::SIGCONT),
    }
}

fn stop_or_go(world: &World, signal: Signal) -> Result<()> {
    let gateway = world.gateway.as_ref().context("the gateway is off")?;
    gateway.signal(signal)
}

/// Somebody at home, who asks one stub.
struct Home {
    socket: UdpSocket,
    next_id: u16,
    given: Given,
}

/// An answer as far as anybody here looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Fresh,
    Stale,
    /// A failure, or nothing at all.
    None,
}

impl Home {
    fn start(world: &World, stub: &'static str, server: &str) -> Result<Self> {
        let socket = world.lab.home.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").context("binding in the home")?;
            socket.connect(server).context("aiming at the stub")?;
            Ok(socket)
        })?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket,
            next_id: 1,
            given: Given {
                stub,
                ..Given::default()
            },
        })
    }

    /// Has the known names answered, so that they are kept.
    fn learn(&mut self) -> Result<()> {
        for n in 0..KNOWN {
            wait_until("a name is answered", Duration::from_secs(10), || {
                let answer = self.ask(&known(n))?;
                Ok((answer == Answer::Fresh).then_some(()))
            })?;
        }
        Ok(())
    }

    fn ask_known(&mut self, begun: Instant) -> Result<()> {
        for n in 0..KNOWN {
            let (gone, asked) = (begun.elapsed(), Instant::now());
            let answer = self.ask(&known(n))?;
            let waited_ms = asked.elapsed().as_secs_f64() * 1e3;
            self.given.count(answer, gone);
            if gone > FOUND_OUT_WITHIN {
                self.given.longest_wait_ms = self.given.longest_wait_ms.max(waited_ms);
            }
        }
        Ok(())
    }

    fn ask_new(&mut self, round: usize) -> Result<()> {
        let answer = self.ask(&format!("n{}.{MANY_NAMES}", round % 400))?;
        self.given.new_answered += usize::from(answer != Answer::None);
        Ok(())
    }

    fn wait_fresh(&mut self, back: Instant) -> Result<()> {
        wait_until("the edge answers", Duration::from_secs(60), || {
            let answer = self.ask(&known(0))?;
            Ok((answer == Answer::Fresh).then_some(()))
        })?;
        self.given.back_after_ms = back.elapsed().as_secs_f64() * 1e3;
        Ok(())
    }

    fn ask(&mut self, name: &str) -> Result<Answer> {
        self.next_id = self.next_id.wrapping_add(1);
        let query = query(self.next_id, name);
        self.socket.send(&query).context("asking")?;
        let mut answer = [0; 1500];
        loop {
            let Ok(len) = self.socket.recv(&mut answer) else {
                return Ok(Answer::None);
            };
            let answer = answer.get(..len).unwrap_or_default();
            if answer.starts_with(&self.next_id.to_be_bytes()) {
                return Ok(read(answer, query.len()));
            }
        }
    }
}

impl Given {
    /// What a known name got so long after the edge went.
    fn count(&mut self, answer: Answer, gone: Duration) {
        if answer == Answer::Fresh && gone < LINGER {
            return;
        }
        self.asked += 1;
        self.stale += usize::from(answer == Answer::Stale);
        self.fresh += usize::from(answer == Answer::Fresh);
    }

    fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        let stub = self.stub;
        if self.stale == 0 {
            failures.push(format!("{stub}: no stale answer was seen"));
        }
        if self.fresh > 0 {
            let fresh = self.fresh;
            failures.push(format!("{stub}: somebody gave {fresh} fresh answers"));
        }
        let missing = self.asked - self.stale - self.fresh;
        if missing > 0 {
            failures.push(format!("{stub}: {missing} known names were not answered"));
        }
        if self.longest_wait_ms > AT_ONCE.as_secs_f64() * 1e3 {
            let waited = self.longest_wait_ms;
            failures.push(format!("{stub}: an answer took {waited:.0} ms"));
        }
        if self.new_answered > 0 {
            failures.push(format!("{stub}: somebody answered new names"));
        }
        if self.back_after_ms > BACK_WITHIN.as_secs_f64() * 1e3 {
            let after = self.back_after_ms;
            failures.push(format!("{stub}: fresh again only after {after:.0} ms"));
        }
        failures
    }
}

fn known(n: usize) -> String {
    format!("known{n}.{WILD_NAMES}")
}

fn query(id: u16, name: &str) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    query.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap_or_default());
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    query
}

/// The first record stands behind the question, its name a pointer.
fn read(answer: &[u8], question_end: usize) -> Answer {
    let is_good = answer.get(3).is_some_and(|flags| flags & 15 == 0)
        && answer.get(6..8).is_some_and(|count| count != [0, 0]);
    let ttl = answer
        .get(question_end + 6..)
        .and_then(|rest| rest.first_chunk::<4>());
    match ttl.filter(|_| is_good) {
        None => Answer::None,
        Some(ttl) if u32::from_be_bytes(*ttl) == STALE_TTL_S => Answer::Stale,
        Some(_) => Answer::Fresh,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What all of these came to, long after the edge went.
    fn failures(answers: &[Answer]) -> Vec<String> {
        let mut given = Given::default();
        for answer in answers {
            given.count(*answer, LINGER);
        }
        given.failures()
    }

    #[test]
    fn fresh_answers_missing_ones_and_none_at_all_are_failures_and_stale_ones_are_not() {
        let (fresh, stale, none) = (Answer::Fresh, Answer::Stale, Answer::None);

        assert_eq!(failures(&[]).len(), 1);
        assert_eq!(failures(&[fresh, fresh]).len(), 2);
        assert_eq!(failures(&[stale, fresh]).len(), 1);
        assert_eq!(failures(&[stale, none]).len(), 1);
        assert!(failures(&[stale, stale]).is_empty());
    }

    #[test]
    fn what_is_still_fresh_at_the_start_is_not_counted_and_a_failure_there_is() {
        let mut given = Given::default();

        given.count(Answer::Fresh, Duration::ZERO);
        assert_eq!(given.asked, 0);
        given.count(Answer::None, Duration::ZERO);
        assert_eq!((given.asked, given.stale, given.fresh), (1, 0, 0));
    }
}
