//! The bad line: the kernel's netem where there is one, else a cable of ours in the place of the access wire.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::Options;
use crate::cable::{Cable, Carried, Quality};
use crate::judge::Allowed;
use crate::observer::Findings;
use crate::topology::{Lab, OBSERVED};

/// A held frame is overtaken by those of up to this time; half of it at least.
const JITTER: Duration = Duration::from_millis(6);
/// netem's own limit of frames under way would be a hidden loss.
const NETEM_LIMIT: &str = "100000";

/// Who makes the line bad.
#[derive(Debug)]
pub(super) enum Line {
    /// The kernel, at both ends of the access wire.
    Netem,
    /// A cable of ours.
    Ours(Box<Cable>),
}

/// What the cable did, the way from the home first.
#[derive(Debug, Clone, Serialize)]
pub struct LineCount {
    /// Each way.
    pub ways: [Carried; 2],
    /// Frames that a kernel dropped before the cable had them.
    pub dropped_before: u64,
}

impl Line {
    /// Makes the access wire of a lab bad, before anything runs on it.
    pub(super) fn lay(lab: &Lab, options: Options) -> Result<Self> {
        if has_netem(lab)? {
            for (netns, device) in [(&lab.access, OBSERVED), (&lab.router, "wan0")] {
                let line = format!(
                    "tc qdisc add dev {device} root netem limit {NETEM_LIMIT} delay {}ms reorder {}% loss {}%",
                    options.delay_ms, options.reorder, options.loss
                );
                netns.run(&line.split(' ').collect::<Vec<_>>())?;
            }
            return Ok(Self::Netem);
        }
        let cable = lab.lay_cable(Quality {
            delay: Duration::from_millis(options.delay_ms),
            reorder: options.reorder / 100.0,
            jitter: JITTER,
            loss: options.loss / 100.0,
            seed: options.seed,
            ..Quality::default()
        })?;
        Ok(Self::Ours(Box::new(cable)))
    }

    /// How it is told.
    pub(super) fn words(&self, options: Options) -> String {
        let who = match self {
            Self::Netem => "the kernel's netem",
            Self::Ours(_) => "a cable of ours, as this kernel has no netem",
        };
        format!(
            "each way {} ms, {} % lost, {} % reordered ({who})",
            options.delay_ms, options.loss, options.reorder
        )
    }

    /// What it counted; netem does not tell.
    pub(super) fn count(&self) -> Result<Option<LineCount>> {
        let Self::Ours(cable) = self else {
            return Ok(None);
        };
        Ok(Some(LineCount {
            ways: cable.carried(),
            dropped_before: cable.dropped_before()?,
        }))
    }

    /// Judges what was lost between the home and the observer.
    pub(super) fn judge_lost(&self, findings: &mut Findings, allowed: &Allowed, markers: &[&str]) {
        let Self::Ours(cable) = self else { return };
        for frame in cable.lost_frames() {
            findings.look_at(&frame, allowed, markers);
        }
    }
}

/// Asks the kernel by having it done where nothing runs yet.
fn has_netem(lab: &Lab) -> Result<bool> {
    let add = "tc qdisc add dev lo root netem delay 1ms";
    let added = lab.access.output(&add.split(' ').collect::<Vec<_>>())?;
    if added.status.success() {
        lab.access
            .run(&["tc", "qdisc", "del", "dev", "lo", "root"])?;
    }
    Ok(added.status.success())
}
