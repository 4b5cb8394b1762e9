//! What a router pays for judging: the bundle of a large fleet (`vectors/make-full.py`), from its bytes to the word that it may act on it, as
//! often as is asked for. Prints the milliseconds of one. `cargo xtask cross` runs it under emulation, and weighs it against `carry`.

use std::error::Error;
use std::time::Instant;

use trust::{Anchors, DeviceFacts, Lease, LeaseBundle, Stored};

const POLICY: &str = include_str!("../vectors/full.policy");
const BUNDLE: &str = include_str!("../vectors/full-bundle.hex");
const STORED: &str = include_str!("../vectors/full-stored.hex");

fn main() -> Result<(), Box<dyn Error>> {
    let times: u32 = std::env::args().nth(1).ok_or("how often?")?.parse()?;
    let anchors = Anchors::parse(POLICY)?;
    let [bundle, stored] = [BUNDLE, STORED].map(|text| hex::decode(text.trim()));
    let (bundle, stored) = (bundle?, Stored::from_bytes(&stored?)?);
    let lease = Lease::from_bytes(&LeaseBundle::from_bytes(&bundle)?.lease)?;
    let me = DeviceFacts {
        devid_hash: lease.devid_hash,
        wg_pub: lease.wg_pub,
    };
    let start = Instant::now();
    for _ in 0..times {
        let bundle = LeaseBundle::from_bytes(&bundle)?;
        let (bundle, _) = anchors.verify_bundle(&bundle, &me, &stored, 0)?;
        assert_eq!(bundle.get().gateways.len(), 3, "three gateways were let in");
    }
    let ms = start.elapsed().as_secs_f64() * 1e3 / f64::from(times);
    println!("{ms:.3}");
    Ok(())
}
