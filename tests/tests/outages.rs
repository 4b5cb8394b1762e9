//! What an outage must not take: a running download, a confirmed record, a typed code, the way back without provisioning.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lab::{
    Answer, Device, Lab, MANY_NAMES, NAME_MARKER, Observer, Office, PAGE_MARKER, PAGE_NAME,
    Programs, StreamReader, WEB, World, said, wait_for, wait_until,
};
use serde_json::Value;

const SERVER: &str = "198.18.2.2:8443";
/// The part of the big file that one curl fetches, slowly enough to end after all that is done meanwhile.
const PART_BYTES: u64 = 40_000_000;
const RATE: &str = "6M";
/// A gateway that lost provisioning asks again with pauses that grow.
const HEARD_AGAIN_WITHIN: Duration = Duration::from_secs(20);

fn size(path: &Path) -> u64 {
    fs::metadata(path).map(|m| m.len()).unwrap_or(0)
}

/// Everything that an operator can read of the store; both logs are built again for it.
fn store(office: &Office) -> Vec<Value> {
    [
        ["device", "list"],
        ["claim", "list"],
        ["gateway", "list"],
        ["alerts", "list"],
        ["log", "verify"],
    ]
    .map(|question| office.cli_json(&question).unwrap())
    .to_vec()
}

#[test]
fn one_curl_without_a_retry_does_not_notice_a_kill_of_provisioning_whose_store_loses_nothing() {
    let mut world = World::protected().unwrap();
    world.office.claim().unwrap();
    let before = store(&world.office);
    let got = world.lab.work().join("part.bin");
    let range = format!("0-{}", PART_BYTES - 1);
    let url = format!("http://{PAGE_NAME}/hundred.bin");
    let mut curl = world.lab.home.command("curl");
    curl.args(["-sSf", "--limit-rate", RATE, "-r", &range, "-o"])
        .args([got.as_os_str(), url.as_ref()]);
    let mut curl = world.lab.home.spawn_command("curl", curl).unwrap();
    let goes_on = || {
        let from = size(&got);
        wait_for("the download goes on", Duration::from_secs(5), || {
            size(&got) > from + 3_000_000
        })
        .unwrap();
    };

    goes_on();
    world.provisioning.take().unwrap().kill().unwrap();
    goes_on();
    let while_away = store(&world.office);
    world.provisioning = Some(world.office.start().unwrap());
    goes_on();

    assert_eq!(while_away, before);
    assert_eq!(store(&world.office), before);
    assert!(
        curl.ended().is_none(),
        "it ended before provisioning was back"
    );
    let status = curl.finish(Duration::from_secs(30)).unwrap();
    assert!(status.success(), "{status}: {}", curl.log());
    let bytes = PART_BYTES.to_string();
    let original = world.internet.download.to_string_lossy().into_owned();
    assert_eq!(size(&got), PART_BYTES);
    let compare = ["cmp", "-n", &bytes, &got.to_string_lossy(), &original];
    world.lab.home.run(&compare).unwrap();
    wait_until("the gateway hears it again", HEARD_AGAIN_WITHIN, || {
        let status = world.pop.status()?;
        Ok(status["shards"][0]["error"].is_null().then_some(()))
    })
    .unwrap();
}

#[test]
fn after_a_power_cut_everywhere_home_and_gateway_are_back_before_provisioning_is() {
    let mut world = World::protected().unwrap();
    world.page().unwrap();
    let before = store(&world.office);
    let lease = world.router.status().unwrap()["lease"].clone();
    let observer = Observer::start(&world.lab).unwrap();

    world.provisioning.take().unwrap().kill().unwrap();
    world.gateway.take().unwrap().kill().unwrap();
    world.agent.take().unwrap().kill().unwrap();
    world.try_in_clear().unwrap();
    world.gateway = Some(world.pop.start().unwrap());
    world.power_on().unwrap();
    let back = world.page_within(Duration::from_secs(10)).unwrap();

    println!(
        "the page came {:.2} s after the agent could be talked to",
        back.as_secs_f32()
    );
    world.wait_protected().unwrap();
    assert_eq!(world.router.status().unwrap()["lease"], lease);
    assert_eq!(world.pop.status().unwrap()["peers"]["leased"], 1);
    let new_name = format!("n0.{MANY_NAMES}");
    assert_eq!(world.dig(&["+short", &new_name]).unwrap().trim(), WEB);
    world
        .lab
        .home
        .run(&["ping", "-6", "-c", "1", "-W", "2", lab::WEB_V6])
        .unwrap();
    assert_eq!(store(&world.office), before);
    world.provisioning = Some(world.office.start().unwrap());
    assert_eq!(store(&world.office), before);
    let markers = [NAME_MARKER, PAGE_MARKER];
    let findings = observer.saw_nothing_in_clear(&world.lab, &markers).unwrap();
    assert!(findings.wireguard > 0, "{findings:?}");
}

#[test]
fn a_code_typed_while_provisioning_is_away_outlives_a_crash_of_the_agent() {
    let mut world = World::new().unwrap();
    let code = world.office.claim().unwrap();
    world.provisioning.take().unwrap().kill().unwrap();
    world.power_on().unwrap();
    let kept = world.router.state_dir().join("claim");

    let router = world.router.clone();
    let agent = world.agent.take().unwrap();
    let typed = std::thread::scope(|scope| {
        let typing = scope.spawn(|| router.try_enrol(&code).unwrap());
        wait_for("the code is kept", Duration::from_secs(5), || kept.exists()).unwrap();
        agent.kill().unwrap();
        typing.join().unwrap()
    });
    world.provisioning = Some(world.office.start().unwrap());
    world.power_on().unwrap();
    world.wait_protected().unwrap();

    assert!(
        !typed.status.success(),
        "it enrolled with nobody: {}",
        said(&typed)
    );
    assert!(!kept.exists(), "a used code is left on flash");
    world.page_within(Duration::from_secs(10)).unwrap();
    assert_eq!(world.office.devices().unwrap().len(), 1);
}

const ENROLLERS: usize = 4;
const KILLS: usize = 6;

/// A device that was told that it is enrolled.
struct Confirmed {
    device: Device,
    code: String,
    lease: Vec<u8>,
}

/// Enrols one device after another and asks again whenever the server dies meanwhile.
fn enrol_until(
    stop: &AtomicBool,
    office: &Office,
    confirmed: &Mutex<Vec<Confirmed>>,
) -> anyhow::Result<()> {
    let server: SocketAddr = SERVER.parse()?;
    while !stop.load(Ordering::Relaxed) {
        let code = office.claim()?;
        let device = Device::default();
        let lease = wait_until(
            "the device is enrolled",
            Duration::from_secs(20),
            || match device.enrol(server, Some(&code))? {
                Answer::Leased(lease) => Ok(Some(lease)),
                Answer::Refused(503, _) => Ok(None),
                Answer::Refused(status, code) => panic!("refused: {status} {code}"),
            },
        )?;
        confirmed.lock().unwrap().push(Confirmed {
            device,
            code,
            lease,
        });
    }
    Ok(())
}

#[test]
fn no_enrolment_that_was_confirmed_is_lost_when_provisioning_is_killed_under_others() {
    let lab = Lab::for_test().unwrap();
    let office = Office::init(&lab, &Programs::of_this_build().unwrap()).unwrap();
    let gateway = StreamReader::default().public();
    office.add_silent_gateway(&gateway).unwrap();
    let confirmed = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    let mut server = office.start().unwrap();

    // The last server is handed out: the devices that still wait enrol at it.
    let _server = std::thread::scope(|scope| {
        for _ in 0..ENROLLERS {
            scope.spawn(|| {
                let enrol = || enrol_until(&stop, &office, &confirmed);
                lab.office.enter(enrol).unwrap();
            });
        }
        for _ in 0..KILLS {
            let count = || confirmed.lock().unwrap().len();
            let before = count();
            wait_for("some more are enrolled", Duration::from_secs(20), || {
                count() > before + 3
            })
            .unwrap();
            server.kill().unwrap();
            server = office.start().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        server
    });

    let confirmed = confirmed.into_inner().unwrap();
    let devices = office.devices().unwrap();
    for Confirmed { device, .. } in &confirmed {
        let id = device.id();
        let listed = devices.iter().find(|listed| listed["device"] == *id);
        assert_eq!(listed.unwrap()["epoch"], 1, "{id}");
    }
    assert_eq!(devices.len(), confirmed.len());
    let verified = office.cli_json(&["log", "verify"]).unwrap();
    assert_eq!(verified["leases"], confirmed.len());
    let answers = lab.office.enter(|| {
        let server = SERVER.parse()?;
        let again = |c: &Confirmed| c.device.enrol(server, Some(&c.code));
        confirmed
            .iter()
            .map(again)
            .collect::<anyhow::Result<Vec<_>>>()
    });
    for (answer, before) in answers.unwrap().into_iter().zip(&confirmed) {
        assert_eq!(answer, Answer::Leased(before.lease.clone()));
    }
    println!("{} devices over {KILLS} kills", confirmed.len());
}
