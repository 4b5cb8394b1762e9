//! Every parser under bytes of all sorts: it never panics, and accepts only what it would write.

use std::path::Path;
use std::str::FromStr;

use proptest::prelude::*;
use trust::{
    Activation, AddCheckpoint, Anchors, Approval, ChannelProof, ClaimCode, EnrolReq, GatewayRecord,
    Lease, LeaseBundle, Note, Policy, Proof, Proposal, Revocation, ServerChallenge, ShardEntry,
    ShardPage, Signed, SignedCheckpoint, SignedList, Stored, Tile, Vkey,
};

/// What a parser said of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Refused,
    /// Accepted, and these are the bytes that it would write itself.
    Accepted(Vec<u8>),
    /// Accepted by a parser of text that people write, which has no canonical form.
    Understood,
}

pub(crate) struct Parser {
    pub(crate) name: &'static str,
    pub(crate) parse: fn(&[u8]) -> Verdict,
}

macro_rules! object {
    ($name:literal, $object:ty) => {
        Parser {
            name: $name,
            parse: |bytes| match <$object>::from_bytes(bytes) {
                Ok(object) => Verdict::Accepted(object.to_bytes()),
                Err(_) => Verdict::Refused,
            },
        }
    };
}

pub(crate) const PARSERS: [Parser; 24] = [
    object!("lease", Lease),
    object!("revocation", Revocation),
    object!("gateway-record", GatewayRecord),
    object!("proposal", Proposal),
    object!("approval", Approval),
    object!("activation", Activation),
    object!("lease-bundle", LeaseBundle),
    object!("shard-entry", ShardEntry),
    object!("shard-page", ShardPage),
    object!("signed", Signed),
    object!("signed-list", SignedList),
    object!("stored", Stored),
    object!("challenge", ServerChallenge),
    object!("enrol-request", EnrolReq),
    Parser {
        name: "note",
        parse: |bytes| text(bytes, |t| Note::parse(t).ok(), Note::to_string),
    },
    Parser {
        name: "checkpoint",
        parse: |bytes| {
            text(
                bytes,
                |t| SignedCheckpoint::parse(t).ok(),
                SignedCheckpoint::text,
            )
        },
    },
    Parser {
        name: "add-checkpoint",
        parse: |bytes| {
            text(
                bytes,
                |t| AddCheckpoint::parse(t.as_bytes()).ok(),
                AddCheckpoint::to_string,
            )
        },
    },
    Parser {
        name: "proof",
        parse: |bytes| text(bytes, |t| Proof::parse(t).ok(), Proof::format),
    },
    Parser {
        name: "vkey",
        parse: canonical::<Vkey>,
    },
    Parser {
        name: "tile",
        parse: canonical::<Tile>,
    },
    Parser {
        name: "channel",
        parse: canonical::<ChannelProof>,
    },
    Parser {
        name: "policy",
        parse: |bytes| human(bytes, |text| Policy::parse(text).is_ok()),
    },
    Parser {
        name: "anchors",
        parse: |bytes| human(bytes, |text| Anchors::parse(text).is_ok()),
    },
    Parser {
        name: "claim",
        parse: |bytes| human(bytes, |text| text.parse::<ClaimCode>().is_ok()),
    },
];

/// Holds a parser to its promise over these bytes, and returns what it said.
pub(crate) fn held(parser: &Parser, bytes: &[u8]) -> Verdict {
    let verdict = (parser.parse)(bytes);
    if let Verdict::Accepted(written) = &verdict {
        assert_eq!(
            written, bytes,
            "{} accepted what it would not write",
            parser.name
        );
    }
    verdict
}

/// The accepted seeds of the corpora: where mutation starts.
pub(crate) fn seeds() -> Vec<(&'static Parser, Vec<u8>)> {
    let mut seeds = Vec::new();
    for parser in &PARSERS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpora")
            .join(parser.name);
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with("accepted") {
                seeds.push((parser, std::fs::read(&path).unwrap()));
            }
        }
    }
    seeds
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic_a_parser(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        for parser in &PARSERS {
            held(parser, &bytes);
        }
    }

    #[test]
    fn random_text_never_panics_a_parser(text in "[ -~\\n\u{2014}]{0,300}") {
        for parser in &PARSERS {
            held(parser, text.as_bytes());
        }
    }

    #[test]
    fn a_mutated_object_is_refused_or_canonical(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
    ) {
        let seeds = seeds();
        let (parser, mut bytes) = seeds[pick.index(seeds.len())].clone();
        for (place, value, how) in changes {
            if bytes.is_empty() {
                break;
            }
            let place = place.index(bytes.len());
            match how {
                0 => bytes[place] = value,
                1 => bytes[place] ^= 1 << (value % 8),
                2 => bytes.insert(place, value),
                _ => bytes.truncate(place),
            }
        }
        held(parser, &bytes);
    }

    #[test]
    fn any_lease_reads_what_it_wrote(lease in leases()) {
        prop_assert_eq!(Lease::from_bytes(&lease.to_bytes()), Ok(lease));
    }

    #[test]
    fn any_stored_memory_reads_what_it_wrote(
        lease_epoch in any::<u64>(),
        lease in any::<Option<[u8; 32]>>(),
        fleet in any::<Option<(u64, [u8; 32])>>(),
        clock_floor in any::<u64>(),
    ) {
        let stored = Stored { lease_epoch, lease, fleet, clock_floor };
        prop_assert_eq!(Stored::from_bytes(&stored.to_bytes()), Ok(stored));
    }

    #[test]
    fn any_tile_reads_what_it_wrote(index in any::<u64>(), width in 1..=256_u16) {
        let tile = Tile { kind: trust::TileKind::Entries, index, width };
        prop_assert_eq!(tile.to_string().parse(), Ok(tile));
    }
}

fn leases() -> impl Strategy<Value = Lease> {
    let times = (any::<u64>(), any::<u64>(), any::<u64>());
    let lists = (
        prop::collection::vec(any::<[u8; 32]>(), 0..=8),
        prop::collection::vec((any::<[u8; 16]>(), 0..=128_u8), 0..=8),
        prop::collection::vec((any::<[u8; 4]>(), 0..=32_u8), 0..=8),
        prop::collection::vec(".{0,100}", 0..=8),
    );
    let names = (
        any::<[u8; 32]>(),
        any::<[u8; 32]>(),
        ".{0,16}",
        any::<u32>(),
    );
    let rate = || proptest::option::of((64_000..=100_000_000_000_u64).prop_map(bit_rate));
    let limits = (rate(), rate());
    (times, lists, names, limits).prop_map(
        |((epoch, not_before, not_after), lists, names, limits)| {
            let (down, up) = limits;
            let (gateways, v6, v4, dns) = lists;
            let (devid_hash, wg_pub, pop, shard) = names;
            let nets = v6
                .into_iter()
                .map(|(addr, prefix)| net(addr.into(), prefix));
            let nets = nets.chain(
                v4.into_iter()
                    .map(|(addr, prefix)| net(addr.into(), prefix)),
            );
            Lease {
                v: trust::VERSION,
                devid_hash,
                epoch,
                wg_pub,
                pop,
                shard,
                gateways,
                addresses: nets.collect(),
                dns,
                not_before,
                not_after,
                limits: trust::Limits { down, up },
            }
        },
    )
}

fn bit_rate(bits_per_s: u64) -> trust::BitRate {
    trust::BitRate::new(bits_per_s).unwrap()
}

fn net(addr: std::net::IpAddr, prefix: u8) -> ipnet::IpNet {
    ipnet::IpNet::new(addr, prefix).unwrap().trunc()
}

fn canonical<T: FromStr + ToString>(bytes: &[u8]) -> Verdict {
    text(bytes, |text| text.parse::<T>().ok(), T::to_string)
}

fn text<T>(
    bytes: &[u8],
    parse: impl FnOnce(&str) -> Option<T>,
    write: impl FnOnce(&T) -> String,
) -> Verdict {
    match std::str::from_utf8(bytes).ok().and_then(parse) {
        Some(parsed) => Verdict::Accepted(write(&parsed).into_bytes()),
        None => Verdict::Refused,
    }
}

fn human(bytes: &[u8], understood: impl FnOnce(&str) -> bool) -> Verdict {
    match std::str::from_utf8(bytes) {
        Ok(text) if understood(text) => Verdict::Understood,
        _ => Verdict::Refused,
    }
}
