//! The resolver behind the stubs: one that is never the limit. Under one certificate it answers every name with the same
//! address, at once; what it costs is the same for everybody who asks it.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use dnscrypt_proxy::DnsCryptStamp;
use dnscrypt_proxy::proto::cert::{Certificate, System};
use dnscrypt_proxy::proto::message::Query;
use dnscrypt_proxy::proto::server::{KeyCache, Keyring, ResolverKey, open};
use dnscrypt_proxy::proto::stamp::Props;
use dnscrypt_proxy::proto::{MAX_QUERY, Transport};
use ed25519_dalek::SigningKey;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg};
use rand_core::{OsRng, RngCore};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::certificates::now_s;
use crate::netns::Netns;

const PROVIDER_NAME: &str = "2.dnscrypt-cert.answerer.example";
const MAGIC: [u8; 8] = *b"answerer";
const HOUR_S: u32 = 3_600;
const BATCH: usize = 32;
const KEPT_KEYS: usize = 1_024;
/// How long it goes on after it was told to end.
const LOOK: Duration = Duration::from_millis(50);
const HEADER: usize = 12;
/// A response with recursion, one question and one answer.
const HEAD: [u8; 10] = [0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0];
/// The question's name, an IPv4 address for five minutes: 203.0.113.10.
const RECORD: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 203, 0, 113, 10];

/// Answers while it lives.
pub(super) struct Answerer {
    /// How a client finds it.
    pub(super) stamp: String,
    pub(super) cert: Certificate,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Answerer {
    /// Starts it on the processor of the calling thread.
    pub(super) fn start(netns: &Netns, listen: SocketAddr) -> Result<Self> {
        let socket = netns.enter(|| UdpSocket::bind(listen).context("binding the answerer"))?;
        socket
            .set_read_timeout(Some(LOOK))
            .context("bounding the answerer's wait")?;
        let mut seed = [0; 32];
        OsRng.fill_bytes(&mut seed);
        let provider = SigningKey::from_bytes(&seed);
        let stamp = DnsCryptStamp {
            props: Props::default(),
            addr: listen,
            provider_key: provider.verifying_key().to_bytes(),
            provider_name: PROVIDER_NAME.to_owned(),
        };
        let (cert, keyring) = keyring(&provider)?;
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        Ok(Self {
            stamp: stamp.to_string(),
            cert,
            over,
            thread: Some(std::thread::spawn(move || {
                answer_all(&socket, &keyring, &until)
            })),
        })
    }

    /// Ends it and says what went wrong.
    pub(super) fn end(mut self) -> Result<()> {
        self.over.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(ended)) => ended,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // What it says was asked for by `end`, or the bench has failed for another reason.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}

fn keyring(provider: &SigningKey) -> Result<(Certificate, Keyring)> {
    let secret = StaticSecret::random_from_rng(OsRng);
    let now = u32::try_from(now_s()?).context("a clock after 2106")?;
    let cert = Certificate {
        system: System::XChaCha20Poly1305,
        resolver_key: PublicKey::from(&secret).to_bytes().to_vec(),
        magic: MAGIC,
        serial: 1,
        start: now - HOUR_S,
        end: now + 23 * HOUR_S,
        minor: 0,
    };
    let wire = cert.sign(provider);
    let key = ResolverKey::new(cert.clone(), wire, secret).context("the answerer's key")?;
    Ok((cert, Keyring::new(vec![Arc::new(key)])))
}

fn answer_all(socket: &UdpSocket, keyring: &Keyring, over: &AtomicBool) -> Result<()> {
    let mut cache = KeyCache::new(KEPT_KEYS);
    let mut inbox = vec![vec![0; MAX_QUERY]; BATCH];
    while !over.load(Ordering::Relaxed) {
        let came = receive(socket, &mut inbox)?;
        let now = now_s()?;
        let answers: Vec<_> = inbox
            .iter()
            .zip(came)
            .filter_map(|(buffer, (len, from))| {
                let packet = buffer.get(..len)?.to_vec();
                Some((answer(keyring, &mut cache, packet, now)?, from))
            })
            .collect();
        send(socket, &answers)?;
    }
    Ok(())
}

fn answer(keyring: &Keyring, cache: &mut KeyCache, packet: Vec<u8>, now: u64) -> Option<Vec<u8>> {
    if keyring.claims(&packet) {
        let opened = open(keyring, cache, packet, Transport::Udp, now).ok()?;
        let answer = address_for(&opened.query)?;
        return Some(opened.reply.seal(answer, &opened.query, OsRng).packet);
    }
    let query = Query::read(&packet).ok()?;
    let certs = query.asks_for(PROVIDER_NAME);
    certs.then(|| keyring.cert_answer(&query, packet.len(), Transport::Udp, HOUR_S, now))
}

/// The answer to whatever was asked.
fn address_for(query: &[u8]) -> Option<Vec<u8>> {
    let (id, rest) = (query.get(..2)?, query.get(HEADER..)?);
    let mut name_len = 0;
    while *rest.get(name_len)? != 0 {
        name_len += 1 + usize::from(*rest.get(name_len)?);
    }
    let question = rest.get(..name_len + 1 + 4)?;
    Some([id, &HEAD, question, &RECORD].concat())
}

/// Waits for packets, and takes all that are there.
fn receive(socket: &UdpSocket, inbox: &mut [Vec<u8>]) -> Result<Vec<(usize, Option<SockaddrIn>)>> {
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(inbox.len(), None);
    let mut slices: Vec<_> = inbox
        .iter_mut()
        .map(|buffer| [IoSliceMut::new(buffer)])
        .collect();
    let fd = socket.as_raw_fd();
    let wait = MsgFlags::MSG_WAITFORONE;
    match recvmmsg(fd, &mut headers, &mut slices, wait, None) {
        Ok(got) => Ok(got.map(|got| (got.bytes, got.address)).collect()),
        // A stub that has ended meanwhile refuses what was sent to it.
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => Ok(Vec::new()),
        Err(error) => Err(error).context("receiving the stubs' queries"),
    }
}

fn send(socket: &UdpSocket, answers: &[(Vec<u8>, Option<SockaddrIn>)]) -> Result<()> {
    if answers.is_empty() {
        return Ok(());
    }
    let packets: Vec<_> = answers
        .iter()
        .map(|(packet, _)| [IoSlice::new(packet)])
        .collect();
    let to: Vec<_> = answers.iter().map(|(_, to)| *to).collect();
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(packets.len(), None);
    let fd = socket.as_raw_fd();
    // A stub that has ended meanwhile gets no answer.
    let _sent = sendmmsg(fd, &mut headers, &packets, &to, [], MsgFlags::empty());
    Ok(())
}
