//! Programs of other hands that Debian 12 does not carry, fetched or built once under `target/peers`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::kernel_image::{self, KernelImage};
use crate::netns::said;
use crate::programs::Programs;

const DNSCRYPT_PROXY: &str = "2.1.18";
/// The last one without post-quantum certificates, which Debian trixie carries.
const DNSCRYPT_PROXY_TRIXIE: &str = "2.1.8";
const ENCRYPTED_DNS: &str = "0.9.22";
const DNSMASQ: &str = "2.90";
/// Trixie's package, whose program still calls itself v0.0.20230223.
const WIREGUARD_GO_TRIXIE: &str = "0.0.20231211-1+b9";
const WIREGUARD_GO_FORKY: &str = "0.0.20260522-1";
/// Debian 12's, which Debian 12's QEMU can run.
const KERNEL_SUITE: &str = "bookworm";
const KERNEL: &str = "linux-image-cloud-amd64";
const SIGSUM: &str = "0.14.1-2";
const BORINGTUN: &str = "0.7.1";
const AIOQUIC: &str = "1.7.2";
const SCHEMATHESIS: &str = "4.32.5";
const CBOR2: &str = "5.7.1";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A Debian after the one that we run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// Debian 13.
    Trixie,
    /// Debian 14.
    Forky,
}

impl Suite {
    fn name(self) -> &'static str {
        match self {
            Self::Trixie => "trixie",
            Self::Forky => "forky",
        }
    }

    /// The version of its dnscrypt-proxy.
    pub fn dnscrypt_proxy(self) -> &'static str {
        match self {
            Self::Trixie => DNSCRYPT_PROXY_TRIXIE,
            Self::Forky => DNSCRYPT_PROXY,
        }
    }

    /// The version of its wireguard-go.
    pub fn wireguard_go(self) -> &'static str {
        match self {
            Self::Trixie => WIREGUARD_GO_TRIXIE,
            Self::Forky => WIREGUARD_GO_FORKY,
        }
    }
}

/// The cache of foreign programs.
#[derive(Debug, Clone)]
pub struct Peers {
    dir: PathBuf,
}

impl Peers {
    /// The cache in this build's target folder.
    pub fn of_this_build() -> Result<Self> {
        let dir = Programs::of_this_build()?.target().join("peers");
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// Fetches and builds everything ahead of the tests, telling `say` what takes long.
    pub fn prepare(&self, say: &dyn Fn(&str)) -> Result<()> {
        for suite in [Suite::Forky, Suite::Trixie] {
            if !self.dnscrypt_proxy_path(suite).exists() {
                say(&format!(
                    "fetching dnscrypt-proxy {} from Debian {}: DNSCrypt client to test against",
                    suite.dnscrypt_proxy(),
                    suite.name()
                ));
            }
            self.dnscrypt_proxy_of(suite)?;
        }
        if !self.encrypted_dns_path().exists() {
            say(&format!(
                "building encrypted-dns {ENCRYPTED_DNS}: DNSCrypt server to test against (some minutes)"
            ));
        }
        self.encrypted_dns()?;
        if !self.dir.join("forky/usr/bin/sigsum-witness").exists() {
            say(&format!(
                "fetching sigsum-go {SIGSUM} from Debian forky: a witness of logs to test against"
            ));
        }
        self.sigsum("sigsum-witness")?;
        say(&format!(
            "fetching aioquic {AIOQUIC} from PyPI where it is not there: HTTP/3 to test against"
        ));
        self.aioquic()?;
        say(&format!(
            "fetching schemathesis {SCHEMATHESIS} from PyPI where it is not there: a judge of HTTP servers and what describes them"
        ));
        self.schemathesis()?;
        if !self.kernel_dir().exists() {
            say(
                "fetching Debian's kernel for virtual machines: Linux's own WireGuard to test against",
            );
        }
        self.kernel()?;
        self.prepare_wireguard_go(say)
    }

    /// Debian's own kernel for virtual machines, with a file system that makes it a WireGuard machine.
    pub fn kernel(&self) -> Result<KernelImage> {
        let _alone = self.lock()?;
        let dir = self.kernel_dir();
        let image = |dir: &Path| KernelImage {
            kernel: dir.join("vmlinuz"),
            initramfs: dir.join("initramfs"),
        };
        if !dir.exists() {
            let made = tempfile::tempdir_in(&self.dir).context("making a folder")?;
            self.make_kernel(made.path(), &image(made.path()))?;
            fs::rename(made.keep(), &dir).context("putting the kernel in its place")?;
        }
        Ok(image(&dir))
    }

    /// dnscrypt-proxy, the Go client, from Debian forky.
    pub fn dnscrypt_proxy(&self) -> Result<PathBuf> {
        self.dnscrypt_proxy_of(Suite::Forky)
    }

    /// The same of another Debian.
    pub fn dnscrypt_proxy_of(&self, suite: Suite) -> Result<PathBuf> {
        let path = self.dnscrypt_proxy_path(suite);
        let _alone = self.lock()?;
        if !path.exists() {
            self.unpack(suite.name(), "dnscrypt-proxy")?;
        }
        let version = run(Command::new(&path).arg("-version"))?;
        ensure!(
            version.trim() == suite.dnscrypt_proxy(),
            "{} is version {}, and {} is wanted; Debian {} has moved on",
            path.display(),
            version.trim(),
            suite.dnscrypt_proxy(),
            suite.name()
        );
        Ok(path)
    }

    /// encrypted-dns, the Rust server, built from its release.
    pub fn encrypted_dns(&self) -> Result<PathBuf> {
        let path = self.encrypted_dns_path();
        let _alone = self.lock()?;
        if !path.exists() {
            self.install("encrypted-dns", ENCRYPTED_DNS)?;
        }
        Ok(path)
    }

    /// Fetches and builds what the benches of the tunnel compare with.
    pub fn prepare_tunnels(&self, say: &dyn Fn(&str)) -> Result<()> {
        self.prepare_wireguard_go(say)?;
        if !self.boringtun_path().exists() {
            say(&format!(
                "building boringtun-cli {BORINGTUN}: tunnel to compare with (a minute)"
            ));
        }
        self.boringtun()?;
        Ok(())
    }

    /// Fetches and builds what the bench of lookups compares with.
    pub fn prepare_dns(&self, say: &dyn Fn(&str)) -> Result<()> {
        if !self.encrypted_dns_path().exists() {
            say(&format!(
                "building encrypted-dns {ENCRYPTED_DNS}: DNSCrypt server to compare with (some minutes)"
            ));
        }
        self.encrypted_dns()?;
        if !self.dnscrypt_proxy_path(Suite::Forky).exists() || !self.dnsmasq_path().exists() {
            say(&format!(
                "fetching dnscrypt-proxy {DNSCRYPT_PROXY} and dnsmasq {DNSMASQ}: stubs to compare with"
            ));
        }
        self.dnscrypt_proxy()?;
        self.dnsmasq()?;
        Ok(())
    }

    /// dnsmasq, the plain stub of most home routers, of Debian bookworm; it is not installed, for it would want port 53.
    pub fn dnsmasq(&self) -> Result<PathBuf> {
        let path = self.dnsmasq_path();
        let _alone = self.lock()?;
        if !path.exists() {
            self.unpack("bookworm", "dnsmasq-base")?;
        }
        let version = run(Command::new(&path).arg("--version"))?;
        ensure!(
            version.contains(&format!("version {DNSMASQ}")),
            "{} is another version than {DNSMASQ}",
            path.display()
        );
        Ok(path)
    }

    fn prepare_wireguard_go(&self, say: &dyn Fn(&str)) -> Result<()> {
        for suite in [Suite::Trixie, Suite::Forky] {
            if !self.wireguard_go_path(suite).exists() {
                say(&format!(
                    "fetching wireguard-go {} from Debian {}: the tunnel with offloads",
                    suite.wireguard_go(),
                    suite.name()
                ));
            }
            self.wireguard_go(suite)?;
        }
        Ok(())
    }

    /// wireguard-go with UDP and TUN offloads, of a later Debian.
    pub fn wireguard_go(&self, suite: Suite) -> Result<PathBuf> {
        let path = self.wireguard_go_path(suite);
        let _alone = self.lock()?;
        if !path.exists() {
            self.unpack(suite.name(), "wireguard-go")?;
        }
        let package = deb_in(
            &self.dir.join(format!("apt-{}", suite.name())),
            "wireguard-go",
        )?;
        ensure!(
            package.to_string_lossy().contains(suite.wireguard_go()),
            "{} is another version than {}; Debian {} has moved on",
            package.display(),
            suite.wireguard_go(),
            suite.name()
        );
        Ok(path)
    }

    /// A program of Sigsum's, of Debian forky: a witness of another hand.
    pub fn sigsum(&self, program: &str) -> Result<PathBuf> {
        let path = self.dir.join("forky/usr/bin").join(program);
        let _alone = self.lock()?;
        if !path.exists() {
            self.unpack("forky", "sigsum-go")?;
        }
        let package = deb_in(&self.dir.join("apt-forky"), "sigsum-go")?;
        ensure!(
            package.to_string_lossy().contains(SIGSUM),
            "{} is another version than {SIGSUM}; Debian forky has moved on",
            package.display()
        );
        Ok(path)
    }

    /// boringtun-cli, built from its release.
    pub fn boringtun(&self) -> Result<PathBuf> {
        let path = self.boringtun_path();
        let _alone = self.lock()?;
        if !path.exists() {
            self.install("boringtun-cli", BORINGTUN)?;
        }
        Ok(path)
    }

    /// aioquic, the Python QUIC and HTTP/3, from PyPI: the folder to import from.
    pub fn aioquic(&self) -> Result<PathBuf> {
        let packages = [("aioquic", AIOQUIC)];
        self.python(&packages, "aioquic/__init__.py")
    }

    /// schemathesis, which holds a server to its OpenAPI document, and a reader of CBOR, from PyPI: the folder to import from.
    pub fn schemathesis(&self) -> Result<PathBuf> {
        let packages = [("schemathesis", SCHEMATHESIS), ("cbor2", CBOR2)];
        self.python(&packages, "schemathesis/__init__.py")
    }

    /// Packages of PyPI in a folder of their own, named after the first of them.
    fn python(&self, packages: &[(&str, &str)], proof: &str) -> Result<PathBuf> {
        let wanted = packages.iter();
        let wanted: Vec<_> = wanted.map(|(name, v)| format!("{name}=={v}")).collect();
        let (name, version) = packages.first().context("no package")?;
        let path = self.dir.join(format!("{name}-{version}"));
        let _alone = self.lock()?;
        if !path.join(proof).exists() {
            run(Command::new("/usr/bin/python3")
                .args(["-m", "pip", "install", "--quiet", "--only-binary=:all:"])
                .args([
                    "--root-user-action=ignore",
                    "--disable-pip-version-check",
                    "--target",
                ])
                .arg(&path)
                .args(wanted))?;
        }
        Ok(path)
    }

    fn unpack(&self, suite: &str, package: &str) -> Result<()> {
        let apt = PrivateApt::new(&self.dir.join(format!("apt-{suite}")), suite)?;
        let file = apt.download(package)?;
        let root = self.dir.join(suite);
        run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&root)).map(drop)
    }

    fn make_kernel(&self, dir: &Path, image: &KernelImage) -> Result<()> {
        let apt = PrivateApt::new(&self.dir.join(format!("apt-{KERNEL_SUITE}")), KERNEL_SUITE)?;
        // The package of this name only depends on the newest kernel's.
        let depends = run(apt.command("apt-cache").args(["depends", KERNEL]))?;
        let package = depends
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: "))
            .with_context(|| format!("{KERNEL} of Debian {KERNEL_SUITE} names no kernel"))?;
        let root = tempfile::tempdir_in(dir).context("making a folder")?;
        let root = root.path();
        let file = apt.download(package)?;
        run(Command::new("dpkg-deb").arg("-x").arg(&file).arg(root))?;
        let version = package.trim_start_matches("linux-image-");
        run(Command::new("busybox")
            .args(["depmod", "-b"])
            .arg(root)
            .arg(version))?;
        let boot = root.join("boot").join(format!("vmlinuz-{version}"));
        fs::copy(boot, &image.kernel).context("copying the kernel")?;
        let modules = root.join("lib/modules").join(version);
        fs::write(&image.initramfs, kernel_image::pack(&modules)?)
            .context("writing the machine's file system")?;
        fs::remove_file(file).context("removing the kernel's package")
    }

    fn kernel_dir(&self) -> PathBuf {
        self.dir.join("kernel")
    }

    fn install(&self, name: &str, version: &str) -> Result<()> {
        let build = self.dir.join("build");
        run(Command::new("cargo")
            .args(["install", "--locked", "--version", version, "--root"])
            .arg(&self.dir)
            .arg(name)
            .env("CARGO_TARGET_DIR", &build)
            .current_dir("/"))?;
        fs::remove_dir_all(&build).context("removing a finished build")
    }

    fn dnscrypt_proxy_path(&self, suite: Suite) -> PathBuf {
        self.dir.join(suite.name()).join("usr/sbin/dnscrypt-proxy")
    }

    fn dnsmasq_path(&self) -> PathBuf {
        self.dir.join("bookworm/usr/sbin/dnsmasq")
    }

    fn encrypted_dns_path(&self) -> PathBuf {
        self.dir.join("bin/encrypted-dns")
    }

    fn wireguard_go_path(&self, suite: Suite) -> PathBuf {
        self.dir.join(suite.name()).join("usr/bin/wireguard-go")
    }

    fn boringtun_path(&self) -> PathBuf {
        self.dir.join("bin/boringtun-cli")
    }

    /// Two test programs may want the same peer at once.
    fn lock(&self) -> Result<File> {
        let file = File::create(self.dir.join("lock")).context("creating the cache's lock")?;
        file.lock().context("waiting for the cache's lock")?;
        Ok(file)
    }
}

/// An apt state of our own, so that the system's package lists stay as they are.
struct PrivateApt {
    dir: PathBuf,
}

impl PrivateApt {
    fn new(dir: &Path, suite: &str) -> Result<Self> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(folder)).context("creating a private apt state")?;
        }
        let uri = archive()?;
        fs::write(
            dir.join("sources.list"),
            format!("deb [signed-by={KEYRING}] {uri} {suite} main\n"),
        )
        .context("writing a private sources.list")?;
        let apt = Self {
            dir: dir.to_owned(),
        };
        run(apt.get().arg("update"))?;
        Ok(apt)
    }

    fn download(&self, package: &str) -> Result<PathBuf> {
        run(self.get().args(["download", package]))?;
        deb_in(&self.dir, package)
    }

    fn get(&self) -> Command {
        let mut command = self.command("apt-get");
        command.arg("-q");
        command
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, value) in [
            ("Dir::Etc::sourcelist", self.dir.join("sources.list")),
            ("Dir::Etc::sourceparts", "-".into()),
            ("Dir::State::lists", self.dir.join("lists")),
            ("Dir::Cache", self.dir.join("cache")),
            ("Dir::State::status", "/dev/null".into()),
            ("APT::Sandbox::User", "root".into()),
        ] {
            command
                .arg("-o")
                .arg(format!("{option}={}", value.display()));
        }
        command.current_dir(&self.dir);
        command
    }
}

/// A package that was downloaded into a folder.
fn deb_in(dir: &Path, package: &str) -> Result<PathBuf> {
    fs::read_dir(dir)
        .context("listing a private apt state")?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&format!("{package}_")) && name.ends_with(".deb")
        })
        .with_context(|| format!("{package} was not downloaded into {}", dir.display()))
}

/// Where the system itself gets Debian from.
fn archive() -> Result<String> {
    let targets = run(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(LABEL) $(CODENAME) $(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    targets
        .lines()
        .find_map(|line| line.strip_prefix("Debian bookworm "))
        .map(str::to_owned)
        .context("the system's own apt sources do not name Debian bookworm; run `apt-get update`")
}

fn run(command: &mut Command) -> Result<String> {
    let words = format!("{command:?}");
    let output = command
        .output()
        .with_context(|| format!("starting {words}"))?;
    ensure!(output.status.success(), "{words}: {}", said(&output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
