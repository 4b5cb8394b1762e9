//! `cargo xtask dist`: a tarball per binary, the same bytes from the same commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::commands::{cargo, run as start, text_of};
use crate::workspace::Workspace;

/// A binary and the folder of its part: what stands in the folder's `dist/` travels with it.
struct Package {
    binary: &'static str,
    folder: &'static str,
    runs: Runs,
}

/// Who starts a binary.
#[derive(PartialEq, Eq)]
enum Runs {
    /// Systemd, by a unit that must be there.
    AsService,
    /// A person, or a router's own supervisor.
    Otherwise,
}

const fn package(binary: &'static str, folder: &'static str, runs: Runs) -> Package {
    Package {
        binary,
        folder,
        runs,
    }
}

const PACKAGES: &[Package] = &[
    package("edge-gateway", "edge-gateway", Runs::AsService),
    package("provisioning", "provisioning", Runs::AsService),
    package("cpe-agent", "cpe-agent", Runs::Otherwise),
    package("culvert-dns", "dnscrypt-proxy", Runs::AsService),
];

const LICENCES: &[&str] = &["LICENSE-MIT", "LICENSE-APACHE", "CHANGELOG.md"];

const ARCHITECTURE: &str = "x86_64-linux-gnu";

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let date = text_of(
        Command::new("git")
            .args(["log", "-1", "--format=%ct"])
            .current_dir(workspace.root()),
    )?;
    let date = date.trim();
    build(workspace, date)?;
    let dist = workspace.path("dist");
    fs::create_dir_all(&dist).context("making dist/")?;
    let mut sums = String::new();
    for package in PACKAGES {
        let tarball = pack(workspace, package, &dist, date)?;
        let sum = text_of(Command::new("sha256sum").arg(&tarball).current_dir(&dist))?;
        eprint!("dist: {sum}");
        sums.push_str(&sum);
    }
    fs::write(dist.join("SHA256SUMS"), sums).context("writing dist/SHA256SUMS")
}

/// Builds with the `dist` profile; no folder of this machine is left in the binaries.
fn build(workspace: &Workspace, date: &str) -> Result<()> {
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home
        .or_else(|| std::env::home_dir().map(|h| h.join(".cargo")))
        .unwrap_or_default();
    let flags = [remap(&home, "/cargo"), remap(workspace.root(), "/culvert")].join("\u{1f}");
    let c_flags = format!(
        "-ffile-prefix-map={}=/cargo -ffile-prefix-map={}=/culvert",
        home.display(),
        workspace.root().display()
    );
    let mut build = cargo(workspace);
    build.args([
        "build",
        "--profile",
        "dist",
        "--locked",
        "--workspace",
        "--bins",
        "--exclude",
        "xtask",
    ]);
    start(
        build
            .env("CARGO_ENCODED_RUSTFLAGS", flags)
            .env("CFLAGS", c_flags)
            .env("SOURCE_DATE_EPOCH", date),
    )
}

fn pack(workspace: &Workspace, package: &Package, dist: &Path, date: &str) -> Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    let name = format!("{}-{version}-{ARCHITECTURE}", package.binary);
    let stage = dist.join(&name);
    if stage.exists() {
        fs::remove_dir_all(&stage).with_context(|| format!("emptying dist/{name}"))?;
    }
    fs::create_dir_all(&stage).with_context(|| format!("making dist/{name}"))?;
    let binary = workspace.target().join("dist").join(package.binary);
    copy(&binary, &stage)?;
    for file in travelling(workspace, package)? {
        copy(&workspace.path(&file), &stage)?;
    }
    let tarball = format!("{name}.tar.gz");
    start(
        Command::new("tar")
            .args([
                "--sort=name",
                "--owner=0",
                "--group=0",
                "--numeric-owner",
                "--mode=u+rw,go+r,go-w",
            ])
            .args(["--format=gnu", "--use-compress-program=gzip -9n"])
            .arg(format!("--mtime=@{date}"))
            .args(["--create", "--file", &tarball, &name])
            .current_dir(dist),
    )?;
    fs::remove_dir_all(&stage).with_context(|| format!("removing dist/{name}"))?;
    Ok(tarball)
}

/// The files beside the binary: its unit, its sample configuration, the licences.
fn travelling(workspace: &Workspace, package: &Package) -> Result<Vec<String>> {
    let own = format!("{}/dist/", package.folder);
    let sample = format!("docs/config/{}.toml", package.binary);
    let files: Vec<String> = workspace
        .files()?
        .into_iter()
        .filter(|file| {
            file.starts_with(&own) || *file == sample || LICENCES.contains(&file.as_str())
        })
        .collect();
    let has_unit = files.iter().any(|file| file.ends_with(".service"));
    ensure!(
        has_unit || package.runs == Runs::Otherwise,
        "{own} holds no systemd unit"
    );
    ensure!(files.contains(&sample), "{sample} is not there");
    Ok(files)
}

fn copy(from: &Path, stage: &Path) -> Result<()> {
    let name = from.file_name().context("a file without a name")?;
    let length =
        fs::copy(from, stage.join(name)).with_context(|| format!("copying {}", from.display()))?;
    ensure!(length > 0, "{} is empty", from.display());
    Ok(())
}
