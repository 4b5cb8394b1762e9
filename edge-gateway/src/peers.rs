//! From the shard streams to the workers: fetches pages, verifies every entry, folds it into the table of
//! leases, tells the workers, and then writes the page down. Pages are applied before they are written, so
//! that a revocation never waits for a disk.
//!
//! The task of [`Peers::follow`] owns the table, the caches and one fetch per shard; it waits on those and on
//! a clock tick. Aborting it loses nothing: what was applied and not written is fetched again.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use netio::clock;
use rand_core::{OsRng, RngCore};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use trust::{
    Anchors, EntryError, PskOffer, ShardChange, ShardEntry, ShardJudge, ShardPage, Signed, Verified,
};
use tunnel::Share;

use crate::engine::{Away, Command, Gone, Worker};
use crate::exit::Fault;
use crate::keyring::Rotation;
use crate::leases::{Change, Leases, Outcome};
use crate::shard_cache::ShardCache;
use crate::stream::{Connection, LONG_POLL, Office, StreamError};

/// Leases end to the second, so that is how often they are looked at.
const EXPIRY_TICK: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// An outage ends at the latest this long after provisioning is back.
const LAST_RETRY: Duration = Duration::from_secs(15);
/// How often the present ML-KEM key is told again.
const STATE_AGAIN: Duration = Duration::from_secs(3600);
/// A full disk does not empty itself quickly.
const DISK_RETRY: Duration = Duration::from_secs(30);

/// What `status` and metrics show of the streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// Devices with a lease.
    pub leased: usize,
    /// Each shard's stream.
    pub shards: BTreeMap<u32, StreamFigures>,
    /// Entries by what became of them.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Failed writes of a cache.
    pub write_failures: u64,
    /// Leases with a pre-shared key.
    pub agreed: usize,
    /// Why routers are not told with which key to agree one, in one sentence.
    pub key_error: Option<String>,
}

/// One shard's stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamFigures {
    /// Place in the stream.
    pub next: u64,
    /// When provisioning last answered.
    pub last_contact: Option<Instant>,
    /// Why it does not, in one sentence.
    pub error: Option<String>,
    /// Why the cache cannot be written, in one sentence.
    pub disk_error: Option<String>,
}

/// The control side of the peers.
pub(crate) struct Peers {
    anchors: Anchors,
    leases: Leases,
    shards: BTreeMap<u32, Shard>,
    /// Which worker has which peer; any worker's share tells.
    share: Share,
    workers: Vec<Worker>,
    figures: watch::Sender<Figures>,
}

struct Shard {
    cache: ShardCache,
    /// Place in the stream from which to read on.
    next: u64,
    /// When to go back to where the file is, after a failed write.
    rewind_at: Option<Instant>,
    retry: Duration,
}

/// A fetch that has ended; the connection comes back if it still works.
struct Fetched {
    shard: u32,
    from: u64,
    page: Result<(ShardPage, Connection), StreamError>,
}

impl Peers {
    /// Reads the caches back, verifying every entry.
    pub(crate) fn restore(
        directory: &Path,
        shards: &[u32],
        anchors: Anchors,
        leases: Leases,
    ) -> Result<Self, Fault> {
        let mut peers = Self {
            anchors,
            leases,
            shards: BTreeMap::new(),
            share: Share::whole(),
            workers: Vec::new(),
            figures: watch::Sender::default(),
        };
        let now = clock::unix_s();
        for shard in shards {
            let (mut judge, leases) = (ShardJudge::new(&peers.anchors), &mut peers.leases);
            let (mut cache, found) = ShardCache::open(directory, *shard, |entry| {
                if let Ok(change) = judge.verify(&entry, now) {
                    // The workers are told of the whole table once they run.
                    let (_outcome, _changes) = leases.apply(change.get(), *shard);
                }
            })
            .map_err(|error| {
                Fault::io(
                    format!("use the shard cache shard-{shard}.log in state-dir"),
                    &error,
                )
            })?;
            if found.torn_bytes > 0 {
                tracing::warn!(
                    shard,
                    bytes = found.torn_bytes,
                    "cut a torn end off the shard cache"
                );
            }
            let next = cache.next();
            compact_if_large(*shard, &mut cache, &peers.leases);
            peers.shards.insert(
                *shard,
                Shard {
                    cache,
                    next,
                    rewind_at: None,
                    retry: FIRST_RETRY,
                },
            );
        }
        let _changes = peers.leases.expire(now);
        tracing::info!(leases = peers.leases.len(), "shard caches read");
        peers.publish();
        Ok(peers)
    }

    /// Figures, now and whenever they change.
    pub(crate) fn figures(&self) -> watch::Receiver<Figures> {
        self.figures.subscribe()
    }

    /// Follows the streams for as long as the workers live.
    pub(crate) async fn follow(
        mut self,
        office: Office,
        workers: Vec<Worker>,
        share: Share,
    ) -> Gone {
        (self.workers, self.share) = (workers, share);
        let Err(gone) = self.run(office).await;
        gone
    }

    async fn run(&mut self, office: Office) -> Result<std::convert::Infallible, Gone> {
        for admit in self.leases.admitted() {
            self.tell(admit).await?;
        }
        let mut fetches = JoinSet::new();
        for (shard, state) in &self.shards {
            fetches.spawn(fetch(
                office.clone(),
                None,
                *shard,
                state.next,
                Duration::ZERO,
            ));
        }
        let mut tick = interval(EXPIRY_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut statements = JoinSet::new();
        self.state_key(&office, &mut statements, Duration::ZERO);
        loop {
            tokio::select! {
                Some(fetched) = fetches.join_next() => {
                    // A fetch is not aborted and does not panic; if it did, its shard would be stuck silently.
                    let fetched = fetched.map_err(|_| Gone)?;
                    self.take(fetched, &office, &mut fetches).await?;
                }
                Some(stated) = statements.join_next() => {
                    let pause = self.note_statement(stated.map_err(|_| Gone)?);
                    self.state_key(&office, &mut statements, pause);
                }
                _ = tick.tick() => {
                    self.expire(clock::unix_s()).await?;
                    if self.rotate() == Rotation::Rotated {
                        statements.abort_all();
                        while statements.join_next().await.is_some() {}
                        self.state_key(&office, &mut statements, Duration::ZERO);
                    }
                }
            }
            self.publish();
        }
    }

    /// Uses what a fetch brought; the next one is under way meanwhile.
    async fn take(
        &mut self,
        fetched: Fetched,
        office: &Office,
        fetches: &mut JoinSet<Fetched>,
    ) -> Result<(), Gone> {
        let Fetched { shard, from, page } = fetched;
        let mut go_on = |connection, from, pause| {
            fetches.spawn(fetch(office.clone(), connection, shard, from, pause));
        };
        let (page, connection) = match page {
            Ok(brought) => brought,
            Err(error) => {
                go_on(None, from, self.note_failure(shard, &error));
                return Ok(());
            }
        };
        self.note_contact(shard);
        if page.from != from || page.next < from {
            tracing::warn!(
                shard,
                "provisioning's stream has begun anew; reading it from the start"
            );
            self.begin_anew(shard);
            go_on(Some(connection), 0, FIRST_RETRY);
            return Ok(());
        }
        go_on(Some(connection), self.advance(shard, &page), Duration::ZERO);
        self.apply(shard, &page.entries).await?;
        self.write_down(shard, &page);
        Ok(())
    }

    /// Where the stream is read on behind this page: a while after a failed write, where the file is. Entries that are
    /// known have no effect then, and a restart misses nothing.
    fn advance(&mut self, shard: u32, page: &ShardPage) -> u64 {
        let Some(state) = self.shards.get_mut(&shard) else {
            return page.next;
        };
        let is_behind = state.cache.next() != page.from;
        let is_time = state.rewind_at.is_some_and(|at| at <= Instant::now());
        state.retry = FIRST_RETRY;
        state.next = if is_behind && is_time {
            state.cache.next()
        } else {
            page.next
        };
        state.next
    }

    async fn apply(&mut self, shard: u32, entries: &[ShardEntry]) -> Result<(), Gone> {
        let now = clock::unix_s();
        // An address of a lease that is over is free for the next.
        self.expire(now).await?;
        let judged = tokio::task::block_in_place(|| judge(&self.anchors, entries, now));
        for verified in judged {
            let (outcome, changes) = match verified {
                Ok(change) => self.leases.apply(change.get(), shard),
                Err(EntryError::Expired { .. }) => (Outcome::Expired, Vec::new()),
                Err(error) => {
                    tracing::warn!(shard, %error, "refused an entry of the shard stream");
                    (Outcome::Refused, Vec::new())
                }
            };
            self.figures
                .send_modify(|figures| *figures.outcomes.entry(outcome).or_default() += 1);
            for change in changes {
                self.tell(change).await?;
            }
        }
        Ok(())
    }

    fn rotate(&mut self) -> Rotation {
        let rotated = tokio::task::block_in_place(|| self.leases.rotate(clock::unix_s()));
        rotated.unwrap_or_else(|error| {
            // The new key is in use and in memory; after a restart its offers are agreed again by renewal.
            tracing::error!(%error, "the new ML-KEM key cannot be written to state-dir");
            Rotation::Rotated
        })
    }

    /// Tells provisioning the present ML-KEM key, now and from time to time: it may have been restored from a backup.
    fn state_key(
        &self,
        office: &Office,
        statements: &mut JoinSet<Result<(), StreamError>>,
        pause: Duration,
    ) {
        let keyring = self.leases.keyring();
        if let Some(statement) = keyring.and_then(|keyring| keyring.statement(office.identity())) {
            let office = office.clone();
            statements.spawn(async move {
                tokio::time::sleep(pause).await;
                office.connect().await?.state_key(&statement).await
            });
        }
    }

    /// Logs a failure once, when it is another than before, and says when to tell again.
    fn note_statement(&self, stated: Result<(), StreamError>) -> Duration {
        let error = stated.err().map(|error| error.to_string());
        let pause = if error.is_some() {
            LAST_RETRY
        } else {
            STATE_AGAIN
        };
        self.figures.send_modify(|figures| {
            if let Some(error) = error
                .as_ref()
                .filter(|e| figures.key_error.as_ref() != Some(e))
            {
                tracing::warn!(
                    error,
                    "routers are not told with which key to agree pre-shared keys"
                );
            }
            figures.key_error = error;
        });
        jittered(pause)
    }

    async fn expire(&mut self, now: u64) -> Result<(), Gone> {
        for change in self.leases.expire(now) {
            self.tell(change).await?;
        }
        Ok(())
    }

    /// Tells the worker that has the peer what to do, and the others where its addresses are.
    async fn tell(&self, change: Change) -> Result<(), Gone> {
        match change {
            Change::Admit(admitted) => {
                let (wg_pub, addresses) = (admitted.wg_pub, admitted.addresses.clone());
                self.tell_others(&wg_pub, &addresses, Command::Route)
                    .await?;
                let left = Duration::from_secs(admitted.not_after.saturating_sub(clock::unix_s()));
                let admit = Command::Admit(admitted, left);
                self.worker_of(&wg_pub)?.send(admit).await
            }
            Change::Remove {
                device,
                wg_pub,
                addresses,
            } => {
                self.tell_others(&wg_pub, &addresses, Command::Unroute)
                    .await?;
                let remove = Command::Remove { device, wg_pub };
                self.worker_of(&wg_pub)?.send(remove).await
            }
            Change::Readdress { wg_pub, former } => {
                self.tell_others(&wg_pub, &former, Command::Unroute).await
            }
        }
    }

    async fn tell_others(
        &self,
        wg_pub: &[u8; 32],
        addresses: &[IpNet],
        command: fn(Away) -> Command,
    ) -> Result<(), Gone> {
        let owner = usize::from(self.share.owner(wg_pub));
        for (number, worker) in self.workers.iter().enumerate() {
            if number != owner {
                let (wg_pub, addresses) = (*wg_pub, addresses.into());
                worker.send(command(Away { wg_pub, addresses })).await?;
            }
        }
        Ok(())
    }

    fn worker_of(&self, wg_pub: &[u8; 32]) -> Result<&Worker, Gone> {
        let owner = usize::from(self.share.owner(wg_pub));
        self.workers.get(owner).ok_or(Gone)
    }

    /// Adds the page to the cache. When that fails the stream goes on in memory.
    fn write_down(&mut self, shard: u32, page: &ShardPage) {
        let Some(state) = self.shards.get_mut(&shard) else {
            return;
        };
        if state.cache.next() != page.from || page.next == page.from {
            return;
        }
        let written = tokio::task::block_in_place(|| state.cache.append(&page.entries, page.next));
        let disk_error = match written {
            Ok(()) => {
                compact_if_large(shard, &mut state.cache, &self.leases);
                None
            }
            Err(error) => {
                state.rewind_at = Some(Instant::now() + DISK_RETRY);
                let fault = Fault::io(format!("write the cache of shard {shard}"), &error);
                tracing::error!(%fault, "leases hold, but a restart would have to fetch them again");
                Some(fault.sentence)
            }
        };
        self.figures.send_modify(|figures| {
            figures.write_failures += u64::from(disk_error.is_some());
            figures.shards.entry(shard).or_default().disk_error = disk_error;
        });
    }

    fn begin_anew(&mut self, shard: u32) {
        let Some(state) = self.shards.get_mut(&shard) else {
            return;
        };
        state.next = 0;
        if let Err(error) = tokio::task::block_in_place(|| state.cache.begin_anew()) {
            tracing::error!(shard, %error, "the shard cache of the old stream cannot be rewritten");
        }
    }

    fn note_contact(&self, shard: u32) {
        self.figures.send_modify(|figures| {
            let stream = figures.shards.entry(shard).or_default();
            if stream.error.take().is_some() || stream.last_contact.is_none() {
                tracing::info!(shard, "following the shard stream");
            }
            stream.last_contact = Some(Instant::now());
        });
    }

    /// Logs a failure once, when it is another than before, and doubles the pause.
    fn note_failure(&mut self, shard: u32, error: &StreamError) -> Duration {
        let sentence = error.to_string();
        self.figures.send_modify(|figures| {
            let stream = figures.shards.entry(shard).or_default();
            if stream.error.as_ref() != Some(&sentence) {
                tracing::warn!(
                    shard,
                    error = sentence,
                    "the shard stream does not come; going on with what is known"
                );
                stream.error = Some(sentence);
            }
        });
        let Some(state) = self.shards.get_mut(&shard) else {
            return LAST_RETRY;
        };
        let pause = state.retry;
        state.retry = (pause * 2).min(LAST_RETRY);
        jittered(pause)
    }

    fn publish(&self) {
        self.figures.send_modify(|figures| {
            figures.leased = self.leases.len();
            figures.agreed = self.leases.agreed();
            for (shard, state) in &self.shards {
                figures.shards.entry(*shard).or_default().next = state.next;
            }
        });
    }
}

/// Judges a page. Its entries share a checkpoint, so that a thousand of them take about twenty milliseconds.
fn judge(
    anchors: &Anchors,
    entries: &[ShardEntry],
    now: u64,
) -> Vec<Result<Verified<ShardChange>, EntryError>> {
    let mut judge = ShardJudge::new(anchors);
    entries
        .iter()
        .map(|entry| judge.verify(entry, now))
        .collect()
}

fn compact_if_large(shard: u32, cache: &mut ShardCache, leases: &Leases) {
    if !cache.wants_compaction() {
        return;
    }
    let kept = cache.compact(|entry| match entry {
        ShardEntry::Lease { lease, .. } => {
            trust::Lease::from_bytes(lease).is_ok_and(|lease| leases.is_current(&lease))
        }
        ShardEntry::Revocation { .. } => true,
        ShardEntry::Psk { offer } => {
            let offer = Signed::from_bytes(offer).map(|signed| PskOffer::verify(&signed));
            matches!(offer, Ok(Ok(offer)) if leases.is_agreed(offer.get()))
        }
    });
    if let Err(error) = kept {
        tracing::warn!(shard, %error, "the shard cache cannot be rewritten; it goes on growing");
    }
}

/// Half to all of a pause, so that a thousand gateways do not come back in step.
fn jittered(pause: Duration) -> Duration {
    pause / 2 + pause.mul_f64(f64::from(OsRng.next_u32()) / f64::from(u32::MAX)) / 2
}

async fn fetch(
    office: Office,
    connection: Option<Connection>,
    shard: u32,
    from: u64,
    pause: Duration,
) -> Fetched {
    tokio::time::sleep(pause).await;
    let page = match connection {
        Some(mut connection) => match connection.page(shard, from, LONG_POLL).await {
            Ok(page) => Ok((page, connection)),
            // A server may close an idle connection at any time; that is no failure yet.
            Err(StreamError::Broken(_)) => fetch_anew(&office, shard, from).await,
            Err(error) => Err(error),
        },
        None => fetch_anew(&office, shard, from).await,
    };
    Fetched { shard, from, page }
}

async fn fetch_anew(
    office: &Office,
    shard: u32,
    from: u64,
) -> Result<(ShardPage, Connection), StreamError> {
    let mut connection = office.connect().await?;
    // The first answer comes at once, so that contact is known; waiting begins with the second.
    let page = connection.page(shard, from, Duration::ZERO).await?;
    Ok((page, connection))
}

#[cfg(test)]
mod tests;
