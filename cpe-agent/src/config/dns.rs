//! The section `[dns]`: what the home's lookups are answered by the router itself, and which answers it refuses.

use std::path::PathBuf;

use dnscrypt_proxy::policy::{BlockAnswer, MAX_FILES, MAX_NAMES, OwnResolver, Rebinding, Rules};
use dnscrypt_proxy::proto::cert::PostQuantum;

use super::section::Section;
use super::{absolute_path, list};
use crate::psk;

/// The home's lookups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dns {
    /// What is answered or refused without asking.
    pub rules: Rules,
    /// Whether questions for IPv6 addresses are denied.
    pub filter_aaaa: FilterAaaa,
    /// What is wanted of the post-quantum certificates of resolvers.
    pub post_quantum: PostQuantum,
}

/// When questions for IPv6 addresses are denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FilterAaaa {
    /// While the lease has no IPv6 address.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

const DEFAULT_DOMAIN: &str = "lan";
/// Where OpenWrt's DHCP servers write.
const DEFAULT_HOSTS: &str = "/tmp/hosts/odhcpd";
const DEFAULT_LEASES: &str = "/tmp/dhcp.leases";
pub(super) const FORWARDS: &str =
    "up to 256 of \"ZONE ADDRESS…\" with 1 to 4 addresses inside the home";
const FILES: &str = "up to 16 absolute paths";
const TRUTH: &str = "true or false";

/// Reads the section; `tunnel` says whether the tunnel is post-quantum, and lookups with it unless they have a word of their own.
pub(super) fn read(section: &mut Section<'_>, tunnel: psk::PostQuantum) -> Option<Dns> {
    let post_quantum = post_quantum(section, tunnel);
    let domain = DEFAULT_DOMAIN.parse().ok();
    let local_domain = section.optional(
        "local-domain",
        "a name such as \"lan\", or \"\" for none",
        domain,
        |value| match value.as_str()? {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        },
    );
    let mut files = |key, default: &[&str]| {
        let default = default.iter().map(PathBuf::from).collect();
        section.optional(key, FILES, default, |value| {
            list(value, MAX_FILES, absolute_path)
        })
    };
    let hosts_files = files("hosts-files", &[DEFAULT_HOSTS]);
    let leases_files = files("leases-files", &[DEFAULT_LEASES]);
    let blocklists = files("blocklists", &[]);
    let allowlists = files("allowlists", &[]);
    let block_answer = section.optional(
        "block-answer",
        "\"nxdomain\" or \"zero\"",
        BlockAnswer::default(),
        |value| value.as_str()?.parse().ok(),
    );
    let names = "up to 256 host names";
    let rebind_allow = section.texts("rebind-allow", names, MAX_NAMES);
    let pairs = "up to 256 of \"NAME ADDRESS…\" or \"NAME OTHER-NAME\"";
    let cloaks = section.texts("cloak", pairs, MAX_NAMES);
    let forwards = section.texts("forward", FORWARDS, MAX_NAMES);
    let filter_aaaa = filter_aaaa(section);
    let mut is_set = |key, default| section.optional(key, TRUTH, default, |value| value.as_bool());
    let is_protected = is_set("rebind-protection", true);
    let stops_doh = is_set("stop-browser-doh", true);
    let stops_relay = is_set("stop-private-relay", false);
    Some(Dns {
        rules: Rules {
            local_domain: local_domain?,
            hosts_files: hosts_files?,
            leases_files: leases_files?,
            blocklists: blocklists?,
            allowlists: allowlists?,
            block_answer: block_answer?,
            rebinding: if is_protected? {
                Rebinding::Refused
            } else {
                Rebinding::Accepted
            },
            rebind_allow: rebind_allow?,
            cloaks: cloaks?,
            forwards: forwards?,
            browser_doh: own_resolver(stops_doh?),
            private_relay: own_resolver(stops_relay?),
            ..Rules::default()
        },
        filter_aaaa: filter_aaaa?,
        post_quantum: post_quantum?,
    })
}

fn post_quantum(section: &mut Section<'_>, tunnel: psk::PostQuantum) -> Option<PostQuantum> {
    let like_the_tunnel = match tunnel {
        psk::PostQuantum::On => PostQuantum::Preferred,
        psk::PostQuantum::Off => PostQuantum::Off,
    };
    let words = "\"required\", \"preferred\" or \"off\"";
    section.optional("post-quantum", words, like_the_tunnel, |value| {
        value.as_str()?.parse().ok()
    })
}

fn filter_aaaa(section: &mut Section<'_>) -> Option<FilterAaaa> {
    let choices = "\"auto\", true or false";
    section.optional("filter-aaaa", choices, FilterAaaa::Auto, |value| {
        match (value.as_str(), value.as_bool()) {
            (Some("auto"), _) => Some(FilterAaaa::Auto),
            (_, Some(true)) => Some(FilterAaaa::On),
            (_, Some(false)) => Some(FilterAaaa::Off),
            _ => None,
        }
    })
}

fn own_resolver(is_stopped: bool) -> OwnResolver {
    if is_stopped {
        OwnResolver::Denied
    } else {
        OwnResolver::Asked
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SMALLEST, keys_of_mistakes};
    use super::*;

    fn read_text(text: &str) -> Dns {
        let text = format!("{SMALLEST}[dns]\n{text}");
        super::super::parse(&text).unwrap().dns
    }

    #[test]
    fn every_mistake_of_the_section_is_told_with_its_path() {
        let text = "post-quantum = true\nlocal-domain = \"a b\"\nhosts-files = [\"hosts\"]\nblocklists = 1\nblock-answer = \"drop\"\n\
                    rebind-allow = [\"a..b\"]\ncloak = [\"a.example\"]\nforward = [\"a.example 8.8.8.8\"]\nfilter-aaaa = \"on\"\nrebind-protection = 1\nstop = true";

        let keys = keys_of_mistakes(&format!("{SMALLEST}[dns]\n{text}"));

        assert_eq!(
            keys,
            [
                "dns.post-quantum",
                "dns.local-domain",
                "dns.hosts-files",
                "dns.blocklists",
                "dns.block-answer",
                "dns.rebind-allow[0]",
                "dns.cloak[0]",
                "dns.forward[0]",
                "dns.filter-aaaa",
                "dns.rebind-protection",
                "dns.stop"
            ]
        );
    }

    #[test]
    fn a_wrong_forward_is_told_with_its_place_the_reason_and_what_would_be_right() {
        let forwards = "[\"corp.example 10.0.0.1\", \"lab.example 8.8.8.8\", \"nas.example\"]";
        let text = format!("{SMALLEST}[dns]\nforward = {forwards}");

        let mistakes = super::super::parse(&text).unwrap_err().to_string();

        let accepted = "up to 256 of \"ZONE ADDRESS…\" with 1 to 4 addresses inside the home";
        assert_eq!(
            mistakes,
            format!(
                "the configuration has mistakes:\n  \
                 dns.forward[1]: 8.8.8.8 is not inside this network, and would be asked in clear; accepted: {accepted}\n  \
                 dns.forward[2]: not a zone and 1 to 4 addresses of servers; accepted: {accepted}"
            )
        );
        assert_eq!(
            keys_of_mistakes(&format!("{SMALLEST}[dns]\nforward = [3]")),
            ["dns.forward"]
        );
    }

    #[test]
    fn lookups_are_as_post_quantum_as_the_tunnel_unless_they_have_a_word_of_their_own() {
        let read = |own: &str, tunnel: &str| {
            let text = format!("{own}\n[tunnel]\npost-quantum = {tunnel}");
            read_text(&text).post_quantum
        };

        assert_eq!(read("", "true"), PostQuantum::Preferred);
        assert_eq!(read("", "false"), PostQuantum::Off);
        for tunnel in ["true", "false"] {
            for own in ["required", "preferred", "off"] {
                let key = format!("post-quantum = {own:?}");
                assert_eq!(read(&key, tunnel).as_str(), own);
            }
        }
    }

    #[test]
    fn a_zone_that_no_server_has_or_that_is_there_twice_is_not_forwarded() {
        let with = |forwards: &str| {
            let text = format!("{SMALLEST}[dns]\nforward = {forwards}");
            super::super::parse(&text).unwrap_err().to_string()
        };

        let special = with("[\"localhost 10.0.0.1\"]");
        let twice = with("[\"lan 10.0.0.1\", \"corp.example 10.0.0.1\", \"LAN. 10.0.0.2\"]");

        assert!(
            special.contains("dns.forward[0]: localhost is answered"),
            "{special}"
        );
        assert!(
            twice.contains("dns.forward: lan is there twice: give"),
            "{twice}"
        );
    }

    #[test]
    fn no_zone_is_forwarded_to_the_router_itself() {
        let text = "[dns]\nforward = [\"lan 192.168.1.5 192.168.1.1\"]\n[lan]\ndns-listen = [\"192.168.1.1:53\"]";
        let smallest = SMALLEST.replace("[lan]", text);
        assert_eq!(keys_of_mistakes(&smallest), ["dns.forward"]);

        let other = smallest.replace("192.168.1.1\"]\n", "192.168.1.1:5353\"]\n");
        let dns = super::super::parse(&other).unwrap().dns;
        assert_eq!(dns.rules.forwards.len(), 1);
    }

    #[test]
    fn a_router_refuses_rebinding_unless_it_is_told_not_to() {
        let plain = read_text("");
        let open = read_text("rebind-protection = false\nlocal-domain = \"\"\nleases-files = []");

        assert_eq!(plain.rules.rebinding, Rebinding::Refused);
        assert_eq!(plain.rules.browser_doh, OwnResolver::Denied);
        assert_eq!(plain.rules.private_relay, OwnResolver::Asked);
        assert_eq!(plain.rules.local_domain, DEFAULT_DOMAIN.parse().ok());
        assert_eq!(plain.rules.leases_files, [PathBuf::from(DEFAULT_LEASES)]);
        assert_eq!(plain.filter_aaaa, FilterAaaa::Auto);
        assert_eq!(open.rules.rebinding, Rebinding::Accepted);
        assert_eq!(
            (open.rules.local_domain, open.rules.leases_files.len()),
            (None, 0)
        );
    }
}
