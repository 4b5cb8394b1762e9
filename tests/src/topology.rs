//! The lab's map: six namespaces, the wires between them, their addresses and routes.
//!
//! ```text
//!  home ── router ── access ── pop ── internet
//!                      ├────── office    │
//!                      └─────────────────┘   a way in clear, so that a leak works and is seen
//! ```
//!
//! [`Lab::add_second_pop`] puts `pop2` beside `pop`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

use crate::cable::{Cable, Quality};
use crate::netns::Netns;
use crate::undertaker::{Undertaker, sweep};

/// The gateway as the access network sees it.
pub const GATEWAY: &str = "198.18.1.2";
/// The gateway as the access network sees it, IPv6.
pub(crate) const GATEWAY_V6: &str = "2001:db8:b::2";
/// The second site's gateway as the access network sees it.
pub(crate) const GATEWAY_2: &str = "198.18.4.2";
/// The second site's gateway as the access network sees it, IPv6.
pub(crate) const GATEWAY_2_V6: &str = "2001:db8:10::2";
/// The provisioning server.
pub(crate) const OFFICE: &str = "198.18.2.2";
/// The router's address on the access network.
pub const ROUTER_WAN: &str = "198.18.0.2";
/// The router's IPv6 address on the access network.
pub const ROUTER_WAN_V6: &str = "2001:db8:a::2";
/// The router's address on its second access network.
pub(crate) const ROUTER_WAN_2: &str = "198.18.4.2";
/// The router's address at home.
pub const ROUTER_LAN: &str = "192.168.1.1";
/// The router's IPv6 address at home.
pub(crate) const ROUTER_LAN_V6: &str = "fd01::1";
/// The home's machine.
pub const HOME: &str = "192.168.1.10";
/// Web server and iperf3.
pub const WEB: &str = "203.0.113.10";
/// Web server, IPv6.
pub const WEB_V6: &str = "2001:db8:f::10";
/// The root name server.
pub(crate) const ROOT_SERVER: &str = "203.0.113.53";
/// The name server of the zones below the root.
pub const ZONE_SERVER: &str = "203.0.113.54";
/// The name server of the zones that liars answer for.
pub(crate) const LIAR: &str = "203.0.113.55";
/// Another hand's resolver.
pub const RESOLVER: &str = "203.0.113.56";
/// The observer's interface in `access`.
pub const OBSERVED: &str = "rtr0";
/// The same on the second access network.
pub(crate) const OBSERVED_2: &str = "rtr1";

const SYSCTLS: &[&str] = &[
    "net.ipv4.conf.all.rp_filter=0",
    "net.ipv4.conf.default.rp_filter=0",
    "net.ipv6.conf.all.accept_dad=0",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.default.accept_ra=0",
    "net.ipv6.conf.default.router_solicitations=0",
    "net.ipv6.conf.all.disable_ipv6=0",
    "net.ipv6.conf.default.disable_ipv6=0",
];
const FORWARDING: &[&str] = &["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"];

/// The namespaces of one lab; dropping it removes all of it.
#[derive(Debug)]
pub struct Lab {
    /// The subscriber's machine.
    pub home: Netns,
    /// The subscriber's router.
    pub router: Netns,
    /// The ISP's wire, where the observer sits.
    pub access: Netns,
    /// The gateway's site.
    pub pop: Netns,
    /// The second gateway's site; only there after [`Lab::add_second_pop`].
    pub pop2: Netns,
    /// Everybody else.
    pub internet: Netns,
    /// The provisioning server's site.
    pub office: Netns,
    prefix: String,
    work: PathBuf,
    undertaker: Option<Undertaker>,
}

impl Lab {
    /// The demo's lab, under names that a person can type.
    pub fn for_demo() -> Result<Self> {
        Self::new("culvert-")
    }

    /// A lab of a test, under names that no other test has.
    pub fn for_test() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::new(&format!("cv{}x{n}-", std::process::id()))
    }

    fn new(prefix: &str) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the lab needs root (namespaces); run it with sudo"
        );
        sweep(prefix)?;
        let work = tempfile::Builder::new()
            .prefix("culvert-lab-")
            .tempdir()
            .context("creating the lab's work folder")?
            .keep();
        // The agent gives up root and must still reach its state.
        fs::set_permissions(&work, fs::Permissions::from_mode(0o755))
            .context("opening the work folder")?;
        let logs = work.join("logs");
        fs::create_dir(&logs).context("creating the log folder")?;
        let name = |place: &str| format!("{prefix}{place}");
        let names: Vec<_> = PLACES.iter().map(|place| name(place)).collect();
        let undertaker = Undertaker::appoint(prefix, &names, &work)?;
        let netns = |place: &str| Netns::new(name(place), logs.clone());
        let lab = Self {
            home: netns("home"),
            router: netns("router"),
            access: netns("access"),
            pop: netns("pop"),
            pop2: netns("pop2"),
            internet: netns("internet"),
            office: netns("office"),
            prefix: prefix.to_owned(),
            work,
            undertaker: Some(undertaker),
        };
        lab.build()?;
        Ok(lab)
    }

    /// The folder that goes away with the lab.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// What all names of this lab begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A new folder in the work folder.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.work.join(name);
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(path)
    }

    /// Leaves the lab up and gives the script that removes it.
    pub fn keep(mut self) -> Result<PathBuf> {
        let undertaker = self
            .undertaker
            .take()
            .context("a lab has its undertaker until it is kept")?;
        let script = undertaker.script().to_owned();
        undertaker.dismiss()?;
        Ok(script)
    }

    /// Removes the lab and says whether that went well, which a drop cannot.
    pub fn remove(mut self) -> Result<()> {
        match self.undertaker.take() {
            Some(mut undertaker) => undertaker.bury(),
            None => Ok(()),
        }
    }

    fn all(&self) -> [&Netns; 6] {
        [
            &self.home,
            &self.router,
            &self.access,
            &self.pop,
            &self.internet,
            &self.office,
        ]
    }

    fn build(&self) -> Result<()> {
        for netns in self.all() {
            add(netns)?;
        }
        for netns in [&self.router, &self.access, &self.pop] {
            netns.run(&[&["sysctl", "-qw"], FORWARDING].concat())?;
        }
        for (left, left_name, right, right_name) in [
            (&self.home, "eth0", &self.router, "lan0"),
            (&self.router, "wan0", &self.access, OBSERVED),
            (&self.access, "pop0", &self.pop, "acc0"),
            (&self.access, "off0", &self.office, "acc0"),
            (&self.access, "net0", &self.internet, "acc0"),
            (&self.pop, "inet0", &self.internet, "pop0"),
        ] {
            connect(left, left_name, right, right_name)?;
        }
        for (netns, plan) in [
            (&self.home, HOME_PLAN),
            (&self.router, ROUTER_PLAN),
            (&self.router, ROUTER_WAN_PLAN),
            (&self.access, ACCESS_WIRE_PLAN),
            (&self.access, ACCESS_PLAN),
            (&self.pop, POP_PLAN),
            (&self.internet, INTERNET_PLAN),
            (&self.office, OFFICE_PLAN),
        ] {
            ip(&["-n", netns.name(), "-batch", "-"], &batch(plan))?;
        }
        self.name_servers(&self.home, &[ROUTER_LAN, ROUTER_LAN_V6])
    }

    /// Adds a second site, with ways of its own to the access network and the internet.
    pub fn add_second_pop(&self) -> Result<()> {
        add(&self.pop2)?;
        self.pop2.run(&[&["sysctl", "-qw"], FORWARDING].concat())?;
        connect(&self.access, "pop20", &self.pop2, "acc0")?;
        connect(&self.pop2, "inet0", &self.internet, "pop20")?;
        for (netns, plan) in [
            (&self.access, ACCESS_PLAN_2),
            (&self.internet, INTERNET_PLAN_2),
            (&self.pop2, POP_PLAN_2),
        ] {
            ip(&["-n", netns.name(), "-batch", "-"], &batch(plan))?;
        }
        Ok(())
    }

    /// Gives the router a second access network, `wan1`, with ways of its own to gateway and office.
    pub fn add_second_wan(&self) -> Result<()> {
        connect(&self.router, "wan1", &self.access, OBSERVED_2)?;
        for (netns, plan) in [
            (&self.router, ROUTER_WAN_PLAN_2),
            (&self.access, ACCESS_WIRE_PLAN_2),
        ] {
            ip(&["-n", netns.name(), "-batch", "-"], &batch(plan))?;
        }
        Ok(())
    }

    /// Puts a cable of ours in the place of the wire between router and provider, before anything runs on it.
    pub fn lay_cable(&self, quality: Quality) -> Result<Cable> {
        ip(&["-n", self.access.name(), "link", "del", OBSERVED], "")?;
        let ends = [(&self.router, "wan0"), (&self.access, OBSERVED)];
        let cable = Cable::lay(ends, quality)?;
        for (netns, plan) in [
            (&self.router, ROUTER_WAN_PLAN),
            (&self.access, ACCESS_WIRE_PLAN),
        ] {
            ip(&["-n", netns.name(), "-batch", "-"], &batch(plan))?;
        }
        Ok(cable)
    }

    /// Sets what a namespace's programs find in `/etc/resolv.conf`.
    pub fn name_servers(&self, netns: &Netns, servers: &[&str]) -> Result<()> {
        let dir = Path::new("/etc/netns").join(netns.name());
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        let text: String = servers
            .iter()
            .map(|s| format!("nameserver {s}\n"))
            .collect();
        fs::write(dir.join("resolv.conf"), text).context("writing the namespace's resolv.conf")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Some(mut undertaker) = self.undertaker.take() {
            // A drop has nobody to tell; what is left is swept by the next lab.
            let _ = undertaker.bury();
        }
    }
}

const PLACES: [&str; 7] = [
    "home", "router", "access", "pop", "pop2", "internet", "office",
];

/// One interface with its addresses, or routes, as lines: `if ADDR…` and `DEST via GATEWAY`.
type Plan = &'static [&'static str];

const HOME_PLAN: Plan = &[
    "eth0 192.168.1.10/24 fd01::10/64",
    "default via 192.168.1.1",
    "default via fd01::1",
];
const ROUTER_PLAN: Plan = &["lan0 192.168.1.1/24 fd01::1/64"];
const ROUTER_WAN_PLAN: Plan = &[
    "wan0 198.18.0.2/24 2001:db8:a::2/64",
    "default via 198.18.0.1",
    "default via 2001:db8:a::1",
];
const ROUTER_WAN_PLAN_2: Plan = &["wan1 198.18.4.2/24", "default via 198.18.4.1 metric 200"];
const ACCESS_WIRE_PLAN_2: Plan = &["rtr1 198.18.4.1/24"];
const ACCESS_WIRE_PLAN: Plan = &[
    "rtr0 198.18.0.1/24 2001:db8:a::1/64",
    "192.168.1.0/24 via 198.18.0.2",
    "fd01::/64 via 2001:db8:a::2",
];
const ACCESS_PLAN: Plan = &[
    "pop0 198.18.1.1/24 2001:db8:b::1/64",
    "off0 198.18.2.1/24 2001:db8:c::1/64",
    "net0 198.18.3.1/24 2001:db8:d::1/64",
    "203.0.113.0/24 via 198.18.3.2",
    "2001:db8:f::/64 via 2001:db8:d::2",
];
const POP_PLAN: Plan = &[
    "acc0 198.18.1.2/24 2001:db8:b::2/64",
    "inet0 203.0.113.1/24 2001:db8:f::1/64",
    "198.18.0.0/15 via 198.18.1.1",
    "2001:db8:a::/64 via 2001:db8:b::1",
    "2001:db8:c::/64 via 2001:db8:b::1",
    "default via 203.0.113.10",
    "default via 2001:db8:f::10",
];
const POP_PLAN_2: Plan = &[
    "acc0 198.18.4.2/24 2001:db8:10::2/64",
    "inet0 198.51.100.1/24 2001:db8:e0::1/64",
    "198.18.0.0/15 via 198.18.4.1",
    "2001:db8:a::/64 via 2001:db8:10::1",
    "2001:db8:c::/64 via 2001:db8:10::1",
    "default via 198.51.100.10",
    "default via 2001:db8:e0::10",
];
const ACCESS_PLAN_2: Plan = &["pop20 198.18.4.1/24 2001:db8:10::1/64"];
const INTERNET_PLAN_2: Plan = &["pop20 198.51.100.10/24 2001:db8:e0::10/64"];
const INTERNET_PLAN: Plan = &[
    "pop0 203.0.113.10/24 203.0.113.53/24 203.0.113.54/24 203.0.113.55/24 203.0.113.56/24 2001:db8:f::10/64 2001:db8:f::53/64 2001:db8:f::54/64",
    "acc0 198.18.3.2/24 2001:db8:d::2/64",
    "default via 198.18.3.1",
    "default via 2001:db8:d::1",
    "fd64::/48 via 2001:db8:f::1",
];
const OFFICE_PLAN: Plan = &[
    "acc0 198.18.2.2/24 2001:db8:c::2/64",
    "default via 198.18.2.1",
    "default via 2001:db8:c::1",
];

fn batch(plan: Plan) -> String {
    let mut lines = String::new();
    for line in plan {
        if line.contains(" via ") {
            lines += &format!("route add {line}\n");
            continue;
        }
        let mut words = line.split(' ');
        let interface = words.next().unwrap_or_default();
        lines += &format!("link set {interface} up\n");
        for address in words {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            lines += &format!("addr add {address} dev {interface}{nodad}\n");
        }
    }
    lines
}

fn add(netns: &Netns) -> Result<()> {
    ip(&["netns", "add", netns.name()], "")?;
    netns.run(&[&["sysctl", "-qw"], SYSCTLS].concat())?;
    ip(&["-n", netns.name(), "link", "set", "lo", "up"], "")
}

/// A wire between two namespaces.
fn connect(left: &Netns, left_name: &str, right: &Netns, right_name: &str) -> Result<()> {
    let left_end = [left_name, "netns", left.name(), "type", "veth"];
    let right_end = ["peer", "name", right_name, "netns", right.name()];
    ip(
        &[&["link", "add"], &left_end[..], &right_end[..]].concat(),
        "",
    )
}

fn ip(args: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting ip (Debian package iproute2)")?;
    let mut stdin = child.stdin.take().context("ip has no stdin")?;
    stdin.write_all(input.as_bytes()).context("feeding ip")?;
    drop(stdin);
    let output = child.wait_with_output().context("waiting for ip")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
