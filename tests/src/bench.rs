//! Benches, each against a program of another hand in the same lab, with rounds of all of them interleaved.

use anyhow::{Context, Result, bail};

mod smoke;

mod dns;

mod handshakes;
mod peers;
mod tunnel;

mod contestants;
mod crowd;
mod fleet;
mod stage;

mod blast;
mod flood;
mod limit;
mod packet;
mod probe;

mod plot;
mod report;

use report::{Report, Row};

/// The benches that there are.
pub const NAMES: &[&str] = &["smoke", "tunnel", "peers", "handshakes", "dns"];

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How often each of the compared programs has its turn.
    pub rounds: usize,
    /// Shorter measurements, to see that all of it works: their figures say little.
    pub quick: bool,
    /// Small packets leave each in a system call of its own.
    pub single: bool,
    /// One object on the last line of stdout.
    pub json: bool,
}

/// What one bench came to.
struct Found {
    rows: Vec<Row>,
    notes: Vec<String>,
    svg: Option<String>,
}

/// Runs one bench; its progress goes to stderr when stdout is for the object.
pub fn run(name: &str, options: Options) -> Result<()> {
    let say = |line: &str| {
        if options.json {
            eprintln!("{line}")
        } else {
            println!("{line}")
        }
    };
    let found = match name {
        "smoke" => Found {
            rows: smoke::run(&say)?,
            notes: Vec::new(),
            svg: None,
        },
        "tunnel" => tunnel::run(options, &say)?,
        "peers" => peers::run(options, &say)?,
        "handshakes" => handshakes::run(options, &say)?,
        "dns" => dns::run(options, &say)?,
        _ => bail!("no bench `{name}`; there are: {}", NAMES.join(", ")),
    };
    let report = Report {
        name: name.to_owned(),
        machine: report::machine()?,
        rows: found.rows,
        notes: found.notes,
        svg: found.svg,
    };
    if options.json {
        println!(
            "{}",
            serde_json::to_string(&report).context("writing the report")?
        );
    } else {
        report.print();
    }
    Ok(())
}
