//! What operators do on the database, whether a server runs on it or not: a running one notices.

use std::path::Path;

use anyhow::Context;
use rand_core::OsRng;
use serde_json::{Value, json};
use trust::{Activation, BitRate, ClaimCode, GatewayRecord, Lease, Limits, Witness};

use super::answers::{date, say, say_json, talk};
use super::{
    AddGateway, Alerts, AuthorityCommand, Claim, Device, Gateway, Init, Limit, Logs, NewClaim,
    Operator, Output,
};
use super::{cosigned, entries};
use crate::authority;
use crate::clock::unix_now;
use crate::datadir::DataDir;
use crate::failure::{Blame, Failure};
use crate::gateways;
use crate::limit::{self, Limited};
use crate::log::{self, Log, replay};
use crate::people::case::read_text;
use crate::people::folder::read_bounded;
use crate::revoke::{self, Reason};
use crate::store::{self, alerts, claims, devices, leases, pools};

const DAY_S: u64 = 86_400;
/// What `docs/witness.md` explains.
const TWO_HISTORIES: &str = "\
warning: two quorums of these witnesses need not have one in common, so whoever has this server's keys can show one history to some of \
them and another to others, though none of them lies. Ask for more than half of each group (docs/witness.md)";
/// Shorter beginnings of an id are too easily mistyped into another one.
const MIN_ID_DIGITS: usize = 6;

/// Carries out a command.
pub(super) async fn execute(dir: &DataDir, command: Operator) -> anyhow::Result<()> {
    match command {
        Operator::Init(init) => initialise(dir, &init).await,
        Operator::Claim(Claim::New(claim)) => claim_new(dir, claim).await,
        Operator::Claim(Claim::List(output)) => claim_list(dir, &output).await,
        Operator::Device(Device::List(output)) => device_list(dir, &output).await,
        Operator::Device(Device::Show { id, output }) => device_show(dir, &id, &output).await,
        Operator::Device(Device::Limit {
            id,
            down,
            up,
            output,
        }) => device_limit(dir, &id, [down, up], &output).await,
        Operator::Device(Device::Revoke { id, reason, output }) => {
            device_revoke(dir, &id, reason, &output).await
        }
        Operator::Gateway(Gateway::Add(gateway)) => gateway_add(dir, &gateway).await,
        Operator::Gateway(Gateway::List(output)) => gateway_list(dir, &output).await,
        Operator::Authority(AuthorityCommand::Add {
            file,
            lose_gateways,
            output,
        }) => authority_add(dir, &file, lose_gateways, &output).await,
        Operator::Alerts(Alerts::List(output)) => alerts_list(dir, &output).await,
        Operator::Log(Logs::Add(proposal)) => {
            entries::add(dir, &proposal.folder, &proposal.output).await
        }
        Operator::Log(Logs::List(output)) => entries::list(dir, &output).await,
        Operator::Log(Logs::Keys(output)) => entries::keys(dir, &output),
        Operator::Log(Logs::Verify(output)) => log_verify(dir, &output).await,
        Operator::Status(output) => status(dir, &output).await,
    }
}

async fn initialise(dir: &DataDir, init: &Init) -> anyhow::Result<()> {
    let genesis = read_activation(&init.genesis)?;
    let witnesses = init.witnesses.as_deref().map(read_text).transpose()?;
    let who = (&genesis, witnesses.as_deref());
    let made = dir.create((&init.name, &init.listen_url), who, unix_now());
    let made = made.await?;
    let image = made.image.display().to_string();
    let keys = dir.log_keys(&init.name)?;
    let is_other = |witness: &Witness| witness.vkey.key != keys.cosigner.vkey().key;
    let shared = keys.anchors.fleet.overlap(is_other);
    if init.witnesses.is_some() && shared == 0 {
        talk(TWO_HISTORIES);
    }
    if init.output.json {
        let spki = made.spki.to_string();
        let told = json!({ "name": init.name, "spki_sha256": spki, "image": image, "shared_witnesses": shared });
        return say_json(&told);
    }
    say(&format!(
        "server      {}\nSPKI pin    {}\nimage files {image}\n\
         Copy the image files into router and gateway images; keep the rest of {} secret and backed up.",
        init.name,
        made.spki,
        dir.path().display()
    ))
}

async fn claim_new(dir: &DataDir, new: NewClaim) -> anyhow::Result<()> {
    let store = dir.store().await?;
    let mut writer = store.writer().await?;
    let code = ClaimCode::generate(&mut OsRng);
    let now = unix_now();
    let claim = claims::Claim {
        claim_pub: code.signing_key().verifying_key().to_bytes(),
        slot: new.slot,
        pop: new.pop,
        limits: Limits {
            down: new.down,
            up: new.up,
        },
        created_at: now,
        expires_at: now + new.days * DAY_S,
        bound: None,
    };
    let mut db = writer.begin().await?;
    claims::add(&mut db, &claim).await?;
    db.commit().await?;
    let text = zeroize::Zeroizing::new(code.to_string());
    if new.output.json {
        let mut answer = claim_json(&claim);
        answer["code"] = json!(*text);
        return say_json(&answer);
    }
    say(&format!(
        "{}\nGood until {} for one device at {}. It is not kept here: write it down or print it.",
        *text,
        date(claim.expires_at),
        claim.pop
    ))
}

async fn claim_list(dir: &DataDir, output: &Output) -> anyhow::Result<()> {
    let claims = claims::list(&mut *dir.store().await?.read().await?).await?;
    if output.json {
        return say_json(&claims.iter().map(claim_json).collect());
    }
    let line = |claim: &claims::Claim| {
        let state = match claim.bound {
            Some(device) => format!("used by {}", short(&device)),
            None if unix_now() >= claim.expires_at => "expired".to_owned(),
            None => format!("open until {}", date(claim.expires_at)),
        };
        let slot = claim.slot.as_deref().unwrap_or("-");
        format!(
            "{}  {:<16} {:<8} {state}",
            short(&claim.claim_pub),
            slot,
            claim.pop
        )
    };
    say_lines(
        claims.iter().map(line),
        "no claims; make one with `claim new`",
    )
}

fn claim_json(claim: &claims::Claim) -> Value {
    json!({
        "claim": hex::encode(claim.claim_pub),
        "slot": claim.slot,
        "pop": claim.pop,
        "limits": limits_json(&claim.limits),
        "created": claim.created_at,
        "expires": claim.expires_at,
        "device": claim.bound.map(hex::encode),
    })
}

async fn device_list(dir: &DataDir, output: &Output) -> anyhow::Result<()> {
    let devices = devices::list(&mut *dir.store().await?.read().await?).await?;
    if output.json {
        return say_json(&devices.iter().map(device_json).collect());
    }
    let line = |device: &devices::Device| {
        let state = match device.revoked {
            Some(revoked) => format!("revoked {}", date(revoked.at)),
            None => format!("lease {}", device.epoch),
        };
        let slot = device.slot.as_deref().unwrap_or("-");
        let place = format!("{}/{}", device.pop, device.shard);
        format!(
            "{}  {slot:<16} {place:<10} {state}",
            short(&device.devid_hash)
        )
    };
    say_lines(devices.iter().map(line), "no devices")
}

fn device_json(device: &devices::Device) -> Value {
    json!({
        "device": hex::encode(device.devid_hash),
        "slot": device.slot,
        "pop": device.pop,
        "shard": device.shard,
        "epoch": device.epoch,
        "limits": limits_json(&device.limits),
        "enrolled": device.enrolled_at,
        "revoked": device.revoked.map(|revoked| revoked.at),
        "reason": device.revoked.map(|revoked| revoked.reason),
    })
}

/// In bits a second.
fn limits_json(limits: &Limits) -> Value {
    json!({
        "down": limits.down.map(BitRate::bits_per_s),
        "up": limits.up.map(BitRate::bits_per_s),
    })
}

fn limits_in_words(limits: &Limits) -> String {
    let rate = |rate: Option<BitRate>| match rate {
        Some(rate) => format!("{rate}bit/s"),
        None => "as much as there is".to_owned(),
    };
    format!("{} down, {} up", rate(limits.down), rate(limits.up))
}

async fn device_show(dir: &DataDir, id: &str, output: &Output) -> anyhow::Result<()> {
    let store = dir.store().await?;
    let mut db = store.read().await?;
    let device = find_device(&devices::list(&mut db).await?, id)?;
    let issued = leases::find(&mut db, &device.devid_hash, device.epoch).await?;
    let issued = issued.context("the device has no lease")?;
    let lease = Lease::from_bytes(&issued.statement)?;
    let addresses: Vec<String> = lease.addresses.iter().map(ToString::to_string).collect();
    if output.json {
        let mut answer = device_json(&device);
        answer["lease"] = json!({
            "epoch": lease.epoch,
            "not_before": lease.not_before,
            "not_after": lease.not_after,
            "addresses": addresses,
            "gateways": lease.gateways.iter().map(hex::encode).collect::<Vec<_>>(),
            "dns": lease.dns,
            "fleet_entry": issued.leaf,
        });
        return say_json(&answer);
    }
    let state = match device.revoked {
        Some(revoked) => format!("revoked {}", date(revoked.at)),
        None => "enrolled".to_owned(),
    };
    say(&format!(
        "device     {}\nstate      {state} (since {})\nslot       {}\nhome       {}, shard {}\n\
         lease      {} until {}, entry {} of the fleet log\naddresses  {}\nlimits     {}",
        hex::encode(device.devid_hash),
        date(device.enrolled_at),
        device.slot.as_deref().unwrap_or("-"),
        device.pop,
        device.shard,
        lease.epoch,
        date(lease.not_after),
        issued.leaf,
        addresses.join(", "),
        limits_in_words(&device.limits)
    ))
}

fn find_device(devices: &[devices::Device], prefix: &str) -> anyhow::Result<devices::Device> {
    let wanted = prefix.to_ascii_lowercase();
    let matches = |device: &&devices::Device| hex::encode(device.devid_hash).starts_with(&wanted);
    let mut found = devices.iter().filter(matches);
    match (found.next(), found.next()) {
        (Some(device), None) if wanted.len() >= MIN_ID_DIGITS => Ok(device.clone()),
        (None, _) => {
            let sentence = format!("there is no device {prefix}; see `device list`");
            Err(Failure::new(Blame::Failed, sentence).into())
        }
        _ => {
            let sentence = format!("{prefix} is too short to name one device; give more digits");
            Err(Failure::new(Blame::Usage, sentence).into())
        }
    }
}

async fn device_limit(
    dir: &DataDir,
    id: &str,
    [down, up]: [Option<Limit>; 2],
    output: &Output,
) -> anyhow::Result<()> {
    let store = dir.store().await?;
    let mut writer = store.writer().await?;
    let mut db = writer.begin().await?;
    let keys = dir.log_keys(&store::server_name(&mut db).await?)?;
    let device = find_device(&devices::list(&mut db).await?, id)?;
    let limits = Limits {
        down: down.map_or(device.limits.down, |down| down.0),
        up: up.map_or(device.limits.up, |up| up.0),
    };
    let limited = limit::limit(&mut db, &device, limits, &keys, unix_now()).await?;
    db.commit().await?;
    let name = hex::encode(device.devid_hash);
    let epoch = match limited {
        Limited::Now { epoch } => Some(epoch),
        Limited::Later => None,
    };
    if output.json {
        let limits = limits_json(&limits);
        return say_json(&json!({ "device": name, "limits": limits, "epoch": epoch }));
    }
    let from_when = match limited {
        Limited::Now { .. } => "its gateways follow within seconds",
        Limited::Later => "its next lease says so",
    };
    say(&format!(
        "{name}: {}; {from_when}",
        limits_in_words(&limits)
    ))
}

async fn device_revoke(
    dir: &DataDir,
    id: &str,
    reason: Reason,
    output: &Output,
) -> anyhow::Result<()> {
    let store = dir.store().await?;
    let mut writer = store.writer().await?;
    let mut db = writer.begin().await?;
    let keys = dir.log_keys(&store::server_name(&mut db).await?)?;
    let device = find_device(&devices::list(&mut db).await?, id)?;
    revoke::revoke(&mut db, &device, reason, &keys, unix_now()).await?;
    db.commit().await?;
    let name = hex::encode(device.devid_hash);
    if output.json {
        return say_json(&json!({ "device": name, "revoked_epoch": device.epoch }));
    }
    say(&format!(
        "{name} is revoked: its gateways drop it within seconds"
    ))
}

async fn gateway_add(dir: &DataDir, new: &AddGateway) -> anyhow::Result<()> {
    let activation = read_activation(&new.file)?;
    let anchors = dir.anchors()?;
    let store = dir.store().await?;
    let mut writer = store.writer().await?;
    let mut db = writer.begin().await?;
    let record = gateways::add(&mut db, &activation, &anchors, unix_now()).await?;
    db.commit().await?;
    let id = hex::encode(record.id());
    if new.output.json {
        return say_json(&json!({ "gateway": id, "name": record.name }));
    }
    say(&format!("{} is added as {id}", record.name))
}

async fn authority_add(
    dir: &DataDir,
    file: &Path,
    may_lose: bool,
    output: &Output,
) -> anyhow::Result<()> {
    let activation = read_activation(file)?;
    let store = dir.store().await?;
    let mut writer = store.writer().await?;
    let mut db = writer.begin().await?;
    let added = authority::add(&mut db, &activation, &dir.anchors()?, unix_now()).await?;
    if !may_lose && !added.lost.is_empty() {
        let line = |(name, why): &(String, String)| format!("\n  {name}: {why}");
        let lines: String = added.lost.iter().map(line).collect();
        let sentence = format!(
            "nothing is added: routers would refuse these gateways (add them anew with enough of the people's word, or say --lose-gateways):{lines}"
        );
        return Err(Failure::new(Blame::Failed, sentence).into());
    }
    db.commit().await?;
    // After the database: who repeats the command because this failed is judged by the state that the file still has.
    dir.set_people(&added.people)?;
    let epoch = added.people.epoch();
    let sum = hex::encode(added.people.id());
    if output.json {
        let lost: Vec<_> = added.lost.iter().map(|(name, _)| name).collect();
        return say_json(&json!({ "epoch": epoch, "state": sum, "lost_gateways": lost }));
    }
    say(&format!(
        "state {epoch} of the authority holds, {sum}; routers fetch it when they next ask, and new images carry it"
    ))
}

fn read_activation(file: &Path) -> anyhow::Result<Activation> {
    Activation::from_bytes(&read_bounded(file)?).map_err(|error| {
        let sentence = format!("{} is no activation: {error}", file.display());
        Failure::new(Blame::Failed, sentence).into()
    })
}

async fn gateway_list(dir: &DataDir, output: &Output) -> anyhow::Result<()> {
    let store = dir.store().await?;
    let mut db = store.read().await?;
    let mut records = Vec::new();
    for gateway in store::gateways::list(&mut db).await? {
        let record = gateways::record(&mut db, &gateway.gateway_id).await?;
        records.push((gateway, record));
    }
    if output.json {
        let object = |(gateway, record): &(store::gateways::Gateway, GatewayRecord)| {
            json!({
                "gateway": hex::encode(gateway.gateway_id),
                "name": record.name,
                "pop": record.pop,
                "shards": record.shards,
                "endpoints": record.endpoints,
                "inner": record.inner,
                "dns": record.dns,
                "relay": record.relay.as_ref().map(|relay| &relay.endpoints),
                "post_quantum": record.post_quantum,
                "added": gateway.added_at,
                "authority_entry": gateway.leaf,
            })
        };
        return say_json(&records.iter().map(object).collect());
    }
    let line = |(gateway, record): &(store::gateways::Gateway, GatewayRecord)| {
        let endpoints: Vec<String> = record.endpoints.iter().map(ToString::to_string).collect();
        format!(
            "{}  {:<16} {} {:?}  {}",
            short(&gateway.gateway_id),
            record.name,
            record.pop,
            record.shards,
            endpoints.join(", ")
        )
    };
    say_lines(
        records.iter().map(line),
        "no gateways; add one with `gateway add`",
    )
}

async fn alerts_list(dir: &DataDir, output: &Output) -> anyhow::Result<()> {
    let alerts = alerts::list(&mut *dir.store().await?.read().await?).await?;
    if output.json {
        let object = |alert: &alerts::Alert| {
            json!({
                "kind": alert.kind,
                "claim": hex::encode(alert.claim_pub),
                "device": hex::encode(alert.devid_hash),
                "times": alert.times,
                "first": alert.first_at,
                "last": alert.last_at,
            })
        };
        return say_json(&alerts.iter().map(object).collect());
    }
    let line = |alert: &alerts::Alert| {
        format!(
            "{}  {}  claim {} was proved by a second device, lately {}, {} times since {}",
            date(alert.last_at),
            alert.kind,
            short(&alert.claim_pub),
            short(&alert.devid_hash),
            alert.times,
            date(alert.first_at)
        )
    };
    say_lines(alerts.iter().map(line), "no alerts")
}

async fn log_verify(dir: &DataDir, output: &Output) -> anyhow::Result<()> {
    let anchors = dir.anchors()?;
    let replayed = replay::replay(&mut *dir.store().await?.read().await?, &anchors).await?;
    if output.json {
        return say_json(&json!({
            "ok": true,
            "fleet_entries": replayed.fleet_entries,
            "authority_entries": replayed.authority_entries,
            "leases": replayed.leases,
            "revocations": replayed.revocations,
            "gateways": replayed.gateways,
            "stream_entries": replayed.stream_entries,
        }));
    }
    say(&format!(
        "Both logs hold: {} fleet entries ({} leases, {} revocations, all in their shards' streams), \
         {} authority entries ({} gateways).",
        replayed.fleet_entries,
        replayed.leases,
        replayed.revocations,
        replayed.authority_entries,
        replayed.gateways
    ))
}

async fn status(dir: &DataDir, output: &Output) -> anyhow::Result<()> {
    let store = dir.store().await?;
    let mut db = store.read().await?;
    let name = store::server_name(&mut db).await?;
    let spki = dir.tls_identity()?.spki.to_string();
    let devices = devices::count(&mut db).await?;
    let claims = claims::list(&mut db).await?;
    let now = unix_now();
    let open = claims
        .iter()
        .filter(|claim| claim.bound.is_none() && claim.expires_at > now);
    let open = open.count();
    let gateways = store::gateways::list(&mut db).await?.len();
    let alerts = alerts::list(&mut db).await?.len();
    let fleet = log::latest(&mut db, Log::Fleet).await?;
    let fleet = fleet.context("the fleet log has no head")?;
    let mut logs = Vec::new();
    for log in Log::ALL {
        logs.push(cosigned::of(&mut db, log, &dir.anchors()?).await?);
    }
    let pools = pools::count(&mut db).await?;
    if output.json {
        return say_json(&json!({
            "name": name,
            "spki_sha256": spki,
            "devices": devices,
            "open_claims": open,
            "gateways": gateways,
            "pools": pools,
            "alerts": alerts,
            "fleet_entries": fleet.size,
            "fleet_stamp": fleet.stamp,
            "logs": logs.iter().map(cosigned::Cosigned::object).collect::<Vec<_>>(),
        }));
    }
    say(&format!(
        "server       {name}\nSPKI pin     {spki}\ndevices      {devices}\nopen claims  {open}\n\
         gateways     {gateways}\npools        {pools}\nalerts       {alerts}\n\
         fleet log    {} entries, sealed {}{}",
        fleet.size,
        date(fleet.stamp),
        logs.iter()
            .map(cosigned::Cosigned::lines)
            .collect::<String>()
    ))
}

fn say_lines(lines: impl Iterator<Item = String>, none: &str) -> anyhow::Result<()> {
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() {
        say(none)
    } else {
        say(&lines.join("\n"))
    }
}

fn short(id: &store::Id) -> String {
    hex::encode(id).chars().take(16).collect()
}
