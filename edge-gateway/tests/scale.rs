//! What a hundred thousand leases cost: the time to judge and load them, and the memory that they take for good.

#![expect(clippy::unwrap_used, reason = "a crate of nothing but tests")]

use std::time::{Duration, Instant};

use edge_gateway::leases::{Change, Leases, Scope};
use trust::lease::fleet_entry;
use trust::{Anchors, Cosigner, Lease, LogSigner, Proof, ShardEntry, ShardJudge, Tree};
use tunnel::EdgeTunnel;
use tunnel::edge::PeerConfig;
use x25519_dalek::StaticSecret;

const PEERS: u32 = 100_000;
const PAGE: u32 = 1_000;
const NOW: u64 = 1_800_000_000;
const GATEWAY: [u8; 32] = [9; 32];

fn device(n: u32) -> [u8; 32] {
    let mut id = [0; 32];
    // Spread like a hash, so that the trees grow in the middle as they do in life.
    id[..4].copy_from_slice(&n.wrapping_mul(0x9e37_79b1).to_be_bytes());
    id[4..8].copy_from_slice(&n.to_be_bytes());
    id
}

fn lease(n: u32) -> Lease {
    let v4 = std::net::Ipv4Addr::from(0x0a40_0100 + n);
    let v6 = std::net::Ipv6Addr::from((0xfd64_u128 << 112) + (u128::from(n + 2) << 64));
    Lease {
        v: 1,
        devid_hash: device(n),
        epoch: 1,
        wg_pub: device(n),
        pop: "pop1".to_owned(),
        shard: 1,
        gateways: vec![GATEWAY],
        addresses: vec![
            format!("{v4}/32").parse().unwrap(),
            format!("{v6}/64").parse().unwrap(),
        ],
        dns: Vec::new(),
        not_before: NOW - 10,
        not_after: NOW + 604_800,
        limits: trust::Limits::default(),
    }
}

/// Somebody has to be the people; no gateway is judged here.
const PEOPLE: &str = "epoch 1\nperson alice ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEOnLnFEAXYt9mtowm373yaCquyfJHTspGE+QkoPuv08\nrule authority alice self-approve\n";

/// A fleet log with all leases in it.
struct Fleet {
    tree: Tree,
    signer: LogSigner,
    cosigner: Cosigner,
    anchors: Anchors,
}

impl Fleet {
    fn new() -> Self {
        let signer = LogSigner::from_seed("isp.example/fleet", &[1; 32]).unwrap();
        let authority = LogSigner::from_seed("isp.example/authority", &[2; 32]).unwrap();
        let cosigner = Cosigner::from_seed("isp.example/s1", &[3; 32]).unwrap();
        let policy = |log: &LogSigner| {
            let (log, witness) = (log.vkey(), cosigner.vkey());
            format!("log {log}\nwitness s1 {witness}\nquorum s1\n")
        };
        let text = Anchors::compose(&policy(&signer), &policy(&authority), PEOPLE);
        let mut tree = Tree::new();
        for n in 0..PEERS {
            tree.append(&fleet_entry(&device(n), &lease(n).to_bytes()));
        }
        Self {
            tree,
            anchors: Anchors::parse(&text).unwrap(),
            signer,
            cosigner,
        }
    }

    /// A page as provisioning serves it: every entry under the present head.
    fn page(&self, from: u32) -> Vec<ShardEntry> {
        let (size, root) = (self.tree.size(), self.tree.root());
        let signed = self.signer.sign_checkpoint(size, root);
        let checkpoint = self.cosigner.cosign(&signed, NOW);
        let entry = |n| ShardEntry::Lease {
            lease: lease(n).to_bytes(),
            salt: device(n),
            proof: Proof {
                extra: None,
                index: n.into(),
                path: self.tree.inclusion_proof(n.into(), size).unwrap(),
                checkpoint: checkpoint.clone(),
            }
            .format(),
        };
        (from..from + PAGE).map(entry).collect()
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

fn install(tunnel: &mut EdgeTunnel, changes: Vec<Change>, now: Instant) {
    for change in changes {
        let Change::Admit(admitted) = change else {
            panic!("{change:?}")
        };
        let peer = PeerConfig {
            id: admitted.device,
            public: admitted.wg_pub,
            psk: None,
            allowed: admitted.addresses,
            not_after: now + Duration::from_secs(604_800),
            rates: tunnel::rate::Rates::default(),
        };
        tunnel.upsert_peer(peer, now).unwrap();
    }
}

#[test]
fn the_last_of_a_hundred_thousand_leases_cost_as_the_first_and_each_less_than_a_kilobyte() {
    let fleet = Fleet::new();
    let scope = Scope {
        gateway: GATEWAY,
        wg_pub: [5; 32],
        inner: ["10.64.0.1/15", "fd64::1/16"]
            .map(|net| net.parse().unwrap())
            .to_vec(),
    };
    let now = Instant::now();
    let mut leases = Leases::new(scope);
    let mut tunnel = EdgeTunnel::new(StaticSecret::from([5; 32]), Duration::ZERO, now);
    // The first page also brings what is paid once.
    drop(fleet.page(0));
    let empty = resident_bytes();

    let mut pages = Vec::new();
    for from in (0..PEERS).step_by(PAGE as usize) {
        let page = fleet.page(from);
        let start = Instant::now();
        let mut judge = ShardJudge::new(&fleet.anchors);
        let changes: Vec<_> = page
            .iter()
            .map(|entry| judge.verify(entry, NOW).unwrap())
            .collect();
        for change in changes {
            let (_outcome, changes) = leases.apply(change.get(), 1);
            install(&mut tunnel, changes, now);
        }
        pages.push(start.elapsed());
    }
    let each = (resident_bytes() - empty) / PEERS as usize;

    let (first, last) = (
        median_of(&pages[..10]),
        median_of(&pages[pages.len() - 10..]),
    );
    println!("a page in {first:?} at first, {last:?} at last, {each} bytes each");
    assert_eq!(
        (leases.len(), tunnel.peer_count()),
        (PEERS as usize, PEERS as usize)
    );
    assert!(last < 4 * first, "{first:?} {last:?}");
    assert!(each < 1_000, "{each} bytes a peer");
}

/// In the middle of some pages' times, which a busy machine leaves alone.
fn median_of(pages: &[Duration]) -> Duration {
    let mut sorted = pages.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}
