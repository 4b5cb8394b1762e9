//! Enrolment through a cable that is cut after every possible number of bytes, and then tried again.

use std::net::SocketAddr;
use std::sync::Arc;

use provisioning::store::{alerts, claims, devices};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use trust::LeaseBundle;

use crate::rig::{Client, Device, Office};

/// How many bytes each direction lets through before both are cut.
#[derive(Clone, Copy)]
struct Budget {
    up: usize,
    down: usize,
}

const UNCUT: Budget = Budget {
    up: usize::MAX,
    down: usize::MAX,
};

/// Carries one connection and returns how many bytes went up and down.
async fn cable(listener: TcpListener, server: SocketAddr, budget: Budget) -> (usize, usize) {
    let (mut device, _) = listener.accept().await.unwrap();
    let mut server = TcpStream::connect(server).await.unwrap();
    let (mut up, mut down) = (0, 0);
    let (mut from_device, mut from_server) = ([0; 4096], [0; 4096]);
    while up < budget.up && down < budget.down {
        tokio::select! {
            read = device.read(&mut from_device) => {
                let Ok(length @ 1..) = read else { break };
                let passed = length.min(budget.up - up);
                up += passed;
                if server.write_all(&from_device[..passed]).await.is_err() {
                    break;
                }
            }
            read = server.read(&mut from_server) => {
                let Ok(length @ 1..) = read else { break };
                let passed = length.min(budget.down - down);
                down += passed;
                if device.write_all(&from_server[..passed]).await.is_err() {
                    break;
                }
            }
        }
    }
    (up, down)
}

struct Attempt {
    through: (usize, usize),
    answered: bool,
}

async fn attempt(
    office: &Office,
    device: &Device,
    code: &trust::ClaimCode,
    budget: Budget,
) -> Attempt {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near_end = listener.local_addr().unwrap();
    let carrying = tokio::spawn(cable(listener, office.addr, budget));
    let enrolling = async {
        let mut client = Client::connect(near_end, &office.dir).await?;
        client.try_enrol(device, Some(code)).await
    };
    let answered = enrolling.await.is_ok_and(|answer| answer.status == 200);
    Attempt {
        through: carrying.await.unwrap(),
        answered,
    }
}

async fn enrolled_after_a_cut(office: &Office, budget: Budget) -> Attempt {
    let device = Device::new();
    let claim = office.claim().await;

    let cut = attempt(office, &device, &claim, budget).await;

    let mut client = office.connect().await;
    let first = client.enrol(&device, Some(&claim)).await;
    let second = client.enrol(&device, Some(&claim)).await;
    assert_eq!(
        (first.status, second.status),
        (200, 200),
        "cut after {:?}",
        cut.through
    );
    let lease = |body: &[u8]| LeaseBundle::from_bytes(body).unwrap().lease;
    assert_eq!(lease(&first.body), lease(&second.body));
    cut
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_after_any_byte_enrols_once_and_burns_nothing() {
    const AT_ONCE: usize = 16;
    let office = Arc::new(Office::open().await);
    let whole = enrolled_after_a_cut(&office, UNCUT).await;
    assert!(whole.answered);
    let (up, down) = whole.through;
    assert!(up > 1000 && down > 1000, "{up} bytes up, {down} down");
    eprintln!("cutting after each of {up} bytes up and {down} bytes down");
    let cuts = (0..up)
        .map(|up| Budget { up, ..UNCUT })
        .chain((0..down).map(|down| Budget { down, ..UNCUT }));

    let slots = Arc::new(Semaphore::new(AT_ONCE));
    let mut attempts = JoinSet::new();
    for budget in cuts {
        let slot = Arc::clone(&slots).acquire_owned().await.unwrap();
        let office = Arc::clone(&office);
        attempts.spawn(async move {
            let cut = enrolled_after_a_cut(&office, budget).await;
            drop(slot);
            cut.answered
        });
    }
    let mut unanswered = 0;
    while let Some(answered) = attempts.join_next().await {
        unanswered += usize::from(!answered.unwrap());
    }

    // TLS closes politely after the answer: cuts within that close come too late to be noticed.
    assert!(
        unanswered + 64 > up + down,
        "{unanswered} of {} were cut",
        up + down
    );
    let enrolled = u64::try_from(1 + up + down).unwrap();
    let replayed = office.replay().await;
    assert_eq!(
        (replayed.leases, replayed.fleet_entries),
        (enrolled, enrolled)
    );
    let mut db = office.store.read().await.unwrap();
    let devices = devices::list(&mut db).await.unwrap();
    assert_eq!(u64::try_from(devices.len()).unwrap(), enrolled);
    assert!(devices.iter().all(|device| device.epoch == 1));
    let claims = claims::list(&mut db).await.unwrap();
    assert!(claims.iter().all(|claim| claim.bound.is_some()));
    assert_eq!(alerts::list(&mut db).await.unwrap(), []);
}
