//! The pre-shared keys of routers and gateways: agreed by ML-KEM-768, in use, and not to be talked away.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use ed25519_dalek::SigningKey;
use lab::{GATEWAY_INNER, World, wait_until};
use rand_core::OsRng;
use serde_json::Value;
use trust::{KemKey, KemStatement};

const PATIENCE: Duration = Duration::from_secs(60);

fn with_key(status: &Value) -> usize {
    status["peers"]["post_quantum"]
        .as_u64()
        .unwrap()
        .try_into()
        .unwrap()
}

fn is_post_quantum(world: &World) -> bool {
    let status = world.router.status().unwrap();
    status["tunnel"]["post_quantum"].as_bool().unwrap()
}

/// Waits until the gateway has told provisioning its ML-KEM key, as it does within its first second.
fn key_is_stated(world: &World) {
    wait_until("the gateway's key is stated", PATIENCE, || {
        Ok((store(world, "SELECT count(*) FROM kem_statement").trim() == "1").then_some(()))
    })
    .unwrap();
}

/// Asks provisioning's store itself, as somebody who holds the server could.
fn store(world: &World, sql: &str) -> String {
    let db = world.office.data().join("culvert.db");
    let db = db.to_string_lossy();
    let sqlite = ["sqlite3", "-cmd", ".timeout 5000", db.as_ref(), sql];
    world.lab.office.run(&sqlite).unwrap()
}

fn reasons(world: &World) -> String {
    world.router.status().unwrap()["reason"].to_string()
}

#[test]
fn a_home_is_sealed_with_an_agreed_key_and_stays_so_over_restarts() {
    let mut world = World::new().unwrap();
    key_is_stated(&world);
    world.enrol().unwrap();
    assert!(is_post_quantum(&world));
    assert_eq!(with_key(&world.pop.status().unwrap()), 1);

    // The gateway keeps no pre-shared key: it has to come out of the offer again, without provisioning.
    drop(world.provisioning.take());
    drop(world.gateway.take());
    world.gateway = Some(world.pop.start().unwrap());
    assert_eq!(with_key(&world.pop.status().unwrap()), 1);
    drop(world.agent.take());
    world.power_on().unwrap();
    world.wait_protected().unwrap();

    assert!(is_post_quantum(&world));
    world
        .lab
        .home
        .run(&["ping", "-c", "2", "-W", "2", GATEWAY_INNER])
        .unwrap();
}

#[test]
fn provisioning_that_puts_its_own_key_in_the_gateways_place_is_refused() {
    let mut world = World::new().unwrap();
    key_is_stated(&world);
    world.enrol().unwrap();
    let thief = SigningKey::from_bytes(&[66; 32]);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let own = KemStatement::sign(&thief, &KemKey::generate(&mut OsRng), now, now + 86_400);
    let hex: String = own
        .to_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    store(
        &world,
        &format!("UPDATE kem_statement SET statement = x'{hex}'"),
    );

    // A new tunnel key is to be agreed for, as after a renewal; what was there before is remembered.
    drop(world.agent.take());
    for name in ["keys", "lease"] {
        std::fs::remove_file(world.router.state_dir().join(name)).unwrap();
    }
    world.power_on().unwrap();
    wait_until("the router says why", PATIENCE, || {
        Ok(reasons(&world)
            .contains("post-quantum key alone")
            .then_some(()))
    })
    .unwrap();

    assert!(
        world
            .agent
            .as_ref()
            .unwrap()
            .log()
            .contains("hands out for a gateway is refused")
    );
    world.try_in_clear().unwrap();
    assert_ne!(world.router.status().unwrap()["state"], "protected");
}

#[test]
fn a_router_changes_tunnel_key_and_agreed_key_while_a_download_runs() {
    let mut world = World::new().unwrap();
    drop(world.provisioning.take());
    let short = |text: String| format!("{text}\n[lease]\nlifetime-s = 600\nrenew-after-s = 60\n");
    world.office.edit_config(short).unwrap();
    world.provisioning = Some(world.office.start().unwrap());
    key_is_stated(&world);
    world.enrol().unwrap();
    let agreed = || store(&world, "SELECT hex(statement) FROM psk_offer");
    let before = agreed();

    // 100 MB at this rate last longer than the 86 s after which such a lease is renewed at the latest.
    world
        .download(&["--limit-rate", "1100k", "--max-time", "110"])
        .unwrap();

    let status = world.router.status().unwrap();
    assert!(status["lease"]["epoch"].as_u64().unwrap() > 1, "{status}");
    assert!(is_post_quantum(&world));
    assert_ne!(agreed(), before);
}
