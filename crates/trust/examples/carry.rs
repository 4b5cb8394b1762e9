//! `judge` without the judge: a program that agrees a tunnel's key and signs with its own, as a router must that trusts whatever it is given, and
//! that reads and prints as much as `judge`. What that one has more of flash is the price of judging.

use std::error::Error;
use std::time::Instant;

use ed25519_dalek::{Signer, SigningKey};
use x25519_dalek::{PublicKey, StaticSecret};

const POLICY: &str = include_str!("../vectors/full.policy");
const BUNDLE: &str = include_str!("../vectors/full-bundle.hex");
const STORED: &str = include_str!("../vectors/full-stored.hex");

fn main() -> Result<(), Box<dyn Error>> {
    let times: u32 = std::env::args().nth(1).ok_or("how often?")?.parse()?;
    let [bundle, stored] = [BUNDLE, STORED].map(|text| hex::decode(text.trim()));
    let carried = (POLICY, bundle?, stored?);
    let start = Instant::now();
    for _ in 0..times {
        let (_, bundle, stored) = std::hint::black_box(&carried);
        let seed = *stored.first_chunk().ok_or("too short for a key")?;
        let agreed = StaticSecret::from(seed).diffie_hellman(&PublicKey::from(seed));
        let signature = SigningKey::from_bytes(agreed.as_bytes()).sign(bundle);
        std::hint::black_box(signature);
    }
    let ms = start.elapsed().as_secs_f64() * 1e3 / f64::from(times);
    println!("{ms:.3}");
    Ok(())
}
