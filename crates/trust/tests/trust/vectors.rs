//! Bytes that other hands made (`vectors/make.py`: cbor2, cryptography, hashlib), and those of the
//! specifications. The same file runs on big-endian MIPS.

use ed25519_dalek::SigningKey;
use trust::{
    Activation, Anchors, ChannelProof, ClaimCode, Cosigner, DeviceFacts, EnrolReq, GatewayRecord,
    Kind, Lease, LeaseBundle, LogSigner, Note, Proof, Proposal, Revocation, ServerChallenge,
    ShardChange, ShardPage, SignedCheckpoint, Stored, Sworn, Tree, Verdict, Vkey, key_id,
};
use x25519_dalek::{PublicKey, StaticSecret};

use crate::pen::pen;

const TIME: u64 = 1_790_000_000;
const EXPORTER: [u8; 32] = [0xE1; 32];

macro_rules! vector {
    ($name:literal) => {
        hex::decode(include_str!(concat!("../../vectors/", $name)).trim()).unwrap()
    };
}

#[test]
fn the_example_of_the_note_specification_verifies() {
    let vkey: Vkey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
        .parse()
        .unwrap();
    let note = "This is an example message.\n\n\u{2014} example.com/foo \
                Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    let parsed = Note::parse(note).unwrap();

    let [line] = parsed.signatures() else {
        panic!("one signature")
    };
    assert_eq!(
        (line.name.as_str(), line.key_id),
        (vkey.name.as_str(), vkey.key_id)
    );
    let key = ed25519_dalek::VerifyingKey::from_bytes(&vkey.key).unwrap();
    let signature = ed25519_dalek::Signature::from_slice(&line.bytes).unwrap();
    key.verify_strict(parsed.text().as_bytes(), &signature)
        .unwrap();
    assert_eq!(parsed.to_string(), note);
    assert_eq!(vkey.to_string().parse(), Ok(vkey));
}

#[test]
fn the_trees_of_certificate_transparency_have_their_known_roots() {
    let entries = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
    ];
    let entries = entries.iter().chain(&["606162636465666768696a6b6c6d6e6f"]);
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    let mut tree = Tree::new();

    for entry in entries {
        tree.append(&hex::decode(entry).unwrap());
    }

    for (size, root) in (0..).zip(roots) {
        assert_eq!(hex::encode(tree.root_at(size).unwrap()), root, "{size}");
    }
}

#[test]
fn a_lease_of_other_hands_reads_and_writes() {
    let bytes = vector!("lease.hex");

    let lease = Lease::from_bytes(&bytes).unwrap();

    assert_eq!(lease.devid_hash, me().devid_hash);
    assert_eq!(lease.epoch, 3);
    assert_eq!(lease.wg_pub, me().wg_pub);
    assert_eq!((lease.pop.as_str(), lease.shard), ("pop1", 1));
    assert_eq!(
        lease.gateways,
        [key_id(&gateway_key().verifying_key().to_bytes())]
    );
    let addresses: Vec<String> = lease.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.64.0.2/32", "fd64::2/128"]);
    assert_eq!(
        (lease.not_before, lease.not_after),
        (TIME - 60, TIME + 604_800)
    );
    assert_eq!(lease.to_bytes(), bytes);
}

#[test]
fn a_revocation_of_other_hands_reads_and_writes() {
    let bytes = vector!("revocation.hex");

    let revocation = Revocation::from_bytes(&bytes).unwrap();

    assert_eq!(
        (revocation.epoch, revocation.reason, revocation.at),
        (3, 2, TIME)
    );
    assert_eq!(revocation.to_bytes(), bytes);
}

#[test]
fn a_gateway_statement_of_other_hands_reads_and_writes() {
    let bytes = vector!("activation.hex");

    let activation = Activation::from_bytes(&bytes).unwrap();
    let proposal = Proposal::from_bytes(&activation.proposal).unwrap();
    let record = GatewayRecord::from_bytes(&proposal.body).unwrap();

    assert_eq!(activation.to_bytes(), bytes);
    assert_eq!(activation.proposal, vector!("proposal.hex"));
    assert_eq!(
        (proposal.kind, proposal.proposer.as_str()),
        (Kind::Gateway, "alice")
    );
    assert_eq!(proposal.body, vector!("gateway-record.hex"));
    let endpoints: Vec<String> = record.endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(endpoints, ["198.18.1.2:51820", "[2001:db8:a::2]:51820"]);
    assert_eq!(
        (record.name.as_str(), record.shards.as_slice()),
        ("gw1", [1, 300].as_slice())
    );
    assert_eq!(
        record.id(),
        key_id(&gateway_key().verifying_key().to_bytes())
    );
    let says = |n, person, verdict| pen(n).says(verdict, person, &activation.proposal);
    assert_eq!(
        activation.approvals,
        [
            says(10, "alice", Verdict::Propose),
            says(11, "bob", Verdict::Approve)
        ]
    );
}

#[test]
fn a_checkpoint_of_other_hands_is_what_our_signers_write() {
    let text = include_str!("../../vectors/checkpoint.txt");
    let parsed = SignedCheckpoint::parse(text).unwrap();
    let head = parsed.checkpoint();

    let log = LogSigner::from_seed("culvert.example/fleet", &[1; 32]).unwrap();
    let s1 = Cosigner::from_seed("culvert.example/s1", &[3; 32]).unwrap();
    let s2 = Cosigner::from_seed("culvert.example/s2", &[4; 32]).unwrap();
    let signed = log.sign_checkpoint(head.size, head.root);
    let signed = s2.cosign(&s1.cosign(&signed, TIME), TIME + 5);

    assert_eq!(signed.text(), text);
}

#[test]
fn a_proof_of_other_hands_verifies() {
    let text = include_str!("../../vectors/proof.txt");
    let proof = Proof::parse(text).unwrap();
    let entry = trust::lease::fleet_entry(&[0xA5; 32], &vector!("lease.hex"));

    let logged = anchors().fleet.verify_proof(&proof, &entry).unwrap();

    assert_eq!((logged.index, logged.size), (4, 7));
    let (since, reached) = (TIME + 5, TIME);
    assert_eq!(logged.sworn, Sworn { since, reached });
    assert_eq!(proof.format(), text);
}

#[test]
fn a_bundle_of_other_hands_passes_the_judge() {
    let bytes = vector!("lease-bundle.hex");
    let bundle = LeaseBundle::from_bytes(&bytes).unwrap();
    let stored = Stored::from_bytes(&vector!("stored.hex")).unwrap();

    let (verified, remembered) = anchors().verify_bundle(&bundle, &me(), &stored, 0).unwrap();

    assert_eq!(bundle.to_bytes(), bytes);
    assert_eq!(stored.to_bytes(), vector!("stored.hex"));
    assert_eq!(verified.get().gateways[0].name, "gw1");
    assert_eq!(remembered.lease_epoch, 3);
    assert_eq!((remembered.fleet_size(), remembered.clock_floor), (7, TIME));
}

#[test]
fn a_bundle_from_a_log_of_a_million_passes_once_three_people_and_four_cosigners_have_their_say() {
    let anchors = Anchors::parse(include_str!("../../vectors/full.policy")).unwrap();
    let mut bundle = LeaseBundle::from_bytes(&vector!("full-bundle.hex")).unwrap();
    let stored = Stored::from_bytes(&vector!("full-stored.hex")).unwrap();

    let (verified, remembered) = anchors.verify_bundle(&bundle, &me(), &stored, 0).unwrap();
    assert_eq!(verified.get().gateways.len(), 3);
    assert_eq!(remembered.fleet_size(), 1_000_000);

    bundle.gateways[2].approvals.pop();
    let refused = anchors.verify_bundle(&bundle, &me(), &stored, 0);
    let refused = refused.unwrap_err().to_string();
    assert!(
        refused.contains("people's word does not suffice"),
        "{refused}"
    );
}

#[test]
fn a_page_of_other_hands_admits_and_revokes() {
    let bytes = vector!("shard-page.hex");
    let page = ShardPage::from_bytes(&bytes).unwrap();

    let changes: Vec<ShardChange> = page
        .entries
        .iter()
        .map(|entry| {
            anchors()
                .verify_shard_entry(entry, TIME)
                .unwrap()
                .into_inner()
        })
        .collect();

    assert_eq!(page.to_bytes(), bytes);
    assert_eq!((page.shard, page.from, page.next), (1, 40, 42));
    let [
        ShardChange::Admit { lease, .. },
        ShardChange::Revoke { revocation, .. },
    ] = &changes[..]
    else {
        panic!("{changes:?}")
    };
    assert_eq!(lease.devid_hash, revocation.devid_hash);
}

#[test]
fn a_claim_code_of_other_hands_gives_the_same_key() {
    let shown = include_str!("../../vectors/claim-code.txt").trim();

    let code: ClaimCode = shown.parse().unwrap();

    assert_eq!(code.to_string(), shown);
    assert_eq!(
        code.signing_key().verifying_key().to_bytes().to_vec(),
        vector!("claim-key.hex")
    );
}

#[test]
fn an_enrolment_of_other_hands_is_what_we_build_and_accept() {
    let eph = StaticSecret::from([9; 32]);
    let challenge = ServerChallenge::from_bytes(&vector!("challenge.hex")).unwrap();
    let code: ClaimCode = include_str!("../../vectors/claim-code.txt")
        .parse()
        .unwrap();
    let bytes = vector!("enrol-request.hex");

    let (device, wg) = (
        SigningKey::from_bytes(&[7; 32]),
        StaticSecret::from([8; 32]),
    );
    let built = EnrolReq::build(&device, &wg, Some(&code), &challenge, &EXPORTER, 3).unwrap();
    let facts = EnrolReq::from_bytes(&bytes)
        .unwrap()
        .check(&challenge, &eph, &EXPORTER)
        .unwrap();

    assert_eq!(challenge, ServerChallenge::new(&eph, [0x5A; 32]));
    assert_eq!(hex::encode(built.to_bytes()), hex::encode(&bytes));
    assert_eq!(
        facts.get().claim_pub,
        Some(code.signing_key().verifying_key().to_bytes())
    );
}

#[test]
fn a_channel_header_of_other_hands_verifies() {
    let header = include_str!("../../vectors/channel.txt").trim();

    let proof: ChannelProof = header.parse().unwrap();

    let id = key_id(&gateway_key().verifying_key().to_bytes());
    assert_eq!(proof.verify("gateway", &EXPORTER), Ok(id));
    assert_eq!(
        ChannelProof::sign(&gateway_key(), "gateway", &EXPORTER).to_string(),
        header
    );
}

fn anchors() -> Anchors {
    Anchors::parse(include_str!("../../vectors/trust.policy")).unwrap()
}

fn gateway_key() -> SigningKey {
    SigningKey::from_bytes(&[5; 32])
}

fn me() -> DeviceFacts {
    DeviceFacts {
        devid_hash: key_id(&SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes()),
        wg_pub: PublicKey::from(&StaticSecret::from([8; 32])).to_bytes(),
    }
}
