//! The text of the packet filter's table `inet culvert`: kill-switch, NAT, MSS clamp, and the way back for marked packets.
//!
//! Written whole and applied in one transaction, so that there is no moment between two versions.

use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;

use super::portal::{self, Window};
use crate::config::{Config, DnsRedirect, InterfaceName, KillSwitch};

/// The table's name; it is ours alone.
pub(super) const TABLE: &str = "culvert";

/// What the table is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose<'a> {
    /// The agent runs; it has these addresses inside the tunnel, and perhaps a window to a captive portal.
    Running(&'a [IpNet], Option<Window>),
    /// The agent does not run, and the kill-switch stays.
    Stopped,
}

/// Writes the table.
pub(super) fn text(config: &Config, mark: u32, purpose: Purpose<'_>) -> String {
    let mut out =
        format!("add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n");
    if config.kill_switch == KillSwitch::On {
        let window = match purpose {
            Purpose::Running(_, window) => window,
            Purpose::Stopped => None,
        };
        let wans = format!("{{ {} }}", names(&config.wans));
        let portal = window.map(|window| portal::rules(&window, &lan_set(config), &wans, mark));
        out.push_str(portal.as_ref().map_or("", |rules| &rules.chains));
        let forward = portal.as_ref().map_or("", |rules| &rules.forward);
        out.push_str(&kill_switch(config, forward, mark));
    }
    if let Purpose::Running(addresses, _) = purpose {
        out.push_str(&guard(config));
        out.push_str(&clamp(&config.tunnel.interface));
        out.push_str(&way_back(config, mark));
        out.push_str(&nat(config, addresses));
    }
    out.push_str("}\n");
    out
}

/// Forwarding: home to tunnel, and answers. From the router itself: whatever carries the agent's mark, and what an
/// access network needs before anything can be sent on it (DHCP, neighbours). Interfaces nobody named count as the WAN.
fn kill_switch(config: &Config, forward: &str, mark: u32) -> String {
    let (lan, tunnel) = (lan_set(config), &config.tunnel.interface);
    format!(
        r#"  chain kill_forward {{
    type filter hook forward priority filter - 10; policy drop;
    iifname {lan} oifname {{ {lan_names}, "{tunnel}" }} accept
    iifname "{tunnel}" oifname {lan} ct state established,related accept
{forward}  }}
  chain kill_output {{
    type filter hook output priority filter - 10; policy drop;
    oifname {{ "lo", {lan_names}, "{tunnel}" }} accept
    meta mark {mark:#x} accept
    udp sport 68 udp dport 67 accept
    udp sport 546 udp dport 547 accept
    icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-report, mld-listener-done, mld2-listener-report }} accept
  }}
"#,
        lan_names = lan_names(config),
    )
}

/// The router's own services are for the home: nothing of them shows in the tunnel, and its resolver not on the WAN.
fn guard(config: &Config) -> String {
    let (lan_names, tunnel) = (lan_names(config), &config.tunnel.interface);
    let mut out = format!(
        r#"  chain guard_input {{
    type filter hook input priority filter - 10; policy accept;
    iifname "{tunnel}" ct state established,related accept
    iifname "{tunnel}" icmp type echo-request limit rate 10/second accept
    iifname "{tunnel}" icmpv6 type echo-request limit rate 10/second accept
    iifname "{tunnel}" drop
"#
    );
    for listen in &config.lan.dns_listen {
        let family = match listen.ip() {
            IpAddr::V4(_) => "ip",
            IpAddr::V6(_) => "ip6",
        };
        let (ip, port) = (listen.ip(), listen.port());
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "    iifname != {{ \"lo\", {lan_names} }} {family} daddr {ip} meta l4proto {{ tcp, udp }} th dport {port} drop"
        );
    }
    out.push_str("  }\n");
    out.push_str(&format!(
        r#"  chain guard_forward {{
    type filter hook forward priority filter - 9; policy accept;
    iifname "{tunnel}" ct state established,related accept
    iifname "{tunnel}" drop
  }}
"#
    ));
    out
}

/// TCP learns the tunnel's size from the handshake: many networks drop the ICMP that would tell it later.
fn clamp(tunnel: &InterfaceName) -> String {
    format!(
        r#"  chain clamp_forward {{
    type filter hook forward priority mangle; policy accept;
    oifname "{tunnel}" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
    iifname "{tunnel}" tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
  }}
"#
    )
}

/// Answers to marked packets get the mark back, so that the kernel's reverse-path check looks in the right table.
fn way_back(config: &Config, mark: u32) -> String {
    let wans = names(&config.wans);
    format!(
        r#"  chain mark_out {{
    type filter hook postrouting priority mangle; policy accept;
    oifname {{ {wans} }} meta mark {mark:#x} ct mark set meta mark
  }}
  chain mark_in {{
    type filter hook prerouting priority mangle; policy accept;
    iifname {{ {wans} }} ct mark {mark:#x} meta mark set ct mark
  }}
"#
    )
}

/// Source NAT to the lease's addresses by name, not by interface: the kernel forgets masqueraded connections when the
/// tunnel's interface goes, and a download would not outlive a restart of the agent.
fn nat(config: &Config, addresses: &[IpNet]) -> String {
    let tunnel = &config.tunnel.interface;
    let mut out = String::from(
        "  chain nat_out {\n    type nat hook postrouting priority srcnat; policy accept;\n",
    );
    for (family, wanted) in [("ip", true), ("ip6", false)] {
        if let Some(address) = addresses.iter().find(|net| net.addr().is_ipv4() == wanted) {
            let address = address.addr();
            // Writing to a String cannot fail.
            let _ = writeln!(
                out,
                "    oifname \"{tunnel}\" {family} saddr != {address} snat {family} to {address}"
            );
        }
    }
    out.push_str("  }\n");
    if config.lan.dns_redirect == DnsRedirect::ToStub {
        out.push_str(&dns_redirect(config));
    }
    out
}

fn dns_redirect(config: &Config) -> String {
    let mut out = String::from(
        "  chain dns_in {\n    type nat hook prerouting priority dstnat; policy accept;\n",
    );
    for (family, wanted) in [("ip", true), ("ip6", false)] {
        let stub = config
            .lan
            .dns_listen
            .iter()
            .find(|listen| listen.is_ipv4() == wanted);
        if let Some(stub) = stub {
            let target = match stub.ip() {
                IpAddr::V4(ip) => format!("{ip}:{}", stub.port()),
                IpAddr::V6(ip) => format!("[{ip}]:{}", stub.port()),
            };
            let _ = writeln!(
                out,
                "    iifname {} meta l4proto {{ tcp, udp }} th dport 53 fib daddr type != local dnat {family} to {target}",
                lan_set(config)
            );
        }
    }
    out.push_str("  }\n");
    out
}

fn lan_names(config: &Config) -> String {
    names(&config.lan.interfaces)
}

fn names(interfaces: &[InterfaceName]) -> String {
    let quoted: Vec<String> = interfaces
        .iter()
        .map(|name| format!("\"{name}\""))
        .collect();
    quoted.join(", ")
}

fn lan_set(config: &Config) -> String {
    format!("{{ {} }}", lan_names(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = include_str!("../../../docs/config/cpe-agent.toml");

    fn config(changes: &[(&str, &str)]) -> Config {
        let text = changes.iter().fold(CONFIG.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from} is not in the sample");
            text.replace(from, to)
        });
        crate::config::parse(&text).unwrap()
    }

    #[test]
    fn with_the_kill_switch_both_ways_out_drop_by_default_running_or_stopped() {
        let config = config(&[]);

        for purpose in [Purpose::Running(&[], None), Purpose::Stopped] {
            let text = text(&config, 0x4356, purpose);
            assert_eq!(text.matches("policy drop;").count(), 2, "{text}");
            assert!(text.contains("meta mark 0x4356 accept"));
        }
    }

    #[test]
    fn without_it_nothing_drops_by_default_and_a_stopped_agent_leaves_an_empty_table() {
        let config = config(&[("# kill-switch = true", "kill-switch = false")]);

        let running = text(&config, 0x4356, Purpose::Running(&[], None));
        let stopped = text(&config, 0x4356, Purpose::Stopped);

        assert!(!running.contains("policy drop"));
        assert!(!stopped.contains("chain"));
    }

    #[test]
    fn the_home_is_hidden_behind_the_leases_addresses_of_both_families() {
        let addresses = [
            "10.64.0.2/32".parse().unwrap(),
            "fd64::2/128".parse().unwrap(),
        ];

        let text = text(&config(&[]), 0x4356, Purpose::Running(&addresses, None));

        assert!(text.contains("oifname \"culvert0\" ip saddr != 10.64.0.2 snat ip to 10.64.0.2"));
        assert!(text.contains("oifname \"culvert0\" ip6 saddr != fd64::2 snat ip6 to fd64::2"));
        assert!(!text.contains("dnat"));
    }

    #[test]
    fn lookups_to_other_resolvers_are_redirected_only_on_request() {
        let config = config(&[("# dns-redirect = false", "dns-redirect = true")]);

        let text = text(&config, 0x4356, Purpose::Running(&[], None));

        assert!(text.contains("dnat ip to 192.168.1.1:53"));
        assert!(text.contains("dnat ip6 to [fd01::1]:53"));
    }
}
