//! Linux as Culvert needs it: TUN and TAP devices, UDP sockets with segmentation offload, waiting, clocks,
//! addresses and routes, the firewall, systemd, and giving up root. The only crate that may use `unsafe`; it knows
//! nothing of WireGuard, DNSCrypt or leases.
//!
//! The packet loop of an agent or a gateway is [`poll::Poller`] over one [`tun::Tun`] queue and one or two
//! [`udp::Udp`] sockets; the order of its steps is in the documentation of the `tunnel` crate.

pub mod clock;
pub mod netlink;
pub mod nftables;
pub mod poll;
pub mod privileges;
pub mod supervisor;
pub mod tap;
pub mod tcp;
pub mod tun;
pub mod udp;

pub use poll::{Poller, Waker};
pub use tap::Tap;
pub use tun::Tun;
pub use udp::{RecvBuffer, Udp, UdpOptions};
