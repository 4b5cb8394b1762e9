//! docs/people.md, docs/witness.md and docs/audit.md, typed: every command of their `sh` blocks, in their order, by somebody who answers yes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::rig::PROGRAM;

/// Between the pages: what the second one made runs on, and a proposal is logged that nobody has approved.
const RUNS_ON: &str = "
provisioning witness serve --dir w1 --listen 127.0.0.1:8650 &
running=$!
provisioning serve --config office2.toml &
running=\"$running $!\"
provisioning propose gateway gw2 --authority authority --key alice --name gw2 --pop pop1 --shard 1 --endpoint 198.51.100.1:51820 \\
    --inner 10.64.0.1 --dns sdns://AQ --ed25519 d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a \\
    --wg hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=
provisioning --data-dir office2 log add gw2
";
/// However it ends, what it started ends before it.
const GOING: &str = "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT\n";
/// After them: what the page calls good is bad where a byte differs.
const LIES: &str = "
sed 's/^2$/3/' head > lie
key \"$log\"
line \"${log%%+*}\" | tail -c 64 > signature
if signed lie signature; then echo a lie; exit 1; fi
printf x >> entry.1
test \"$(root 0 $size | hex | base64)\" != \"$(sed -n 3p head)\"
test -z \"$(signatures 0 gateway)\"
test \"$(curl -sk -o /dev/null -w '%{http_code}' $office/v1/authority/entries/1/signatures)\" = 404
kill $running
wait
";

const PAGES: [&str; 3] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/people.md"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/witness.md"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/audit.md"),
];

/// What stands in the blocks that begin with a line "```sh".
fn commands(page: &str) -> String {
    let mut commands = String::new();
    let mut is_inside = false;
    for line in page.lines() {
        match line {
            "```sh" => is_inside = true,
            "```" => is_inside = false,
            line if is_inside => commands.extend([line, "\n"]),
            _ => {}
        }
    }
    commands
}

#[test]
fn the_pages_can_be_typed_along() {
    let scratch = TempDir::new().unwrap();
    let [people, witness, audit] = &PAGES.map(|page| commands(&fs::read_to_string(page).unwrap()));
    let script = scratch.path().join("typed.sh");
    fs::write(
        &script,
        format!("set -eux\n{GOING}{people}{witness}{RUNS_ON}{audit}{LIES}echo to the end\n"),
    )
    .unwrap();
    let programs = Path::new(PROGRAM).parent().unwrap().display().to_string();
    let search = std::env::var("PATH").unwrap();
    // A program that asks reads ahead from a file.
    fs::write(scratch.path().join("yes"), "yes\n".repeat(200_000)).unwrap();

    let typed = Command::new("bash")
        .arg(&script)
        .current_dir(scratch.path())
        .env("PATH", format!("{programs}:{search}"))
        .stdin(Stdio::from(
            fs::File::open(scratch.path().join("yes")).unwrap(),
        ))
        .output()
        .unwrap();

    let (said, told) = (
        String::from_utf8_lossy(&typed.stdout),
        String::from_utf8_lossy(&typed.stderr),
    );
    assert!(typed.status.success(), "{said}\n{told}");
    assert!(said.ends_with("to the end\n"), "{said}\n{told}");
    for page in [people, witness, audit] {
        assert!(page.lines().count() > 20);
    }
}
