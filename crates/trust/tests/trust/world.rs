//! A provider in miniature: two logs, three validating servers, one witness outside, one gateway, one
//! device; quorum is two servers and the witness. What alice proposes two others have to approve, and it waits in the log for a while.

use trust::lease::fleet_entry;
use trust::{
    Activation, Anchors, Approval, Cosigner, DeviceFacts, GatewayRecord, Kind, Lease, LeaseBundle,
    LogSigner, Proof, Proposal, Revocation, ShardEntry, Stored, Tree, VERSION, Verdict, key_id,
};

use crate::pen::pen;

pub(crate) const T0: u64 = 1_800_000_000;
pub(crate) const DAY: u64 = 86_400;
/// What a gateway's proposal has stood in the log for.
pub(crate) const DELAY: u64 = 600;
pub(crate) const SALT: [u8; 32] = [7; 32];

pub(crate) struct Log {
    pub(crate) signer: LogSigner,
    pub(crate) tree: Tree,
}

impl Log {
    fn new(origin: &str, seed: u8) -> Self {
        let signer = LogSigner::from_seed(origin, &[seed; 32]).unwrap();
        Self {
            signer,
            tree: Tree::new(),
        }
    }

    /// Proves an entry under the head of today, cosigned by some at their times.
    pub(crate) fn proof(&self, index: u64, cosigners: &[(&Cosigner, u64)]) -> String {
        let size = self.tree.size();
        let mut checkpoint = self.signer.sign_checkpoint(size, self.tree.root());
        for (cosigner, time) in cosigners {
            checkpoint = cosigner.cosign(&checkpoint, *time);
        }
        let path = self.tree.inclusion_proof(index, size).unwrap();
        Proof {
            extra: None,
            index,
            path,
            checkpoint,
        }
        .format()
    }
}

pub(crate) struct World {
    pub(crate) fleet: Log,
    pub(crate) authority: Log,
    /// Three servers, then the witness outside.
    pub(crate) cosigners: Vec<Cosigner>,
    pub(crate) anchors: Anchors,
    pub(crate) me: DeviceFacts,
    pub(crate) gateway: GatewayRecord,
}

impl World {
    pub(crate) fn new() -> Self {
        let names = [
            "a.example/s1",
            "b.example/s2",
            "c.example/s3",
            "ngo.example/w1",
        ];
        let cosigners: Vec<Cosigner> = (10..)
            .zip(names)
            .map(|(seed, name)| Cosigner::from_seed(name, &[seed; 32]).unwrap())
            .collect();
        let mut fleet = Log::new("isp.example/fleet", 1);
        let mut authority = Log::new("isp.example/authority", 2);
        for n in 0..5_u8 {
            fleet.tree.append(&[n; 32]);
            authority.tree.append(&[n]);
        }
        let text = Anchors::compose(
            &policy(&fleet, &cosigners),
            &policy(&authority, &cosigners),
            &people(),
        );
        let me = DeviceFacts {
            devid_hash: [0xD1; 32],
            wg_pub: [0xD2; 32],
        };
        Self {
            anchors: Anchors::parse(&text).unwrap(),
            gateway: gateway_record(),
            fleet,
            authority,
            cosigners,
            me,
        }
    }

    /// Every cosigner at the same time.
    pub(crate) fn everyone(&self, time: u64) -> Vec<(&Cosigner, u64)> {
        self.cosigners
            .iter()
            .map(|cosigner| (cosigner, time))
            .collect()
    }

    pub(crate) fn lease(&self, epoch: u64) -> Lease {
        Lease {
            v: VERSION,
            devid_hash: self.me.devid_hash,
            epoch,
            wg_pub: self.me.wg_pub,
            pop: "pop1".to_owned(),
            shard: 1,
            gateways: vec![self.gateway.id()],
            addresses: vec![
                "10.64.0.2/32".parse().unwrap(),
                "fd64::2/128".parse().unwrap(),
            ],
            dns: vec!["sdns://AQ".to_owned()],
            not_before: T0 - 60,
            not_after: T0 + 7 * DAY,
            limits: trust::Limits::default(),
        }
    }

    pub(crate) fn proposal(&self) -> Proposal {
        Proposal {
            v: VERSION,
            kind: Kind::Gateway,
            body: self.gateway.to_bytes(),
            authority_epoch: 1,
            nonce: [3; 32],
            created: T0 - DAY,
            not_before: T0 - DAY,
            expires: 0,
            proposer: "alice".to_owned(),
        }
    }

    /// Logs a proposal, approved by bob and carol and cosigned just long enough before `T0`.
    pub(crate) fn activate(&mut self, proposal: &Proposal) -> Activation {
        let bytes = proposal.to_bytes();
        let says = |n, person, verdict| pen(n).says(verdict, person, &bytes);
        let approvals = vec![
            says(1, "alice", Verdict::Propose),
            says(2, "bob", Verdict::Approve),
            says(3, "carol", Verdict::Approve),
        ];
        self.log(&bytes, approvals, T0 - DELAY)
    }

    /// Logs a proposal with whatever approvals, cosigned by everyone at `time`.
    pub(crate) fn log(
        &mut self,
        proposal: &[u8],
        approvals: Vec<Approval>,
        time: u64,
    ) -> Activation {
        let index = self.authority.tree.append(proposal);
        Activation {
            proposal: proposal.to_vec(),
            approvals,
            proof: self.authority.proof(index, &self.everyone(time)),
        }
    }

    /// Logs a lease, cosigned by everyone at `time`, for a device that remembers `stored`.
    pub(crate) fn bundle_at(&mut self, lease: &Lease, stored: &Stored, time: u64) -> LeaseBundle {
        let activation = self.activate(&self.proposal());
        let lease = lease.to_bytes();
        let index = self.fleet.tree.append(&fleet_entry(&SALT, &lease));
        let size = self.fleet.tree.size();
        LeaseBundle {
            lease,
            salt: SALT,
            proof: self.fleet.proof(index, &self.everyone(time)),
            gateways: vec![activation],
            consistency: self
                .fleet
                .tree
                .consistency_proof(stored.fleet_size(), size)
                .unwrap(),
        }
    }

    pub(crate) fn bundle(&mut self, lease: &Lease) -> LeaseBundle {
        self.bundle_at(lease, &Stored::default(), T0)
    }

    pub(crate) fn lease_entry(&mut self, lease: &Lease) -> ShardEntry {
        let lease = lease.to_bytes();
        let proof = self.log_fleet(&lease);
        ShardEntry::Lease {
            lease,
            salt: SALT,
            proof,
        }
    }

    pub(crate) fn revocation_entry(&mut self, revocation: &Revocation) -> ShardEntry {
        let revocation = revocation.to_bytes();
        let proof = self.log_fleet(&revocation);
        ShardEntry::Revocation {
            revocation,
            salt: SALT,
            proof,
        }
    }

    fn log_fleet(&mut self, bytes: &[u8]) -> String {
        let index = self.fleet.tree.append(&fleet_entry(&SALT, bytes));
        self.fleet.proof(index, &self.everyone(T0))
    }
}

pub(crate) fn gateway_record() -> GatewayRecord {
    GatewayRecord {
        v: VERSION,
        name: "gw1".to_owned(),
        ed25519_pub: [0xE1; 32],
        wg_pub: [0xE2; 32],
        endpoints: vec![
            "198.18.1.2:51820".parse().unwrap(),
            "[2001:db8::2]:51820".parse().unwrap(),
        ],
        pop: "pop1".to_owned(),
        shards: vec![1],
        inner: vec!["10.64.0.1".parse().unwrap(), "fd64::1".parse().unwrap()],
        dns: vec!["sdns://AQ".to_owned()],
        relay: None,
        post_quantum: false,
    }
}

pub(crate) fn revocation(world: &World) -> Revocation {
    let devid_hash = world.me.devid_hash;
    Revocation {
        v: VERSION,
        devid_hash,
        epoch: 4,
        reason: 1,
        at: T0,
    }
}

/// The id of a gateway that nobody ever approved.
pub(crate) fn stranger() -> [u8; 32] {
    key_id(&[0x66; 32])
}

fn people() -> String {
    let person = |(name, n)| format!("person {name} {}\n", pen(n).line());
    let people = [("alice", 1), ("bob", 2), ("carol", 3)].map(person);
    let rules = format!(
        "group noc 2 alice bob carol\nrule gateway noc min-delay {DELAY}\nrule authority noc\n"
    );
    ["epoch 1\n", &people.concat(), &rules].concat()
}

fn policy(log: &Log, cosigners: &[Cosigner]) -> String {
    let mut text = format!("log {}\n", log.signer.vkey());
    for (name, cosigner) in ["S1", "S2", "S3", "W1"].iter().zip(cosigners) {
        text.push_str(&format!("witness {name} {}\n", cosigner.vkey()));
    }
    text + "group validators 2 S1 S2 S3\ngroup outside any W1\ngroup q all validators outside\nquorum q\n"
}
