//! States of the authority: whoever adds one shows that enough people of the state before and of this one signed it. Routers fetch each
//! from its epoch, and judge it for themselves.

use sqlx::sqlite::SqliteConnection;
use trust::{Activation, Anchors, Authority, Proposal, Standing};

use crate::failure::{Blame, Failure};
use crate::gateways;
use crate::store::{self, proposals};

/// A state that was added, and what it does to the gateways that there are.
#[derive(Debug)]
pub struct Added {
    /// The state.
    pub people: Authority,
    /// Gateways that too few of its people have approved, by name, each with what routers will say.
    pub lost: Vec<(String, String)>,
}

/// Indexes the next state. Of each gateway's statement only the signatures of its people are kept, for every other one would spoil it. The
/// caller commits, or does not because of what would be lost, and then puts the state into the trust file of images.
pub async fn add(
    db: &mut SqliteConnection,
    activation: &Activation,
    anchors: &Anchors,
    now: u64,
) -> anyhow::Result<Added> {
    let refused = |sentence: String| Failure::new(Blame::Failed, sentence);
    let state = anchors.verify_change(activation, now);
    let people = state.map_err(|error| refused(format!("no state is added: {error}")))?;
    let people = people.into_inner();
    let logged = proposals::find(db, &Proposal::id(&activation.proposal)).await?;
    let logged = logged.ok_or_else(|| {
        let sentence = "no state is added: its proposal is not in this server's log; see `log add`";
        refused(sentence.to_owned())
    })?;
    proposals::activate(db, logged.leaf, &activation.to_bytes()).await?;
    proposals::add_state(db, people.epoch(), logged.leaf).await?;
    let anchors = Anchors {
        people: people.clone(),
        ..anchors.clone()
    };
    let mut lost = Vec::new();
    for gateway in store::gateways::list(db).await? {
        let kept = gateways::activation(db, &gateway.gateway_id).await?;
        let kept = of_these_people(kept, &people);
        match anchors.verify_gateway(&kept, now) {
            Ok(_) => proposals::activate(db, gateway.leaf, &kept.to_bytes()).await?,
            Err(error) => lost.push((gateway.name, error.to_string())),
        }
    }
    Ok(Added { people, lost })
}

/// Without the signatures that are nobody's any more.
fn of_these_people(mut activation: Activation, people: &Authority) -> Activation {
    if let Ok(standing) = Standing::of(people, &activation.proposal, &activation.approvals) {
        let mut at = 0..;
        let is_theirs = |_: &_| {
            at.next()
                .is_some_and(|at| standing.stopped_by(at).is_none())
        };
        activation.approvals.retain(is_theirs);
    }
    activation
}
