//! A proposal in words, made of its bytes alone. What somebody else wrote is shown letter by letter: what is not plain ASCII stands as its
//! number, so that no text can move the cursor, turn its direction or look like another line.

use std::collections::HashMap;
use std::fmt::Write;

use sha2::{Digest, Sha256};
use trust::authority::{Effect, Standing, Tally, namespace};
use trust::{Authority, Decider, GatewayRecord, Kind, Proposal, Refused, SshSig, Verdict};

use super::super::answers::date;
use crate::people::case::{Case, Holds, Outlook, When};
use crate::people::folder::verdict;

/// Text of somebody else, for a terminal.
pub(in super::super) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' => shown.push_str("\\\\"),
            ' '..='~' => shown.push(letter),
            other => shown.extend(other.escape_unicode()),
        }
    }
    shown
}

/// The proposal, who signed it, and how it stands.
pub(super) fn case(case: &Case, when: When) -> String {
    let mut text = statement(case);
    text.push('\n');
    signatures(&mut text, case);
    match &case.standing {
        Some(Ok(standing)) => {
            text.push('\n');
            tallies(&mut text, case, standing);
            delay(&mut text, standing, when);
        }
        Some(Err(_)) => {}
        None => text.push_str("\nWho may decide this is said by --authority FILE, or --genesis for the first state.\n"),
    }
    if let Some(judged) = case.judge(when) {
        match case.no_signature() {
            Some(file) => put(&mut text, "Judged", &format!("invalid: {}", plain(&file))),
            None => put(&mut text, "Judged", &self::judged(&judged)),
        }
    }
    text
}

/// What would be signed.
pub(super) fn statement(case: &Case) -> String {
    let read = &case.read;
    let mut text = format!("{}\n\n", title(case));
    put(&mut text, "proposer", &plain(&read.proposer));
    let epoch = match read.authority_epoch {
        0 => "none: it would be the first state".to_owned(),
        epoch => format!("epoch {epoch}"),
    };
    put(&mut text, "authority", &epoch);
    if let Some(state) = case.holds.state() {
        let (epoch, id) = (state.epoch(), hex::encode(state.id()));
        put(
            &mut text,
            "judged by",
            &format!("the state of epoch {epoch}, SHA-256 {id}"),
        );
    }
    put(&mut text, "made", &time(read.created));
    put(&mut text, "begins", &time(read.not_before));
    let ends = match read.expires {
        0 => "never".to_owned(),
        expires => time(expires),
    };
    put(&mut text, "ends", &ends);
    text.push('\n');
    match body(case) {
        Ok(body) => text.push_str(&body),
        Err(unread) => {
            let _infallible = writeln!(text, "DO NOT SIGN THIS: {unread}.");
        }
    }
    text
}

pub(super) fn title(case: &Case) -> String {
    let id = hex::encode(Proposal::id(&case.folder.proposal));
    format!("proposal {id}, about `{}`", case.read.kind)
}

/// What the proposal is about, or why nobody can say.
pub(super) fn body(case: &Case) -> Result<String, String> {
    let read = &case.read;
    match read.kind {
        Kind::Gateway => GatewayRecord::from_bytes(&read.body)
            .map(|record| gateway(&record))
            .map_err(|error| format!("its gateway record cannot be read: {error}")),
        Kind::Authority => {
            let text = std::str::from_utf8(&read.body).unwrap_or("");
            Authority::parse(text)
                .map(|state| authority(&state, text, &case.holds))
                .map_err(|error| format!("its state of the authority cannot be read: {error}"))
        }
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
        | Kind::Unsuspend => Err(format!(
            "this program has no words for what is proposed about `{}` yet",
            read.kind
        )),
    }
}

fn gateway(record: &GatewayRecord) -> String {
    let list = |items: Vec<String>| match items.as_slice() {
        [] => "none".to_owned(),
        items => items.join(", "),
    };
    let mut text =
        "It would make this key a gateway, to which routers send all their packets:\n\n".to_owned();
    put(&mut text, "name", &plain(&record.name));
    put(&mut text, "id", &hex::encode(record.id()));
    put(&mut text, "Ed25519", &hex::encode(record.ed25519_pub));
    put(&mut text, "WireGuard", &base64(&record.wg_pub));
    put(&mut text, "place", &plain(&record.pop));
    put(
        &mut text,
        "shards",
        &list(record.shards.iter().map(u32::to_string).collect()),
    );
    put(
        &mut text,
        "listens at",
        &list(record.endpoints.iter().map(ToString::to_string).collect()),
    );
    put(
        &mut text,
        "inside",
        &list(record.inner.iter().map(ToString::to_string).collect()),
    );
    put(
        &mut text,
        "resolvers",
        &list(record.dns.iter().map(|stamp| plain(stamp)).collect()),
    );
    let relay = match &record.relay {
        None => "none".to_owned(),
        Some(relay) => format!(
            "{}, called {}, with a certificate for {}",
            list(relay.endpoints.iter().map(ToString::to_string).collect()),
            plain(&relay.server_name),
            list(relay.spki_sha256.iter().map(hex::encode).collect())
        ),
    };
    put(&mut text, "relay", &relay);
    let post_quantum = match record.post_quantum {
        true => "demanded of routers that can",
        false => "not demanded",
    };
    put(&mut text, "post-quantum", post_quantum);
    text
}

fn authority(state: &Authority, text: &str, holds: &Holds) -> String {
    let digest = hex::encode(Sha256::digest(text));
    let mut words = format!(
        "It would make this the state of the authority, of epoch {}, SHA-256 {digest}:\n\n",
        state.epoch()
    );
    match holds {
        Holds::State(before) => {
            words.push_str("(- goes, + comes; the rest stays)\n");
            difference(&mut words, before.text(), text);
        }
        Holds::First | Holds::Unsaid => {
            for line in text.lines() {
                let _infallible = writeln!(words, "  {}", plain(line));
            }
        }
    }
    words.push_str("\nThen these decide:\n");
    for (kind, rule, decider) in state.rules() {
        let _infallible = writeln!(words, "  {kind}: {}{}", who(&decider), conditions(rule));
    }
    words
}

/// Lines that go, and lines that come. Where a line stands changes nothing but what is defined above what; that is judged by parsing.
fn difference(words: &mut String, before: &str, after: &str) {
    let mut count: HashMap<&str, i64> = HashMap::new();
    for line in after.lines() {
        *count.entry(line).or_default() += 1;
    }
    for line in before.lines() {
        let left = count.entry(line).or_default();
        *left -= 1;
        if *left < 0 {
            let _infallible = writeln!(words, "- {}", plain(line));
        }
    }
    for line in after.lines() {
        if let Some(left) = count.get_mut(line)
            && *left > 0
        {
            *left -= 1;
            let _infallible = writeln!(words, "+ {}", plain(line));
        }
    }
}

fn conditions(rule: &trust::authority::Rule) -> String {
    let mut text = String::new();
    let conditions = [
        (rule.min_delay_s > 0).then(|| format!(", {} s after it is in the log", rule.min_delay_s)),
        rule.max_life_s
            .map(|life| format!(", for {life} s at most")),
        rule.self_approve
            .then(|| ", the proposer's own vote counts".to_owned()),
    ];
    text.extend(conditions.into_iter().flatten());
    text
}

/// `noc (2 of alice, bob, carol)`.
pub(super) fn who(decider: &Decider) -> String {
    let name = plain(&decider.name);
    let Some((threshold, members)) = &decider.group else {
        return name;
    };
    let names: Vec<String> = members.iter().map(who).collect();
    let how_many = match (*threshold, members.len()) {
        (all, count) if all == count => "all of".to_owned(),
        (1, _) => "any of".to_owned(),
        (number, _) => format!("{number} of"),
    };
    format!("{name} ({how_many} {})", names.join(", "))
}

/// Who could still make up what is not met; `without` is who proposes and has no vote.
pub(super) fn missing(decider: &Decider, without: Option<&str>) -> Vec<String> {
    if decider.is_met {
        return Vec::new();
    }
    let Some((threshold, members)) = &decider.group else {
        return vec![plain(&decider.name)];
    };
    let met = members.iter().filter(|member| member.is_met).count();
    let could = |member: &&Decider| !member.is_met && without != Some(member.name.as_str());
    let others: Vec<&Decider> = members.iter().filter(could).collect();
    let names: Vec<String> = others.iter().map(|other| plain(&other.name)).collect();
    let name = plain(&decider.name);
    let more = threshold.saturating_sub(met);
    let mut lines = vec![format!("{name}: {more} more of {}", names.join(", "))];
    let groups = others.into_iter().filter(|other| other.group.is_some());
    lines.extend(groups.flat_map(|group| missing(group, without)));
    lines
}

/// Who proposes, where that is no vote.
pub(super) fn voteless<'r>(tally: &Tally, read: &'r Proposal) -> Option<&'r str> {
    (!tally.rule.self_approve).then_some(read.proposer.as_str())
}

fn signatures(text: &mut String, case: &Case) {
    text.push_str("Signatures:\n");
    if case.folder.signatures.is_empty() {
        text.push_str("  none\n");
    }
    for (at, file) in case.folder.signatures.iter().enumerate() {
        let name = plain(&file.name);
        let signature = match &file.read {
            Ok((signature, _)) => signature,
            Err(error) => {
                let _infallible = writeln!(text, "  {name}: {error}");
                continue;
            }
        };
        let said = saying(signature, case.read.kind);
        let key = signature.key().fingerprint();
        let claims = case.claims.iter().enumerate();
        for (claim, one) in claims.filter(|(_, claim)| claim.file == at) {
            let person = plain(&one.approval.person);
            let _infallible = write!(text, "  {name}: {person} {said}");
            if person != key {
                let _infallible = write!(text, " ({key})");
            }
            if let Some(Ok(standing)) = &case.standing {
                let _infallible = write!(text, "\n      {}", effects(claim, standing, &case.read));
            }
            text.push('\n');
        }
    }
}

fn saying(signature: &SshSig, kind: Kind) -> String {
    match verdict(signature, kind) {
        Some(Verdict::Approve) => "approves".to_owned(),
        Some(Verdict::Reject) => "rejects".to_owned(),
        Some(Verdict::Propose) => "proposes".to_owned(),
        None => format!("signed for {}", plain(signature.namespace())),
    }
}

/// What the judge says of one signature, by each state that has a say.
pub(super) fn effects(at: usize, standing: &Standing, read: &Proposal) -> String {
    let of = |tally: &Tally| match tally.effects.get(at) {
        Some(Ok(effect)) => format!("it {}", self::effect(*effect, tally, read)),
        Some(Err(refused)) => plain(&refused.to_string()),
        None => "not judged".to_owned(),
    };
    let stops = match standing.stopped_by(at) {
        Some(_) => "NOT VALID: ",
        None => "",
    };
    let now = of(standing.now());
    match standing.then() {
        None => format!("{stops}{now}"),
        Some(then) => format!("{stops}now: {now}; in the new state: {}", of(then)),
    }
}

/// What follows "it".
pub(super) fn effect(effect: Effect, tally: &Tally, read: &Proposal) -> String {
    let decider = plain(&tally.decider.name);
    match effect {
        Effect::For => "counts".to_owned(),
        Effect::Proposes => "is the proposer's word, and no vote".to_owned(),
        Effect::Against => "is against it".to_owned(),
        Effect::Own => "counts for nothing: who proposes does not approve it too".to_owned(),
        Effect::NoDecider => format!("counts for nothing: this person is not in {decider}"),
        Effect::Withdrawn => "counts for nothing: this person has rejected it too".to_owned(),
        Effect::NotTheirs => format!(
            "counts for nothing: {} is named as the proposer",
            plain(&read.proposer)
        ),
    }
}

fn tallies(text: &mut String, case: &Case, standing: &Standing) {
    let which = |label: &str| match standing.then() {
        Some(_) => format!("{label} by the state that holds"),
        None => label.to_owned(),
    };
    let now = standing.now();
    put(text, &which("Decides"), &who(&now.decider));
    if !standing.is_proposed() {
        let proposer = plain(&case.read.proposer);
        put(
            text,
            "Missing",
            &format!("{proposer}, who is named as the proposer, has not signed"),
        );
    }
    for line in missing(&now.decider, voteless(now, &case.read)) {
        put(text, &which("Missing"), &line);
    }
    if let Some(then) = standing.then() {
        put(text, "Decides by the new state", &who(&then.decider));
        for line in missing(&then.decider, voteless(then, &case.read)) {
            put(text, "Missing by the new state", &line);
        }
    }
}

fn delay(text: &mut String, standing: &Standing, when: When) {
    let delay_s = standing.now().rule.min_delay_s;
    match (when.logged, standing.proposal().authority_epoch) {
        (_, 0) => {}
        (Some(logged), _) => {
            let ripe = standing.ripe_at(logged);
            put(text, "In the log", &format!("since {}", time(logged)));
            put(
                text,
                "Delay",
                &format!("{delay_s} s: it can have its effect from {} on", time(ripe)),
            );
        }
        (None, _) => put(
            text,
            "Delay",
            &format!(
                "{delay_s} s after it is in the log, and nothing here shows that it is (--trust, --logged)"
            ),
        ),
    }
}

/// The judge's word, with dates.
pub(super) fn judged(judged: &Result<(), Refused>) -> String {
    let outlook = match Outlook::of(judged) {
        Outlook::Valid => return "valid".to_owned(),
        Outlook::NotYet => "not yet",
        Outlook::Short => "signatures are missing",
        Outlook::Invalid => "invalid",
    };
    let why = match judged {
        Err(Refused::TooEarly { logged, from, .. }) => format!(
            "it stands in the log since {}, and has its effect from {} on",
            time(*logged),
            time(*from)
        ),
        Err(Refused::NotYet { not_before, .. }) => format!("it begins {}", time(*not_before)),
        Err(Refused::Expired { expires, .. }) => format!("it ended {}", time(*expires)),
        Err(other) => plain(&other.to_string()),
        Ok(()) => String::new(),
    };
    format!("{outlook}: {why}")
}

/// How to sign without this program.
pub(super) fn by_hand(case: &Case, verdict: Verdict) -> String {
    let folder = case.folder.path().display();
    let purpose = namespace(verdict, case.read.kind);
    let verb = verb(verdict);
    format!(
        "{} signs: ssh-keygen -Y sign -n {purpose} -f KEY < {folder}/proposal > {folder}/{verb}.sig",
        plain(&case.read.proposer)
    )
}

pub(super) fn verb(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Approve => "approve",
        Verdict::Reject => "reject",
        Verdict::Propose => "propose",
    }
}

pub(in super::super) fn time(unix: u64) -> String {
    // Beyond this a calendar says nothing, and counting its years would take long.
    const LAST: u64 = 253_402_300_799;
    match unix {
        0..=LAST => format!("{} ({unix})", date(unix)),
        _ => format!("{unix} (beyond the year 9999)"),
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn put(text: &mut String, label: &str, value: &str) {
    let _infallible = writeln!(text, "{label:<12} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_moves_no_cursor_and_begins_no_line() {
        let hostile = "a\nproposer     bob\u{1b}[2J\r\u{202e}evil\t\\n\u{430}";

        let shown = plain(hostile);

        assert!(
            shown.bytes().all(|byte| (b' '..=b'~').contains(&byte)),
            "{shown}"
        );
        assert_eq!(
            shown,
            "a\\u{a}proposer     bob\\u{1b}[2J\\u{d}\\u{202e}evil\\u{9}\\\\n\\u{430}"
        );
    }

    #[test]
    fn a_difference_names_each_line_that_goes_or_comes_and_no_other() {
        let mut words = String::new();

        difference(&mut words, "epoch 1\na\nb\nb\nc\n", "epoch 2\na\nb\nd\nd\n");

        assert_eq!(words, "- epoch 1\n- b\n- c\n+ epoch 2\n+ d\n+ d\n");
    }

    #[test]
    fn times_beyond_any_calendar_are_numbers() {
        assert_eq!(time(0), "1970-01-01 00:00Z (0)");
        assert!(time(u64::MAX).starts_with("18446744073709551615"));
    }
}
