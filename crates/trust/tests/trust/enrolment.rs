//! Enrolment between two ends, with one thing wrong at a time.

use ed25519_dalek::SigningKey;
use rand_core::OsRng;
use trust::{
    Auth, ChannelError, ChannelProof, ClaimCode, EnrolError, EnrolReq, ServerChallenge, key_id,
    sign_channel, verify_channel,
};
use x25519_dalek::{PublicKey, StaticSecret};

const EXPORTER: [u8; 32] = [0xE1; 32];
/// No point of the curve has this y.
const NO_POINT: [u8; 32] = {
    let mut y = [0; 32];
    y[0] = 2;
    y
};

struct Pair {
    device: SigningKey,
    wg: StaticSecret,
    code: ClaimCode,
    eph: StaticSecret,
    challenge: ServerChallenge,
}

impl Pair {
    fn new() -> Self {
        let eph = StaticSecret::from([9; 32]);
        Self {
            device: SigningKey::from_bytes(&[7; 32]),
            wg: StaticSecret::from([8; 32]),
            code: ClaimCode::generate(&mut OsRng),
            challenge: ServerChallenge::new(&eph, [0x5A; 32]),
            eph,
        }
    }

    fn request(&self) -> EnrolReq {
        self.request_with(Some(&self.code))
    }

    fn request_with(&self, code: Option<&ClaimCode>) -> EnrolReq {
        EnrolReq::build(&self.device, &self.wg, code, &self.challenge, &EXPORTER, 42).unwrap()
    }

    fn refusal(&self, request: &EnrolReq) -> EnrolError {
        request
            .check(&self.challenge, &self.eph, &EXPORTER)
            .unwrap_err()
    }
}

#[test]
fn a_request_for_another_challenge_is_refused() {
    let pair = Pair::new();
    let request = pair.request();
    let other = ServerChallenge::new(&pair.eph, [0; 32]);

    let refused = request.check(&other, &pair.eph, &EXPORTER);

    assert_eq!(refused, Err(EnrolError::Nonce));
}

#[test]
fn a_request_carried_to_another_connection_is_refused() {
    let pair = Pair::new();
    let request = pair.request();

    let refused = request.check(&pair.challenge, &pair.eph, &[0; 32]);

    assert_eq!(refused, Err(EnrolError::DeviceSignature));
}

#[test]
fn a_changed_device_key_is_refused() {
    let pair = Pair::new();
    let mut request = pair.request();
    request.devid_pub = SigningKey::from_bytes(&[66; 32]).verifying_key().to_bytes();

    assert_eq!(pair.refusal(&request), EnrolError::DeviceSignature);
}

#[test]
fn a_device_key_that_is_no_point_or_of_low_order_is_refused() {
    let pair = Pair::new();
    for devid_pub in [NO_POINT, [0; 32], [0xFF; 32]] {
        let mut request = pair.request();
        request.devid_pub = devid_pub;
        assert_eq!(pair.refusal(&request), EnrolError::DeviceSignature);
    }
}

#[test]
fn a_changed_tree_size_is_refused() {
    let pair = Pair::new();
    let mut request = pair.request();
    request.fleet_size += 1;

    assert_eq!(pair.refusal(&request), EnrolError::DeviceSignature);
}

#[test]
fn a_claim_key_without_its_signature_is_refused() {
    let pair = Pair::new();
    let mut request = pair.request();
    let Auth::Claim { claim_pub, sig } = &mut request.auth else {
        panic!("made with a code")
    };
    let bare = SigningKey::from_bytes(&[1; 32]);
    *claim_pub = ClaimCode::generate(&mut OsRng)
        .signing_key()
        .verifying_key()
        .to_bytes();
    *sig = sign_channel(&bare, "gateway", &EXPORTER);

    // The device's own signature covers the claim key, and so fails first.
    assert_eq!(pair.refusal(&request), EnrolError::DeviceSignature);
}

#[test]
fn a_broken_claim_signature_is_refused() {
    let pair = Pair::new();
    let mut request = pair.request();
    let Auth::Claim { sig, .. } = &mut request.auth else {
        panic!("made with a code")
    };
    sig[5] ^= 1;

    assert_eq!(pair.refusal(&request), EnrolError::ClaimSignature);
}

#[test]
fn a_claim_that_is_struck_out_is_noticed() {
    let pair = Pair::new();
    let mut request = pair.request();
    request.auth = Auth::Known;

    assert_eq!(pair.refusal(&request), EnrolError::DeviceSignature);
}

#[test]
fn a_tunnel_key_without_proof_of_possession_is_refused() {
    let pair = Pair::new();
    let mut request = pair.request();
    request.wg_mac[0] ^= 1;

    assert_eq!(pair.refusal(&request), EnrolError::TunnelKey);
}

#[test]
fn a_tunnel_key_of_somebody_else_is_refused() {
    let pair = Pair::new();
    let mut request = pair.request();
    request.wg_pub = PublicKey::from(&StaticSecret::from([77; 32])).to_bytes();

    assert_eq!(pair.refusal(&request), EnrolError::DeviceSignature);
}

#[test]
fn a_server_key_of_low_order_is_refused_by_the_device() {
    let pair = Pair::new();
    for eph_pub in low_order_points() {
        let challenge = ServerChallenge {
            eph_pub,
            ..pair.challenge.clone()
        };
        let built = EnrolReq::build(&pair.device, &pair.wg, None, &challenge, &EXPORTER, 0);
        assert_eq!(built.unwrap_err(), EnrolError::LowOrderKey);
    }
}

#[test]
fn the_check_answers_with_what_was_proven() {
    let pair = Pair::new();
    let request = EnrolReq::from_bytes(&pair.request().to_bytes()).unwrap();

    let facts = request
        .check(&pair.challenge, &pair.eph, &EXPORTER)
        .unwrap()
        .into_inner();

    assert_eq!(facts.devid_pub, pair.device.verifying_key().to_bytes());
    assert_eq!(facts.wg_pub, PublicKey::from(&pair.wg).to_bytes());
    assert_eq!(
        facts.claim_pub,
        Some(pair.code.signing_key().verifying_key().to_bytes())
    );
    assert_eq!(facts.fleet_size, 42);
}

#[test]
fn a_known_device_needs_no_claim() {
    let pair = Pair::new();
    let request = pair.request_with(None);

    let facts = request
        .check(&pair.challenge, &pair.eph, &EXPORTER)
        .unwrap();

    assert_eq!(facts.get().claim_pub, None);
}

#[test]
fn debug_of_a_request_shows_no_proof() {
    let pair = Pair::new();
    let request = pair.request();

    let shown = format!("{request:?}");

    assert_eq!(
        shown,
        format!("EnrolReq({})", trust::KeyId::of(&request.devid_pub))
    );
}

#[test]
fn a_channel_signature_is_bound_to_role_connection_and_key() {
    let key = SigningKey::from_bytes(&[5; 32]);
    let public = key.verifying_key().to_bytes();
    let other = SigningKey::from_bytes(&[6; 32]).verifying_key().to_bytes();
    let sig = sign_channel(&key, "gateway", &EXPORTER);

    let wrong = Err(ChannelError::Signature);
    assert_eq!(verify_channel(&public, "server", &EXPORTER, &sig), wrong);
    assert_eq!(verify_channel(&public, "gateway", &[0; 32], &sig), wrong);
    assert_eq!(verify_channel(&other, "gateway", &EXPORTER, &sig), wrong);
    assert_eq!(
        verify_channel(&NO_POINT, "gateway", &EXPORTER, &sig),
        Err(ChannelError::Key)
    );
    assert_eq!(verify_channel(&public, "gateway", &EXPORTER, &sig), Ok(()));
}

#[test]
fn a_channel_header_that_is_cut_or_padded_is_refused() {
    let proof = ChannelProof::sign(&SigningKey::from_bytes(&[5; 32]), "gateway", &EXPORTER);
    let header = proof.to_string();

    for bad in [
        &header[1..],
        &header[..header.len() - 4],
        &format!("{header}AAAA"),
        "Culvert-Key ",
    ] {
        assert_eq!(
            bad.parse::<ChannelProof>(),
            Err(ChannelError::Shape),
            "{bad}"
        );
    }

    let parsed: ChannelProof = header.parse().unwrap();
    assert_eq!(
        parsed.verify("gateway", &EXPORTER),
        Ok(key_id(&proof.public))
    );
}

/// Keys of order 1, 2, 4 and 8, and one that is not reduced.
fn low_order_points() -> [[u8; 32]; 5] {
    let point = |text: &str| <[u8; 32]>::try_from(hex::decode(text).unwrap()).unwrap();
    [
        [0; 32],
        point("0100000000000000000000000000000000000000000000000000000000000000"),
        point("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        point("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        point("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    ]
}
