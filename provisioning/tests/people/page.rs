//! docs/people.md and then docs/witness.md, typed: every command of their `sh` blocks, in their order, by somebody who answers yes.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::rig::PROGRAM;

const PAGES: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/people.md"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/witness.md"),
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
    let pages = PAGES.map(|page| commands(&fs::read_to_string(page).unwrap()));
    let script = scratch.path().join("typed.sh");
    fs::write(
        &script,
        format!("set -eu\n{}echo to the end\n", pages.concat()),
    )
    .unwrap();
    let programs = Path::new(PROGRAM).parent().unwrap().display().to_string();
    let search = std::env::var("PATH").unwrap();
    // A program that asks reads ahead from a file.
    fs::write(scratch.path().join("yes"), "yes\n".repeat(200_000)).unwrap();

    let typed = Command::new("sh")
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
    for page in pages {
        assert!(page.lines().count() > 20);
    }
}
