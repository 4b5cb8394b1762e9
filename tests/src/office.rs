//! The provider's office: a provisioning server, its claim codes, and what it puts into a router's image.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::netns::{Netns, said};
use crate::people::{CEREMONY, People};
use crate::process::Running;
use crate::programs::Programs;
use crate::topology::{GATEWAY, Lab, OFFICE};

mod thief;

pub use thief::wrong_clock;

/// Provisioning's TLS port.
pub(crate) const PROVISIONING_PORT: u16 = 8443;
/// A DNSCrypt stamp of 10.64.0.1:443 with a provider key of zeros.
const SILENT_STAMP: &str = "sdns://AQAAAAAAAAAADTEwLjY0LjAuMTo0NDMgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAcMi5kbnNjcnlwdC1jZXJ0LnBvcDEuZXhhbXBsZQ";
const START: Duration = Duration::from_secs(15);

/// An initialised provisioning server; it runs while the value of [`Office::start`] lives.
#[derive(Debug, Clone)]
pub struct Office {
    netns: Netns,
    program: PathBuf,
    data: PathBuf,
    config: PathBuf,
    port: u16,
    people: People,
}

impl Office {
    /// Makes keys, store and image.
    pub fn init(lab: &Lab, programs: &Programs) -> Result<Self> {
        Self::init_in(lab, programs, "provisioning")
    }

    /// Makes another provider's, in a folder of its own.
    pub fn init_in(lab: &Lab, programs: &Programs, name: &str) -> Result<Self> {
        Self::init_with(lab, programs, name, (CEREMONY, &[]))
    }

    /// Makes one whose people make their keys and their first state by this script; see [`People::gather_by`].
    pub fn init_for(lab: &Lab, programs: &Programs, ceremony: &str) -> Result<Self> {
        Self::init_with(lab, programs, "provisioning", (ceremony, &[]))
    }

    /// Makes one whose logs others have to cosign, by these lines of a policy.
    pub fn init_witnessed(lab: &Lab, programs: &Programs, lines: &str) -> Result<Self> {
        Self::init_witnessed_for(lab, programs, lines, CEREMONY)
    }

    /// The same for people who make their first state by this script.
    pub fn init_witnessed_for(
        lab: &Lab,
        programs: &Programs,
        lines: &str,
        ceremony: &str,
    ) -> Result<Self> {
        let file = lab.work().join("witnesses");
        fs::write(&file, lines).context("writing the witnesses' lines")?;
        let witnesses = ["--witnesses", &file.to_string_lossy()];
        Self::init_with(lab, programs, "provisioning", (ceremony, &witnesses))
    }

    fn init_with(
        lab: &Lab,
        programs: &Programs,
        name: &str,
        (ceremony, more): (&str, &[&str]),
    ) -> Result<Self> {
        let data = lab.work().join(name);
        let config = lab.work().join(format!("{name}.toml"));
        let program = programs.provisioning();
        let people = lab.work().join(format!("{name}-people"));
        let office = Self {
            netns: lab.office.clone(),
            people: People::gather_by(&lab.office, &program, &people, ceremony)?,
            program,
            data,
            config,
            port: PROVISIONING_PORT,
        };
        let genesis = office.people.genesis();
        let genesis = ["--genesis", &genesis.to_string_lossy()];
        let init = ["init", "--name", "lab", "--listen-url", &office.url()];
        office.cli(&[&init[..], &genesis, more].concat())?;
        fs::write(&office.config, office.configuration())
            .context("writing provisioning's configuration")?;
        Ok(office)
    }

    /// Starts the server and waits until it answers.
    pub fn start(&self) -> Result<Running> {
        let args = [
            "serve".as_ref(),
            "--config".as_ref(),
            self.config.as_os_str(),
        ];
        let server = self.netns.spawn("provisioning", &self.program, &args)?;
        self.wait_for_answer(server)
    }

    fn wait_for_answer(&self, mut server: Running) -> Result<Running> {
        let health = format!("{}/healthz", self.url());
        server.wait_ready("answers", START, || {
            let output = self
                .netns
                .output(&["curl", "-skf", "--max-time", "2", &health])?;
            Ok(output.status.success().then_some(()))
        })?;
        Ok(server)
    }

    /// The command line of `serve`, for a shell that prepares something first.
    pub fn serve_line(&self) -> String {
        format!(
            "{} serve --config {}",
            self.program.display(),
            self.config.display()
        )
    }

    /// Changes the server's configuration.
    pub fn edit_config(&self, edit: impl FnOnce(String) -> String) -> Result<()> {
        let text =
            fs::read_to_string(&self.config).context("reading provisioning's configuration")?;
        fs::write(&self.config, edit(text)).context("writing provisioning's configuration")
    }

    /// The server's address as an image carries it.
    pub fn url(&self) -> String {
        format!("https://{OFFICE}:{}", self.port)
    }

    /// The folder with what an image carries: `trust.policy` and `server.spki`.
    pub fn image(&self) -> PathBuf {
        self.data.join("image")
    }

    /// The first state of the authority, which the provider's people signed.
    pub fn genesis(&self) -> PathBuf {
        self.people.genesis()
    }

    /// The folder in which the people sign.
    pub fn people(&self) -> &Path {
        self.people.folder()
    }

    /// What the people type in their folder; `$1` is the program, `$2` the server's data directory, and what follows are these words.
    pub fn people_type(&self, script: &str, words: &[&str]) -> Result<()> {
        let data = self.data.to_string_lossy();
        let words = [&[data.as_ref()], words].concat();
        self.people.type_in(&self.netns, script, &words)
    }

    /// The server's store.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The pin of the server's key, in hex.
    pub fn spki(&self) -> Result<String> {
        let text = fs::read_to_string(self.image().join("server.spki"))
            .context("reading the image's pin")?;
        Ok(text.trim().to_owned())
    }

    /// Makes a claim code.
    pub fn claim(&self) -> Result<String> {
        let made = self.cli_json(&["claim", "new"])?;
        made["code"]
            .as_str()
            .map(str::to_owned)
            .context("`claim new --json` without a code")
    }

    /// Puts a gateway on the books that nobody runs, so that there is something to lease.
    pub fn add_silent_gateway(&self, ed25519: &str) -> Result<()> {
        self.add_gateway(
            ed25519,
            "IiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiI=",
            SILENT_STAMP,
        )
    }

    /// Puts a gateway on the books with these keys, at the pop's address.
    pub fn add_gateway(&self, ed25519: &str, wireguard: &str, stamp: &str) -> Result<()> {
        let endpoint = format!("{GATEWAY}:51820");
        let place = [
            "--pop",
            "pop1",
            "--shard",
            "1",
            "--inner",
            "10.64.0.1,fd64::1",
        ];
        let keys = [
            "--ed25519",
            ed25519,
            "--wg",
            wireguard,
            "--endpoint",
            &endpoint,
            "--dns",
            stamp,
        ];
        self.add_record("gw1", &[&keys[..], &place].concat())
    }

    /// Puts a gateway on the books that the provider's people have approved, with what its record says as `propose gateway` takes it.
    pub fn add_record(&self, name: &str, record: &[&str]) -> Result<()> {
        let script = self.people.adding_a_gateway(&self.data, name, record);
        self.netns.run(&["sh", "-ec", &script])?;
        Ok(())
    }

    /// One of the people goes and another comes.
    pub fn change_people(&self, more: &[&str]) -> Result<()> {
        self.people.change(&self.netns, &self.data, more)
    }

    /// The people who are there now approve a gateway.
    pub fn approve_again(&self, name: &str) -> Result<()> {
        self.people.approve_again(&self.netns, &self.data, name)
    }

    /// What `device list` shows.
    pub fn devices(&self) -> Result<Vec<Value>> {
        list(self.cli_json(&["device", "list"])?)
    }

    /// What `claim list` shows.
    pub fn claims(&self) -> Result<Vec<Value>> {
        list(self.cli_json(&["claim", "list"])?)
    }

    /// Runs the command line on the server's store.
    pub fn cli(&self, args: &[&str]) -> Result<String> {
        let output = self.try_cli(args)?;
        ensure!(
            output.status.success(),
            "provisioning {}: {}",
            args.join(" "),
            said(&output)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs the command line and reads its JSON.
    pub fn cli_json(&self, args: &[&str]) -> Result<Value> {
        let text = self.cli(&[args, &["--json"]].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("provisioning {} --json printed: {text}", args.join(" ")))
    }

    /// Runs the command line, whatever comes of it.
    pub fn try_cli(&self, args: &[&str]) -> Result<Output> {
        let data = self.data.to_string_lossy();
        let program = self.program.to_string_lossy();
        self.netns
            .output(&[&[program.as_ref(), "--data-dir", data.as_ref()], args].concat())
    }

    fn configuration(&self) -> String {
        format!(
            "listen = [\"{OFFICE}:{}\"]\ndata-dir = \"{}\"\nmetrics-listen = \"127.0.0.1:9102\"\n\n\
             [[pool]]\npop = \"pop1\"\nshard = 1\nv4 = \"10.64.0.0/16\"\nv6 = \"fd64::/48\"\n",
            self.port,
            self.data.display()
        )
    }
}

fn list(value: Value) -> Result<Vec<Value>> {
    value
        .as_array()
        .cloned()
        .with_context(|| format!("a list was expected: {value}"))
}
