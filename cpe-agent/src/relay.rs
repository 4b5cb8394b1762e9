//! The way round blocked UDP: the tunnel's datagrams inside HTTP, to the gateway's relay.
//!
//! A task carries for one gateway: it owns the connection and a loopback socket, waits on both, and tells the control
//! loop when the relay works and when it has ended. To the packet thread the relay is a loopback address. Aborting the
//! task is like a cut cable: the tunnel's session outlives it.
//!
//! The relay is known by the key in the gateway's record. It need not be trusted further: what passes through it is
//! sealed by the tunnel already, and without it.

#[cfg(feature = "quic")]
mod carry;
mod first;
#[cfg(feature = "quic")]
mod quic;
mod tls;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use masque::Target;
use netio::netlink::LinkIndex;
use rustls::ClientConfig;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::{debug, info};
use trust::{GatewayRecord, RelayRecord};

use crate::enrol::pin::Pins;
use crate::enrol::provider::provider;
use crate::enrol::schedule::Backoff;
#[cfg(feature = "quic")]
use crate::enrol::schedule::by_chance;

/// TLS is begun when QUIC has not answered for so long: its first packet was lost, or the way is a long one.
#[cfg(feature = "quic")]
const QUIC_HEAD_START: Duration = Duration::from_millis(1_000);
/// While TLS carries, QUIC is tried again after this time, and then after twice as long, up to the second: networks change
/// their minds, and TLS is slower.
#[cfg(feature = "quic")]
const QUIC_AGAIN: [Duration; 2] = [Duration::from_secs(15), Duration::from_secs(300)];
/// A relay that has not agreed by then is not reached.
const OPEN_TIMEOUT: Duration = Duration::from_secs(8);
/// A relay is kept so long after the endpoint has answered again: it may be a passing mood of the network.
const LINGER: Duration = Duration::from_secs(10);
/// What a relay does not acknowledge within this time makes the connection count as lost, as QUIC's idle timeout does.
const LOST_AFTER: Duration = Duration::from_secs(20);
/// Of a few gateways, each with a word at its beginning, its end and when its size changes.
const MAX_NEWS: usize = 16;

/// What carries the tunnel's datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// HTTP/3, in QUIC datagrams.
    #[cfg(feature = "quic")]
    Quic,
    /// HTTP/1.1 over TLS; slower, since a lost segment stops all behind it.
    Tls,
}

impl Carrier {
    pub(crate) fn as_label(self) -> &'static str {
        match self {
            #[cfg(feature = "quic")]
            Self::Quic => "quic",
            Self::Tls => "tls",
        }
    }
}

/// Why a relay carries nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    /// Our own settings do not go together.
    #[error("the connection cannot be set up")]
    Setup,
    /// A socket failed, or the connection.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// QUIC ended it, or never came about.
    #[cfg(feature = "quic")]
    #[error("QUIC: {0}")]
    Quic(quinn_proto::ConnectionError),
    /// The other side does not speak as it should.
    #[error("the relay does not speak HTTP as it should")]
    NotHttp,
    /// The relay does not want to.
    #[error("the relay answered {0}")]
    Refused(u16),
    /// The relay closed the request.
    #[error("the relay closed the connection")]
    Closed,
    /// Nobody answered in time.
    #[error("the relay does not answer")]
    Silent,
}

/// What a task tells.
#[derive(Debug)]
pub(crate) struct RelayNews {
    pub(crate) gateway: [u8; 32],
    /// Of the task that says it.
    number: u32,
    pub(crate) what: RelayChange,
}

/// What has become of a relay.
#[derive(Debug)]
pub(crate) enum RelayChange {
    /// It carries datagrams that are sent to this address; up to so many bytes without being slowed down.
    Open {
        carrier: Carrier,
        at: SocketAddr,
        longest: Option<usize>,
    },
    /// It is over.
    Ended(RelayError),
}

/// The only WAN that a connection may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WayOut {
    pub(crate) link: LinkIndex,
    pub(crate) interface: String,
}

/// What a task needs to know.
#[derive(Clone)]
struct Job {
    gateway: [u8; 32],
    number: u32,
    record: RelayRecord,
    target: Target,
    /// The packet thread's socket for relays.
    inside: SocketAddr,
    way_out: Option<WayOut>,
    news: mpsc::Sender<RelayNews>,
}

/// The relays in use, and those that are being tried.
pub(crate) struct Relays {
    inside: SocketAddr,
    sender: mpsc::Sender<RelayNews>,
    news: mpsc::Receiver<RelayNews>,
    way_out: Option<WayOut>,
    running: Vec<Running>,
}

struct Running {
    gateway: [u8; 32],
    task: Option<JoinHandle<()>>,
    /// Counts the tasks: what an earlier one said does not count.
    number: u32,
    carrier: Option<Carrier>,
    longest: Option<usize>,
    is_used: bool,
    /// When a relay that nobody uses is let go.
    leave_at: Option<Instant>,
    not_before: Instant,
    backoff: Backoff,
}

impl Relays {
    /// None yet; `inside` is where the packet thread listens for them.
    pub(crate) fn new(inside: SocketAddr) -> Self {
        let (sender, news) = mpsc::channel(MAX_NEWS);
        Self {
            inside,
            sender,
            news,
            way_out: None,
            running: Vec::new(),
        }
    }

    /// A gateway is silent: opens a way through its relay, unless that is being done or was in vain just now.
    pub(crate) fn want(&mut self, gateway: &GatewayRecord) {
        let (Some(record), Some(target)) = (&gateway.relay, gateway.endpoints.first()) else {
            return;
        };
        let now = Instant::now();
        let (sender, inside) = (self.sender.clone(), self.inside);
        let way_out = self.way_out.clone();
        let running = self.entry(gateway.wg_pub);
        running.leave_at = None;
        let is_at_it = running
            .task
            .as_ref()
            .is_some_and(|task| !task.is_finished());
        if is_at_it || now < running.not_before {
            return;
        }
        info!(
            gateway = gateway.name,
            "the gateway is silent; trying its relay"
        );
        running.number = running.number.wrapping_add(1);
        let job = Job {
            gateway: gateway.wg_pub,
            number: running.number,
            record: record.clone(),
            target: Target(*target),
            inside,
            way_out,
            news: sender,
        };
        running.task = Some(tokio::spawn(Box::pin(work(job))));
    }

    /// The way to the gateway is another one, over this WAN only or where the routes lead: what is open hangs on the old
    /// way and is ended. Says whose relays those were; the new way may do without.
    pub(crate) fn go_new_way(&mut self, way_out: Option<WayOut>) -> Vec<[u8; 32]> {
        self.way_out = way_out;
        let mut ended = Vec::new();
        for running in &mut self.running {
            if running.task.is_some() {
                ended.push(running.gateway);
            }
            running.end();
            running.not_before = Instant::now();
            running.backoff.reset();
        }
        ended
    }

    /// The packet thread has taken to a relay.
    pub(crate) fn on_relayed(&mut self, gateway: [u8; 32]) {
        let running = self.entry(gateway);
        (running.is_used, running.leave_at) = (true, None);
    }

    /// The packet thread has gone home.
    pub(crate) fn on_home(&mut self, gateway: [u8; 32]) {
        let leave_at = Instant::now() + LINGER;
        let running = self.entry(gateway);
        (running.is_used, running.leave_at) = (false, Some(leave_at));
    }

    /// The next word of a task.
    pub(crate) async fn next(&mut self) -> Option<RelayNews> {
        self.news.recv().await
    }

    /// Takes note of a word, and says whether it still counts: what a task said before it was ended does not.
    #[must_use]
    pub(crate) fn on_news(&mut self, news: &RelayNews) -> bool {
        let running = self.entry(news.gateway);
        if running.task.is_none() || running.number != news.number {
            return false;
        }
        match &news.what {
            RelayChange::Open {
                carrier, longest, ..
            } => {
                (running.carrier, running.longest) = (Some(*carrier), *longest);
                running.backoff.reset();
            }
            RelayChange::Ended(error) => {
                debug!(%error, "a relay has ended");
                running.end();
                running.not_before = Instant::now() + running.backoff.next();
            }
        }
        true
    }

    /// Lets go what nobody needs, and says whose relay that was.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<[u8; 32]> {
        let due = |running: &Running| running.leave_at.is_some_and(|at| at <= now);
        let running = self.running.iter_mut().find(|running| due(running))?;
        running.end();
        Some(running.gateway)
    }

    /// When that is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.running
            .iter()
            .filter_map(|running| running.leave_at)
            .min()
    }

    /// How the datagrams for this gateway travel, in one word.
    pub(crate) fn label(&self, gateway: &[u8; 32]) -> &'static str {
        let carrier = self.used(gateway).and_then(|running| running.carrier);
        carrier.map_or("direct", Carrier::as_label)
    }

    /// The longest datagram that the relay in use carries well.
    pub(crate) fn longest(&self, gateway: &[u8; 32]) -> Option<usize> {
        self.used(gateway)?.longest
    }

    /// Ends all of them.
    pub(crate) fn stop(&mut self) {
        for running in &mut self.running {
            running.end();
        }
    }

    fn used(&self, gateway: &[u8; 32]) -> Option<&Running> {
        let mut running = self.running.iter();
        running.find(|running| running.gateway == *gateway && running.is_used)
    }

    fn entry(&mut self, gateway: [u8; 32]) -> &mut Running {
        let known = self
            .running
            .iter()
            .position(|running| running.gateway == gateway);
        let at = known.unwrap_or_else(|| {
            self.running.push(Running {
                gateway,
                task: None,
                number: 0,
                carrier: None,
                longest: None,
                is_used: false,
                leave_at: None,
                not_before: Instant::now(),
                backoff: Backoff::default(),
            });
            self.running.len() - 1
        });
        &mut self.running[at]
    }
}

impl Running {
    fn end(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        (self.carrier, self.longest, self.leave_at) = (None, None, None);
        self.is_used = false;
    }
}

/// The task: opens what opens first, carries, and says how it ended.
async fn work(job: Job) {
    let mut last_word = LastWord {
        job: &job,
        is_said: false,
    };
    let result = match timeout(OPEN_TIMEOUT, Box::pin(open(&job))).await {
        Ok(Ok(opened)) => Box::pin(opened.carry(&job)).await,
        Ok(Err(error)) => Err(error),
        Err(_) => Err(RelayError::Silent),
    };
    let error = result.err().unwrap_or(RelayError::Closed);
    job.tell(RelayChange::Ended(error)).await;
    last_word.is_said = true;
}

/// Tells the end of a task that came to none by itself: a relay whose task is gone without a word would be waited for for ever.
struct LastWord<'j> {
    job: &'j Job,
    is_said: bool,
}

impl Drop for LastWord<'_> {
    fn drop(&mut self) {
        if !self.is_said {
            let news = self.job.news(RelayChange::Ended(RelayError::Closed));
            // Full means that the loop is behind; it hears of other relays, and of this one when it is asked for again.
            let _ = self.job.news.try_send(news);
        }
    }
}

/// An open connection.
enum Opened {
    #[cfg(feature = "quic")]
    Quic(Box<carry::Connection>),
    Tls(Box<tls::Connection>),
}

impl Opened {
    async fn carry(self, job: &Job) -> Result<(), RelayError> {
        let local = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        // From the packet thread and nobody else on this router.
        local.connect(job.inside).await?;
        match self {
            #[cfg(feature = "quic")]
            Self::Quic(connection) => connection.carry(job, &local).await,
            #[cfg(feature = "quic")]
            Self::Tls(connection) => {
                // TLS carries until QUIC has agreed to; the packet thread sees one address for both.
                let better = tokio::select! {
                    result = connection.carry(job, &local) => return result,
                    better = find_quic(job) => better,
                };
                better.carry(job, &local).await
            }
            #[cfg(not(feature = "quic"))]
            Self::Tls(connection) => connection.carry(job, &local).await,
        }
    }
}

/// Tries QUIC now and then, until it works.
#[cfg(feature = "quic")]
async fn find_quic(job: &Job) -> Box<carry::Connection> {
    let mut pause = QUIC_AGAIN[0];
    loop {
        tokio::time::sleep(by_chance(pause)).await;
        if let Ok(Ok(connection)) = timeout(OPEN_TIMEOUT, Box::pin(carry::open(job))).await {
            return Box::new(connection);
        }
        pause = (pause * 2).min(QUIC_AGAIN[1]);
    }
}

/// QUIC is tried first; TLS is begun after a moment or when QUIC has failed, and whichever is there first carries.
#[cfg(feature = "quic")]
async fn open(job: &Job) -> Result<Opened, RelayError> {
    let quic = async { carry::open(job).await.map(|c| Opened::Quic(Box::new(c))) };
    first::of(quic, QUIC_HEAD_START, open_tls(job)).await
}

#[cfg(not(feature = "quic"))]
async fn open(job: &Job) -> Result<Opened, RelayError> {
    open_tls(job).await
}

async fn open_tls(job: &Job) -> Result<Opened, RelayError> {
    let connection = tls::open(job).await?;
    Ok(Opened::Tls(Box::new(connection)))
}

impl Job {
    fn news(&self, what: RelayChange) -> RelayNews {
        RelayNews {
            gateway: self.gateway,
            number: self.number,
            what,
        }
    }

    async fn tell(&self, what: RelayChange) {
        // Without a control loop there is nothing to carry for.
        let _ = self.news.send(self.news(what)).await;
    }

    /// A connection like a browser's: it names the server and offers the usual protocol.
    fn tls(&self, protocol: &[u8]) -> Result<ClientConfig, RelayError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| RelayError::Setup)?;
        let mut config = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pins::new(&self.record.spki_sha256)))
            .with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: [u8; 32] = [7; 32];

    fn open() -> RelayNews {
        RelayNews {
            gateway: GATEWAY,
            number: 0,
            what: RelayChange::Open {
                carrier: Carrier::Tls,
                at: "127.0.0.1:4000".parse().unwrap(),
                longest: None,
            },
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
    }

    #[test]
    fn what_an_earlier_task_of_the_same_gateway_says_does_not_count() {
        let runtime = runtime();
        let mut relays = Relays::new("127.0.0.1:4001".parse().unwrap());
        relays.entry(GATEWAY).task = Some(runtime.spawn(std::future::pending()));
        relays.entry(GATEWAY).number = 1;

        assert!(!relays.on_news(&open()));
        let ended = RelayNews {
            what: RelayChange::Ended(RelayError::Closed),
            ..open()
        };
        assert!(!relays.on_news(&ended));
        assert!(relays.on_news(&RelayNews { number: 1, ..ended }));
    }

    #[test]
    fn on_a_new_way_open_relays_are_ended_and_their_last_words_do_not_count() {
        let runtime = runtime();
        let mut relays = Relays::new("127.0.0.1:4001".parse().unwrap());
        let task = runtime.spawn(std::future::pending());
        relays.entry(GATEWAY).task = Some(task);
        assert!(relays.on_news(&open()));
        relays.on_relayed(GATEWAY);
        assert_eq!(relays.label(&GATEWAY), "tls");

        let ended = relays.go_new_way(None);

        assert_eq!(ended, [GATEWAY]);
        assert_eq!(relays.label(&GATEWAY), "direct");
        assert!(!relays.on_news(&open()));
        assert_eq!(relays.go_new_way(None), [[0; 32]; 0]);
    }
}
