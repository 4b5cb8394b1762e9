//! Unbound, a validating resolver of another hand, in the lab's internet: what it says is what is right.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::netns::Netns;
use crate::process::Running;
use crate::topology::{Lab, RESOLVER, ROOT_SERVER};
use crate::zones::Zones;

const START: Duration = Duration::from_secs(10);
/// Digs at the same time.
const ASKERS: usize = 4;

/// It runs while it lives.
#[derive(Debug)]
pub struct Unbound {
    _process: Running,
}

impl Unbound {
    /// Starts it with the lab's root and trust anchor. It concludes nothing from one denial about other names: where an
    /// alias is denied it would give that alias with the denial of every name below.
    pub fn start(lab: &Lab, zones: &Zones) -> Result<Self> {
        let dir = lab.folder("unbound")?;
        let hints = dir.join("root.hints");
        let root = format!(". 3600 IN NS ns-root.\nns-root. 3600 IN A {ROOT_SERVER}\n");
        fs::write(&hints, root).context("writing unbound's hints")?;
        let config = dir.join("unbound.conf");
        let text = format!(
            "server:\n  interface: {RESOLVER}\n  do-daemonize: no\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n\
             \x20 use-syslog: no\n  access-control: 0.0.0.0/0 allow\n  root-hints: \"{}\"\n  trust-anchor-file: \"{}\"\n\
             \x20 module-config: \"validator iterator\"\n  harden-below-nxdomain: no\n  aggressive-nsec: no\n\
             \x20 num-threads: 1\nremote-control:\n  control-enable: no\n",
            hints.display(),
            zones.trust_anchor.display()
        );
        fs::write(&config, text).context("writing unbound's configuration")?;
        let args = ["-d".as_ref(), "-c".as_ref(), config.as_os_str()];
        let mut process = lab.internet.spawn("unbound", "unbound", &args)?;
        let at = format!("@{RESOLVER}");
        let ask = ["dig", &at, "+time=2", "+tries=1", "lab", "SOA"];
        process.wait_ready("answers", START, || {
            Ok(lab.internet.output(&ask)?.status.success().then_some(()))
        })?;
        Ok(Self { _process: process })
    }
}

/// An answer as far as two resolvers must agree on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The response code's name.
    pub status: String,
    /// Whether it says that all of it is proven.
    pub authentic: bool,
    /// The answer's records, names in lower case, without lifetimes.
    pub records: BTreeSet<String>,
}

/// Asks a server many questions, each a line with a name and a type, and gives what it said to each.
pub fn ask_all(
    netns: &Netns,
    dir: &Path,
    (server, port): (&str, u16),
    questions: &[String],
) -> Result<BTreeMap<String, Said>> {
    let shares = questions.chunks(questions.len().div_ceil(ASKERS).max(1));
    let ask = |share: usize, questions: &[String]| -> Result<String> {
        let file = dir.join(format!("questions-{server}-{share}"));
        fs::write(&file, questions.join("\n") + "\n").context("writing questions")?;
        let (at, file) = (format!("@{server}"), file.to_string_lossy().into_owned());
        let port = port.to_string();
        let dig = [
            "dig", &at, "-p", &port, "+dnssec", "+time=5", "+tries=2", "-f", &file,
        ];
        // One question without an answer makes its exit code; what is missing is found by the caller.
        let said = netns.output(&dig)?;
        Ok(String::from_utf8_lossy(&said.stdout).into_owned())
    };
    let said = std::thread::scope(|scope| -> Result<Vec<String>> {
        let askers: Vec<_> = shares
            .enumerate()
            .map(|(n, share)| scope.spawn(move || ask(n, share)))
            .collect();
        let ended = askers.into_iter().map(|asker| match asker.join() {
            Ok(said) => said,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        ended.collect()
    })?;
    let mut answers = BTreeMap::new();
    for text in &said {
        read(text, &mut answers)?;
    }
    Ok(answers)
}

/// Reads dig's output, answer after answer.
fn read(text: &str, answers: &mut BTreeMap<String, Said>) -> Result<()> {
    let (_, text) = text.split_once("->>HEADER<<-").unwrap_or_default();
    for answer in text.split("->>HEADER<<-") {
        let after = |mark: &str| answer.split_once(mark).map(|(_, rest)| rest);
        let until = |text: Option<&str>, end: char| {
            let text = text.and_then(|text| text.split_once(end));
            text.map(|(text, _)| text.to_owned())
        };
        let status = until(after("status: "), ',').context("an answer without a status")?;
        let flags = until(after(";; flags:"), ';').context("an answer without flags")?;
        let question = after(";; QUESTION SECTION:\n;").and_then(|rest| rest.lines().next());
        let question = question.context("an answer without its question")?;
        let words: Vec<_> = question.split_whitespace().collect();
        ensure!(words.len() == 3, "a question of dig's: {question}");
        let records = after(";; ANSWER SECTION:\n").map_or("", |rest| {
            rest.split_once("\n\n").map_or(rest, |(records, _)| records)
        });
        let said = Said {
            status,
            authentic: flags.split_whitespace().any(|flag| flag == "ad"),
            records: records.lines().map(without_lifetime).collect(),
        };
        answers.insert(key(words[0], words[2]), said);
    }
    Ok(())
}

/// What a question is found by.
pub fn key(name: &str, kind: &str) -> String {
    format!("{} {kind}", name.to_lowercase())
}

/// Owner in lower case, class, type and data.
fn without_lifetime(record: &str) -> String {
    let mut words = record.split_whitespace();
    let owner = words.next().unwrap_or_default().to_lowercase();
    let rest: Vec<_> = words.skip(1).map(str::to_lowercase).collect();
    format!("{owner} {}", rest.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIG: &str = "\n; <<>> DiG <<>> www.lab A\n;; Got answer:\n;; ->>HEADER<<- opcode: QUERY, status: NOERROR, id: 7\n\
        ;; flags: qr rd ra ad; QUERY: 1, ANSWER: 2, AUTHORITY: 0, ADDITIONAL: 1\n\n;; OPT PSEUDOSECTION:\n; EDNS: version: 0\n\
        ;; QUESTION SECTION:\n;WWW.lab.\t\tIN\tA\n\n;; ANSWER SECTION:\nWWW.lab.\t300\tIN\tA\t203.0.113.10\n\
        www.lab.\t299\tIN\tA\t203.0.113.9\n\n;; Query time: 1 msec\n\n; <<>> DiG <<>> no.lab A\n;; Got answer:\n\
        ;; ->>HEADER<<- opcode: QUERY, status: NXDOMAIN, id: 8\n;; flags: qr rd ra; QUERY: 1, ANSWER: 0\n\n\
        ;; QUESTION SECTION:\n;no.lab.\t\tIN\tA\n\n";

    #[test]
    fn order_case_and_lifetimes_of_records_make_no_difference_and_codes_do() {
        let mut answers = BTreeMap::new();

        read(DIG, &mut answers).unwrap();

        let found = &answers["www.lab. A"];
        let records = ["www.lab. in a 203.0.113.10", "www.lab. in a 203.0.113.9"];
        assert_eq!(found.records, records.map(str::to_owned).into());
        assert!(found.authentic);
        let missing = &answers["no.lab. A"];
        assert_eq!(
            (missing.status.as_str(), missing.authentic),
            ("NXDOMAIN", false)
        );
        assert!(missing.records.is_empty());
    }
}
