//! Two gateways in two sites, and a routing daemon (BIRD) at each and in the internet: what a gateway announces is where
//! the internet sends a home's packets.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::internet::Internet;
use crate::netns::Netns;
use crate::observer::allowed_in_the_lab;
use crate::office::Office;
use crate::pop::Pop;
use crate::process::Running;
use crate::programs::Programs;
use crate::router::{Image, Router};
use crate::topology::{GATEWAY_2, GATEWAY_2_V6, Lab};
use crate::wait::wait_until;
use crate::{Allowed, World};

/// The autonomous system of both sites, and of the internet.
const SITES_AS: u32 = 64_513;
const INTERNET_AS: u32 = 64_512;
/// BGP sessions of the lab stand within seconds of their daemons' start.
const ROUTED_WITHIN: Duration = Duration::from_secs(20);
/// A standby is warm within seconds of the first packet.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Packets are lost, neighbours are not: the access network notices nothing, as with most cuts.
const CUT: &str = "table inet cut {
chain input {
type filter hook prerouting priority -400
iifname acc0 drop
}
chain output {
type filter hook output priority -400
oifname acc0 drop
}
}
";

/// One end of a link between a site and the internet.
struct Link {
    site: [&'static str; 2],
    internet: [&'static str; 2],
}

const LINKS: [Link; 2] = [
    Link {
        site: ["203.0.113.1", "2001:db8:f::1"],
        internet: ["203.0.113.10", "2001:db8:f::10"],
    },
    Link {
        site: ["198.51.100.1", "2001:db8:e0::1"],
        internet: ["198.51.100.10", "2001:db8:e0::10"],
    },
];

/// A world whose home has two gateways.
#[derive(Debug)]
pub struct Sites {
    /// Everything but the gateways.
    pub world: World,
    /// The gateways, `gw1` and `gw2`.
    pub pops: [Pop; 2],
    /// Those that run.
    pub gateways: [Option<Running>; 2],
    // Ended before the lab is removed.
    _routing: Vec<Running>,
}

impl Sites {
    /// Everything is running, the home is protected, and both gateways are ready for it.
    pub fn protected() -> Result<Self> {
        Self::in_lab(Lab::for_test()?)
    }

    /// The same in a lab whose wires somebody has seen to.
    pub fn in_lab(lab: Lab) -> Result<Self> {
        lab.add_second_pop()?;
        let programs = Programs::of_this_build()?;
        let internet = Internet::start(&lab)?;
        let office = Office::init(&lab, &programs)?;
        let provisioning = office.start()?;
        let first = Pop::install(&lab, &programs, &office, &internet.zones)?;
        let second = Pop::install_second(&lab, &programs, &office, &internet.zones)?;
        let pops = [first, second];
        for pop in &pops {
            pop.edit_config(announced)?;
        }
        let gateways = [Some(pops[0].start()?), Some(pops[1].start()?)];
        let routing = start_routing(&lab)?;
        let router = Router::flash_as(&lab, &programs, &office, "router", &Image::default())?;
        let world = World {
            agent: None,
            gateway: None,
            provisioning: Some(provisioning),
            pop: pops[0].clone(),
            router,
            office,
            internet,
            lab,
        };
        let mut sites = Self {
            world,
            pops,
            gateways,
            _routing: routing,
        };
        sites.world.enrol()?;
        sites.world.page_within(ROUTED_WITHIN)?;
        wait_until("both gateways are ready", READY_WITHIN, || {
            // A home at work.
            sites.world.page()?;
            let states = sites.gateway_lines()?;
            let is_ready = |line: &Value| line["state"] == "well" && line["rtt_ms"].is_u64();
            Ok((states.len() == 2 && states.iter().all(is_ready)).then_some(()))
        })?;
        Ok(sites)
    }

    /// What the agent says of its gateways, the preferred first.
    pub fn gateway_lines(&self) -> Result<Vec<Value>> {
        let status = self.world.router.status()?;
        let lines = status["gateways"].as_array().cloned();
        lines.with_context(|| format!("no `gateways` in {status}"))
    }

    /// The number of the gateway that carries the home, 0 or 1.
    pub fn active(&self) -> Result<usize> {
        let lines = self.gateway_lines()?;
        let active = lines.iter().find(|line| line["active"] == true);
        let name = active.map(|line| line["name"].clone());
        ["gw1", "gw2"]
            .iter()
            .position(|known| name.as_ref().is_some_and(|name| name == known))
            .with_context(|| format!("no gateway is active: {lines:?}"))
    }

    /// Waits until the other gateway than `left` carries the home, and says how long that took.
    pub fn wait_moved(&self, left: usize, within: Duration) -> Result<Duration> {
        let start = Instant::now();
        wait_until("the home moves", within, || {
            Ok((self.active()? != left).then_some(()))
        })?;
        Ok(start.elapsed())
    }

    /// `kill -9` of a gateway.
    pub fn kill(&mut self, n: usize) -> Result<Instant> {
        let gateway = self.gateways.get_mut(n).and_then(Option::take);
        let killed = Instant::now();
        gateway.context("the gateway is off")?.kill()?;
        Ok(killed)
    }

    /// Cuts a site off from the access network; its gateway runs on and still speaks to the internet.
    pub fn cut_off(&mut self, n: usize) -> Result<Instant> {
        let lab = &self.world.lab;
        let netns = [&lab.pop, &lab.pop2];
        let netns = netns.get(n).context("there are two sites")?;
        let cut = Instant::now();
        netns.run(&["nft", CUT])?;
        Ok(cut)
    }

    /// Starts a gateway again.
    pub fn restart(&mut self, n: usize) -> Result<()> {
        let pop = self.pops.get(n).context("there are two gateways")?;
        let running = pop.start()?;
        let place = self.gateways.get_mut(n).context("there are two gateways")?;
        *place = Some(running);
        Ok(())
    }

    /// `edge-gateway drain --json`, and then the gateway has ended.
    pub fn drain(&mut self, n: usize) -> Result<Value> {
        let told = self
            .pops
            .get(n)
            .context("there are two gateways")?
            .drain()?;
        let gateway = self.gateways.get_mut(n).and_then(Option::take);
        let status = gateway
            .context("the gateway is off")?
            .finish(Duration::from_secs(10))?;
        ensure!(status.success(), "the drained gateway ended with {status}");
        Ok(told)
    }

    /// The talks on the access wire that two gateways allow.
    pub fn allowed(&self) -> Result<Allowed> {
        let mut allowed = allowed_in_the_lab()?;
        for address in [GATEWAY_2, GATEWAY_2_V6] {
            allowed
                .gateways
                .push((address.parse::<std::net::IpAddr>()?, 51_820).into());
        }
        Ok(allowed)
    }
}

/// Inner addresses are routed, not translated: a translated connection would belong to one gateway.
fn announced(config: String) -> String {
    config.replace(
        "[nat]\ninterface = \"inet0\"\nipv4 = true\n",
        "[announce]\ntable = 17238\nprotocol = 67\n",
    )
}

fn start_routing(lab: &Lab) -> Result<Vec<Running>> {
    lab.internet
        .run(&["ip", "-6", "route", "del", "fd64::/48"])?;
    // Whatever is not announced goes nowhere, at any of the three.
    for netns in [&lab.pop, &lab.pop2, &lab.internet] {
        unreachable(netns, "10.64.0.0/16")?;
    }
    unreachable(&lab.internet, "fd64::/48")?;
    let mut daemons = vec![bird(
        lab,
        &lab.internet,
        "bird-internet",
        LINKS[0].internet[0],
        &internet_config(),
    )?];
    for (n, (link, netns)) in LINKS.iter().zip([&lab.pop, &lab.pop2]).enumerate() {
        let label = format!("bird-pop{n}");
        daemons.push(bird(lab, netns, &label, link.site[0], &site_config(link))?);
    }
    Ok(daemons)
}

fn unreachable(netns: &Netns, net: &str) -> Result<()> {
    let family = if net.contains(':') { "-6" } else { "-4" };
    let route = ["ip", family, "route", "add", "unreachable", net];
    netns.run(&[&route[..], &["metric", "4000000000"]].concat())?;
    Ok(())
}

/// Takes what the sites say into the kernel's main table.
fn internet_config() -> String {
    let kernel =
        |family| format!("protocol kernel {{ {family} {{ import none; export all; }}; }}\n");
    let mut config = kernel("ipv4") + &kernel("ipv6");
    for (n, link) in LINKS.iter().enumerate() {
        config += &session(
            &format!("pop{n}"),
            (INTERNET_AS, link.internet),
            (SITES_AS, link.site),
            "import all; export none",
        );
    }
    config
}

/// Says what stands in the gateway's table; of two sites that say the same the later wins.
fn site_config(link: &Link) -> String {
    let carried = |family| {
        format!(
            "protocol kernel carried_{family} {{ learn; kernel table 17238; scan time 1; {family} {{ import all; export none; }}; }}\n"
        )
    };
    let session = session(
        "site",
        (SITES_AS, link.site),
        (INTERNET_AS, link.internet),
        "import none; export filter later",
    );
    let filter = "filter later { bgp_med = krt_metric; accept; }\n";
    [filter, &carried("ipv4"), &carried("ipv6"), &session].concat()
}

/// A BGP session that carries both families.
fn session(
    name: &str,
    (local_as, local): (u32, [&str; 2]),
    (peer_as, peer): (u32, [&str; 2]),
    policy: &str,
) -> String {
    format!(
        "protocol bgp {name} {{\n local {} as {local_as};\n neighbor {} as {peer_as};\n hold time 3;\n keepalive time 1;\n\
         \x20connect delay time 1;\n connect retry time 1;\n error wait time 1, 2;\n\
         \x20ipv4 {{ {policy}; next hop self; }};\n ipv6 {{ {policy}; next hop address {}; }};\n}}\n",
        local[0], peer[0], local[1]
    )
}

fn bird(lab: &Lab, netns: &Netns, label: &str, id: &str, config: &str) -> Result<Running> {
    let dir = lab.folder(label)?;
    let text =
        format!("log stderr all;\nrouter id {id};\nprotocol device {{ scan time 1; }}\n{config}");
    let path = dir.join("bird.conf");
    fs::write(&path, text).context("writing BIRD's configuration")?;
    let socket = dir.join("bird.ctl");
    let args = [
        "-f".as_ref(),
        "-c".as_ref(),
        path.as_os_str(),
        "-s".as_ref(),
        socket.as_os_str(),
    ];
    let mut bird = netns.spawn(label, "/usr/sbin/bird", &args)?;
    bird.wait_ready("can be talked to", Duration::from_secs(10), || {
        Ok(socket.exists().then_some(()))
    })?;
    Ok(bird)
}
