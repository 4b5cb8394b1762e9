//! The gateway's ML-KEM-768 keys. A new one each day takes the routers' offers of pre-shared keys; an old one is kept for
//! as long as a lease in force was agreed with it, because the gateway keeps no pre-shared key on disk but derives it
//! again from the offer. What is gone from here can open no recording any more.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use rand_core::OsRng;
use trust::kem::{KEM_SEED_BYTES, KemKey, KemStatement};
use trust::{KeyId, Signed};
use zeroize::Zeroizing;

use crate::exit::{Exit, Fault};

/// The file in the state directory.
pub const FILE: &str = "kem-keys";
/// A key takes offers for a day.
const ROTATE_AFTER_S: u64 = 86_400;
/// And is stated for two, so that a router that read it late still finds it.
const STATED_FOR_S: u64 = 2 * ROTATE_AFTER_S;
/// Leases live for days; more than this is a clock that jumps.
const MAX_KEYS: usize = 64;
const MAX_FILE_BYTES: u64 = 16 * 1024;

/// Whether this gateway has ever offered keys: routers that agreed one do not come back without
/// ([decision 0011](../../docs/decisions/0011-a-pre-shared-key-for-a-tunnel-key.md)).
pub fn has_offered(state_dir: &Path) -> bool {
    state_dir.join(FILE).exists()
}

/// The keys, the present one last.
#[derive(Debug)]
pub struct Keyring {
    path: PathBuf,
    keys: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    id: [u8; 32],
    key: KemKey,
    not_before: u64,
    not_after: u64,
}

/// What a look at the clock came to.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// There is a new key to be stated.
    Rotated,
    /// The present one goes on.
    NotDue,
}

impl Keyring {
    /// Reads the keys, or makes the first one.
    pub fn load(state_dir: &Path, now: u64) -> Result<Self, Fault> {
        let path = state_dir.join(FILE);
        let keys = match read(&path) {
            Ok(Some(keys)) => keys,
            Ok(None) => {
                let shown = path.display();
                return Err(Fault::new(
                    Exit::Config,
                    format!(
                        "{shown} is damaged: restore it from a backup, or remove it, and routers agree new keys when \
                         they renew their leases"
                    ),
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Fault::io(format!("read {}", path.display()), &error)),
        };
        let mut keyring = Self { path, keys };
        if keyring.keys.is_empty() {
            keyring.add(now);
            keyring
                .save()
                .map_err(|error| Fault::io(format!("write {}", keyring.path.display()), &error))?;
        }
        Ok(keyring)
    }

    /// The key that an offer names.
    pub fn find(&self, id: &[u8; 32]) -> Option<&KemKey> {
        let held = self.keys.iter().find(|held| held.id == *id);
        held.map(|held| &held.key)
    }

    /// What routers are told of the present key.
    pub fn statement(&self, identity: &SigningKey) -> Option<Signed> {
        let present = self.keys.last()?;
        let Held {
            key,
            not_before,
            not_after,
            ..
        } = present;
        Some(KemStatement::sign(identity, key, *not_before, *not_after))
    }

    /// Whether the present key has taken offers for long enough.
    pub fn is_due(&self, now: u64) -> bool {
        self.keys
            .last()
            .is_none_or(|present| now >= present.not_before.saturating_add(ROTATE_AFTER_S))
    }

    /// Makes a new key when it is time, and forgets those that are neither stated nor in use.
    pub fn rotate(&mut self, now: u64, in_use: &BTreeSet<[u8; 32]>) -> io::Result<Rotation> {
        if !self.is_due(now) {
            return Ok(Rotation::NotDue);
        }
        self.keys
            .retain(|held| held.not_after > now || in_use.contains(&held.id));
        if self.keys.len() >= MAX_KEYS {
            self.keys.remove(0);
        }
        self.add(now);
        self.save()?;
        Ok(Rotation::Rotated)
    }

    fn add(&mut self, now: u64) {
        let key = KemKey::generate(&mut OsRng);
        self.keys.push(Held {
            id: key.id(),
            key,
            not_before: now,
            not_after: now.saturating_add(STATED_FOR_S),
        });
    }

    /// Writes all of them, whole or not at all.
    fn save(&self) -> io::Result<()> {
        let mut text = Zeroizing::new(String::with_capacity(self.keys.len() * 160));
        for held in &self.keys {
            let seed = Zeroizing::new(STANDARD.encode(held.key.seed()));
            // Writing into memory does not fail.
            let _infallible = writeln!(text, "{} {} {}", held.not_before, held.not_after, *seed);
        }
        let fresh = self.path.with_extension("new");
        let mut file = std::fs::File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)
    }

    /// Ids of all keys, the present one last.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.keys.iter().map(|held| KeyId::from(held.id))
    }
}

/// The keys of a file; none if it is damaged.
fn read(path: &Path) -> io::Result<Option<Vec<Held>>> {
    if std::fs::metadata(path)?.len() > MAX_FILE_BYTES {
        return Ok(None);
    }
    let text = Zeroizing::new(std::fs::read_to_string(path)?);
    let keys: Option<Vec<Held>> = text.lines().map(parse).collect();
    Ok(keys.filter(|keys| !keys.is_empty()))
}

fn parse(line: &str) -> Option<Held> {
    let mut fields = line.split(' ');
    let not_before = fields.next()?.parse().ok()?;
    let not_after = fields.next()?.parse().ok()?;
    let bytes = Zeroizing::new(STANDARD.decode(fields.next()?).ok()?);
    if fields.next().is_some() {
        return None;
    }
    let seed = <[u8; KEM_SEED_BYTES]>::try_from(bytes.as_slice()).ok()?;
    let key = KemKey::from_seed(Zeroizing::new(seed));
    Some(Held {
        id: key.id(),
        key,
        not_before,
        not_after,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const T0: u64 = 1_790_000_000;

    fn ids(keyring: &Keyring) -> Vec<KeyId> {
        keyring.ids().collect()
    }

    #[test]
    fn a_damaged_file_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        for damage in ["", "1 2", "1 2 AAAA\n", "1 2 AAAA x\n", "x 2 AAAA\n"] {
            std::fs::write(dir.path().join(FILE), damage).unwrap();

            let fault = Keyring::load(dir.path(), T0).map(|_| ()).unwrap_err();

            assert_eq!(fault.exit, Exit::Config, "{damage:?}");
            assert!(fault.sentence.contains("or remove it"), "{fault}");
        }
    }

    #[test]
    fn keys_are_the_owners_alone_and_come_back_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let before = ids(&Keyring::load(dir.path(), T0).unwrap());

        let after = ids(&Keyring::load(dir.path(), T0 + 9).unwrap());

        assert_eq!(before, after);
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_is_changed_daily_and_stated_for_two_days() {
        let dir = tempfile::tempdir().unwrap();
        let identity = SigningKey::from_bytes(&[1; 32]);
        let gateway = trust::key_id(identity.verifying_key().as_bytes());
        let mut keyring = Keyring::load(dir.path(), T0).unwrap();
        let stated = keyring.statement(&identity).unwrap();
        let (nothing, day) = (BTreeSet::new(), ROTATE_AFTER_S);

        assert_eq!(
            keyring.rotate(T0 + day - 1, &nothing).unwrap(),
            Rotation::NotDue
        );
        assert_eq!(
            keyring.rotate(T0 + day, &nothing).unwrap(),
            Rotation::Rotated
        );

        let first = KemStatement::verify(&stated, &gateway, T0 + 2 * day - 1).unwrap();
        assert!(KemStatement::verify(&stated, &gateway, T0 + 2 * day).is_err());
        assert!(
            keyring.find(&first.get().kem_id()).is_some(),
            "still stated"
        );
        assert_ne!(keyring.statement(&identity).unwrap(), stated);
    }

    #[test]
    fn an_old_key_goes_with_the_last_lease_that_was_agreed_with_it_from_disk_too() {
        let dir = tempfile::tempdir().unwrap();
        let mut keyring = Keyring::load(dir.path(), T0).unwrap();
        let first = *ids(&keyring)[0].as_bytes();
        let day = ROTATE_AFTER_S;

        for days in 1..=9 {
            let rotated = keyring.rotate(T0 + days * day, &BTreeSet::from([first]));
            assert_eq!(rotated.unwrap(), Rotation::Rotated);
        }
        assert!(keyring.find(&first).is_some());
        assert_eq!(ids(&keyring).len(), 3, "in use, former, present");
        let rotated = keyring.rotate(T0 + 10 * day, &BTreeSet::new());
        assert_eq!(rotated.unwrap(), Rotation::Rotated);

        assert!(keyring.find(&first).is_none());
        let read = Keyring::load(dir.path(), T0).unwrap();
        assert_eq!(ids(&read), ids(&keyring));
    }

    #[test]
    fn debug_shows_no_seed() {
        let dir = tempfile::tempdir().unwrap();
        let keyring = Keyring::load(dir.path(), T0).unwrap();
        let file = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        let seed = file.trim_end().rsplit(' ').next().unwrap();

        assert!(!format!("{keyring:?}").contains(seed));
    }
}
