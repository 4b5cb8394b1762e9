//! `monitor`: for those outside who want to hear of everything that a server's logs say.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::json;
use trust::Anchors;

use super::answers::{say, say_json};
use super::server;
use crate::clock::unix_now;
use crate::failure::{Blame, Failure};
use crate::monitor::book::Book;
use crate::monitor::source::Source;
use crate::monitor::{Finding, Monitor};

const HELP: &str = "\
Each log is read to its head and kept in the folder, so that nothing that was seen can be unsaid. A line is printed for whatever is new, and for an alarm
when it begins: `unreachable`, `unsigned`, `not-cosigned`, `behind`, `forked`, `unreadable`, `not-approved`. Of `forked` both heads are kept: they
are what convicts the server. The first look of a log that is long takes a while; what was seen is not read again.

With --once the exit code is 0 where there was no alarm, and 1 where there was one.";

/// Watches a server's logs from outside.
#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Watch {
    /// The provisioning server, or a copy of what it shows.
    #[arg(long, value_name = "URL")]
    server: String,
    /// The trust file that the provider's images carry, best from a router of one's own.
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
    /// Where what was seen is kept; no server may reach it.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/culvert-monitor")]
    dir: PathBuf,
    /// How long to wait between two looks, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    every: u64,
    /// Look once.
    #[arg(long)]
    once: bool,
    /// A JSON object in each line.
    #[arg(long)]
    json: bool,
}

/// Carries out the command.
pub(super) fn execute(watch: &Watch) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&watch.trust)
        .with_context(|| format!("cannot read {}", watch.trust.display()))?;
    let anchors = Anchors::parse(&text).map_err(|error| {
        let sentence = format!("{} is no trust file: {error}", watch.trust.display());
        Failure::new(Blame::Config, sentence)
    })?;
    let source = Source::new(&watch.server)
        .map_err(|error| Failure::new(Blame::Usage, crate::failure::sentence(&error)))?;
    let mut monitor = Monitor::new(source, anchors, Book::open(&watch.dir)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let asked = server::asked_to_stop()?;
        tokio::select! {
            () = asked => Ok(()),
            ended = look(watch, &mut monitor) => ended,
        }
    })
}

async fn look(watch: &Watch, monitor: &mut Monitor) -> anyhow::Result<()> {
    let mut alarms: Vec<Finding> = Vec::new();
    loop {
        let found = monitor.look(unix_now()).await?;
        // One that lasts was told when it began.
        for finding in found.iter().filter(|finding| !alarms.contains(finding)) {
            tell(watch, finding)?;
        }
        alarms = found;
        alarms.retain(|finding| finding.kind.is_alarm());
        if watch.once {
            return match alarms.len() {
                0 => Ok(()),
                1 => Err(Failure::new(Blame::Failed, "there is an alarm").into()),
                many => Err(Failure::new(Blame::Failed, format!("there are {many} alarms")).into()),
            };
        }
        tokio::time::sleep(Duration::from_secs(watch.every)).await;
    }
}

fn tell(watch: &Watch, finding: &Finding) -> anyhow::Result<()> {
    let (kind, is_alarm) = (finding.kind.as_str(), finding.kind.is_alarm());
    if watch.json {
        return say_json(&json!({
            "time": unix_now(),
            "kind": kind,
            "alarm": is_alarm,
            "log": finding.log.as_str(),
            "sentence": finding.sentence,
        }));
    }
    let mark = if is_alarm { "ALARM " } else { "" };
    let sentence = super::people::plain(&finding.sentence);
    say(&format!(
        "{} {mark}{kind}: {sentence}",
        super::answers::date(unix_now())
    ))
}
