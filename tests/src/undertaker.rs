//! Takes a lab down, whatever became of its owner.
//!
//! A small shell waits on a pipe from the owner. The pipe closes when the lab is dropped, and also when the owner
//! panics, is interrupted or is killed; then the shell ends every process inside the lab's namespaces, removes the
//! namespaces and the work folder. What a shell that was itself killed left behind is swept by the next lab.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

const REGISTRY: &str = "/run/culvert-lab";

/// The waiting shell.
#[derive(Debug)]
pub(crate) struct Undertaker {
    shell: Child,
    script: PathBuf,
}

impl Undertaker {
    /// Registers a lab and starts its shell. Nothing of the lab may exist before this.
    pub(crate) fn appoint(prefix: &str, namespaces: &[String], work: &Path) -> Result<Self> {
        let dir = Path::new(REGISTRY).join(prefix);
        fs::create_dir_all(&dir)
            .with_context(|| format!("creating {} (are you root?)", dir.display()))?;
        let script = dir.join("remove.sh");
        fs::write(&script, removal(&dir, namespaces, work))
            .context("writing the removal script")?;
        fs::write(dir.join("owner"), identity(std::process::id())?)
            .context("writing the lab's owner")?;
        let shell = Command::new("sh")
            .arg(&script)
            .arg("when-closed")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting the shell that takes the lab down")?;
        Ok(Self { shell, script })
    }

    /// The command that takes a kept lab down by hand.
    pub(crate) fn script(&self) -> &Path {
        &self.script
    }

    /// Lets the lab stand after its owner is gone.
    pub(crate) fn dismiss(mut self) -> Result<()> {
        let owner = self.script.with_file_name("owner");
        fs::write(owner, "kept").context("marking the lab as kept")?;
        let mut stdin = self.shell.stdin.take().context("the shell has no stdin")?;
        stdin
            .write_all(b"keep\n")
            .context("telling the shell to leave the lab up")?;
        drop(stdin);
        self.shell.wait().context("waiting for the shell")?;
        Ok(())
    }

    /// Takes the lab down now and waits until it is.
    pub(crate) fn bury(&mut self) -> Result<()> {
        drop(self.shell.stdin.take());
        let status = self
            .shell
            .wait()
            .context("waiting for the lab to be taken down")?;
        ensure!(status.success(), "taking the lab down: {status}");
        Ok(())
    }
}

/// Removes what dead owners left, and a kept lab of the same prefix; refuses while one of that prefix is alive.
pub(crate) fn sweep(prefix: &str) -> Result<()> {
    let Ok(entries) = fs::read_dir(REGISTRY) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let dir = entry.path();
        let owner = fs::read_to_string(dir.join("owner")).unwrap_or_default();
        let same = entry.file_name().to_string_lossy() == prefix;
        if owner == "kept" && !same {
            continue;
        }
        let pid: Option<u32> = owner.split(' ').next().and_then(|p| p.parse().ok());
        if pid
            .and_then(|p| identity(p).ok())
            .is_some_and(|now| now == owner)
        {
            if same {
                bail!(
                    "another lab `{prefix}` is running (process {}); end it first",
                    pid.unwrap_or_default()
                );
            }
            continue;
        }
        let script = dir.join("remove.sh");
        if script.exists() {
            Command::new("sh")
                .arg(&script)
                .status()
                .context("sweeping a dead lab")?;
        }
    }
    Ok(())
}

/// A pid with its start time, since pids come back.
fn identity(pid: u32) -> Result<String> {
    let stat =
        fs::read_to_string(format!("/proc/{pid}/stat")).context("reading a process's start")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let start = after_name
        .split_whitespace()
        .nth(19)
        .context("a process without a start time")?;
    Ok(format!("{pid} {start}"))
}

fn removal(dir: &Path, namespaces: &[String], work: &Path) -> String {
    format!(
        r#"# Takes down one Culvert lab; run it by hand for a lab that was kept.
if [ "$1" = when-closed ]; then
    trap '' INT TERM HUP
    read -r word
    [ "$word" = keep ] && exit 0
fi
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
for ns in {names}; do
    [ -e /run/netns/$ns ] || continue
    for round in 1 2 3 4 5; do
        pids=$(ip netns pids $ns 2>/dev/null)
        [ -n "$pids" ] || break
        kill -9 $pids 2>/dev/null
        sleep 0.05
    done
    ip netns del $ns
    rm -rf /etc/netns/$ns
done
rmdir /etc/netns 2>/dev/null
rm -rf '{work}' '{dir}'
rmdir {REGISTRY} 2>/dev/null
exit 0
"#,
        names = namespaces.join(" "),
        work = work.display(),
        dir = dir.display(),
    )
}
