//! `culvert-dns bench`: loads a resolver with lookups, plain or sealed, and says how fast and how well it answers.

mod datagrams;
mod names;
mod plan;
mod streams;
mod tally;

use std::io::Write as _;
use std::time::Duration;

use serde_json::json;

use super::BenchArgs;
use super::exit::{Failure, UNAVAILABLE};
use plan::{Pace, Plan};
use tally::Tally;

pub(super) fn bench(args: &BenchArgs) -> Result<String, Failure> {
    let plan = Plan::new(args)?;
    let sealing = plan.sealing.name();
    let fast = match plan.pace {
        Pace::PerSecond(rate) => format!("{rate} lookups a second"),
        Pace::Saturate => format!("{} lookups under way", plan.in_flight),
    };
    let transport = if args.tcp { "TCP" } else { "UDP" };
    say(&format!(
        "benching {} over {transport}, {sealing}, {fast} for {} s; only load servers that are yours, or whose owner agreed",
        plan.server, args.duration_s
    ));
    let server = plan.server;
    let (tally, lasted) = if args.tcp {
        streams::run(plan)?
    } else {
        datagrams::run(&plan)?
    };
    let output = if args.json {
        object(args, sealing, &tally, lasted)
    } else {
        words(&tally, lasted)
    };
    if tally.answered == 0 {
        return Err(Failure {
            code: UNAVAILABLE,
            message: format!("{server} answered none of {} lookups", tally.sent),
            output,
        });
    }
    Ok(output)
}

/// For a person who waits.
fn say(line: &str) {
    // Without stderr there is nobody.
    let _nobody = writeln!(std::io::stderr(), "{line}");
}

const PARTS: [(&str, f64); 5] = [
    ("p50", 0.5),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("max", 1.0),
];

fn per_second(tally: &Tally, lasted: Duration) -> f64 {
    tally.answered as f64 / lasted.as_secs_f64().max(f64::EPSILON)
}

fn ms(time: Option<Duration>) -> Option<f64> {
    time.map(|time| (time.as_secs_f64() * 1e6).round() / 1e3)
}

fn object(args: &BenchArgs, sealing: &str, tally: &Tally, lasted: Duration) -> String {
    let times: serde_json::Map<_, _> = PARTS
        .iter()
        .map(|(name, part)| ((*name).to_owned(), json!(ms(tally.times.quantile(*part)))))
        .collect();
    let object = json!({
        "server": args.target.address().to_string(), "transport": if args.tcp { "tcp" } else { "udp" },
        "sealing": sealing, "seconds": lasted.as_secs_f64(), "sent": tally.sent,
        "answered": tally.answered, "lost": tally.lost, "withheld": tally.withheld,
        "answers_per_s": per_second(tally, lasted).round(), "truncated": tally.truncated,
        "rcodes": tally.rcodes(), "ms": times, "mean_ms": ms(tally.times.mean()),
    });
    format!("{object}\n")
}

fn words(tally: &Tally, lasted: Duration) -> String {
    let lost = 100.0 * tally.lost as f64 / tally.sent.max(1) as f64;
    let mut text = format!(
        "answers      {:.0} a second: {} of {} lookups in {:.1} s\nlost         {} ({lost:.2} %)\n",
        per_second(tally, lasted),
        tally.answered,
        tally.sent,
        lasted.as_secs_f64(),
        tally.lost
    );
    if tally.withheld > 0 {
        text.push_str(&format!(
            "withheld     {}: this machine or the window had no room for them\n",
            tally.withheld
        ));
    }
    let times: Vec<_> = PARTS
        .iter()
        .filter_map(|(name, part)| Some(format!("{name} {:.3}", ms(tally.times.quantile(*part))?)))
        .collect();
    text.push_str(&format!("ms           {}\n", times.join(", ")));
    let rcodes = tally.rcodes().into_iter();
    let rcodes: Vec<_> = rcodes
        .map(|(rcode, count)| format!("{count} {rcode}"))
        .collect();
    text.push_str(&format!("codes        {}", rcodes.join(", ")));
    if tally.truncated > 0 {
        text.push_str(&format!(", {} cut short", tally.truncated));
    }
    text.push('\n');
    text
}
