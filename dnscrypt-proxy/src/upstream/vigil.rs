//! Looking after a resolver that is down: a small query for its certificates every second while answers are
//! wanted, now and then otherwise. The task owns nothing but its place; it ends when the resolver is up, or is
//! asked no more, and aborting it would only cost the recovery.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rand_core::{OsRng, RngCore as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::Shared;
use super::resolver::Resolver;
use super::standing::Standing;

/// Before the first look, besides.
const FIRST: Duration = Duration::from_millis(300);
/// Between two looks, with the time that a look takes in vain; and a part more, by chance, so that a fleet does
/// not come in one instant.
const PAUSE: Duration = Duration::from_millis(200);
const BY_CHANCE: Duration = Duration::from_millis(250);
/// Looks that are left out, each time, while nobody wants an answer.
const QUIET: u32 = 16;
/// What stands for the time of a look that is left out.
const QUIET_PAUSE: Duration = Duration::from_millis(700);

type Changes = watch::Receiver<Vec<Arc<Resolver>>>;

pub(super) fn keep(shared: &Arc<Shared>, resolver: &Arc<Resolver>) {
    tokio::spawn(until_up(Arc::downgrade(shared), Arc::downgrade(resolver)));
}

async fn until_up(shared: Weak<Shared>, resolver: Weak<Resolver>) {
    let Some(mut changes) = shared.upgrade().map(|shared| shared.resolvers.subscribe()) else {
        return;
    };
    let (mut turns, mut is_away, mut besides) = (0_u32, false, FIRST);
    loop {
        if time_for_a_look(&resolver, &mut changes, besides)
            .await
            .is_none()
        {
            return;
        }
        besides = Duration::ZERO;
        let (Some(shared), Some(resolver)) = (shared.upgrade(), resolver.upgrade()) else {
            return;
        };
        turns = turns.wrapping_add(1);
        if !shared.is_wanted() && !turns.is_multiple_of(QUIET) {
            sleep(QUIET_PAUSE).await;
            continue;
        }
        if !resolver.shows_certificates().await {
            is_away = true;
            resolver.standing(Standing::away);
            continue;
        }
        if !is_away && !resolver.standing(|standing| standing.is_down()) {
            continue;
        }
        match resolver.renew().await {
            Ok(()) => {
                is_away = false;
                resolver.standing(Standing::recovered);
                tracing::info!(resolver = %resolver.stamp().addr, "resolver shows its certificates again");
                shared.change(|_| ());
            }
            Err(_) => resolver.standing(Standing::unusable),
        }
    }
}

/// Waits for the next look. What changes meanwhile may make it an earlier one; `None`: there is none to come.
async fn time_for_a_look(
    resolver: &Weak<Resolver>,
    changes: &mut Changes,
    besides: Duration,
) -> Option<()> {
    let doublings = || {
        let resolver = resolver.upgrade()?;
        resolver.standing(|standing| standing.keep_watch(Instant::now()))
    };
    let mut doubled = doublings()?;
    let mut at = Instant::now() + pause(doubled) + besides;
    loop {
        tokio::select! {
            () = sleep_until(at) => return Some(()),
            changed = changes.changed() => changed.ok()?,
        }
        let now = doublings()?;
        if now < doubled {
            at = at.min(Instant::now() + pause(now));
        }
        doubled = now;
    }
}

fn pause(doublings: u32) -> Duration {
    let chance = BY_CHANCE * (OsRng.next_u32() % 256) / 256;
    (PAUSE + chance) * (1 << doublings)
}
