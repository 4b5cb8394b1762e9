//! Power cuts: what the disk holds after any prefix of the writes is a whole store, with everything in it that
//! was acknowledged by then, and nothing twice.

use std::collections::HashSet;
use std::fs;

use provisioning::changes::Changes;
use provisioning::clock::unix_now;
use provisioning::datadir::DataDir;
use provisioning::enrol::{Outcome, Request};
use provisioning::sequencer::{Jobs, Sequencer};
use provisioning::store::{FILE, Store, devices, leases, server_name};
use rand_core::OsRng;
use tempfile::TempDir;
use trust::{Anchors, ClaimCode, EnrolReq, ServerChallenge};
use x25519_dalek::StaticSecret;

use crate::rig::{self, DAY_S, Device, Gateway};

/// <https://www.sqlite.org/fileformat2.html#the_write_ahead_log>
const WAL_HEADER: usize = 32;
const FRAME: usize = 24 + 4096;

fn proved(device: &Device, claim: Option<&ClaimCode>) -> Request {
    let secret = StaticSecret::random_from_rng(OsRng);
    let challenge = ServerChallenge::new(&secret, [5; 32]);
    let exporter = [6; 32];
    let request: EnrolReq = device.answer(claim, &challenge, &exporter);
    Request::new(&request.check(&challenge, &secret, &exporter).unwrap())
}

async fn sequencer(dir: &DataDir, store: &Store) -> Jobs {
    let writer = store.writer().await.unwrap();
    let name = server_name(&mut store.read().await.unwrap()).await.unwrap();
    let keys = dir.log_keys(&name).unwrap();
    let (sequencer, jobs) = Sequencer::new(writer, keys, rig::lease_times(), Changes::new());
    drop(tokio::spawn(sequencer.run()));
    jobs
}

/// What was acknowledged once the log file had this length.
struct Acknowledged {
    wal_length: usize,
    device: [u8; 32],
    epoch: u64,
    statement: Vec<u8>,
}

struct History {
    database: Vec<u8>,
    wal: Vec<u8>,
    acknowledged: Vec<Acknowledged>,
    devices: Vec<(Device, ClaimCode)>,
}

async fn history(dir: &DataDir) -> History {
    let store = dir.store().await.unwrap();
    let mut writer = store.writer().await.unwrap();
    let mut db = writer.begin().await.unwrap();
    let pools = rig::config(dir.path()).pools;
    provisioning::store::pools::register(&mut db, &pools)
        .await
        .unwrap();
    db.commit().await.unwrap();
    rig::add_gateway(dir, &store, &Gateway::new("gw1", "pop1", 1)).await;
    let jobs = sequencer(dir, &store).await;
    let wal = dir.path().join(format!("{FILE}-wal"));
    let (mut acknowledged, mut devices) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let mut device = Device::new();
        let claim = rig::add_claim(&store, "pop1", unix_now() + DAY_S).await;
        for request in [proved(&device, Some(&claim)), {
            device.tunnel = StaticSecret::random_from_rng(OsRng);
            proved(&device, None)
        }] {
            let Ok(Outcome::Leased(leased)) = jobs.enrol(request).await else {
                panic!("an enrolment failed");
            };
            let mut db = store.read().await.unwrap();
            let issued = leases::find(&mut db, &device.id(), leased.epoch)
                .await
                .unwrap();
            acknowledged.push(Acknowledged {
                wal_length: usize::try_from(fs::metadata(&wal).unwrap().len()).unwrap(),
                device: device.id(),
                epoch: leased.epoch,
                statement: issued.unwrap().statement,
            });
        }
        devices.push((device, claim));
    }
    History {
        database: fs::read(dir.path().join(FILE)).unwrap(),
        wal: fs::read(wal).unwrap(),
        acknowledged,
        devices,
    }
}

/// The keys of a data directory, with this on its disk.
fn copy_with(dir: &DataDir, database: &[u8], wal: &[u8]) -> (TempDir, DataDir) {
    let copy = rig::scratch();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "key") {
            fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let image = copy.path().join("image");
    fs::create_dir(&image).unwrap();
    let trust = "trust.policy";
    fs::copy(dir.path().join("image").join(trust), image.join(trust)).unwrap();
    fs::write(copy.path().join(FILE), database).unwrap();
    fs::write(copy.path().join(format!("{FILE}-wal")), wal).unwrap();
    let dir = DataDir::new(copy.path());
    (copy, dir)
}

async fn check_copy(copy: &DataDir, anchors: &Anchors, history: &History, kept: usize) {
    let store = copy.store().await.unwrap();
    let replayed = rig::replay_store(&store, anchors).await;
    replayed.unwrap_or_else(|error| panic!("cut after {kept} bytes: {error:#}"));
    let mut db = store.read().await.unwrap();
    let mut lost = history
        .acknowledged
        .iter()
        .filter(|lease| lease.wal_length <= kept);
    for lease in lost.by_ref() {
        let issued = leases::find(&mut db, &lease.device, lease.epoch)
            .await
            .unwrap();
        let statement = issued.map(|issued| issued.statement);
        assert_eq!(
            statement.as_ref(),
            Some(&lease.statement),
            "cut after {kept} bytes"
        );
    }
    let mut places = HashSet::new();
    for device in devices::list(&mut db).await.unwrap() {
        assert!(places.insert((device.shard, device.pool_offset)));
    }
}

#[tokio::test]
async fn a_power_cut_at_any_write_leaves_a_whole_store_with_all_that_was_acknowledged() {
    let scratch = rig::scratch();
    let dir = rig::new_data_dir(&scratch, None).await;
    let history = history(&dir).await;
    let anchors = dir.anchors().unwrap();
    let frames = (history.wal.len() - WAL_HEADER) / FRAME;
    assert!(frames > 100, "only {frames} pages were written");

    for frame in 0..=frames {
        let boundary = WAL_HEADER + frame * FRAME;
        for (torn, garbage) in [(0, 0), (FRAME / 2, 0), (30, 4096)] {
            let kept = (boundary + torn).min(history.wal.len());
            let mut wal = history.wal[..kept].to_vec();
            wal.resize(kept + garbage, 0xa5);
            let (_copy, copy) = copy_with(&dir, &history.database, &wal);

            check_copy(&copy, &anchors, &history, kept).await;
        }
    }
}

#[tokio::test]
async fn after_a_power_cut_every_device_that_asks_again_is_enrolled_once() {
    let scratch = rig::scratch();
    let dir = rig::new_data_dir(&scratch, None).await;
    let history = history(&dir).await;
    let anchors = dir.anchors().unwrap();
    let frames = (history.wal.len() - WAL_HEADER) / FRAME;

    for frame in (0..frames).step_by(7) {
        let wal = &history.wal[..WAL_HEADER + frame * FRAME];
        let (_copy, dir) = copy_with(&dir, &history.database, wal);
        let store = dir.store().await.unwrap();
        let jobs = sequencer(&dir, &store).await;

        for (device, claim) in &history.devices {
            let first = jobs.enrol(proved(device, Some(claim))).await;
            let second = jobs.enrol(proved(device, Some(claim))).await;
            match (first, second) {
                (Ok(Outcome::Leased(first)), Ok(Outcome::Leased(second))) => {
                    assert_eq!(first.epoch, second.epoch);
                }
                // The claim, or the gateway, had not reached the disk when the power went.
                (Ok(Outcome::Refused(first)), Ok(Outcome::Refused(second))) => {
                    assert_eq!(first, second);
                }
                other => panic!("{other:?}"),
            }
        }

        let replayed = rig::replay_store(&store, &anchors).await.unwrap();
        assert_eq!(replayed.leases, replayed.stream_entries);
    }
}
