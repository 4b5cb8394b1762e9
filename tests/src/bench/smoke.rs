//! Throughput of one TCP stream through our tunnel and through wireguard-go's, from the router to the gateway's site.

use std::time::Duration;

use anyhow::{Context, Result};

use super::report::{Better, Row};
use crate::iperf::{IperfServer, Way, stream};
use crate::office::Office;
use crate::pop::{GATEWAY_INNER, Pop};
use crate::programs::Programs;
use crate::router::{Image, Router};
use crate::topology::{GATEWAY, Lab};
use crate::wireguard_go::{WgKey, WgPeer, WireGuardGo};
use crate::zones::Zones;

const ROUNDS: usize = 5;
const SECONDS: u32 = 4;
/// The goal for a first light: at least equal.
const GOAL: f64 = 1.0;
const PEER: &str = "wireguard-go 0.0.20220316";
const PEER_PORT: u16 = 51900;

pub(super) fn run(say: &dyn Fn(&str)) -> Result<Vec<Row>> {
    say("building a lab with both tunnels");
    let lab = Lab::for_test()?;
    let programs = Programs::of_this_build()?;
    let office = Office::init(&lab, &programs)?;
    let _provisioning = office.start()?;
    let zones = Zones::make(&lab.folder("zones")?)?;
    let pop = Pop::install(&lab, &programs, &office, &zones)?;
    let _gateway = pop.start()?;
    // wireguard-go's datagrams leave the same router, which a kill-switch would stop.
    let router = Router::flash_as(
        &lab,
        &programs,
        &office,
        "router",
        &Image {
            open: true,
            ..Image::default()
        },
    )?;
    let _agent = router.start()?;
    router.enrol(&office.claim()?)?;
    router.wait_protected(Duration::from_secs(30))?;
    let _theirs = peer_tunnel(&lab)?;
    let _servers = [
        IperfServer::start(&lab.pop, GATEWAY_INNER)?,
        IperfServer::start(&lab.pop, "10.99.0.1")?,
    ];

    let mut rounds = [const { Vec::new() }; 2];
    for round in 1..=ROUNDS {
        for (way, pairs) in [Way::Up, Way::Down].into_iter().zip(&mut rounds) {
            let measure = |server| stream(&lab.router, server, way, SECONDS);
            // Who goes first alternates, so that neither always finds the machine warm.
            let (ours, theirs) = if round % 2 == 1 {
                let ours = measure(GATEWAY_INNER)?;
                (ours, measure("10.99.0.1")?)
            } else {
                let theirs = measure("10.99.0.1")?;
                (measure(GATEWAY_INNER)?, theirs)
            };
            say(&format!(
                "round {round}/{ROUNDS}, {way}: ours {ours:.3} Gb/s, {PEER} {theirs:.3} Gb/s"
            ));
            pairs.push((ours, theirs));
        }
    }
    lab.remove().context("removing the bench's lab")?;
    let [up, down] = rounds;
    Ok(vec![
        Row::compare(
            "one TCP stream, router to gateway",
            PEER,
            "Gb/s",
            Better::More,
            &up,
            Some(GOAL),
        )?,
        Row::compare(
            "one TCP stream, gateway to router",
            PEER,
            "Gb/s",
            Better::More,
            &down,
            Some(GOAL),
        )?,
    ])
}

fn peer_tunnel(lab: &Lab) -> Result<[WireGuardGo; 2]> {
    // A route of its own keeps wireguard-go's datagrams out of our tunnel.
    lab.router
        .run(&["ip", "route", "add", "198.18.1.0/24", "via", "198.18.0.1"])?;
    let (router_key, pop_key) = (WgKey::generate()?, WgKey::generate()?);
    let to_router = WgPeer {
        public: router_key.public.clone(),
        endpoint: None,
        allowed: vec!["10.99.0.2/32".into()],
    };
    let to_pop = WgPeer {
        public: pop_key.public.clone(),
        endpoint: Some(format!("{GATEWAY}:{PEER_PORT}")),
        allowed: vec!["10.99.0.1/32".into()],
    };
    Ok([
        WireGuardGo::start(
            lab,
            &lab.pop,
            &pop_key,
            PEER_PORT,
            &["10.99.0.1/24"],
            &[to_router],
        )?,
        WireGuardGo::start(
            lab,
            &lab.router,
            &router_key,
            PEER_PORT,
            &["10.99.0.2/24"],
            &[to_pop],
        )?,
    ])
}
