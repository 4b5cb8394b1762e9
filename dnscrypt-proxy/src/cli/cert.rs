//! `culvert-dns provider-key` and `culvert-dns cert`: the server's long-term key and what it signs.

use std::path::{Path, PathBuf};

use ed25519_dalek::{SigningKey, VerifyingKey};
use serde_json::json;

use super::agent::Agent;
use super::exit::{CANNOT_WRITE, FAILED, Failure, USAGE};
use super::{AgentArgs, SignArgs};
use crate::certs::{
    DirectoryError, ProviderKeyError, Series, SeriesError, create_provider_key, hex,
    read_provider_key, write_series, write_series_signed_by,
};
use crate::clock;

pub(super) fn new_key(file: &Path, json: bool) -> Result<String, Failure> {
    let key = create_provider_key(file).map_err(|error| key_failure(&error))?;
    Ok(public_key(&key, file, json))
}

pub(super) fn show_key(file: &Path, json: bool) -> Result<String, Failure> {
    let key = read_provider_key(file).map_err(|error| key_failure(&error))?;
    Ok(public_key(&key, file, json))
}

/// The keys that an agent could sign with, for whoever looks for the public key of a token.
pub(super) fn show_agent(args: &AgentArgs, json: bool) -> Result<String, Failure> {
    let identities = Agent::connect(args)?.identities()?;
    if json {
        let keys: Vec<_> = identities
            .iter()
            .map(|identity| json!({"public_key": hex(&identity.key), "comment": identity.comment}))
            .collect();
        return Ok(format!("{}\n", json!({"keys": keys})));
    }
    if identities.is_empty() {
        return Err(Failure::new(
            FAILED,
            "the agent has no Ed25519 key: plug the token in or `ssh-add` a key, and unlock the agent if it is locked",
        ));
    }
    Ok(identities
        .iter()
        .map(|identity| [&hex(&identity.key), " ", identity.comment.as_str()].concat())
        .map(|line| format!("{}\n", line.trim_end()))
        .collect())
}

pub(super) fn sign(args: &SignArgs) -> Result<String, Failure> {
    let now = u32::try_from(clock::system()()).map_err(|_| {
        Failure::new(
            FAILED,
            "this machine's clock is beyond the year 2106: set it",
        )
    })?;
    let series = Series {
        start: args.start.unwrap_or(now),
        count: args.count,
        lifetime_s: args.lifetime_h.saturating_mul(3600),
    };
    let (provider, files) = match (&args.agent_key, &args.provider_key) {
        (Some(key), _) => (*key, sign_by_agent(key, &args.agent, &args.out, series)?),
        (None, Some(file)) => {
            let key = read_provider_key(file).map_err(|error| key_failure(&error))?;
            let files = write_series(&key, &args.out, series);
            let files = files.map_err(|error| directory_failure(&error))?;
            (key.verifying_key(), files)
        }
        (None, None) => {
            let wanted = "name the provider's key: --provider-key FILE, or --agent-key HEX";
            return Err(Failure::new(USAGE, wanted));
        }
    };
    let provider = hex(provider.as_bytes());
    let out = args.out.display().to_string();
    if args.json {
        let names: Vec<_> = files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        let object = json!({"directory": out, "files": names, "provider_key": provider});
        return Ok(format!("{object}\n"));
    }
    Ok(format!(
        "{} certificates in {out}\nprovider key {provider}\n",
        files.len(),
    ))
}

/// A series signed by an agent: each signature may take a touch, so each one is counted for whoever touches.
fn sign_by_agent(
    key: &VerifyingKey,
    agent: &AgentArgs,
    out: &Path,
    series: Series,
) -> Result<Vec<PathBuf>, Failure> {
    let mut agent = Agent::connect(agent)?;
    agent.must_have(key)?;
    let (mut nth, all) = (0, series.signatures());
    let mut sign = |message: &[u8]| {
        nth += 1;
        agent.sign(key, message, &format!("signature {nth} of {all}"))
    };
    let written = write_series_signed_by(&mut sign, key.as_bytes(), out, series);
    written.map_err(|error| match error {
        SeriesError::Directory(error) => directory_failure(&error),
        SeriesError::Signer(error) => {
            let mut failure = Failure::from(error);
            let place = format!("signature {nth} of {all}, no certificate was written");
            failure.message = format!("{place}: {}", failure.message);
            failure
        }
    })
}

fn public_key(key: &SigningKey, file: &Path, json: bool) -> String {
    let public = hex(key.verifying_key().as_bytes());
    if json {
        format!(
            "{}\n",
            json!({"file": file.display().to_string(), "public_key": public})
        )
    } else {
        format!("{public}\n")
    }
}

fn key_failure(error: &ProviderKeyError) -> Failure {
    match error {
        ProviderKeyError::Read { path, error } => {
            Failure::io(&format!("cannot read the provider key {path}"), error)
        }
        ProviderKeyError::Write { path, error }
            if error.kind() == std::io::ErrorKind::AlreadyExists =>
        {
            Failure::new(
                CANNOT_WRITE,
                format!("{path} exists, and a key is never overwritten: choose another name"),
            )
        }
        ProviderKeyError::Write { path, error } => {
            Failure::io(&format!("cannot write {path}"), error)
        }
        ProviderKeyError::NotAKey { .. } | ProviderKeyError::NotSecret { .. } => {
            Failure::new(FAILED, error.to_string())
        }
    }
}

fn directory_failure(error: &DirectoryError) -> Failure {
    match error {
        DirectoryError::Io { path, error } => Failure::io(path, error),
        DirectoryError::BadSeries => Failure::new(USAGE, error.to_string()),
        DirectoryError::BadProvider { .. } | DirectoryError::NothingValid { .. } => {
            Failure::new(FAILED, error.to_string())
        }
    }
}
