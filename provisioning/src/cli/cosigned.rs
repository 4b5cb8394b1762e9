//! What `status` says of those who cosign the logs.

use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnection;
use trust::Anchors;

use super::answers::date;
use crate::log::{self, Log};
use crate::store::witnesses::{self, Seen};

/// A log, and how far others have cosigned it.
pub(super) struct Cosigned {
    log: Log,
    entries: u64,
    published: u64,
    witnesses: Vec<(String, Option<Seen>)>,
}

/// Gathers it: of the trust file's witnesses, those that are asked.
pub(super) async fn of(
    db: &mut SqliteConnection,
    log: Log,
    anchors: &Anchors,
) -> anyhow::Result<Cosigned> {
    let seen = witnesses::list(db, log.number()).await?;
    let asked = log::policy(anchors, log).witnesses();
    let asked = asked.filter(|(_, witness)| witness.url.is_some());
    let find = |key: &[u8; 32]| seen.iter().find(|seen| seen.witness_pub == *key).cloned();
    let witnesses = asked.map(|(name, witness)| (name.to_owned(), find(&witness.vkey.key)));
    let size = |head: Option<log::Head>| head.map_or(0, |head| head.size);
    Ok(Cosigned {
        log,
        entries: size(log::latest(db, log).await?),
        published: size(log::head(db, log).await?),
        witnesses: witnesses.collect(),
    })
}

impl Cosigned {
    /// Nothing, where nobody else is asked.
    pub(super) fn lines(&self) -> String {
        if self.witnesses.is_empty() {
            return String::new();
        }
        let (name, entries, published) = (self.log.as_str(), self.entries, self.published);
        let mut lines = format!(
            "\n\n{name} log: {published} of {entries} entries are published, cosigned by enough"
        );
        for (name, seen) in &self.witnesses {
            let said = match seen {
                None => "has not been asked yet".to_owned(),
                Some(seen) => said(seen),
            };
            lines.push_str(&format!("\n  {name:<16} {said}"));
        }
        lines
    }

    pub(super) fn object(&self) -> Value {
        let witness = |(name, seen): &(String, Option<Seen>)| {
            let seen = seen.as_ref();
            let problem = seen.and_then(|seen| seen.problem.as_ref());
            json!({
                "name": name,
                "size": seen.map(|seen| seen.size),
                "cosigned": seen.and_then(|seen| seen.cosigned_at),
                "problem": problem.map(|(problem, _)| problem),
                "problem_since": problem.map(|(_, since)| since),
            })
        };
        json!({
            "log": self.log.as_str(),
            "entries": self.entries,
            "published": self.published,
            "witnesses": self.witnesses.iter().map(witness).collect::<Vec<_>>(),
        })
    }
}

fn said(seen: &Seen) -> String {
    let size = seen.size;
    let Some((problem, since)) = &seen.problem else {
        let when = seen.cosigned_at.map_or_else(String::new, date);
        return format!("cosigned {size} entries, {when}");
    };
    let why = match problem.as_str() {
        "unreachable" => "cannot be reached".to_owned(),
        "unknown-log" => {
            "does not know this log: send its operator what `log keys` prints".to_owned()
        }
        "ahead" => format!(
            "HAS COSIGNED {size} ENTRIES: this database is older than what this server signed; stop it and restore the latest copy"
        ),
        "fork" => {
            "HAS COSIGNED ANOTHER HISTORY: somebody else signs with this server's keys, or this database was put back to an old copy and has grown since"
                .to_owned()
        }
        _ => "refuses; its operator's log says why".to_owned(),
    };
    format!("{why} (since {})", date(*since))
}
