//! `culvert-dns provider-key` and `culvert-dns cert`: the server's long-term key and what it signs.

use std::path::Path;

use ed25519_dalek::SigningKey;
use serde_json::json;

use super::SignArgs;
use super::exit::{CANNOT_WRITE, FAILED, Failure, USAGE};
use crate::certs::{
    DirectoryError, ProviderKeyError, Series, create_provider_key, hex, read_provider_key,
    write_series,
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

pub(super) fn sign(args: &SignArgs) -> Result<String, Failure> {
    let key = read_provider_key(&args.provider_key).map_err(|error| key_failure(&error))?;
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
    let files = write_series(&key, &args.out, series).map_err(|error| directory_failure(&error))?;
    let out = args.out.display().to_string();
    if args.json {
        let names: Vec<_> = files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        let object = json!({"directory": out, "files": names, "provider_key": hex(key.verifying_key().as_bytes())});
        return Ok(format!("{object}\n"));
    }
    Ok(format!(
        "{} certificates in {out}\nprovider key {}\n",
        files.len(),
        hex(key.verifying_key().as_bytes())
    ))
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
        ProviderKeyError::NotAKey { .. } => Failure::new(FAILED, error.to_string()),
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
