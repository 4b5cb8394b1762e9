//! A proposal as one JSON object for programs.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use trust::authority::{Effect, Standing, Tally};
use trust::{Decider, GatewayRecord, Kind, Proposal};

use super::words;
use crate::people::case::{Case, Outlook, When};
use crate::people::folder::verdict;

/// What `show` says in words.
pub(super) fn case(case: &Case, when: When) -> Value {
    let read = &case.read;
    let standing = case.standing.as_ref();
    let standing = standing.and_then(|standing| standing.as_ref().ok());
    let judged = case.judge(when);
    let spoilt = case.no_signature();
    let outlook = match spoilt {
        Some(_) => Some(Outlook::Invalid),
        None => judged.as_ref().map(Outlook::of),
    };
    let why = judged.and_then(Result::err).map(|why| why.to_string());
    json!({
        "proposal": hex::encode(Proposal::id(&case.folder.proposal)),
        "kind": read.kind.as_str(),
        "proposer": read.proposer,
        "authority_epoch": read.authority_epoch,
        "judged_by_sha256": case.holds.state().map(|state| hex::encode(state.id())),
        "created": read.created,
        "not_before": read.not_before,
        "expires": read.expires,
        "body": body(read),
        "signatures": signatures(case, standing),
        "decides": standing.map(|standing| tally(standing.now(), read)),
        "decides_in_new_state": standing.and_then(Standing::then).map(|then| tally(then, read)),
        "min_delay_s": standing.map(|standing| standing.now().rule.min_delay_s),
        "logged": when.logged,
        "ripe_at": standing.zip(when.logged).map(|(standing, logged)| standing.ripe_at(logged)),
        "judged": outlook.map(Outlook::as_str),
        "judged_at": when.now,
        "why": spoilt.or(why),
    })
}

fn body(read: &Proposal) -> Value {
    match read.kind {
        Kind::Gateway => GatewayRecord::from_bytes(&read.body).map_or(Value::Null, |record| {
            let relay = record.relay.as_ref().map(|relay| {
                let pins: Vec<_> = relay.spki_sha256.iter().map(hex::encode).collect();
                json!({ "endpoints": relay.endpoints, "name": relay.server_name, "spki_sha256": pins })
            });
            json!({
                "gateway": hex::encode(record.id()),
                "name": record.name,
                "ed25519": hex::encode(record.ed25519_pub),
                "wg": hex::encode(record.wg_pub),
                "pop": record.pop,
                "shards": record.shards,
                "endpoints": record.endpoints,
                "inner": record.inner,
                "dns": record.dns,
                "relay": relay,
                "post_quantum": record.post_quantum,
            })
        }),
        Kind::Authority => json!({
            "sha256": hex::encode(Sha256::digest(&read.body)),
            "text": String::from_utf8_lossy(&read.body),
        }),
        Kind::Policy
        | Kind::Operator
        | Kind::TrustRoot
        | Kind::Server
        | Kind::Release
        | Kind::ManifestImport
        | Kind::Order
        | Kind::Revoke
        | Kind::Retention
        | Kind::BreakGlass
        | Kind::Unsuspend => Value::Null,
    }
}

fn signatures(case: &Case, standing: Option<&Standing>) -> Value {
    let claims = case.claims.iter().enumerate();
    let mut objects: Vec<Value> = claims
        .filter_map(|(at, claim)| {
            let file = case.folder.signatures.get(claim.file)?;
            let (signature, _) = file.read.as_ref().ok()?;
            let stopped = standing.and_then(|standing| standing.stopped_by(at));
            let of = |tally: &Tally| tally.effects.get(at)?.as_ref().ok().map(|e| name(*e));
            Some(json!({
                "file": file.name,
                "person": claim.approval.person,
                "key": signature.key().fingerprint(),
                "says": verdict(signature, case.read.kind).map(words::verb),
                "effect": standing.and_then(|standing| of(standing.now())),
                "effect_in_new_state": standing.and_then(Standing::then).and_then(of),
                "refused": stopped.map(ToString::to_string),
            }))
        })
        .collect();
    let spoilt = case.folder.signatures.iter().filter_map(|file| {
        let error = file.read.as_ref().err()?;
        Some(json!({ "file": file.name, "refused": error.to_string() }))
    });
    objects.extend(spoilt);
    objects.into()
}

fn name(effect: Effect) -> &'static str {
    match effect {
        Effect::For => "for",
        Effect::Proposes => "proposes",
        Effect::Against => "against",
        Effect::Own => "own",
        Effect::NoDecider => "no-decider",
        Effect::Withdrawn => "withdrawn",
        Effect::NotTheirs => "not-theirs",
    }
}

fn tally(tally: &Tally, read: &Proposal) -> Value {
    json!({
        "epoch": tally.epoch,
        "who": decider(&tally.decider),
        "missing": words::missing(&tally.decider, words::voteless(tally, read)),
        "self_approve": tally.rule.self_approve,
    })
}

fn decider(one: &Decider) -> Value {
    match &one.group {
        None => json!({ "name": one.name, "met": one.is_met }),
        Some((threshold, members)) => json!({
            "name": one.name,
            "met": one.is_met,
            "threshold": threshold,
            "members": members.iter().map(decider).collect::<Vec<_>>(),
        }),
    }
}
