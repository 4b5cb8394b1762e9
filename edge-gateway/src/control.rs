//! The control loop of a running gateway: signals, questions from the status socket, a tick for figures,
//! and the ends of the tasks it owns. The order of a life: set up as root, become nobody, run, drain, undo.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use netio::clock;
use telemetry::{Endpoint, Health};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::accounting::Accounts;
use crate::announce::{self, Announcer};
use crate::config::Config;
use crate::device::Device;
use crate::dns;
use crate::doors;
use crate::drain::Drain;
use crate::engine::{self, Command, Gone, Totals, Worker};
use crate::exit::{Exit, Fault};
use crate::keyring;
use crate::metrics::Metrics;
use crate::peers;
use crate::relay::{self, Relay};
use crate::sampling::Volume;
use crate::setup::{self, Site};
use crate::status::{self, Ask};
use crate::stream::Office;

mod report;

const TICK: Duration = Duration::from_secs(1);
/// While draining, how soon silence is noticed.
const DRAIN_TICK: Duration = Duration::from_millis(100);
/// What a crash may cost of the accounts.
const SAVE_EVERY: Duration = Duration::from_secs(300);
/// A stream silent for this long is an alarm (trust plane: 60 s).
const STALE: Duration = Duration::from_secs(60);
/// Control and DNS; packets have threads of their own.
const CONTROL_THREADS: usize = 2;
const MAX_ASKS: usize = 16;

/// Runs a gateway until it is told to end.
pub fn run(config: &Config) -> Result<(), Fault> {
    let failures = status::failure_file(&config.status_socket);
    let outcome = set_up_and_run(config);
    let told = match &outcome {
        Ok(()) => std::fs::remove_file(&failures),
        Err(fault) => std::fs::write(&failures, format!("{fault}\n")),
    };
    if let Err(error) = told.or_else(ignore_absence) {
        tracing::debug!(%error, "the reason of the end is not left for `status`");
    }
    outcome
}

fn runtime() -> Result<Runtime, Fault> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(|error| Fault::io("start the control threads", &error))
}

fn ignore_absence(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}

fn set_up_and_run(config: &Config) -> Result<(), Fault> {
    let site = Site::prepare(config)?;
    // Present as long as the gateway does not run, so that an old reason is not taken for a new one.
    let _none_there = std::fs::remove_file(status::failure_file(&config.status_socket));
    let (running, forwarding) = site.split();
    let runtime = match setup::give_up_root(config).and_then(|()| runtime()) {
        Ok(runtime) => runtime,
        Err(fault) => {
            forwarding.undo();
            return Err(fault);
        }
    };
    let outcome = runtime.block_on(async {
        let mut control = Control::start(config, running);
        let outcome = match &mut control {
            Ok(control) => control.run().await,
            Err(fault) => Err(fault.clone()),
        };
        // While control still holds its connections: `drain` waits for its own to close, and by then all is undone.
        tokio::task::block_in_place(|| forwarding.undo());
        drop(control);
        outcome
    });
    drop(runtime);
    // Its directory may be root's, who we no longer are; the next start replaces it.
    let _left_behind = std::fs::remove_file(&config.status_socket);
    outcome
}

/// What the control loop owns.
struct Control {
    id: String,
    since: u64,
    started: Instant,
    drain_timeout: Duration,
    workers: Vec<Worker>,
    threads: Vec<JoinHandle<()>>,
    announcer: Option<Announcer>,
    ends: JoinSet<Fault>,
    asks: mpsc::Receiver<Ask>,
    figures: watch::Receiver<peers::Figures>,
    dns: Option<Arc<dns::Figures>>,
    doors: Option<Arc<doors::Figures>>,
    relay: Option<Arc<relay::Figures>>,
    accounts: Accounts,
    metrics: Metrics,
    health: watch::Sender<Health>,
    volume: Option<Volume>,
    device: Device,
    totals: Totals,
    by_worker: Vec<Totals>,
    drain: Option<Drain>,
    /// Post-quantum keys were offered once, and are not any more.
    shuts_out: bool,
}

enum Event {
    Tick,
    Save,
    Asked(Option<Ask>),
    Signalled,
    Ended(Option<Fault>),
}

impl Control {
    fn start(config: &Config, running: setup::Running) -> Result<Self, Fault> {
        let mut ends = JoinSet::new();
        let (mut workers, mut threads) = (Vec::new(), Vec::new());
        let (announcer, announcing) = announce::start(config)?;
        let device = Device::begin(&config.tunnel.interface);
        for started in engine::start(running.workers.parts, &announcer)? {
            workers.push(started.worker);
            threads.push(started.thread);
            ends.spawn(worker_end(started.end));
        }
        // Ends after the workers, who speak to it.
        threads.extend(announcing);
        let id = running.keys.public().id;
        let url = config.provisioning.url.clone();
        let office = Office::new(url, running.tls, running.keys.identity);
        let figures = running.peers.figures();
        let following = running
            .peers
            .follow(office, workers.clone(), running.workers.share);
        ends.spawn(async move {
            let Gone = following.await;
            Fault::new(
                Exit::Bug,
                "a worker ended while peers were being told to it",
            )
        });
        let dns = running.dns.as_ref().map(dns::Dns::figures);
        let doors = running.dns.as_ref().and_then(dns::Dns::doors);
        if let Some(dns) = running.dns {
            ends.spawn(dns.serve());
        }
        let relay = running.relay.as_ref().map(Relay::figures);
        if let Some(relay) = running.relay {
            ends.spawn(relay.serve());
        }
        let (asked, asks) = mpsc::channel(MAX_ASKS);
        let answering = status::serve(running.status, asked);
        ends.spawn(async move { Fault::io("use the status socket", &answering.await) });
        let metrics = Metrics::new();
        let health = watch::Sender::new(Health::Ok("running".to_owned()));
        if let Some(listener) = running.metrics {
            let endpoint = Endpoint::from_listener(listener)
                .map_err(|error| Fault::io("use the metrics socket", &error))?;
            ends.spawn(serve_metrics(endpoint, &metrics, &health));
        }
        tracing::info!(id, version = env!("CARGO_PKG_VERSION"), "gateway running");
        Ok(Self {
            id,
            since: clock::unix_s(),
            started: Instant::now(),
            drain_timeout: config.drain_timeout,
            workers,
            threads,
            announcer: Some(announcer),
            ends,
            asks,
            figures,
            dns,
            doors,
            relay,
            accounts: running.accounts,
            metrics,
            health,
            volume: running.volume,
            device,
            totals: Totals::default(),
            by_worker: Vec::new(),
            drain: None,
            shuts_out: !config.tunnel.post_quantum && keyring::has_offered(Path::new(".")),
        })
    }

    async fn run(&mut self) -> Result<(), Fault> {
        let listen = |kind| signal(kind).map_err(|error| Fault::io("listen for signals", &error));
        let mut signals = [
            listen(SignalKind::terminate())?,
            listen(SignalKind::interrupt())?,
        ];
        let mut hangup = listen(SignalKind::hangup())?;
        let mut tick = ticks(TICK);
        let mut save = ticks(SAVE_EVERY);
        loop {
            let event = tokio::select! {
                _ = tick.tick() => Event::Tick,
                _ = save.tick() => Event::Save,
                ask = self.asks.recv() => Event::Asked(ask),
                () = any(&mut signals) => Event::Signalled,
                _ = hangup.recv() => {
                    tracing::info!("hangup: nothing is read anew; restart the gateway for another configuration");
                    continue;
                }
                // A task that panicked or was aborted has no fault of its own to tell.
                end = self.ends.join_next() => Event::Ended(end.and_then(Result::ok)),
            };
            match event {
                Event::Tick => self.refresh().await?,
                Event::Save => self.save().await?,
                Event::Asked(Some(Ask::Status { leases, reply })) => {
                    self.refresh().await?;
                    // Who asked may have hung up.
                    let _unheard = reply.send(self.describe(leases).await?);
                }
                Event::Asked(Some(Ask::Progress(reply))) => {
                    // Who asked may have hung up.
                    let _unheard = reply.send(self.progress());
                }
                Event::Asked(Some(Ask::Drain)) | Event::Signalled => {
                    self.begin_to_drain().await?;
                    tick = ticks(DRAIN_TICK);
                }
                Event::Asked(None) => return Err(task_lost()),
                Event::Ended(fault) => return Err(fault.unwrap_or_else(task_lost)),
            }
            if self
                .drain
                .as_ref()
                .is_some_and(|drain| drain.is_over(Instant::now()))
            {
                return self.finish().await;
            }
        }
    }

    async fn begin_to_drain(&mut self) -> Result<(), Fault> {
        if self.drain.is_some() {
            return Ok(());
        }
        tracing::info!(
            limit_s = self.drain_timeout.as_secs(),
            "draining: no new routers are admitted, and those that can are told to move"
        );
        self.tell_workers(|| Command::StopAdmitting).await?;
        self.since = clock::unix_s();
        self.metrics.draining();
        self.health
            .send_replace(Health::Failing("draining".to_owned()));
        self.refresh().await?;
        self.drain = Some(Drain::begin(
            Instant::now(),
            self.drain_timeout,
            self.carried(),
            self.totals.carried.movable,
        ));
        Ok(())
    }

    /// Writes the accounts down and ends the workers.
    async fn finish(&mut self) -> Result<(), Fault> {
        self.refresh().await?;
        let saved = self.write_accounts().await;
        self.tell_workers(|| Command::Stop).await?;
        self.announcer = None;
        tokio::task::block_in_place(|| {
            for thread in self.threads.drain(..) {
                // One that panicked has said so.
                let _ended = thread.join();
            }
        });
        saved?;
        let left_behind = self.totals.carried.active;
        tracing::info!(left_behind, "drained");
        Ok(())
    }

    /// Fetches the totals and brings metrics, health and the drain up to date.
    async fn refresh(&mut self) -> Result<(), Fault> {
        let (mut totals, mut by_worker) = (Totals::default(), Vec::new());
        for worker in &self.workers {
            let mut told = worker.totals().await.map_err(worker_lost)?;
            for (device, traffic) in told.ended.drain(..) {
                self.accounts.settle(&device, traffic);
            }
            self.accounts.settle_others(told.ended_others);
            if let Some(volume) = &mut self.volume {
                volume.add(std::mem::take(&mut told.tally));
            }
            totals.add(told.clone());
            by_worker.push(told);
        }
        self.by_worker = by_worker;
        self.totals = totals;
        // At once with the totals, so that both can be held against each other.
        self.device.look();
        let stalest = self.stalest();
        if let Some(counted) = self.device.counted() {
            self.metrics.update_device(counted, &self.totals.books);
        }
        self.metrics.update_workers(&self.by_worker);
        self.metrics.update(
            &self.totals,
            &self.figures.borrow(),
            stalest.as_secs(),
            self.dns.as_deref(),
        );
        if let Some(doors) = &self.doors {
            self.metrics.update_doors(doors);
        }
        if let Some(relay) = &self.relay {
            self.metrics.update_relay(relay);
        }
        if let Some(volume) = &self.volume {
            self.metrics.update_volume(volume);
        }
        let carried = self.carried();
        if let Some(drain) = &mut self.drain {
            drain.note(Instant::now(), carried, self.totals.carried.movable);
        } else {
            let health = match stalest {
                stale if stale >= STALE => {
                    format!("running; provisioning silent for {} s", stale.as_secs())
                }
                _ => "running".to_owned(),
            };
            self.health.send_replace(Health::Ok(health));
        }
        Ok(())
    }

    fn carried(&self) -> u64 {
        self.totals.rx_bytes.saturating_add(self.totals.tx_bytes)
    }

    /// How long the most silent shard stream has been silent.
    fn stalest(&self) -> Duration {
        let figures = self.figures.borrow();
        let silences = figures
            .shards
            .values()
            .map(|stream| stream.last_contact.unwrap_or(self.started).elapsed());
        silences.max().unwrap_or_default()
    }

    async fn save(&self) -> Result<(), Fault> {
        if let Err(fault) = self.write_accounts().await {
            tracing::error!(%fault, "the accounts are only in memory");
        }
        Ok(())
    }

    async fn write_accounts(&self) -> Result<(), Fault> {
        let mut present = Vec::new();
        for worker in &self.workers {
            present.extend(worker.peer_traffic().await.map_err(worker_lost)?);
        }
        tokio::task::block_in_place(|| self.accounts.save(&present))
            .map_err(|error| Fault::io("write accounting.json in state-dir", &error))
    }

    async fn tell_workers(&self, command: impl Fn() -> Command) -> Result<(), Fault> {
        for worker in &self.workers {
            worker.send(command()).await.map_err(worker_lost)?;
        }
        Ok(())
    }
}

fn serve_metrics(
    endpoint: Endpoint,
    metrics: &Metrics,
    health: &watch::Sender<Health>,
) -> impl Future<Output = Fault> + use<> {
    let (registry, health) = (metrics.registry(), health.subscribe());
    async move {
        match endpoint
            .run(registry, move || health.borrow().clone())
            .await {}
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn any(signals: &mut [Signal; 2]) -> impl Future<Output = ()> + '_ {
    let [first, second] = signals;
    async {
        tokio::select! {
            _ = first.recv() => {}
            _ = second.recv() => {}
        }
    }
}

async fn worker_end(end: oneshot::Receiver<Result<(), Fault>>) -> Fault {
    match end.await {
        Ok(Err(fault)) => fault,
        Ok(Ok(())) => Fault::new(Exit::Bug, "a worker ended without being told to"),
        Err(_) => Fault::new(Exit::Bug, "a worker died; its last words are above"),
    }
}

fn worker_lost(_gone: Gone) -> Fault {
    Fault::new(
        Exit::Bug,
        "a worker no longer answers; its last words are above",
    )
}

fn task_lost() -> Fault {
    Fault::new(Exit::Bug, "a control task died; its last words are above")
}
