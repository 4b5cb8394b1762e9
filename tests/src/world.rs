//! The whole of it: internet, office, gateway and router of one lab, started, and what the home does with them.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::device::{Answer, Device, read_lease};
use crate::internet::Internet;
use crate::office::{Office, PROVISIONING_PORT};
use crate::pop::{GATEWAY_INNER, Pop};
use crate::process::Running;
use crate::programs::Programs;
use crate::relay::Relay;
use crate::router::{Image, Router};
use crate::topology::{GATEWAY, Lab, OFFICE, WEB};
use crate::wait::wait_until;
use crate::wireguard_go::{WgKey, WgPeer, WireGuardGo};
use crate::zones::PAGE_NAME;

/// An enrolment, a first handshake and a first lookup take well under a second each.
const PROTECTED_WITHIN: Duration = Duration::from_secs(30);

/// A lab with everything in it. The daemons are options so that a test can take one away.
#[derive(Debug)]
pub struct World {
    /// The agent, once the router is on.
    pub agent: Option<Running>,
    /// The gateway.
    pub gateway: Option<Running>,
    /// The provisioning server.
    pub provisioning: Option<Running>,
    /// How the gateway is configured and started.
    pub pop: Pop,
    /// How the router is configured and started.
    pub router: Router,
    /// Provisioning's command line and image.
    pub office: Office,
    /// Everybody else's services.
    pub internet: Internet,
    /// The namespaces; dropped last.
    pub lab: Lab,
}

impl World {
    /// Everything but the router's agent is running.
    pub fn new() -> Result<Self> {
        Self::in_lab(Lab::for_test()?, &Image::default())
    }

    /// Everything is running and the home is protected.
    pub fn protected() -> Result<Self> {
        let mut world = Self::new()?;
        world.enrol()?;
        Ok(world)
    }

    /// Everything but the router's agent is running, and the gateway has a relay.
    pub fn with_relay(relay: Relay) -> Result<Self> {
        Self::build(Lab::for_test()?, &Image::default(), relay)
    }

    /// Builds the world in a given lab and for a given image.
    pub fn in_lab(lab: Lab, image: &Image) -> Result<Self> {
        Self::build(lab, image, Relay::Without)
    }

    /// Everything is running and the home is protected, over the first of the router's two WANs.
    pub fn with_two_wans(relay: Relay) -> Result<Self> {
        let lab = Lab::for_test()?;
        lab.add_second_wan()?;
        let mut world = Self::build(lab, &Image::default(), relay)?;
        world
            .router
            .edit_config(|text| text.replace("\"wan0\"", "\"wan0\"\nbackup = \"wan1\""))?;
        world.enrol()?;
        Ok(world)
    }

    fn build(lab: Lab, image: &Image, relay: Relay) -> Result<Self> {
        let programs = Programs::of_this_build()?;
        let internet = Internet::start(&lab)?;
        let office = Office::init(&lab, &programs)?;
        let provisioning = office.start()?;
        let pop = Pop::install_as(&lab, &programs, &office, &internet.zones, relay)?;
        let gateway = pop.start()?;
        let router = Router::flash_as(&lab, &programs, &office, "router", image)?;
        Ok(Self {
            agent: None,
            gateway: Some(gateway),
            provisioning: Some(provisioning),
            pop,
            router,
            office,
            internet,
            lab,
        })
    }

    /// Switches the router on.
    pub fn power_on(&mut self) -> Result<()> {
        self.agent = Some(self.router.start()?);
        Ok(())
    }

    /// Switches the router on with a new claim code and waits for protection.
    pub fn enrol(&mut self) -> Result<()> {
        let code = self.office.claim()?;
        self.power_on()?;
        self.router.enrol(&code)?;
        self.wait_protected()
    }

    /// A device with a lease and no agent, and the lease's addresses. The gateway knows of it.
    pub fn leased_device(&self) -> Result<(Device, Vec<String>)> {
        let leased = || Ok::<_, anyhow::Error>(self.pop.status()?["peers"]["leased"].as_u64());
        let (device, before) = (Device::default(), leased()?);
        let server = SocketAddr::new(OFFICE.parse().context("an address")?, PROVISIONING_PORT);
        let code = self.office.claim()?;
        let answer = self
            .lab
            .router
            .enter(|| device.enrol(server, Some(&code)))?;
        let Answer::Leased(lease) = answer else {
            bail!("not leased: {answer:?}")
        };
        wait_until("the gateway has the lease", Duration::from_secs(10), || {
            Ok((leased()? > before).then_some(()))
        })?;
        let addresses = read_lease(&lease)?.addresses;
        Ok((device, addresses.iter().map(ToString::to_string).collect()))
    }

    /// Another home, whose lease has no rate: a wireguard-go that stands in the office and reaches these addresses through the
    /// gateway. To be there before the router is on, from whose place it enrols.
    pub fn neighbour(&self, reaches: &[&str]) -> Result<(WireGuardGo, Device)> {
        let (device, addresses) = self.leased_device()?;
        let key = WgKey::of_private(device.wireguard_private())?;
        let hosts = [&[GATEWAY_INNER], reaches].concat();
        let gateway = WgPeer {
            public: self.pop.wireguard.clone(),
            endpoint: Some(format!("{GATEWAY}:51820")),
            allowed: hosts.iter().map(|host| format!("{host}/32")).collect(),
        };
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let office = &self.lab.office;
        let go = WireGuardGo::start(&self.lab, office, &key, 0, &addresses, &[gateway])?;
        wait_until("the neighbour is connected", PROTECTED_WITHIN, || {
            let ping = ["ping", "-c", "1", "-W", "1", GATEWAY_INNER];
            office.run(&ping).map(Some)
        })?;
        Ok((go, device))
    }

    /// Waits for protection; an agent that ends before is an error with its last words.
    pub fn wait_protected(&mut self) -> Result<()> {
        let agent = self.agent.as_mut().context("the router is off")?;
        agent.wait_ready("protects the home", PROTECTED_WITHIN, || {
            let status = self.router.status()?;
            ensure!(status["state"] == "protected", "it says {status}");
            Ok(Some(()))
        })
    }

    /// Fetches the page by name from the home, once.
    pub fn page(&self) -> Result<()> {
        let url = format!("http://{PAGE_NAME}/");
        let body = self
            .lab
            .home
            .run(&["curl", "-sSf", "--max-time", "4", &url])?;
        ensure!(body.contains("It works"), "another page: {body}");
        Ok(())
    }

    /// Fetches the page until it comes and says how long that took.
    pub fn page_within(&self, within: Duration) -> Result<Duration> {
        let start = Instant::now();
        wait_until("the page comes", within, || self.page().map(Some))?;
        Ok(start.elapsed())
    }

    /// A home that pings the internet five times a second until it is stopped.
    pub fn pings(&self) -> Result<Running> {
        self.lab
            .home
            .spawn("pings", "ping", &["-i", "0.2", WEB].map(OsStr::new))
    }

    /// Asks the router for a name from the home and gives dig's output.
    pub fn dig(&self, args: &[&str]) -> Result<String> {
        self.lab
            .home
            .run(&[&["dig", "+time=3", "+tries=1"], args].concat())
    }

    /// Tries to get out of the home as if there were no agent; whatever is answered is an error.
    pub fn try_in_clear(&self) -> Result<()> {
        let attempts: [&[&str]; 4] = [
            &[
                "dig",
                "+time=1",
                "+tries=1",
                "@203.0.113.54",
                PAGE_NAME,
                "A",
            ],
            &[
                "dig",
                "+time=1",
                "+tries=1",
                "+tcp",
                "@203.0.113.54",
                PAGE_NAME,
                "A",
            ],
            &["ping", "-c", "2", "-i", "0.2", "-W", "1", WEB],
            &[
                "curl",
                "-sf",
                "--max-time",
                "1",
                "-o",
                "/dev/null",
                "http://203.0.113.10/",
            ],
        ];
        for attempt in attempts {
            if self.lab.home.output(attempt)?.status.success() {
                bail!(
                    "`{}` from the home was answered although nothing protects it",
                    attempt.join(" ")
                );
            }
        }
        Ok(())
    }

    /// Fetches the big file from the home, with more arguments for curl, and compares every byte.
    pub fn download(&self, more: &[&str]) -> Result<()> {
        let got = self.lab.work().join("got.bin");
        let got_text = got.to_string_lossy();
        let url = format!("http://{PAGE_NAME}/hundred.bin");
        self.lab.home.run(
            &[
                &[
                    "curl",
                    "-sSf",
                    "--max-time",
                    "100",
                    "-o",
                    got_text.as_ref(),
                    &url,
                ],
                more,
            ]
            .concat(),
        )?;
        self.lab.home.run(&[
            "cmp",
            got_text.as_ref(),
            &self.internet.download.to_string_lossy(),
        ])?;
        std::fs::remove_file(&got).context("removing the download")
    }

    /// Leaves everything running and gives the script that removes it.
    pub fn keep(self) -> Result<PathBuf> {
        let Self {
            agent,
            gateway,
            provisioning,
            internet,
            lab,
            ..
        } = self;
        for daemon in [agent, gateway, provisioning].into_iter().flatten() {
            daemon.let_go();
        }
        internet.let_go();
        lab.keep()
    }

    /// Ends the daemons as an operator does and removes the lab; what does not end by itself is an error.
    pub fn remove(self) -> Result<()> {
        let Self {
            agent,
            gateway,
            provisioning,
            internet,
            lab,
            ..
        } = self;
        for daemon in [agent, gateway, provisioning].into_iter().flatten() {
            let status = daemon.terminate()?;
            ensure!(
                status.success(),
                "a daemon ended with {status} when it was asked to end"
            );
        }
        drop(internet);
        lab.remove()
    }

    /// The last words of the three daemons, for a report of what went wrong.
    pub fn last_words(&self) -> String {
        [
            ("agent", &self.agent),
            ("gateway", &self.gateway),
            ("provisioning", &self.provisioning),
        ]
        .into_iter()
        .filter_map(|(name, daemon)| {
            daemon
                .as_ref()
                .map(|d| format!("--- {name}\n{}\n", d.log_tail()))
        })
        .collect()
    }
}
