//! Debian packages: what is missing is installed, with its reason, and nothing is asked.
//!
//! The lists of the demo and of the tests stand in `lab::tools`; what only the cross build needs stands here.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use lab::tools::{self, Package};

use crate::commands::output_of;

/// The first compiler with `panic=immediate-abort`. Debian 12 came with an older one; its security updates have a newer, of which package
/// lists may know that are not new.
const RUSTC_AT_LEAST: (u32, u32) = (1, 91);

/// What `cargo xtask cross` needs on top of the Rust toolchain.
const CROSS: &[Package] = &[
    Package {
        name: "rustc-web",
        file: "/usr/bin/rustc",
        why: "compiler whose standard library's source is in Debian too (the toolchain's own has none for MIPS)",
    },
    Package {
        name: "cargo-web",
        file: "/usr/bin/cargo",
        why: "the cargo of that compiler",
    },
    Package {
        name: "rust-web-src",
        file: "/usr/share/doc/rust-web-src/copyright",
        why: "the standard library's source, built for the router's processor",
    },
    Package {
        name: "qemu-user-static",
        file: "/usr/bin/qemu-mipsel-static",
        why: "runs the router's binaries on this machine",
    },
    Package {
        name: "binutils-mipsel-linux-gnu",
        file: "/usr/bin/mipsel-linux-gnu-strip",
        why: "takes out of the routers' binaries what is never loaded",
    },
    Package {
        name: "python3-pip",
        file: "/usr/bin/pip3",
        why: "fetches zig (C compiler, linker and musl for the routers) from PyPI into target/",
    },
    Package {
        name: "xz-utils",
        file: "/usr/bin/xz",
        why: "weighs the binary as a flash image would hold it",
    },
];

/// What the demo stands on.
pub(crate) fn demo() -> Result<()> {
    tools::install_missing(&[tools::DEMO], say)
}

/// What the tests and the benches stand on.
pub(crate) fn test() -> Result<()> {
    tools::install_missing(&[tools::DEMO, tools::TESTS], say)?;
    tools::unpack_token(say)
}

/// What the cross build stands on.
pub(crate) fn cross() -> Result<()> {
    tools::install_missing(&[CROSS], say)?;
    if debians_rustc()? < RUSTC_AT_LEAST {
        tools::renew(CROSS, say)?;
    }
    let (major, minor) = debians_rustc()?;
    let (least_major, least_minor) = RUSTC_AT_LEAST;
    ensure!(
        (major, minor) >= RUSTC_AT_LEAST,
        "Debian's rustc-web is {major}.{minor}, and the router's profile wants {least_major}.{least_minor}: is bookworm-security among apt's sources?"
    );
    Ok(())
}

fn debians_rustc() -> Result<(u32, u32)> {
    let printed = output_of(Command::new("/usr/bin/rustc").arg("--version"))?.stdout;
    let printed = String::from_utf8_lossy(&printed).into_owned();
    version_in(&printed).with_context(|| format!("no version in {printed:?} of /usr/bin/rustc"))
}

/// Of `rustc 1.96.0 (...)`: 1 and 96.
fn version_in(printed: &str) -> Option<(u32, u32)> {
    let mut numbers = printed.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// All of it.
pub(crate) fn everything() -> Result<()> {
    test()?;
    cross()?;
    say("every Debian package that the demo, the tests and the cross build need is here");
    Ok(())
}

fn say(line: &str) {
    eprintln!("setup: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compilers_version_is_read_and_compared_by_numbers() {
        let debian =
            version_in("rustc 1.85.0 (4d91de4e4 2025-02-17) (built from a source tarball)");

        assert_eq!(debian, Some((1, 85)));
        assert!(debian.unwrap() < RUSTC_AT_LEAST && (1, 100) > RUSTC_AT_LEAST);
        assert_eq!(version_in("rustc"), None);
        assert_eq!(version_in(""), None);
    }
}
