//! `culvert-dns query`: one question, one answer.

use std::str::FromStr as _;
use std::time::Instant;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;
use rand_core::{OsRng, RngCore as _};
use serde_json::json;

use super::QueryArgs;
use super::exit::{BUG, FAILED, Failure, IO, USAGE};
use crate::proto::cert::System;
use crate::proto::{Transport, message};
use crate::upstream::{Settings, Upstream};

const UDP_SIZE: u16 = 4096;

pub(super) fn query(args: &QueryArgs) -> Result<String, Failure> {
    let rtype = record_type(&args.rtype)?;
    let query = question(&args.name, rtype)?;
    let settings = Settings {
        policy: args.policy.policy(),
        ..Settings::default()
    };
    let upstream = Upstream::new(Vec::new(), settings);
    upstream.set_resolvers(vec![args.stamp.clone()], &args.route.route());
    let started = Instant::now();
    let response = runtime()?.block_on(async {
        if args.tcp {
            upstream.resolve_over(&query, Transport::Tcp).await
        } else {
            upstream.resolve(&query).await
        }
    });
    let response = response.map_err(|error| Failure::resolve(args.stamp.addr, &error))?;
    let read = Message::from_vec(&response).map_err(|error| {
        Failure::new(
            FAILED,
            format!("the resolver's answer cannot be read: {error}"),
        )
    })?;
    let ms = started.elapsed().as_secs_f64() * 1e3;
    let rcode = rcode_name(read.metadata.response_code);
    let cut = read.metadata.truncation;
    let system = upstream
        .health()
        .first()
        .and_then(|health| Some(health.certificate.as_ref()?.system));
    let is_post_quantum = system == Some(System::XWing);
    let records: Vec<_> = read.answers.iter().map(ToString::to_string).collect();
    if args.json {
        let object = json!({
            "name": args.name, "type": rtype.to_string(), "rcode": rcode, "truncated": cut,
            "authentic_data": read.metadata.authentic_data, "answers": records, "ms": ms,
            "post_quantum": is_post_quantum,
        });
        return Ok(format!("{object}\n"));
    }
    let mut text: String = records.iter().map(|record| format!("{record}\n")).collect();
    text.push_str(&format!(
        "; {rcode}, {} records, {ms:.1} ms, DNSCrypt{}\n",
        records.len(),
        if is_post_quantum {
            ", post-quantum"
        } else {
            ""
        }
    ));
    Ok(text)
}

/// A record type by its name.
pub(super) fn record_type(text: &str) -> Result<RecordType, Failure> {
    let rtype = text.to_ascii_uppercase();
    RecordType::from_str(&rtype).map_err(|_| {
        Failure::new(
            USAGE,
            format!("{rtype} is not a record type; try A, AAAA, MX, TXT"),
        )
    })
}

/// The name that the registry has for a response code.
pub(super) fn rcode_name(rcode: ResponseCode) -> String {
    let name = match u16::from(rcode) {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        other => return format!("RCODE{other}"),
    };
    name.to_owned()
}

/// A question as it goes to a resolver.
pub(super) fn question(name: &str, rtype: RecordType) -> Result<Vec<u8>, Failure> {
    let id = u16::try_from(OsRng.next_u32() >> 16).unwrap_or_default();
    message::query(id, name, rtype, UDP_SIZE)
        .map_err(|_| Failure::new(USAGE, format!("{name:?} is not a DNS name")))
}

/// A small runtime: one thread is enough for one question.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| match error.raw_os_error() {
            Some(_) => Failure::new(IO, format!("cannot start: {error}")),
            None => Failure::new(BUG, format!("cannot start: {error}")),
        })
}
