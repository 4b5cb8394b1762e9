//! The subscriber's router: nothing but an image's contents, and the agent.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::netns::{Netns, said};
use crate::office::Office;
use crate::process::Running;
use crate::programs::Programs;
use crate::topology::{Lab, ROUTER_LAN, ROUTER_LAN_V6};
use crate::wait::wait_until;

const START: Duration = Duration::from_secs(10);

/// A flashed router; its agent runs while the value of [`Router::start`] lives.
#[derive(Debug, Clone)]
pub struct Router {
    netns: Netns,
    program: PathBuf,
    dir: PathBuf,
}

/// What a test may want different from the provider's image.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Another server than the office's.
    pub url: Option<String>,
    /// No kill-switch.
    pub open: bool,
}

impl Router {
    /// Writes an image's contents into an empty folder of the lab.
    pub fn flash(lab: &Lab, programs: &Programs, office: &Office) -> Result<Self> {
        Self::flash_as(lab, programs, office, "router", &Image::default())
    }

    /// Flashes another router, or one with a different image.
    pub fn flash_as(
        lab: &Lab,
        programs: &Programs,
        office: &Office,
        name: &str,
        image: &Image,
    ) -> Result<Self> {
        let dir = lab.folder(name)?;
        let router = Self {
            netns: lab.router.clone(),
            program: programs.agent(),
            dir,
        };
        let policy = router.dir.join("trust.policy");
        fs::copy(office.image().join("trust.policy"), policy)
            .context("copying the trust policy into the image")?;
        fs::write(router.config(), router.configuration(office, image)?)
            .context("writing the agent's configuration")?;
        Ok(router)
    }

    /// Puts a copy of the program onto the router, in the place of one that is there, as an upgrade does.
    pub fn install_program(&mut self) -> Result<PathBuf> {
        let (new, path) = (self.dir.join("cpe-agent.new"), self.dir.join("cpe-agent"));
        fs::copy(&self.program, &new).context("copying the agent")?;
        fs::rename(&new, &path).context("replacing the agent")?;
        self.program.clone_from(&path);
        Ok(path)
    }

    /// The agent's configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("agent.toml")
    }

    /// Where the agent keeps identity and lease.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Starts the agent and waits until it can be talked to.
    pub fn start(&self) -> Result<Running> {
        let mut agent = self.start_unwatched()?;
        let socket = self.dir.join("agent.sock");
        agent.wait_ready("can be talked to", START, || {
            Ok(UnixStream::connect(&socket).is_ok().then_some(()))
        })?;
        Ok(agent)
    }

    /// Starts the agent, whatever becomes of it.
    pub fn start_unwatched(&self) -> Result<Running> {
        let config = self.config();
        let args = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
        self.netns.spawn("agent", &self.program, &args)
    }

    /// Types a claim code.
    pub fn enrol(&self, code: &str) -> Result<String> {
        let output = self.try_enrol(code)?;
        ensure!(
            output.status.success(),
            "cpe-agent enrol: {}: {}",
            output.status,
            said(&output)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Types a claim code, whatever comes of it.
    pub fn try_enrol(&self, code: &str) -> Result<Output> {
        let file = self.dir.join("claim");
        fs::write(&file, code).context("writing the claim code down")?;
        let output = self.agent(&["enrol", "--claim-file", &file.to_string_lossy()]);
        fs::remove_file(&file).context("throwing the claim code away")?;
        output
    }

    /// Types a claim code at the running agent, which asks until it has a lease.
    pub fn keep_asking(&self, code: &str) -> Result<Running> {
        let file = self.dir.join("code");
        fs::write(&file, code).context("writing the claim code down")?;
        let config = self.config();
        let claim = ["enrol".as_ref(), "--claim-file".as_ref(), file.as_os_str()];
        let args = [&claim[..], &["--config".as_ref(), config.as_os_str()]].concat();
        self.netns.spawn("asks", &self.program, &args)
    }

    /// Runs another verb of the agent on this router's configuration.
    pub fn agent(&self, args: &[&str]) -> Result<Output> {
        let program = self.program.to_string_lossy();
        let config = self.config();
        let config = config.to_string_lossy();
        self.netns
            .output(&[&[program.as_ref()], args, &["--config", config.as_ref()]].concat())
    }

    /// The command line of `run`, for a shell that prepares something first.
    pub fn run_line(&self) -> String {
        format!(
            "{} run --config {}",
            self.program.display(),
            self.config().display()
        )
    }

    /// What `cpe-agent status --json` says.
    pub fn status(&self) -> Result<Value> {
        let output = self.agent(&["status", "--json"])?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("`cpe-agent status --json`: {}", said(&output)))
    }

    /// Waits until the agent says that it protects.
    pub fn wait_protected(&self, within: Duration) -> Result<Value> {
        self.wait_state("protected", within)
    }

    /// Waits until the agent says that it is in a state.
    pub fn wait_state(&self, state: &str, within: Duration) -> Result<Value> {
        wait_until(&format!("the router is {state}"), within, || {
            let status = self.status()?;
            ensure!(status["state"] == state, "it says {status}");
            Ok(Some(status))
        })
    }

    /// Changes the agent's configuration.
    pub fn edit_config(&self, edit: impl FnOnce(String) -> String) -> Result<()> {
        let text =
            fs::read_to_string(self.config()).context("reading the agent's configuration")?;
        fs::write(self.config(), edit(text)).context("writing the agent's configuration")
    }

    /// The folder of the image.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn configuration(&self, office: &Office, image: &Image) -> Result<String> {
        Ok(format!(
            r#"state-dir = "{dir}/state"
trust-policy = "{dir}/trust.policy"
kill-switch = {kill_switch}
user = "nobody"
status-socket = "{dir}/agent.sock"

[provisioning]
url = "{url}"
spki-sha256 = ["{spki}"]

[wan]
interface = "wan0"

[lan]
interfaces = ["lan0"]
dns-listen = ["{ROUTER_LAN}:53", "[{ROUTER_LAN_V6}]:53"]

[tunnel]
interface = "culvert0"
mtu = 1420
keepalive-s = 25
"#,
            dir = self.dir.display(),
            kill_switch = !image.open,
            url = image.url.clone().unwrap_or_else(|| office.url()),
            spki = office.spki()?,
        ))
    }
}
