use super::*;
use crate::config::DnsZone;

/// What the workers ask by themselves: zones, and of how many resolvers.
fn zones(upstream: &Upstream, dnssec: bool, rules: &[(&str, bool)]) -> Vec<(String, usize)> {
    let rule = |(name, dnssec): &(&str, bool)| DnsZone {
        name: Name::from_ascii(name).unwrap(),
        forward: vec!["10.1.2.3:53".parse().unwrap()],
        dnssec: *dnssec,
    };
    let dns = config::Dns {
        upstream: upstream.clone(),
        dnssec,
        zones: rules.iter().map(rule).collect(),
        ..config::Dns::forwarding_to("192.0.2.1:53".parse().unwrap())
    };
    let zones = forwarded(&dns, &OwnNames::new(&dns)).into_iter();
    let zones = zones.map(|zone| {
        let name = zone.suffix.escape_ascii().to_string();
        (name, zone.servers.len())
    });
    zones.collect()
}

fn has(zones: &[(String, usize)], name: &str, servers: usize) -> bool {
    // Of one name, the last counts.
    let mut same = zones.iter().rev().filter(|zone| zone.0 == name);
    same.next().is_some_and(|zone| zone.1 == servers)
}

#[test]
fn what_is_validated_or_recursed_is_not_asked_by_workers() {
    let forward = Upstream::Forward(vec!["192.0.2.1:53".parse().unwrap()]);
    let recurse = Upstream::Recurse(Vec::new());

    assert_eq!(zones(&forward, true, &[]), []);
    assert_eq!(zones(&recurse, false, &[]), []);
    assert_eq!(zones(&recurse, true, &[("corp.", true)]), []);
    let beside = zones(&forward, false, &[("corp.", true)]);
    assert!(has(&beside, "\\x00", 1));
    assert!(has(&beside, "\\x04corp\\x00", 0), "{beside:?}");
}

#[test]
fn a_zone_that_is_not_validated_is_asked_by_workers_in_either_mode() {
    let forward = Upstream::Forward(vec!["192.0.2.1:53".parse().unwrap()]);
    let recurse = Upstream::Recurse(Vec::new());

    for upstream in [forward, recurse] {
        let zones = zones(&upstream, true, &[("corp.", false), ("internal.", false)]);
        assert!(has(&zones, "\\x04corp\\x00", 1), "{zones:?}");
        assert!(has(&zones, "\\x08internal\\x00", 1), "{zones:?}");
        assert!(has(&zones, "\\x09localhost\\x00", 0) || has(&zones, "\\tlocalhost\\x00", 0));
        assert!(!zones.iter().any(|zone| zone.0 == "\\x00"), "{zones:?}");
    }
}

#[test]
fn workers_ask_ahead_in_either_mode() {
    let forward = Upstream::Forward(vec!["192.0.2.1:53".parse().unwrap()]);
    let recurse = Upstream::Recurse(Vec::new());

    for upstream in [forward, recurse] {
        let dns = config::Dns {
            upstream,
            ..config::Dns::forwarding_to("192.0.2.1:53".parse().unwrap())
        };
        let duties = duties(&dns, &OwnNames::new(&dns), &Figures::default());
        assert_eq!(duties.ahead, AHEAD);
    }
}
