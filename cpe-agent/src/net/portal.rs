//! The captive-portal window: for some minutes one device of the home may reach the access network's login page in clear.
//!
//! What is let through is told by membership of a set whose element the kernel takes out when its time is over, whatever
//! has become of the agent: web (TCP 80 and 443) from that one IPv4 address, and lookups, which go to the access
//! network's resolver. Nothing that is not in the set by then passes, connections that were open before included.

use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

/// The set of devices that may.
const SET: &str = "portal_devices";
/// A file of resolvers is never near this size.
const MAX_RESOLVERS_BYTES: usize = 4096;

/// A window that is open, or about to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// Who may.
    pub(crate) device: Ipv4Addr,
    /// Who answers its lookups; nobody when the access network has named nobody.
    pub(crate) resolver: Option<Ipv4Addr>,
    /// Until when.
    pub(crate) until: Instant,
}

impl Window {
    /// How long it stays open, as of now.
    pub(crate) fn left(&self) -> Option<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        (left > Duration::ZERO).then_some(left)
    }
}

/// The first IPv4 name server that the access network gave, from a file in the form of resolv.conf.
pub(crate) fn resolver(file: &Path) -> Option<Ipv4Addr> {
    let text = fs::read_to_string(file).ok()?;
    first_resolver(text.get(..text.len().min(MAX_RESOLVERS_BYTES))?)
}

fn first_resolver(text: &str) -> Option<Ipv4Addr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse::<Ipv4Addr>().ok())
        .find(|address| !address.is_loopback() && !address.is_unspecified())
}

/// The rules of an open window, in two places of the table.
pub(super) struct Rules {
    /// Within the chain that drops whatever is forwarded.
    pub(super) forward: String,
    /// Chains of its own.
    pub(super) chains: String,
}

/// Writes the rules; `lan` and `wans` are sets of interfaces.
pub(super) fn rules(window: &Window, lan: &str, wans: &str, mark: u32) -> Rules {
    let Some(left) = window.left() else {
        return Rules {
            forward: String::new(),
            chains: String::new(),
        };
    };
    let (device, left_ms) = (window.device, left.as_millis().max(1));
    let mut forward = format!(
        "    iifname {lan} oifname {wans} ip saddr @{SET} tcp dport {{ 80, 443 }} accept
    iifname {wans} oifname {lan} ip daddr @{SET} ct mark {mark:#x} ct state established accept\n"
    );
    let mut chains = format!(
        r#"  set {SET} {{
    type ipv4_addr
    flags timeout
    elements = {{ {device} timeout {left_ms}ms }}
  }}
  chain portal_nat {{
    type nat hook postrouting priority srcnat; policy accept;
    iifname {lan} oifname {wans} ip saddr @{SET} masquerade
  }}
  chain portal_mark {{
    type filter hook prerouting priority mangle; policy accept;
    iifname {lan} ip saddr @{SET} tcp dport {{ 80, 443 }} meta mark set {mark:#x}
"#
    );
    if let Some(resolver) = window.resolver {
        // Writing to a String cannot fail.
        let _ = writeln!(
            forward,
            "    iifname {lan} oifname {wans} ip saddr @{SET} ip daddr {resolver} meta l4proto {{ tcp, udp }} th dport 53 accept"
        );
        let _ = write!(
            chains,
            r#"    iifname {lan} ip saddr @{SET} meta l4proto {{ tcp, udp }} th dport 53 meta mark set {mark:#x}
  }}
  chain portal_dns {{
    type nat hook prerouting priority dstnat - 1; policy accept;
    iifname {lan} ip saddr @{SET} meta l4proto {{ tcp, udp }} th dport 53 dnat ip to {resolver}
"#
        );
    }
    chains.push_str("  }\n");
    Rules { forward, chains }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(resolver: Option<Ipv4Addr>, lasts: Duration) -> Window {
        Window {
            device: Ipv4Addr::new(192, 168, 1, 10),
            resolver,
            until: Instant::now() + lasts,
        }
    }

    #[test]
    fn a_window_that_is_over_lets_nothing_through() {
        let rules = rules(&window(None, Duration::ZERO), "lan", "wan", 1);

        assert_eq!((rules.forward.as_str(), rules.chains.as_str()), ("", ""));
    }

    #[test]
    fn every_rule_that_lets_something_through_asks_for_the_device() {
        let resolver = Some(Ipv4Addr::new(198, 18, 0, 1));

        let rules = rules(&window(resolver, Duration::from_secs(300)), "lan", "wan", 1);

        let text = format!("{}{}", rules.forward, rules.chains);
        let lets = |line: &&str| {
            ["accept", "masquerade", "dnat", "mark set"]
                .iter()
                .any(|verb| line.contains(verb))
        };
        let lines = text
            .lines()
            .filter(lets)
            .filter(|line| !line.contains("policy"));
        let careless: Vec<&str> = lines
            .filter(|line| !line.contains("addr @portal_devices"))
            .collect();
        assert_eq!(careless, Vec::<&str>::new());
        assert!(text.contains("{ 192.168.1.10 timeout 29"), "{text}");
    }

    #[test]
    fn lookups_stay_shut_when_the_access_network_named_no_resolver() {
        let rules = rules(&window(None, Duration::from_secs(300)), "lan", "wan", 1);

        assert!(!rules.forward.contains("53") && !rules.chains.contains("53"));
    }

    #[test]
    fn only_an_address_is_taken_for_a_resolver() {
        let cases = [
            ("", None),
            (
                "nameserver ::1\nnameserver 127.0.0.1\nnameserver 0.0.0.0",
                None,
            ),
            ("nameserver 1.2.3.4; drop", None),
            (
                "# wan\nsearch lan\nnameserver 198.18.0.1\nnameserver 198.18.0.2",
                Some(Ipv4Addr::new(198, 18, 0, 1)),
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(first_resolver(text), wanted, "{text}");
        }
    }
}
