//! The packets that the tests of offloads make, and streams of them.

use proptest::prelude::*;

pub(super) const HOME: [u8; 4] = [10, 64, 0, 7];
pub(super) const WEB: [u8; 4] = [203, 0, 113, 9];
pub(super) const HOME6: [u8; 16] = [0xfd; 16];
pub(super) const WEB6: [u8; 16] = [0x20; 16];

/// A packet that a test makes, complete but for its checksums and lengths, which [`Made::build`] fills in.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// From the internet to the home, and not the other way.
    pub(super) down: bool,
    pub(super) v6: bool,
    pub(super) udp: bool,
    pub(super) flow: u8,
    /// The last byte of the address on the internet's side.
    pub(super) web: u8,
    /// The flow label of IPv6.
    pub(super) label: u16,
    pub(super) tos: u8,
    pub(super) ttl: u8,
    pub(super) id: u16,
    pub(super) dont_fragment: bool,
    /// A fragment that is not the last.
    pub(super) fragment: bool,
    /// Where the fragment begins, in units of eight bytes.
    pub(super) offset: u16,
    /// Options of IPv4, in words of four bytes.
    pub(super) ip_options: u8,
    pub(super) sequence: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) urgent: u16,
    pub(super) options: Vec<u8>,
    pub(super) payload: Vec<u8>,
    /// Behind a datagram of UDP: bytes that IP counts and UDP does not.
    pub(super) trailing: Vec<u8>,
    pub(super) spoilt_checksum: bool,
    /// Without a checksum, which UDP may be.
    pub(super) unsummed: bool,
    /// That of IPv4's header.
    pub(super) spoilt_header: bool,
}

impl Made {
    pub(super) fn tcp(flow: u8, sequence: u32, payload: &[u8]) -> Self {
        Self {
            down: false,
            v6: false,
            udp: false,
            flow,
            web: WEB[3],
            label: 0,
            tos: 0,
            ttl: 64,
            id: 1,
            dont_fragment: true,
            fragment: false,
            offset: 0,
            ip_options: 0,
            sequence,
            ack: 77,
            flags: 0x10,
            window: 500,
            urgent: 0,
            options: Vec::new(),
            payload: payload.to_vec(),
            trailing: Vec::new(),
            spoilt_checksum: false,
            unsummed: false,
            spoilt_header: false,
        }
    }

    pub(super) fn udp(flow: u8, id: u16, payload: &[u8]) -> Self {
        Self {
            udp: true,
            id,
            dont_fragment: false,
            ..Self::tcp(flow, 0, payload)
        }
    }

    pub(super) fn start(&self) -> usize {
        if self.v6 {
            40
        } else {
            20 + usize::from(self.ip_options) * 4
        }
    }

    /// Where in the transport's header the checksum is.
    pub(super) fn field(&self) -> usize {
        if self.udp { 6 } else { 16 }
    }

    pub(super) fn protocol(&self) -> u8 {
        if self.udp { 17 } else { 6 }
    }

    /// The datagram with two bytes of its payload such that its checksum comes to zero, which is sent as all ones.
    pub(super) fn summing_to_zero(mut self) -> Self {
        if let Some(word) = self.payload.get_mut(..2) {
            word.fill(0);
            let plain = Self {
                spoilt_checksum: false,
                unsummed: false,
                ..self.clone()
            };
            let at = plain.start() + plain.field();
            let sum = plain.build()[at..at + 2].to_vec();
            self.payload[..2].copy_from_slice(&sum);
        }
        self
    }

    /// Trailing bytes with which the checksum over all that IP counts is right as well.
    pub(super) fn trailed(mut self) -> Self {
        self.trailing = vec![0xff, 0xfd];
        if !self.payload.len().is_multiple_of(2) {
            self.trailing.reverse();
        }
        self
    }

    pub(super) fn build(&self) -> Vec<u8> {
        let transport = self.transport();
        let mut packet = self.network(transport.len());
        packet.extend(transport);
        let sum = !transport_sum(&packet, self.start(), self.protocol());
        // In UDP zero says that there is none (RFC 768).
        let sum = if self.udp && sum == 0 { 0xffff } else { sum };
        let sum = match (self.udp && self.unsummed, self.spoilt_checksum) {
            (true, _) => 0,
            (false, true) => sum ^ 0x0100,
            (false, false) => sum,
        };
        let at = self.start() + self.field();
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        if self.udp {
            packet.extend(&self.trailing);
        }
        packet
    }

    /// The transport's header without its checksum, and the payload.
    fn transport(&self) -> Vec<u8> {
        let mut transport = if self.udp {
            let mut udp = vec![0; 8];
            udp[1] = self.flow;
            udp[3] = 53;
            udp[4..6]
                .copy_from_slice(&u16::try_from(8 + self.payload.len()).unwrap().to_be_bytes());
            udp
        } else {
            let mut tcp = vec![0; 20];
            tcp[1] = self.flow;
            tcp[3] = 80;
            tcp[4..8].copy_from_slice(&self.sequence.to_be_bytes());
            tcp[8..12].copy_from_slice(&self.ack.to_be_bytes());
            tcp[12] = u8::try_from((20 + self.options.len()) / 4).unwrap() << 4;
            tcp[13] = self.flags;
            tcp[14..16].copy_from_slice(&self.window.to_be_bytes());
            tcp[18..20].copy_from_slice(&self.urgent.to_be_bytes());
            tcp.extend(&self.options);
            tcp
        };
        transport.extend(&self.payload);
        transport
    }

    /// The header of IP in front of so many bytes and the trailing ones.
    fn network(&self, transport_len: usize) -> Vec<u8> {
        let trailing = if self.udp { self.trailing.len() } else { 0 };
        let len = transport_len + trailing;
        let mut packet = vec![0; self.start()];
        if self.v6 {
            packet[0] = 0x60 | self.tos >> 4;
            packet[1] = self.tos << 4;
            packet[2..4].copy_from_slice(&self.label.to_be_bytes());
            packet[4..6].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
            packet[6] = self.protocol();
            packet[7] = self.ttl;
            let (home, web) = if self.down { (24, 8) } else { (8, 24) };
            packet[home..home + 16].copy_from_slice(&HOME6);
            packet[web..web + 16].copy_from_slice(&WEB6);
            packet[web + 15] = self.web;
            return packet;
        }
        let total = u16::try_from(packet.len() + len).unwrap();
        // Options that do nothing (RFC 791).
        packet[20..].fill(1);
        packet[0] = 0x45 + self.ip_options;
        packet[1] = self.tos;
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[4..6].copy_from_slice(&self.id.to_be_bytes());
        packet[6..8].copy_from_slice(&self.offset.to_be_bytes());
        packet[6] |= u8::from(self.dont_fragment) << 6 | u8::from(self.fragment) << 5;
        packet[8] = self.ttl;
        packet[9] = self.protocol();
        let (home, web) = if self.down { (16, 12) } else { (12, 16) };
        packet[home..home + 4].copy_from_slice(&HOME);
        packet[web..web + 4].copy_from_slice(&WEB);
        packet[web + 3] = self.web;
        let sum = !reference_sum(&packet) ^ u16::from(self.spoilt_header);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }
}

/// Where the header of IP ends.
pub(super) fn network_len(packet: &[u8]) -> usize {
    match packet[0] >> 4 {
        6 => 40,
        _ => usize::from(packet[0] & 0xf) * 4,
    }
}

/// RFC 1071 as its section 4.1 describes it, word by word.
pub(super) fn reference_sum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

pub(super) fn transport_sum(packet: &[u8], start: usize, protocol: u8) -> u16 {
    let addresses = if packet[0] >> 4 == 6 {
        &packet[8..40]
    } else {
        &packet[12..20]
    };
    let len = u16::try_from(packet.len() - start).unwrap();
    let mut bytes = [addresses, &[0, protocol], &len.to_be_bytes()].concat();
    bytes.extend(&packet[start..]);
    reference_sum(&bytes)
}

/// Packets without what only some senders make.
fn usual_made() -> impl Strategy<Value = Made> {
    let network = (
        any::<bool>(),
        any::<bool>(),
        0..3_u8,
        any::<u8>(),
        any::<bool>(),
    );
    let fields = (
        prop_oneof![8 => Just(0_u8), 1 => 0..4_u8],
        prop_oneof![20 => Just(64_u8), 1 => Just(63)],
        prop_oneof![30 => Just(0x10_u8), 6 => Just(0x18), 1 => Just(0x90), 1 => any::<u8>()],
        prop_oneof![20 => Just(500_u16), 1 => any::<u16>()],
        prop_oneof![9 => Just(0_usize), 1 => 0..4_usize, 3 => Just(3)],
        prop_oneof![12 => Just(100_usize), 2 => 0..220_usize, 1 => Just(1_340)],
        prop_oneof![40 => Just(false), 1 => Just(true)],
        prop_oneof![40 => Just(false), 1 => Just(true)],
    );
    // What two packets of a flow have alike, but for a few.
    let rare = (
        prop_oneof![12 => Just(WEB[3]), 1 => Just(WEB[3] + 1)],
        prop_oneof![20 => Just(0_u16), 1 => any::<u16>()],
        prop_oneof![30 => Just(0_u16), 1 => any::<u16>()],
        prop_oneof![12 => Just(1_u8), 1 => any::<u8>()],
        prop_oneof![40 => Just(0_u16), 1 => 0..0x2000_u16, 1 => (1..0x20_u16).prop_map(|high| high << 8)],
        prop_oneof![40 => Just(false), 1 => Just(true)],
    );
    (network, fields, rare).prop_map(
        |(
            (v6, udp, flow, byte, df),
            (tos, ttl, flags, window, options, len, fragment, spoilt),
            (web, label, urgent, option, offset, spoilt_header),
        )| {
            Made {
                down: false,
                v6,
                udp,
                flow,
                web,
                label,
                urgent,
                offset: if v6 { 0 } else { offset },
                ip_options: 0,
                tos,
                ttl,
                id: 0,
                dont_fragment: df,
                fragment: fragment && !v6,
                sequence: 0,
                ack: 9,
                flags,
                window,
                options: vec![option; options * 4],
                payload: vec![byte; len],
                trailing: Vec::new(),
                spoilt_checksum: spoilt,
                unsummed: false,
                // Whoever marks a packet makes its header's checksum anew.
                spoilt_header: spoilt_header && tos & 3 == 0,
            }
        },
    )
}

fn any_made() -> impl Strategy<Value = Made> {
    let odd = (
        prop_oneof![20 => Just(0_u8), 1 => 1..6_u8],
        prop_oneof![12 => Just(false), 1 => Just(true)],
        prop_oneof![6 => Just(false), 1 => Just(true)],
        prop_oneof![12 => Just(false), 1 => Just(true)],
    );
    (usual_made(), odd).prop_map(|(made, (ip_options, is_trailed, sums_to_zero, unsummed))| {
        let ip_options = if made.v6 { 0 } else { ip_options };
        let made = Made { ip_options, ..made };
        if !made.udp {
            return made;
        }
        let made = Made { unsummed, ..made };
        let made = if is_trailed { made.trailed() } else { made };
        if sums_to_zero {
            made.summing_to_zero()
        } else {
            made
        }
    })
}

/// A stream, built.
pub(super) fn stream() -> impl Strategy<Value = Vec<Vec<u8>>> {
    made_stream().prop_map(|made| made.iter().map(Made::build).collect())
}

/// A stream: sequence numbers and identifications go on per flow, but for a few that jump, repeat or are swapped.
pub(super) fn made_stream() -> impl Strategy<Value = Vec<Made>> {
    let slips = proptest::collection::vec(
        (
            any::<bool>(),
            prop_oneof![9 => Just(0_u32), 1 => any::<u32>()],
        ),
        120,
    );
    (
        proptest::collection::vec(any_made(), 1..120),
        slips,
        any::<prop::sample::Index>(),
    )
        .prop_map(|(mut made, slips, at)| {
            let mut next = std::collections::HashMap::new();
            for (made, (counts, slip)) in made.iter_mut().zip(slips) {
                let (sequence, id) = next
                    .entry((made.v6, made.udp, made.flow, made.web))
                    .or_insert((0xffff_f000_u32, 0xfff0_u16));
                made.sequence = sequence.wrapping_add(slip);
                made.id = *id;
                *sequence = sequence.wrapping_add(u32::try_from(made.payload.len()).unwrap());
                *id = id.wrapping_add(u16::from(counts || made.udp));
            }
            let at = at.index(made.len());
            if at > 0 {
                made.swap(at - 1, at);
            }
            made
        })
}
