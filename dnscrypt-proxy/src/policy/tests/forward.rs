//! Zones that are asked of servers of the network's own.

use super::*;

fn forwarding(forwards: &[&str], rules: Rules) -> Policy {
    let forwards = forwards.iter().map(|text| text.parse().unwrap());
    Policy::new(Rules {
        forwards: forwards.collect(),
        ..rules
    })
}

fn first_server(policy: &Policy, name: &str) -> Option<String> {
    let servers = policy.servers(&query(name, RecordType::A))?;
    Some(servers[0].to_string())
}

#[test]
fn a_forward_needs_a_zone_and_servers_that_are_inside() {
    for text in [
        "",
        ".",
        "corp.example",
        "corp..example 10.0.0.1",
        "corp.example dns.corp.example",
        "corp.example 10.0.0.1:0",
        "corp.example 10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5",
        "corp.example 0.0.0.0",
        "corp.example 255.255.255.255",
        "corp.example 224.0.0.251",
        "corp.example ::",
        "corp.example fe80::1",
        "corp.example ff02::fb",
        "corp.example ::ffff:10.0.0.1",
        "corp.example 64:ff9b::a00:1",
        "corp.example 172.32.0.1",
        "corp.example 8.8.8.8",
        "corp.example 10.0.0.1 8.8.8.8",
        "corp.example 2001:db8::1",
    ] {
        assert!(text.parse::<Forward>().is_err(), "{text}");
    }
    let outside = "corp.example 8.8.8.8".parse::<Forward>().unwrap_err();
    assert_eq!(
        outside.to_string(),
        "8.8.8.8 is not inside this network, and would be asked in clear"
    );
    for text in [
        "lan 127.0.0.1:5353",
        "corp.example. 10.0.0.1 [fd00::1]:5353 fd00::2",
        "10.in-addr.arpa 100.100.100.100",
    ] {
        assert!(text.parse::<Forward>().is_ok(), "{text}");
    }
}

#[test]
fn names_that_no_server_has_are_not_forwarded_by_themselves_nor_by_a_zone_above_them() {
    for zone in [
        "localhost",
        "a.LOCALHOST",
        "invalid",
        "x.onion",
        "alt",
        "resolver.arpa",
    ] {
        let forward = format!("{zone} 10.0.0.1").parse::<Forward>();
        assert!(matches!(forward, Err(NotAForward::Special(_))), "{zone}");
    }
    let policy = forwarding(&["arpa 10.0.0.1"], Rules::default());
    for name in ["resolver.arpa", "_dns.resolver.arpa"] {
        assert_eq!(first_server(&policy, name), None, "{name}");
        assert!(answer(&policy, name, RecordType::SVCB).is_some(), "{name}");
    }

    // What networks have names in of their own.
    for zone in [
        "home.arpa",
        "internal",
        "corp.local",
        "test",
        "service.arpa",
        "168.192.in-addr.arpa",
    ] {
        assert!(
            format!("{zone} 10.0.0.1").parse::<Forward>().is_ok(),
            "{zone}"
        );
    }
}

#[test]
fn a_zone_that_is_there_twice_in_any_spelling_is_told_with_what_to_do() {
    let forwards = [
        "corp.example 10.0.0.1",
        "b.corp.example 10.0.0.1",
        "Corp.Example. 10.0.0.2",
    ];
    let rules = Rules {
        forwards: forwards.iter().map(|text| text.parse().unwrap()).collect(),
        ..Rules::default()
    };

    let wrong: Vec<_> = rules
        .wrong_forwards(&[], |_| false)
        .map(|wrong| wrong.to_string())
        .collect();

    assert_eq!(
        wrong,
        ["corp.example is there twice: give all its servers in one entry"]
    );
}

#[test]
fn a_server_that_is_there_twice_is_refused() {
    let twice = "lan 10.0.0.1 10.0.0.2 10.0.0.1:53".parse::<Forward>();

    let refused = twice.unwrap_err().to_string();
    assert_eq!(refused, "the server 10.0.0.1:53 is there twice");
}

#[test]
fn a_server_that_is_oneself_is_told_where_one_listens_on_every_address() {
    let rules = Rules {
        forwards: vec![
            "lan 10.0.0.1 10.0.0.2 10.0.0.1:5353 fd00::1"
                .parse()
                .unwrap(),
        ],
        ..Rules::default()
    };
    let own = |address: IpAddr| address.to_string().ends_with('1');
    let loops = |listen: &str| {
        let listen = [listen.parse().unwrap()];
        let wrong = rules.wrong_forwards(&listen, own).map(|wrong| {
            let NotAForward::Loop(server) = wrong else {
                panic!("{wrong}")
            };
            server.to_string()
        });
        wrong.collect::<Vec<_>>()
    };

    assert_eq!(loops("10.0.0.9:53"), [""; 0]);
    assert_eq!(loops("10.0.0.2:53"), ["10.0.0.2:53"]);
    assert_eq!(loops("0.0.0.0:53"), ["10.0.0.1:53"]);
    assert_eq!(loops("[::]:53"), ["10.0.0.1:53", "[fd00::1]:53"]);
    assert_eq!(loops("[::ffff:10.0.0.2]:53"), ["10.0.0.2:53"]);
    assert_eq!(loops("0.0.0.0:54"), [""; 0]);
}

#[test]
fn names_beside_a_forwarded_zone_are_not_for_its_servers() {
    let policy = forwarding(&["corp.example 10.0.0.1"], Rules::default());

    for name in [
        "example",
        "xcorp.example",
        "corp.example.net",
        "www.example",
    ] {
        assert_eq!(first_server(&policy, name), None, "{name}");
    }
    for name in ["corp.example", "WWW.Corp.Example", "a.b.corp.example"] {
        let server = first_server(&policy, name);
        assert_eq!(server.as_deref(), Some("10.0.0.1:53"), "{name}");
    }
}

#[test]
fn the_smallest_zone_of_a_name_has_it_whatever_the_order() {
    let (wide, small) = ("corp.example 10.0.0.1", "lab.corp.example 10.0.0.2:5353");

    for forwards in [[wide, small], [small, wide]] {
        let policy = forwarding(&forwards, Rules::default());
        let server = first_server(&policy, "www.lab.corp.example");
        assert_eq!(server.as_deref(), Some("10.0.0.2:5353"));
        let server = first_server(&policy, "www.corp.example");
        assert_eq!(server.as_deref(), Some("10.0.0.1:53"));
    }
}

#[test]
fn what_standards_or_the_homes_domain_would_deny_is_asked_of_a_server_that_is_named_for_it() {
    let rules = || Rules {
        local_domain: Some("lan".parse().unwrap()),
        aaaa: Aaaa::Denied,
        ..Rules::default()
    };
    let forwards = [
        "lan 10.0.0.1",
        "corp.local 10.0.0.1",
        "10.in-addr.arpa 10.0.0.1",
    ];
    let policy = forwarding(&forwards, rules());
    let without = forwarding(&[], rules());

    for (name, rtype) in [
        ("nas.lan", RecordType::A),
        ("nas.lan", RecordType::AAAA),
        ("dc.corp.local", RecordType::SRV),
        ("5.0.0.10.in-addr.arpa", RecordType::PTR),
    ] {
        assert!(answer(&policy, name, rtype).is_none(), "{name} {rtype}");
        assert!(answer(&without, name, rtype).is_some(), "{name} {rtype}");
    }
    for name in ["printer.local", "1.1.168.192.in-addr.arpa"] {
        assert!(answer(&policy, name, RecordType::PTR).is_some(), "{name}");
    }
}

#[test]
fn what_the_home_knows_by_itself_and_what_a_list_blocks_is_not_asked_of_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let (hosts, list) = (folder.path().join("hosts"), folder.path().join("list"));
    std::fs::write(&hosts, "10.0.0.9 nas.lan\n").unwrap();
    std::fs::write(&list, "ads.corp.example\n").unwrap();
    let rules = Rules {
        local_domain: Some("lan".parse().unwrap()),
        hosts_files: vec![hosts],
        blocklists: vec![list],
        ..Rules::default()
    };
    let policy = forwarding(&["lan 10.0.0.1", "corp.example 10.0.0.1"], rules);
    policy.settle();

    let nas = answer(&policy, "nas.lan", RecordType::A).unwrap();
    assert_eq!(addresses(&nas), ["10.0.0.9".parse::<IpAddr>().unwrap()]);
    let blocked = answer(&policy, "ads.corp.example", RecordType::A).unwrap();
    assert_eq!(extended_error(&blocked), Some(15));
    assert!(answer(&policy, "other.lan", RecordType::A).is_none());
}
