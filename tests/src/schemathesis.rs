//! schemathesis, a judge of another hand: it makes requests from an OpenAPI document, right ones and wrong ones, and holds the answers to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::netns::{Netns, said};
use crate::peers::Peers;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");
/// So that what is found once is found again.
const SEED: &str = "1";
const EXAMPLES: &str = "100";
const PHASES: &str = "examples,coverage,fuzzing";

/// The judge, in a network of ours.
#[derive(Debug)]
pub struct Schemathesis {
    netns: Netns,
    packages: PathBuf,
    folder: PathBuf,
}

/// What it says.
#[derive(Debug)]
pub struct Judged {
    /// Whether it found nothing wrong.
    pub is_sound: bool,
    /// How many requests it sent.
    pub sent: usize,
    /// The method, the first segments of the path and the status of each answer.
    pub answers: BTreeSet<(String, String, u16)>,
    /// Its words.
    pub text: String,
}

impl Schemathesis {
    /// Prepares it in a folder of its own.
    pub fn new(netns: &Netns, peers: &Peers, folder: PathBuf) -> Result<Self> {
        Ok(Self {
            netns: netns.clone(),
            packages: peers.schemathesis()?,
            folder,
        })
    }

    /// Holds a server to a document, with more words of its command line.
    pub fn judge(&self, document: &Value, url: &str, more: &[&str]) -> Result<Judged> {
        let path = |name: &str| self.folder.join(name).display().to_string();
        let (file, report) = (path("openapi.json"), path("answers.har"));
        fs::write(&file, document.to_string()).context("writing a document")?;
        let imports = format!("PYTHONPATH={}:{FOLDER}", self.packages.display());
        let config = format!("{FOLDER}/schemathesis.toml");
        let begin = ["env", "-C", &path(""), &imports];
        let program = [
            "SCHEMATHESIS_HOOKS=schema_hooks",
            "PYTHONDONTWRITEBYTECODE=1",
            "/usr/bin/python3",
            "-m",
            "schemathesis.cli",
        ];
        let judge = ["--config-file", &config, "run", &file, "--url", url];
        let how = ["--checks", "all", "--tls-verify", "false", "--no-color"];
        let bounds = ["--phases", PHASES, "--max-examples", EXAMPLES];
        let same = ["--seed", SEED, "--generation-database", "none"];
        let told = ["--report-har-path", &report];
        let parts = [
            &begin[..],
            &program,
            &judge,
            &how,
            &bounds,
            &same,
            &told,
            more,
        ];
        let output = self.netns.output(&parts.concat())?;
        let text = said(&output);
        let har = fs::read_to_string(&report).with_context(|| text.clone())?;
        let har: Value = serde_json::from_str(&har).context("reading what was answered")?;
        let entries = har["log"]["entries"].as_array();
        let entries = entries.context("a report without entries")?;
        Ok(Judged {
            is_sound: output.status.success(),
            sent: entries.len(),
            answers: entries.iter().filter_map(answer).collect(),
            text,
        })
    }
}

fn answer(entry: &Value) -> Option<(String, String, u16)> {
    let (_, path) = entry["request"]["url"].as_str()?.split_once("://")?;
    let path = path.split('?').next()?;
    let place: Vec<_> = path.split('/').skip(1).take(4).collect();
    let status = entry["response"]["status"].as_u64()?;
    Some((
        entry["request"]["method"].as_str()?.to_owned(),
        place.join("/"),
        u16::try_from(status).ok()?,
    ))
}
