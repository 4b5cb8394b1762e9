//! Wakes whoever waits for the database to change: at once for what this process wrote, within
//! [`POLL`] for what a command line wrote. Owns one connection; aborting the task loses a wake-up at most.

use std::time::Duration;

use sqlx::sqlite::SqliteConnection;
use tokio::sync::watch;

use crate::store::{Store, data_version};

/// A revocation must reach a gateway within a second.
const POLL: Duration = Duration::from_millis(200);

/// Tells waiters that there may be something new.
#[derive(Clone, Debug)]
pub struct Changes(watch::Sender<()>);

impl Changes {
    /// Nobody waits yet.
    pub fn new() -> Self {
        Self(watch::Sender::new(()))
    }

    /// Wakes everybody.
    pub(crate) fn announce(&self) {
        self.0.send_replace(());
    }

    /// Waits from now on.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.0.subscribe()
    }
}

impl Default for Changes {
    fn default() -> Self {
        Self::new()
    }
}

/// Announces commits of other processes until dropped.
pub(crate) async fn watch_store(store: Store, changes: Changes) {
    let mut connection: Option<SqliteConnection> = None;
    let mut last = None;
    let mut tick = tokio::time::interval(POLL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match version(&store, &mut connection).await {
            Ok(version) if last == Some(version) => {}
            Ok(version) => {
                last = Some(version);
                changes.announce();
            }
            Err(error) => {
                connection = None;
                tracing::warn!("cannot watch the database for changes: {error:#}");
            }
        }
    }
}

async fn version(store: &Store, slot: &mut Option<SqliteConnection>) -> anyhow::Result<i64> {
    let connection = match slot {
        Some(connection) => connection,
        None => slot.insert(store.watcher().await?),
    };
    data_version(connection).await
}
