//! Many datagrams of different peers in one system call each way: `recvmmsg(2)` and `sendmmsg(2)`.

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;
use std::sync::atomic::Ordering;

use super::message::{Control, from_storage, to_storage};
use super::{MAX_RUN_BYTES, MAX_SEGMENTS, Udp, is_transient, lacks_segments};

/// The most datagrams that go through one system call.
pub const MAX_BATCH: usize = 64;

/// Longer datagrams leave by themselves: every path takes this (RFC 8200 section 5), and the kernel cuts no run into
/// what would have to be fragmented.
const LONGEST_JOINED: usize = 1_232;

/// Where [`Udp::recv_batch`] puts datagrams; one per worker, reused for ever.
pub struct Batch {
    room: usize,
    bytes: Box<[u8]>,
    names: Box<[libc::sockaddr_storage]>,
    lens: Vec<usize>,
}

impl Batch {
    /// For datagrams of up to `room` bytes, [`MAX_BATCH`] at a time; what is longer is cut there.
    #[must_use]
    pub fn new(room: usize) -> Self {
        Self::with_places(MAX_BATCH, room)
    }

    /// The same for at most so many at a time, at least one, where memory is short.
    #[must_use]
    #[expect(
        unsafe_code,
        reason = "sockaddr_storage has private padding and no other way to be made"
    )]
    pub fn with_places(places: usize, room: usize) -> Self {
        let places = places.clamp(1, MAX_BATCH);
        // SAFETY: all zeroes is a valid sockaddr_storage (family AF_UNSPEC).
        let name: libc::sockaddr_storage = unsafe { mem::zeroed() };
        Self {
            room,
            bytes: vec![0; room * places].into_boxed_slice(),
            names: vec![name; places].into_boxed_slice(),
            lens: Vec::with_capacity(places),
        }
    }

    /// Whether no more had found a place: there may be others waiting.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.lens.len() == self.names.len()
    }

    /// What came last, in the order in which it came.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        let datagrams = self.bytes.chunks_exact(self.room.max(1));
        let known = self.lens.iter().zip(&self.names).zip(datagrams);
        known.filter_map(|((len, name), bytes)| Some((from_storage(name)?, bytes.get(..*len)?)))
    }
}

impl Udp {
    /// Receives what has arrived, up to as many datagrams as the batch has places for, and gives how many. Never waits.
    ///
    /// The socket must not have been made with [`Offload::Auto`](super::Offload): joined datagrams would be taken for one.
    ///
    /// # Errors
    /// When the socket is unusable; an ICMP error that came back is not one.
    #[expect(unsafe_code, reason = "recvmmsg over the batch's own buffers")]
    pub fn recv_batch(&self, batch: &mut Batch) -> io::Result<usize> {
        batch.lens.clear();
        let places = batch.names.len();
        let mut iovs = [NO_BYTES; MAX_BATCH];
        let mut headers = no_headers();
        let buffers = batch.bytes.chunks_exact_mut(batch.room.max(1));
        let parts = buffers.zip(&mut batch.names).zip(&mut iovs);
        for (((buffer, name), iov), header) in parts.zip(&mut headers) {
            iov.iov_base = buffer.as_mut_ptr().cast();
            iov.iov_len = buffer.len();
            header.msg_hdr.msg_name = ptr::from_mut(name).cast();
            header.msg_hdr.msg_namelen =
                mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_iov = ptr::from_mut(iov);
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: the batch has one name for each of its at most MAX_BATCH places, and as many of the headers point to an address
        // and a buffer of it and to a place in `iovs`, all writable, distinct and alive; without a timeout the last pointer may be null.
        let got = unsafe {
            libc::recvmmsg(
                self.as_fd().as_raw_fd(),
                headers.as_mut_ptr(),
                places as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let Ok(got) = usize::try_from(got) else {
            let error = io::Error::last_os_error();
            return if is_transient(&error) {
                Ok(0)
            } else {
                Err(error)
            };
        };
        let lens = headers.iter().take(got);
        batch
            .lens
            .extend(lens.map(|header| header.msg_len as usize));
        Ok(got)
    }

    /// Sends datagrams, each to its own peer, and gives how many the kernel took. It never waits: once the socket's
    /// buffer is full the rest is left out. Neighbours of one length and one peer pass through the kernel as one, unless the socket
    /// was made with [`Offload::Never`](super::Offload).
    #[must_use]
    pub fn send_batch(&self, datagrams: &[(SocketAddr, Vec<u8>)]) -> usize {
        self.send_all(datagrams, |(to, bytes)| (Some(*to), bytes))
    }

    /// The same from a connected socket ([`Udp::connected`]), whose peer they all go to.
    #[must_use]
    pub fn send_batch_to_peer(&self, datagrams: &[Vec<u8>]) -> usize {
        self.send_all(datagrams, |bytes| (None, bytes))
    }

    /// Sends by calls of up to [`MAX_BATCH`] until the socket's buffer is full.
    fn send_all<D>(&self, datagrams: &[D], parts: Parts<D>) -> usize {
        let (mut rest, mut sent) = (datagrams, 0);
        let mut joins = self.segments.load(Ordering::Relaxed);
        let mut is_refused = false;
        while !rest.is_empty() {
            let taken = match self.send_some(rest, parts, joins) {
                Ok(taken) => {
                    if std::mem::take(&mut is_refused) {
                        self.go_without_segments();
                    }
                    sent += taken;
                    taken
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if joins => {
                    (joins, is_refused) = (false, lacks_segments(&error));
                    continue;
                }
                // The first of them cannot be sent: no route, too long. The others may.
                Err(_) => {
                    is_refused = false;
                    1
                }
            };
            rest = rest.get(taken.max(1)..).unwrap_or_default();
        }
        sent
    }

    #[expect(unsafe_code, reason = "sendmmsg over the caller's datagrams")]
    fn send_some<D>(&self, datagrams: &[D], parts: Parts<D>, joins: bool) -> io::Result<usize> {
        let mut iovs = [NO_BYTES; MAX_BATCH];
        let mut headers = no_headers();
        let mut controls = [const { Control::EMPTY }; MAX_BATCH];
        // SAFETY: all zeroes is a valid sockaddr_storage (family AF_UNSPEC).
        let mut names: [libc::sockaddr_storage; MAX_BATCH] = unsafe { mem::zeroed() };
        let mut lens = [0; MAX_BATCH];
        let mut rest = datagrams
            .get(..datagrams.len().min(MAX_BATCH))
            .unwrap_or_default();
        let (mut iovs_left, mut count) = (&mut iovs[..], 0);
        let places = names.iter_mut().zip(&mut controls).zip(&mut lens);
        for (((name, control), len), header) in places.zip(&mut headers) {
            let Some((to, segment)) = rest.first().map(parts) else {
                break;
            };
            *len = if joins { run_length(rest, parts) } else { 1 };
            let (run, after) = rest.split_at(*len);
            let (own, others) = iovs_left.split_at_mut(*len);
            (rest, iovs_left) = (after, others);
            for (iov, datagram) in own.iter_mut().zip(run) {
                let (_, bytes) = parts(datagram);
                iov.iov_base = bytes.as_ptr().cast_mut().cast();
                iov.iov_len = bytes.len();
            }
            if let Some(to) = to {
                let (address, len) = to_storage(to);
                *name = address;
                header.msg_hdr.msg_name = ptr::from_mut(name).cast();
                header.msg_hdr.msg_namelen = len;
            }
            if *len > 1 {
                let used = control.put_segment(segment.len() as u16);
                header.msg_hdr.msg_control = control.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = used as _;
            }
            header.msg_hdr.msg_iov = own.as_mut_ptr();
            header.msg_hdr.msg_iovlen = *len as _;
            count += 1;
        }
        // SAFETY: each of the first `count` headers points to an address of `names` or to none, to a control message of
        // `controls` or to none, to places in `iovs` of its own and by those to datagrams, all alive; the kernel only reads
        // through them and writes the headers' lengths.
        let sent = unsafe {
            libc::sendmmsg(
                self.as_fd().as_raw_fd(),
                headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT as _,
            )
        };
        let sent = usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
        Ok(lens.iter().take(sent).sum())
    }
}

/// Where a datagram goes, unless the socket knows, and its bytes.
type Parts<D> = for<'a> fn(&'a D) -> (Option<SocketAddr>, &'a [u8]);

/// How many of these datagrams, at least one, can be one message that the kernel cuts: all go where the first goes and are as
/// long, but for the last, which may be shorter.
fn run_length<D>(datagrams: &[D], parts: Parts<D>) -> usize {
    let Some((to, first)) = datagrams.first().map(parts) else {
        return 0;
    };
    if first.is_empty() || first.len() > LONGEST_JOINED {
        return 1;
    }
    let most = (MAX_RUN_BYTES / first.len()).clamp(1, MAX_SEGMENTS);
    let mut count = 0;
    for datagram in datagrams.iter().take(most) {
        let (next, bytes) = parts(datagram);
        if next != to || bytes.is_empty() || bytes.len() > first.len() {
            break;
        }
        count += 1;
        if bytes.len() < first.len() {
            break;
        }
    }
    count
}

const NO_BYTES: libc::iovec = libc::iovec {
    iov_base: ptr::null_mut(),
    iov_len: 0,
};

#[expect(unsafe_code, reason = "msghdr has private padding on musl")]
fn no_headers() -> [libc::mmsghdr; MAX_BATCH] {
    // SAFETY: all zeroes is a valid mmsghdr: null pointers with zero lengths.
    unsafe { mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::super::{Offload, UdpOptions};
    use super::*;

    fn bound() -> (Udp, SocketAddr) {
        let options = UdpOptions {
            offload: Offload::Never,
            ..UdpOptions::default()
        };
        let udp = Udp::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let address = udp.local_addr().unwrap();
        (udp, address)
    }

    fn peer() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    #[test]
    fn an_empty_socket_gives_nothing_and_does_not_wait() {
        let (udp, _) = bound();
        let mut batch = Batch::new(16);

        assert_eq!(udp.recv_batch(&mut batch).unwrap(), 0);
        assert_eq!(batch.iter().count(), 0);
    }

    #[test]
    fn datagrams_of_several_peers_come_with_their_senders_and_what_is_too_long_is_cut() {
        let (udp, address) = bound();
        let ((one, one_is), (two, two_is)) = (peer(), peer());
        one.send_to(b"first", address).unwrap();
        two.send_to(b"", address).unwrap();
        one.send_to(&[7; 40], address).unwrap();
        let mut batch = Batch::new(16);

        let got = udp.recv_batch(&mut batch).unwrap();

        let seen: Vec<_> = batch.iter().collect();
        assert_eq!(got, 3);
        assert_eq!(
            seen,
            [(one_is, &b"first"[..]), (two_is, b""), (one_is, &[7; 16])]
        );
    }

    #[test]
    fn more_than_a_batch_comes_in_several_and_leaves_in_one_call() {
        let (udp, address) = bound();
        let (peer, peer_is) = peer();
        let count = MAX_BATCH + 3;
        for n in 0..count {
            peer.send_to(&[n as u8], address).unwrap();
        }
        let mut batch = Batch::new(4);

        let first = udp.recv_batch(&mut batch).unwrap();
        let second = udp.recv_batch(&mut batch).unwrap();
        let back: Vec<_> = (0..count).map(|n| (peer_is, vec![n as u8; 2])).collect();
        let sent = udp.send_batch(&back);

        assert_eq!((first, second, sent), (MAX_BATCH, 3, count));
        let mut buffer = [0; 8];
        for n in 0..count {
            assert_eq!(peer.recv(&mut buffer).unwrap(), 2);
            assert_eq!(buffer[0], n as u8);
        }
    }

    #[test]
    fn a_batch_with_few_places_takes_no_more_and_says_whether_others_may_wait() {
        let (udp, address) = bound();
        let (peer, _) = peer();
        for n in 0..5 {
            peer.send_to(&[n], address).unwrap();
        }
        let mut batch = Batch::with_places(4, 4);

        let first = (udp.recv_batch(&mut batch).unwrap(), batch.is_full());
        let second = (udp.recv_batch(&mut batch).unwrap(), batch.is_full());

        assert_eq!((first, second), ((4, true), (1, false)));
        let left: Vec<_> = batch.iter().map(|(_, bytes)| bytes.to_vec()).collect();
        assert_eq!(left, [[4]]);
    }

    #[test]
    fn neighbours_of_one_length_and_peer_arrive_as_they_were_and_each_where_it_goes() {
        let options = UdpOptions {
            offload: Offload::Sending,
            ..UdpOptions::default()
        };
        let udp = Udp::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let peers = [peer(), peer()];
        let nowhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let lens = [
            64, 64, 64, 40, 64, 0, 0, 64, 1_300, 1_300, 128, 128, 200, 64,
        ];
        let mut datagrams = Vec::new();
        for (n, len) in lens.into_iter().cycle().take(150).enumerate() {
            let (_, to) = &peers[n / 9 % 2];
            datagrams.push((*to, vec![n as u8; len]));
        }
        datagrams[20].0 = nowhere;
        datagrams[100].0 = nowhere;

        let sent = udp.send_batch(&datagrams);

        assert_eq!(sent, 148);
        let mut buffer = [0; 2_000];
        for (socket, address) in &peers {
            for (_, datagram) in datagrams.iter().filter(|(to, _)| to == address) {
                let len = socket.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..len], datagram);
            }
        }
        let joins = udp.segments.load(Ordering::Relaxed);
        assert!(joins, "nobody else's bad address ends the joining");
    }

    #[test]
    fn runs_end_where_length_or_peer_changes_and_where_the_kernel_has_its_limits() {
        let to = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let run = |datagrams: &[(u16, usize)]| {
            let datagrams: Vec<_> = datagrams
                .iter()
                .map(|(port, len)| (to(*port), vec![0; *len]))
                .collect();
            run_length(&datagrams, |(to, bytes)| (Some(*to), bytes))
        };

        assert_eq!(run(&[]), 0);
        assert_eq!(run(&[(1, 64)]), 1);
        assert_eq!(run(&[(1, 64), (1, 64), (2, 64)]), 2);
        assert_eq!(run(&[(1, 64), (1, 65)]), 1);
        assert_eq!(run(&[(1, 64), (1, 63), (1, 63)]), 2);
        assert_eq!(run(&[(1, 64), (1, 0)]), 1);
        assert_eq!(run(&[(1, 0), (1, 0)]), 1);
        assert_eq!(run(&[(1, 1_233), (1, 1_233)]), 1);
        assert_eq!(run(&[(1, 64); 80]), 64);
        assert_eq!(run(&[(1, 1_232); 80]), 52);
    }

    #[test]
    fn a_connected_socket_hears_of_nobody_but_its_peer() {
        let ((peer, peer_is), (other, _)) = (peer(), peer());
        let options = UdpOptions {
            offload: Offload::Never,
            ..UdpOptions::default()
        };
        let udp = Udp::connected(peer_is, &options).unwrap();
        let mut batch = Batch::new(16);

        let sent = udp.send_batch_to_peer(&[b"a".to_vec(), b"b".to_vec()]);
        let (_, own) = peer.recv_from(&mut [0; 8]).unwrap();
        let own_port = udp.local_addr().unwrap().port();
        assert_eq!((sent, own.port()), (2, own_port));
        other.send_to(b"forged", own).unwrap();
        peer.send_to(b"real", own).unwrap();

        assert_eq!(udp.recv_batch(&mut batch).unwrap(), 1);
        let came: Vec<_> = batch.iter().collect();
        assert_eq!(came, [(peer_is, &b"real"[..])]);
    }

    #[test]
    fn a_datagram_that_cannot_be_sent_does_not_hold_back_the_others() {
        let (udp, _) = bound();
        let (peer, peer_is) = peer();
        let nowhere = "[::1]:9".parse().unwrap();

        let sent = udp.send_batch(&[
            (peer_is, b"a".to_vec()),
            (nowhere, b"b".to_vec()),
            (peer_is, b"c".to_vec()),
        ]);

        assert_eq!(sent, 2);
        let mut buffer = [0; 8];
        peer.recv(&mut buffer).unwrap();
        peer.recv(&mut buffer).unwrap();
        assert_eq!(buffer[0], b'c');
    }
}
