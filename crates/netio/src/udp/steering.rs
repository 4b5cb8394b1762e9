//! Which of the sockets that share a port gets a datagram: a classic BPF program over its payload
//! (`SO_ATTACH_REUSEPORT_CBPF`, `socket(7)`). The sockets are numbered in the order in which they were bound.
//!
//! The kernel asks the program once for a run that it received as one; the whole run goes where its first datagram does.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::Udp;

/// The most rules of one program: the jumps of classic BPF reach 255 instructions, and a rule takes at most ten.
pub const MAX_RULES: usize = 16;

/// Where a network header's fields are for classic BPF (`SKF_NET_OFF` of `linux/filter.h`).
const NETWORK: i32 = -0x10_0000;
/// The source address of IPv4 (RFC 791 section 3.1), and the two halves of IPv6's prefix (RFC 8200 section 3).
const V4_SOURCE: i32 = 12;
const V6_PREFIX: [i32; 2] = [8, 12];
/// Knuth's multiplier: neighbouring addresses spread.
const SPREAD: u32 = 0x9e37_79b1;

/// How one of a lane's sockets is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// By the bits `mask` of the byte at `offset`, modulo the number of sockets.
    Byte {
        /// Place in the datagram's payload.
        offset: u8,
        /// The bits that count.
        mask: u8,
    },
    /// By the sender's address, so that who sends from one fills one socket, whatever it sends: of IPv6 by the first
    /// 64 bits, which are a household's.
    Source,
}

/// Neighbours in the group of sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The number of the first.
    pub first: u16,
    /// How many; not none.
    pub count: u16,
    /// Which of them.
    pub choice: Choice,
}

/// Where datagrams go that begin with a certain byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The first byte of the payload.
    pub first_byte: u8,
    /// Where to.
    pub lane: Lane,
}

impl Udp {
    /// Steers what arrives at this socket's port among all sockets that are bound to it with `reuse_port`.
    ///
    /// # Errors
    /// When the kernel has no such steering, or the program is longer than it takes.
    pub fn steer(&self, rules: &[Rule], otherwise: Lane) -> io::Result<()> {
        if rules.len() > MAX_RULES || otherwise.count == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let is_v4 = self.local_addr()?.is_ipv4();
        attach(self.as_fd(), &mut program(rules, otherwise, is_v4))
    }
}

/// A datagram too short for a load goes to the first socket: that is how classic BPF ends.
fn program(rules: &[Rule], otherwise: Lane, is_v4: bool) -> Vec<libc::sock_filter> {
    let mut program = vec![load_byte(0)];
    for rule in rules {
        let choice = choose(rule.lane, is_v4);
        // A lane that is not wanted is jumped over; MAX_RULES bounds the program, not this jump.
        let past = u8::try_from(choice.len()).unwrap_or(u8::MAX);
        program.push(libc::sock_filter {
            code: code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K),
            jt: 0,
            jf: past,
            k: rule.first_byte.into(),
        });
        program.extend(choice);
    }
    program.extend(choose(otherwise, is_v4));
    program
}

/// Leaves the number of one of the lane's sockets in the accumulator and returns it.
fn choose(lane: Lane, is_v4: bool) -> Vec<libc::sock_filter> {
    let mut program = match lane.choice {
        Choice::Byte { offset, mask } => vec![
            load_byte(offset.into()),
            step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask.into()),
        ],
        Choice::Source => source_hash(is_v4),
    };
    program.extend([
        step(
            libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K,
            lane.count.max(1).into(),
        ),
        step(
            libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K,
            lane.first.into(),
        ),
        step(libc::BPF_RET | libc::BPF_A, 0),
    ]);
    program
}

fn source_hash(is_v4: bool) -> Vec<libc::sock_filter> {
    let load = |offset: i32| {
        let at = (NETWORK + offset).cast_unsigned();
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at)
    };
    let [upper, lower] = V6_PREFIX.map(load);
    let mut program = if is_v4 {
        vec![load(V4_SOURCE)]
    } else {
        vec![
            upper,
            step(libc::BPF_MISC | libc::BPF_TAX, 0),
            lower,
            step(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X, 0),
        ]
    };
    program.extend([
        step(libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K, SPREAD),
        step(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, 16),
    ]);
    program
}

fn load_byte(offset: u32) -> libc::sock_filter {
    step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, offset)
}

fn step(operation: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code(operation),
        jt: 0,
        jf: 0,
        k,
    }
}

/// Every operation of classic BPF fits eight bits.
fn code(operation: u32) -> u16 {
    u16::try_from(operation).unwrap_or(u16::MAX)
}

#[expect(unsafe_code, reason = "SO_ATTACH_REUSEPORT_CBPF has no safe form")]
fn attach(fd: BorrowedFd<'_>, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `filter` is a whole sock_fprog over `program`, which outlives the call; the kernel copies both.
    let status = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if status < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};
    use std::time::Duration;

    use super::*;
    use crate::poll::{Interest, Poller, Ready};
    use crate::udp::{RecvBuffer, Sent, UdpOptions};

    /// Four data sockets, then four for what begins with 1; 2 is steered by another byte than the rest.
    const RULES: [Rule; 2] = [
        Rule {
            first_byte: 1,
            lane: Lane {
                first: 4,
                count: 4,
                choice: Choice::Source,
            },
        },
        Rule {
            first_byte: 2,
            lane: Lane {
                first: 0,
                count: 4,
                choice: Choice::Byte {
                    offset: 9,
                    mask: 0x3f,
                },
            },
        },
    ];
    const OTHERWISE: Lane = Lane {
        first: 0,
        count: 4,
        choice: Choice::Byte {
            offset: 5,
            mask: 0x3f,
        },
    };

    fn group(host: &str, count: usize) -> (Vec<Udp>, SocketAddr) {
        let options = UdpOptions {
            reuse_port: true,
            ..UdpOptions::default()
        };
        let first = Udp::bind(format!("{host}:0").parse().unwrap(), &options).unwrap();
        let address = first.local_addr().unwrap();
        let rest = (1..count).map(|_| Udp::bind(address, &options).unwrap());
        let sockets = std::iter::once(first).chain(rest).collect();
        (sockets, address)
    }

    /// The number of the socket at which `datagram` arrives.
    fn arrives_at(sockets: &[Udp], address: SocketAddr, datagram: &[u8]) -> usize {
        arrives_from(address.ip(), sockets, address, datagram)
    }

    fn arrives_from(from: IpAddr, sockets: &[Udp], address: SocketAddr, datagram: &[u8]) -> usize {
        let sender = Udp::bind(SocketAddr::new(from, 0), &UdpOptions::default()).unwrap();
        let mut poller = Poller::new().unwrap();
        for (number, socket) in sockets.iter().enumerate() {
            let token = u32::try_from(number).unwrap();
            poller.add(socket, token, Interest::Readable).unwrap();
        }
        assert!(matches!(
            sender.send(address, datagram, datagram.len()),
            Sent::Yes
        ));
        let ready: Vec<_> = poller.wait(Some(Duration::from_secs(5))).unwrap().collect();
        let [Ready::Descriptor { token, .. }] = ready[..] else {
            panic!("{ready:?}");
        };
        let number = token as usize;
        let mut buffer = RecvBuffer::new();
        assert!(sockets[number].recv(&mut buffer).unwrap().is_some());
        number
    }

    fn datagram(first_byte: u8, at: usize, byte: u8) -> [u8; 64] {
        let mut datagram = [0xaa; 64];
        datagram[0] = first_byte;
        datagram[at] = byte;
        datagram
    }

    #[test]
    fn a_lane_without_sockets_and_too_many_rules_are_refused() {
        let (sockets, _) = group("127.0.0.1", 1);
        let none = Lane {
            count: 0,
            ..OTHERWISE
        };

        for (rules, lane) in [(vec![], none), (vec![RULES[0]; MAX_RULES + 1], OTHERWISE)] {
            let refused = sockets[0].steer(&rules, lane).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn the_byte_that_a_rule_names_decides_whoever_sends() {
        for host in ["127.0.0.1", "[::1]"] {
            let (sockets, address) = group(host, 8);
            sockets[0].steer(&RULES, OTHERWISE).unwrap();

            for worker in 0..4_u8 {
                for (kind, offset) in [(2, 9), (3, 5), (4, 5), (200, 5)] {
                    // The two upper bits belong to somebody else.
                    let datagram = datagram(kind, offset, 0xc0 | worker);
                    let number = arrives_at(&sockets, address, &datagram);
                    assert_eq!(number, usize::from(worker), "{host} {kind}");
                }
            }
        }
    }

    #[test]
    fn a_number_without_a_socket_and_a_datagram_too_short_go_to_one_of_the_lane() {
        let (sockets, address) = group("127.0.0.1", 8);
        sockets[0].steer(&RULES, OTHERWISE).unwrap();

        assert_eq!(arrives_at(&sockets, address, &datagram(4, 5, 63)), 3);
        assert_eq!(arrives_at(&sockets, address, &[4, 0, 0]), 0);
    }

    #[test]
    fn one_sender_keeps_to_one_socket_of_its_lane_and_many_use_all() {
        for host in ["127.0.0.1", "[::1]"] {
            let (sockets, address) = group(host, 8);
            sockets[0].steer(&RULES, OTHERWISE).unwrap();
            let at =
                |from: IpAddr, byte| arrives_from(from, &sockets, address, &datagram(1, 5, byte));

            let first = at(address.ip(), 0);
            assert!(first >= 4, "{host} {first}");
            for byte in 0..20 {
                assert_eq!(at(address.ip(), byte), first, "{host}");
            }
            if address.is_ipv4() {
                let mut hit = [0; 8];
                for n in 1..100 {
                    hit[at([127, 0, 0, n].into(), n)] += 1;
                }
                assert_eq!(hit[..4], [0; 4]);
                assert!(hit[4..].iter().all(|count| *count > 10), "{hit:?}");
            }
        }
    }
}
