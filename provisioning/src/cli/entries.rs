//! `log add` and `log list`: what stands in the authority log of this data directory. The entries of the fleet log say nothing: they
//! are salted hashes.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use trust::{GatewayRecord, Kind, Proposal};

use super::Output;
use super::answers::{say, say_json, talk};
use super::people::{plain, time};
use crate::clock::unix_now;
use crate::datadir::DataDir;
use crate::failure::{Blame, Failure};
use crate::log::{self, Log};
use crate::people::case::{Case, Holds};
use crate::proposals;
use crate::store::proposals::Logged;
use crate::store::{self, Store};

/// For witnesses to cosign what was logged.
const PATIENCE: Duration = Duration::from_secs(20);

/// Logs the proposal of a folder, and leaves the proof of that in it.
pub(super) async fn add(dir: &DataDir, folder: &Path, output: &Output) -> anyhow::Result<()> {
    let people = dir.anchors()?.people;
    let case = Case::open(folder, Holds::State(Box::new(people)))?;
    let now = unix_now();
    if let Some(refused) = proposals::refusal(&case, now) {
        let sentence = format!("nothing is logged: {}", plain(&refused.to_string()));
        return Err(Failure::new(Blame::Failed, sentence).into());
    }
    let store = dir.store().await?;
    let mut writer = store.writer().await?;
    let mut db = writer.begin().await?;
    let keys = dir.log_keys(&store::server_name(&mut db).await?)?;
    let logged = proposals::add(&mut db, &case.folder.proposal, &keys, now).await?;
    db.commit().await?;
    let logged = wait_for_proof(&store, logged, &case.folder.proposal).await?;
    let proof = logged.proof.context("a proof was waited for")?;
    let proof = case.folder.keep_proof(&proof)?;
    let id = hex::encode(Proposal::id(&case.folder.proposal));
    let proof = proof.display().to_string();
    if output.json {
        return say_json(&json!({ "entry": logged.leaf, "proposal": id, "proof": proof }));
    }
    say(&format!(
        "{} is entry {} of the authority log; {proof} shows it",
        folder.display(),
        logged.leaf
    ))
}

/// Waits for what the server asks others for, which is another process.
async fn wait_for_proof(store: &Store, logged: Logged, proposal: &[u8]) -> anyhow::Result<Logged> {
    if logged.proof.is_some() {
        return Ok(logged);
    }
    let leaf = logged.leaf;
    talk(&format!(
        "entry {leaf} is logged; waiting for the server's witnesses to cosign it"
    ));
    let proved = proposals::wait_for_proof(store, &Proposal::id(proposal), PATIENCE).await?;
    proved.ok_or_else(|| {
        let sentence = format!(
            "entry {leaf} is logged, but too few witnesses have cosigned it yet: see that the server runs, and `status`; then run this again for the proof"
        );
        Failure::new(Blame::NotYet, sentence).into()
    })
}

/// Prints the keys of both logs.
pub(super) fn keys(dir: &DataDir, output: &Output) -> anyhow::Result<()> {
    let anchors = dir.anchors()?;
    let keys = |log| log::policy(&anchors, log).logs().iter();
    let keys = Log::ALL.into_iter().flat_map(keys).map(ToString::to_string);
    let keys: Vec<String> = keys.collect();
    match output.json {
        true => say_json(&json!(keys)),
        false => say(&keys.join("\n")),
    }
}

/// Lists the entries in their order.
pub(super) async fn list(dir: &DataDir, output: &Output) -> anyhow::Result<()> {
    let store = dir.store().await?;
    let mut db = store.read().await?;
    let head = log::latest(&mut db, Log::Authority).await?;
    let size = head.context("the authority log has no head")?.size;
    let mut objects = Vec::new();
    let mut lines = Vec::new();
    for index in 0..size {
        let entry = log::entry(&mut db, Log::Authority, index).await?;
        let entry = entry.with_context(|| format!("the authority log lacks entry {index}"))?;
        objects.push(object(index, &entry));
        lines.push(line(index, &entry));
    }
    match (output.json, lines.as_slice()) {
        (true, _) => say_json(&objects.into()),
        (false, []) => say("the authority log is empty"),
        (false, lines) => say(&lines.join("\n")),
    }
}

fn line(index: u64, entry: &[u8]) -> String {
    let id: String = hex::encode(Proposal::id(entry)).chars().take(16).collect();
    let Ok(read) = Proposal::from_bytes(entry) else {
        return format!("{index:>6}  {id}  is no proposal that this program can read");
    };
    format!(
        "{index:>6}  {id}  {}  {}{}, by {} of epoch {}",
        time(read.created),
        read.kind,
        name(&read).map_or_else(String::new, |name| format!(" {}", plain(&name))),
        plain(&read.proposer),
        read.authority_epoch
    )
}

fn object(index: u64, entry: &[u8]) -> Value {
    let id = hex::encode(Proposal::id(entry));
    match Proposal::from_bytes(entry) {
        Err(error) => json!({ "entry": index, "proposal": id, "unread": error.to_string() }),
        Ok(read) => json!({
            "entry": index,
            "proposal": id,
            "kind": read.kind.as_str(),
            "name": name(&read),
            "proposer": read.proposer,
            "authority_epoch": read.authority_epoch,
            "created": read.created,
            "not_before": read.not_before,
            "expires": read.expires,
        }),
    }
}

/// What it is about, for kinds that name something.
fn name(read: &Proposal) -> Option<String> {
    let is_gateway = read.kind == Kind::Gateway;
    let record = GatewayRecord::from_bytes(&read.body).ok();
    record.filter(|_| is_gateway).map(|record| record.name)
}
