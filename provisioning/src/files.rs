//! Files that outlive a power cut, and secrets that only their owner reads.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context;
use rand_core::{OsRng, RngCore};
use zeroize::Zeroizing;

use crate::failure::{Blame, Failure};

/// What an Ed25519 key is made of.
pub(crate) type Seed = Zeroizing<[u8; 32]>;

/// Makes a folder that only its owner reads, unless it is there.
pub(crate) fn make_private(path: &Path) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot make {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Writes a file that was not there.
pub(crate) fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Puts a file in the place of the one of this name, whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let half = path.with_extension("new");
    let written = fs::File::create(&half).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&half, path)
    });
    written.with_context(|| format!("cannot write {}", path.display()))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

pub(crate) fn sync_dir(path: &Path) -> anyhow::Result<()> {
    fs::File::open(path)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("cannot sync {}", path.display()))
}

pub(crate) fn new_seed() -> Seed {
    let mut seed = Zeroizing::new([0; 32]);
    OsRng.fill_bytes(&mut *seed);
    seed
}

/// Writes a secret down where none was.
pub(crate) fn write_seed(path: &Path, seed: &Seed) -> anyhow::Result<()> {
    let line = Zeroizing::new(format!("{}\n", *Zeroizing::new(hex::encode(**seed))));
    write_new(path, 0o600, line.as_bytes())
}

/// Reads what `write_seed` wrote.
pub(crate) fn read_seed(path: &Path) -> anyhow::Result<Seed> {
    let text = read_secret(path)?;
    let mut seed = Zeroizing::new([0; 32]);
    if hex::decode_to_slice(text.trim_end(), &mut *seed).is_err() {
        let sentence = format!(
            "{} is not 64 hexadecimal digits; restore it from a backup",
            path.display()
        );
        return Err(Failure::new(Blame::Config, sentence).into());
    }
    Ok(seed)
}

/// Reads a file that nobody but its owner may read.
pub(crate) fn read_secret(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let reading = || format!("cannot read {}", path.display());
    let metadata = fs::metadata(path).with_context(reading)?;
    if metadata.mode() & 0o077 != 0 {
        let sentence = format!(
            "{0} can be read by others; run `chmod 600 {0}`",
            path.display()
        );
        return Err(Failure::new(Blame::Permission, sentence).into());
    }
    let text = fs::read_to_string(path).with_context(reading)?;
    Ok(Zeroizing::new(text))
}
