//! Opened packets of one flow joined to super-packets, so that the TUN device takes many in one call.
//!
//! Only what the kernel will cut into the very same packets is joined: consecutive TCP segments or equally long UDP
//! datagrams with the same headers and a right checksum. A flow's packets stay in order; what cannot be joined goes by itself,
//! after what came before it. A super-packet is at most 65,535 bytes, and the number of open ones is bounded.

use std::collections::VecDeque;
use std::ops::Range;

use crate::offload::checksum;
use crate::offload::vnet::{Kind, Vnet};
use crate::offload::{Accepts, PLAIN, VNET_BYTES};

/// Flows that are joined at one time; the oldest makes room.
const MAX_OPEN: usize = 16;
/// Datagrams in one super-packet of UDP: what every kernel with the offload takes.
const MAX_DATAGRAMS: usize = 64;
/// The longest IP packet.
const MAX_PACKET: usize = 65_535;
/// Buffers kept for the next super-packets; each grows to at most 64 KB.
const MAX_SPARE: usize = 2 * MAX_OPEN;
/// Bytes of single packets that wait to be written; the shell writes after every run of at most 64 KB.
const MAX_SINGLES: usize = 512 * 1024;

const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_ACK: u8 = 0x10;
const TCP_PSH: u8 = 0x08;

/// The packets that wait for the TUN device.
#[derive(Debug, Default)]
pub(crate) struct Coalescer {
    accepts: Accepts,
    open: Vec<Open>,
    done: VecDeque<Done>,
    singles: Vec<u8>,
    spare: Vec<Vec<u8>>,
    lent: Option<Vec<u8>>,
    /// Header bytes that joining spared the device.
    spared: u64,
    /// Bytes of packets that were taken and for which there was no room in the end.
    overflowed: u64,
}

/// A frame to be written.
#[derive(Debug)]
enum Done {
    Super(Vec<u8>),
    Single(Range<usize>),
}

/// A super-packet in the making: `frame` is a header's room, then the first packet, then the payloads of the others.
#[derive(Debug)]
struct Open {
    flow: Flow,
    frame: Vec<u8>,
    payload_at: usize,
    /// The payload of each packet but the last, which may have less.
    segment: usize,
    count: usize,
    next_sequence: u32,
    next_id: u16,
}

/// Protocol, addresses and ports.
type Flow = [u8; 37];

/// What of a packet decides whether and what it joins.
#[derive(Clone, Copy, Debug)]
struct Shape {
    flow: Flow,
    protocol: u8,
    start: usize,
    /// Where the payload begins, if the packet can be joined at all.
    payload_at: Option<usize>,
}

impl Coalescer {
    /// Tells what the device takes.
    pub(crate) fn set_accepts(&mut self, accepts: Accepts) {
        self.accepts = accepts;
    }

    /// Header bytes that were not written because packets were joined: the device's own counter shows so many less.
    pub(crate) fn spared(&self) -> u64 {
        self.spared
    }

    pub(crate) fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Takes a whole IP packet; whether there was room for it.
    pub(crate) fn push(&mut self, packet: &[u8]) -> bool {
        let Some(shape) = Shape::read(packet) else {
            // Fragments and what has no ports may belong to any flow.
            self.flush();
            return self.push_single(packet);
        };
        let joinable = shape
            .payload_at
            .filter(|at| self.accepts_kind(shape.protocol) && is_joinable(packet, &shape, *at));
        let place = self.open.iter().position(|open| open.flow == shape.flow);
        if let (Some(place), Some(payload_at)) = (place, joinable)
            && let Some(open) = self.open.get_mut(place)
            && open.takes(packet, &shape, payload_at)
        {
            if open.append(packet, &shape, payload_at) {
                self.finish(place);
            }
            return true;
        }
        if let Some(place) = place {
            self.finish(place);
        }
        match joinable {
            Some(payload_at) => self.begin(packet, &shape, payload_at),
            None => self.push_single(packet),
        }
    }

    fn accepts_kind(&self, protocol: u8) -> bool {
        match protocol {
            TCP => self.accepts.tcp,
            _ => self.accepts.udp,
        }
    }

    fn push_single(&mut self, packet: &[u8]) -> bool {
        if self.done.is_empty() {
            self.singles.clear();
        }
        let start = self.singles.len();
        if start + VNET_BYTES + packet.len() > MAX_SINGLES {
            return false;
        }
        self.singles.extend_from_slice(&PLAIN);
        self.singles.extend_from_slice(packet);
        self.done.push_back(Done::Single(start..self.singles.len()));
        true
    }

    fn begin(&mut self, packet: &[u8], shape: &Shape, payload_at: usize) -> bool {
        if self.open.len() >= MAX_OPEN {
            self.finish(0);
        }
        let mut frame = self.spare.pop().unwrap_or_default();
        frame.clear();
        frame.extend_from_slice(&PLAIN);
        frame.extend_from_slice(packet);
        let open = Open {
            flow: shape.flow,
            frame,
            payload_at,
            segment: packet.len() - payload_at,
            count: 1,
            next_sequence: sequence(packet, shape).wrapping_add((packet.len() - payload_at) as u32),
            next_id: identification(packet).wrapping_add(1),
        };
        let is_complete = is_pushed(packet, shape);
        self.open.push(open);
        if is_complete {
            self.finish(self.open.len() - 1);
        }
        true
    }

    fn finish(&mut self, place: usize) {
        if place >= self.open.len() {
            return;
        }
        let mut open = self.open.remove(place);
        let packet = open.frame.get(VNET_BYTES..).unwrap_or_default();
        let (bytes, spared) = (packet.len(), (open.count - 1) * open.payload_at);
        if open.count == 1 {
            // Only a shell that never writes can run out of room here.
            if !self.push_single(packet) {
                self.overflowed += bytes as u64;
            }
            self.keep(open.frame);
        } else if open.complete().is_some() {
            self.spared += spared as u64;
            self.done.push_back(Done::Super(open.frame));
        } else {
            self.overflowed += (bytes + spared) as u64;
        }
    }

    /// Completes what is still open.
    pub(crate) fn flush(&mut self) {
        while !self.open.is_empty() {
            self.finish(0);
        }
    }

    /// The next complete frame.
    pub(crate) fn poll(&mut self) -> Option<&[u8]> {
        if let Some(frame) = self.lent.take() {
            self.keep(frame);
        }
        match self.done.pop_front()? {
            Done::Super(frame) => Some(self.lent.insert(frame)),
            Done::Single(range) => self.singles.get(range),
        }
    }

    fn keep(&mut self, frame: Vec<u8>) {
        if self.spare.len() < MAX_SPARE {
            self.spare.push(frame);
        }
    }
}

impl Open {
    /// Whether `packet`, which is of this flow and can be joined, is the one that the kernel would cut off next.
    fn takes(&self, packet: &[u8], shape: &Shape, payload_at: usize) -> bool {
        let first = self.frame.get(VNET_BYTES..).unwrap_or_default();
        let payload = packet.len() - payload_at;
        let headers = payload_at == self.payload_at
            && has_same_network_header(first, packet, self.next_id)
            && first.get(shape.start..payload_at).is_some_and(|ours| {
                packet.get(shape.start..payload_at).is_some_and(|theirs| {
                    shape.protocol == UDP || has_same_tcp_header(ours, theirs)
                })
            });
        let room = first.len() + payload <= MAX_PACKET
            && payload <= self.segment
            && (shape.protocol == TCP || self.count < MAX_DATAGRAMS);
        let is_next = shape.protocol == UDP || sequence(packet, shape) == self.next_sequence;
        headers && room && is_next
    }

    /// Adds the packet's payload; whether that completes the super-packet.
    fn append(&mut self, packet: &[u8], shape: &Shape, payload_at: usize) -> bool {
        let payload = packet.get(payload_at..).unwrap_or_default();
        self.frame.extend_from_slice(payload);
        self.count += 1;
        self.next_sequence = self.next_sequence.wrapping_add(payload.len() as u32);
        self.next_id = self.next_id.wrapping_add(1);
        let is_pushed = is_pushed(packet, shape);
        if is_pushed && let Some(flags) = self.frame.get_mut(VNET_BYTES + shape.start + 13) {
            *flags |= TCP_PSH;
        }
        is_pushed || payload.len() < self.segment
    }

    /// Makes lengths, checksums and the frame's header those of a super-packet.
    fn complete(&mut self) -> Option<()> {
        let (vnet, packet) = self.frame.split_at_mut_checked(VNET_BYTES)?;
        let len = packet.len();
        let is_v4 = packet.first()? >> 4 == 4;
        let (start, protocol, addresses) = if is_v4 {
            packet
                .get_mut(2..4)?
                .copy_from_slice(&u16::try_from(len).ok()?.to_be_bytes());
            packet.get_mut(10..12)?.fill(0);
            let sum = checksum::of_header(packet.get(..20)?);
            packet.get_mut(10..12)?.copy_from_slice(&sum);
            (20, *packet.get(9)?, 12..20)
        } else {
            let payload = u16::try_from(len.checked_sub(40)?).ok()?;
            packet
                .get_mut(4..6)?
                .copy_from_slice(&payload.to_be_bytes());
            (40, *packet.get(6)?, 8..40)
        };
        let kind = match (protocol, is_v4) {
            (UDP, _) => Kind::Udp,
            (_, true) => Kind::Tcp4,
            (_, false) => Kind::Tcp6,
        };
        let transport_len = u16::try_from(len - start).ok()?;
        let sum = checksum::add_u16(checksum::add(0, packet.get(addresses)?), protocol.into());
        let sum = checksum::fold(checksum::add_u16(sum, transport_len)).to_ne_bytes();
        let transport = packet.get_mut(start..)?;
        if kind == Kind::Udp {
            transport
                .get_mut(4..6)?
                .copy_from_slice(&transport_len.to_be_bytes());
            transport.get_mut(6..8)?.copy_from_slice(&sum);
        } else {
            transport.get_mut(16..18)?.copy_from_slice(&sum);
        }
        let [segment, header_len, start] =
            [self.segment, self.payload_at, start].map(|n| u16::try_from(n).unwrap_or(0));
        vnet.copy_from_slice(&Vnet::super_packet(kind, segment, header_len, start));
        Some(())
    }
}

impl Shape {
    /// The shape of a TCP or UDP packet with its ports, without IPv4 options, extension headers or fragmentation.
    fn read(packet: &[u8]) -> Option<Self> {
        let (start, protocol, addresses) = match packet.first()? {
            0x45 => {
                // More fragments, or not the first.
                if packet.get(6)? & 0x3f != 0 || *packet.get(7)? != 0 {
                    return None;
                }
                (20, *packet.get(9)?, 12..20)
            }
            first if first >> 4 == 6 => (40, *packet.get(6)?, 8..40),
            _ => return None,
        };
        if protocol != TCP && protocol != UDP {
            return None;
        }
        let mut flow = [0; 37];
        flow[0] = protocol;
        let ports = start..start + 4;
        let len = addresses.len();
        flow.get_mut(1..1 + len)?
            .copy_from_slice(packet.get(addresses)?);
        flow.get_mut(33..37)?.copy_from_slice(packet.get(ports)?);
        Some(Self {
            flow,
            protocol,
            start,
            payload_at: payload_at(packet, protocol, start),
        })
    }
}

/// Where the payload of a packet that has one, and nothing unusual, begins.
fn payload_at(packet: &[u8], protocol: u8, start: usize) -> Option<usize> {
    let at = if protocol == UDP {
        let len = usize::from(u16::from_be_bytes([
            *packet.get(start + 4)?,
            *packet.get(start + 5)?,
        ]));
        let has_checksum = packet.get(start + 6..start + 8)? != [0, 0];
        (has_checksum && start + len == packet.len()).then_some(start + 8)?
    } else {
        let header_len = usize::from(packet.get(start + 12)? >> 4) * 4;
        let is_plain = packet.get(start + 13)? & !TCP_PSH == TCP_ACK;
        (is_plain && header_len >= 20).then_some(start + header_len)?
    };
    (at < packet.len()).then_some(at)
}

/// Whether the checksums are right: a super-packet is checked no more by who takes it.
fn is_joinable(packet: &[u8], shape: &Shape, payload_at: usize) -> bool {
    let (addresses, is_header_right) = if shape.start == 20 {
        let header = packet.get(..20).unwrap_or_default();
        (12..20, checksum::fold(checksum::add(0, header)) == 0xffff)
    } else {
        (8..40, true)
    };
    let sum = checksum::add(0, packet.get(addresses).unwrap_or_default());
    let sum = checksum::add_u16(sum, shape.protocol.into());
    let sum = checksum::add_u16(sum, (packet.len() - shape.start) as u16);
    let sum = checksum::add(sum, packet.get(shape.start..).unwrap_or_default());
    is_header_right && payload_at <= packet.len() && checksum::fold(sum) == 0xffff
}

fn sequence(packet: &[u8], shape: &Shape) -> u32 {
    let bytes = packet.get(shape.start + 4..shape.start + 8);
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}

fn identification(packet: &[u8]) -> u16 {
    let bytes = packet.get(4..6).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u16::from_be_bytes)
}

fn is_pushed(packet: &[u8], shape: &Shape) -> bool {
    shape.protocol == TCP
        && packet
            .get(shape.start + 13)
            .is_some_and(|flags| flags & TCP_PSH != 0)
}

/// All but length, checksum and identification; that must count on where the packet may be fragmented.
fn has_same_network_header(first: &[u8], packet: &[u8], next_id: u16) -> bool {
    const DONT_FRAGMENT: u8 = 0x40;
    if packet.first().is_some_and(|byte| byte >> 4 == 6) {
        return first.get(..4) == packet.get(..4) && first.get(6..8) == packet.get(6..8);
    }
    let is_atomic = packet
        .get(6)
        .is_some_and(|flags| flags & DONT_FRAGMENT != 0);
    first.get(..2) == packet.get(..2)
        && first.get(6..10) == packet.get(6..10)
        && (is_atomic || identification(packet) == next_id)
}

/// All but sequence number, checksum and the push flag, options included.
fn has_same_tcp_header(ours: &[u8], theirs: &[u8]) -> bool {
    ours.get(8..13) == theirs.get(8..13)
        && ours.get(14..16) == theirs.get(14..16)
        && ours.get(18..) == theirs.get(18..)
}
