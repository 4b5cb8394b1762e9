//! Volume by network of the internet: near what passed, and without a word of whose it was.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::time::Duration;

use lab::{World, wait_until};

/// One packet of each hundred is drawn, and most have one length: far better than chance alone.
const NEAR: std::ops::RangeInclusive<f64> = 0.95..=1.05;

fn metrics(world: &World) -> String {
    let metrics = ["curl", "-sf", "http://127.0.0.1:9101/metrics"];
    world.lab.pop.run(&metrics).unwrap()
}

fn sampled(metrics: &str, direction: &str, network: &str) -> Option<f64> {
    let name = format!("culvert_gateway_sampled_{direction}_bytes_total{{network=\"{network}\"}} ");
    let line = metrics.lines().find_map(|line| line.strip_prefix(&name))?;
    line.parse().ok()
}

#[test]
fn a_download_is_estimated_by_its_network_and_no_subscriber_is_named() {
    let mut world = World::new().unwrap();
    let prefixes = world.lab.work().join("prefixes");
    fs::write(
        &prefixes,
        "203.0.113.0/24 64500\n2001:db8:f::/64 never-used\n",
    )
    .unwrap();
    let table = format!(
        "\n[sampling]\none-in = 100\nprefixes = \"{}\"\n",
        prefixes.display()
    );
    world.pop.edit_config(|text| text + &table).unwrap();
    drop(world.gateway.take());
    world.gateway = Some(world.pop.start().unwrap());
    world.enrol().unwrap();
    let before = metrics(&world);
    assert_eq!(sampled(&before, "to_routers", "never-used"), None);

    world.download(&[]).unwrap();

    let carried = world.pop.status().unwrap()["tunnel"]["tx_bytes"].as_f64();
    let carried = carried.unwrap();
    let (text, estimate) = wait_until("the metrics follow", Duration::from_secs(5), || {
        let text = metrics(&world);
        let estimate = sampled(&text, "to_routers", "AS64500");
        Ok(estimate
            .filter(|bytes| NEAR.contains(&(bytes / carried)))
            .map(|estimate| (text, estimate)))
    })
    .unwrap();
    println!("estimated {estimate}, carried {carried}");
    let devices = world.office.devices().unwrap();
    let device = devices[0]["device"].as_str().unwrap();
    for subscribers in [device, "10.64.0.", "fd64::"] {
        assert!(!text.contains(subscribers), "{subscribers} in {text}");
    }
    assert_eq!(sampled(&text, "to_routers", "never-used"), None);
}
