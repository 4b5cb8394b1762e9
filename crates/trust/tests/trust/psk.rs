//! ML-KEM-768 and what is made of it: vectors of NIST and of another implementation (`vectors/make-psk.py`), then
//! every way in which a statement or an offer can be another's. The same file runs on big-endian MIPS.

use ed25519_dalek::SigningKey;
use rand_core::{CryptoRng, RngCore};
use trust::kem::{KEM_SEED_BYTES, KemError, KemKey, KemStatement, encapsulate};
use trust::{DecodeError, Pair, Psk, PskError, PskOffer, Signed, key_id};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const TIME: u64 = 1_790_000_000;
const TWO_DAYS: u64 = 172_800;

macro_rules! lines {
    ($name:literal) => {
        include_str!(concat!("../../vectors/", $name))
            .lines()
            .map(|line| hex::decode(line).unwrap())
    };
}

/// Gives the same byte for ever, as the other implementation was made to.
struct Sevens;

impl RngCore for Sevens {
    fn next_u32(&mut self) -> u32 {
        0x0707_0707
    }

    fn next_u64(&mut self) -> u64 {
        0x0707_0707_0707_0707
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        out.fill(7);
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(out);
        Ok(())
    }
}

impl CryptoRng for Sevens {}

fn kem_key(d: u8, z: u8) -> KemKey {
    let mut seed = Zeroizing::new([d; KEM_SEED_BYTES]);
    seed[32..].fill(z);
    KemKey::from_seed(seed)
}

fn gateway() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

fn device() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn pair() -> Pair {
    let wg = |n| PublicKey::from(&StaticSecret::from([n; 32])).to_bytes();
    Pair {
        devid_hash: key_id(device().verifying_key().as_bytes()),
        wg_pub: wg(3),
        gateway: key_id(gateway().verifying_key().as_bytes()),
        gateway_wg_pub: wg(4),
    }
}

fn statement() -> Signed {
    KemStatement::sign(&gateway(), &kem_key(5, 6), TIME, TIME + TWO_DAYS)
}

fn offer(pair: &Pair) -> (Psk, PskOffer) {
    let statement = KemStatement::verify(&statement(), &pair.gateway, TIME).unwrap();
    let agreed = PskOffer::make(&device(), pair, &statement, &mut Sevens).unwrap();
    let offer = PskOffer::verify(&agreed.offer).unwrap().into_inner();
    (agreed.psk, offer)
}

#[test]
fn key_pairs_of_nists_acvp_come_out_of_their_seeds() {
    for line in include_str!("../../vectors/acvp-keygen.txt").lines() {
        let fields: Vec<Vec<u8>> = line
            .split(' ')
            .map(|field| hex::decode(field).unwrap())
            .collect();
        let [d, z, id] = fields.as_slice() else {
            panic!("{line}")
        };
        let mut seed = Zeroizing::new([0; KEM_SEED_BYTES]);
        seed[..32].copy_from_slice(d);
        seed[32..].copy_from_slice(z);

        assert_eq!(KemKey::from_seed(seed).id().as_slice(), id);
    }
}

#[test]
fn another_implementation_makes_the_same_keys_ciphertexts_and_secrets() {
    let vectors: Vec<Vec<u8>> = lines!("ml-kem.txt").collect();
    let [public, ciphertext, shared, rejected] = vectors.as_slice() else {
        panic!("four lines")
    };
    let key = kem_key(5, 6);

    assert_eq!(key.public().as_slice(), public);
    let (made, sent) = encapsulate(key.public(), &mut Sevens).unwrap();
    assert_eq!(
        (made.as_slice(), sent.as_slice()),
        (&**shared, &**ciphertext)
    );
    assert_eq!(key.decapsulate(&sent).unwrap().as_slice(), shared);
    let mut garbled = sent;
    garbled[0] ^= 1;
    assert_eq!(key.decapsulate(&garbled).unwrap().as_slice(), rejected);
}

#[test]
fn a_statement_and_an_offer_are_byte_for_byte_those_of_the_other_implementation() {
    let pair = pair();
    let made = KemStatement::verify(&statement(), &pair.gateway, TIME).unwrap();
    let agreed = PskOffer::make(&device(), &pair, &made, &mut Sevens).unwrap();

    assert_eq!(
        vec![statement().to_bytes()],
        lines!("kem-statement.hex").collect::<Vec<_>>()
    );
    assert_eq!(
        vec![agreed.offer.to_bytes()],
        lines!("psk-offer.hex").collect::<Vec<_>>()
    );
    assert_eq!(
        vec![agreed.psk.as_bytes().to_vec()],
        lines!("psk.txt").collect::<Vec<_>>()
    );
}

#[test]
fn a_key_that_the_gateway_did_not_sign_is_refused() {
    let pair = pair();
    let thief = SigningKey::from_bytes(&[9; 32]);
    let own = KemStatement::sign(&thief, &kem_key(8, 8), TIME, TIME + TWO_DAYS);
    let thief_id = key_id(thief.verifying_key().as_bytes());

    assert_eq!(
        KemStatement::verify(&own, &pair.gateway, TIME),
        Err(KemError::OtherGateway(thief_id.into()))
    );
}

#[test]
fn a_statement_with_any_byte_changed_is_refused() {
    let pair = pair();
    let bytes = statement().to_bytes();

    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        let verified = Signed::from_bytes(&changed)
            .map_err(KemError::from)
            .and_then(|signed| KemStatement::verify(&signed, &pair.gateway, TIME));
        assert!(verified.is_err(), "byte {place}");
    }
}

#[test]
fn a_statement_out_of_its_time_or_for_too_long_is_refused() {
    let pair = pair();
    let verify = |signed: &Signed, now| {
        KemStatement::verify(signed, &pair.gateway, now).map(|verified| verified.get().not_after)
    };
    let not_after = TIME + TWO_DAYS;
    let for_ever = KemStatement::sign(&gateway(), &kem_key(5, 6), TIME, TIME + 32 * 86_400);

    assert_eq!(
        verify(&statement(), not_after),
        Err(KemError::Expired {
            not_after,
            now: not_after
        })
    );
    assert_eq!(
        verify(&statement(), TIME - 301),
        Err(KemError::NotYet {
            not_before: TIME,
            now: TIME - 301
        })
    );
    assert_eq!(verify(&for_ever, TIME), Err(KemError::TooLong));
    assert_eq!(verify(&statement(), TIME), Ok(not_after));
}

#[test]
fn bytes_that_are_no_encapsulation_key_are_refused() {
    let key = [0xff; trust::kem::KEM_PUB_BYTES];

    assert_eq!(encapsulate(&key, &mut Sevens).unwrap_err(), KemError::Key);
}

#[test]
fn an_offer_with_any_byte_changed_is_refused() {
    let statement = KemStatement::verify(&statement(), &pair().gateway, TIME).unwrap();
    let agreed = PskOffer::make(&device(), &pair(), &statement, &mut Sevens).unwrap();
    let bytes = agreed.offer.to_bytes();

    for place in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[place] ^= 1;
        let verified = Signed::from_bytes(&changed)
            .map_err(PskError::from)
            .and_then(|signed| PskOffer::verify(&signed));
        assert!(verified.is_err(), "byte {place}");
    }
}

#[test]
fn an_offer_is_nobody_elses() {
    let (pair, key) = (pair(), kem_key(5, 6));
    let (_, offer) = offer(&pair);
    let others = [
        Pair {
            devid_hash: [0; 32],
            ..pair
        },
        Pair {
            wg_pub: [0; 32],
            ..pair
        },
        Pair {
            gateway: [0; 32],
            ..pair
        },
    ];

    for other in others {
        assert_eq!(offer.accept(&other, &key), Err(PskError::OtherPair));
    }
    assert_eq!(offer.accept(&pair, &kem_key(6, 6)), Err(PskError::OtherKey));
}

#[test]
fn two_ends_that_disagree_notice_it_before_any_handshake() {
    let (pair, key) = (pair(), kem_key(5, 6));
    let (_, offer) = offer(&pair);
    let other_wg = Pair {
        gateway_wg_pub: [0; 32],
        ..pair
    };
    let mut swapped = offer.clone();
    swapped.ciphertext[5] ^= 1;

    assert_eq!(offer.accept(&other_wg, &key), Err(PskError::Confirmation));
    assert_eq!(swapped.accept(&pair, &key), Err(PskError::Confirmation));
}

#[test]
fn both_ends_have_the_same_key_and_neither_shows_it() {
    let (pair, key) = (pair(), kem_key(5, 6));
    let (psk, offer) = offer(&pair);

    let accepted = offer.accept(&pair, &key).unwrap();

    assert_eq!(accepted, psk);
    assert_ne!(psk, Psk::from_bytes([0; 32]));
    assert_eq!(format!("{accepted:?}"), "Psk(secret)");
    let seen = format!("{key:?} {offer:?}");
    assert!(!seen.contains("0505"), "{seen}");
}

#[test]
fn an_offer_is_no_statement_and_the_reverse() {
    let statement_read = PskOffer::verify(&statement());
    let agreed = {
        let statement = KemStatement::verify(&statement(), &pair().gateway, TIME).unwrap();
        PskOffer::make(&device(), &pair(), &statement, &mut Sevens).unwrap()
    };
    let offer_read = KemStatement::verify(&agreed.offer, &pair().gateway, TIME);

    assert_eq!(
        statement_read,
        Err(DecodeError::NotAMap { fields: 7 }.into())
    );
    assert_eq!(offer_read, Err(DecodeError::NotAMap { fields: 5 }.into()));
}
