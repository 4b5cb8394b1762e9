//! The lab: a home, its router, the ISP's wire, a gateway's site, an internet and an office, as network namespaces of
//! one machine, with our programs and other people's in them. The demo, the tests and the benches run here.
//!
//! Nothing of a lab outlives its owner: see `undertaker`.

mod cable;
mod dice;
mod netns;
mod process;
mod topology;
mod undertaker;
mod wait;

mod internet;
mod iperf;
mod office;
mod pop;
mod router;
mod zones;

mod abroad;
mod sites;
mod world;

mod capture;
mod judge;
mod observer;
mod pcap;
mod search;
mod wiretap;

mod bulk;
mod certificates;
mod courier;
mod cutter;
mod device;
mod dns_peers;
mod doors;
mod kernel_image;
mod kernel_wireguard;
mod peers;
mod people;
mod programs;
mod refusal;
mod relay;
mod schemathesis;
mod session;
pub mod tools;
mod unbound;
mod wireguard_go;
mod witness;

pub mod bench;
pub mod demo;
pub mod hostile;
pub mod outage;
pub mod soak;

pub use abroad::{ABROAD, Abroad, ELSEWHERE};
pub use bulk::{Bulk, Frames};
pub use cable::{Cable, Carried, Quality};
pub use capture::Capture;
pub use courier::{Courier, SIGN};
pub use cutter::{Cutter, Direction};
pub use device::{Answer, Device, StreamReader, read_lease};
pub use dns_peers::{
    Asking, Caching, DnscryptProxy, DnscryptStub, ForeignServer, is_whole, resolves,
};
pub use doors::{DOORS_NAME, HTTPS_PORT, open_doors};
pub use internet::{DOWNLOAD_BYTES, Internet, PAGE_MARKER};
pub use iperf::{IperfServer, Way, cubic, stream};
pub use judge::{Allowed, Kind};
pub use kernel_image::KernelImage;
pub use kernel_wireguard::{KernelCounters, KernelWireGuard};
pub use netns::{Netns, said};
pub use observer::{Findings, Observer, Wire, allowed_in_the_lab, search};
pub use office::{Office, wrong_clock};
pub use pcap::frames;
pub use peers::{Peers, Suite};
pub use people::People;
pub use pop::{GATEWAY_INNER, GATEWAY_INNER_V6, Pop, foreign_site};
pub use process::Running;
pub use programs::Programs;
pub use refusal::{exit, mistakes_told, refused};
pub use relay::{Blocked, NOBODY, RELAY_NAME, Relay, aioquic, block, unblock};
pub use router::{Image, Router};
pub use schemathesis::{Judged, Schemathesis};
pub use search::{Finding, Marker, Searched};
pub use sites::Sites;
pub use topology::{
    GATEWAY, HOME, Lab, OBSERVED, RESOLVER, ROUTER_LAN, ROUTER_WAN, ROUTER_WAN_V6, WEB, WEB_V6,
    ZONE_SERVER,
};
pub use unbound::{Said, Unbound, ask_all, key};
pub use wait::{wait_for, wait_until};
pub use wireguard_go::{Userspace, WgKey, WgPeer, WireGuardGo};
pub use wiretap::{Header, Wiretap};
pub use witness::{SigsumWitness, Witness};
pub use world::World;
pub use zones::{
    BIG_NAME, BOGUS_NAME, CROWDED_NAMES, HEAVY_NAMES, INSIDE, INSIDE_NAMES, MANY_NAMES,
    NAME_MARKER, PAGE_NAME, UNSIGNED_NAME, Zones, questions,
};
