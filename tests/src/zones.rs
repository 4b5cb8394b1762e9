//! The names of the lab's internet: a signed root, a signed zone, an unsigned one and one whose signatures are wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::netns::said;
use crate::topology::{ROOT_SERVER, WEB, WEB_V6, ZONE_SERVER};

/// The page's name; its middle label is what the observer searches for.
pub const PAGE_NAME: &str = "www.first-light.lab";
/// A name with 3 KB of text, too much for UDP.
pub const BIG_NAME: &str = "big.first-light.lab";
/// Below it are `n0` to `n399`.
pub const MANY_NAMES: &str = "many.first-light.lab";
/// Every name below it exists, by a wildcard, for a second.
pub const WILD_NAMES: &str = "wild.first-light.lab";
/// A name whose address is one of the home, and another.
pub const INSIDE_NAMES: [&str; 2] = ["inside.first-light.lab", "intranet.first-light.lab"];
/// That address.
pub const INSIDE: &str = "192.168.1.77";
/// A name in a zone that is not signed.
pub const UNSIGNED_NAME: &str = "www.plain";
/// A name that a validating resolver must refuse.
pub const BOGUS_NAME: &str = "www.bogus";
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
        let lab = zone("lab.", &lab_names());
        let plain = zone("plain.", &format!("www.plain. IN A {WEB}\n"));
        let bogus = zone("bogus.", &format!("www.bogus. IN A {WEB}\n"));
        let lab_ds = sign(dir, "lab.", &lab)?;
        sign(dir, "bogus.", &bogus)?;
        // The parent names a key that the child never signed with.
        let wrong_ds = sign(dir, "bogus.", &zone("bogus.", ""))?;
        let right_key = sign(dir, "bogus.", &bogus)?;
        ensure!(wrong_ds != right_key, "two keys made apart are the same");
        fs::write(dir.join("plain.zone"), plain).context("writing a zone")?;
        let delegations: String = ["lab.", "plain.", "bogus."]
            .iter()
            .map(|child| format!("{child} IN NS ns.{child}\nns.{child} IN A {ZONE_SERVER}\n"))
            .collect();
        let root = format!(
            "$TTL 300\n. IN SOA ns-root. host.ns-root. 1 3600 600 86400 60\n. IN NS ns-root.\n\
             ns-root. IN A {ROOT_SERVER}\n{delegations}{lab_ds}{wrong_ds}"
        );
        sign(dir, ".", &root)?;
        Ok(Self {
            trust_anchor: dir.join("root.key"),
            dir: dir.to_owned(),
        })
    }

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

fn zone(name: &str, records: &str) -> String {
    format!(
        "$TTL 300\n{name} IN SOA ns.{name} host.{name} 1 3600 600 86400 60\n{name} IN NS ns.{name}\n\
         ns.{name} IN A {ZONE_SERVER}\n{records}"
    )
}

/// Signs one zone with a fresh key and gives the DS record for its parent.
fn sign(dir: &Path, name: &str, text: &str) -> Result<String> {
    let stem = file_stem(name);
    let plain = dir.join(format!("{stem}unsigned"));
    fs::write(&plain, text).context("writing a zone")?;
    let key = tool(dir, "ldns-keygen", &["-a", "ECDSAP256SHA256", "-k", name])?
        .trim()
        .to_owned();
    let out = format!("{stem}zone");
    tool(
        dir,
        "ldns-signzone",
        &["-f", &out, &plain.to_string_lossy(), &key],
    )?;
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
