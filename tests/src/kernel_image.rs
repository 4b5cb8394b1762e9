//! Debian's kernel with what it needs to be a WireGuard machine: a root file system in memory, written by us.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// What QEMU boots.
#[derive(Debug, Clone)]
pub struct KernelImage {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its first and only file system.
    pub initramfs: PathBuf,
}

/// What the machine's drivers are called; what they depend on is found out.
const DRIVERS: &[&str] = &["virtio_pci", "virtio_net", "wireguard"];
/// The machine's programs and the libraries of `wg`, as they lie on Debian for amd64.
const PROGRAMS: &[(&str, &str)] = &[
    ("/usr/bin/busybox", "bin/busybox"),
    ("/usr/bin/wg", "bin/wg"),
    ("/lib64/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2"),
    ("/lib/x86_64-linux-gnu/libc.so.6", "lib/libc.so.6"),
];
const FOLDERS: &[&str] = &[
    "bin", "dev", "lib", "lib64", "modules", "proc", "sys", "tmp",
];
/// The machine's address beside its namespace.
pub(crate) const MACHINE: &str = "172.31.0.2";
/// The namespace's address beside the machine.
pub(crate) const HOST: &str = "172.31.0.1";
/// Where the machine's shell listens.
pub(crate) const SHELL_PORT: u16 = 7;

/// Packs the file system for the kernel whose modules are under `modules`, with their `modules.dep`.
pub(crate) fn pack(modules: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for name in FOLDERS {
        archive.folder(name)?;
    }
    for (from, to) in PROGRAMS {
        let program = fs::read(from).with_context(|| format!("reading {from}"))?;
        archive.file(to, &program)?;
    }
    for (n, module) in load_order(modules)?.iter().enumerate() {
        let bytes = fs::read(modules.join(module)).with_context(|| format!("reading {module}"))?;
        let name = module.rsplit('/').next().unwrap_or(module);
        archive.file(&format!("modules/{n:02}-{name}"), &bytes)?;
    }
    archive.file("init", init().as_bytes())?;
    archive.finish()
}

fn init() -> String {
    format!(
        r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module; done
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip link set lo up
ip addr add {MACHINE}/30 dev eth0
ip link set eth0 up
ip route add default via {HOST}
exec nc -ll -p {SHELL_PORT} -e /bin/sh
"#
    )
}

/// The drivers and what they depend on, each after what it depends on.
fn load_order(modules: &Path) -> Result<Vec<String>> {
    let table =
        fs::read_to_string(modules.join("modules.dep")).context("reading the modules' table")?;
    let mut order: Vec<String> = Vec::new();
    for driver in DRIVERS {
        let line = table
            .lines()
            .find(|line| {
                let module = line.split(':').next().unwrap_or_default();
                module.ends_with(&format!("/{driver}.ko"))
            })
            .with_context(|| format!("the kernel has no module {driver}"))?;
        // A line names the module, then what it needs, the deepest last.
        for module in line.replace(':', "").split_whitespace().rev() {
            if !order.iter().any(|known| known == module) {
                order.push(module.to_owned());
            }
        }
    }
    Ok(order)
}

/// A file system as the kernel unpacks it: the "new ASCII format" of cpio, see cpio(5).
#[derive(Debug, Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn folder(&mut self, name: &str) -> Result<()> {
        self.entry(name, 0o040_755, &[])
    }

    fn file(&mut self, name: &str, data: &[u8]) -> Result<()> {
        self.entry(name, 0o100_755, data)
    }

    fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) -> Result<()> {
        self.entries += 1;
        let size = u32::try_from(data.len()).context("a file of more than 4 GB")?;
        let name_size = u32::try_from(name.len() + 1).context("a name of more than 4 GB")?;
        let inode = self.entries;
        // Inode, mode, owner, group, links, time, size, four device numbers, length of the name, checksum.
        let fields = [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            write!(self.bytes, "{field:08x}").context("writing a header")?;
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(data);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_driver_that_the_kernel_lacks_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("modules.dep"), "kernel/a.ko:\n").unwrap();

        let error = load_order(dir.path()).unwrap_err();

        assert!(error.to_string().contains("virtio_pci"), "{error}");
    }

    #[test]
    fn a_module_is_loaded_once_and_after_what_it_depends_on() {
        let dir = tempfile::tempdir().unwrap();
        let table = "k/wireguard.ko: k/udp_tunnel.ko k/ring.ko\nk/virtio_net.ko: k/ring.ko\nk/virtio_pci.ko: k/ring.ko\n";
        fs::write(dir.path().join("modules.dep"), table).unwrap();

        let order = load_order(dir.path()).unwrap();

        assert_eq!(
            order,
            [
                "k/ring.ko",
                "k/virtio_pci.ko",
                "k/virtio_net.ko",
                "k/udp_tunnel.ko",
                "k/wireguard.ko"
            ]
        );
    }

    #[test]
    fn cpio_of_another_hand_lists_and_reads_the_archive() {
        let mut archive = Archive::default();
        archive.folder("bin").unwrap();
        archive.file("bin/odd", b"five!").unwrap();
        archive.file("init", b"#!\n").unwrap();
        let mut cpio = Command::new("busybox")
            .args(["cpio", "-i", "--to-stdout", "bin/odd"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();

        let bytes = archive.finish().unwrap();
        cpio.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = cpio.wait_with_output().unwrap();

        assert_eq!(output.stdout, b"five!");
    }
}
