//! Where our own binaries are: beside the running xtask or test, as cargo built them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The folder with the four product binaries.
#[derive(Debug, Clone)]
pub struct Programs {
    dir: PathBuf,
}

impl Programs {
    /// Finds the binaries of this build.
    pub fn of_this_build() -> Result<Self> {
        let exe = std::env::current_exe().context("asking for our own path")?;
        let mut dir = exe.parent().context("our own binary has no folder")?;
        if dir.ends_with("deps") {
            dir = dir.parent().context("target folder has no parent")?;
        }
        let programs = Self {
            dir: dir.to_owned(),
        };
        for name in ["cpe-agent", "edge-gateway", "provisioning", "culvert-dns"] {
            let path = programs.path(name);
            ensure!(
                path.exists(),
                "{} is not built; run `cargo build --release` or go through `cargo xtask`",
                path.display()
            );
        }
        Ok(programs)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The router's agent.
    pub fn agent(&self) -> PathBuf {
        self.path("cpe-agent")
    }

    /// The gateway.
    pub fn gateway(&self) -> PathBuf {
        self.path("edge-gateway")
    }

    /// The provisioning server and its command line.
    pub fn provisioning(&self) -> PathBuf {
        self.path("provisioning")
    }

    /// The stand-alone DNSCrypt proxy.
    pub fn dns(&self) -> PathBuf {
        self.path("culvert-dns")
    }

    /// Cargo's target folder, where the programs of other hands are cached.
    pub fn target(&self) -> &Path {
        self.dir.parent().unwrap_or(&self.dir)
    }
}
