//! Who is killed when: drawn from a seed, never two at once.
//!
//! The first to die is the preferred gateway; then both gateways and the agent in the first half. In the second half only the preferred gateway does, so that agent,
//! standby and provisioning live long enough under moves for the judge of growth.

use std::time::Duration;

use serde::Serialize;

use crate::dice::Dice;

/// Between a restart and the next kill: at least the first, and up to the second more.
const PAUSE_MS: (u64, u64) = (15_000, 30_000);
/// The dead stay away for up to this.
const AWAY_MS: u64 = 3_000;
/// One kill in so many of the first half is the agent's.
const AGENT_EACH: u64 = 6;
/// No kill in the last moments: what comes of it is to be seen.
const CALM_END: Duration = Duration::from_secs(20);

/// Whom a kill is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Victim {
    /// The router's agent.
    Agent,
    /// A gateway, 0 or 1.
    Gateway(usize),
}

/// One kill, and what the home felt.
#[derive(Debug, Clone, Serialize)]
pub struct Strike {
    /// Since the soak's start.
    pub at_s: f64,
    /// Who was killed.
    pub victim: Victim,
    /// Whether the home's packets went through it at the time.
    pub in_use: bool,
    /// After how long it was started again.
    pub away_s: f64,
    /// The longest time without an answer from the internet that follows.
    pub outage_s: f64,
    /// The longest time in which no download got a byte.
    pub stall_s: f64,
}

/// The plan.
#[derive(Debug)]
pub(super) struct Strikes {
    dice: Dice,
    length: Duration,
    preferred: usize,
    next_at: Option<Duration>,
    has_begun: bool,
}

impl Strikes {
    /// None are planned unless `kill`.
    pub(super) fn plan(kill: bool, seed: u64, length: Duration, preferred: usize) -> Self {
        let mut plan = Self {
            dice: Dice::new(seed),
            length,
            preferred,
            next_at: None,
            has_begun: false,
        };
        if kill {
            plan.go_on(Duration::ZERO);
        }
        plan
    }

    /// Whom to kill now, and for how long, if it is time.
    pub(super) fn due(&mut self, now: Duration) -> Option<(Victim, Duration)> {
        if self.next_at? > now {
            return None;
        }
        self.next_at = None;
        if now + CALM_END > self.length {
            return None;
        }
        let gateway = usize::try_from(self.dice.roll(2)).unwrap_or_default();
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        let victim = if is_first || now * 2 >= self.length {
            Victim::Gateway(self.preferred)
        } else if self.dice.roll(AGENT_EACH) == 0 {
            Victim::Agent
        } else {
            Victim::Gateway(gateway)
        };
        Some((victim, Duration::from_millis(self.dice.roll(AWAY_MS))))
    }

    /// The killed one runs again.
    pub(super) fn go_on(&mut self, now: Duration) {
        let (least, more) = PAUSE_MS;
        self.next_at = Some(now + Duration::from_millis(least + self.dice.roll(more)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(1_800);

    /// All kills of a soak whose dead come back at once.
    fn all(seed: u64) -> Vec<(Duration, Victim)> {
        let mut plan = Strikes::plan(true, seed, LENGTH, 0);
        let mut kills = Vec::new();
        for s in 0..1_800 {
            let now = Duration::from_secs(s);
            if let Some((victim, away)) = plan.due(now) {
                kills.push((now, victim));
                plan.go_on(now + away);
            }
        }
        kills
    }

    #[test]
    fn nobody_dies_where_nobody_is_to_and_nobody_in_the_last_moments() {
        assert!(Strikes::plan(false, 1, LENGTH, 0).due(LENGTH / 2).is_none());
        assert!(all(1).iter().all(|(at, _)| *at + CALM_END <= LENGTH));
    }

    #[test]
    fn every_daemon_dies_in_the_first_half_and_only_the_preferred_gateway_in_the_second() {
        let (first, second): (Vec<_>, Vec<_>) =
            all(1).into_iter().partition(|(at, _)| *at < LENGTH / 2);

        for victim in [Victim::Agent, Victim::Gateway(0), Victim::Gateway(1)] {
            assert!(first.iter().any(|(_, v)| *v == victim), "{first:?}");
        }
        assert_eq!(first[0].1, Victim::Gateway(0));
        assert!(second.len() > 10);
        assert!(second.iter().all(|(_, v)| *v == Victim::Gateway(0)));
    }

    #[test]
    fn a_seed_gives_the_same_kills_again_with_fifteen_seconds_between_them() {
        assert_eq!(all(3), all(3));
        let apart = |pair: &[(Duration, Victim)]| pair[1].0 - pair[0].0;
        assert!(
            all(3)
                .windows(2)
                .all(|pair| apart(pair) >= Duration::from_secs(15))
        );
    }
}
