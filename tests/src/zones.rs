//! The names of the lab's internet: a signed root, a signed zone, an unsigned one and one whose signatures are wrong;
//! zones with every turn that a lookup can take; and two that liars answer for.

mod maze;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::netns::said;
use crate::topology::{LIAR, ROOT_SERVER, WEB, WEB_V6, ZONE_SERVER};

pub use maze::questions;

/// The page's name; its middle label is what the observer searches for.
pub const PAGE_NAME: &str = "www.first-light.lab";
/// A name with 3 KB of text, too much for UDP.
pub const BIG_NAME: &str = "big.first-light.lab";
/// Below it are `n0` to `n399`.
pub const MANY_NAMES: &str = "many.first-light.lab";
/// Every name below it exists, by a wildcard, for a second.
pub(crate) const WILD_NAMES: &str = "wild.first-light.lab";
/// A name whose address is one of the home, and another.
pub const INSIDE_NAMES: [&str; 2] = ["inside.first-light.lab", "intranet.first-light.lab"];
/// That address.
pub const INSIDE: &str = "192.168.1.77";
/// A name in a zone that is not signed.
pub const UNSIGNED_NAME: &str = "www.plain";
/// A name that a validating resolver must refuse.
pub const BOGUS_NAME: &str = "www.bogus";
/// Below it, in the zone that is not signed, are `n0` to `n399`, for a second each.
pub(crate) const MANY_UNSIGNED_NAMES: &str = "many.plain";
/// In the zone that is not signed: every name below it has 60 KB of text, by a wildcard, too much for UDP.
pub const HEAVY_NAMES: &str = "heavy.plain";
/// Every name below it has 44 addresses, by a wildcard, as many as are kept with their server, which come over UDP.
pub const CROWDED_NAMES: &str = "crowded.plain";
/// A signed zone whose only server may be a liar; below it are `n0` to `n399`.
pub(crate) const SEALED_ZONE: &str = "sealed";
/// A zone that is not signed and whose only server may be a liar.
pub(crate) const EVIL_ZONE: &str = "evil";
/// The label in every name of the signed zone, as it stands in a DNS message.
pub const NAME_MARKER: &str = "first-light";

/// Zone files, signed, and the anchor that a resolver needs.
#[derive(Debug, Clone)]
pub struct Zones {
    /// The root's DNSKEY, as a zone file line.
    pub trust_anchor: PathBuf,
    pub(crate) dir: PathBuf,
}

impl Zones {
    /// Writes and signs all zones into `dir`.
    pub fn make(dir: &Path) -> Result<Self> {
        let bogus = zone("bogus.", &format!("www.bogus. IN A {WEB}\n"));
        sign(dir, "bogus.", &bogus, Denial::Nsec)?;
        // The parent names a key that the child never signed with.
        let wrong_ds = sign(dir, "bogus.", &zone("bogus.", ""), Denial::Nsec)?;
        let right_key = sign(dir, "bogus.", &bogus, Denial::Nsec)?;
        ensure!(wrong_ds != right_key, "two keys made apart are the same");
        let many: String = (0..400)
            .map(|n| format!("n{n}.{MANY_UNSIGNED_NAMES}. 1 IN A {WEB}\n"))
            .collect();
        let plain = format!("www.plain. IN A {WEB}\n{many}{}", heavy_names());
        fs::write(dir.join("plain.zone"), zone("plain.", &plain)).context("writing a zone")?;
        let lab = sign(dir, "lab.", &zone("lab.", &lab_names()), Denial::Nsec)?;
        let sealed = zone_at(LIAR, "sealed.", &sealed_names());
        let sealed = sign(dir, "sealed.", &sealed, Denial::Nsec)?;
        let maze = maze::make(dir)?;
        let delegations: String = ["lab.", "plain.", "bogus.", "maze.", "hashed."]
            .iter()
            .map(|child| delegation(child, ZONE_SERVER))
            .chain(["sealed.", "evil."].map(|child| delegation(child, LIAR)))
            .collect();
        let root = format!(
            "$TTL 300\n. IN SOA ns-root. host.ns-root. 1 3600 600 86400 60\n. IN NS ns-root.\n\
             ns-root. IN A {ROOT_SERVER}\n{delegations}{lab}{wrong_ds}{sealed}{maze}"
        );
        sign(dir, ".", &root, Denial::Nsec)?;
        Ok(Self {
            trust_anchor: dir.join("root.key"),
            dir: dir.to_owned(),
        })
    }

    /// All zones but the root that one server has.
    pub(crate) const BELOW_THE_ROOT: [&str; 8] = [
        "lab.",
        "plain.",
        "bogus.",
        "sealed.",
        "maze.",
        "hashed.",
        "child.maze.",
        "loose.maze.",
    ];

    /// nsd's stanza for the zones that one server is responsible for.
    pub(crate) fn stanza(&self, names: &[&str]) -> String {
        names
            .iter()
            .map(|name| {
                let file = self.dir.join(format!("{}zone", file_stem(name)));
                format!(
                    "zone:\n  name: \"{name}\"\n  zonefile: \"{}\"\n",
                    file.display()
                )
            })
            .collect()
    }
}

fn lab_names() -> String {
    let text = "0123456789".repeat(25);
    let texts: String = (0..12)
        .map(|n| format!(" \"{n:02}{}\"", &text[2..]))
        .collect();
    let many: String = (0..400)
        .map(|n| format!("n{n}.{MANY_NAMES}. IN A {WEB}\n"))
        .collect();
    let inside: String = INSIDE_NAMES
        .iter()
        .map(|name| format!("{name}. IN A {INSIDE}\n"))
        .collect();
    format!(
        "{inside}{PAGE_NAME}. IN A {WEB}\n{PAGE_NAME}. IN AAAA {WEB_V6}\n{BIG_NAME}. IN TXT{texts}\n\
         *.{WILD_NAMES}. 1 IN A {WEB}\nalias.first-light.lab. IN CNAME {PAGE_NAME}.\n{many}"
    )
}

fn heavy_names() -> String {
    let text = "0123456789".repeat(25);
    let texts: String = (0..220)
        .map(|n| format!("*.{HEAVY_NAMES}. IN TXT \"{n:03}{text}\"\n"))
        .collect();
    let addresses: String = (1..=44)
        .map(|n| format!("*.{CROWDED_NAMES}. IN A 203.0.113.{n}\n"))
        .collect();
    texts + &addresses
}

fn sealed_names() -> String {
    (0..400)
        .map(|n| format!("n{n}.{SEALED_ZONE}. 1 IN A {WEB}\n"))
        .collect()
}

/// For longer than any test lasts: what a liar says of himself does not take its place.
fn delegation(child: &str, server: &str) -> String {
    format!("{child} 86400 IN NS ns.{child}\nns.{child} 86400 IN A {server}\n")
}

fn zone(name: &str, records: &str) -> String {
    zone_at(ZONE_SERVER, name, records)
}

fn zone_at(server: &str, name: &str, records: &str) -> String {
    format!(
        "$TTL 300\n{name} IN SOA ns.{name} host.{name} 1 3600 600 86400 60\n{name} IN NS ns.{name}\n\
         ns.{name} IN A {server}\n{records}"
    )
}

/// How a signed zone says that there is no such name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Denial {
    Nsec,
    Nsec3,
}

/// Signs one zone with a fresh key and gives the DS record for its parent.
fn sign(dir: &Path, name: &str, text: &str, denial: Denial) -> Result<String> {
    let stem = file_stem(name);
    let plain = dir.join(format!("{stem}unsigned"));
    fs::write(&plain, text).context("writing a zone")?;
    let key = tool(dir, "ldns-keygen", &["-a", "ECDSAP256SHA256", "-k", name])?
        .trim()
        .to_owned();
    let out = format!("{stem}zone");
    let plain = plain.to_string_lossy();
    let hashed: &[&str] = match denial {
        Denial::Nsec => &[],
        // RFC 9276: no iterations, no salt.
        Denial::Nsec3 => &["-n", "-t", "0"],
    };
    let signing = [hashed, &["-f", &out, plain.as_ref(), &key]].concat();
    tool(dir, "ldns-signzone", &signing)?;
    fs::copy(
        dir.join(format!("{key}.key")),
        dir.join(format!("{stem}key")),
    )
    .context("copying a zone's key")?;
    let ds = fs::read_to_string(dir.join(format!("{key}.ds"))).context("reading a zone's DS")?;
    Ok(ds
        .lines()
        .map(|line| format!("{}\n", line.split(';').next().unwrap_or_default().trim()))
        .collect())
}

fn file_stem(name: &str) -> String {
    if name == "." {
        "root.".to_owned()
    } else {
        name.to_owned()
    }
}

fn tool(dir: &Path, program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(args)
        .current_dir(dir)
        .output()
        .with_context(|| format!("starting {program} (Debian package ldnsutils)"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        args.join(" "),
        said(&output)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_zone_is_one_that_the_name_server_takes() {
        let dir = tempfile::tempdir().unwrap();

        Zones::make(dir.path()).unwrap();

        for name in Zones::BELOW_THE_ROOT {
            let checked = tool(dir.path(), "nsd-checkzone", &[name, &format!("{name}zone")]);
            assert!(checked.unwrap().contains("is ok"), "{name}");
        }
    }
}
