//! Witnesses of other people, made and run as `docs/witness.md` says; one of another hand.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::office::Office;
use crate::peers::Peers;
use crate::process::Running;
use crate::programs::Programs;
use crate::topology::Lab;

const START: Duration = Duration::from_secs(15);

/// A witness in the office's network; it runs while the value of [`Witness::start`] lives.
#[derive(Debug, Clone)]
pub struct Witness {
    netns: Netns,
    program: PathBuf,
    dir: PathBuf,
    name: String,
    listen: String,
    vkey: String,
}

impl Witness {
    /// Makes its key.
    pub fn init(lab: &Lab, programs: &Programs, (name, port): (&str, u16)) -> Result<Self> {
        let dir = lab.folder(&format!("witness-{name}"))?;
        let program = programs.provisioning();
        let (binary, folder) = (program.to_string_lossy(), dir.to_string_lossy());
        let init = ["witness", "init", "--dir", &folder, "--name"];
        let argv = [&[binary.as_ref()], &init[..], &[name]].concat();
        Ok(Self {
            netns: lab.office.clone(),
            vkey: lab.office.run(&argv)?.trim().to_owned(),
            program,
            dir,
            name: name.to_owned(),
            listen: format!("127.0.0.1:{port}"),
        })
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The line of a policy that names it.
    pub fn line(&self) -> String {
        let (name, vkey, listen) = (&self.name, &self.vkey, &self.listen);
        format!("witness {name} {vkey} http://{listen}\n")
    }

    /// Takes the keys of an office's logs.
    pub fn learn(&self, office: &Office) -> Result<()> {
        let keys = office.cli(&["log", "keys"])?;
        fs::write(self.dir.join("logs"), keys).context("telling a witness of the logs")
    }

    /// Starts it and waits until it answers.
    pub fn start(&self) -> Result<Running> {
        let dir = self.dir.to_string_lossy();
        let args = ["witness", "serve", "--dir", &dir, "--listen", &self.listen];
        let label = format!("witness-{}", self.name);
        let mut witness = self
            .netns
            .spawn(&label, &self.program, &args.map(OsStr::new))?;
        wait_for_answer(&mut witness, &self.netns, &self.listen)?;
        Ok(witness)
    }
}

/// Sigsum's witness, in a network of ours.
#[derive(Debug)]
pub struct SigsumWitness {
    netns: Netns,
    listen: String,
    vkey: String,
    _running: Running,
}

impl SigsumWitness {
    /// Starts it for the log with this key, as a line of OpenSSH has it.
    pub fn start(lab: &Lab, peers: &Peers, log_key: &str) -> Result<Self> {
        let dir = lab.folder("sigsum-witness")?;
        let key_tool = peers.sigsum("sigsum-key")?;
        fs::write(dir.join("log.pub"), log_key).context("writing the log's key")?;
        let script = "cd \"$2\"; \"$1\" generate -o key; \"$1\" to-vkey -k key.pub -t cosignature/v1 \
             -n \"sigsum.org/v1/witness/$(\"$1\" to-hash -k key.pub)\"";
        let (tool, folder) = (key_tool.to_string_lossy(), dir.to_string_lossy());
        let argv = ["sh", "-ec", script, "sh", &tool, &folder];
        let vkey = lab.office.run(&argv)?.trim().to_owned();
        let listen = "127.0.0.1:8611".to_owned();
        let path = |name: &str| dir.join(name).display().to_string();
        let (key, log, state) = (path("key"), path("log.pub"), path("state"));
        let args = [
            "-k",
            &key,
            "--log-key",
            &log,
            "--state-file",
            &state,
            &listen,
        ];
        let program = peers.sigsum("sigsum-witness")?;
        let mut running = lab
            .office
            .spawn("sigsum-witness", &program, &args.map(OsStr::new))?;
        wait_for_answer(&mut running, &lab.office, &listen)?;
        Ok(Self {
            netns: lab.office.clone(),
            listen,
            vkey,
            _running: running,
        })
    }

    /// What verifies its cosignatures.
    pub fn vkey(&self) -> &str {
        &self.vkey
    }

    /// Sends it a request with curl; gives the status and the body.
    pub fn ask(&self, request: &str) -> Result<(u16, String)> {
        let url = format!("http://{}/add-checkpoint", self.listen);
        let format = "\\n%{http_code}";
        let argv = ["curl", "-s", "--max-time", "10", "-w", format];
        let argv = [&argv[..], &["--data-binary", request, &url]].concat();
        let said = self.netns.run(&argv)?;
        let (body, status) = said.rsplit_once('\n').context("curl gave no status")?;
        let status = status.trim().parse().context("curl gave no status")?;
        Ok((status, body.to_owned()))
    }
}

fn wait_for_answer(running: &mut Running, netns: &Netns, listen: &str) -> Result<()> {
    let url = format!("http://{listen}/");
    running.wait_ready("answers", START, || {
        let asked = ["curl", "-s", "-o", "/dev/null", "--max-time", "2", &url];
        let output = netns.output(&asked)?;
        Ok(output.status.success().then_some(()))
    })
}
