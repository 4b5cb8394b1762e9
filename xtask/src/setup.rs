//! Debian packages: what is missing is installed, with its reason, and nothing is asked.
//!
//! The lists of the demo and of the tests stand in `lab::tools`; what only the cross build needs stands here.

use anyhow::Result;
use lab::tools::{self, Package};

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
    tools::install_missing(&[tools::DEMO, tools::TESTS], say)
}

/// What the cross build stands on.
pub(crate) fn cross() -> Result<()> {
    tools::install_missing(&[CROSS], say)
}

/// All of it.
pub(crate) fn everything() -> Result<()> {
    tools::install_missing(&[tools::DEMO, tools::TESTS, CROSS], say)?;
    say("every Debian package that the demo, the tests and the cross build need is here");
    Ok(())
}

fn say(line: &str) {
    eprintln!("setup: {line}");
}
