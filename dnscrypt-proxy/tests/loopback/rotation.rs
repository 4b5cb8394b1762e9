//! Everything that can be exchanged under a running stub is, while it is asked two thousand names a second: no
//! lookup may fail.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dnscrypt_proxy::certs::{Certs, Rotation, write_series};
use dnscrypt_proxy::listen::Limits;
use dnscrypt_proxy::proto::Transport;
use dnscrypt_proxy::proto::cert::System;
use dnscrypt_proxy::proto::dropped::Dropped;
use dnscrypt_proxy::stub;
use ed25519_dalek::SigningKey;
use hickory_proto::op::Message;
use tokio::sync::{Mutex, MutexGuard, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::rig::{
    HOUR, Server, Stub, Wire, a_query, provider, records, series, settings, upstream,
};

/// Ten in five milliseconds are two thousand a second.
const PERIOD: Duration = Duration::from_millis(5);
const EACH_TIME: usize = 10;
/// A machine that has no time for more is not asked more.
const MOST_AT_A_TIME: usize = 2_000;
/// The loads follow one another: each is as much as the machine is asked for.
static TURN: Mutex<()> = Mutex::const_new(());
/// Lookups between two changes.
const BETWEEN: usize = 1_000;

const LIMITS: Limits = Limits {
    in_flight: 8_192,
    ..Limits::ROUTER
};

/// Unique names, asked of a stub at a steady pace until dropped.
struct Load {
    _turn: MutexGuard<'static, ()>,
    tally: watch::Sender<Tally>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Tally {
    answered: usize,
    failed: Vec<String>,
}

impl Load {
    async fn on(stub: &Stub) -> Self {
        let turn = TURN.lock().await;
        let tally = watch::Sender::default();
        let task = tokio::spawn(ask_on(Arc::clone(&stub.stub), tally.clone()));
        Self {
            _turn: turn,
            tally,
            task,
        }
    }

    /// Waits until so many more are answered.
    async fn go_on(&self) {
        let until = self.tally.borrow().answered + BETWEEN;
        let enough = |tally: &Tally| tally.answered >= until || !tally.failed.is_empty();
        self.tally.subscribe().wait_for(enough).await.unwrap();
    }

    fn failed(&self) -> Vec<String> {
        self.tally.borrow().failed.clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn ask_on(stub: Arc<stub::Stub>, tally: watch::Sender<Tally>) {
    let mut pace = interval(PERIOD);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let room = Arc::new(Semaphore::new(MOST_AT_A_TIME));
    for n in 0_usize.. {
        if n.is_multiple_of(EACH_TIME) {
            pace.tick().await;
        }
        let place = Arc::clone(&room).acquire_owned().await.unwrap();
        let asking = ask(Arc::clone(&stub), format!("n{n}.example"), tally.clone());
        tokio::spawn(async move {
            asking.await;
            drop(place);
        });
    }
}

async fn ask(stub: Arc<stub::Stub>, name: String, tally: watch::Sender<Tally>) {
    let answer = stub.answer(&a_query(&name), Transport::Udp).await;
    let message = answer
        .ok()
        .and_then(|answer| Message::from_vec(&answer).ok());
    if message
        .as_ref()
        .is_some_and(|message| records(message) == 1)
    {
        tally.send_modify(|tally| tally.answered += 1);
        return;
    }
    let health = stub.upstream().health();
    let why = format!("{name}: {message:?} {health:?}");
    tally.send_modify(|tally| tally.failed.push(why));
}

fn next_provider() -> SigningKey {
    SigningKey::from_bytes(&[6; 32])
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[tokio::test]
async fn certificates_are_exchanged_ten_times_and_no_lookup_fails() {
    let minutes = Rotation {
        every_s: 60,
        overlap_s: 60,
        backdated_s: 0,
    };
    let server =
        Server::start_with(|clock| Certs::signing(provider(), minutes, clock).unwrap()).await;
    let upstream = upstream(vec![server.stamp()], settings(&server));
    let stub = Stub::start_before(upstream, LIMITS).await;
    let load = Load::on(&stub).await;
    load.go_on().await;
    let mut serials = vec![serial(&stub)];

    for _ in 0..20 {
        server.advance(30);
        server.rotate();
        load.go_on().await;
        serials.push(serial(&stub));
    }

    assert_eq!(load.failed(), Vec::<String>::new());
    serials.dedup();
    assert!(serials.len() > 4, "{serials:?}");
    assert!(serials.is_sorted());
    assert!(server.keys() <= 6, "{} keys are kept", server.keys());
}

fn serial(stub: &Stub) -> u32 {
    let health = &stub.stub.upstream().health()[0];
    health.certificate.as_ref().unwrap().serial
}

#[tokio::test]
async fn the_provider_changes_its_key_and_no_lookup_fails() {
    let dir = tempfile::tempdir().unwrap();
    write_series(&provider(), dir.path(), series()).unwrap();
    let server = Server::start_from_directory(dir.path()).await;
    let stamps = vec![server.stamp(), server.stamp_under(&next_provider())];
    let upstream = upstream(stamps, settings(&server));
    let stub = Stub::start_before(upstream, LIMITS).await;
    let load = Load::on(&stub).await;
    load.go_on().await;

    let mut both = series();
    both.count = 6;
    write_series(&next_provider(), dir.path(), both).unwrap();
    server.rotate();
    load.go_on().await;
    let used_both = server.keys();
    for _ in 0..12 {
        server.advance(4 * HOUR);
        server.rotate();
        load.go_on().await;
    }

    assert_eq!(load.failed(), Vec::<String>::new());
    assert_eq!(used_both, 4);
    let certificate = stub.stub.upstream().health()[1].certificate.clone();
    assert_eq!(certificate.unwrap().system, System::XWing);
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".cert") && name.split('-').count() < 3)
        .collect();
    assert_eq!(left, Vec::<String>::new(), "the old key's are erased");
}

#[tokio::test]
async fn ticket_keys_change_and_another_gateway_takes_over_and_no_lookup_fails() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_series(&provider(), here.path(), series()).unwrap();
    copy(here.path(), there.path());
    let gateways = [
        Server::start_from_directory(here.path()).await,
        Server::start_from_directory(there.path()).await,
    ];
    let wire = Wire::start(gateways[0].addr).await;
    let upstream = upstream(vec![wire.stamp(&gateways[0])], settings(&gateways[0]));
    let stub = Stub::start_before(upstream, LIMITS).await;
    let load = Load::on(&stub).await;
    load.go_on().await;

    for turn in 1..=8 {
        wire.lead_to(&gateways[turn % 2]);
        load.go_on().await;
        for gateway in &gateways {
            gateway.advance(HOUR);
            gateway.rotate();
        }
        load.go_on().await;
    }

    assert_eq!(load.failed(), Vec::<String>::new());
    for gateway in &gateways {
        assert!(gateway.asked() > BETWEEN);
        for reason in [
            Dropped::UnknownTicketKey,
            Dropped::BadTicket,
            Dropped::TicketOfOtherCert,
        ] {
            assert_eq!(gateway.counters.dropped(reason), 0, "{reason:?}");
        }
    }
}

#[tokio::test]
async fn the_home_goes_to_another_gateway_with_other_certificates_and_no_lookup_fails() {
    let servers = [Server::start().await, Server::start().await];
    let wires = [
        Wire::start(servers[0].addr).await,
        Wire::start(servers[1].addr).await,
    ];
    let stamps = [0, 1].map(|at: usize| wires[at].stamp(&servers[at]));
    let upstream = upstream(vec![stamps[0].clone()], settings(&servers[0]));
    let stub = Stub::start_before(upstream, LIMITS).await;
    let load = Load::on(&stub).await;
    load.go_on().await;

    for turn in 1..=6 {
        wires[turn % 2].cut(false);
        wires[(turn + 1) % 2].cut(true);
        let leased = stamps[turn % 2].clone();
        stub.stub.upstream().set_stamps(vec![leased]);
        stub.stub.upstream().network_changed();
        load.go_on().await;
    }

    assert_eq!(load.failed(), Vec::<String>::new());
    assert!(servers.iter().all(|server| server.asked() > 2 * BETWEEN));
}
