//! The internet beyond the lab's own: addresses that a relay takes for hosts of the internet, and another operator's gateway at
//! one of them, whose resolver anybody may ask. Nothing of it belongs to the operator whose gateway carries the home.

use anyhow::{Context, Result};

use crate::internet::Internet;
use crate::office::Office;
use crate::pop::Pop;
use crate::process::Running;
use crate::programs::Programs;
use crate::router::{Image, Router};
use crate::topology::Lab;
use crate::world::World;
use crate::zones::Zones;

/// Where the other operator's resolver listens; the lab's own addresses are documentation's, and no relay forwards to these.
pub const ABROAD: &str = "11.0.0.10";
/// An address of the same internet for programs of other hands, in `internet`.
pub const ELSEWHERE: &str = "11.0.0.11";

/// Another operator's gateway, in `pop2`, without subscribers of its own.
#[derive(Debug)]
pub struct Abroad {
    /// How it is configured.
    pub pop: Pop,
    /// The stamp of its resolver's public address.
    pub stamp: String,
    /// Its process.
    pub gateway: Running,
}

impl Abroad {
    /// Starts it in a lab that has no second site.
    pub fn start(lab: &Lab, programs: &Programs, zones: &Zones) -> Result<Self> {
        lab.add_second_pop()?;
        reach_elsewhere(lab)?;
        let address = format!("{ABROAD}/32");
        lab.pop2
            .run(&["ip", "addr", "add", &address, "dev", "lo"])?;
        let way = ["via", "198.51.100.1"];
        let route = [&["ip", "route", "add", &address], &way[..]].concat();
        lab.internet.run(&route)?;
        // Its server is away, which its resolver does not mind.
        let office = Office::init_in(lab, programs, "abroad")?;
        let pop = Pop::install_second(lab, programs, &office, zones)?;
        pop.edit_config(|text| {
            let open = format!("public-listen = [\"{ABROAD}:443\"]\nprovider-name");
            text.replace("provider-name", &open)
        })?;
        let stamps = pop.print_stamps(&["--all"])?;
        let stamp = stamps
            .lines()
            .last()
            .context("no stamp of the public address")?;
        Ok(Self {
            stamp: stamp.to_owned(),
            gateway: pop.start()?,
            pop,
        })
    }

    /// A world whose home asks this resolver alone, through the relay of its own operator's gateway.
    pub fn with_home() -> Result<(Self, World)> {
        let (abroad, mut world) = Self::before_home()?;
        world.enrol()?;
        Ok((abroad, world))
    }

    /// The same with the router switched off.
    pub fn before_home() -> Result<(Self, World)> {
        let lab = Lab::for_test()?;
        let programs = Programs::of_this_build()?;
        let internet = Internet::start(&lab)?;
        let abroad = Self::start(&lab, &programs, &internet.zones)?;
        let office = Office::init(&lab, &programs)?;
        let provisioning = office.start()?;
        let zones = &internet.zones;
        let pop = Pop::install_forwarding(&lab, &programs, &office, zones, &abroad.stamp)?;
        let gateway = pop.start()?;
        let router = Router::flash_as(&lab, &programs, &office, "router", &Image::default())?;
        let world = World {
            agent: None,
            gateway: Some(gateway),
            provisioning: Some(provisioning),
            pop,
            router,
            office,
            internet,
            lab,
        };
        Ok((abroad, world))
    }
}

/// Makes the lab's internet one that has [`ELSEWHERE`] and carries packets between sites.
fn reach_elsewhere(lab: &Lab) -> Result<()> {
    let internet = &lab.internet;
    internet.run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
    let address = format!("{ELSEWHERE}/32");
    internet.run(&["ip", "addr", "add", &address, "dev", "lo"])?;
    Ok(())
}
