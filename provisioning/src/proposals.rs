//! Proposals of people in the authority log. Logging decides nothing: a proposal stands there before it is approved, so that
//! others can see it and object, and machines judge its signatures for themselves.

use std::time::Duration;

use anyhow::Context;
use sqlx::sqlite::SqliteConnection;
use tokio::time::Instant;
use trust::{Authority, Proposal, Refused, Standing};

use crate::failure::{Blame, Failure};
use crate::log::{self, Log, LogKeys};
use crate::people::case::{Case, Outlook, When};
use crate::store::proposals::{self, Logged};
use crate::store::{Id, Store};

/// Another process is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Logs what somebody proposed; what is there already stays as it was. The caller asked [`refusal`]. There is a proof once enough
/// have cosigned the head over it.
pub async fn add(
    db: &mut SqliteConnection,
    proposal: &[u8],
    keys: &LogKeys,
    now: u64,
) -> anyhow::Result<Logged> {
    let id = Proposal::id(proposal);
    if let Some(known) = proposals::find(db, &id).await? {
        return Ok(known);
    }
    let leaf = log::append(db, Log::Authority, proposal).await?;
    proposals::add(db, &id, leaf).await?;
    log::seal(db, Log::Authority, keys, now).await?;
    let logged = proposals::find(db, &id).await?;
    logged.context("the proposal that was just logged is gone")
}

/// Waits until enough have cosigned the head over a proposal that is logged, which the server asks them for; none, if that takes longer.
pub async fn wait_for_proof(
    store: &Store,
    id: &Id,
    patience: Duration,
) -> anyhow::Result<Option<Logged>> {
    let deadline = Instant::now() + patience;
    loop {
        let logged = proposals::find(&mut *store.read().await?, id).await?;
        let proved = logged.filter(|logged| logged.proof.is_some());
        if proved.is_some() || Instant::now() >= deadline {
            return Ok(proved);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Why a proposal is not logged: nobody of the authority proposed it, or it could never have its effect. The log is public and for
/// ever.
#[must_use]
pub fn refusal(case: &Case, now: u64) -> Option<Refused> {
    let judged = case.judge(When { logged: None, now })?;
    let is_proposed = matches!(&case.standing, Some(Ok(standing)) if standing.is_proposed());
    let is_hopeless = Outlook::of(&judged) == Outlook::Invalid;
    judged.err().filter(|_| is_hopeless || !is_proposed)
}

/// The first state of the authority: the text of its people, if enough of themselves have signed it.
pub fn first_state(activation: &trust::Activation, now: u64) -> anyhow::Result<Authority> {
    let first = Standing::of_first(&activation.proposal, &activation.approvals);
    let refused = |refused: Refused| {
        let sentence = format!("this is no first state of the authority: {refused}");
        anyhow::Error::from(Failure::new(Blame::Failed, sentence))
    };
    let first = first.map_err(refused)?;
    first.judge(None, now).map_err(refused)?;
    first.state().cloned().context("a proposal without a state")
}
