//! An office with a server on an ephemeral port, devices and gateways with keys of their own, and a client
//! that speaks just enough HTTP/1.1 over rustls.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use provisioning::clock::unix_now;
use provisioning::config::{Config, LeaseTimes};
use provisioning::datadir::DataDir;
use provisioning::limit::{Limited, limit};
use provisioning::log::replay::{Replayed, replay};
use provisioning::revoke::{Reason, revoke};
use provisioning::serve::Server;
use provisioning::store::{Store, claims, devices, server_name};
use provisioning::{gateways, proposals};
use rand_core::{OsRng, RngCore};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::kx_group::{X25519, X25519MLKEM768};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trust::channel::EXPORTER_LABEL;
use trust::{
    Activation, Anchors, Bundle, BundleError, ChannelProof, ClaimCode, DeviceFacts, EnrolReq,
    GatewayRecord, Kind, LeaseBundle, Limits, Proposal, ServerChallenge, ShardPage, Stored,
    Verdict, key_id,
};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::pen::pen;

pub(crate) const DAY_S: u64 = 86_400;

/// Makes a data directory in memory where the system has such a place, so that thousands of commits are cheap.
pub(crate) fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        TempDir::new_in(memory).unwrap()
    } else {
        TempDir::new().unwrap()
    }
}

pub(crate) async fn new_data_dir(scratch: &TempDir, witnesses: Option<&str>) -> DataDir {
    let dir = DataDir::new(scratch.path().join("data"));
    let url = "https://127.0.0.1:8443".parse().unwrap();
    dir.create(("office", &url), (&genesis(), witnesses), unix_now())
        .await
        .unwrap();
    dir
}

/// The first state of the authority: alice and bob together decide everything.
pub(crate) fn genesis() -> Activation {
    let person = |(name, n)| format!("person {name} {}\n", pen(n).line());
    let people = [("alice", 1), ("bob", 2)].map(person).concat();
    let rules = ["gateway", "authority"].map(|kind| format!("rule {kind} both self-approve\n"));
    let text = format!(
        "epoch 1\n{people}group both all alice bob\n{}",
        rules.concat()
    );
    approved(Kind::Authority, 0, text.into_bytes())
}

/// What alice proposes and bob approves, without a proof of anything.
fn approved(kind: Kind, authority_epoch: u64, body: Vec<u8>) -> Activation {
    let proposal = Proposal {
        v: trust::VERSION,
        kind,
        body,
        authority_epoch,
        nonce: new_key().to_bytes(),
        created: unix_now(),
        not_before: unix_now(),
        expires: 0,
        proposer: "alice".to_owned(),
    };
    let proposal = proposal.to_bytes();
    let approvals = vec![
        pen(1).says(Verdict::Propose, "alice", &proposal),
        pen(2).says(Verdict::Approve, "bob", &proposal),
    ];
    Activation {
        proposal,
        approvals,
        proof: String::new(),
    }
}

pub(crate) fn config(data_dir: &Path) -> Config {
    let text = format!(
        "listen = [\"127.0.0.1:0\"]\ndata-dir = {data_dir:?}\n\
         [[pool]]\npop = \"pop1\"\nshard = 1\nv4 = \"10.64.0.0/16\"\nv6 = \"fd64::/48\"\n\
         [[pool]]\npop = \"pop2\"\nshard = 2\nv4 = \"10.65.0.0/16\"\nv6 = \"fd65::/48\"\n"
    );
    Config::parse(&text).unwrap()
}

/// A running server and what it stands on.
pub(crate) struct Office {
    scratch: TempDir,
    pub(crate) dir: DataDir,
    pub(crate) store: Store,
    pub(crate) addr: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Office {
    /// Opens with the gateway `gw1` in `pop1`.
    pub(crate) async fn open() -> Self {
        let office = Self::open_without_gateways().await;
        office.add_gateway(&Gateway::new("gw1", "pop1", 1)).await;
        office
    }

    pub(crate) async fn open_without_gateways() -> Self {
        let scratch = scratch();
        let dir = new_data_dir(&scratch, None).await;
        Self::serve(scratch, dir).await
    }

    /// Opens on a data directory; the scratch folder goes when the office does.
    pub(crate) async fn serve(scratch: TempDir, dir: DataDir) -> Self {
        let server = Server::start(&config(dir.path())).await.unwrap();
        let addr = server.local_addrs().unwrap()[0];
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async { drop(stopped.await) }));
        let store = dir.store().await.unwrap();
        Self {
            scratch,
            dir,
            store,
            addr,
            stop,
            task,
        }
    }

    pub(crate) async fn close(self) -> DataDir {
        self.stop().await.1
    }

    /// Stops the server; what it stands on stays.
    pub(crate) async fn stop(self) -> (TempDir, DataDir) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
        (self.scratch, self.dir)
    }

    pub(crate) async fn claim(&self) -> ClaimCode {
        self.claim_until(unix_now() + DAY_S).await
    }

    pub(crate) async fn claim_until(&self, expires_at: u64) -> ClaimCode {
        add_claim(&self.store, "pop1", expires_at).await
    }

    pub(crate) async fn add_gateway(&self, gateway: &Gateway) {
        add_gateway(&self.dir, &self.store, gateway).await;
    }

    /// As the command line does it: over a connection of its own.
    pub(crate) async fn revoke(&self, device: &Device) {
        let mut writer = self.store.writer().await.unwrap();
        let mut db = writer.begin().await.unwrap();
        let name = server_name(&mut db).await.unwrap();
        let keys = self.dir.log_keys(&name).unwrap();
        let known = devices::find(&mut db, &device.id()).await.unwrap().unwrap();
        revoke(&mut db, &known, Reason::Lost, &keys, unix_now())
            .await
            .unwrap();
        db.commit().await.unwrap();
    }

    /// As the command line does it: over a connection of its own.
    pub(crate) async fn limit(&self, device: &Device, limits: Limits) -> anyhow::Result<Limited> {
        let mut writer = self.store.writer().await?;
        let mut db = writer.begin().await?;
        let keys = self.dir.log_keys(&server_name(&mut db).await?)?;
        let known = devices::find(&mut db, &device.id()).await?.unwrap();
        let limited = limit(&mut db, &known, limits, &keys, unix_now()).await?;
        db.commit().await?;
        Ok(limited)
    }

    pub(crate) fn anchors(&self) -> Anchors {
        self.dir.anchors().unwrap()
    }

    pub(crate) async fn replay(&self) -> Replayed {
        replay_store(&self.store, &self.anchors()).await.unwrap()
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(self.addr, &self.dir).await.unwrap()
    }
}

pub(crate) async fn replay_store(store: &Store, anchors: &Anchors) -> anyhow::Result<Replayed> {
    replay(&mut *store.read().await?, anchors).await
}

pub(crate) async fn add_claim(store: &Store, pop: &str, expires_at: u64) -> ClaimCode {
    let code = ClaimCode::generate(&mut OsRng);
    let claim = claims::Claim {
        claim_pub: code.signing_key().verifying_key().to_bytes(),
        slot: Some("line-7".to_owned()),
        pop: pop.to_owned(),
        limits: Limits::default(),
        created_at: unix_now(),
        expires_at,
        bound: None,
    };
    let mut writer = store.writer().await.unwrap();
    let mut db = writer.begin().await.unwrap();
    claims::add(&mut db, &claim).await.unwrap();
    db.commit().await.unwrap();
    code
}

pub(crate) async fn add_gateway(dir: &DataDir, store: &Store, gateway: &Gateway) {
    let mut activation = gateway.proposed(dir, store).await;
    gateway.added(dir, store, &mut activation).await;
}

pub(crate) fn lease_times() -> LeaseTimes {
    LeaseTimes {
        lifetime: Duration::from_secs(7 * DAY_S),
        renew_after: Duration::from_secs(DAY_S),
    }
}

fn new_key() -> SigningKey {
    let mut seed = [0; 32];
    OsRng.fill_bytes(&mut seed);
    SigningKey::from_bytes(&seed)
}

/// A gateway with its key.
pub(crate) struct Gateway {
    pub(crate) key: SigningKey,
    name: &'static str,
    pop: &'static str,
    shard: u32,
}

impl Gateway {
    pub(crate) fn new(name: &'static str, pop: &'static str, shard: u32) -> Self {
        let key = new_key();
        Self {
            key,
            name,
            pop,
            shard,
        }
    }

    /// Its people's word for it, with its proposal in the log.
    pub(crate) async fn proposed(&self, dir: &DataDir, store: &Store) -> Activation {
        let activation = approved(Kind::Gateway, 1, self.record().to_bytes());
        let mut writer = store.writer().await.unwrap();
        let mut db = writer.begin().await.unwrap();
        let keys = dir.log_keys(&server_name(&mut db).await.unwrap()).unwrap();
        proposals::add(&mut db, &activation.proposal, &keys, unix_now())
            .await
            .unwrap();
        db.commit().await.unwrap();
        activation
    }

    /// Taken by the server, once its proposal is published.
    pub(crate) async fn added(&self, dir: &DataDir, store: &Store, activation: &mut Activation) {
        let id = Proposal::id(&activation.proposal);
        let proved = proposals::wait_for_proof(store, &id, Duration::from_secs(20)).await;
        activation.proof = proved.unwrap().unwrap().proof.unwrap();
        let mut writer = store.writer().await.unwrap();
        let mut db = writer.begin().await.unwrap();
        let anchors = dir.anchors().unwrap();
        gateways::add(&mut db, activation, &anchors, unix_now())
            .await
            .unwrap();
        db.commit().await.unwrap();
    }

    fn record(&self) -> GatewayRecord {
        GatewayRecord {
            v: trust::VERSION,
            name: self.name.to_owned(),
            ed25519_pub: self.key.verifying_key().to_bytes(),
            wg_pub: PublicKey::from(&StaticSecret::random_from_rng(OsRng)).to_bytes(),
            endpoints: vec!["198.18.1.2:51820".parse().unwrap()],
            pop: self.pop.to_owned(),
            shards: vec![self.shard],
            inner: vec!["10.64.0.1".parse().unwrap(), "fd64::1".parse().unwrap()],
            dns: vec!["sdns://AQ".to_owned()],
            relay: None,
            post_quantum: false,
        }
    }
}

/// A router: its keys, and what it remembers.
pub(crate) struct Device {
    pub(crate) key: SigningKey,
    pub(crate) tunnel: StaticSecret,
    pub(crate) stored: Stored,
}

impl Device {
    pub(crate) fn new() -> Self {
        Self {
            key: new_key(),
            tunnel: StaticSecret::random_from_rng(OsRng),
            stored: Stored::default(),
        }
    }

    pub(crate) fn id(&self) -> [u8; 32] {
        key_id(&self.key.verifying_key().to_bytes())
    }

    pub(crate) fn answer(
        &self,
        claim: Option<&ClaimCode>,
        challenge: &ServerChallenge,
        exporter: &[u8; 32],
    ) -> EnrolReq {
        let size = self.stored.fleet_size();
        EnrolReq::build(&self.key, &self.tunnel, claim, challenge, exporter, size).unwrap()
    }

    /// Judges a bundle as the agent does, and remembers it.
    pub(crate) fn accept(
        &mut self,
        anchors: &Anchors,
        bytes: &[u8],
    ) -> Result<Bundle, BundleError> {
        let bundle = LeaseBundle::from_bytes(bytes)?;
        let me = DeviceFacts {
            devid_hash: self.id(),
            wg_pub: PublicKey::from(&self.tunnel).to_bytes(),
        };
        let (verified, stored) = anchors.verify_bundle(&bundle, &me, &self.stored, unix_now())?;
        self.stored = stored;
        Ok(verified.into_inner())
    }
}

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// In small letters.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The `code` of a problem.
    pub(crate) fn code(&self) -> String {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        for key in ["message", "action"] {
            assert!(problem[key].is_string(), "{problem}");
        }
        problem["code"].as_str().unwrap().to_owned()
    }

    pub(crate) fn problem(&self) -> (u16, String) {
        (self.status, self.code())
    }

    pub(crate) fn page(&self) -> ShardPage {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        ShardPage::from_bytes(&self.body).unwrap()
    }
}

/// One TLS connection.
pub(crate) struct Client {
    stream: TlsStream<TcpStream>,
    pub(crate) exporter: [u8; 32],
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr, dir: &DataDir) -> std::io::Result<Self> {
        Self::over(TcpStream::connect(addr).await?, dir).await
    }

    pub(crate) async fn over(stream: TcpStream, dir: &DataDir) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        let config = Arc::new(client_config(dir));
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TlsConnector::from(config).connect(name, stream).await?;
        let exporter = stream
            .get_ref()
            .1
            .export_keying_material([0; 32], EXPORTER_LABEL.as_bytes(), Some(&[]))
            .unwrap();
        Ok(Self { stream, exporter })
    }

    pub(crate) fn tls(&self) -> &rustls::ClientConnection {
        self.stream.get_ref().1
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"), b"")
            .await
            .unwrap()
    }

    pub(crate) async fn post(&mut self, path: &str, body: &[u8]) -> std::io::Result<Answer> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/cbor\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        self.send(&head, body).await
    }

    /// Sends bytes as they are and reads one answer.
    pub(crate) async fn send(&mut self, head: &str, body: &[u8]) -> std::io::Result<Answer> {
        self.stream
            .write_all(&[head.as_bytes(), body].concat())
            .await?;
        self.stream.flush().await?;
        self.read_answer().await
    }

    async fn read_answer(&mut self) -> std::io::Result<Answer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.stream.read_u8().await?);
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        self.stream.read_exact(&mut body).await?;
        Ok(Answer { status, head, body })
    }

    pub(crate) async fn challenge(&mut self) -> std::io::Result<ServerChallenge> {
        let answer = self.post("/v1/enrol/challenge", b"").await?;
        assert_eq!(answer.status, 200);
        Ok(ServerChallenge::from_bytes(&answer.body).unwrap())
    }

    /// The whole exchange of an enrolment or a renewal.
    pub(crate) async fn try_enrol(
        &mut self,
        device: &Device,
        claim: Option<&ClaimCode>,
    ) -> std::io::Result<Answer> {
        let challenge = self.challenge().await?;
        let request = device.answer(claim, &challenge, &self.exporter);
        self.post("/v1/enrol", &request.to_bytes()).await
    }

    pub(crate) async fn enrol(&mut self, device: &Device, claim: Option<&ClaimCode>) -> Answer {
        self.try_enrol(device, claim).await.unwrap()
    }

    /// Asks for a page of a shard's stream as a gateway.
    pub(crate) async fn shard(&mut self, gateway: &Gateway, query: &str) -> Answer {
        let proof = ChannelProof::sign(&gateway.key, "gateway", &self.exporter);
        self.shard_with(&proof.to_string(), query).await
    }

    /// Hands a statement in as a gateway.
    pub(crate) async fn state_key(&mut self, gateway: &Gateway, statement: &[u8]) -> Answer {
        let proof = ChannelProof::sign(&gateway.key, "gateway", &self.exporter);
        let head = format!(
            "POST /v1/gateway/kem HTTP/1.1\r\nhost: x\r\nauthorization: {proof}\r\n\
             content-type: application/cbor\r\ncontent-length: {}\r\n\r\n",
            statement.len()
        );
        self.send(&head, statement).await.unwrap()
    }

    pub(crate) async fn shard_with(&mut self, authorization: &str, query: &str) -> Answer {
        let head = format!(
            "GET /v1/shard/{query} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n\r\n"
        );
        self.send(&head, b"").await.unwrap()
    }
}

fn client_config(dir: &DataDir) -> ClientConfig {
    let certificate = CertificateDer::from_pem_file(dir.path().join("server.crt")).unwrap();
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = vec![X25519MLKEM768, X25519];
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned(certificate)))
        .with_no_client_auth()
}

#[derive(Debug)]
struct Pinned(CertificateDer<'static>);

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        assert_eq!(*end_entity, self.0);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        panic!("the server must not speak TLS 1.2")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let algorithms = &provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
