//! Looking after a resolver that is down: a small query for its certificates every second while answers are
//! wanted, now and then otherwise. The task owns nothing but its place; it ends when the resolver is up, or is
//! asked no more, and aborting it would only cost the recovery.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rand_core::{OsRng, RngCore as _};
use tokio::time::{Instant, sleep};

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
/// One that answers and cannot be used is looked at after pauses that are doubled this often.
const MOST_DOUBLINGS: u32 = 10;
/// What stands for the time of a look that is left out.
const QUIET_PAUSE: Duration = Duration::from_millis(700);

pub(super) fn keep(shared: &Arc<Shared>, resolver: &Arc<Resolver>) {
    tokio::spawn(until_up(Arc::downgrade(shared), Arc::downgrade(resolver)));
}

async fn until_up(shared: Weak<Shared>, resolver: Weak<Resolver>) {
    let (mut turns, mut unusable, mut is_away) = (0_u32, 0_u32, false);
    loop {
        let Some(one) = resolver.upgrade() else {
            return;
        };
        let keep_watch = |standing: &mut Standing| standing.keep_watch(Instant::now());
        let Some(relapses) = one.standing(keep_watch) else {
            return;
        };
        drop(one);
        let doublings = relapses.max(unusable);
        sleep(pause(doublings) + if turns == 0 { FIRST } else { Duration::ZERO }).await;
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
            continue;
        }
        if !is_away && !resolver.standing(|standing| standing.is_down()) {
            continue;
        }
        match resolver.renew().await {
            Ok(()) => {
                (unusable, is_away) = (0, false);
                resolver.standing(Standing::recovered);
                tracing::info!(resolver = %resolver.stamp().addr, "resolver shows its certificates again");
                shared.change(|_| ());
            }
            Err(_) => unusable = (unusable + 1).min(MOST_DOUBLINGS),
        }
    }
}

fn pause(doublings: u32) -> Duration {
    let chance = BY_CHANCE * (OsRng.next_u32() % 256) / 256;
    (PAUSE + chance) * (1 << doublings)
}
