//! `culvert-dns status`: asks the running `culvert-dns run` how it is doing, and shows it, once or every second.

mod page;

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use telemetry::watch::{self, Meter};

use super::StatusArgs;
use super::exit::{Failure, IO, UNAVAILABLE};
use crate::clock;

pub(super) use page::Page;

/// Where the shipped unit has it.
pub(super) const DEFAULT_SOCKET: &str = "/run/culvert-dns/status.sock";
const WATCH_PERIOD: Duration = Duration::from_secs(1);
/// A program on the same machine has no reason to be slow.
const PATIENCE: Duration = Duration::from_secs(5);
/// A status with 16 resolvers has a few kilobytes.
const MAX_BYTES: u64 = 64 * 1024;

pub(super) fn status(args: &StatusArgs) -> Result<String, Failure> {
    let mut meters = Meters::new();
    loop {
        let status = ask(&args.socket)?;
        let now = clock::system()();
        let text = match (args.json, args.watch) {
            (true, _) => format!("{status}\n"),
            (false, false) => words(&status, now),
            (false, true) => {
                let plots = meters.plots(&status, Instant::now());
                format!("{}{}{plots}", watch::CLEAR, words(&status, now))
            }
        };
        if !args.watch {
            return Ok(text);
        }
        let mut out = io::stdout();
        if write!(out, "{text}").and_then(|()| out.flush()).is_err() {
            // A closed pipe is the reader's wish.
            return Ok(String::new());
        }
        std::thread::sleep(WATCH_PERIOD);
    }
}

/// The status that the running program tells.
fn ask(socket: &Path) -> Result<Value, Failure> {
    let shown = socket.display();
    let talking = |error: io::Error| Failure::io(&format!("asking at {shown}"), &error);
    let is_nobody = |kind| {
        matches!(
            kind,
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        )
    };
    let stream = UnixStream::connect(socket).map_err(|error| {
        if !is_nobody(error.kind()) {
            return talking(error);
        }
        let hint = "start it with --status-socket, or status-socket in its configuration";
        let message = format!("no culvert-dns answers at {shown}: {hint}");
        Failure::new(UNAVAILABLE, message)
    })?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(talking)?;
    let mut line = String::new();
    let read = stream.take(MAX_BYTES).read_to_string(&mut line);
    read.map_err(talking)?;
    serde_json::from_str(&line).map_err(|_| {
        let message = format!("what answers at {shown} is no culvert-dns of this version");
        Failure::new(IO, message)
    })
}

/// What is plotted, from one moment to the next.
struct Meters {
    lookups: Meter,
    kept: Meter,
    asked: Meter,
}

impl Meters {
    fn new() -> Self {
        Self {
            lookups: Meter::of_events("lookups"),
            kept: Meter::of_events("from cache"),
            asked: Meter::of_events("asked"),
        }
    }

    fn plots(&mut self, status: &Value, now: Instant) -> String {
        let mut text = String::new();
        let all = [
            (&mut self.lookups, "queries"),
            (&mut self.kept, "cache_hits"),
            (&mut self.asked, "asked"),
        ];
        for (meter, key) in all {
            meter.count(number(status, key), now);
            text.push_str(&meter.line());
            text.push('\n');
        }
        text
    }
}

/// The status for a person.
fn words(status: &Value, now: u64) -> String {
    let count = |key| number(status, key);
    let version = word(status, "version");
    let mut text = format!(
        "{:<12} for {}, version {version}\n",
        "answering",
        watch::duration(count("uptime_s"))
    );
    let (queries, hits) = (count("queries"), count("cache_hits"));
    let rate = 100.0 * hits as f64 / queries.max(1) as f64;
    let mut lookups = format!("{queries}, {rate:.1} % from the cache");
    for (key, name) in [
        ("coalesced", "joined another"),
        ("stale", "stale"),
        ("failed", "failed"),
        ("own", "answered here"),
        ("forwarded", "for servers of this network"),
        ("blocked", "blocked"),
        ("rebinding", "led inside"),
    ] {
        if count(key) > 0 {
            lookups.push_str(&format!(", {} {name}", count(key)));
        }
    }
    line(&mut text, "lookups", &lookups);
    let took = status.get("upstream_ms").and_then(Value::as_f64);
    let took = took.map_or(String::new(), |ms| format!(", answered in {ms:.1} ms"));
    line(&mut text, "asked", &format!("{}{took}", count("asked")));
    for resolver in list(status, "resolvers") {
        line(&mut text, "resolver", &resolver_words(resolver, now));
    }
    if let Some(cache) = status.get("cache") {
        let (bytes, most) = (number(cache, "bytes"), number(cache, "max_bytes"));
        let (bytes, most) = (watch::bytes(bytes), watch::bytes(most));
        let answers = number(cache, "answers");
        line(
            &mut text,
            "cache",
            &format!("{answers} answers, {bytes} of {most}"),
        );
    }
    let dropped = status.get("dropped").and_then(Value::as_object);
    let dropped = dropped.into_iter().flatten();
    let dropped: Vec<_> = dropped
        .map(|(why, times)| format!("{times} {why}"))
        .collect();
    if !dropped.is_empty() {
        line(&mut text, "dropped", &dropped.join(", "));
    }
    text
}

fn resolver_words(resolver: &Value, now: u64) -> String {
    let mut text = format!(
        "{} {}",
        word(resolver, "address"),
        word(resolver, "provider")
    );
    match resolver.get("certificate").filter(|cert| !cert.is_null()) {
        Some(certificate) => {
            let post_quantum = certificate.get("post_quantum").and_then(Value::as_bool);
            let kind = match post_quantum {
                Some(true) => "post-quantum",
                Some(false) | None => "classical",
            };
            let left = number(certificate, "end").checked_sub(now);
            let left = left.map_or("has ended".to_owned(), |left| {
                format!("for {} more", watch::duration(left))
            });
            text.push_str(&format!(", {kind} certificate {left}"));
        }
        None => text.push_str(", no certificate yet"),
    }
    if let Some(rtt_ms) = resolver.get("rtt_ms").and_then(Value::as_f64) {
        text.push_str(&format!(", answers in {rtt_ms:.1} ms"));
    }
    if let Some(error) = resolver.get("last_error").and_then(Value::as_str) {
        let times = number(resolver, "failures");
        text.push_str(&format!("; failed {times} times: {error}"));
    }
    text
}

fn line(text: &mut String, name: &str, value: &str) {
    text.push_str(&format!("{name:<12} {value}\n"));
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn word<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value
        .get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_resolver_without_a_certificate_is_not_shown_as_one_that_seals() {
        let status = json!({"resolvers": [{
            "address": "192.0.2.1:443", "provider": "2.dnscrypt-cert.example", "certificate": null,
            "failures": 3, "last_error": "no answer",
        }]});

        let text = words(&status, 5);

        assert!(
            text.contains("resolver     192.0.2.1:443 2.dnscrypt-cert.example, no certificate yet; failed 3 times: no answer\n"),
            "{text}"
        );
    }

    #[test]
    fn a_busy_stub_says_what_it_has_and_how_long_its_certificate_lasts() {
        let status = json!({
            "version": "0.1.0", "uptime_s": 300, "queries": 200, "cache_hits": 150, "coalesced": 2,
            "stale": 0, "failed": 1, "asked": 48, "upstream_ms": 12.34,
            "cache": {"answers": 40, "bytes": 9_000, "max_bytes": 4_194_304},
            "resolvers": [{
                "address": "192.0.2.1:443", "provider": "2.dnscrypt-cert.example", "failures": 0,
                "certificate": {"serial": 1, "end": 8_000, "post_quantum": true}, "last_error": null,
            }],
            "dropped": {"malformed": 3},
        });

        let text = words(&status, 100);

        assert_eq!(
            text,
            "answering    for 5 min, version 0.1.0\n\
             lookups      200, 75.0 % from the cache, 2 joined another, 1 failed\n\
             asked        48, answered in 12.3 ms\n\
             resolver     192.0.2.1:443 2.dnscrypt-cert.example, post-quantum certificate for 2 h more\n\
             cache        40 answers, 9.0 kB of 4.1 MB\n\
             dropped      3 malformed\n"
        );
    }

    #[test]
    fn rates_are_plotted_from_one_status_to_the_next() {
        let mut meters = Meters::new();
        let began = Instant::now();
        let at = |queries: u64| json!({"queries": queries, "cache_hits": queries / 2, "asked": 0});

        meters.plots(&at(1_000), began);
        let text = meters.plots(&at(3_000), began + Duration::from_secs(2));

        let rates: Vec<_> = text.lines().map(str::trim_end).collect();
        assert!(
            rates[0].starts_with("lookups ") && rates[0].ends_with("1.0 k/s  █"),
            "{text}"
        );
        assert!(
            rates[1].ends_with("500 /s  █") && rates[2].ends_with("0 /s"),
            "{text}"
        );
    }
}
