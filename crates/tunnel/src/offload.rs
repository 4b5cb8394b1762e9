//! Super-packets: what the kernel hands over and takes as one, and what the wire carries as many.
//!
//! A *frame* is what a TUN device with `IFF_VNET_HDR` reads and writes: ten bytes of `struct virtio_net_hdr` (virtio 1.2,
//! section 5.1.6, without the buffer count, in the machine's byte order) and one IP packet. With a segment size in that header the packet
//! stands for many, which [`segment::Segments`] cuts; the other way [`coalesce::Coalescer`] joins opened packets of one flow.
//! Both are exact: cut and joined packets are, byte for byte, those that a path without offloads carries. The one liberty
//! is the identification of IPv4 packets that may not be fragmented, which means nothing (RFC 6864, section 4.1).

use coalesce::Coalescer;

use crate::dropped::Dropped;
use crate::policy::SourceChecked;

pub(crate) mod checksum;
pub(crate) mod coalesce;
pub mod ecn;
pub(crate) mod segment;
pub(crate) mod vnet;

#[cfg(test)]
mod tests;

/// The length of the header in front of every frame.
pub const VNET_BYTES: usize = 10;

/// A frame's header for a packet that stands for itself and needs nothing: all zeros.
pub const PLAIN: [u8; VNET_BYTES] = [0; VNET_BYTES];

/// What the TUN device takes, by default only packets for themselves; what it hands over is cut whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepts {
    /// Super-packets of TCP (TSO).
    pub tcp: bool,
    /// Super-packets of UDP (USO, Linux 6.2).
    pub udp: bool,
}

/// What waits for the TUN device: only packets whose source was checked get in.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Coalescer);

impl Inbox {
    pub(crate) fn set_accepts(&mut self, accepts: Accepts) {
        self.0.set_accepts(accepts);
    }

    /// Takes a packet that arrived under an outer header with the TOS byte `tos`.
    pub(crate) fn push(&mut self, packet: SourceChecked<'_>, tos: u8) -> Result<(), Dropped> {
        let packet = packet.into_bytes();
        if tos & ecn::MASK != 0 {
            ecn::decapsulate(packet, tos)?;
        }
        if self.0.push(packet) {
            Ok(())
        } else {
            Err(Dropped::QueueFull)
        }
    }

    /// Takes a packet of our own making, if there is one; how many bytes that were.
    pub(crate) fn push_answer(&mut self, answer: Option<&[u8]>) -> usize {
        // When it does not fit either, the sender's next packet asks again.
        let taken = answer.filter(|answer| self.0.push(answer));
        taken.map_or(0, <[u8]>::len)
    }

    pub(crate) fn poll(&mut self) -> Option<&[u8]> {
        self.0.poll()
    }

    pub(crate) fn flush(&mut self) {
        self.0.flush();
    }

    /// Header bytes that joining spared the device.
    pub(crate) fn spared(&self) -> u64 {
        self.0.spared()
    }

    /// Bytes of packets that were taken and did not fit in the end.
    pub(crate) fn overflowed(&self) -> u64 {
        self.0.overflowed()
    }
}
