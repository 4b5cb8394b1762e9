use super::*;

mod doors;

const SAMPLE: &str = include_str!("../../../docs/config/edge-gateway.toml");

fn read(text: &str) -> Result<Config, Vec<String>> {
    let raw: RawConfig = toml::from_str(text).unwrap();
    Config::try_from(raw).map_err(|mistakes| mistakes.iter().map(Mistake::to_string).collect())
}

/// The sample with one text replaced, and the mistakes that this makes.
fn mistakes_with(from: &str, to: &str) -> Vec<String> {
    assert!(SAMPLE.contains(from), "the sample has no {from}");
    read(&SAMPLE.replace(from, to)).unwrap_err()
}

#[test]
fn every_mistake_is_reported_at_once_with_its_key_path() {
    let mistakes = read(
        r#"
        state-dir = 7
        colour = "blue"
        log-level = "loud"
        drain-timeout-s = 601
        nat = "inet0"
        [provisioning]
        url = "http://198.18.2.2:8443"
        spki-sha256 = ["00"]
        shards = [-1]
        [tunnel]
        listen = "0.0.0.0:51820"
        interface = "culvert0; drop"
        addresses = ["10.64.0.1/33"]
        mtu = 1279
        workers = 65
        [dns]
        listen = ["10.64.0.1"]
        provider-name = "pop1.example"
        mode = "guess"
        dnssec = "yes"
        [metrics]
        port = 1
        "#,
    )
    .unwrap_err();

    let keys: Vec<_> = mistakes
        .iter()
        .map(|line| line.split_once(": ").unwrap().0)
        .collect();
    let expected = [
        "state-dir",
        "log-level",
        "drain-timeout-s",
        "nat",
        "colour",
        "provisioning.url",
        "provisioning.spki-sha256",
        "provisioning.shards",
        "tunnel.listen",
        "tunnel.interface",
        "tunnel.addresses",
        "tunnel.mtu",
        "tunnel.workers",
        "dns.listen",
        "dns.provider-name",
        "dns.provider-key-file",
        "dns.mode",
        "dns.dnssec",
        "metrics.listen",
        "metrics.port",
    ];
    assert_eq!(keys, expected, "{mistakes:#?}");
    assert!(
        mistakes.iter().all(|line| line.contains("; accepted: ")),
        "{mistakes:#?}"
    );
}

#[test]
fn an_empty_file_names_what_must_be_there() {
    let mistakes = read("").unwrap_err();

    assert_eq!(
        mistakes,
        [
            "provisioning.url: is missing; accepted: https://HOST:PORT",
            "provisioning.spki-sha256: is missing; accepted: 64 hex digits, as `provisioning init` \
             prints them",
            "provisioning.shards: is missing; accepted: a list of shard numbers",
            "tunnel.listen: is missing; accepted: IP:PORT, such as 0.0.0.0:51820 or [::]:51820",
            "tunnel.addresses: is missing; accepted: ADDRESS/PREFIX, such as 10.64.0.1/16 or \
             fd64::1/48",
        ]
    );
}

#[test]
fn an_unknown_key_is_answered_with_the_keys_there_are() {
    let mistakes = mistakes_with("ipv4 = true", "ipv6 = true");

    assert_eq!(
        mistakes,
        ["nat.ipv6: is not a key of this table; accepted: interface, ipv4"]
    );
}

#[test]
fn the_tunnel_itself_is_no_way_to_the_internet() {
    let mistakes = mistakes_with("\"inet0\"", "\"culvert0\"");

    assert_eq!(
        mistakes,
        [
            "nat.interface: is the tunnel's own; accepted: the name of the interface towards the internet"
        ]
    );
}

#[test]
fn a_resolver_outside_the_tunnel_is_refused() {
    let mistakes = mistakes_with("\"10.64.0.1:443\"", "\"198.18.1.2:4443\"");

    assert_eq!(mistakes.len(), 1);
    assert!(
        mistakes[0].starts_with("dns.listen: 198.18.1.2 is not an inner address of this gateway;"),
        "{mistakes:?}"
    );
}

#[test]
fn two_tunnel_addresses_of_one_family_are_refused() {
    let mistakes = mistakes_with("\"[::]:51820\"", "\"10.0.0.1:51821\"");

    assert_eq!(
        mistakes,
        [
            "tunnel.listen: has more than one address of a family; accepted: one IPv4 and one IPv6 address"
        ]
    );
}

#[test]
fn a_class_of_service_is_a_word_or_six_bits() {
    for (wrong, said) in [
        ("64", "64"),
        ("-1", "-1"),
        ("\"ef\"", "`ef`"),
        ("true", "true or false"),
    ] {
        let mistakes = mistakes_with("workers = 4", &format!("dscp = {wrong}"));
        let expected = format!("tunnel.dscp: is {said}; accepted: \"zero\", \"copy\", or 0 to 63");
        assert_eq!(mistakes, [expected]);
    }
    for (right, class) in [
        ("\"zero\"", OuterTos::Zero),
        ("\"copy\"", OuterTos::Copy),
        ("63", OuterTos::Fixed(63)),
    ] {
        let text = SAMPLE.replace("workers = 4", &format!("dscp = {right}"));
        assert_eq!(read(&text).unwrap().tunnel.dscp, class);
    }
}

#[test]
fn a_provider_key_and_a_directory_of_certificates_exclude_each_other() {
    let mistakes = mistakes_with(
        "mode = ",
        "certificates-dir = \"/etc/culvert/certs\"\nmode = ",
    );

    assert_eq!(
        mistakes,
        ["dns.provider-key-file: stands beside certificates-dir; accepted: one of the two"]
    );
}

#[test]
fn forwarding_without_a_resolver_and_recursion_with_one_are_refused() {
    let none = mistakes_with("forward = [\"203.0.113.10:53\"]", "");
    let beside = mistakes_with("mode = \"forward\"", "mode = \"recurse\"");

    assert_eq!(
        none,
        ["dns.forward: is missing; accepted: IP:PORT of a resolver"]
    );
    assert_eq!(
        beside,
        ["dns.forward: has no meaning with mode recurse; accepted: nothing"]
    );
}

/// The sample with tables behind `[dns]`.
fn with_zones(tables: &str) -> Result<Config, Vec<String>> {
    read(&SAMPLE.replace("dnssec = true", &format!("dnssec = true\n{tables}")))
}

#[test]
fn mistakes_in_zones_are_all_told_with_the_number_of_their_table() {
    let mistakes = with_zones(
        r#"
        [[dns.zones]]
        forward = ["10.1.2.3:53"]
        [[dns.zones]]
        name = "corp..example"
        [[dns.zones]]
        name = "."
        forward = ["10.1.2.3"]
        [[dns.zones]]
        name = "corp.example"
        forward = ["0.0.0.0:53"]
        servers = []
        [[dns.zones]]
        name = "CORP.example."
        forward = ["10.1.2.3:53"]
        dnssec = "no"
        [[dns.zones]]
        name = "x._dns.dns.pop1.example"
        forward = ["10.1.2.3:53"]
        [dns.doors]
        name = "dns.pop1.example"
        certificate-file = "/c"
        key-file = "/k"
        tls = ["10.64.0.1:853"]
        "#,
    );

    let (zone, resolver) = ("a zone such as corp.example", "IP:PORT of a resolver");
    let expected = [
        format!("dns.zones[1].name: is missing; accepted: {zone}"),
        format!("dns.zones[2].name: `corp..example` is no zone; accepted: {zone}"),
        format!("dns.zones[2].forward: is missing; accepted: {resolver}"),
        "dns.zones[3].name: `.` is the root; accepted: a zone below it; the root's resolvers are dns.forward"
            .to_owned(),
        format!("dns.zones[3].forward: `10.1.2.3` cannot be read; accepted: {resolver}"),
        format!("dns.zones[4].forward: 0.0.0.0:53 is nobody's address; accepted: {resolver}"),
        "dns.zones[4].servers: is not a key of this table; accepted: name, forward, dnssec"
            .to_owned(),
        "dns.zones[5].name: `CORP.example.` has a table already; accepted: each zone once"
            .to_owned(),
        "dns.zones[5].dnssec: is a text; accepted: true or false".to_owned(),
        format!(
            "dns.zones[6].name: `x._dns.dns.pop1.example` is answered by the gateway itself; accepted: {zone}"
        ),
    ];
    assert_eq!(mistakes.unwrap_err(), expected);
}

#[test]
fn names_that_the_gateway_answers_itself_cannot_be_given_away_and_zones_are_tables() {
    for ours in [
        "resolver.arpa",
        "_dns.Resolver.arpa.",
        "localhost",
        "ipv4only.arpa",
        "a.onion",
    ] {
        let table = format!("[[dns.zones]]\nname = \"{ours}\"\nforward = [\"10.1.2.3:53\"]");
        let mistakes = with_zones(&table).unwrap_err();
        assert!(
            mistakes[0].contains("is answered by the gateway itself"),
            "{mistakes:?}"
        );
    }
    for (zones, said) in [
        ("zones = 7", "is a whole number"),
        ("zones = [7]", "holds a whole number"),
    ] {
        let expected = format!(
            "dns.zones: {said}; accepted: up to 64 tables [[dns.zones]] with name and forward"
        );
        assert_eq!(with_zones(zones).unwrap_err(), [expected]);
    }
}

#[test]
fn a_prefix_for_translation_has_one_of_the_lengths_there_are() {
    for wrong in ["64:ff9b::/95", "64:ff9b::1/96", "10.0.0.0/8", "64:ff9b::"] {
        let mistakes = with_zones(&format!("dns64 = \"{wrong}\"")).unwrap_err();
        let expected = format!(
            "dns.dns64: `{wrong}` cannot be read; accepted: a prefix of 32, 40, 48, 56, 64 or 96 bits such as \
             64:ff9b::/96, with nothing behind it and bits 64 to 71 zero"
        );
        assert_eq!(mistakes, [expected]);
    }
    let config = with_zones("dns64 = \"2001:db8:1::/48\"").unwrap();
    assert!(config.dns.unwrap().dns64.is_some());
    assert!(with_zones("").unwrap().dns.unwrap().dns64.is_none());
}

#[test]
fn more_zones_than_there_are_ports_for_are_refused() {
    let tables = |count: u32| -> String {
        let table =
            |n| format!("[[dns.zones]]\nname = \"z{n}.example\"\nforward = [\"10.1.2.3:53\"]\n");
        (0..count).map(table).collect()
    };

    assert_eq!(
        with_zones(&tables(65)).unwrap_err(),
        ["dns.zones: are 65; accepted: up to 64 tables [[dns.zones]] with name and forward"]
    );
    assert!(with_zones(&tables(64)).is_ok());
}

#[test]
fn a_zone_is_validated_as_the_gateway_validates_unless_it_says_otherwise() {
    let config = with_zones(
        r#"
        [[dns.zones]]
        name = "Corp.Example"
        forward = ["10.1.2.3:53", "[fd00::53]:5353"]
        dnssec = false
        [[dns.zones]]
        name = "2.0.192.in-addr.arpa."
        forward = ["10.1.2.3:53"]
        "#,
    );

    let zones = config.unwrap().dns.unwrap().zones;
    let shown: Vec<_> = zones
        .iter()
        .map(|zone| (zone.name.to_string(), zone.forward.len(), zone.dnssec))
        .collect();
    let expected = [
        ("corp.example.".to_owned(), 2, false),
        ("2.0.192.in-addr.arpa.".to_owned(), 1, true),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn a_relay_for_lookups_is_off_unless_there_is_its_table_and_never_its_own_target() {
    let with = |table: &str| {
        let tail =
            format!("dnssec = true\npublic-listen = [\"203.0.113.1:443\"]\n[dns.relay]\n{table}");
        read(&SAMPLE.replace("dnssec = true", &tail))
    };

    assert!(read(SAMPLE).unwrap().dns_relay.is_none());
    let wrong = with("ports = [0]\nmax-exchanges = 0\nallow-private-targets = true").unwrap_err();
    let keys = wrong.iter().map(|mistake| mistake.to_string());
    let keys: Vec<_> = keys
        .map(|text| text.split(':').next().unwrap().to_owned())
        .collect();
    assert_eq!(
        keys,
        [
            "dns.relay.ports",
            "dns.relay.max-exchanges",
            "dns.relay.allow-private-targets"
        ]
    );
    let relay = with("").unwrap().dns_relay.unwrap();
    assert_eq!((relay.ports, relay.private_targets), (vec![443], false));
    for own in [
        "203.0.113.1:443",
        "10.64.0.1:443",
        "198.18.1.2:443",
        "0.0.0.0:51820",
    ] {
        assert!(
            relay.own.contains(&own.parse().unwrap()),
            "{own}: {:?}",
            relay.own
        );
    }
    assert_eq!(relay.behind.len(), 2);
}

#[test]
fn a_url_is_an_https_authority_and_nothing_more() {
    for wrong in [
        "",
        "198.18.2.2:8443",
        "http://a",
        "https://a/path",
        "https://a?q",
        "https://",
    ] {
        assert_eq!(wrong.parse::<ServerUrl>(), Err(UnreadableUrl), "{wrong:?}");
    }
    let url: ServerUrl = "https://[2001:db8::2]:8443".parse().unwrap();
    assert_eq!((url.host.as_str(), url.port), ("2001:db8::2", 8443));
    assert_eq!(url.authority(), "[2001:db8::2]:8443");
}

#[test]
fn the_sample_configuration_is_accepted() {
    let config = read(SAMPLE).unwrap();

    assert_eq!(config.tunnel.mtu, 1420);
    assert_eq!(config.provisioning.url.port, 8443);
    assert_eq!(config.nat.unwrap().interface, "inet0");
    assert_eq!(
        config.dns.unwrap().upstream,
        Upstream::Forward(vec!["203.0.113.10:53".parse().unwrap()])
    );
}

/// The sample with everything in use that it shows, but for what excludes something else.
fn whole_sample() -> String {
    let begins = |text: &str| {
        text.starts_with('[') || text.split_once(" = ").is_some_and(|(key, _)| is_key(key))
    };
    let in_use = |line: &str| match line.strip_prefix("# ") {
        Some(rest) if begins(rest) && !rest.starts_with("roots") => rest.to_owned(),
        Some(_) | None => line.to_owned(),
    };
    let lines: Vec<_> = SAMPLE.lines().map(in_use).collect();
    lines.join("\n")
}

fn is_key(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[test]
fn whatever_the_sample_shows_stands_where_it_is_read() {
    let config = read(&whole_sample()).unwrap();

    let dns = config.dns.unwrap();
    assert!(dns.listen.contains(&"203.0.113.1:443".parse().unwrap()));
    assert!(dns.rate.is_some() && dns.doors.is_some());
    assert_eq!(dns.cache_bytes, 24 << 20);
    assert_eq!(dns.zones.len(), 1);
    assert_eq!(dns.dns64, "64:ff9b::/96".parse().ok());
    assert!(config.dns_relay.is_some() && config.sampling.is_some());
    assert!(config.announce.is_some());
}

#[test]
fn announcements_have_a_table_of_their_own_and_a_protocol_that_is_not_the_kernels() {
    let with = |table: &str| read(&format!("{SAMPLE}\n[announce]\n{table}"));

    assert_eq!(
        with("table = 254").unwrap_err(),
        [
            "announce.table: is a table that packets are routed by; accepted: any other than 253 to 255"
        ]
    );
    assert_eq!(with("protocol = 4").unwrap_err().len(), 1);
    assert_eq!(
        with("").unwrap().announce,
        Some(Announce {
            table: 17_238,
            protocol: 67
        })
    );
    assert_eq!(read(SAMPLE).unwrap().announce, None);
}

#[test]
fn an_address_that_two_parts_would_have_is_found_by_port_kind_and_wildcard() {
    for (from, to, said) in [
        (
            "dnssec = true",
            "dnssec = true\npublic-listen = [\"198.18.1.2:443\"]",
            "relay.listen: 198.18.1.2:443 is not free beside 198.18.1.2:443 of dns.public-listen",
        ),
        (
            "listen = [\"198.18.1.2:443\"]",
            "listen = [\"0.0.0.0:443\"]",
            "relay.listen: 0.0.0.0:443 is not free beside 10.64.0.1:443 of dns.listen",
        ),
        (
            "listen = [\"198.18.1.2:443\"]",
            "listen = [\"198.18.1.2:51820\"]",
            "relay.listen: 198.18.1.2:51820 is not free beside 0.0.0.0:51820 of tunnel.listen",
        ),
        (
            "127.0.0.1:9101",
            "198.18.1.2:443",
            "metrics.listen: 198.18.1.2:443 is not free beside 198.18.1.2:443 of relay.listen",
        ),
        (
            "\"[fd64::1]:443\"",
            "\"10.64.0.1:443\"",
            "dns.listen: 10.64.0.1:443 is not free beside 10.64.0.1:443 of dns.listen",
        ),
    ] {
        let mistakes = mistakes_with(from, to);
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].starts_with(said), "{mistakes:?}");
    }

    let metrics = SAMPLE.replace("127.0.0.1:9101", "127.0.0.1:51820");
    assert!(
        read(&metrics).is_ok(),
        "UDP and TCP have ports of their own"
    );
}

#[test]
fn a_rate_has_a_burst_of_five_seconds_and_a_burst_has_a_rate() {
    let alone = mistakes_with("# rate = 200 ", "burst = 10\n#");
    let beyond = mistakes_with("# rate = 200 ", "rate = 10001\n#");
    let rate = read(&SAMPLE.replace("# rate = 200 ", "rate = 200\n#")).unwrap();

    assert!(alone[0].starts_with("dns.rate: is missing"), "{alone:?}");
    assert!(beyond[0].starts_with("dns.rate: is 10001"), "{beyond:?}");
    assert_eq!(rate.dns.unwrap().rate.unwrap().burst.get(), 1_000);
}

#[test]
fn the_memory_for_answers_has_bounds_and_a_default() {
    let with =
        |line: &str| read(&SAMPLE.replace("dnssec = true", &format!("dnssec = true\n{line}")));

    for (wrong, said) in [("0", "0"), ("65537", "65537"), ("\"24\"", "a text")] {
        assert_eq!(
            with(&format!("cache-mb = {wrong}")).unwrap_err(),
            [format!(
                "dns.cache-mb: is {said}; accepted: a whole number from 1 to 65536"
            )]
        );
    }
    let bytes = |line| with(line).unwrap().dns.unwrap().cache_bytes;
    assert_eq!(bytes(""), 24 << 20);
    assert_eq!(bytes("cache-mb = 512"), 512 << 20);
}
