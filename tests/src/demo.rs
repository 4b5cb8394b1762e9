//! The main job, shown on real programs: a router enrols itself and a home's packets and lookups reach the internet,
//! with an observer on the wire between who sees none of it.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::internet::{DOWNLOAD_BYTES, PAGE_MARKER};
use crate::iperf::{Way, stream};
use crate::observer::{Observer, allowed_in_the_lab};
use crate::router::Image;
use crate::tools;
use crate::topology::{Lab, WEB};
use crate::world::World;
use crate::zones::{BIG_NAME, BOGUS_NAME, MANY_NAMES, NAME_MARKER, PAGE_NAME};

mod left_behind;
mod results;
mod steps;

use results::Results;
use steps::Steps;

/// Lookups of names that no cache has seen.
const LOOKUPS: u32 = 200;
const STREAM_SECONDS: u32 = 3;
const PAGE_WITHIN: Duration = Duration::from_secs(20);
const PREFIX: &str = "culvert-";

/// What the person at the keyboard chose.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Leave the lab up at the end.
    pub keep: bool,
    /// End with one JSON object; progress goes to stderr.
    pub json: bool,
}

/// Whether all that the demo shows held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Everything held.
    Held,
    /// Something did not, and the page said what.
    Failed,
}

/// Runs the demo; expects the packages of `tools::DEMO` and the release binaries beside the running program.
pub fn run(options: Options) -> Result<Verdict> {
    let missing: Vec<_> = tools::missing(&[tools::DEMO])
        .iter()
        .map(|p| p.name)
        .collect();
    ensure!(
        missing.is_empty(),
        "Debian packages are missing: apt-get install {}",
        missing.join(" ")
    );
    let start = Instant::now();
    let mut steps = Steps::new(options.json);
    let mut results = Results::default();
    let mut kept = None;
    let shown = show(&mut steps, &mut results, options.keep, &mut kept);
    if kept.is_none() {
        results.left_behind = left_behind::search(PREFIX);
    }
    results.conclude(shown.err(), start.elapsed());
    results.print(options.json);
    if let Some((script, work)) = kept {
        steps.say(&steps::what_to_type(&script, &work));
    }
    if options.json {
        println!(
            "{}",
            serde_json::to_string(&results).context("writing the results")?
        );
    }
    // Whoever reads our output through a pipe gets the last line before the exit code.
    std::io::stdout().flush().context("writing the results")?;
    Ok(if results.ok {
        Verdict::Held
    } else {
        Verdict::Failed
    })
}

fn show(
    steps: &mut Steps,
    results: &mut Results,
    keep: bool,
    kept: &mut Option<(PathBuf, PathBuf)>,
) -> Result<()> {
    steps.begin("namespaces home, router, access, pop, internet, office; the wires between them");
    let lab = Lab::for_demo()?;
    steps.begin("the internet's servers, provisioning in the office, a gateway at the pop");
    let mut world = World::in_lab(lab, &Image::default())?;
    let played = play(&mut world, steps, results);
    if played.is_err() {
        steps.say(&world.last_words());
    }
    if keep {
        let work = world.lab.work().to_owned();
        *kept = Some((world.keep()?, work));
        return played;
    }
    played?;
    steps.begin("taking the lab down");
    world.remove()
}

fn play(world: &mut World, steps: &mut Steps, results: &mut Results) -> Result<()> {
    steps.begin("an observer on the ISP's wire");
    let observer = Observer::start(&world.lab)?;
    first_page(world, steps, results)?;
    lookups(world, steps, results)?;
    download(world, steps, results)?;
    throughput(world, steps, results)?;
    restart_gateway(world, steps, results)?;
    crash_agent(world, steps, results)?;
    steps.begin("searching the observer's capture");
    let markers = [NAME_MARKER, PAGE_MARKER, "It works"];
    let findings = observer.finish(&world.lab, &allowed_in_the_lab()?, &markers)?;
    steps.done(&format!(
        "{} WireGuard frames, {} of enrolment's TLS, {} ARP and neighbour discovery, {} in clear",
        findings.wireguard, findings.provisioning_tls, findings.neighbour, findings.clear
    ));
    results.wire(&findings);
    ensure!(
        findings.wireguard > 0,
        "the observer saw no WireGuard at all, so it proves nothing"
    );
    ensure!(
        findings.clear == 0,
        "in clear on the access wire: {}",
        findings.examples.join(", ")
    );
    ensure!(
        findings.markers.is_empty(),
        "readable on the access wire: {}",
        findings.markers.join(", ")
    );
    Ok(())
}

fn first_page(world: &mut World, steps: &mut Steps, results: &mut Results) -> Result<()> {
    steps.begin("a claim code is made in the office");
    let code = world.office.claim()?;
    steps.done(&format!("{}…", code.get(..8).unwrap_or_default()));
    steps.begin(
        "the router is switched on, with nothing but an image's contents, and the code is typed",
    );
    let on = Instant::now();
    world.power_on()?;
    world.router.enrol(&code)?;
    world.wait_protected()?;
    results.protected_s = on.elapsed().as_secs_f64();
    steps.done(&format!(
        "enrolled and protected after {:.2} s",
        results.protected_s
    ));
    steps.begin(&format!("the home asks for http://{PAGE_NAME}/"));
    world.page_within(PAGE_WITHIN)?;
    results.first_page_s = on.elapsed().as_secs_f64();
    steps.done(&format!(
        "first page {:.2} s after power-on",
        results.first_page_s
    ));
    Ok(())
}

fn lookups(world: &World, steps: &mut Steps, results: &mut Results) -> Result<()> {
    steps.begin(&format!(
        "the home looks up {LOOKUPS} new names with dig, and some special ones"
    ));
    let list = world.lab.work().join("names");
    let names: String = (0..LOOKUPS)
        .map(|n| format!("n{n}.{MANY_NAMES} A\n"))
        .collect();
    std::fs::write(&list, names).context("writing the list of names")?;
    let start = Instant::now();
    let answers = world.dig(&["+short", "-f", &list.to_string_lossy()])?;
    let took = start.elapsed();
    let answered = answers.lines().filter(|line| *line == WEB).count();
    results.lookups = u32::try_from(answered).context("more answers than questions")?;
    ensure!(
        results.lookups == LOOKUPS,
        "{answered} of {LOOKUPS} lookups were answered: {answers}"
    );
    let page = world.dig(&["+dnssec", PAGE_NAME, "AAAA"])?;
    ensure!(
        page.contains("status: NOERROR"),
        "no IPv6 address for the page: {page}"
    );
    let big = world.dig(&[BIG_NAME, "TXT"])?;
    ensure!(
        big.matches("0123456789").count() > 200,
        "the big answer is not whole: {big}"
    );
    let bogus = world.dig(&[BOGUS_NAME, "A"])?;
    ensure!(
        bogus.contains("status: SERVFAIL"),
        "a name with wrong signatures was believed: {bogus}"
    );
    results.lookups += 3;
    let each_ms = took.as_secs_f64() * 1000.0 / f64::from(LOOKUPS);
    steps.done(&format!(
        "{} answered, {each_ms:.1} ms each; one with wrong DNSSEC signatures refused",
        results.lookups
    ));
    Ok(())
}

fn download(world: &World, steps: &mut Steps, results: &mut Results) -> Result<()> {
    steps.begin(&format!(
        "the home fetches {} MB with curl",
        DOWNLOAD_BYTES / 1_000_000
    ));
    let start = Instant::now();
    world.download(&[])?;
    let took = start.elapsed().as_secs_f64();
    let bits = DOWNLOAD_BYTES / 1_000_000 * 8;
    results.download_gbps =
        f64::from(u32::try_from(bits).context("a download of petabits")?) / 1000.0 / took;
    steps.done(&format!(
        "{took:.2} s, {:.2} Gb/s, byte for byte the same",
        results.download_gbps
    ));
    Ok(())
}

fn throughput(world: &World, steps: &mut Steps, results: &mut Results) -> Result<()> {
    steps.begin("iperf3 between home and internet");
    results.throughput_gbps = stream(&world.lab.home, WEB, Way::Down, STREAM_SECONDS)?;
    results.throughput_up_gbps = stream(&world.lab.home, WEB, Way::Up, STREAM_SECONDS)?;
    results.agent_memory_mb = world
        .agent
        .as_ref()
        .context("the router is off")?
        .peak_memory_mb()?;
    steps.done(&format!(
        "{:.2} Gb/s down, {:.2} Gb/s up; the agent's memory peaked at {:.1} MB",
        results.throughput_gbps, results.throughput_up_gbps, results.agent_memory_mb
    ));
    Ok(())
}

fn restart_gateway(world: &mut World, steps: &mut Steps, results: &mut Results) -> Result<()> {
    steps.begin("the gateway is restarted");
    world.gateway.take().context("no gateway")?.terminate()?;
    world.try_in_clear()?;
    let start = Instant::now();
    world.gateway = Some(world.pop.start()?);
    world.page_within(PAGE_WITHIN)?;
    results.page_after_gateway_restart_s = start.elapsed().as_secs_f64();
    steps.done(&format!(
        "the page came {:.2} s after its start",
        results.page_after_gateway_restart_s
    ));
    Ok(())
}

fn crash_agent(world: &mut World, steps: &mut Steps, results: &mut Results) -> Result<()> {
    steps.begin("the agent is killed (-9); the home keeps trying");
    world.agent.take().context("the router is off")?.kill()?;
    world.try_in_clear()?;
    steps.done("nothing got through");
    steps.begin("the agent is started again");
    let start = Instant::now();
    world.power_on()?;
    world.page_within(PAGE_WITHIN)?;
    results.page_after_agent_crash_s = start.elapsed().as_secs_f64();
    steps.done(&format!(
        "the page came {:.2} s after its start",
        results.page_after_agent_crash_s
    ));
    Ok(())
}
