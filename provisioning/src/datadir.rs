//! The data directory: keys in files that only their owner reads, the database, and the folder `image`
//! with exactly what a router's image carries.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use rand_core::{OsRng, RngCore};
use trust::{Activation, Anchors, Authority, Cosigner, LogSigner};
use zeroize::Zeroizing;

use crate::failure::{Blame, Failure};
use crate::log::{self, Log, LogKeys};
use crate::proposals;
use crate::store::{self, Store};
use crate::tls::{Spki, TlsIdentity};

const TLS_KEY: &str = "server.key";
const TLS_CERTIFICATE: &str = "server.crt";
const FLEET_KEY: &str = "log-fleet.key";
const AUTHORITY_KEY: &str = "log-authority.key";
const COSIGNER_KEY: &str = "cosigner.key";
const IMAGE: &str = "image";
const TRUST_POLICY: &str = "trust.policy";
const SERVER_SPKI: &str = "server.spki";

/// A data directory by its path.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

/// What `init` made, for the person who builds the image.
#[derive(Debug)]
pub struct Made {
    /// The pin of the server's TLS key.
    pub spki: Spki,
    /// The folder to copy into images.
    pub image: PathBuf,
}

/// Where routers find the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    /// An IP address: a router cannot resolve names before it is enrolled.
    pub address: IpAddr,
    /// The port of the API.
    pub port: u16,
}

impl std::str::FromStr for ServerUrl {
    type Err = &'static str;

    fn from_str(url: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "accepted: https://IP:PORT, such as https://198.18.2.2:8443";
        let authority = url.strip_prefix("https://").ok_or(WRONG)?;
        let address: std::net::SocketAddr = authority
            .strip_suffix('/')
            .unwrap_or(authority)
            .parse()
            .map_err(|_| WRONG)?;
        Ok(Self {
            address: address.ip(),
            port: address.port(),
        })
    }
}

impl DataDir {
    /// Names a directory without touching it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes keys, database and image files, for the people of the first state of the authority. Removes what it made when it
    /// cannot finish.
    pub async fn create(
        &self,
        name: &str,
        url: &ServerUrl,
        genesis: &Activation,
        now: u64,
    ) -> anyhow::Result<Made> {
        let people = proposals::first_state(genesis, now)?;
        self.make_private()?;
        let mut entries =
            fs::read_dir(&self.0).with_context(|| format!("cannot read {}", self.0.display()))?;
        if entries.next().is_some() {
            let sentence = format!(
                "{} is not empty; choose another --data-dir, or remove it to begin anew",
                self.0.display()
            );
            return Err(Failure::new(Blame::Failed, sentence).into());
        }
        let made = self.fill((name, url), (&people, genesis), now).await;
        if made.is_err() {
            // The first failure is what the operator must hear of; what cannot be removed shows at the next try.
            let _leftovers = self.empty();
        }
        made
    }

    /// The database.
    pub async fn store(&self) -> anyhow::Result<Store> {
        Store::open(&self.0).await
    }

    /// The keys that seal the logs.
    pub fn log_keys(&self, name: &str) -> anyhow::Result<LogKeys> {
        log_keys(
            name,
            &*self.read_seed(FLEET_KEY)?,
            &*self.read_seed(AUTHORITY_KEY)?,
            &*self.read_seed(COSIGNER_KEY)?,
        )
    }

    /// The key and certificate of the API.
    pub fn tls_identity(&self) -> anyhow::Result<TlsIdentity> {
        let certificate = self.read_file(TLS_CERTIFICATE)?;
        TlsIdentity::from_pem(&self.read_secret(TLS_KEY)?, &certificate)
    }

    /// Whom routers and gateways believe, by the trust file of their images.
    pub fn anchors(&self) -> anyhow::Result<Anchors> {
        let file = self.0.join(IMAGE).join(TRUST_POLICY);
        Anchors::parse(&self.trust_policy()?).map_err(|error| {
            let sentence = format!("{}: {error}", file.display());
            Failure::new(Blame::Config, sentence).into()
        })
    }

    /// The trust file as images carry it.
    pub fn trust_policy(&self) -> anyhow::Result<String> {
        self.read_file(&format!("{IMAGE}/{TRUST_POLICY}"))
    }

    fn make_private(&self) -> anyhow::Result<()> {
        match fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
        {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(error).with_context(|| format!("cannot make {}", self.0.display()))
            }
            _ => Ok(()),
        }
    }

    async fn fill(
        &self,
        (name, url): (&str, &ServerUrl),
        (people, genesis): (&Authority, &Activation),
        now: u64,
    ) -> anyhow::Result<Made> {
        let identity = TlsIdentity::generate(url.address)?;
        self.write_new(TLS_KEY, 0o600, identity.key_pem.as_bytes())?;
        self.write_new(TLS_CERTIFICATE, 0o644, identity.certificate_pem.as_bytes())?;
        let seeds = [FLEET_KEY, AUTHORITY_KEY, COSIGNER_KEY].map(|file| (file, new_seed()));
        for (file, seed) in &seeds {
            let line = Zeroizing::new(format!("{}\n", *Zeroizing::new(hex::encode(seed))));
            self.write_new(file, 0o600, line.as_bytes())?;
        }
        let [(_, fleet), (_, authority), (_, cosigner)] = &seeds;
        let keys = log_keys(name, fleet, authority, cosigner)?;
        let image = self.0.join(IMAGE);
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&image)
            .with_context(|| format!("cannot make {}", image.display()))?;
        let policy = trust_policy(&keys, name, people);
        Anchors::parse(&policy).context("the trust file that was made does not parse")?;
        self.write_new(&format!("{IMAGE}/{TRUST_POLICY}"), 0o644, policy.as_bytes())?;
        let pin = format!("{}\n", identity.spki);
        self.write_new(&format!("{IMAGE}/{SERVER_SPKI}"), 0o644, pin.as_bytes())?;
        let store = Store::create(&self.0, name, now).await?;
        let mut writer = store.writer().await?;
        let mut db = writer.begin().await?;
        log::seal(&mut db, Log::Fleet, &keys, now).await?;
        proposals::add(&mut db, &genesis.proposal, &keys, now).await?;
        db.commit().await?;
        sync_dir(&image)?;
        sync_dir(&self.0)?;
        Ok(Made {
            spki: identity.spki,
            image,
        })
    }

    fn empty(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn write_new(&self, name: &str, mode: u32, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.0.join(name);
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            })
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn read_seed(&self, name: &str) -> anyhow::Result<Zeroizing<store::Id>> {
        let text = self.read_secret(name)?;
        let mut seed = Zeroizing::new([0; 32]);
        if hex::decode_to_slice(text.trim_end(), &mut *seed).is_err() {
            let sentence = format!(
                "{} is not 64 hexadecimal digits; restore it from a backup",
                self.0.join(name).display()
            );
            return Err(Failure::new(Blame::Config, sentence).into());
        }
        Ok(seed)
    }

    fn read_secret(&self, name: &str) -> anyhow::Result<Zeroizing<String>> {
        let path = self.0.join(name);
        let metadata = self.explain_missing(fs::metadata(&path), name)?;
        if metadata.mode() & 0o077 != 0 {
            let sentence = format!(
                "{0} can be read by others; run `chmod 600 {0}`",
                path.display()
            );
            return Err(Failure::new(Blame::Permission, sentence).into());
        }
        self.explain_missing(fs::read_to_string(&path).map(Zeroizing::new), name)
    }

    fn read_file(&self, name: &str) -> anyhow::Result<String> {
        self.explain_missing(fs::read_to_string(self.0.join(name)), name)
    }

    fn explain_missing<T>(&self, read: io::Result<T>, name: &str) -> anyhow::Result<T> {
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let sentence = format!(
                    "{0} has no {name}; is it a data directory? \
                     `provisioning --data-dir {0} init` makes one",
                    self.0.display()
                );
                Err(Failure::new(Blame::Config, sentence).into())
            }
            other => other.with_context(|| format!("cannot read {}", self.0.join(name).display())),
        }
    }
}

fn log_keys(
    name: &str,
    fleet: &store::Id,
    authority: &store::Id,
    cosigner: &store::Id,
) -> anyhow::Result<LogKeys> {
    ensure!(store::is_word(name, 32), "the server's name is not a word");
    Ok(LogKeys {
        fleet: LogSigner::from_seed(&format!("{name}/{}", Log::Fleet.as_str()), fleet)?,
        authority: LogSigner::from_seed(&format!("{name}/{}", Log::Authority.as_str()), authority)?,
        cosigner: Cosigner::from_seed(&format!("{name}/cosigner"), cosigner)?,
    })
}

fn trust_policy(keys: &LogKeys, name: &str, people: &Authority) -> String {
    let policy = |log: &LogSigner| {
        let (log, cosigner) = (log.vkey(), keys.cosigner.vkey());
        format!("log {log}\nwitness {name} {cosigner}\nquorum {name}\n")
    };
    let sections = Anchors::compose(
        &policy(&keys.fleet),
        &policy(&keys.authority),
        people.text(),
    );
    format!("# Whom a router or a gateway of {name} believes.\n{sections}")
}

fn new_seed() -> Zeroizing<store::Id> {
    let mut seed = Zeroizing::new([0; 32]);
    OsRng.fill_bytes(&mut *seed);
    seed
}

fn sync_dir(path: &Path) -> anyhow::Result<()> {
    fs::File::open(path)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("cannot sync {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::ServerUrl;

    #[test]
    fn only_an_https_address_with_a_port_is_a_server_url() {
        for wrong in [
            "",
            "http://127.0.0.1:1",
            "https://name.example:8443",
            "https://127.0.0.1",
        ] {
            assert!(wrong.parse::<ServerUrl>().is_err(), "{wrong}");
        }
        let expected = ServerUrl {
            address: "2001:db8::1".parse().unwrap(),
            port: 8443,
        };
        assert_eq!("https://[2001:db8::1]:8443/".parse(), Ok(expected));
    }
}
