//! `culvert-dns check`: is this stamp any good? Certificates over UDP and TCP, then a lookup over each.

use std::time::Instant;

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use serde::Serialize;

use super::CheckArgs;
use super::exit::{Failure, UNAVAILABLE};
use super::moment::utc;
use super::query::{question, rcode_name, runtime};
use super::stamp::promises;
use crate::certs::hex;
use crate::clock;
use crate::proto::Transport;
use crate::proto::cert::{Policy, SignedCert, select};
use crate::proto::stamp::DnsCryptStamp;
use crate::upstream::{FetchBy, Settings, Upstream, Ways, fetch};

#[derive(Serialize)]
struct Report {
    usable: bool,
    address: String,
    provider_name: String,
    provider_key: String,
    promises: Vec<&'static str>,
    certificates: Vec<CertLine>,
    fetch: Vec<Step>,
    lookup: Vec<Step>,
}

#[derive(Serialize)]
struct CertLine {
    es: u16,
    serial: u32,
    valid_from: u32,
    valid_until: u32,
    /// What a client makes of it.
    verdict: String,
}

#[derive(Serialize)]
struct Step {
    transport: &'static str,
    ok: bool,
    ms: f64,
    outcome: String,
}

pub(super) fn check(args: &CheckArgs) -> Result<String, Failure> {
    let query = question(&args.name, RecordType::A)?;
    let report = runtime()?.block_on(examine(args, &query));
    let output = if args.json {
        let text = serde_json::to_string(&report).unwrap_or_default();
        format!("{text}\n")
    } else {
        words(&report, &args.name)
    };
    if report.usable {
        return Ok(output);
    }
    Err(Failure {
        code: UNAVAILABLE,
        message: format!(
            "{} cannot be used: {}",
            args.stamp.addr,
            first_failure(&report)
        ),
        output,
    })
}

async fn examine(args: &CheckArgs, query: &[u8]) -> Report {
    let (stamp, policy, route) = (&args.stamp, args.policy.policy(), args.route.route());
    let ways = Ways::new(stamp.addr, &route);
    let settings = Settings {
        policy,
        ..Settings::default()
    };
    let now = clock::system()();
    let mut records: Vec<Vec<u8>> = Vec::new();
    let mut fetches = Vec::new();
    for by in [FetchBy::Udp, FetchBy::Tcp] {
        let started = Instant::now();
        let fetched = fetch(stamp, &ways, &settings.sockets, by).await;
        let (ok, outcome) = match fetched {
            Ok(set) => {
                let more = if set.incomplete {
                    ", and there are more"
                } else {
                    ""
                };
                let outcome = format!("{} certificates{more}", set.records.len());
                let more = set
                    .records
                    .into_iter()
                    .filter(|record| !records.contains(record));
                records.extend(more.collect::<Vec<_>>());
                (true, outcome)
            }
            Err(error) => (false, error.to_string()),
        };
        let transport = match by {
            FetchBy::Udp | FetchBy::PaddedUdp => Transport::Udp,
            FetchBy::Tcp => Transport::Tcp,
        };
        fetches.push(step(transport, ok, started, outcome));
    }
    let upstream = Upstream::new(Vec::new(), settings);
    upstream.set_resolvers(vec![stamp.clone()], &route);
    let mut lookups = Vec::new();
    if fetches.iter().any(|fetch| fetch.ok) && upstream.warm().await.is_ok() {
        for transport in [Transport::Udp, Transport::Tcp] {
            lookups.push(lookup(&upstream, query, transport).await);
        }
    }
    Report {
        usable: !lookups.is_empty() && lookups.iter().all(|lookup| lookup.ok),
        address: stamp.addr.to_string(),
        provider_name: stamp.provider_name.clone(),
        provider_key: hex(&stamp.provider_key),
        promises: promises(stamp.props),
        certificates: certificates(&records, stamp, policy, now),
        fetch: fetches,
        lookup: lookups,
    }
}

async fn lookup(upstream: &Upstream, query: &[u8], transport: Transport) -> Step {
    let started = Instant::now();
    let (ok, outcome) = match upstream.resolve_over(query, transport).await {
        Ok(response) => match Message::from_vec(&response) {
            Ok(read) => {
                let cut = if read.metadata.truncation {
                    ", truncated"
                } else {
                    ""
                };
                let text = format!(
                    "{}, {} records{cut}",
                    rcode_name(read.metadata.response_code),
                    read.answers.len()
                );
                (true, text)
            }
            Err(error) => (false, format!("an answer that cannot be read: {error}")),
        },
        Err(error) => (false, error.to_string()),
    };
    step(transport, ok, started, outcome)
}

fn certificates(
    records: &[Vec<u8>],
    stamp: &DnsCryptStamp,
    policy: Policy,
    now: u64,
) -> Vec<CertLine> {
    let best = select(
        records.iter().map(Vec::as_slice),
        &stamp.provider_key,
        policy,
        now,
    )
    .best;
    let mut lines: Vec<_> = records
        .iter()
        .filter_map(|record| {
            let signed = SignedCert::parse(record).ok()?;
            let claims = signed.claims();
            let verdict = match signed.verify(&stamp.provider_key, now) {
                Err(reason) => reason.to_string(),
                Ok(cert) if Some(cert) == best.as_ref() => "in use".to_owned(),
                Ok(cert) if policy.accepts(cert.system) => "valid".to_owned(),
                Ok(_) => "valid, but this encryption system was not asked for".to_owned(),
            };
            Some(CertLine {
                es: claims.system.number(),
                serial: claims.serial,
                valid_from: claims.start,
                valid_until: claims.end,
                verdict,
            })
        })
        .collect();
    lines.sort_by_key(|line| (line.es, std::cmp::Reverse(line.serial)));
    lines
}

fn step(transport: Transport, ok: bool, started: Instant, outcome: String) -> Step {
    Step {
        transport: match transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        },
        ok,
        ms: started.elapsed().as_secs_f64() * 1e3,
        outcome,
    }
}

fn words(report: &Report, name: &str) -> String {
    let mut text = format!(
        "resolver     {}, provider {}\n",
        report.address, report.provider_name
    );
    text.push_str(&format!("key          {}\n", report.provider_key));
    if !report.promises.is_empty() {
        text.push_str(&format!("promises     {}\n", report.promises.join(", ")));
    }
    for step in &report.fetch {
        text.push_str(&format!(
            "fetch {}    {} ({:.1} ms)\n",
            step.transport, step.outcome, step.ms
        ));
    }
    for cert in &report.certificates {
        let (from, until) = (utc(cert.valid_from.into()), utc(cert.valid_until.into()));
        let line = format!(
            "certificate  es {}, serial {}, {from} to {until}: {}\n",
            cert.es, cert.serial, cert.verdict
        );
        text.push_str(&line);
    }
    for step in &report.lookup {
        text.push_str(&format!(
            "lookup {}   {name} A: {} ({:.1} ms)\n",
            step.transport, step.outcome, step.ms
        ));
    }
    text.push_str(if report.usable {
        "verdict      usable\n"
    } else {
        "verdict      not usable\n"
    });
    text
}

fn first_failure(report: &Report) -> String {
    let failed = report.lookup.iter().find(|step| !step.ok);
    let unusable = report
        .certificates
        .iter()
        .find(|cert| !matches!(cert.verdict.as_str(), "in use" | "valid"));
    match (failed, unusable, report.fetch.iter().find(|step| !step.ok)) {
        (Some(step), _, _) => format!("lookup over {}: {}", step.transport, step.outcome),
        (None, Some(cert), _) => format!("certificate {}: {}", cert.serial, cert.verdict),
        (None, None, Some(step)) => step.outcome.clone(),
        (None, None, None) => "it sent no certificate that can be used".to_owned(),
    }
}
