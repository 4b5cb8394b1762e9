//! The running server: what it starts, in which order it stops, and what `/healthz` and the gauges know.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use rustls::ServerConfig;
use telemetry::{Endpoint, Health};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::api::{self, Api};
use crate::changes::{self, Changes};
use crate::clock::unix_now;
use crate::config::Config;
use crate::datadir::DataDir;
use crate::failure::{Blame, Failure};
use crate::listen;
use crate::log::{self, Log};
use crate::metrics::Metrics;
use crate::publish::Publisher;
use crate::sequencer::Sequencer;
use crate::store::{self, Store, devices};

/// A clock this far behind the log's last cosignature is wrong: leases would begin in the past.
const MAX_CLOCK_LAG_S: u64 = 3600;
const GAUGE_PERIOD: Duration = Duration::from_secs(15);

/// A server whose addresses are bound and whose state is checked; nothing is answered yet.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
    metrics_endpoint: Option<Endpoint>,
    tls: Arc<ServerConfig>,
    sequencer: Sequencer,
    publishers: Vec<Publisher>,
    store: Store,
    changes: Changes,
    metrics: Metrics,
    api: Api,
    stop: watch::Sender<bool>,
}

impl Server {
    /// Opens the data directory and binds the addresses, so that what is wrong shows at start.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let dir = DataDir::new(&config.data_dir);
        let store = dir.store().await?;
        let tls = dir.tls_identity()?.server_config()?;
        let mut writer = store.writer().await?;
        let mut db = writer.begin().await?;
        let keys = dir.log_keys(&store::server_name(&mut db).await?)?;
        refuse_lagging_clock(log::latest(&mut db, Log::Fleet).await?)?;
        store::pools::register(&mut db, &config.pools).await?;
        db.commit().await?;
        let mut listeners = Vec::with_capacity(config.listen.len());
        for address in &config.listen {
            listeners.push(bind(*address).await?);
        }
        let metrics_endpoint = match config.metrics_listen {
            Some(address) => Some(
                Endpoint::bind(address)
                    .await
                    .map_err(|error| explain(error, address))?,
            ),
            None => None,
        };
        let (metrics, changes) = (Metrics::new(), Changes::new());
        let mut publishers = Vec::new();
        for log in Log::ALL {
            let policy = log::policy(&keys.anchors, log);
            publishers.extend(Publisher::new(log, policy, &store, (&changes, &metrics)).await?);
        }
        let (sequencer, jobs) = Sequencer::new(writer, keys, config.lease, changes.clone());
        let (stop, stopping) = watch::channel(false);
        let api = Api {
            store: store.clone(),
            jobs,
            changes: changes.clone(),
            metrics: metrics.clone(),
            stop: stopping,
        };
        Ok(Self {
            listeners,
            metrics_endpoint,
            tls,
            sequencer,
            publishers,
            store,
            changes,
            metrics,
            api,
            stop,
        })
    }

    /// The addresses bound, with the ports that the system chose where they were 0.
    pub fn local_addrs(&self) -> std::io::Result<Vec<SocketAddr>> {
        self.listeners.iter().map(TcpListener::local_addr).collect()
    }

    /// Answers until `until` is ready, then finishes what is under way.
    pub async fn run(self, until: impl Future<Output = ()>) {
        let mut background = JoinSet::new();
        background.spawn(changes::watch_store(self.store.clone(), self.changes));
        let healthy = Arc::new(AtomicBool::new(true));
        background.spawn(gauge(
            self.store,
            self.metrics.clone(),
            Arc::clone(&healthy),
        ));
        if let Some(endpoint) = self.metrics_endpoint {
            let registry = Arc::clone(&self.metrics.registry);
            let health = move || match healthy.load(Ordering::Relaxed) {
                true => Health::Ok("ok".to_owned()),
                false => Health::Failing("the database cannot be read".to_owned()),
            };
            background.spawn(async move { match endpoint.run(registry, health).await {} });
        }
        for publisher in self.publishers {
            background.spawn(publisher.run());
        }
        let sequencer = tokio::spawn(self.sequencer.run());
        let router = api::router(self.api);
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            accepting.spawn(listen::accept(
                listener,
                Some(Arc::clone(&self.tls)),
                router.clone(),
                self.metrics.clone(),
                self.stop.subscribe(),
            ));
        }
        drop(router);
        until.await;
        tracing::info!("stopping");
        self.stop.send_replace(true);
        while accepting.join_next().await.is_some() {}
        background.shutdown().await;
        // The last sender of jobs went with the last connection: what was queued is written by now.
        if let Err(error) = sequencer.await {
            tracing::error!("the sequencer ended badly: {error}");
        }
        tracing::info!("stopped");
    }
}

fn refuse_lagging_clock(head: Option<log::Head>) -> anyhow::Result<()> {
    let stamp = head
        .context("the fleet log has no head; `init` did not finish")?
        .stamp;
    let now = unix_now();
    if now.saturating_add(MAX_CLOCK_LAG_S) < stamp {
        let sentence = format!(
            "the clock says {now}, but this server signed its log at {stamp} (unix seconds); set the clock"
        );
        return Err(Failure::new(Blame::Failed, sentence).into());
    }
    Ok(())
}

pub(crate) async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| explain(error, address))
}

pub(crate) fn explain(error: std::io::Error, address: SocketAddr) -> anyhow::Error {
    if error.kind() == std::io::ErrorKind::AddrInUse {
        let sentence =
            format!("{address} is in use by another process; stop it or change the listen address");
        Failure::new(Blame::Io, sentence).into()
    } else if error.kind() == std::io::ErrorKind::AddrNotAvailable {
        let sentence = format!("{address} is not an address of this machine");
        Failure::new(Blame::Config, sentence).into()
    } else {
        anyhow::Error::new(error).context(format!("cannot listen on {address}"))
    }
}

async fn gauge(store: Store, metrics: Metrics, healthy: Arc<AtomicBool>) {
    let mut tick = tokio::time::interval(GAUGE_PERIOD);
    loop {
        tick.tick().await;
        let read = read_gauges(&store, &metrics).await;
        healthy.store(read.is_ok(), Ordering::Relaxed);
        if let Err(error) = read {
            tracing::error!("the database cannot be read: {error:#}");
        }
    }
}

async fn read_gauges(store: &Store, metrics: &Metrics) -> anyhow::Result<()> {
    let mut db = store.read().await?;
    metrics
        .devices
        .set(devices::count(&mut db).await?.try_into()?);
    if let Some(head) = log::head(&mut db, Log::Fleet).await? {
        metrics.log_entries.set(head.size.try_into()?);
    }
    Ok(())
}
