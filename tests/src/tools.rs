//! The Debian packages that the lab stands on, each with the file that shows it and the reason.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// One Debian package of the lab.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    /// The package's name in Debian.
    pub name: &'static str,
    /// A file that is there when the package is.
    pub file: &'static str,
    /// What the lab does with it, in a few words.
    pub why: &'static str,
}

const fn package(name: &'static str, file: &'static str, why: &'static str) -> Package {
    Package { name, file, why }
}

/// What the demo needs.
pub const DEMO: &[Package] = &[
    package("make", "/usr/bin/make", "builds the gateway's allocator"),
    package(
        "iproute2",
        "/usr/sbin/ip",
        "network namespaces, links and routes",
    ),
    package("nftables", "/usr/sbin/nft", "kill-switch and NAT"),
    package(
        "procps",
        "/usr/sbin/sysctl",
        "kernel settings inside the namespaces",
    ),
    package(
        "tcpdump",
        "/usr/bin/tcpdump",
        "the observer on the access wire",
    ),
    package(
        "nginx-light",
        "/usr/sbin/nginx",
        "the internet's web server",
    ),
    package("nsd", "/usr/sbin/nsd", "the internet's name servers"),
    package(
        "ldnsutils",
        "/usr/bin/ldns-signzone",
        "signs the lab's zones",
    ),
    package("iperf3", "/usr/bin/iperf3", "throughput"),
    package("curl", "/usr/bin/curl", "the home's browser"),
    package("bind9-dnsutils", "/usr/bin/dig", "the home's lookups"),
    package(
        "openssh-client",
        "/usr/bin/ssh-keygen",
        "signs as people do",
    ),
];

/// What the tests and the benches need on top.
pub const TESTS: &[Package] = &[
    package(
        "wireguard-go",
        "/usr/bin/wireguard-go",
        "WireGuard of another hand, both roles",
    ),
    package("iputils-ping", "/usr/bin/ping", "round trips beside a load"),
    package(
        "sqlite3",
        "/usr/bin/sqlite3",
        "puts a hundred thousand leases into provisioning's store",
    ),
    package(
        "bird2",
        "/usr/sbin/bird",
        "the routing daemon of sites with several gateways",
    ),
    package(
        "systemd",
        "/usr/bin/systemd-socket-activate",
        "hands sockets to culvert-dns as a service manager does",
    ),
    package("wireguard-tools", "/usr/bin/wg", "sets up wireguard-go"),
    package(
        "dnsdist",
        "/usr/bin/dnsdist",
        "DNSCrypt server of another hand",
    ),
    package(
        "knot-dnsutils",
        "/usr/bin/kdig",
        "lookups over UDP and TCP of another hand",
    ),
    package(
        "unbound",
        "/usr/sbin/unbound",
        "plain resolver behind the foreign DNSCrypt servers",
    ),
    package("dnsperf", "/usr/bin/dnsperf", "lookups under load"),
    package(
        "qemu-system-x86",
        "/usr/bin/qemu-system-x86_64",
        "a machine with Linux's own WireGuard",
    ),
    package(
        "busybox-static",
        "/usr/bin/busybox",
        "that machine's programs",
    ),
    package(
        "python3-pip",
        "/usr/lib/python3/dist-packages/pip/__init__.py",
        "brings the HTTP/3 of another hand",
    ),
    package(
        "faketime",
        "/usr/bin/faketime",
        "a router whose clock is wrong",
    ),
    package(
        "openssh-client",
        "/usr/bin/ssh-agent",
        "an ssh agent that signs certificates with a provider's key",
    ),
    package("gpg", "/usr/bin/gpg", "makes a key for GnuPG's agent"),
    package(
        "gpg-agent",
        "/usr/bin/gpg-agent",
        "an ssh agent of another hand, the one in front of OpenPGP cards",
    ),
    package(
        "openssl",
        "/usr/bin/openssl",
        "a TLS server that is not ours",
    ),
];

/// The packages of `wanted` that are not there.
pub fn missing(wanted: &[&'static [Package]]) -> Vec<Package> {
    wanted
        .iter()
        .flat_map(|list| list.iter())
        .filter(|p| !Path::new(p.file).exists())
        .copied()
        .collect()
}

/// Installs what is missing, saying what and why through `say`; asks nothing.
pub fn install_missing(wanted: &[&'static [Package]], mut say: impl FnMut(&str)) -> Result<()> {
    let packages = missing(wanted);
    if packages.is_empty() {
        return Ok(());
    }
    for package in &packages {
        say(&format!(
            "installing Debian's {}: {}",
            package.name, package.why
        ));
    }
    let names: Vec<_> = packages.iter().map(|p| p.name).collect();
    if apt(&["install", "-y", "--no-install-recommends"], &names).is_err() {
        say("refreshing Debian's package lists");
        apt(&["update"], &[])?;
        apt(&["install", "-y", "--no-install-recommends"], &names)?;
    }
    let still: Vec<_> = missing(wanted).iter().map(|p| p.name).collect();
    ensure!(
        still.is_empty(),
        "apt-get ended well but these are still not there: {}",
        still.join(" ")
    );
    Ok(())
}

/// Debian's token without hardware: `cargo xtask setup` unpacks it; another place is named by `CULVERT_SK_DUMMY`.
pub fn token() -> Result<PathBuf> {
    let unpacked = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../target/openssh-tests/usr/lib/openssh/regress/misc/sk-dummy/sk-dummy.so"
    );
    let token = std::env::var_os("CULVERT_SK_DUMMY").map_or_else(|| unpacked.into(), PathBuf::from);
    ensure!(
        token.exists(),
        "{} is missing: `cargo xtask setup` unpacks it; or name the sk-dummy.so of openssh-tests by CULVERT_SK_DUMMY",
        token.display()
    );
    Ok(token)
}

/// Unpacks Debian's token without hardware (`sk-dummy.so`) under `target`, where it is missing. Its package is not installed, as that
/// would bring an SSH server to stay.
pub fn unpack_token(mut say: impl FnMut(&str)) -> Result<()> {
    let folder = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../target/openssh-tests"
    ));
    if folder.join("usr").exists() {
        return Ok(());
    }
    say(
        "unpacking Debian's openssh-tests: a token without hardware, which signs without a touch too",
    );
    std::fs::create_dir_all(folder).context("making target/openssh-tests")?;
    let script = "apt-get -q download openssh-tests || { apt-get -q update && apt-get -q download openssh-tests; } && dpkg-deb -x openssh-tests_*.deb .";
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .context("starting sh")?;
    ensure!(
        output.status.success(),
        "unpacking openssh-tests: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Brings packages that are there up to what Debian has by now, security updates included.
pub fn renew(packages: &[Package], mut say: impl FnMut(&str)) -> Result<()> {
    let names: Vec<_> = packages.iter().map(|p| p.name).collect();
    say("refreshing Debian's package lists");
    apt(&["update"], &[])?;
    say(&format!("renewing Debian's {}", names.join(", ")));
    apt(&["install", "-y", "--no-install-recommends"], &names)
}

fn apt(verb: &[&str], names: &[&str]) -> Result<()> {
    // Debian starts a daemon as soon as its package is installed; a policy file that says no keeps ports free.
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let ours = !policy.exists();
    if ours {
        std::fs::write(policy, policy_while_alive(std::process::id()))
            .context("writing /usr/sbin/policy-rc.d")?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(policy, mode).context("making policy-rc.d executable")?;
    }
    let result = Command::new("apt-get")
        .args(["-q", "-o", "Dpkg::Use-Pty=0"])
        .args(verb)
        .args(names)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output();
    if ours {
        std::fs::remove_file(policy).context("removing policy-rc.d")?;
    }
    let output = result.context("starting apt-get (the lab wants Debian 12)")?;
    ensure!(
        output.status.success(),
        "apt-get {} {}: {}",
        verb.join(" "),
        names.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Forbids starting services as long as the process lives, and takes itself away once it was killed half-way.
fn policy_while_alive(pid: u32) -> String {
    format!("#!/bin/sh\n[ -d /proc/{pid} ] && exit 101\nrm -f \"$0\"\nexit 0\n")
}
