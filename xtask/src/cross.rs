//! `cargo xtask cross`: the agent for a router's processor. Built, weighed, and run under emulation.

mod emulate;
mod targets;
mod toolchain;
mod weigh;

use std::path::Path;

use anyhow::{Result, bail, ensure};
use serde::Serialize;

use crate::setup;
use crate::workspace::Workspace;

pub(crate) use targets::Target;
use toolchain::Toolchain;

/// What is known of one target at the end.
#[derive(Debug, Serialize)]
struct Row {
    target: String,
    size_bytes: u64,
    compressed_bytes: u64,
    budget_bytes: u64,
    /// What judging a whole bundle adds to a program, and how long it takes under emulation.
    judge_bytes: u64,
    judge_ms: f64,
    tests_passed: u32,
}

/// What judging may add to the agent.
const JUDGE_BUDGET_BYTES: u64 = 150_000;

/// The target that is this machine: what is built for it as for a router can be measured here.
const HERE: &str = "x86_64";

/// Builds the agent's stub as a router has it, for this machine.
pub(crate) fn stub_for_here(workspace: &Workspace) -> Result<()> {
    let target = targets::find(workspace, HERE)?;
    setup::cross()?;
    let toolchain = Toolchain::prepare(workspace, &target)?;
    eprintln!("cross: building the agent's stub for {}", target.triple);
    let weight = weigh::weigh(&toolchain.build_stub()?)?;
    eprintln!(
        "cross: {} bytes stripped, {} by xz",
        weight.size_bytes, weight.compressed_bytes
    );
    Ok(())
}

pub(crate) fn run(workspace: &Workspace, name: &str, json: bool) -> Result<()> {
    let target = targets::find(workspace, name)?;
    setup::cross()?;
    let toolchain = Toolchain::prepare(workspace, &target)?;
    eprintln!("cross: building cpe-agent for {}", target.triple);
    let agent = toolchain.build_agent()?;
    let weight = weigh::weigh(&agent)?;
    eprintln!(
        "cross: {} bytes stripped, {} by xz; budget {}",
        weight.size_bytes, weight.compressed_bytes, target.budget_bytes
    );
    emulate::agent(workspace, &target, &agent)?;
    let (judge_bytes, judge_ms) = judge(workspace, &toolchain, &target)?;
    let tests_passed = toolchain.test_pure_crates()?;
    let row = Row {
        target: target.name.clone(),
        size_bytes: weight.size_bytes,
        compressed_bytes: weight.compressed_bytes,
        budget_bytes: target.budget_bytes,
        judge_bytes,
        judge_ms,
        tests_passed,
    };
    if json {
        println!("{}", serde_json::json!({ "name": "cross", "rows": [row] }));
    }
    if row.size_bytes > row.budget_bytes {
        bail!(
            "{name}: the agent has {} bytes, {} more than its budget (cross/targets.toml)",
            row.size_bytes,
            row.size_bytes - row.budget_bytes
        );
    }
    ensure!(
        judge_bytes <= JUDGE_BUDGET_BYTES,
        "{name}: judging a bundle takes {judge_bytes} bytes of code, of {JUDGE_BUDGET_BYTES}"
    );
    eprintln!(
        "cross: {name} holds: {} of {} bytes, {tests_passed} tests passed",
        row.size_bytes, row.budget_bytes
    );
    Ok(())
}

/// The bytes that judging takes, and the milliseconds.
fn judge(workspace: &Workspace, toolchain: &Toolchain<'_>, target: &Target) -> Result<(u64, f64)> {
    let judge = toolchain.build_trust_example("judge")?;
    let carry = toolchain.build_trust_example("carry")?;
    let weight = |program: &Path| weigh::weigh(program).map(|weight| weight.size_bytes);
    let bytes = weight(&judge)?.saturating_sub(weight(&carry)?);
    let ms = emulate::judge(workspace, target, &judge)?;
    eprintln!("cross: judging a whole bundle: {bytes} bytes of code, {ms:.1} ms under emulation");
    Ok((bytes, ms))
}
