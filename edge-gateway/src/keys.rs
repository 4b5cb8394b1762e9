//! The gateway's two keys on disk: Ed25519 (who it is) and X25519 (its end of the tunnels). One line of
//! base64 each, mode 0600; the tunnel key is in the form that `wg` reads, too.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use rand_core::{OsRng, RngCore};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::exit::{Exit, Fault};

const IDENTITY_FILE: &str = "gateway.ed25519";
const TUNNEL_FILE: &str = "gateway.wg";
/// 32 bytes in base64, a line end and some slack.
const MAX_FILE_BYTES: u64 = 64;

/// The secret halves.
pub struct Keys {
    /// Signs the connection to provisioning.
    pub identity: SigningKey,
    /// Answers handshakes.
    pub tunnel: StaticSecret,
}

/// The public halves, in the encodings that other programs take.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PublicKeys {
    /// SHA-256 of the identity key, in hex: the gateway's id.
    pub id: String,
    /// Ed25519, in hex.
    pub ed25519: String,
    /// Ed25519, in base64.
    pub ed25519_base64: String,
    /// X25519, in base64, as `wg` writes it.
    pub wg: String,
    /// X25519, in hex.
    pub wg_hex: String,
}

impl Keys {
    /// Makes both keys; nothing is overwritten.
    pub fn create(state_dir: &Path) -> Result<Self, Fault> {
        let paths = [IDENTITY_FILE, TUNNEL_FILE].map(|name| state_dir.join(name));
        if let Some(there) = paths.iter().find(|path| path.exists()) {
            return Err(Fault::new(
                Exit::CannotWrite,
                format!(
                    "{} is there already; remove it first if this is to be another gateway",
                    there.display()
                ),
            ));
        }
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state_dir)
            .map_err(|error| written(state_dir, &error))?;
        for path in &paths {
            write_secret(path, &fresh_secret()).map_err(|error| written(path, &error))?;
        }
        Self::load(state_dir)
    }

    /// Reads both keys.
    pub fn load(state_dir: &Path) -> Result<Self, Fault> {
        let identity = read_secret(state_dir, IDENTITY_FILE)?;
        let tunnel = read_secret(state_dir, TUNNEL_FILE)?;
        Ok(Self {
            identity: SigningKey::from_bytes(&identity),
            tunnel: StaticSecret::from(*tunnel),
        })
    }

    /// The public halves.
    pub fn public(&self) -> PublicKeys {
        let identity = self.identity.verifying_key().to_bytes();
        let tunnel = PublicKey::from(&self.tunnel).to_bytes();
        PublicKeys {
            id: hex::encode(trust::key_id(&identity)),
            ed25519: hex::encode(identity),
            ed25519_base64: STANDARD.encode(identity),
            wg: STANDARD.encode(tunnel),
            wg_hex: hex::encode(tunnel),
        }
    }
}

fn fresh_secret() -> Zeroizing<[u8; 32]> {
    let mut secret = Zeroizing::new([0; 32]);
    OsRng.fill_bytes(&mut *secret);
    secret
}

fn write_secret(path: &Path, secret: &[u8; 32]) -> std::io::Result<()> {
    let line = Zeroizing::new(format!("{}\n", STANDARD.encode(secret)));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let outcome = file
        .write_all(line.as_bytes())
        .and_then(|()| file.sync_all());
    if outcome.is_err() {
        // A half-written key would stand in the way of the next attempt; if it stays, that one names it.
        let _removed = std::fs::remove_file(path);
    }
    outcome
}

fn written(path: &Path, error: &std::io::Error) -> Fault {
    let fault = Fault::io(format!("write {}", path.display()), error);
    if fault.exit == Exit::Io {
        Fault {
            exit: Exit::CannotWrite,
            ..fault
        }
    } else {
        fault
    }
}

fn read_secret(state_dir: &Path, name: &str) -> Result<Zeroizing<[u8; 32]>, Fault> {
    let path: PathBuf = state_dir.join(name);
    let shown = path.display();
    let refuse = |exit, sentence| Err(Fault::new(exit, sentence));
    let metadata = match std::fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let state_dir = state_dir.display();
            return refuse(
                Exit::Config,
                format!(
                    "{shown} is missing; make the gateway's keys with `edge-gateway init --state-dir {state_dir}`"
                ),
            );
        }
        Err(error) => return Err(Fault::io(format!("read {shown}"), &error)),
    };
    if metadata.len() > MAX_FILE_BYTES {
        return refuse(Exit::Config, format!("{shown} is not a key of a gateway"));
    }
    let text = std::fs::read_to_string(&path)
        .map(Zeroizing::new)
        .map_err(|error| Fault::io(format!("read {shown}"), &error))?;
    let bytes = STANDARD.decode(text.trim_end()).map(Zeroizing::new).ok();
    match bytes
        .as_deref()
        .and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok())
    {
        Some(secret) => Ok(Zeroizing::new(secret)),
        None => refuse(
            Exit::Config,
            format!("{shown} is damaged: it is not 32 bytes in base64; restore it from a backup"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let before = Keys::create(dir.path()).unwrap().public();

        let error = Keys::create(dir.path())
            .map(|keys| keys.public())
            .unwrap_err();

        assert_eq!(error.exit, Exit::CannotWrite);
        assert!(
            error.sentence.contains("gateway.ed25519 is there already"),
            "{error}"
        );
        assert_eq!(Keys::load(dir.path()).unwrap().public(), before);
    }

    #[test]
    fn only_the_owner_may_read_a_key() {
        let dir = tempfile::tempdir().unwrap();
        Keys::create(dir.path()).unwrap();

        for name in [IDENTITY_FILE, TUNNEL_FILE] {
            let mode = fs::metadata(dir.path().join(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn a_missing_or_damaged_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Keys::load(dir.path()).map(|_| ()).unwrap_err();
        assert_eq!(missing.exit, Exit::Config);
        assert!(missing.sentence.contains("edge-gateway init"), "{missing}");

        Keys::create(dir.path()).unwrap();
        for damaged in ["", "AAAA\n", "not base64 at all\n", &"A".repeat(200)] {
            fs::write(dir.path().join(TUNNEL_FILE), damaged).unwrap();
            let error = Keys::load(dir.path()).map(|_| ()).unwrap_err();
            assert_eq!(error.exit, Exit::Config);
            assert!(error.sentence.contains("gateway.wg"), "{error}");
        }
    }
}
