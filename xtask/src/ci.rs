//! What `.ci/run` runs: the cheap checks first, then the one build, its tests, and the router.

use anyhow::Result;

use crate::commands::{cargo, run as start};
use crate::steps::Steps;
use crate::workspace::Workspace;
use crate::{cross, deny, docs_check, test, tidy};

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut steps = Steps::begin();
    steps.step("fmt", || {
        start(cargo(workspace).args(["fmt", "--all", "--check"]))
    });
    steps.step("tidy", || tidy::run(workspace));
    steps.step("deny", || deny::run(workspace));
    // In the release profile, so that build scripts and macros are shared with the build of the tests.
    steps.step("clippy", || {
        let mut clippy = cargo(workspace);
        clippy.args([
            "clippy",
            "--release",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]);
        start(&mut clippy)
    });
    steps.step("doc", || {
        let mut doc = cargo(workspace);
        doc.args([
            "doc",
            "--release",
            "--locked",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ]);
        // Private items are documented too, so links to them lead somewhere.
        start(doc.env(
            "RUSTDOCFLAGS",
            "-D warnings -A rustdoc::private_intra_doc_links",
        ))
    });
    steps.step("test", || test::run(workspace, &[]));
    steps.step("docs-check", || docs_check::with_programs(workspace));
    steps.step("cross mipsel", || cross::run(workspace, "mipsel", false));
    steps.end()
}
