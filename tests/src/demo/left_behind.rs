//! Looks for what a lab must not leave: namespaces, links, processes, work folders, rules.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Everything of a lab that is still there.
pub(super) fn search(prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (folder, what) in [
        ("/run/netns", "namespace"),
        ("/etc/netns", "settings of namespace"),
    ] {
        found.extend(
            names(Path::new(folder))
                .filter(|n| n.starts_with(prefix))
                .map(|n| format!("{what} {n}")),
        );
    }
    if Path::new("/run/culvert-lab").join(prefix).exists() {
        found.push(format!("/run/culvert-lab/{prefix}"));
    }
    found.extend(processes());
    found.extend(rules());
    found
}

/// Programs of ours that run outside every lab that is registered: none should.
fn processes() -> Vec<String> {
    let ours = ["cpe-agent", "edge-gateway", "provisioning", "culvert-dns"];
    names(Path::new("/proc"))
        .filter(|pid| pid.bytes().all(|b| b.is_ascii_digit()))
        .filter_map(|pid| {
            let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let command = String::from_utf8_lossy(&arguments).replace('\0', " ");
            let program = Path::new(command.split(' ').next()?)
                .file_name()?
                .to_string_lossy()
                .into_owned();
            let in_demo = command.contains("culvert-lab-") && !belongs_to_another_lab(&command);
            (ours.contains(&program.as_str()) && in_demo)
                .then(|| format!("process {pid} ({program})"))
        })
        .collect()
}

/// A test may run beside the demo; its processes name its work folder.
fn belongs_to_another_lab(command: &str) -> bool {
    names(Path::new("/run/culvert-lab")).any(|lab| {
        let script =
            fs::read_to_string(format!("/run/culvert-lab/{lab}/remove.sh")).unwrap_or_default();
        command
            .split_whitespace()
            .filter_map(|word| {
                word.split('/')
                    .find(|part| part.starts_with("culvert-lab-"))
            })
            .any(|work| script.contains(work))
    })
}

/// The machine's own rule set has none of our tables.
fn rules() -> Vec<String> {
    let Ok(output) = Command::new("nft").args(["list", "tables"]).output() else {
        return Vec::new();
    };
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| line.contains("culvert"))
        .map(|line| format!("nftables {line}"))
        .collect()
}

fn names(folder: &Path) -> impl Iterator<Item = String> + use<> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
}
