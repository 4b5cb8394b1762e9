//! The kernel's part of the way to the internet: forwarding switched on, IPv4 masqueraded, and a filter
//! so that nothing but tunnels reaches the routers and the gateway's inner addresses. One nftables
//! table, `inet culvert_gw`, replaced at start and deleted at exit. Connections are tracked for the masquerade alone:
//! what ends here is not, or a flood of forged initiations would fill the kernel's table, and a subscriber who sends
//! from the tunnel's port would get what another router sends to it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::{fmt, fs};

use ipnet::IpNet;
use netio::nftables::{self, NftError, TableFamily};

use crate::config::{Config, Nat, Tunnel};
use crate::exit::{Exit, Fault};

const TABLE: &str = "culvert_gw";
/// In the state directory: what this gateway switched on, for the run after a crash.
const MARKER: &str = "forwarding";
/// Changes at each boot, which switches everything off again.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const FORWARDING: [&str; 2] = [
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv6/conf/all/forwarding",
];

/// What was changed in the kernel, to be taken back.
#[derive(Debug)]
pub(crate) struct Forwarding {
    switched_on: Vec<&'static str>,
}

/// Switches forwarding on and puts the table in place. To be called in the state directory.
pub(crate) fn set_up(config: &Config) -> Result<Forwarding, Fault> {
    let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
    let ours_before = remembered(&fs::read_to_string(MARKER).unwrap_or_default(), &boot);
    let mut switched_on = Vec::new();
    for key in FORWARDING {
        if ours_before.contains(&key) || is_off(key)? {
            switched_on.push(key);
        }
    }
    let others = if switched_on.is_empty() {
        Others::Pass
    } else {
        fs::write(
            MARKER,
            format!("{}\n{}\n", boot.trim_end(), switched_on.join("\n")),
        )
        .map_err(|error| Fault::io("write the file forwarding in state-dir", &error))?;
        Others::Drop
    };
    for key in &switched_on {
        fs::write(key, "1").map_err(|error| setting(key, &error))?;
        tracing::info!(key, "switched forwarding on, until this gateway ends");
    }
    let forwarding = Forwarding { switched_on };
    let rules = Rules {
        tunnel: &config.tunnel,
        nat: config.nat.as_ref(),
        listeners: &config.listeners(),
        others,
    };
    match nftables::apply(&rules.to_string()) {
        Ok(()) => Ok(forwarding),
        Err(error) => {
            forwarding.undo();
            Err(refused(&error))
        }
    }
}

/// The keys that an earlier run of this boot switched on and did not take back.
fn remembered(marker: &str, boot: &str) -> Vec<&'static str> {
    let mut lines = marker.lines();
    if boot.is_empty() || lines.next() != Some(boot.trim_end()) {
        return Vec::new();
    }
    lines
        .filter_map(|line| FORWARDING.into_iter().find(|key| *key == line))
        .collect()
}

/// A kernel without IPv6 has no such key, and nothing to forward.
fn is_off(key: &str) -> Result<bool, Fault> {
    if !Path::new(key).exists() {
        return Ok(false);
    }
    let value = fs::read_to_string(key).map_err(|error| setting(key, &error))?;
    Ok(value.trim() == "0")
}

fn setting(key: &str, error: &std::io::Error) -> Fault {
    Fault::io(format!("switch forwarding on in {key}"), error)
}

fn refused(error: &NftError) -> Fault {
    let exit = match error {
        NftError::Missing => Exit::Config,
        NftError::Run(_) => Exit::Io,
        NftError::Refused(reason) if reason.contains("not permitted") => Exit::Permission,
        NftError::Refused(_) => Exit::Config,
    };
    Fault::new(exit, format!("the packet filter cannot be set: {error}"))
}

impl Forwarding {
    /// Takes everything back, as far as the kernel lets us.
    pub(crate) fn undo(self) {
        if let Err(error) = nftables::delete_table(TableFamily::Inet, TABLE) {
            tracing::warn!(%error, table = TABLE, "the packet filter's table stays behind");
        }
        if self.switched_on.is_empty() {
            return;
        }
        for key in self.switched_on {
            if let Err(error) = fs::write(key, "0") {
                tracing::warn!(%error, key, "forwarding stays on");
            }
        }
        if let Err(error) = fs::remove_file(MARKER) {
            tracing::warn!(%error, "the file forwarding stays in state-dir");
        }
    }
}

/// What happens to forwarded packets that are not of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// The machine forwarded before: that is none of our business.
    Pass,
    /// Forwarding is on only because of us.
    Drop,
}

/// The table, whose text is for `nft`.
struct Rules<'a> {
    tunnel: &'a Tunnel,
    nat: Option<&'a Nat>,
    /// Addresses at which the gateway itself is reached.
    listeners: &'a [SocketAddr],
    others: Others,
}

impl fmt::Display for Rules<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let masquerading = self.nat.filter(|nat| nat.ipv4);
        let masquerading = masquerading.map_or(String::new(), |nat| self.masquerading(nat));
        let (input, forward) = (self.input(), self.forward());
        write!(
            f,
            "add table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n  \
             chain input {{\n    type filter hook input priority filter; policy accept;\n{input}  }}\n  \
             chain forward {{\n    type filter hook forward priority filter; policy accept;\n{forward}  }}\n{masquerading}}}\n"
        )
    }
}

impl Rules<'_> {
    fn input(&self) -> String {
        let inside = &self.tunnel.interface;
        let own = self.own_addresses("daddr").into_iter();
        own.map(|own| format!("    {own} iifname != {{ \"{inside}\", \"lo\" }} drop\n"))
            .collect()
    }

    fn forward(&self) -> String {
        let inside = &self.tunnel.interface;
        let mut forward = format!("    iifname \"{inside}\" accept\n");
        // Routers believe what comes from the gateway's own address.
        for own in self.own_addresses("saddr") {
            forward += &format!("    {own} drop\n");
        }
        if let Some(Nat { interface, ipv4 }) = self.nat {
            if *ipv4 {
                forward += &format!(
                    "    iifname \"{interface}\" oifname \"{inside}\" meta nfproto ipv4 ct state established,related accept\n    \
                     oifname \"{inside}\" meta nfproto ipv4 drop\n"
                );
            }
            forward += &format!(
                "    iifname \"{interface}\" oifname \"{inside}\" accept\n    oifname \"{inside}\" drop\n"
            );
        } else {
            forward += &format!("    oifname \"{inside}\" accept\n");
        }
        if self.others == Others::Drop {
            forward += "    drop\n";
        }
        forward
    }

    /// The masquerade, and what it does not concern: what comes to the gateway itself or goes out from it, and IPv6. What
    /// is answered to the gateway's ports is for the gateway, so homes do not send from them.
    fn masquerading(&self, nat: &Nat) -> String {
        let (inside, outside) = (&self.tunnel.interface, &nat.interface);
        let ports: BTreeSet<u16> = self.listeners.iter().map(SocketAddr::port).collect();
        let (first, last) = widest_gap(&ports);
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let ports = ports.join(", ");
        let own = |side: &str| format!("meta l4proto {{ tcp, udp }} th {side} {{ {ports} }}");
        let (to_own, from_own) = (own("dport"), own("sport"));
        // Lookups come first, by one comparison: what is asked most often must not go through all of the rules.
        let untracked = |own: String| format!("    {own} notrack accept\n");
        let mut arriving: String = (self.own_addresses("daddr").into_iter())
            .map(untracked)
            .collect();
        arriving += &format!(
            "    {to_own} fib daddr type local notrack\n    iifname \"{inside}\" meta nfproto ipv6 notrack\n"
        );
        for net in self
            .tunnel
            .addresses
            .iter()
            .filter(|net| net.addr().is_ipv6())
        {
            let homes = net.trunc();
            arriving += &format!("    iifname \"{outside}\" ip6 daddr {homes} notrack\n");
        }
        let mut leaving: String = (self.own_addresses("saddr").into_iter())
            .map(untracked)
            .collect();
        leaving += &format!("    {from_own} notrack\n");
        let homes = format!("    iifname \"{inside}\" oifname \"{outside}\" meta nfproto ipv4");
        format!(
            "  chain arriving {{\n    type filter hook prerouting priority raw; policy accept;\n{arriving}  }}\n  \
             chain leaving {{\n    type filter hook output priority raw; policy accept;\n{leaving}  }}\n  \
             chain postrouting {{\n    type nat hook postrouting priority srcnat; policy accept;\n\
             {homes} {from_own} masquerade to :{first}-{last} random\n{homes} masquerade\n  }}\n"
        )
    }

    /// The gateway's own inner addresses, as a condition for each family that has some.
    fn own_addresses(&self, field: &str) -> Vec<String> {
        let of = |family: &str, wanted: fn(&IpAddr) -> bool| {
            let addresses = self.tunnel.addresses.iter().map(IpNet::addr).filter(wanted);
            let listed: Vec<String> = addresses.map(|address| address.to_string()).collect();
            match listed.as_slice() {
                [] => None,
                // A set would be looked up where a comparison does.
                [only] => Some(format!("{family} {field} {only}")),
                several => Some(format!("{family} {field} {{ {} }}", several.join(", "))),
            }
        };
        let both = [of("ip", IpAddr::is_ipv4), of("ip6", IpAddr::is_ipv6)];
        both.into_iter().flatten().collect()
    }
}

/// The most ports of everybody's in a row that none of `own` is among.
fn widest_gap(own: &BTreeSet<u16>) -> (u16, u16) {
    const FIRST: u16 = 1024;
    let mut widest = (FIRST, FIRST);
    let mut from = FIRST;
    let own = own.iter().copied().filter(|port| *port >= FIRST);
    for to in own.map(|port| port - 1).chain([u16::MAX]) {
        if to >= from && to - from > widest.1 - widest.0 {
            widest = (from, to);
        }
        from = to.saturating_add(2);
    }
    widest
}

#[cfg(test)]
mod tests {
    use tunnel::offload::ecn::OuterTos;

    use super::*;

    fn tunnel() -> Tunnel {
        Tunnel {
            listen: Vec::new(),
            interface: "culvert0".to_owned(),
            addresses: ["10.64.0.1/16", "fd64::1/48"]
                .map(|net| net.parse().unwrap())
                .to_vec(),
            mtu: 1420,
            dscp: OuterTos::Zero,
            post_quantum: true,
            workers: 1,
        }
    }

    fn ruleset(nat: Option<&Nat>, others: Others) -> String {
        let listeners = ["0.0.0.0:51820", "[::]:51820", "198.51.100.7:443"];
        let rules = Rules {
            tunnel: &tunnel(),
            nat,
            listeners: &listeners.map(|listener| listener.parse().unwrap()),
            others,
        };
        rules.to_string()
    }

    #[test]
    fn inner_addresses_are_reached_through_the_tunnel_only() {
        let rules = ruleset(None, Others::Pass);

        assert!(
            rules.contains("    ip daddr 10.64.0.1 iifname != { \"culvert0\", \"lo\" } drop"),
            "{rules}"
        );
        assert!(
            rules.contains("    ip6 daddr fd64::1 iifname != { \"culvert0\", \"lo\" } drop"),
            "{rules}"
        );
        assert!(!rules.contains("masquerade"));
    }

    #[test]
    fn nobody_outside_speaks_to_homes_as_the_gateway() {
        let interface = "inet0".to_owned();
        let nat = Nat {
            interface,
            ipv4: true,
        };
        for rules in [
            ruleset(Some(&nat), Others::Pass),
            ruleset(None, Others::Pass),
        ] {
            let (_, chain) = rules.split_once("chain forward").unwrap();
            let rules: Vec<_> = chain.lines().map(str::trim).collect();
            let first_open = rules
                .iter()
                .position(|rule| rule.contains("oifname") && rule.ends_with("accept"));
            let [v4, v6] = ["ip saddr 10.64.0.1 drop", "ip6 saddr fd64::1 drop"]
                .map(|drop| rules.iter().position(|rule| *rule == drop));
            assert!(v4.is_some() && v6.is_some() && v4 < first_open && v6 < first_open);
        }
    }

    #[test]
    fn a_machine_that_did_not_forward_before_forwards_only_for_the_tunnel() {
        let nat = Nat {
            interface: "inet0".to_owned(),
            ipv4: true,
        };
        let forward = |others| {
            let rules = ruleset(Some(&nat), others);
            let (_, chain) = rules.split_once("chain forward").unwrap();
            chain.split_once('}').unwrap().0.trim_end().to_owned()
        };

        assert!(forward(Others::Drop).ends_with("\n    drop"));
        assert!(forward(Others::Pass).ends_with("oifname \"culvert0\" drop"));
    }

    #[test]
    fn what_was_switched_on_is_remembered_over_a_crash_but_not_over_a_boot() {
        let marker = format!("boot-1\n{}\n/proc/sys/kernel/panic\n", FORWARDING[1]);

        assert_eq!(remembered(&marker, "boot-1\n"), [FORWARDING[1]]);
        assert_eq!(remembered(&marker, "boot-2\n"), [""; 0]);
        assert_eq!(remembered("", ""), [""; 0]);
    }

    fn masquerading(ipv4: bool) -> String {
        let interface = "inet0".to_owned();
        ruleset(Some(&Nat { interface, ipv4 }), Others::Pass)
    }

    #[test]
    fn without_a_masquerade_no_connection_is_tracked() {
        for rules in [ruleset(None, Others::Pass), masquerading(false)] {
            for tracking in [" ct ", "type nat", "masquerade"] {
                assert!(!rules.contains(tracking), "{rules}");
            }
        }
    }

    #[test]
    fn what_ends_at_the_gateway_or_is_ipv6_is_not_tracked() {
        let rules = masquerading(true);

        for rule in [
            "    meta l4proto { tcp, udp } th dport { 443, 51820 } fib daddr type local notrack",
            "    iifname \"culvert0\" meta nfproto ipv6 notrack",
            "    iifname \"inet0\" ip6 daddr fd64::/48 notrack",
            "    ip daddr 10.64.0.1 notrack accept",
            "    ip6 daddr fd64::1 notrack accept",
            "    meta l4proto { tcp, udp } th sport { 443, 51820 } notrack",
            "    ip saddr 10.64.0.1 notrack accept",
            "    ip6 saddr fd64::1 notrack accept",
        ] {
            assert!(rules.contains(rule), "{rule} is not in {rules}");
        }
    }

    #[test]
    fn homes_have_the_widest_range_that_no_port_of_the_gateway_is_in() {
        let gap = |own: &[u16]| widest_gap(&own.iter().copied().collect());

        assert_eq!(gap(&[443]), (1024, 65_535));
        assert_eq!(gap(&[443, 51_820]), (1024, 51_819));
        assert_eq!(gap(&[1024, 1025, 65_535]), (1026, 65_534));
        assert_eq!(gap(&[2_000, 40_000, 40_001]), (2_001, 39_999));
    }

    #[test]
    fn only_ipv4_from_the_tunnel_is_masqueraded_and_never_as_the_tunnel_itself() {
        let rules = masquerading(true);

        let masquerades: Vec<_> = rules
            .lines()
            .filter(|line| line.contains("masquerade"))
            .collect();
        let from_homes = "    iifname \"culvert0\" oifname \"inet0\" meta nfproto ipv4";
        assert_eq!(
            masquerades,
            [
                format!(
                    "{from_homes} meta l4proto {{ tcp, udp }} th sport {{ 443, 51820 }} masquerade to :1024-51819 random"
                ),
                format!("{from_homes} masquerade"),
            ]
        );
    }
}
