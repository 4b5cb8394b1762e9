//! The load: clients of one server in one thread, batches in one system call each.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrIn, SockaddrStorage, bind,
    connect, recvmmsg, sendmmsg, setsockopt, socket, sockopt,
};

use super::questions::Questions;
use super::strangers::Strangers;
use crate::netns::Netns;

/// Lookups under way at saturation: more than any server needs to be busy, fewer than any refuses.
const WINDOW: usize = 128;
/// The same for packets that fill an Ethernet frame: more would not fit a socket's usual buffer.
const WINDOW_OF_LONG: usize = 64;
/// From here on a packet is long.
const LONG: usize = 1_000;
/// Packets for one system call.
const BATCH: usize = 32;
/// While more are under way, no smaller batch than this is sent.
const LEAST: usize = 8;
/// A lookup that takes longer is lost; until then it is one of those under way.
const PATIENCE: Duration = Duration::from_secs(1);
/// The first lookup may make a server ask the whole way from the root.
const FIRST: Duration = Duration::from_secs(5);
/// One answer in so many is opened and read.
const READ_ONE_IN: usize = 64;
/// TCP connections at the same time.
const CONNECTIONS: u8 = 16;
/// The longest sleep while nothing comes.
const SLEEP_MS: u8 = 2;
const LARGEST: usize = 4_096;
const BUFFER_BYTES: usize = 8 << 20;

/// Clients of one server.
pub(super) struct Load {
    netns: Netns,
    server: SocketAddr,
    socket: UdpSocket,
    inbox: Vec<Vec<u8>>,
}

impl Load {
    pub(super) fn new(netns: &Netns, server: SocketAddr) -> Result<Self> {
        Ok(Self {
            netns: netns.clone(),
            server,
            socket: netns.enter(|| bound(server))?,
            inbox: vec![vec![0; LARGEST]; BATCH],
        })
    }

    /// Asks once and waits for the answer, passing over what is late of other lookups.
    pub(super) fn ask(&mut self, packet: &[u8], is_it: &dyn Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
        self.drain();
        self.socket.send(packet).context("asking")?;
        let start = Instant::now();
        loop {
            let mut answer = None;
            self.receive(Idle::Sleep, |bytes| {
                answer = answer.take().or(is_it(bytes).then(|| bytes.to_vec()));
                Ok(())
            })?;
            if let Some(answer) = answer {
                return Ok(answer);
            }
            ensure!(start.elapsed() < FIRST, "no answer in {FIRST:?}");
        }
    }

    /// Asks everything for a while, whatever comes of it: nothing is to be measured cold.
    pub(super) fn warm(&mut self, questions: &Questions, lasting: Duration) -> Result<()> {
        let of_first = |answer: &[u8]| questions.place_of(answer) == Some(0);
        let first = self.ask(questions.packet(0), &of_first);
        let first = first.context("the first lookup")?;
        questions.read(0, &first)?;
        self.run(questions, lasting).map(drop)
    }

    /// Keeps as many lookups under way as a server at its limit needs, and gives how many a second were answered.
    pub(super) fn saturate(&mut self, questions: &Questions, lasting: Duration) -> Result<f64> {
        let (books, seconds) = self.run(questions, lasting)?;
        ensure!(books.answered > 0, "not one lookup was answered");
        Ok(books.answered as f64 / seconds)
    }

    fn run(&mut self, questions: &Questions, lasting: Duration) -> Result<(Books, f64)> {
        self.drain();
        let (mut books, mut sent) = (Books::new(questions.len()), 0);
        let idle = if questions.are_misses() {
            Idle::Sleep
        } else {
            Idle::Spin
        };
        let long = questions.packet(0).len() >= LONG;
        let window = if long { WINDOW_OF_LONG } else { WINDOW };
        let start = Instant::now();
        let mut last = start;
        loop {
            let now = Instant::now();
            books.give_up(now);
            let left = questions.left(sent);
            if now - start >= lasting || (left == 0 && books.waiting == 0) {
                // What is lost of the last ones is not waited for in vain.
                let end = if left == 0 { last } else { now };
                return Ok((books, (end - start).as_secs_f64()));
            }
            let room = window.saturating_sub(books.waiting).min(BATCH);
            if room >= LEAST {
                let batch = sent..sent + room.min(left);
                let places: Vec<_> = batch.map(|n| n % questions.len()).collect();
                self.send(questions, &places)?;
                sent += places.len();
                for place in places {
                    books.sent(place, now);
                }
            }
            self.receive(idle, |answer| {
                let place = questions.place_of(answer);
                if let Some(place) = place.filter(|place| books.came(*place)) {
                    last = now;
                    if books.answered.is_multiple_of(READ_ONE_IN) {
                        questions.read(place, answer)?;
                    }
                }
                Ok(())
            })?;
        }
    }

    /// Asks so many times a second, evenly spaced, and gives how many milliseconds each took; one that is lost took
    /// as long as was waited for it.
    pub(super) fn steady(
        &mut self,
        questions: &Questions,
        (per_s, lasting): (u32, Duration),
        beside: &mut Strangers,
    ) -> Result<Times> {
        self.drain();
        let between = Duration::from_secs(1) / per_s;
        let (start, mut sent, mut times) = (Instant::now(), 0_u32, Vec::new());
        let mut sent_at = vec![None; questions.len()];
        loop {
            let now = Instant::now();
            let over = now - start >= lasting;
            if over && (times.len() >= sent as usize || now - start >= lasting + PATIENCE) {
                break;
            }
            if !over {
                beside.send_due(now - start)?;
            }
            if !over && now >= start + between * sent {
                let place = sent as usize % questions.len();
                self.send(questions, &[place])?;
                if let Some(at) = sent_at.get_mut(place) {
                    *at = Some(now);
                }
                sent += 1;
            }
            self.receive(Idle::Spin, |answer| {
                let place = questions.place_of(answer);
                let at = place.and_then(|place| sent_at.get_mut(place)?.take());
                times.extend(at.map(|at| at.elapsed().as_secs_f64() * 1e3));
                Ok(())
            })?;
        }
        ensure!(!times.is_empty(), "not one lookup was answered");
        let lost = (sent as usize).saturating_sub(times.len());
        times.resize(sent as usize, PATIENCE.as_secs_f64() * 1e3);
        Ok(Times { ms: times, lost })
    }

    /// A connection for each lookup, or for as many as the server takes on it, some at a time; gives how many a second were answered.
    pub(super) fn over_tcp(
        &self,
        questions: &Questions,
        keep: Keep,
        lasting: Duration,
    ) -> Result<f64> {
        self.connect_often(keep, lasting, questions, |place, answer, is_read| {
            ensure!(
                questions.place_of(answer) == Some(place),
                "an answer over TCP that belongs to another lookup"
            );
            if is_read {
                questions.read(place, answer)?;
            }
            Ok(())
        })
    }

    /// The same with one who sends back what was asked, a connection for each.
    pub(super) fn echoed_over_tcp(&self, questions: &Questions, lasting: Duration) -> Result<f64> {
        self.connect_often(Keep::No, lasting, questions, |place, answer, _| {
            ensure!(
                questions.packet(place) == answer,
                "an echo of something else"
            );
            Ok(())
        })
    }

    fn connect_often(
        &self,
        keep: Keep,
        lasting: Duration,
        questions: &Questions,
        judge: impl Fn(usize, &[u8], bool) -> Result<()> + Sync,
    ) -> Result<f64> {
        let (next, start) = (AtomicUsize::new(0), Instant::now());
        // Servers bound what one address may have open.
        let client = |n: u8| -> Result<usize> {
            let (own, mut answered) = (SockaddrIn::new(127, 0, 1, n, 0), 0);
            let mut open = None;
            while start.elapsed() < lasting {
                let place = next.fetch_add(1, Ordering::Relaxed) % questions.len();
                let answer = over(&mut open, (own, self.server), questions.packet(place))?;
                if keep == Keep::No {
                    open = None;
                }
                judge(place, &answer, answered % READ_ONE_IN == 0)?;
                answered += 1;
            }
            Ok(answered)
        };
        let (netns, client) = (&self.netns, &client);
        let answered = thread::scope(|scope| -> Result<usize> {
            let clients: Vec<_> = (1..=CONNECTIONS)
                .map(|n| scope.spawn(move || netns.enter(|| client(n))))
                .collect();
            let ended = clients.into_iter().map(|client| match client.join() {
                Ok(answered) => answered,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            ended.sum()
        })?;
        Ok(answered as f64 / start.elapsed().as_secs_f64())
    }

    /// Sends queries in one call.
    fn send(&self, questions: &Questions, places: &[usize]) -> Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        let packets: Vec<[IoSlice<'_>; 1]> = places
            .iter()
            .map(|place| [IoSlice::new(questions.packet(*place))])
            .collect();
        let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(packets.len(), None);
        let to = vec![None; packets.len()];
        let fd = self.socket.as_raw_fd();
        let sent = sendmmsg(fd, &mut headers, &packets, &to, [], MsgFlags::empty());
        let sent = sent.context("sending queries")?.count();
        ensure!(
            sent == places.len(),
            "only {sent} of {} queries left",
            places.len()
        );
        Ok(())
    }

    /// Hands over what is there.
    fn receive(&mut self, idle: Idle, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut headers = MultiHeaders::<()>::preallocate(self.inbox.len(), None);
        let mut slices: Vec<_> = self
            .inbox
            .iter_mut()
            .map(|buffer| [IoSliceMut::new(buffer)])
            .collect();
        let fd = self.socket.as_raw_fd();
        let got = recvmmsg(fd, &mut headers, &mut slices, MsgFlags::MSG_DONTWAIT, None);
        let lengths: Vec<usize> = match got {
            Ok(got) => got.map(|message| message.bytes).collect(),
            Err(Errno::EAGAIN) => return idle.wait(&self.socket),
            Err(error) => return Err(error).context("receiving answers"),
        };
        for (buffer, len) in self.inbox.iter().zip(lengths) {
            take(buffer.get(..len).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Throws away what is late.
    fn drain(&self) {
        let mut buffer = [0; LARGEST];
        while self.socket.recv(&mut buffer).is_ok() {}
    }
}

/// How long lookups took.
pub(super) struct Times {
    pub(super) ms: Vec<f64>,
    /// How many were never answered.
    pub(super) lost: usize,
}

/// What the load does while no answer is there.
#[derive(Debug, Clone, Copy)]
enum Idle {
    /// Looks again at once: nobody has to wake it.
    Spin,
    /// Sleeps: whoever answers upstream needs its processor.
    Sleep,
}

impl Idle {
    fn wait(self, socket: &UdpSocket) -> Result<()> {
        match self {
            // Not `yield_now`: who yields all the time is not run for long where a compiler wants the processor too.
            Self::Spin => std::hint::spin_loop(),
            Self::Sleep => {
                let mut fds = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
                poll(&mut fds, SLEEP_MS).context("waiting for answers")?;
            }
        }
        Ok(())
    }
}

/// Lookups under way, the oldest first, and what became of the others.
#[derive(Default)]
struct Books {
    under_way: VecDeque<(usize, Instant)>,
    /// Whether each place waits for its answer.
    waits: Vec<bool>,
    waiting: usize,
    answered: usize,
    lost: usize,
}

impl Books {
    fn new(places: usize) -> Self {
        Self {
            waits: vec![false; places],
            ..Self::default()
        }
    }

    fn sent(&mut self, place: usize, now: Instant) {
        self.under_way.push_back((place, now));
        if let Some(waits) = self.waits.get_mut(place) {
            *waits = true;
            self.waiting += 1;
        }
    }

    /// Whether this one was waited for.
    fn came(&mut self, place: usize) -> bool {
        let waited = self.end(place);
        self.answered += usize::from(waited);
        waited
    }

    /// Gives up on those that have waited too long.
    fn give_up(&mut self, now: Instant) {
        while let Some((place, since)) = self.under_way.front().copied() {
            let is_waiting = self.waits.get(place).copied().unwrap_or(false);
            if is_waiting && now.saturating_duration_since(since) < PATIENCE {
                return;
            }
            self.under_way.pop_front();
            self.lost += usize::from(self.end(place));
        }
    }

    fn end(&mut self, place: usize) -> bool {
        let waited = self.waits.get_mut(place).is_some_and(std::mem::take);
        self.waiting -= usize::from(waited);
        waited
    }
}

/// A socket with room, to one server.
pub(super) fn bound(to: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0").context("binding UDP")?;
    setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_BYTES)
        .context("asking for a large buffer")?;
    setsockopt(&socket, sockopt::SndBufForce, &BUFFER_BYTES)
        .context("asking for a large buffer")?;
    socket.connect(to).context("connecting UDP")?;
    socket.set_nonblocking(true).context("not waiting")?;
    Ok(socket)
}

/// Whether a connection is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// A new one for each lookup.
    No,
    /// Until the server closes it.
    Yes,
}

/// One lookup over the connection that is open, or over a new one where there is none that the server still keeps.
fn over(
    open: &mut Option<TcpStream>,
    (own, server): (SockaddrIn, SocketAddr),
    packet: &[u8],
) -> Result<Vec<u8>> {
    if let Some(answer) = open
        .as_mut()
        .and_then(|stream| exchange(stream, packet).ok())
    {
        return Ok(answer);
    }
    exchange(open.insert(connected(own, server)?), packet)
}

/// A connection that is reset when it is dropped: its port is free again at once.
fn connected(own: SockaddrIn, server: SocketAddr) -> Result<TcpStream> {
    let (family, flags) = (AddressFamily::Inet, SockFlag::SOCK_CLOEXEC);
    let socket = socket(family, SockType::Stream, flags, None).context("making a TCP socket")?;
    bind(socket.as_raw_fd(), &own).context("binding TCP")?;
    let to = SockaddrStorage::from(server);
    connect(socket.as_raw_fd(), &to).context("connecting TCP")?;
    let stream = TcpStream::from(socket);
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, sockopt::Linger, &linger).context("asking for a reset")?;
    stream
        .set_read_timeout(Some(FIRST))
        .context("bounding the wait")?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream, packet: &[u8]) -> Result<Vec<u8>> {
    let length = u16::try_from(packet.len()).context("a query of more than 64 KiB")?;
    let framed = [&length.to_be_bytes(), packet].concat();
    stream.write_all(&framed).context("asking over TCP")?;
    let (mut buffer, mut filled) = ([0; LARGEST], 0);
    loop {
        let rest = buffer.get_mut(filled..).unwrap_or_default();
        let more = stream.read(rest).context("reading over TCP")?;
        ensure!(more > 0, "a connection was closed before its answer");
        filled += more;
        let frame = buffer.get(..filled).and_then(<[u8]>::split_first_chunk);
        if let Some((length, rest)) = frame
            && let Some(answer) = rest.get(..usize::from(u16::from_be_bytes(*length)))
        {
            return Ok(answer.to_vec());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_and_never_after_it_was_given_up() {
        let start = Instant::now();
        let mut books = Books::new(4);
        (0..3).for_each(|place| books.sent(place, start));

        assert!(books.came(1));
        assert!(!books.came(1));
        assert!(!books.came(3), "it was never sent");
        books.give_up(start + PATIENCE);

        assert!(!books.came(0));
        assert_eq!((books.answered, books.lost, books.waiting), (1, 2, 0));
    }

    #[test]
    fn what_is_waited_for_is_not_given_up_before_its_time() {
        let start = Instant::now();
        let mut books = Books::new(2);
        books.sent(0, start);
        books.sent(1, start + PATIENCE);

        books.give_up(start + PATIENCE);

        assert_eq!((books.lost, books.waiting), (1, 1));
    }
}
