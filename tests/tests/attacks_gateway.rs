//! What a gateway does with a server that was put back to an old copy or that changes what it tells, and with a home that uses the lease of another.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use lab::{GATEWAY, GATEWAY_INNER, WgKey, WgPeer, WireGuardGo, World, wait_until};
use nix::sys::signal::Signal;
use trust::Lease;

const PATIENCE: Duration = Duration::from_secs(20);
/// The alarm is for a silence of a minute, which may begin with a question that is held for 25 s.
const SILENT_WITHIN: Duration = Duration::from_secs(120);

fn leased(world: &World) -> u64 {
    let status = world.pop.status().unwrap();
    status["peers"]["leased"].as_u64().unwrap()
}

/// Waits until the gateway has so many leases.
#[track_caller]
fn wait_leased(world: &World, count: u64) {
    wait_until("the gateway has as many leases", PATIENCE, || {
        Ok((leased(world) == count).then_some(()))
    })
    .unwrap();
}

/// How many entries of the stream came to this.
fn outcomes(world: &World, outcome: &str) -> u64 {
    let metrics = ["curl", "-sf", "http://127.0.0.1:9101/metrics"];
    let text = world.lab.pop.run(&metrics).unwrap();
    let line = format!("culvert_gateway_lease_changes_total{{outcome=\"{outcome}\"}} ");
    let counts = text.lines().filter_map(|text| text.strip_prefix(&line));
    counts.map(|count| count.parse::<u64>().unwrap()).sum()
}

fn revoke(world: &World, device: &str) {
    let verb = ["device", "revoke", device, "--reason", "lost"];
    world.office.cli(&verb).unwrap();
}

#[test]
fn a_gateway_whose_server_was_put_back_hears_of_new_leases_and_revocations_and_forgets_none() {
    let mut world = World::new().unwrap();
    let (kept, _) = world.leased_device().unwrap();
    let (lost, _) = world.leased_device().unwrap();
    let before = world.lab.work().join("before");
    world.office.copy_store(&before).unwrap();
    revoke(&world, &lost.id());
    wait_leased(&world, 1);

    world.provisioning.take().unwrap().terminate().unwrap();
    world.office.replace_store(&before).unwrap();
    world.provisioning = Some(world.office.start().unwrap());
    let heard = |world: &World| {
        wait_until("the gateway hears of it", PATIENCE, || {
            let log = world.gateway.as_ref().unwrap().log();
            Ok(log.contains("begun anew").then_some(()))
        })
    };
    heard(&world).unwrap();
    let (_new, _) = world.leased_device().unwrap();
    wait_leased(&world, 2);
    revoke(&world, &kept.id());
    wait_leased(&world, 1);

    world.gateway.take().unwrap().kill().unwrap();
    world.gateway = Some(world.pop.start().unwrap());
    assert_eq!(leased(&world), 1, "it has brought back who was revoked");
}

#[test]
fn a_gateway_admits_nobody_by_a_lease_whose_bytes_are_not_the_logged_ones() {
    let mut world = World::protected().unwrap();
    wait_leased(&world, 1);
    world.gateway.take().unwrap().terminate().unwrap();
    let (device, _) = enrolled(&world);
    let changed = "UPDATE lease SET salt = zeroblob(32) WHERE devid_hash = x'";
    let sql = format!("DROP TRIGGER lease_stays; {changed}{}'", device.id());
    world.office.sql(&sql).unwrap();

    world.gateway = Some(world.pop.start().unwrap());
    wait_until("it refuses the entry", PATIENCE, || {
        Ok((outcomes(&world, "refused") == 1).then_some(()))
    })
    .unwrap();
    assert_eq!(leased(&world), 1);
    let log = world.gateway.as_ref().unwrap().log();
    assert!(
        log.contains("refused an entry of the shard stream"),
        "{log}"
    );
    world.page_within(PATIENCE).unwrap();
    let _honest = enrolled(&world);
    wait_leased(&world, 2);
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = (0..hex.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

/// A device with a lease that the gateway has not heard of yet, and the lease's addresses.
fn enrolled(world: &World) -> (lab::Device, Vec<String>) {
    let device = lab::Device::default();
    let code = world.office.claim().unwrap();
    let server = "198.18.2.2:8443".parse().unwrap();
    let answer = world
        .lab
        .office
        .enter(|| device.enrol(server, Some(&code)))
        .unwrap();
    let lab::Answer::Leased(lease) = answer else {
        panic!("{answer:?}")
    };
    let lease = lab::read_lease(&lease).unwrap();
    let addresses = lease.addresses.iter().map(ToString::to_string);
    (device, addresses.collect())
}

/// Whether a home with this key and these addresses reaches the gateway from the office.
fn pings(world: &World, key: &WgKey, addresses: &[String]) -> bool {
    let gateway = WgPeer {
        public: world.pop.wireguard.clone(),
        endpoint: Some(format!("{GATEWAY}:51820")),
        allowed: vec![format!("{GATEWAY_INNER}/32")],
    };
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let office = &world.lab.office;
    let home = WireGuardGo::start(&world.lab, office, key, 0, &addresses, &[gateway]).unwrap();
    let ping = ["ping", "-c", "3", "-i", "0.2", "-W", "1", GATEWAY_INNER];
    let answered = office.output(&ping).unwrap().status.success();
    drop(home);
    answered
}

#[test]
fn a_home_with_a_lease_of_its_own_has_no_use_of_the_addresses_and_of_the_lease_of_another() {
    let mut world = World::new().unwrap();
    let (device, addresses) = world.leased_device().unwrap();
    world.enrol().unwrap();
    let status = world.router.status().unwrap();
    let theirs: Vec<String> = serde_json::from_value(status["lease"]["addresses"].clone()).unwrap();
    let dropped = |reason: &str| {
        let status = world.pop.status().unwrap();
        status["tunnel"]["dropped"][reason].as_u64().unwrap_or(0)
    };
    let key = WgKey::of_private(device.wireguard_private()).unwrap();

    assert!(pings(&world, &key, &addresses), "with its own it is a home");
    assert_eq!(dropped("source_mismatch"), 0);
    assert!(!pings(&world, &key, &theirs));
    assert!(dropped("source_mismatch") >= 3);
    let before = dropped("unknown_peer");
    assert!(!pings(&world, &WgKey::generate().unwrap(), &theirs));
    assert!(dropped("unknown_peer") > before);
    world.page_within(PATIENCE).unwrap();
}

#[test]
fn a_servers_word_that_a_router_is_revoked_ends_no_tunnel_as_long_as_no_log_says_so() {
    let world = World::protected().unwrap();
    let said = "UPDATE device SET revoked_at = 1, revoked_reason = 0";
    world.office.sql(said).unwrap();
    let code = world.office.claim().unwrap();
    let _asks = world.router.keep_asking(&code).unwrap();

    let status = wait_until("the router hears it", PATIENCE, || {
        let status = world.router.status()?;
        let reason = status["reason"].as_str().unwrap_or_default();
        Ok(reason.contains("revoked").then_some(status))
    })
    .unwrap();
    assert_eq!(status["state"], "protected");
    assert_eq!(leased(&world), 1);
    world.page_within(PATIENCE).unwrap();
}

#[test]
fn who_has_all_keys_of_a_server_leases_and_takes_no_address_of_a_gateway_or_of_a_home_that_is_there()
 {
    let world = World::new().unwrap();
    let (home, addresses) = world.leased_device().unwrap();
    let statement = world.office.sql("SELECT hex(statement) FROM lease");
    let theirs = Lease::from_bytes(&bytes(&statement.unwrap())).unwrap();
    let mint = |number: u8, address: &str| {
        let lease = Lease {
            devid_hash: [number; 32],
            wg_pub: [number; 32],
            addresses: vec![address.parse().unwrap()],
            ..theirs.clone()
        };
        world.office.forge_lease(&lease).unwrap();
    };
    let wait = |what: &str, happened: &dyn Fn() -> bool| {
        wait_until(what, PATIENCE, || Ok(happened().then_some(()))).unwrap();
    };
    let foreign = || outcomes(&world, "foreign_address");
    let unusable = || {
        let said = " verified leases could not be used; see the log";
        let status = world.pop.status().unwrap();
        let warnings = status["warnings"].as_array().unwrap().iter();
        let counts = warnings.filter_map(|one| one.as_str()?.strip_suffix(said));
        counts
            .map(|count| count.parse::<u64>().unwrap())
            .sum::<u64>()
    };

    // Nothing stops these yet: that takes servers that check each other's every entry.
    mint(1, "10.64.200.1/32");
    wait_leased(&world, 2);
    mint(2, "10.64.0.16/28");
    wait_leased(&world, 3);
    for (number, address) in (3..).zip([
        "10.64.0.1/32",
        "fd64::1/128",
        "10.64.0.0/24",
        "192.0.2.1/32",
    ]) {
        let before = foreign();
        mint(number, address);
        wait(address, &|| foreign() == before + 1);
    }
    for (number, address) in (10..).zip(&addresses) {
        let before = unusable();
        mint(number, address);
        wait(address, &|| unusable() == before + 1);
    }
    let log = world.gateway.as_ref().unwrap().log();
    assert!(log.contains("another device has its address"), "{log}");
    let key = WgKey::of_private(home.wireguard_private()).unwrap();
    assert!(pings(&world, &key, &addresses), "the home is cut off");
}

#[test]
fn a_gateway_whose_server_holds_everything_back_says_so_within_two_minutes_and_carries_whom_it_has()
{
    let world = World::protected().unwrap();
    let server = world.provisioning.as_ref().unwrap();
    let warned = || {
        let status = world.pop.status().unwrap();
        let warnings = status["warnings"].as_array().unwrap().clone();
        let silent = "provisioning silent for";
        warnings
            .iter()
            .any(|one| one.as_str().unwrap().contains(silent))
    };
    assert!(!warned());

    server.signal(Signal::SIGSTOP).unwrap();
    let told = wait_until("the gateway says so", SILENT_WITHIN, || {
        Ok(warned().then_some(()))
    });
    let page = world.page_within(PATIENCE);
    server.signal(Signal::SIGCONT).unwrap();
    told.unwrap();
    page.unwrap();
    wait_until("the gateway hears it again", PATIENCE, || {
        Ok((!warned()).then_some(()))
    })
    .unwrap();
}
