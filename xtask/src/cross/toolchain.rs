//! Debian's compiler with its standard library's source, and zig for everything that is C. Cached in target/cross.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::Target;
use crate::commands::{on_path, output_of, run};
use crate::workspace::Workspace;

const RUSTC: &str = "/usr/bin/rustc";
const CARGO: &str = "/usr/bin/cargo";
const ZIG_VERSION: &str = "0.17.1";

/// Static binaries without position independence; musl and its start files are zig's.
const RUST_FLAGS: &str =
    "-Ctarget-feature=+crt-static -Clink-self-contained=no -Crelocation-model=static";

/// What the agent's build leaves out, a fifth of its bytes: tables for unwinding, which never happens (`panic = "abort"`);
/// the places and words of panics, whose remedy is the supervisor's restart; all but the names in derived `Debug`.
const SMALLEST: &str = "-Cforce-unwind-tables=no -Zlocation-detail=none -Zfmt-debug=shallow \
    -Zunstable-options -Cpanic=immediate-abort";

/// The same for what is C.
const SMALLEST_C: &str = "-fno-unwind-tables -fno-asynchronous-unwind-tables";

/// Sections that no router loads, and that the linker keeps all the same: on MIPS a tenth of the file describes procedures to debuggers.
const UNLOADED: &[&str] = &[".pdr", ".mdebug.abi32", ".comment"];

/// The pure crates, whose tests run under emulation.
const PURE: &[&str] = &["trust", "tunnel", "dnscrypt-proxy"];

/// Their files of tests that need nothing but the source tree.
const PURE_TESTS: &[&str] = &["trust", "sessions"];

/// Everything that compiles for one target.
pub(super) struct Toolchain<'a> {
    workspace: &'a Workspace,
    target: &'a Target,
    zig: PathBuf,
    folder: PathBuf,
}

impl<'a> Toolchain<'a> {
    /// Brings zig into target/cross, once.
    pub(super) fn prepare(workspace: &'a Workspace, target: &'a Target) -> Result<Self> {
        let folder = workspace.target().join("cross");
        let home = folder.join(format!("zig-{ZIG_VERSION}"));
        let zig = home.join("ziglang/zig");
        if !is_our_zig(&zig) {
            eprintln!("cross: fetching zig {ZIG_VERSION} from PyPI into target/cross");
            fetch_zig(&home)?;
            ensure!(
                is_our_zig(&zig),
                "zig {ZIG_VERSION} was fetched but does not run"
            );
        }
        Ok(Self {
            workspace,
            target,
            zig,
            folder,
        })
    }

    /// Builds the agent with the `router` profile, stripped, and returns its path.
    pub(super) fn build_agent(&self) -> Result<PathBuf> {
        let mut build = self.smallest();
        build.args(["--package", "cpe-agent"]);
        if !self.target.quic {
            build.arg("--no-default-features");
        }
        run(&mut build).context("building the agent")?;
        self.bare("cpe-agent")
    }

    /// Builds an example of the trust plane's crate in the same way.
    pub(super) fn build_trust_example(&self, name: &str) -> Result<PathBuf> {
        let mut build = self.smallest();
        build.args(["--package", "trust", "--example", name]);
        run(&mut build).with_context(|| format!("building the example `{name}`"))?;
        self.bare(&format!("examples/{name}"))
    }

    /// What was built, without what no router loads.
    fn bare(&self, name: &str) -> Result<PathBuf> {
        let built = self.built(name);
        let Some(strip) = &self.target.strip else {
            return Ok(built);
        };
        let bare = built.with_extension("bare");
        let mut strip = Command::new(strip);
        strip.arg("--strip-all");
        for section in UNLOADED {
            strip.arg(format!("--remove-section={section}"));
        }
        run(strip.arg("-o").arg(&bare).arg(built)).context("leaving out what is never loaded")?;
        Ok(bare)
    }

    /// Builds the agent's stub alone in the same way.
    pub(super) fn build_stub(&self) -> Result<PathBuf> {
        let mut build = self.smallest();
        build.args(["--package", "dnscrypt-proxy", "--no-default-features"]);
        build.args(["--example", "router_stub"]);
        run(&mut build).context("building the agent's stub alone")?;
        Ok(self.built("examples/router_stub"))
    }

    fn smallest(&self) -> Command {
        let flags = format!("{RUST_FLAGS} {SMALLEST}");
        let mut build = self.cargo("build", &flags, "std,panic_abort");
        build.args(["--profile", "router"]);
        build.env(format!("CFLAGS_{}", self.target.lower()), SMALLEST_C);
        build
    }

    fn built(&self, name: &str) -> PathBuf {
        let folder = self.folder.join(&self.target.triple);
        folder.join("router").join(name)
    }

    /// Runs the pure crates' tests under emulation and says how many passed.
    pub(super) fn test_pure_crates(&self) -> Result<u32> {
        let mut test = self.cargo("test", RUST_FLAGS, "std,panic_unwind,test");
        test.args(["--profile", "router-test", "--lib", "--no-default-features"]);
        for package in PURE {
            test.args(["--package", package]);
        }
        for file in PURE_TESTS {
            test.args(["--test", file]);
        }
        // Emulation takes fifty times as long; the host runs the full number of random cases.
        let output = test
            .env("PROPTEST_CASES", "16")
            .args(["--", "--quiet"])
            .stderr(Stdio::inherit())
            .output()
            .context("starting the tests")?;
        let said = String::from_utf8_lossy(&output.stdout);
        eprint!("{said}");
        ensure!(
            output.status.success(),
            "tests of {} failed under emulation",
            PURE.join(", ")
        );
        Ok(passed_in(&said))
    }

    fn cargo(&self, verb: &str, flags: &str, std_crates: &str) -> Command {
        let (lower, upper) = (self.target.lower(), self.target.upper());
        let wrapper = |name: &str| self.workspace.path("cross").join(name);
        let mut cargo = Command::new(CARGO);
        // A rustup proxy leaves its toolchain's choice in the environment; this is another compiler.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO") && text != "CARGO_HOME" || text.starts_with("RUST") {
                cargo.env_remove(&name);
            }
        }
        cargo
            .current_dir(self.workspace.root())
            .args([verb, "--locked", "--target", &self.target.triple])
            .arg(format!("-Zbuild-std={std_crates}"))
            .arg("-Zbuild-std-features=optimize_for_size")
            .env("RUSTC", RUSTC)
            .env("RUSTDOC", "/usr/bin/rustdoc")
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_TARGET_DIR", &self.folder)
            .env(format!("CARGO_TARGET_{upper}_LINKER"), wrapper("zig-cc"))
            .env(format!("CARGO_TARGET_{upper}_RUSTFLAGS"), flags)
            .env(
                format!("CARGO_TARGET_{upper}_RUNNER"),
                self.target.run.join(" "),
            )
            .env(format!("CC_{lower}"), wrapper("zig-cc"))
            .env(format!("AR_{lower}"), wrapper("zig-ar"))
            .env("CULVERT_ZIG", &self.zig)
            .env("CULVERT_ZIG_TARGET", &self.target.zig)
            .env("CULVERT_ZIG_FLAGS", &self.target.c_flags)
            .env("ZIG_LOCAL_CACHE_DIR", self.folder.join("zig-cache"))
            .env("ZIG_GLOBAL_CACHE_DIR", self.folder.join("zig-cache"));
        cargo
    }
}

/// Installs the wheel into a folder of its own, which needs no virtual environment and touches no other Python.
fn fetch_zig(home: &Path) -> Result<()> {
    let python = if Path::new("/usr/bin/python3").exists() || !on_path("python3") {
        "/usr/bin/python3"
    } else {
        "python3"
    };
    run(Command::new(python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--upgrade",
        ])
        .args([
            "--root-user-action=ignore",
            "--disable-pip-version-check",
            "--target",
        ])
        .arg(home)
        .arg(format!("ziglang=={ZIG_VERSION}")))
    .context("fetching zig")
}

fn is_our_zig(zig: &Path) -> bool {
    let output = output_of(Command::new(zig).arg("version"));
    output.is_ok_and(|o| String::from_utf8_lossy(&o.stdout).trim() == ZIG_VERSION)
}

/// Adds up the `N passed` of every suite.
fn passed_in(said: &str) -> u32 {
    said.lines()
        .filter_map(|line| {
            line.strip_prefix("test result: ok. ")?
                .split_whitespace()
                .next()?
                .parse::<u32>()
                .ok()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_suite_adds_nothing() {
        assert_eq!(
            passed_in("test result: FAILED. 3 passed; 1 failed;\nrunning 4 tests\n"),
            0
        );
    }

    #[test]
    fn suites_are_added_up() {
        assert_eq!(
            passed_in("test result: ok. 3 passed; 0 failed;\n....\ntest result: ok. 4 passed; x\n"),
            7
        );
    }
}
