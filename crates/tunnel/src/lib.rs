//! WireGuard for both ends of the last mile, without I/O: what to send, what to write to the TUN device, and when to
//! come back are returned; the caller has the sockets and the clock.
//!
//! Both roles have the same verbs. The law: after any `handle_*`, drain `poll_transmit` and `poll_event` to
//! empty before waiting again; `handle_tun_frame` and `handle_datagram` may be called for a batch first. What was opened is
//! in `poll_tun` as soon as its frame is full; `flush_tun` ends the batch and completes the rest. A dropped packet is an `Err`
//! that is counted already; the caller goes on with the next. `handle_tun_input` and `handle_network_input` do the same for
//! one whole packet, without frames.
//!
//! # The loop
//!
//! Both engines run this order, one thread and one buffer of each kind for ever (`tun`, `udp`, `poller` are `netio`'s):
//!
//! ```text
//! let mut runs = RecvBuffer::new();
//! let mut frame = vec![0; FRAME_BYTES];
//! loop {
//!     let now = Instant::now();
//!     let deadline = tunnel.poll_timeout().map(|(at, _why)| at.saturating_duration_since(now));
//!     for ready in poller.wait(deadline)? { /* note which of tun, udp, waker */ }
//!     let now = Instant::now();
//!
//!     // 1. the network, at most BATCH runs: opened, joined, and written to the TUN device
//!     for _ in 0..BATCH {
//!         let Some(received) = udp.recv(&mut runs)? else { break };
//!         for datagram in received.datagrams() {
//!             let _counted = tunnel.handle_datagram(datagram, received.from, received.tos, now);
//!         }
//!         while let Some(frame) = tunnel.poll_tun() { tun.send(frame)?; }
//!         while let Some(run) = tunnel.poll_transmit() { udp.send_marked(run.to, run.payload, run.segment, run.tos); }
//!     }
//!     tunnel.flush_tun();
//!     while let Some(frame) = tunnel.poll_tun() { tun.send(frame)?; }
//!     // 2. the TUN device, at most BATCH frames: cut, and sealed side by side
//!     for _ in 0..BATCH {
//!         let Some(len) = tun.recv(&mut frame)? else { break };
//!         let _counted = tunnel.handle_tun_frame(&frame[..len], now);
//!         // a large frame fills a call by itself, small ones wait for each other
//!     }
//!     while let Some(run) = tunnel.poll_transmit() { udp.send_marked(run.to, run.payload, run.segment, run.tos); }
//!     // 3. time
//!     if tunnel.poll_timeout().is_some_and(|(at, _)| at <= now) { tunnel.handle_timeout(now); }
//!     while let Some(run) = tunnel.poll_transmit() { udp.send_marked(run.to, run.payload, run.segment, run.tos); }
//!     while let Some(event) = tunnel.poll_event() { /* state, log, metrics */ }
//! }
//! ```

pub mod agent;
pub mod dropped;
pub mod edge;
pub mod health;
mod noise;
pub mod offload;
pub mod packet;
mod peers;
pub mod policy;
mod psk;
pub mod rate;
mod routes;
pub mod sample;
pub mod share;
pub mod stats;
mod timers;
pub mod too_big;
pub mod transmit;
mod wg;
mod wheel;

pub use agent::AgentTunnel;
pub use dropped::{DropCounts, Dropped};
pub use edge::EdgeTunnel;
pub use noise::{Initiator, SessionKey};
pub use policy::SourceChecked;
pub use psk::Psk;
pub use share::Share;
pub use stats::{Handshakes, HeaderBytes, Ledger, PeerStats, Traffic};
pub use transmit::Transmit;

/// The longest inner packet that fits an Ethernet frame of 1,500 bytes over IPv6, WireGuard's usual MTU.
pub const DEFAULT_MTU: u16 = 1_420;

/// A datagram with an empty packet in it, which nobody answers (whitepaper, section 6.5).
pub const KEEPALIVE_BYTES: usize = noise::OVERHEAD_BYTES;
