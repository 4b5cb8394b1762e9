//! The pre-shared keys of routers and gateways: agreed by ML-KEM-768, in use, and not to be talked away.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use lab::{GATEWAY, GATEWAY_INNER, WgKey, WgPeer, WireGuardGo, World, wait_until};
use rand_core::OsRng;
use serde_json::Value;
use trust::{KemKey, KemStatement};

/// Mark, kind and length before the content of a state file; a checksum after it.
const HEAD_BYTES: usize = 9;
const INITIATION_BYTES: u64 = 148;
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

fn set_off(text: String) -> String {
    text.replace("[tunnel]", "[tunnel]\npost-quantum = false")
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
fn who_has_stolen_the_static_keys_gets_no_session_without_the_agreed_key() {
    let mut world = World::new().unwrap();
    key_is_stated(&world);
    world.enrol().unwrap();
    let state = |name: &str| std::fs::read(world.router.state_dir().join(name)).unwrap();
    let (keys, psks) = (state("keys"), state("psks"));
    drop(world.agent.take());
    let stolen = WgKey::of_private(STANDARD.encode(&keys[HEAD_BYTES..HEAD_BYTES + 32])).unwrap();
    // One pinned gateway, then tunnel key, gateway and pre-shared key.
    let psk = STANDARD.encode(&psks[HEAD_BYTES + 1 + 32 + 64..][..32]);
    let gateway = WgPeer {
        public: world.pop.wireguard.clone(),
        endpoint: Some(format!("{GATEWAY}:51820")),
        allowed: vec!["10.64.0.1/32".into()],
    };
    let public = gateway.public.clone();
    let lab = &world.lab;
    let thief = WireGuardGo::start(lab, &lab.office, &stolen, 0, &[], &[gateway]).unwrap();

    let has_tried_twice = || {
        let show = ["wg", "show", thief.interface(), "transfer"];
        let table = lab.office.run(&show)?;
        let sent = table.split_whitespace().nth(2).unwrap_or("0");
        Ok((sent.parse::<u64>()? >= 2 * INITIATION_BYTES).then_some(()))
    };
    wait_until("the thief has tried twice", PATIENCE, has_tried_twice).unwrap();
    assert_eq!(thief.latest_handshake(&public).unwrap(), 0);
    thief.set_psk(&public, &psk, lab.work()).unwrap();

    wait_until("the agreed key makes the difference", PATIENCE, || {
        Ok((thief.latest_handshake(&public)? > 0).then_some(()))
    })
    .unwrap();
}

#[test]
fn a_gateway_that_states_no_key_works_as_before() {
    let mut world = World::new().unwrap();
    key_is_stated(&world);
    drop(world.gateway.take());
    world.pop.edit_config(set_off).unwrap();
    store(&world, "DELETE FROM kem_statement");
    world.gateway = Some(world.pop.start().unwrap());

    world.enrol().unwrap();

    assert!(!is_post_quantum(&world));
    assert_eq!(with_key(&world.pop.status().unwrap()), 0);
}

#[test]
fn a_router_that_wants_no_agreed_key_works_as_before() {
    let mut world = World::new().unwrap();
    key_is_stated(&world);
    world.router.edit_config(set_off).unwrap();

    world.enrol().unwrap();

    assert!(!is_post_quantum(&world));
    assert_eq!(with_key(&world.pop.status().unwrap()), 0);
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
