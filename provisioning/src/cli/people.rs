//! What people do with proposals, on any machine: it takes files and `ssh-keygen`, and no account anywhere. See docs/people.md.

mod objects;
mod words;

pub(super) use words::{plain, time};

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use rand_core::{OsRng, RngCore};
use serde_json::json;
use trust::authority::namespace;
use trust::{Anchors, Authority, Effect, Kind, Proposal, SshSig, Verdict};

use super::answers::{say, say_json, talk};
use super::{Output, RecordFlags};
use crate::clock::unix_now;
use crate::failure::{Blame, Failure};
use crate::files::write_new;
use crate::people::case::{Case, Holds, Outlook, When, read_text};
use crate::people::folder::{Folder, SHARED, verdict};
use crate::people::pen;

const ORDER: &str = "\
In order: `propose` makes a folder and signs what is in it; others `show` it, and `approve` or `reject`; `verify` judges
it; `log add` on a server puts it into the log, where its delay begins; `activate` writes what machines are shown, and
judge for themselves. Send the folder about as you like: nobody can change it unseen. docs/people.md can be typed along.";
const ELSEWHERE: &str = "\
On a machine without this program, with KIND as `show` names it (gateway, authority):
  ssh-keygen -Y sign -n approve-KIND@culvert -f KEY < FOLDER/proposal > mine.sig
  (reject-KIND@culvert to reject)
and here: --signature mine.sig. A key on a token counts when it was touched.";
const CODES: &str = "\
Exit codes: 0 valid; 1 invalid, a signature does not hold or the proposal can never be; 2 signatures are missing;
3 not yet, it is not in the log as far as is shown, its delay runs, or it begins later; 64 and above as everywhere.";

#[derive(Debug, Subcommand)]
pub(super) enum People {
    /// Makes a proposal: a folder with the bytes that people sign, signed by who proposes.
    #[command(subcommand, after_help = ORDER)]
    Propose(Propose),
    /// Says in words, from its bytes, what a proposal is, who has signed it, and what is missing.
    #[command(after_help = ORDER)]
    Show(Judged),
    /// Signs a proposal, after having shown it.
    #[command(after_help = ELSEWHERE)]
    Approve(Signing),
    /// Signs that a proposal should not be, after having shown it.
    #[command(after_help = ELSEWHERE)]
    Reject(Signing),
    /// Judges a proposal, and says by its exit code what it is.
    #[command(after_help = CODES)]
    Verify(Judged),
    /// Makes of a proposal that is valid what machines are shown: its bytes, its signatures and the log's proof.
    #[command(after_help = ORDER)]
    Activate(Activate),
}

#[derive(Debug, Subcommand)]
pub(super) enum Propose {
    /// That a gateway be one.
    Gateway(Box<ProposeGateway>),
    /// That another state of the authority hold after this one.
    Authority {
        #[command(flatten)]
        proposing: Proposing,
        /// The state of the authority that holds.
        #[arg(long, value_name = "FILE")]
        authority: PathBuf,
        /// The state that is proposed, of the next epoch.
        #[arg(long, value_name = "FILE")]
        state: PathBuf,
    },
    /// The first state of the authority, of epoch 1.
    Genesis {
        #[command(flatten)]
        proposing: Proposing,
        /// The state that is proposed.
        #[arg(long, value_name = "FILE")]
        state: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct ProposeGateway {
    #[command(flatten)]
    proposing: Proposing,
    /// The state of the authority that holds.
    #[arg(long, value_name = "FILE")]
    authority: PathBuf,
    #[command(flatten)]
    record: RecordFlags,
}

#[derive(Debug, Args)]
pub(super) struct Proposing {
    /// The folder to make.
    folder: PathBuf,
    /// Your key: a file with its public half in FILE.pub beside it; one on a token, or FILE.pub alone for one in ssh-agent.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Who will sign it on another machine, in the place of --key.
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "key",
        required_unless_present = "key"
    )]
    proposer: Option<String>,
    /// When its effect begins, in unix seconds [default: now]
    #[arg(long, value_name = "UNIX")]
    not_before: Option<u64>,
    /// When its effect ends, in unix seconds; 0 for never.
    #[arg(long, value_name = "UNIX", default_value_t = 0)]
    expires: u64,
    #[command(flatten)]
    output: Output,
}

/// By which state a proposal is judged.
#[derive(Debug, Args)]
pub(super) struct By {
    /// The state of the authority that holds; you know its SHA-256 from elsewhere than this proposal.
    #[arg(long, value_name = "FILE", conflicts_with = "genesis")]
    authority: Option<PathBuf>,
    /// It is the first state of all, judged by itself.
    #[arg(long)]
    genesis: bool,
}

#[derive(Debug, Args)]
pub(super) struct Judged {
    /// The proposal's folder.
    folder: PathBuf,
    #[command(flatten)]
    by: By,
    /// Whom machines believe (`image/trust.policy`): the folder's file `proof` says since when it is in the log, and without
    /// --authority this says who the people are.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    /// Since when it is in the log, in unix seconds, on your own word.
    #[arg(long, value_name = "UNIX", conflicts_with = "trust")]
    logged: Option<u64>,
    /// The time to judge it for, in unix seconds [default: now]
    #[arg(long, value_name = "UNIX")]
    at: Option<u64>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Signing {
    /// The proposal's folder.
    folder: PathBuf,
    #[command(flatten)]
    by: By,
    /// Your key: a file with its public half in FILE.pub beside it; one on a token, or FILE.pub alone for one in ssh-agent.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// A signature that `ssh-keygen -Y sign` made elsewhere, in the place of --key.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "key",
        required_unless_present = "key"
    )]
    signature: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Activate {
    #[command(flatten)]
    judged: Judged,
    /// Where to write the activation, for `init --genesis` or `gateway add`.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Where to write the new state of the authority, if it is about one.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

/// Carries out a command.
pub(super) fn execute(command: People) -> anyhow::Result<()> {
    match command {
        People::Propose(command) => propose(command),
        People::Show(judged) => show(&judged),
        People::Approve(signing) => add(&signing, Verdict::Approve),
        People::Reject(signing) => add(&signing, Verdict::Reject),
        People::Verify(judged) => verify(&judged),
        People::Activate(command) => activate(&command),
    }
}

fn propose(command: Propose) -> anyhow::Result<()> {
    match command {
        Propose::Gateway(command) => {
            let record = command.record.into_record()?;
            let holds = Holds::of_file(&command.authority)?;
            write_proposal(&command.proposing, holds, Kind::Gateway, record.to_bytes())
        }
        Propose::Authority {
            proposing,
            authority,
            state,
        } => {
            let holds = Holds::of_file(&authority)?;
            write_proposal(&proposing, holds, Kind::Authority, state_text(&state)?)
        }
        Propose::Genesis { proposing, state } => write_proposal(
            &proposing,
            Holds::First,
            Kind::Authority,
            state_text(&state)?,
        ),
    }
}

/// The bytes of a state, once it is known that they are one.
fn state_text(path: &Path) -> anyhow::Result<Vec<u8>> {
    match Holds::of_file(path)? {
        Holds::State(state) => Ok(state.text().as_bytes().to_vec()),
        Holds::Unsaid | Holds::First => Ok(Vec::new()),
    }
}

fn write_proposal(
    proposing: &Proposing,
    holds: Holds,
    kind: Kind,
    body: Vec<u8>,
) -> anyhow::Result<()> {
    let mut nonce = [0; 32];
    OsRng.fill_bytes(&mut nonce);
    let now = unix_now();
    let mut read = Proposal {
        v: trust::VERSION,
        kind,
        body,
        authority_epoch: holds.state().map_or(0, Authority::epoch),
        nonce,
        created: now,
        not_before: proposing.not_before.unwrap_or(now),
        expires: proposing.expires,
        proposer: proposing.proposer.clone().unwrap_or_default(),
    };
    if let Some(key) = &proposing.key {
        read.proposer = owner(key, &read, &holds)?;
    }
    let bytes = read.to_bytes();
    let purpose = namespace(Verdict::Propose, kind);
    let unwritten = Case::of(Folder::unwritten(&proposing.folder, &bytes)?, holds)?;
    if let Some(Err(refused)) = unwritten.judge(When { logged: None, now })
        && Outlook::of(&Err(refused.clone())) == Outlook::Invalid
    {
        return Err(Failure::new(Blame::Failed, format!("not proposed: {refused}")).into());
    }
    talk(&words::statement(&unwritten));
    let Some(key) = &proposing.key else {
        unwritten.folder.write()?;
        let how = words::by_hand(&unwritten, Verdict::Propose);
        return answer(
            &proposing.output,
            &unwritten,
            None,
            &format!(
                "{} is made and not signed. {how}",
                proposing.folder.display()
            ),
        );
    };
    confirm("propose")?;
    let armor = pen::sign(key, &purpose, &bytes)?;
    let signed = unwritten.with(&armor)?;
    refuse_if_stopped(&signed)?;
    signed.folder.write()?;
    let file = signed.folder.keep_last(&armor)?;
    let done = format!("{} is made and signed", proposing.folder.display());
    answer(&proposing.output, &signed, Some(&file), &done)
}

fn show(judged: &Judged) -> anyhow::Result<()> {
    let (case, when) = open(judged)?;
    if judged.output.json {
        return say_json(&objects::case(&case, when));
    }
    say(&words::case(&case, when))
}

/// Adds a signature of this verdict, by a key that is here or from a file.
fn add(signing: &Signing, wanted: Verdict) -> anyhow::Result<()> {
    let holds = holds(&signing.by)?;
    if matches!(holds, Holds::Unsaid) {
        return Err(lacks_a_state());
    }
    let case = Case::open(&signing.folder, holds)?;
    talk(&words::case(
        &case,
        When {
            logged: None,
            now: unix_now(),
        },
    ));
    if let Some(Err(refused)) = &case.standing {
        return Err(Failure::new(
            Blame::Failed,
            format!("not signed: {}", words::plain(&refused.to_string())),
        )
        .into());
    }
    words::body(&case).map_err(|unread| {
        Failure::new(
            Blame::Failed,
            format!("not signed: {unread}, and nobody signs what cannot be read"),
        )
    })?;
    let purpose = namespace(wanted, case.read.kind);
    let armor = match (&signing.key, &signing.signature) {
        (_, Some(file)) => read_text(file)?,
        (Some(key), None) => {
            owner(key, &case.read, &case.holds)?;
            confirm(words::verb(wanted))?;
            pen::sign(key, &purpose, &case.folder.proposal)?
        }
        (None, None) => return Err(Failure::new(Blame::Usage, "--key or --signature").into()),
    };
    let claimed = SshSig::from_armor(&armor)?;
    if verdict(&claimed, case.read.kind) != Some(wanted) {
        let found = words::plain(claimed.namespace());
        let sentence = format!("the signature is for {found}, and {purpose} is wanted");
        return Err(Failure::new(Blame::Failed, sentence).into());
    }
    let signed = case.with(&armor)?;
    refuse_if_stopped(&signed)?;
    refuse_if_void(&signed)?;
    let file = signed.folder.keep_last(&armor)?;
    let done = format!("{} is written", file.display());
    answer(&signing.output, &signed, Some(&file), &done)
}

/// Nothing is written down that would stop the whole: somebody else would have to find out why.
fn refuse_if_stopped(case: &Case) -> anyhow::Result<()> {
    let Some(Ok(standing)) = &case.standing else {
        return Ok(());
    };
    for at in last_claims(case) {
        if let Some(refused) = standing.stopped_by(at) {
            let sentence = format!(
                "the signature is not kept: {}",
                words::plain(&refused.to_string())
            );
            return Err(Failure::new(Blame::Failed, sentence).into());
        }
    }
    Ok(())
}

/// Whoever signs for nothing should hear it now.
fn refuse_if_void(case: &Case) -> anyhow::Result<()> {
    let Some(Ok(standing)) = &case.standing else {
        return Ok(());
    };
    let mut why = "is by nobody who is asked".to_owned();
    for tally in [Some(standing.now()), standing.then()]
        .into_iter()
        .flatten()
    {
        for at in last_claims(case) {
            match tally.effects.get(at) {
                Some(Ok(Effect::For | Effect::Against | Effect::Proposes)) => return Ok(()),
                Some(Ok(void)) => why = words::effect(*void, tally, &case.read),
                Some(Err(_)) | None => {}
            }
        }
    }
    let sentence = format!("the signature is not kept: it {why}");
    Err(Failure::new(Blame::Failed, sentence).into())
}

/// The places of what the signature that came last claims.
fn last_claims(case: &Case) -> impl Iterator<Item = usize> {
    let last = case.folder.signatures.len().saturating_sub(1);
    let claims = case.claims.iter().enumerate();
    claims.filter_map(move |(at, claim)| (claim.file == last).then_some(at))
}

fn verify(judged: &Judged) -> anyhow::Result<()> {
    let (case, when) = open(judged)?;
    let outcome = outcome(&case, when);
    if judged.output.json {
        say_json(&objects::case(&case, when))?;
    }
    outcome?;
    match judged.output.json {
        true => Ok(()),
        false => say(&format!("valid: {}", words::title(&case))),
    }
}

/// Nothing where it is valid, else the sentence and exit code that say why not.
fn outcome(case: &Case, when: When) -> anyhow::Result<()> {
    let judged = case.judge(when).ok_or_else(lacks_a_state)?;
    if let Some(file) = case.no_signature() {
        return Err(
            Failure::new(Blame::Failed, format!("invalid: {}", words::plain(&file))).into(),
        );
    }
    let blame = match Outlook::of(&judged) {
        Outlook::Valid => return Ok(()),
        Outlook::NotYet => Blame::NotYet,
        Outlook::Short => Blame::Short,
        Outlook::Invalid => Blame::Failed,
    };
    Err(Failure::new(blame, words::judged(&judged)).into())
}

fn activate(command: &Activate) -> anyhow::Result<()> {
    let (case, when) = open(&command.judged)?;
    outcome(&case, when)?;
    let is_first = matches!(case.holds, Holds::First);
    if !is_first && command.judged.trust.is_none() {
        let sentence =
            "an activation holds the log's proof: give --trust, with `proof` in the folder";
        return Err(Failure::new(Blame::Usage, sentence).into());
    }
    let text = match (&command.state, case.proposed_text()) {
        (Some(_), None) => {
            let sentence = "--state is for proposals about the authority";
            return Err(Failure::new(Blame::Usage, sentence).into());
        }
        (state, text) => state.as_ref().zip(text),
    };
    write_new(&command.out, SHARED, &case.activation()?)?;
    if let Some((path, text)) = text {
        write_new(path, SHARED, text.as_bytes())?;
    }
    let out = command.out.display();
    if command.judged.output.json {
        let state = text.map(|(path, _)| path.display().to_string());
        let mut object = objects::case(&case, when);
        object["activation"] = json!(out.to_string());
        object["state"] = json!(state);
        return say_json(&object);
    }
    say(&format!("{} is activated in {out}", words::title(&case)))
}

fn open(judged: &Judged) -> anyhow::Result<(Case, When)> {
    let trust = judged.trust.as_ref().map(|file| {
        let anchors = Anchors::parse(&read_text(file)?);
        anchors.with_context(|| file.display().to_string())
    });
    let trust = trust.transpose()?;
    let holds = match (holds(&judged.by)?, &trust) {
        (Holds::Unsaid, Some(trust)) => Holds::State(Box::new(trust.people.clone())),
        (said, _) => said,
    };
    let case = Case::open(&judged.folder, holds)?;
    let logged = match &trust {
        Some(trust) => case.logged(trust)?,
        None => judged.logged,
    };
    let now = judged.at.unwrap_or_else(unix_now);
    Ok((case, When { logged, now }))
}

fn holds(by: &By) -> anyhow::Result<Holds> {
    match &by.authority {
        Some(file) => Holds::of_file(file),
        None if by.genesis => Ok(Holds::First),
        None => Ok(Holds::Unsaid),
    }
}

fn lacks_a_state() -> anyhow::Error {
    let sentence =
        "by which state? --authority FILE, --trust FILE, or --genesis for the first of all";
    Failure::new(Blame::Usage, sentence).into()
}

/// Who has this key, in the state that holds or in the one that is proposed.
fn owner(key: &Path, read: &Proposal, holds: &Holds) -> anyhow::Result<String> {
    let public = pen::public_key(key)?;
    let proposed = crate::people::folder::proposed_state(read);
    let mut states = [holds.state(), proposed.as_ref()].into_iter().flatten();
    let person = states.find_map(|state| state.person_with(&public).map(str::to_owned));
    person.ok_or_else(|| {
        let sentence = format!(
            "{} ({}) is nobody's key in the state of the authority",
            key.display(),
            public.fingerprint()
        );
        Failure::new(Blame::Failed, sentence).into()
    })
}

/// Asks whoever is there; what was shown is above the question.
fn confirm(verb: &str) -> anyhow::Result<()> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "\nType yes to {verb} this: ").context("cannot ask")?;
    stderr.flush().context("cannot ask")?;
    drop(stderr);
    let mut line = String::new();
    io::stdin().read_line(&mut line).context("cannot hear")?;
    match line.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::new(Blame::Failed, "nothing is signed").into()),
    }
}

fn answer(output: &Output, case: &Case, file: Option<&Path>, done: &str) -> anyhow::Result<()> {
    if !output.json {
        return say(done);
    }
    let when = When {
        logged: None,
        now: unix_now(),
    };
    let mut object = objects::case(case, when);
    object["signature"] = json!(file.map(|file| file.display().to_string()));
    say_json(&object)
}
