//! A DNSCrypt server with a handler that can be told what to do, a stub in front of it, and a wire
//! between them that can be looked at and tampered with. Time of day stands still unless advanced.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dnscrypt_proxy::Counters;
use dnscrypt_proxy::certs::{Certs, Rotation, Series};
use dnscrypt_proxy::clock::Clock;
use dnscrypt_proxy::listen::{Homes, Limits, Sockets};
use dnscrypt_proxy::policy::Policy;
use dnscrypt_proxy::proto::cert::{Policy as CertPolicy, PostQuantum, System};
use dnscrypt_proxy::proto::server::Keyring;
use dnscrypt_proxy::proto::stamp::{DnsCryptStamp, Props};
use dnscrypt_proxy::proto::tickets::TicketKeys;
use dnscrypt_proxy::serve::{Query, Server as DnsCryptServer};
use dnscrypt_proxy::stub::StubConfig;
use dnscrypt_proxy::upstream::{Settings, Upstream};
use ed25519_dalek::SigningKey;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) const HOUR: u64 = 3600;
const START: u64 = 1_800_000_000;
const PROVIDER: &str = "2.dnscrypt-cert.loopback.example";

pub(crate) fn provider() -> SigningKey {
    SigningKey::from_bytes(&[5; 32])
}

pub(crate) fn series() -> Series {
    Series {
        start: u32::try_from(START - HOUR).unwrap(),
        count: 2,
        lifetime_s: 24 * 3600,
    }
}

/// UDP and TCP on one port of loopback.
async fn sockets() -> (SocketAddr, Sockets) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = udp.local_addr().unwrap();
        if let Ok(tcp) = TcpListener::bind(addr).await {
            let sockets = Sockets {
                udp: vec![udp],
                tcp: vec![tcp],
            };
            return (addr, sockets);
        }
    }
}

#[derive(Default)]
struct Behaviour {
    asked: AtomicUsize,
    refuse: AtomicBool,
    mute: AtomicBool,
    bogus: AtomicBool,
    delay_ms: AtomicU64,
    now: Mutex<u64>,
}

pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) counters: Arc<Counters>,
    behaviour: Arc<Behaviour>,
    held: watch::Sender<bool>,
    certs: Mutex<Certs>,
    keyring: watch::Sender<Arc<Keyring>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(|clock| Certs::signing(provider(), Rotation::default(), clock).unwrap())
            .await
    }

    pub(crate) async fn start_from_directory(path: &Path) -> Self {
        Self::start_with(|clock| Certs::directory(path, clock).unwrap()).await
    }

    pub(crate) async fn start_with(certs: impl FnOnce(Clock) -> Certs) -> Self {
        let behaviour = Arc::new(Behaviour::default());
        *behaviour.now.lock().unwrap() = START;
        let clock = clock(&behaviour);
        let certs = certs(Arc::clone(&clock));
        let (keyring, receiver) = watch::channel(Arc::clone(&certs.keyring().borrow()));
        let (addr, sockets) = sockets().await;
        let counters = Arc::new(Counters::default());
        let server = DnsCryptServer {
            provider_name: PROVIDER.to_owned(),
            keyring: receiver,
            limits: Limits::SERVER,
            homes: Homes::default(),
            counters: Arc::clone(&counters),
            clock,
        };
        let (held, gate) = watch::channel(false);
        let told = Arc::clone(&behaviour);
        let handler = move |query: Query| answer(Arc::clone(&told), gate.clone(), query);
        let task = tokio::spawn(async move {
            server.serve(sockets, handler).await;
        });
        Self {
            addr,
            counters,
            behaviour,
            held,
            certs: Mutex::new(certs),
            keyring,
            task,
        }
    }

    pub(crate) fn stamp(&self) -> DnsCryptStamp {
        DnsCryptStamp {
            props: Props::default(),
            addr: self.addr,
            provider_key: provider().verifying_key().to_bytes(),
            provider_name: PROVIDER.to_owned(),
        }
    }

    /// For a client that was given another key of the provider.
    pub(crate) fn stamp_under(&self, provider: &SigningKey) -> DnsCryptStamp {
        DnsCryptStamp {
            provider_key: provider.verifying_key().to_bytes(),
            ..self.stamp()
        }
    }

    pub(crate) fn asked(&self) -> usize {
        self.behaviour.asked.load(Ordering::Relaxed)
    }

    pub(crate) fn keys(&self) -> usize {
        self.keyring.borrow().keys().len()
    }

    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    pub(crate) fn refuse(&self, refuse: bool) {
        self.behaviour.refuse.store(refuse, Ordering::Relaxed);
    }

    /// Validation refuses whatever there is, from now on.
    pub(crate) fn find_bogus(&self) {
        self.behaviour.bogus.store(true, Ordering::Relaxed);
    }

    pub(crate) fn mute(&self, mute: bool) {
        self.behaviour.mute.store(mute, Ordering::Relaxed);
    }

    /// Answers take so long from now on.
    pub(crate) fn delay(&self, by: Duration) {
        let by_ms = by.as_millis().try_into().unwrap();
        self.behaviour.delay_ms.store(by_ms, Ordering::Relaxed);
    }

    pub(crate) fn advance(&self, seconds: u64) {
        *self.behaviour.now.lock().unwrap() += seconds;
    }

    pub(crate) fn rotate(&self) {
        let mut certs = self.certs.lock().unwrap();
        certs.refresh().unwrap();
        self.publish(&certs);
    }

    /// What a restart does to keys that lived in memory.
    pub(crate) fn forget_keys(&self) {
        let fresh =
            Certs::signing(provider(), Rotation::default(), clock(&self.behaviour)).unwrap();
        self.publish(&fresh);
        *self.certs.lock().unwrap() = fresh;
    }

    /// What happens to tickets when their resolver is restarted with the certificates that it had.
    pub(crate) fn forget_ticket_keys(&self) {
        let tickets = TicketKeys::default()
            .renewed(rand_core::OsRng, START)
            .unwrap();
        let keys = self.keyring.borrow().keys().to_vec();
        let keyring = Keyring::new(keys).with_tickets(Arc::new(tickets));
        self.keyring.send_replace(Arc::new(keyring));
    }

    /// A resolver that has no post-quantum certificate, or one that somebody strips it from.
    pub(crate) fn strip_post_quantum(&self) {
        let keys = self.keyring.borrow().keys().to_vec();
        let classical = keys
            .into_iter()
            .filter(|key| key.cert().system != System::XWing);
        let keyring = Keyring::new(classical.collect());
        self.keyring.send_replace(Arc::new(keyring));
    }

    fn publish(&self, certs: &Certs) {
        self.keyring
            .send_replace(Arc::clone(&certs.keyring().borrow()));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Time goes by, with all that is due in it; none at all where the clock is paused.
pub(crate) async fn pass(time: Duration) {
    let nothing = tokio::time::timeout(time, std::future::pending::<()>());
    assert!(nothing.await.is_err());
}

fn clock(behaviour: &Arc<Behaviour>) -> Clock {
    let behaviour = Arc::clone(behaviour);
    Arc::new(move || *behaviour.now.lock().unwrap())
}

/// `rN.…` has N records, `inside.…` one that leads inside, `to-corp.…` stands for a name of another zone, `nobody.…` and `broken.…` are errors, everything else has one.
async fn answer(
    behaviour: Arc<Behaviour>,
    mut held: watch::Receiver<bool>,
    query: Query,
) -> Option<Vec<u8>> {
    behaviour.asked.fetch_add(1, Ordering::Relaxed);
    held.wait_for(|held| !held).await.ok()?;
    let delay_ms = behaviour.delay_ms.load(Ordering::Relaxed);
    if delay_ms > 0 {
        pass(Duration::from_millis(delay_ms)).await;
    }
    if behaviour.mute.load(Ordering::Relaxed) {
        return None;
    }
    let mut message = Message::from_vec(&query.message).unwrap().into_response();
    if behaviour.refuse.load(Ordering::Relaxed) {
        message.metadata.response_code = ResponseCode::Refused;
        return message.to_vec().ok();
    }
    if behaviour.bogus.load(Ordering::Relaxed) {
        message.metadata.response_code = ResponseCode::ServFail;
        let explained = EdnsOption::Unknown(15, vec![0, 6, b'n', b'o']);
        let mut edns = Edns::new();
        edns.options_mut().insert(explained);
        message.edns = Some(edns);
        return message.to_vec().ok();
    }
    message.metadata.authentic_data = true;
    let name = message.queries[0].name().clone();
    let first = String::from_utf8(name.iter().next().unwrap().to_vec()).unwrap();
    if first == "to-corp" {
        let target = Name::from_ascii("nas.corp.example.").unwrap();
        let data = RData::CNAME(CNAME(target));
        message.add_answer(Record::from_rdata(name, 300, data));
        return message.to_vec().ok();
    }
    if first == "inside" {
        let data = RData::A(A::new(192, 168, 1, 1));
        message.add_answer(Record::from_rdata(name, 300, data));
        return message.to_vec().ok();
    }
    if let Some(response_code) = match first.as_str() {
        "nobody" => Some(ResponseCode::NXDomain),
        "broken" => Some(ResponseCode::ServFail),
        _ => None,
    } {
        message.metadata.response_code = response_code;
        return message.to_vec().ok();
    }
    let count = first
        .strip_prefix('r')
        .and_then(|count| count.parse().ok())
        .unwrap_or(1);
    for n in 0..count {
        let data = RData::A(A::new(192, 0, 2, n as u8));
        message.add_answer(Record::from_rdata(name.clone(), 300, data));
    }
    message.to_vec().ok()
}

/// Settings whose clock is the server's.
pub(crate) fn settings(server: &Server) -> Settings {
    Settings {
        clock: clock(&server.behaviour),
        ..Settings::default()
    }
}

/// The same with another wish for post-quantum certificates.
pub(crate) fn wishing(post_quantum: PostQuantum, server: &Server) -> Settings {
    Settings {
        policy: CertPolicy {
            post_quantum,
            ..CertPolicy::default()
        },
        ..settings(server)
    }
}

pub(crate) fn upstream(stamps: Vec<DnsCryptStamp>, settings: Settings) -> Upstream {
    Upstream::new(stamps, settings)
}

pub(crate) struct Stub {
    pub(crate) addr: SocketAddr,
    pub(crate) stub: Arc<dnscrypt_proxy::stub::Stub>,
    task: JoinHandle<()>,
}

impl Stub {
    pub(crate) async fn start(stamps: Vec<DnsCryptStamp>, server: &Server) -> Self {
        Self::start_with(stamps, server, Limits::ROUTER).await
    }

    pub(crate) async fn start_with(
        stamps: Vec<DnsCryptStamp>,
        server: &Server,
        limits: Limits,
    ) -> Self {
        Self::start_before(upstream(stamps, settings(server)), limits).await
    }

    pub(crate) async fn start_before(upstream: Upstream, limits: Limits) -> Self {
        let config = StubConfig {
            limits,
            ..StubConfig::default()
        };
        Self::serve(dnscrypt_proxy::stub::Stub::new(upstream, config)).await
    }

    pub(crate) async fn start_judging(policy: Policy, server: &Server) -> Self {
        let upstream = upstream(vec![server.stamp()], settings(server));
        let config = StubConfig::default();
        Self::serve(dnscrypt_proxy::stub::Stub::with_policy(
            upstream, policy, config,
        ))
        .await
    }

    async fn serve(stub: Arc<dnscrypt_proxy::stub::Stub>) -> Self {
        let (addr, sockets) = sockets().await;
        let listening = Arc::clone(&stub);
        let task = tokio::spawn(async move {
            listening.listen(sockets).await;
        });
        Self { addr, stub, task }
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A UDP relay in front of a server; its TCP side passes everything.
pub(crate) struct Wire {
    addr: SocketAddr,
    server: Arc<Mutex<SocketAddr>>,
    packets: Arc<Mutex<Vec<Vec<u8>>>>,
    pub(crate) forge: Arc<AtomicBool>,
    lose: Arc<AtomicUsize>,
    cut: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Wire {
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let (addr, mut sockets) = sockets().await;
        let server = Arc::new(Mutex::new(server));
        let packets = Arc::default();
        let forge = Arc::new(AtomicBool::new(false));
        let lose = Arc::new(AtomicUsize::new(0));
        let cut = Arc::new(AtomicBool::new(false));
        let udp = Arc::new(sockets.udp.remove(0));
        let relay = relay_udp(
            udp,
            Arc::clone(&server),
            Arc::clone(&packets),
            Arc::clone(&forge),
            Arc::clone(&lose),
        );
        let tasks = vec![
            tokio::spawn(relay),
            tokio::spawn(relay_tcp(
                sockets.tcp.remove(0),
                Arc::clone(&server),
                Arc::clone(&cut),
            )),
        ];
        Self {
            addr,
            server,
            packets,
            forge,
            lose,
            cut,
            tasks,
        }
    }

    pub(crate) fn stamp(&self, server: &Server) -> DnsCryptStamp {
        DnsCryptStamp {
            addr: self.addr,
            ..server.stamp()
        }
    }

    pub(crate) fn seen(&self) -> Vec<Vec<u8>> {
        self.packets.lock().unwrap().clone()
    }

    /// From now on nobody takes connections here.
    pub(crate) async fn refuse_tcp(&mut self) {
        let tcp = self.tasks.remove(1);
        tcp.abort();
        assert!(tcp.await.unwrap_err().is_cancelled());
    }

    pub(crate) fn lose(&self, packets: usize) {
        self.lose.store(packets, Ordering::Relaxed);
    }

    /// Another machine has the address from now on.
    pub(crate) fn lead_to(&self, server: &Server) {
        *self.server.lock().unwrap() = server.addr;
    }

    /// Nothing passes any more, or everything again. Packets are swallowed without a word.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.lose(if is_cut { usize::MAX } else { 0 });
        self.cut.store(is_cut, Ordering::Relaxed);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn relay_udp(
    inside: Arc<UdpSocket>,
    server: Arc<Mutex<SocketAddr>>,
    packets: Arc<Mutex<Vec<Vec<u8>>>>,
    forge: Arc<AtomicBool>,
    lose: Arc<AtomicUsize>,
) {
    let mut buffer = vec![0; 65_535];
    loop {
        let Ok((len, client)) = inside.recv_from(&mut buffer).await else {
            continue;
        };
        let query = buffer[..len].to_vec();
        packets.lock().unwrap().push(query.clone());
        let lost = lose.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        });
        if lost.is_ok() {
            continue;
        }
        let (inside, forge) = (Arc::clone(&inside), forge.load(Ordering::Relaxed));
        let server = *server.lock().unwrap();
        tokio::spawn(async move {
            let outside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            outside.send_to(&query, server).await.unwrap();
            let mut answer = vec![0; 65_535];
            let Ok(len) = outside.recv(&mut answer).await else {
                return;
            };
            answer.truncate(len);
            if forge && len > 60 && answer.starts_with(b"r6fnvWj8") {
                let mut forged = answer.clone();
                *forged.last_mut().unwrap() ^= 1;
                inside.send_to(&forged, client).await.unwrap();
                inside.send_to(&forged[..40], client).await.unwrap();
            }
            inside.send_to(&answer, client).await.unwrap();
        });
    }
}

async fn relay_tcp(listener: TcpListener, server: Arc<Mutex<SocketAddr>>, cut: Arc<AtomicBool>) {
    let mut swallowed = Vec::new();
    loop {
        let Ok((mut inside, _)) = listener.accept().await else {
            continue;
        };
        if cut.load(Ordering::Relaxed) {
            swallowed.push(inside);
            continue;
        }
        let server = *server.lock().unwrap();
        tokio::spawn(async move {
            let mut outside = TcpStream::connect(server).await.unwrap();
            // A side that closed early is what the tests are about, if anything.
            let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
        });
    }
}

pub(crate) fn a_query(name: &str) -> Vec<u8> {
    let mut message = Message::new(0x4242, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    message.add_query(hickory_proto::op::Query::query(name, RecordType::A));
    message.to_vec().unwrap()
}

pub(crate) fn with_edns(query: Vec<u8>) -> Vec<u8> {
    let mut message = Message::from_vec(&query).unwrap();
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message.to_vec().unwrap()
}

pub(crate) async fn send(to: SocketAddr, packet: &[u8]) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(packet, to).await.unwrap();
}

pub(crate) async fn ask_udp(server: SocketAddr, query: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(query, server).await.unwrap();
    let mut answer = vec![0; 65_535];
    let len = socket.recv(&mut answer).await.unwrap();
    Message::from_vec(&answer[..len]).unwrap()
}

pub(crate) async fn ask_tcp(server: SocketAddr, query: &[u8]) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    let len = u16::try_from(query.len()).unwrap().to_be_bytes();
    stream.write_all(&[&len, query].concat()).await.unwrap();
    let len = stream.read_u16().await.unwrap();
    let mut answer = vec![0; len.into()];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

pub(crate) fn records(answer: &Message) -> usize {
    answer.answers.len()
}

/// Whether the extended error "network error" is there (RFC 8914, code 23).
pub(crate) fn network_error(answer: &Message) -> bool {
    let edns = answer.edns.as_ref().unwrap();
    edns.options()
        .get(hickory_proto::rr::rdata::opt::EdnsCode::Unknown(15))
        .is_some()
}
