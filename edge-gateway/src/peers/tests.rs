use trust::lease::fleet_entry;
use trust::{Cosigner, Lease, LogSigner, Proof, Revocation, Tree};

use super::*;
use crate::leases::Scope;

const GATEWAY: [u8; 32] = [9; 32];

/// Somebody has to be the people; no gateway is judged here.
const PEOPLE: &str = "epoch 1\nperson alice ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEOnLnFEAXYt9mtowm373yaCquyfJHTspGE+QkoPuv08\nrule authority alice self-approve\n";

/// A fleet log of one server, and the anchors that trust it.
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
            format!(
                "log {}\nwitness s1 {}\nquorum s1\n",
                log.vkey(),
                cosigner.vkey()
            )
        };
        let text = Anchors::compose(&policy(&signer), &policy(&authority), PEOPLE);
        let anchors = Anchors::parse(&text).unwrap();
        Self {
            tree: Tree::new(),
            signer,
            cosigner,
            anchors,
        }
    }

    /// Logs bytes under a salt and proves it.
    fn log(&mut self, salt: &[u8; 32], bytes: &[u8]) -> String {
        let index = self.tree.append(&fleet_entry(salt, bytes));
        let size = self.tree.size();
        let signed = self.signer.sign_checkpoint(size, self.tree.root());
        let checkpoint = self.cosigner.cosign(&signed, clock::unix_s());
        let path = self.tree.inclusion_proof(index, size).unwrap();
        Proof {
            extra: None,
            index,
            path,
            checkpoint,
        }
        .format()
    }

    fn lease(&mut self, device: u8, epoch: u64) -> ShardEntry {
        let now = clock::unix_s();
        let lease = Lease {
            v: 1,
            devid_hash: [device; 32],
            epoch,
            wg_pub: [device; 32],
            pop: "pop1".to_owned(),
            shard: 1,
            gateways: vec![GATEWAY],
            addresses: vec![format!("10.64.0.{device}/32").parse().unwrap()],
            dns: Vec::new(),
            not_before: now - 10,
            not_after: now + 3_600,
            limits: trust::Limits::default(),
        };
        let (lease, salt) = (lease.to_bytes(), [device; 32]);
        let proof = self.log(&salt, &lease);
        ShardEntry::Lease { lease, salt, proof }
    }

    fn revocation(&mut self, device: u8, epoch: u64) -> ShardEntry {
        let revocation = Revocation {
            v: 1,
            devid_hash: [device; 32],
            epoch,
            reason: 1,
            at: clock::unix_s(),
        };
        let (revocation, salt) = (revocation.to_bytes(), [device; 32]);
        let proof = self.log(&salt, &revocation);
        ShardEntry::Revocation {
            revocation,
            salt,
            proof,
        }
    }

    fn restore(&self, directory: &Path) -> Peers {
        let scope = Scope {
            gateway: GATEWAY,
            wg_pub: [8; 32],
            inner: vec!["10.64.0.1/16".parse().unwrap()],
        };
        Peers::restore(directory, &[1], self.anchors.clone(), Leases::new(scope)).unwrap()
    }
}

fn write_cache(directory: &Path, entries: &[ShardEntry]) {
    let (mut cache, _) = ShardCache::open(directory, 1, |_| ()).unwrap();
    cache
        .append(entries, cache.next() + entries.len() as u64)
        .unwrap();
}

#[test]
fn a_cache_that_somebody_wrote_into_admits_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ours, mut theirs) = (Fleet::new(), Fleet::new());
    theirs.signer = LogSigner::from_seed("isp.example/fleet", &[66; 32]).unwrap();
    let ShardEntry::Lease { lease, salt, .. } = ours.lease(2, 1) else {
        unreachable!()
    };
    let moved = ShardEntry::Lease {
        lease,
        salt,
        proof: "no proof\n".to_owned(),
    };

    write_cache(dir.path(), &[theirs.lease(2, 1), moved]);

    assert_eq!(ours.restore(dir.path()).leases.len(), 0);
}

#[test]
fn a_gateway_starts_from_its_cache_with_leases_and_revocations_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new();
    let entries = [fleet.lease(2, 1), fleet.lease(3, 1), fleet.revocation(2, 1)];
    write_cache(dir.path(), &entries);

    let peers = fleet.restore(dir.path());

    let admitted: Vec<_> = peers.leases.admitted().collect();
    assert!(
        matches!(admitted.as_slice(), [Change::Admit(lease)] if lease.device == [3; 32]),
        "{admitted:?}"
    );
    assert_eq!(peers.figures().borrow().shards[&1].next, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_never_moves_the_file_past_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::new();
    let mut peers = fleet.restore(dir.path());
    let page = |from, entries| ShardPage {
        shard: 1,
        from,
        next: from + 1,
        entries,
    };
    let first = page(0, vec![fleet.lease(2, 1)]);
    assert_eq!(peers.advance(1, &first), 1);
    peers.write_down(1, &first);

    // The page behind a gap, as after a write that failed: the stream goes on, the file does not.
    let behind_a_gap = page(2, vec![fleet.lease(3, 1)]);
    assert_eq!(peers.advance(1, &behind_a_gap), 3);
    peers.write_down(1, &behind_a_gap);
    assert_eq!(peers.shards[&1].cache.next(), 1);

    peers.shards.get_mut(&1).unwrap().rewind_at = Some(Instant::now());
    assert_eq!(
        peers.advance(1, &page(3, Vec::new())),
        1,
        "read again from where the file is"
    );
}

#[test]
fn pauses_between_attempts_differ_and_stay_within_bounds() {
    let pause = Duration::from_secs(10);
    let drawn: std::collections::BTreeSet<_> = (0..50).map(|_| jittered(pause)).collect();

    assert!(drawn.len() > 40);
    assert!(
        drawn
            .iter()
            .all(|drawn| (pause / 2..=pause).contains(drawn))
    );
}
