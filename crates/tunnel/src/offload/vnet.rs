//! `struct virtio_net_hdr` as `linux/virtio_net.h` has it: ten bytes in the machine's byte order.

use crate::dropped::Dropped;
use crate::offload::VNET_BYTES;

/// The checksum field holds the pseudo-header's sum; the rest is to be added.
const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// The first segment says that the window was reduced (CWR); the others must not.
const GSO_ECN: u8 = 0x80;

/// What the packets of a frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp4,
    Tcp6,
    Udp,
}

/// The header, read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vnet {
    /// Where the checksum begins, and where from there it is stored.
    pub(crate) checksum: Option<(usize, usize)>,
    /// The kind and the payload of each packet, when the frame stands for several.
    pub(crate) segments: Option<(Kind, usize)>,
}

impl Vnet {
    /// Reads the header of a frame; the rest is the packet.
    ///
    /// # Errors
    /// [`Dropped::Malformed`] when there is no whole header, or one that was never asked for.
    pub(crate) fn split(frame: &[u8]) -> Result<(Self, &[u8]), Dropped> {
        let (header, packet) = frame.split_first_chunk().ok_or(Dropped::Malformed)?;
        Ok((Self::parse(header).ok_or(Dropped::Malformed)?, packet))
    }

    /// Reads a header; a kind of segmentation that was never asked for is none.
    fn parse(bytes: &[u8; VNET_BYTES]) -> Option<Self> {
        let number = |at: usize| usize::from(u16::from_ne_bytes([bytes[at], bytes[at + 1]]));
        let checksum = (bytes[0] & NEEDS_CSUM != 0).then(|| (number(6), number(8)));
        let kind = match bytes[1] & !GSO_ECN {
            GSO_NONE => None,
            GSO_TCPV4 => Some(Kind::Tcp4),
            GSO_TCPV6 => Some(Kind::Tcp6),
            GSO_UDP_L4 => Some(Kind::Udp),
            _ => return None,
        };
        let segments = match (kind, number(4)) {
            (None, _) => None,
            (Some(_), 0) => return None,
            (Some(kind), segment) => Some((kind, segment)),
        };
        Some(Self { checksum, segments })
    }

    /// The header of a super-packet whose headers are `header_len` bytes, the transport's from `start`.
    pub(crate) fn super_packet(
        kind: Kind,
        segment: u16,
        header_len: u16,
        start: u16,
    ) -> [u8; VNET_BYTES] {
        let (gso, offset) = match kind {
            Kind::Tcp4 => (GSO_TCPV4, 16_u16),
            Kind::Tcp6 => (GSO_TCPV6, 16),
            Kind::Udp => (GSO_UDP_L4, 6),
        };
        let mut bytes = [0; VNET_BYTES];
        bytes[0] = NEEDS_CSUM;
        bytes[1] = gso;
        for (at, number) in [(2, header_len), (4, segment), (6, start), (8, offset)] {
            bytes[at..at + 2].copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }
}
