//! One frame of the TUN device cut into the packets that it stands for, each complete with lengths and checksums.

use crate::dropped::Dropped;
use crate::offload::checksum;
use crate::offload::vnet::{Kind, Vnet};

const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;
const TCP_HEADER_BYTES: usize = 20;
const UDP_HEADER_BYTES: usize = 8;
const TCP_CHECKSUM_AT: usize = 16;
const UDP_CHECKSUM_AT: usize = 6;

/// The packets of one frame.
#[derive(Debug)]
pub(crate) struct Segments<'a> {
    packet: &'a [u8],
    cut: Cut,
}

#[derive(Debug)]
enum Cut {
    Whole { checksum: Option<(usize, usize)> },
    Many(Many),
}

#[derive(Debug)]
struct Many {
    kind: Kind,
    /// Where the transport's header begins.
    start: usize,
    payload_at: usize,
    segment: usize,
    count: usize,
    /// The sum over the pseudo-header without its length.
    pseudo: u64,
}

impl<'a> Segments<'a> {
    /// A packet that stands for itself and is complete.
    pub(crate) fn plain(packet: &'a [u8]) -> Self {
        Self {
            packet,
            cut: Cut::Whole { checksum: None },
        }
    }

    /// The packets that `packet` stands for by the header in front of it.
    ///
    /// # Errors
    /// [`Dropped::Malformed`] when the header does not fit the packet.
    pub(crate) fn of(vnet: Vnet, packet: &'a [u8]) -> Result<Self, Dropped> {
        let cut = match vnet.segments {
            None => Some(Cut::Whole {
                checksum: vnet.checksum,
            }),
            Some((kind, segment)) => many(kind, segment, vnet.checksum, packet).map(Cut::Many),
        };
        let cut = cut.ok_or(Dropped::Malformed)?;
        Ok(Self { packet, cut })
    }

    /// How many there are, at least one.
    pub(crate) fn count(&self) -> usize {
        match &self.cut {
            Cut::Whole { .. } => 1,
            Cut::Many(many) => many.count,
        }
    }

    /// The length of the longest.
    pub(crate) fn longest(&self) -> usize {
        match &self.cut {
            Cut::Whole { .. } => self.packet.len(),
            Cut::Many(many) => self.packet.len().min(many.payload_at + many.segment),
        }
    }

    /// The length of each, in order.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = usize> {
        let (headers, segment) = self.parts();
        let payload = self.packet.len() - headers;
        (0..self.count()).map(move |index| headers + segment.min(payload - index * segment))
    }

    /// The bytes of all together.
    pub(crate) fn total(&self) -> usize {
        let (headers, segment) = self.parts();
        let payload = self.packet.len() - headers;
        self.count() * headers + payload.min(self.count() * segment)
    }

    /// The bytes that each packet has of its own, and of the payload at most.
    fn parts(&self) -> (usize, usize) {
        match &self.cut {
            Cut::Whole { .. } => (0, self.packet.len()),
            Cut::Many(many) => (many.payload_at, many.segment),
        }
    }

    /// Leaves out the last `count` of several.
    pub(crate) fn leave_out(&mut self, count: usize) {
        if let Cut::Many(many) = &mut self.cut {
            many.count = many.count.saturating_sub(count);
        }
    }

    /// The first packet's headers, and of a whole one all of it.
    pub(crate) fn headers(&self) -> &'a [u8] {
        self.packet
    }

    /// Writes packet number `index` to the front of `out` and returns its length.
    ///
    /// # Errors
    /// [`Dropped::TooBig`] when it does not fit.
    pub(crate) fn write(&self, index: usize, out: &mut [u8]) -> Result<usize, Dropped> {
        let written = match &self.cut {
            Cut::Whole { checksum } => write_whole(self.packet, *checksum, out),
            Cut::Many(many) => many.write(self.packet, index, out),
        };
        written.ok_or(Dropped::TooBig)
    }
}

fn many(
    kind: Kind,
    segment: usize,
    checksum: Option<(usize, usize)>,
    packet: &[u8],
) -> Option<Many> {
    let (start, offset) = checksum?;
    let is_v4 = packet.first()? >> 4 == 4;
    let transport = packet.get(start..)?;
    let (header_len, expected) = match (kind, is_v4) {
        (Kind::Tcp4, true) | (Kind::Tcp6, false) => {
            let words = usize::from(transport.get(12)? >> 4);
            ((words * 4).max(TCP_HEADER_BYTES), TCP_CHECKSUM_AT)
        }
        (Kind::Udp, _) => (UDP_HEADER_BYTES, UDP_CHECKSUM_AT),
        (Kind::Tcp4, false) | (Kind::Tcp6, true) => return None,
    };
    let network_len = if is_v4 {
        usize::from(packet.first()? & 0x0f) * 4
    } else {
        40
    };
    let fits = start >= network_len && network_len >= 20 && offset == expected;
    let payload_at = start + header_len;
    if !fits || payload_at > packet.len() {
        return None;
    }
    // The field holds the pseudo-header's sum with the length of all together; routing headers are counted in.
    let field = transport.get(offset..offset + 2)?;
    let field = u64::from(u16::from_ne_bytes([field[0], field[1]]));
    let len = u16::try_from(transport.len()).ok()?;
    Some(Many {
        kind,
        start,
        payload_at,
        segment,
        count: (packet.len() - payload_at).div_ceil(segment).max(1),
        pseudo: checksum::add_u16(field, !len),
    })
}

fn write_whole(packet: &[u8], checksum: Option<(usize, usize)>, out: &mut [u8]) -> Option<usize> {
    let out = out.get_mut(..packet.len())?;
    out.copy_from_slice(packet);
    if let Some((start, offset)) = checksum {
        let sum = !checksum::fold(checksum::add(0, out.get(start..)?));
        store(out, start + offset, sum, offset == UDP_CHECKSUM_AT)?;
    }
    Some(packet.len())
}

/// Stores a checksum; in UDP zero says that there is none, and all ones are equal to it (RFC 768).
fn store(out: &mut [u8], at: usize, sum: u16, is_udp: bool) -> Option<()> {
    let sum = if sum == 0 && is_udp { 0xffff } else { sum };
    out.get_mut(at..at + 2)?.copy_from_slice(&sum.to_ne_bytes());
    Some(())
}

impl Many {
    fn write(&self, packet: &[u8], index: usize, out: &mut [u8]) -> Option<usize> {
        let skipped = index * self.segment;
        let payload = packet.get(self.payload_at + skipped..)?;
        let is_last = payload.len() <= self.segment;
        let payload = payload.get(..self.segment).unwrap_or(payload);
        let len = self.payload_at + payload.len();
        let out = out.get_mut(..len)?;
        let (headers, place) = out.split_at_mut(self.payload_at);
        headers.copy_from_slice(packet.get(..self.payload_at)?);
        place.copy_from_slice(payload);
        write_network(headers, len, index)?;
        let transport = headers.get_mut(self.start..)?;
        let transport_len = u16::try_from(len - self.start).ok()?;
        let field = match self.kind {
            Kind::Tcp4 | Kind::Tcp6 => {
                write_tcp(transport, skipped, index == 0, is_last)?;
                TCP_CHECKSUM_AT
            }
            Kind::Udp => {
                transport
                    .get_mut(4..6)?
                    .copy_from_slice(&transport_len.to_be_bytes());
                UDP_CHECKSUM_AT
            }
        };
        transport.get_mut(field..field + 2)?.fill(0);
        let sum = checksum::add_u16(self.pseudo, transport_len);
        let sum = !checksum::fold(checksum::add(sum, out.get(self.start..)?));
        store(out, self.start + field, sum, self.kind == Kind::Udp)?;
        Some(len)
    }
}

/// Length, identification and checksum of the IP header, for the `index`th packet of `len` bytes.
fn write_network(headers: &mut [u8], len: usize, index: usize) -> Option<()> {
    let first = *headers.first()?;
    if first >> 4 == 6 {
        let payload = u16::try_from(len.checked_sub(40)?).ok()?;
        headers
            .get_mut(4..6)?
            .copy_from_slice(&payload.to_be_bytes());
        return Some(());
    }
    let header = headers.get_mut(..usize::from(first & 0x0f) * 4)?;
    let total = u16::try_from(len).ok()?;
    let id = u16::from_be_bytes([*header.get(4)?, *header.get(5)?]).wrapping_add(index as u16);
    header.get_mut(2..4)?.copy_from_slice(&total.to_be_bytes());
    header.get_mut(4..6)?.copy_from_slice(&id.to_be_bytes());
    header.get_mut(10..12)?.fill(0);
    let sum = checksum::of_header(header);
    header.get_mut(10..12)?.copy_from_slice(&sum);
    Some(())
}

fn write_tcp(tcp: &mut [u8], skipped: usize, is_first: bool, is_last: bool) -> Option<()> {
    let sequence = tcp.get_mut(4..8)?;
    let before = u32::from_be_bytes([sequence[0], sequence[1], sequence[2], sequence[3]]);
    sequence.copy_from_slice(&before.wrapping_add(skipped as u32).to_be_bytes());
    let flags = tcp.get_mut(13)?;
    if !is_last {
        *flags &= !(TCP_FIN | TCP_PSH);
    }
    if !is_first {
        *flags &= !TCP_CWR;
    }
    Some(())
}
