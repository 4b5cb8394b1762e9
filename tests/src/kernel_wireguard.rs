//! Linux's own WireGuard, in a machine of its own behind a TAP device of a namespace: the running kernel need have none.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::kernel_image::{HOST, KernelImage, MACHINE, SHELL_PORT};
use crate::netns::Netns;
use crate::process::Running;
use crate::wireguard_go::{WgKey, WgPeer, configuration};

/// QEMU emulates the processor: some seconds on an idle machine, half a minute on one that is busy with tests.
const BOOT: Duration = Duration::from_secs(150);
/// No command of a test may take longer.
const COMMAND: Duration = Duration::from_secs(90);
/// The machine is beside its namespace; it answers at once, or not yet.
const REACH: Duration = Duration::from_secs(1);
const TAP: &str = "vm0";
/// A processor without AVX, ADX and the like: what is emulated gains nothing by them, and QEMU 7.2 gets ADX wrong.
const CPU: &str = "Nehalem,+rdrand";
const KERNEL_LINE: &str = "console=ttyS0 quiet panic=-1 no_timer_check mitigations=off";

/// A machine with Debian's kernel; it ends with the value.
#[derive(Debug)]
pub struct KernelWireGuard {
    netns: Netns,
    process: Running,
}

/// What the machine's kernel counted since it booted.
#[derive(Debug, Clone, Copy)]
pub struct KernelCounters {
    /// Packets that the IPv4 layer took in, where joined ones are one.
    pub ip_received: u64,
    /// Packets that the IPv4 layer was given by this machine's programs and by WireGuard, where those not yet cut are one.
    pub ip_sent: u64,
    /// Packets that the IPv4 layer passed on.
    pub ip_forwarded: u64,
    /// Packets that WireGuard opened.
    pub opened: u64,
    /// Packets that WireGuard sealed.
    pub sealed: u64,
}

impl KernelCounters {
    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            ip_received: self.ip_received - earlier.ip_received,
            ip_sent: self.ip_sent - earlier.ip_sent,
            ip_forwarded: self.ip_forwarded - earlier.ip_forwarded,
            opened: self.opened - earlier.opened,
            sealed: self.sealed - earlier.sealed,
        }
    }
}

impl KernelWireGuard {
    /// Switches the machine on; it boots while the test does something else.
    pub fn switch_on(netns: &Netns, image: &KernelImage) -> Result<Self> {
        netns.run(&["ip", "tuntap", "add", TAP, "mode", "tap", "vnet_hdr"])?;
        netns.run(&["ip", "addr", "add", &format!("{HOST}/30"), "dev", TAP])?;
        netns.run(&["ip", "link", "set", TAP, "up"])?;
        let nic = format!("tap,id=nic,ifname={TAP},script=no,downscript=no,vhost=off");
        let mut command = netns.command("qemu-system-x86_64");
        command
            .args(["-M", "q35", "-accel", "tcg", "-cpu", CPU, "-m", "256"])
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .args(["-display", "none"])
            .arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&image.initramfs)
            .args(["-append", KERNEL_LINE])
            .args(["-chardev", "stdio,id=console,signal=off"])
            .args(["-serial", "chardev:console", "-netdev", &nic])
            .args(["-device", "virtio-net-pci,netdev=nic,romfile="]);
        Ok(Self {
            netns: netns.clone(),
            process: netns.spawn_command("kernel-wireguard", command)?,
        })
    }

    /// Sends what leaves the machine out of an interface of its namespace, under that interface's address.
    pub fn behind(&self, interface: &str) -> Result<()> {
        self.nat(&format!(
            "chain out {{ type nat hook postrouting priority 100; oifname {interface} ip saddr {MACHINE} masquerade; }}"
        ))
    }

    /// Hands the machine what comes in by an interface of its namespace for a UDP port.
    pub fn serving(&self, interface: &str, port: u16) -> Result<()> {
        self.nat(&format!(
            "chain in {{ type nat hook prerouting priority -100; iifname {interface} udp dport {port} dnat to {MACHINE}; }}"
        ))
    }

    /// Has the namespace reach a network through the machine.
    pub fn route(&self, network: &str) -> Result<()> {
        let words = ["ip", "route", "replace", network, "via", MACHINE];
        self.netns.run(&words).map(drop)
    }

    /// Waits until the machine has booted, and makes its WireGuard interface with keys, peers, addresses and routes.
    pub fn configure(
        &mut self,
        key: &WgKey,
        port: u16,
        addresses: &[&str],
        peers: &[WgPeer],
    ) -> Result<()> {
        let netns = self.netns.clone();
        self.process.wait_ready("has booted", BOOT, || {
            netns.enter(|| shell("true")).map(Some)
        })?;
        let configuration = configuration(key, port, peers);
        let mut script = format!("set -e\ncat > /tmp/wg.conf <<'END'\n{configuration}END\n");
        script += "ip link add wg0 type wireguard\nwg setconf wg0 /tmp/wg.conf\n";
        for address in addresses {
            script += &format!("ip addr add {address} dev wg0\n");
        }
        script += "ip link set wg0 mtu 1420 up\n";
        for network in peers.iter().flat_map(|peer| &peer.allowed) {
            script += &format!("ip {} route replace {network} dev wg0\n", family(network));
        }
        self.run(&script).map(drop)
    }

    /// Runs a script in the machine; it must succeed.
    pub fn run(&self, script: &str) -> Result<String> {
        let said = self
            .netns
            .enter(|| shell(script))
            .with_context(|| format!("in the machine: {script}"))?;
        let (said, status) = said.rsplit_once("status ").with_context(|| {
            format!(
                "the machine's shell broke off: {said}\n{}",
                self.process.log_tail()
            )
        })?;
        ensure!(
            status.trim() == "0",
            "in the machine: {script}: status {}: {said}",
            status.trim()
        );
        Ok(said.to_owned())
    }

    /// Seconds since 1970, by the machine's clock, of the newest handshake with a peer; 0 is never.
    pub fn latest_handshake(&self, public: &str) -> Result<u64> {
        let table = self.run("wg show wg0 latest-handshakes")?;
        table
            .lines()
            .find_map(|line| line.strip_prefix(public))
            .context("the machine does not know the peer")?
            .trim()
            .parse()
            .context("a time that is no number")
    }

    /// What the kernel counted up to this moment.
    pub fn counters(&self) -> Result<KernelCounters> {
        let said = self.run(
            "cat /sys/class/net/wg0/statistics/rx_packets /sys/class/net/wg0/statistics/tx_packets\ngrep ^Ip: /proc/net/snmp",
        )?;
        let mut lines = said.lines();
        let mut next = || lines.next().context("a counter is missing");
        let [opened, sealed] = [next()?, next()?].map(str::parse::<u64>);
        let names = next()?.split(' ');
        let table: Vec<_> = names.zip(next()?.split(' ')).collect();
        let figure = |wanted: &str| -> Result<u64> {
            let (_, figure) = table
                .iter()
                .find(|(name, _)| *name == wanted)
                .with_context(|| format!("the kernel does not count {wanted}"))?;
            figure.parse().context("a counter that is no number")
        };
        Ok(KernelCounters {
            ip_received: figure("InReceives")?,
            ip_sent: figure("OutRequests")?,
            ip_forwarded: figure("ForwDatagrams")?,
            opened: opened.context("a counter that is no number")?,
            sealed: sealed.context("a counter that is no number")?,
        })
    }

    fn nat(&self, chain: &str) -> Result<()> {
        let table = format!("table ip machine {{\n{chain}\n}}\n");
        self.netns.run(&["nft", &table]).map(drop)
    }
}

fn family(network: &str) -> &'static str {
    if network.contains(':') { "-6" } else { "-4" }
}

fn shell(script: &str) -> Result<String> {
    let machine = SocketAddr::new(MACHINE.parse().context("an address")?, SHELL_PORT);
    let mut shell = TcpStream::connect_timeout(&machine, REACH).context("reaching its shell")?;
    shell
        .set_read_timeout(Some(COMMAND))
        .context("bounding the wait")?;
    write!(shell, "( {script}\n) 2>&1\necho \"status $?\"\n").context("asking its shell")?;
    shell
        .shutdown(Shutdown::Write)
        .context("ending what its shell reads")?;
    let mut said = String::new();
    shell
        .read_to_string(&mut said)
        .context("hearing its shell")?;
    Ok(said)
}
