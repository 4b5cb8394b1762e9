//! The data directory: keys in files that only their owner reads, the database, and the folder `image`
//! with exactly what a router's image carries.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use trust::{Activation, Anchors, Authority, Cosigner, LogSigner};

use crate::failure::{Blame, Failure};
use crate::files::{self, Seed};
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

    /// Makes keys, database and image files, for the people of the first state of the authority and the witnesses, groups and quorum
    /// of these lines of a policy; without them this server's own cosignature is enough. Removes what it made when it cannot finish.
    pub async fn create(
        &self,
        (name, url): (&str, &ServerUrl),
        (genesis, witnesses): (&Activation, Option<&str>),
        now: u64,
    ) -> anyhow::Result<Made> {
        let people = proposals::first_state(genesis, now)?;
        files::make_private(&self.0)?;
        let mut entries =
            fs::read_dir(&self.0).with_context(|| format!("cannot read {}", self.0.display()))?;
        if entries.next().is_some() {
            let sentence = format!(
                "{} is not empty; choose another --data-dir, or remove it to begin anew",
                self.0.display()
            );
            return Err(Failure::new(Blame::Failed, sentence).into());
        }
        let who = (&people, genesis, witnesses);
        let made = self.fill((name, url), who, now).await;
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

    /// The keys that seal the logs, and who else has to cosign them.
    pub fn log_keys(&self, name: &str) -> anyhow::Result<LogKeys> {
        let seeds = [FLEET_KEY, AUTHORITY_KEY, COSIGNER_KEY];
        let [fleet, authority, cosigner] = seeds.map(|file| self.read_seed(file));
        let signers = Signers::from_seeds(name, [&fleet?, &authority?, &cosigner?])?;
        Ok(signers.with(self.anchors()?))
    }

    /// The key and certificate of the API.
    pub fn tls_identity(&self) -> anyhow::Result<TlsIdentity> {
        let certificate = self.read_file(TLS_CERTIFICATE)?;
        let key = files::read_secret(&self.0.join(TLS_KEY));
        TlsIdentity::from_pem(&self.explain_missing(key, TLS_KEY)?, &certificate)
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

    /// Puts a state of the authority into the trust file of images, in the place of the one before; its policies stay as they are.
    pub fn set_people(&self, people: &Authority) -> anyhow::Result<()> {
        let text = self.trust_policy()?;
        let path = self.0.join(IMAGE).join(TRUST_POLICY);
        let lines = text.split_inclusive('\n');
        let above: usize = lines.clone().map(str::len).take(heading(lines)?).sum();
        let above = text.get(..above).context("the trust file has no text")?;
        let text = format!("{above}{}", people.text());
        Anchors::parse(&text).context("the trust file that was made does not parse")?;
        files::replace(&path, text.as_bytes())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
            .with_context(|| format!("cannot open {} to everybody", path.display()))
    }

    async fn fill(
        &self,
        (name, url): (&str, &ServerUrl),
        (people, genesis, witnesses): (&Authority, &Activation, Option<&str>),
        now: u64,
    ) -> anyhow::Result<Made> {
        let identity = TlsIdentity::generate(url.address)?;
        self.write_new(TLS_KEY, 0o600, identity.key_pem.as_bytes())?;
        self.write_new(TLS_CERTIFICATE, 0o644, identity.certificate_pem.as_bytes())?;
        let seeds = [FLEET_KEY, AUTHORITY_KEY, COSIGNER_KEY].map(|file| (file, files::new_seed()));
        for (file, seed) in &seeds {
            files::write_seed(&self.0.join(file), seed)?;
        }
        let signers = Signers::from_seeds(name, seeds.each_ref().map(|(_, seed)| seed))?;
        let image = self.0.join(IMAGE);
        fs::DirBuilder::new()
            .mode(0o755)
            .create(&image)
            .with_context(|| format!("cannot make {}", image.display()))?;
        let policy = signers.trust_policy(name, witnesses, people);
        let anchors = Anchors::parse(&policy).map_err(|error| {
            let sentence = format!("these witnesses make no trust file: {error}");
            Failure::new(Blame::Failed, sentence)
        })?;
        self.write_new(&format!("{IMAGE}/{TRUST_POLICY}"), 0o644, policy.as_bytes())?;
        let pin = format!("{}\n", identity.spki);
        self.write_new(&format!("{IMAGE}/{SERVER_SPKI}"), 0o644, pin.as_bytes())?;
        let keys = signers.with(anchors);
        let store = Store::create(&self.0, name, now).await?;
        let mut writer = store.writer().await?;
        let mut db = writer.begin().await?;
        log::seal(&mut db, Log::Fleet, &keys, now).await?;
        let first = proposals::add(&mut db, &genesis.proposal, &keys, now).await?;
        store::proposals::activate(&mut db, first.leaf, &genesis.to_bytes()).await?;
        store::proposals::add_state(&mut db, people.epoch(), first.leaf).await?;
        db.commit().await?;
        files::sync_dir(&image)?;
        files::sync_dir(&self.0)?;
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
        files::write_new(&self.0.join(name), mode, bytes)
    }

    fn read_seed(&self, name: &str) -> anyhow::Result<Seed> {
        self.explain_missing(files::read_seed(&self.0.join(name)), name)
    }

    fn read_file(&self, name: &str) -> anyhow::Result<String> {
        let path = self.0.join(name);
        let read = fs::read_to_string(&path);
        let read = read.with_context(|| format!("cannot read {}", path.display()));
        self.explain_missing(read, name)
    }

    fn explain_missing<T>(&self, read: anyhow::Result<T>, name: &str) -> anyhow::Result<T> {
        let is_missing = |error: &anyhow::Error| {
            let error = error.downcast_ref::<io::Error>();
            error.is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        match read {
            Err(error) if is_missing(&error) => {
                let sentence = format!(
                    "{0} has no {name}; is it a data directory? \
                     `provisioning --data-dir {0} init` makes one",
                    self.0.display()
                );
                Err(Failure::new(Blame::Config, sentence).into())
            }
            other => other,
        }
    }
}

/// How many lines of a trust file there are up to the heading of the people.
fn heading<'a>(mut lines: impl Iterator<Item = &'a str>) -> anyhow::Result<usize> {
    let at = lines.position(|line| line.trim() == "[people]");
    Ok(at.context("the trust file has no section [people]")? + 1)
}

/// The server's own keys for its logs.
struct Signers {
    fleet: LogSigner,
    authority: LogSigner,
    cosigner: Cosigner,
}

impl Signers {
    fn from_seeds(name: &str, [fleet, authority, cosigner]: [&Seed; 3]) -> anyhow::Result<Self> {
        ensure!(store::is_word(name, 32), "the server's name is not a word");
        let origin = |log: Log| format!("{name}/{}", log.as_str());
        Ok(Self {
            fleet: LogSigner::from_seed(&origin(Log::Fleet), fleet)?,
            authority: LogSigner::from_seed(&origin(Log::Authority), authority)?,
            cosigner: Cosigner::from_seed(&format!("{name}/cosigner"), cosigner)?,
        })
    }

    fn trust_policy(&self, name: &str, witnesses: Option<&str>, people: &Authority) -> String {
        let alone = format!("quorum {name}\n");
        let rest = witnesses.unwrap_or(&alone);
        let policy = |log: &LogSigner| {
            let (log, cosigner) = (log.vkey(), self.cosigner.vkey());
            format!("log {log}\nwitness {name} {cosigner}\n{rest}")
        };
        let sections = Anchors::compose(
            &policy(&self.fleet),
            &policy(&self.authority),
            people.text(),
        );
        format!("# Whom a router or a gateway of {name} believes.\n{sections}")
    }

    fn with(self, anchors: Anchors) -> LogKeys {
        LogKeys {
            fleet: self.fleet,
            authority: self.authority,
            cosigner: self.cosigner,
            anchors,
        }
    }
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
