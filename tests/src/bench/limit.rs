//! What cipher and system calls cost on this machine, measured alone, and what a tunnel that did nothing else could
//! carry.
//!
//! A full inner packet of 1,420 bytes is read from a TUN device as a part of a super-packet, sealed, sent in a run with
//! `UDP_SEGMENT`, received in a run with `UDP_GRO`, opened, and written to a TUN device as a part of a super-packet. The
//! two ends are two processes on this machine's cores. The limit is what all of that work, and nothing else, lets
//! through when it is spread over two cores without a gap: `2 / (sum of the costs)`. The TCP ends of the
//! stream want a part of the same two cores, so no program can reach it here.

use std::hint::black_box;
use std::io::{IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use netio::tun::{FRAME_BYTES, Tun, Written};
use nix::sys::socket::{
    ControlMessage, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};
use tunnel::{Dropped, SessionKey};

use super::packet::checksum;
use super::report::{Better, Row, median};
use crate::iperf::{IperfServer, Way, streams};
use crate::topology::{GATEWAY, Lab};

/// The tunnel's MTU: what a full inner packet has.
const PACKET: usize = 1420;
/// IPv4 and TCP without options.
const HEADERS: usize = 40;
/// With WireGuard's header and tag.
const DATAGRAM: usize = PACKET + 32;
/// Datagrams of a run, as many as fit into the 64 KiB that the kernel takes.
const RUN: usize = 44;
const LASTING: Duration = Duration::from_millis(300);
const BITS: f64 = 8.0 * PACKET as f64;
const CORES: f64 = 2.0;

/// Nanoseconds for each packet.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    costs: Vec<(&'static str, f64)>,
    /// What the TCP ends of a stream take beside it, when nothing lies between them.
    ends: f64,
}

/// Measures each cost alone.
pub(super) fn measure(lab: &Lab, say: &dyn Fn(&str)) -> Result<Limit> {
    say("measuring what cipher and system calls cost by themselves");
    let (seal, open) = cipher()?;
    let (send, receive) = udp(lab)?;
    let (write, read) = tun(lab)?;
    let costs = vec![
        ("TUN read (super-packets)", read),
        ("seal", seal),
        ("send (UDP_SEGMENT)", send),
        ("receive (UDP_GRO)", receive),
        ("open", open),
        ("TUN write (super-packets)", write),
    ];
    let ends = tcp_ends(lab)?;
    Ok(Limit { costs, ends })
}

impl Limit {
    fn sum(&self) -> f64 {
        self.costs.iter().map(|(_, cost)| cost).sum()
    }

    /// The throughput of inner packets on two cores, in Gb/s.
    fn gbps(&self) -> f64 {
        CORES * BITS / self.sum()
    }

    /// The same where the stream's own ends have their part of the cores.
    fn gbps_beside_ends(&self) -> f64 {
        CORES * BITS / (self.sum() + self.ends)
    }

    /// The costs, their sum, and how near the streams come.
    pub(super) fn rows(&self, one_streams: &[f64], goal: f64) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        for (what, cost) in &self.costs {
            rows.push(Row::figure(
                &format!("cost of {what}"),
                "ns/packet",
                &[*cost],
            )?);
        }
        rows.push(Row::figure("sum of the costs", "ns/packet", &[self.sum()])?);
        rows.push(Row::figure("limit on two cores", "Gb/s", &[self.gbps()])?);
        let part = |limit: f64| {
            one_streams
                .iter()
                .map(|gbps| gbps / limit)
                .collect::<Vec<_>>()
        };
        let vs_limit = Row::figure("one stream vs limit", "of 1", &part(self.gbps()))?;
        rows.push(vs_limit.bounded(Better::More, goal));
        let beside = self.gbps_beside_ends();
        for (what, unit, values) in [
            (
                "cost of the stream's own TCP ends",
                "ns/packet",
                vec![self.ends],
            ),
            ("limit beside the TCP ends", "Gb/s", vec![beside]),
            (
                "one stream vs limit beside the TCP ends",
                "of 1",
                part(beside),
            ),
        ] {
            rows.push(Row::figure(what, unit, &values)?);
        }
        Ok(rows)
    }
}

/// The cipher of our sessions, on a packet in the processor's cache.
fn cipher() -> Result<(f64, f64)> {
    let refused = |reason: Dropped| anyhow!("the cipher refuses: {}", reason.as_label());
    let key = SessionKey::new(&[7; 32]).map_err(refused)?;
    let mut packet = vec![5; PACKET];
    let mut counter = 0;
    let seal = nanoseconds(LASTING, || {
        counter += 1;
        black_box(key.seal(counter, &mut packet).map_err(refused)?);
        Ok(())
    })?;
    let mut sealed = packet;
    let tag = key.seal(0, &mut sealed).map_err(refused)?;
    sealed.extend(tag);
    let mut room = sealed.clone();
    let open = nanoseconds(LASTING, || {
        // The copy stands for the packet's way from the receive buffer.
        room.copy_from_slice(&sealed);
        black_box(key.open(0, &mut room).map_err(refused)?.len());
        Ok(())
    })?;
    Ok((seal, open))
}

/// Sends runs over the lab's wire and receives them, each timed by itself on one thread.
fn udp(lab: &Lab) -> Result<(f64, f64)> {
    let receiver = lab.pop.enter(|| socket(&format!("{GATEWAY}:0")))?;
    let sender = lab.router.enter(|| socket("0.0.0.0:0"))?;
    setsockopt(&receiver, sockopt::UdpGroSegment, &true).context("asking for UDP_GRO")?;
    let to = SockaddrStorage::from(receiver.local_addr().context("the receiver's address")?);
    let segment = u16::try_from(DATAGRAM).context("a datagram of more than 64 KiB")?;
    let run = vec![5; DATAGRAM * RUN];
    let mut buffer = vec![0; 1 << 16];
    let (mut sending, mut receiving) = (Vec::new(), Vec::new());
    let began = Instant::now();
    while began.elapsed() < 2 * LASTING {
        let start = Instant::now();
        let iov = [IoSlice::new(&run)];
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        sendmsg(
            sender.as_raw_fd(),
            &iov,
            &control,
            MsgFlags::empty(),
            Some(&to),
        )
        .context("sending a run")?;
        sending.push(each(start, RUN));
        let (mut came, mut waited) = (0, Duration::ZERO);
        while came < RUN {
            let start = Instant::now();
            let mut space = nix::cmsg_space!(i32);
            let mut iov = [IoSliceMut::new(&mut buffer)];
            let flags = MsgFlags::empty();
            let got = recvmsg::<()>(receiver.as_raw_fd(), &mut iov, Some(&mut space), flags)
                .context("receiving a run")?;
            waited += start.elapsed();
            came += got.bytes.div_ceil(DATAGRAM);
        }
        receiving.push(waited.as_nanos() as f64 / came as f64);
    }
    middle(sending, receiving)
}

/// Writes super-packets to one TUN device, from which the kernel forwards them to another, and reads them there; the
/// forwarding is in the cost of the write, as it is at a gateway.
fn tun(lab: &Lab) -> Result<(f64, f64)> {
    let open = |name: &str| {
        Tun::open(name, 1_420, 1)?
            .pop()
            .context("a device without a queue")
    };
    let (into, out) = lab.home.enter(|| Ok((open("limit0")?, open("limit1")?)))?;
    for argv in [
        "sysctl -qw net.ipv4.ip_forward=1",
        "ip addr add 10.98.0.1/24 dev limit0",
        "ip addr add 10.98.1.1/24 dev limit1",
        "ip link set limit0 up",
        "ip link set limit1 up",
    ] {
        lab.home.run(&argv.split(' ').collect::<Vec<_>>())?;
    }
    let frame = super_packet();
    let mut buffer = vec![0; FRAME_BYTES];
    let (mut writing, mut reading) = (Vec::new(), Vec::new());
    let began = Instant::now();
    while began.elapsed() < LASTING {
        let start = Instant::now();
        let written = into.send(&frame).context("writing a super-packet")?;
        writing.push(each(start, RUN));
        ensure!(written == Written::Yes, "a super-packet was {written:?}");
        let (start, mut came) = (Instant::now(), 0);
        while let Some(len) = out.recv(&mut buffer).context("reading a super-packet")? {
            // Router solicitations of the kernel's own come here too.
            came += len / (PACKET - HEADERS);
        }
        if came > 0 {
            reading.push(each(start, came));
        }
    }
    ensure!(
        reading.len() * 2 > writing.len(),
        "of {} super-packets {} were forwarded from one TUN device to the other",
        writing.len(),
        reading.len()
    );
    middle(writing, reading)
}

/// A stream with nothing between its ends but the wire.
fn tcp_ends(lab: &Lab) -> Result<f64> {
    let _server = IperfServer::start(&lab.pop, GATEWAY)?;
    let arrived = streams(&lab.router, GATEWAY, Way::Up, 2, 1)?;
    let packets = arrived.bytes / (PACKET - HEADERS) as f64;
    Ok(arrived.cpu_s * 1e9 / packets)
}

/// A `virtio_net_hdr` that says TCP over IPv4, and what it announces: one header and the payload of a whole run.
fn super_packet() -> Vec<u8> {
    let payload = (PACKET - HEADERS) * RUN;
    let half = |value: usize| (value as u16).to_ne_bytes();
    let mut frame = vec![1, 1];
    for value in [HEADERS, PACKET - HEADERS, 20, 16] {
        frame.extend(half(value));
    }
    let length = ((HEADERS + payload) as u16).to_be_bytes();
    let ip = [
        0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 98, 0, 2, 10, 98, 1, 2,
    ];
    frame.extend(ip);
    let sum = checksum(&ip).to_be_bytes();
    frame.splice(20..22, sum);
    // Ports, numbers, a header of five words with ACK, a window; the checksum is the kernel's to complete.
    frame.extend([
        0x20, 0, 0x30, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0,
    ]);
    frame.resize(frame.len() + payload, 5);
    frame
}

fn socket(address: &str) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address).with_context(|| format!("binding UDP {address}"))?;
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .context("bounding a wait")?;
    Ok(socket)
}

/// Nanoseconds for what `work` does, the middle one of many: whoever else wants the core for a moment does not count.
fn nanoseconds(lasting: Duration, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    const BATCH: usize = 64;
    let (began, mut batches) = (Instant::now(), Vec::new());
    while began.elapsed() < lasting {
        let start = Instant::now();
        for _ in 0..BATCH {
            work()?;
        }
        batches.push(each(start, BATCH));
    }
    median(batches).context("nothing was measured")
}

/// Nanoseconds since `start` for each of so many.
fn each(start: Instant, count: usize) -> f64 {
    start.elapsed().as_nanos() as f64 / count as f64
}

fn middle(one: Vec<f64>, other: Vec<f64>) -> Result<(f64, f64)> {
    let both = median(one).zip(median(other));
    both.context("nothing was measured")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_two_cores_over_the_sum() {
        let limit = Limit {
            costs: vec![("seal", 1_136.0), ("open", 1_136.0)],
            ends: 2_272.0,
        };

        let rows = limit.rows(&[8.0], 0.8).unwrap();

        // 11,360 bits each 1,136 ns of one core's time, that is 10 Gb/s on two.
        assert!((limit.gbps() - 10.0).abs() < 1e-9);
        assert!((limit.gbps_beside_ends() - 5.0).abs() < 1e-9);
        let row = rows.iter().find(|row| row.what == "one stream vs limit");
        let row = row.unwrap();
        assert_eq!((row.ours.median, row.met), (0.8, Some(true)));
    }
}
