//! How many lookups a second a server answers on one processor, and what a crowd of strangers does to it.
//!
//! `taskset -c 0 pace serve workers LISTEN` prints a stamp and serves (`tasks` in place of `workers`: a task for each
//! query); `taskset -c 1 pace load STAMP` measures any DNSCrypt server that knows `www.lab`.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use dnscrypt_proxy::certs::{Certs, Rotation};
use dnscrypt_proxy::listen::{Homes, Limits, Sockets};
use dnscrypt_proxy::proto::cert::{Certificate, Policy, select};
use dnscrypt_proxy::proto::client::{ClientKeys, QueryPadding, Session};
use dnscrypt_proxy::proto::message;
use dnscrypt_proxy::proto::stamp::{DnsCryptStamp, Props};
use dnscrypt_proxy::serve::{Duties, Heard, Query, Server, WorkerSockets};
use dnscrypt_proxy::{Counters, clock};
use ed25519_dalek::SigningKey;
use hickory_proto::rr::RecordType;
use netio::udp::{Batch, Offload};
use netio::{Udp, UdpOptions};
use rand_core::OsRng;
use std::io::{Read as _, Write as _};
use tokio::net::{TcpListener, UdpSocket};

const PROVIDER: &str = "2.dnscrypt-cert.pace.example";
const LASTING: Duration = Duration::from_millis(1_500);
const WINDOW: usize = 256;
const LOST: Duration = Duration::from_millis(250);
const UDP: QueryPadding = QueryPadding::Udp { target: 256 };
const KEPT_BYTES: usize = 24 << 20;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["serve", how, listen] => serve(how, listen.parse().context("LISTEN must be IP:PORT")?),
        ["load", stamp] => load(&stamp.parse().context("no stamp")?),
        _ => bail!("usage: pace serve workers|tasks LISTEN, or pace load STAMP"),
    }
}

#[tokio::main]
async fn serve(how: &str, listen: SocketAddr) -> anyhow::Result<()> {
    let provider = SigningKey::from_bytes(&[9; 32]);
    let certs = Certs::signing(provider, Rotation::default(), clock::system())?;
    let stamp = DnsCryptStamp {
        props: Props::default(),
        addr: listen,
        provider_key: certs.provider_public(),
        provider_name: PROVIDER.to_owned(),
    };
    println!("{stamp}");
    let counters: Arc<Counters> = Arc::default();
    let server = Server {
        provider_name: PROVIDER.to_owned(),
        keyring: certs.keyring(),
        limits: Limits::SERVER,
        homes: Homes::default(),
        counters: Arc::clone(&counters),
        clock: clock::system(),
    };
    match how {
        "workers" => {
            let mut sockets = WorkerSockets::default();
            sockets.udp.push(Udp::bind(listen, &options())?);
            sockets.listen(listen)?;
            let duties = Duties {
                kept_bytes: KEPT_BYTES,
                ahead: 0,
                forwarding: None,
                tls: None,
            };
            let heard = |query| async { Heard::from(answer(query).await) };
            server.serve_by_workers(vec![sockets], duties, heard).await;
        }
        _ => {
            let udp = vec![UdpSocket::bind(listen).await?];
            let tcp = vec![TcpListener::bind(listen).await?];
            server.serve(Sockets { udp, tcp }, answer).await;
        }
    }
    Ok(())
}

/// One address for every name.
async fn answer(query: Query) -> Option<Vec<u8>> {
    let question = message::Query::read(&query.message).ok()?;
    let mut answer = question.answer_txt(&[&[7; 15]], 300);
    answer.truncate(query.room);
    Some(answer)
}

fn options() -> UdpOptions {
    UdpOptions {
        reuse_port: true,
        offload: Offload::Never,
        buffer_bytes: 8 << 20,
        ..UdpOptions::default()
    }
}

struct Load {
    socket: Udp,
    to: SocketAddr,
    cert: Certificate,
}

fn load(stamp: &DnsCryptStamp) -> anyhow::Result<()> {
    let load = Load {
        socket: Udp::bind("127.0.0.1:0".parse()?, &options())?,
        to: stamp.addr,
        cert: certificate(stamp)?,
    };
    let one = load.session()?;
    let same = load.packets(&one, 4_096, |_| "www.lab".to_owned())?;
    load.saturate(&same)?;
    println!("hit      {:9.0} a second", load.saturate(&same)?);
    let mut fresh = Vec::new();
    for place in 0..45_000 {
        fresh.push((load.to, sealed(&load.session()?, "www.lab", place)?));
    }
    println!("new key  {:9.0} a second", load.saturate(&fresh)?);
    let run = std::process::id();
    let names = load.packets(&one, 150_000, |place| format!("n{place}.r{run}.wild.lab"))?;
    println!("miss     {:9.0} a second", load.saturate(&names)?);
    println!("tcp      {:9.0} a second", load.over_tcp(&same)?);
    for (crowd, per_s) in [(0, 2_000), (0, 1_000), (20_000, 1_000)] {
        let [p50, p99, most, lost] = load.steady(&same, per_s, crowd)?;
        println!(
            "{per_s} a second beside {crowd} of strangers: p50 {p50:.3} ms, p99 {p99:.3} ms, most {most:.3} ms, {lost} lost"
        );
    }
    Ok(())
}

type Packets = Vec<(SocketAddr, Vec<u8>)>;

impl Load {
    fn session(&self) -> anyhow::Result<Session> {
        Ok(Session::new(&self.cert, &ClientKeys::generate(OsRng))?)
    }

    fn packets(
        &self,
        session: &Session,
        count: usize,
        name: impl Fn(usize) -> String,
    ) -> anyhow::Result<Packets> {
        (0..count)
            .map(|place| Ok((self.to, sealed(session, &name(place), place)?)))
            .collect()
    }

    /// Answers a second with as many lookups under way as a server at its limit needs.
    fn saturate(&self, packets: &Packets) -> anyhow::Result<f64> {
        let (mut batch, mut under_way) = (Batch::new(4_096), 0);
        let (mut next, mut answered, mut lost) = (0, 0, 0);
        let (start, mut last) = (Instant::now(), Instant::now());
        while start.elapsed() < LASTING {
            let room = (WINDOW - under_way).min(32);
            let from = next % packets.len();
            let some = packets
                .get(from..(from + room).min(packets.len()))
                .unwrap_or_default();
            ensure!(self.socket.send_batch(some) == some.len(), "not all left");
            under_way += some.len();
            next += some.len();
            let got = self.socket.recv_batch(&mut batch)?.min(under_way);
            under_way -= got;
            answered += got;
            if got > 0 {
                last = Instant::now();
            } else if last.elapsed() > LOST {
                lost += std::mem::take(&mut under_way);
                last = Instant::now();
            }
        }
        if lost > 0 {
            println!("         {lost} of {answered} lost");
        }
        Ok(answered as f64 / start.elapsed().as_secs_f64())
    }

    /// Milliseconds that lookups took at an even pace beside a crowd with unknown keys, and how many were lost.
    fn steady(&self, packets: &Packets, per_s: u32, crowd: u32) -> anyhow::Result<[f64; 4]> {
        let other = Udp::bind("127.0.0.1:0".parse()?, &options())?;
        let (mut batch, mut times) = (Batch::new(4_096), Vec::new());
        let (start, lasting) = (Instant::now(), LASTING * 2);
        let (mut sent, mut thrown) = (0_u32, 0_u32);
        let mut sent_at = vec![start; packets.len()];
        while start.elapsed() < lasting + LOST {
            let gone = start.elapsed().as_secs_f64();
            if gone < lasting.as_secs_f64() {
                if f64::from(thrown) < gone * f64::from(crowd) {
                    let mut garbage = self.cert.magic.to_vec();
                    garbage.resize(256, 0x55);
                    garbage[8..12].copy_from_slice(&thrown.to_be_bytes());
                    let _taken = other.send_batch(&[(self.to, garbage)]);
                    thrown += 1;
                }
                if f64::from(sent) < gone * f64::from(per_s) {
                    let place = sent as usize % packets.len();
                    sent_at[place] = Instant::now();
                    ensure!(
                        self.socket.send_batch(&packets[place..=place]) == 1,
                        "left behind"
                    );
                    sent += 1;
                }
            }
            self.socket.recv_batch(&mut batch)?;
            let places = batch.iter().filter_map(|(_, answer)| place_of(answer));
            times.extend(
                places
                    .filter_map(|place| sent_at.get(place))
                    .map(|at| at.elapsed().as_secs_f64() * 1e3),
            );
        }
        times.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = (times.len() as f64 * part) as usize;
            times.get(place.min(times.len().saturating_sub(1))).copied()
        };
        let lost = f64::from(sent) - times.len() as f64;
        let of = |part| at(part).context("nothing was answered");
        Ok([of(0.5)?, of(0.99)?, of(1.0)?, lost])
    }

    /// A connection for each lookup, sixteen at a time; one that is refused is tried again.
    fn over_tcp(&self, packets: &Packets) -> anyhow::Result<f64> {
        let start = Instant::now();
        let client = || -> anyhow::Result<usize> {
            let mut answered = 0;
            while start.elapsed() < LASTING {
                let (to, packet) = packets.first().context("no packets")?;
                let mut stream = TcpStream::connect(to)?;
                let len = u16::try_from(packet.len())?.to_be_bytes();
                stream.write_all(&[&len[..], packet].concat())?;
                let mut prefix = [0; 2];
                // A server may still count connections that have ended against their address.
                if stream.read_exact(&mut prefix).is_err() {
                    continue;
                }
                stream.read_exact(&mut vec![0; u16::from_be_bytes(prefix).into()])?;
                answered += 1;
            }
            Ok(answered)
        };
        let answered = std::thread::scope(|scope| -> anyhow::Result<usize> {
            let clients: Vec<_> = (0..16).map(|_| scope.spawn(client)).collect();
            let results = clients.into_iter().map(|client| client.join());
            results.map(|result| result.unwrap_or_else(|_| Ok(0))).sum()
        })?;
        Ok(answered as f64 / start.elapsed().as_secs_f64())
    }
}

fn nonce(place: usize) -> [u8; 12] {
    let mut nonce = [0x5a; 12];
    nonce[..8].copy_from_slice(&(place as u64).to_le_bytes());
    nonce
}

fn place_of(answer: &[u8]) -> Option<usize> {
    let place = answer.get(8..16)?.try_into().ok()?;
    usize::try_from(u64::from_le_bytes(place)).ok()
}

fn sealed(session: &Session, name: &str, place: usize) -> anyhow::Result<Vec<u8>> {
    let refused = |reason| anyhow::anyhow!("{reason:?}");
    let query = message::query(7, name, RecordType::A, 1_232).map_err(refused)?;
    Ok(session.seal_query(&query, &nonce(place), UDP)?)
}

fn certificate(stamp: &DnsCryptStamp) -> anyhow::Result<Certificate> {
    let refused = |reason| anyhow::anyhow!("{reason:?}");
    let query = message::query(1, &stamp.provider_name, RecordType::TXT, 4_096).map_err(refused)?;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect(stamp.addr)?;
    socket.send(&query)?;
    let mut answer = vec![0; 4_096];
    let len = socket.recv(&mut answer)?;
    answer.truncate(len);
    let records = message::texts(&answer).map_err(refused)?;
    let now = clock::system()();
    let records = records.iter().map(Vec::as_slice);
    let chosen = select(records, &stamp.provider_key, Policy::CLASSICAL, now);
    chosen.best.context("no certificate can be used")
}
