//! Witnesses in other hands: what nobody sees before they have cosigned it, and what they never cosign.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use provisioning::clock::unix_now;
use provisioning::datadir::DataDir;
use provisioning::log::{self, Log};
use provisioning::store::witnesses;
use provisioning::witness::Witness;
use provisioning::witness::book::Book;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use trust::{AddCheckpoint, SignedCheckpoint};

use crate::rig::{self, Device, Gateway, Office};

/// A witness of somebody else, on files of its own.
struct Outside {
    dir: PathBuf,
    line: String,
    addr: SocketAddr,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Outside {
    async fn new(scratch: &TempDir, name: &str) -> Self {
        let dir = scratch.path().join(name);
        let vkey = Book::create(&dir, name).unwrap();
        let mut outside = Self {
            line: String::new(),
            addr: "127.0.0.1:0".parse().unwrap(),
            running: None,
            dir,
        };
        // It keeps the port that it is given now.
        outside.start().await;
        outside.stop().await;
        outside.line = format!("witness {name} {vkey} http://{}/\n", outside.addr);
        outside
    }

    /// Is told of the logs that it is to know.
    fn learn(&self, dir: &DataDir) {
        let anchors = dir.anchors().unwrap();
        let logs = anchors.fleet.logs().iter().chain(anchors.authority.logs());
        let logs: String = logs.map(|log| format!("{log}\n")).collect();
        std::fs::write(self.dir.join("logs"), logs).unwrap();
    }

    async fn start(&mut self) {
        let book = Book::open(&self.dir).unwrap();
        let witness = Witness::start(book, &[self.addr], None).await.unwrap();
        self.addr = witness.local_addrs().unwrap()[0];
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(witness.run(async { drop(stopped.await) }));
        self.running = Some((stop, task));
    }

    async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        stop.send(()).unwrap();
        task.await.unwrap();
    }
}

/// An office whose logs these have to cosign, as many of them as this line says.
async fn office(outside: &[&Outside], quorum: &str) -> Office {
    let scratch = rig::scratch();
    let lines: String = outside.iter().map(|one| one.line.as_str()).collect();
    let dir = rig::new_data_dir(&scratch, Some(&format!("{lines}{quorum}\n"))).await;
    outside.iter().for_each(|one| one.learn(&dir));
    Office::serve(scratch, dir).await
}

async fn published(office: &Office, log: Log) -> Option<u64> {
    let mut db = office.store.read().await.unwrap();
    let head = log::head(&mut db, log).await.unwrap();
    head.map(|head| head.size)
}

/// What is wrong with a witness of the fleet log.
async fn problem(office: &Office) -> Option<String> {
    let mut db = office.store.read().await.unwrap();
    let seen = witnesses::list(&mut db, 0).await.unwrap();
    let problem = seen.into_iter().find_map(|seen| seen.problem);
    problem.map(|(problem, _)| problem)
}

/// Adds the gateway `gw1`, whose proposal is published before.
async fn add_gateway(office: &Office) {
    office.add_gateway(&Gateway::new("gw1", "pop1", 1)).await;
}

/// Sends bytes to a witness as a log would, and gives status, content type and body.
async fn send(addr: SocketAddr, body: &[u8]) -> (u16, Option<String>, String) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = format!(
        "POST /add-checkpoint HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let request = [head.as_bytes(), body].concat();
    stream.write_all(&request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let content_type = head
        .lines()
        .find_map(|line| line.strip_prefix("content-type: "));
    (status, content_type.map(str::to_owned), body.to_owned())
}

#[tokio::test]
async fn a_router_gets_its_lease_once_the_witnesses_have_cosigned_the_log_that_it_stands_in() {
    let scratch = rig::scratch();
    let mut witness = Outside::new(&scratch, "w1").await;
    let office = office(&[&witness], "group all2 all office w1\nquorum all2").await;
    assert_eq!(published(&office, Log::Authority).await, None);
    witness.start().await;
    add_gateway(&office).await;
    let claim = office.claim().await;
    let mut device = Device::new();
    let mut client = office.connect().await;
    assert_eq!(client.enrol(&device, Some(&claim)).await.status, 200);

    witness.stop().await;
    let gateway = Gateway::new("gw2", "pop1", 1);
    let _held = gateway.proposed(&office.dir, &office.store).await;
    let next = Device::new();
    let claim = office.claim().await;
    let mut late = office.connect().await;
    let refused = late.enrol(&next, Some(&claim)).await;
    assert_eq!(refused.problem(), (503, "not-cosigned".to_owned()));
    assert_eq!(problem(&office).await.as_deref(), Some("unreachable"));
    assert_eq!(published(&office, Log::Fleet).await, Some(1));
    assert_eq!(published(&office, Log::Authority).await, Some(2));
    let known = office.connect().await.enrol(&device, None).await;
    assert_eq!(
        known.status, 200,
        "a lease that was published is still told"
    );

    let mut again = office.connect().await;
    let (answer, ()) = tokio::join!(again.enrol(&next, Some(&claim)), witness.start());
    assert_eq!(answer.status, 200);
    let anchors = office.anchors();
    device.accept(&anchors, &known.body).unwrap();
    let mut next = next;
    let bundle = next.accept(&anchors, &answer.body).unwrap();
    assert_eq!(bundle.lease.epoch, 1);
    assert_eq!(published(&office, Log::Fleet).await, Some(2));
    office.replay().await;
}

#[tokio::test]
async fn a_gateway_hears_of_nothing_that_too_few_have_cosigned() {
    let scratch = rig::scratch();
    let mut witness = Outside::new(&scratch, "w1").await;
    let office = office(&[&witness], "group both all office w1\nquorum both").await;
    witness.start().await;
    let gateway = Gateway::new("gw1", "pop1", 1);
    rig::add_gateway(&office.dir, &office.store, &gateway).await;
    let claim = office.claim().await;
    let device = Device::new();
    let mut client = office.connect().await;
    assert_eq!(client.enrol(&device, Some(&claim)).await.status, 200);
    let mut stream = office.connect().await;
    assert_eq!(
        stream
            .shard(&gateway, "1?from=0")
            .await
            .page()
            .entries
            .len(),
        1
    );

    witness.stop().await;
    office.revoke(&device).await;
    let page = stream.shard(&gateway, "1?from=1").await.page();
    assert_eq!((page.entries.len(), page.next), (0, 1));

    let (page, ()) = tokio::join!(stream.shard(&gateway, "1?from=1&wait=20"), witness.start());
    assert_eq!(page.page().entries.len(), 1);
    office.replay().await;
}

#[tokio::test]
async fn a_witness_that_lies_or_hangs_is_not_taken_and_holds_up_nobody() {
    let scratch = rig::scratch();
    let mut honest = Outside::new(&scratch, "w1").await;
    let other = Outside::new(&scratch, "w2").await;
    let stranger = Book::create(&scratch.path().join("w3"), "w2").unwrap();
    let lies: Vec<Vec<u8>> = [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nlies\n".to_owned(),
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: 120\r\n\r\n\u{2014} {} {}",
            stranger.name,
            "A".repeat(112)
        ),
        "HTTP/1.1 409 Conflict\r\ncontent-type: text/x.tlog.size\r\ncontent-length: 2\r\n\r\n7\n"
            .to_owned(),
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
            .to_owned(),
        format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1 << 20)),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_owned(),
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        String::new(),
    ]
    .map(String::into_bytes)
    .to_vec();
    let liar = TcpListener::bind(other.addr).await.unwrap();
    let told = tokio::spawn(async move {
        let mut held = Vec::new();
        for lie in lies.iter().cycle() {
            let (mut stream, _) = liar.accept().await.unwrap();
            let mut some = [0; 1024];
            let _heard = stream.read(&mut some).await;
            let _told = stream.write_all(lie).await;
            // Some are left open: it hangs.
            held.push(stream);
        }
    });
    let office = office(
        &[&other, &honest],
        "group any2 any w1 w2\ngroup both all office any2\nquorum both",
    )
    .await;
    honest.start().await;
    add_gateway(&office).await;
    let anchors = office.anchors();
    for _ in 0..24 {
        let claim = office.claim().await;
        let mut device = Device::new();
        let mut client = office.connect().await;
        let answer = client.enrol(&device, Some(&claim)).await;
        assert_eq!(answer.status, 200);
        device.accept(&anchors, &answer.body).unwrap();
    }
    told.abort();
    office.replay().await;
}

#[tokio::test]
async fn a_head_that_could_not_be_written_down_is_published_once_it_can() {
    let scratch = rig::scratch();
    let mut witness = Outside::new(&scratch, "w1").await;
    let office = office(&[&witness], "group both all office w1\nquorum both").await;
    let proposed = Gateway::new("gw1", "pop1", 1)
        .proposed(&office.dir, &office.store)
        .await;
    let mut writer = office.store.writer().await.unwrap();
    let held = writer.begin().await.unwrap();
    witness.start().await;
    let cosigned = || Book::read(&witness.dir).unwrap().1;
    while cosigned().iter().any(|(_, head)| head.is_none()) {
        tokio::task::yield_now().await;
    }

    // Its turn at the database comes after the publisher's, and both give up.
    let mut client = office.connect().await;
    let claimless = client.enrol(&Device::new(), None).await;
    assert_eq!(claimless.problem(), (503, "unavailable".to_owned()));
    assert_eq!(published(&office, Log::Authority).await, None);

    drop(held);
    let id = trust::Proposal::id(&proposed.proposal);
    let proved =
        provisioning::proposals::wait_for_proof(&office.store, &id, Duration::from_secs(20));
    assert!(proved.await.unwrap().is_some());
}

#[tokio::test]
async fn nobody_sees_a_tile_of_what_too_few_have_cosigned() {
    let scratch = rig::scratch();
    let mut witness = Outside::new(&scratch, "w1").await;
    let office = office(&[&witness], "group both all office w1\nquorum both").await;
    let mut client = office.connect().await;
    let tile = async |client: &mut rig::Client, name: &str| {
        let path = format!("/v1/log/authority/tile/{name}");
        client.get(&path).await.status
    };
    for name in ["0/000.p/1", "entries/000.p/1"] {
        assert_eq!(tile(&mut client, name).await, 404, "{name}");
    }

    witness.start().await;
    add_gateway(&office).await;
    witness.stop().await;
    let gateway = Gateway::new("gw2", "pop1", 1);
    let _held = gateway.proposed(&office.dir, &office.store).await;
    for kind in ["0", "entries"] {
        let (seen, unseen) = (format!("{kind}/000.p/2"), format!("{kind}/000.p/3"));
        assert_eq!(tile(&mut client, &seen).await, 200, "{kind}");
        assert_eq!(tile(&mut client, &unseen).await, 404, "{kind}");
    }
}

/// A copy of a data directory, as who stole or restored it has it.
pub(crate) fn copy(dir: &Path, to: &TempDir) -> DataDir {
    let data = to.path().join("data");
    std::fs::create_dir_all(data.join("image")).unwrap();
    for folder in ["", "image"] {
        for entry in std::fs::read_dir(dir.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                std::fs::copy(&path, data.join(folder).join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    DataDir::new(data)
}

async fn enrolled(office: &Office) -> u16 {
    let claim = office.claim().await;
    let mut client = office.connect().await;
    client.enrol(&Device::new(), Some(&claim)).await.status
}

#[tokio::test]
async fn a_database_that_is_older_than_what_its_server_signed_publishes_nothing_and_says_so() {
    let scratch = rig::scratch();
    let mut witness = Outside::new(&scratch, "w1").await;
    let office = office(&[&witness], "group both all office w1\nquorum both").await;
    witness.start().await;
    add_gateway(&office).await;
    assert_eq!(enrolled(&office).await, 200);
    let (kept, dir) = office.stop().await;
    let old = rig::scratch();
    let old_dir = copy(dir.path(), &old);
    let office = Office::serve(kept, dir).await;
    for _ in 0..2 {
        assert_eq!(enrolled(&office).await, 200);
    }
    let (_kept, _dir) = office.stop().await;

    let restored = Office::serve(old, old_dir).await;
    let claim = restored.claim().await;
    let mut client = restored.connect().await;
    let refused = client.enrol(&Device::new(), Some(&claim)).await;
    assert_eq!(refused.problem(), (503, "not-cosigned".to_owned()));
    assert_eq!(problem(&restored).await.as_deref(), Some("ahead"));
    assert_eq!(published(&restored, Log::Fleet).await, Some(1));
}

#[tokio::test]
async fn who_has_all_of_a_servers_keys_can_make_no_second_history_and_leaves_evidence() {
    let scratch = rig::scratch();
    let mut witness = Outside::new(&scratch, "w1").await;
    let office = office(&[&witness], "group both all office w1\nquorum both").await;
    witness.start().await;
    add_gateway(&office).await;
    let (kept, dir) = office.stop().await;
    let stolen = rig::scratch();
    let stolen_dir = copy(dir.path(), &stolen);
    let office = Office::serve(kept, dir).await;
    assert_eq!(enrolled(&office).await, 200);

    let thief = Office::serve(stolen, stolen_dir).await;
    let claim = thief.claim().await;
    let mut client = thief.connect().await;
    let refused = client.enrol(&Device::new(), Some(&claim)).await;
    assert_eq!(refused.problem(), (503, "not-cosigned".to_owned()));
    assert_eq!(problem(&thief).await.as_deref(), Some("fork"));
    let forks: Vec<_> = std::fs::read_dir(witness.dir.join("forks"))
        .unwrap()
        .collect();
    let fork = std::fs::read_to_string(forks[0].as_ref().unwrap().path()).unwrap();
    let fork = SignedCheckpoint::parse(&fork).unwrap();
    assert_eq!(fork.checkpoint().origin, "office/fleet");
    assert_eq!(fork.checkpoint().size, 1);

    assert_eq!(enrolled(&office).await, 200, "the honest one goes on");
}

#[tokio::test]
async fn a_witness_says_by_its_status_what_is_wrong_and_remembers_over_its_end() {
    let scratch = rig::scratch();
    let mut witness = Outside::new(&scratch, "w1").await;
    let log = trust::LogSigner::from_seed("isp/fleet", &[1; 32]).unwrap();
    std::fs::write(witness.dir.join("logs"), format!("{}\n", log.vkey())).unwrap();
    witness.start().await;
    let mut tree = trust::Tree::new();
    let mut heads = Vec::new();
    for n in 0..5_u8 {
        tree.append(&[n]);
        heads.push((tree.root(), tree.clone()));
    }
    let ask = |old: u64, size: usize| {
        let (root, tree) = &heads[size - 1];
        AddCheckpoint {
            old,
            proof: tree.consistency_proof(old, tree.size()).unwrap(),
            checkpoint: log.sign_checkpoint(tree.size(), *root),
        }
    };
    let addr = witness.addr;
    let say = async |request: &AddCheckpoint| send(addr, request.to_string().as_bytes()).await;

    let (status, _, line) = say(&ask(0, 3)).await;
    assert_eq!(status, 200);
    let vkey = Book::read(&witness.dir).unwrap().0;
    let head = ask(0, 3).checkpoint;
    assert!(head.with_line_of(&vkey, &line).is_some());
    witness.stop().await;
    witness.start().await;

    let (status, content_type, body) = say(&ask(0, 4)).await;
    let content_type = content_type.as_deref();
    assert_eq!(
        (status, content_type, body.as_str()),
        (409, Some("text/x.tlog.size"), "3\n")
    );
    let mut fork = ask(3, 3);
    fork.checkpoint = log.sign_checkpoint(3, [7; 32]);
    let mut inconsistent = ask(3, 5);
    inconsistent.checkpoint = log.sign_checkpoint(5, [7; 32]);
    let mut unsigned = ask(3, 5);
    let impostor = trust::LogSigner::from_seed("isp/fleet", &[2; 32]).unwrap();
    unsigned.checkpoint = impostor.sign_checkpoint(5, heads[4].0);
    let mut unknown = ask(3, 5);
    let other = trust::LogSigner::from_seed("isp/other", &[1; 32]).unwrap();
    unknown.checkpoint = other.sign_checkpoint(5, heads[4].0);
    let mut backwards = ask(3, 5);
    backwards.old = 6;
    for (request, expected) in [
        (fork, 409),
        (inconsistent, 422),
        (unsigned, 403),
        (unknown, 404),
        (backwards, 400),
    ] {
        let (status, content_type, body) = say(&request).await;
        assert_eq!(status, expected, "{body}");
        assert_ne!(content_type.as_deref(), Some("text/x.tlog.size"));
    }
    for (bad, expected) in [(&b"old"[..], 400), (&[255; 9], 400), (&[b'x'; 20_000], 413)] {
        assert_eq!(send(addr, bad).await.0, expected);
    }
    let (_, content_type, body) = send(addr, &[b'x'; 20_000]).await;
    assert!(content_type.unwrap().starts_with("text/plain"), "{body}");
    assert_eq!(say(&ask(3, 5)).await.0, 200);
    assert_eq!(say(&ask(5, 5)).await.0, 200, "the same head again");
}

#[tokio::test]
async fn a_witness_that_cannot_keep_a_head_does_not_cosign_it() {
    let scratch = rig::scratch();
    let mut witness = Outside::new(&scratch, "w1").await;
    let log = trust::LogSigner::from_seed("isp/fleet", &[1; 32]).unwrap();
    std::fs::write(witness.dir.join("logs"), format!("{}\n", log.vkey())).unwrap();
    witness.start().await;
    let heads = witness.dir.join("heads");
    std::fs::rename(&heads, witness.dir.join("away")).unwrap();
    std::fs::write(&heads, "no folder").unwrap();
    let mut tree = trust::Tree::new();
    tree.append(b"one");
    let request = AddCheckpoint {
        old: 0,
        proof: Vec::new(),
        checkpoint: log.sign_checkpoint(1, tree.root()),
    };
    let request = request.to_string();

    let (status, _, body) = send(witness.addr, request.as_bytes()).await;
    assert_eq!((status, body.contains('\u{2014}')), (500, false), "{body}");

    std::fs::remove_file(&heads).unwrap();
    std::fs::rename(witness.dir.join("away"), &heads).unwrap();
    assert_eq!(send(witness.addr, request.as_bytes()).await.0, 200);
}

#[tokio::test]
async fn a_witness_whose_folder_is_not_whole_does_not_start() {
    let scratch = rig::scratch();
    let dir = scratch.path().join("w1");
    let error = |dir: &Path| Book::open(dir).unwrap_err().to_string();
    assert!(error(&dir).contains("witness init"));
    Book::create(&dir, "w1").unwrap();
    let again = Book::create(&dir, "w1").unwrap_err().to_string();
    assert!(again.contains("is a witness already"), "{again}");
    let spaced = Book::create(&scratch.path().join("w2"), "w 2");
    assert!(spaced.is_err());

    let held = Book::open(&dir).unwrap();
    assert!(error(&dir).contains("another process is the witness"));
    drop(held);
    let witness = trust::Cosigner::from_seed("x", &[3; 32]).unwrap();
    for (line, words) in [
        ("nonsense", "line 2: "),
        (&*witness.vkey().to_string(), "the key of a witness"),
    ] {
        std::fs::write(dir.join("logs"), format!("# logs\n{line}\n")).unwrap();
        assert!(error(&dir).contains(words), "{}", error(&dir));
    }
    let log = trust::LogSigner::from_seed("isp/fleet", &[1; 32]).unwrap();
    std::fs::write(dir.join("logs"), format!("{}\n", log.vkey())).unwrap();
    let mut book = Book::open(&dir).unwrap();
    let request = AddCheckpoint {
        old: 0,
        proof: Vec::new(),
        checkpoint: log.sign_checkpoint(1, [5; 32]),
    };
    book.cosign(&request, unix_now()).unwrap();
    drop(book);
    let head = std::fs::read_dir(dir.join("heads")).unwrap().next();
    std::fs::write(head.unwrap().unwrap().path(), "torn").unwrap();
    assert!(error(&dir).contains("make a new one, with a new key"));
}
