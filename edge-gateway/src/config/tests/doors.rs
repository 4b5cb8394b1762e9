use super::*;

const DOORS: &str = r#"
[dns.doors]
name = "dns.pop1.example"
certificate-file = "/etc/culvert/dns.crt"
key-file = "/etc/culvert/dns.key"
tls = ["10.64.0.1:853"]
https = ["10.64.0.1:8443"]
quic = ["10.64.0.1:853"]
"#;

/// The sample with doors and one text of these replaced.
fn with_doors(from: &str, to: &str) -> Result<Config, Vec<String>> {
    assert!(DOORS.contains(from), "there is no {from}");
    read(&format!("{SAMPLE}{}", DOORS.replace(from, to)))
}

#[test]
fn doors_are_inner_addresses_of_their_own_and_have_a_name() {
    for (from, to, said) in [
        (
            "name = \"dns.pop1.example\"",
            "",
            "dns.doors.name: is missing",
        ),
        (
            "dns.pop1.example",
            "-.example",
            "dns.doors.name: `-.example` is no host name",
        ),
        (
            "certificate-file",
            "key",
            "dns.doors.certificate-file: is missing",
        ),
        (
            "tls = [\"10.64.0.1:853\"]",
            "tls = [\"198.18.1.2:853\"]",
            "dns.doors.tls: 198.18.1.2 is not an inner address of this gateway",
        ),
        (
            "[\"10.64.0.1:8443\"]",
            "[\"10.64.0.1:443\", \"10.64.0.1:443\"]",
            "dns.doors.https: 10.64.0.1:443 is not free beside 10.64.0.1:443 of dns.doors.https",
        ),
        (
            "tls = [\"10.64.0.1:853\"]",
            "tls = [\"10.64.0.1:443\"]",
            "dns.doors.tls: 10.64.0.1:443 is not free beside 10.64.0.1:443 of dns.listen",
        ),
        (
            "quic = [\"10.64.0.1:853\"]",
            "quic = [\"10.64.0.1:443\"]",
            "dns.doors.quic: 10.64.0.1:443 is not free beside 10.64.0.1:443 of dns.listen",
        ),
        (
            "8443",
            "853",
            "dns.doors.https: 10.64.0.1:853 is not free beside 10.64.0.1:853 of dns.doors.tls",
        ),
    ] {
        let mistakes = with_doors(from, to).unwrap_err();
        assert!(mistakes[0].starts_with(said), "{to}: {mistakes:?}");
    }

    let doors = with_doors("x", "x").unwrap().dns.unwrap().doors.unwrap();
    assert_eq!((doors.max_connections, doors.max_per_source), (4096, 64));
}

#[test]
fn https_shares_the_port_of_dnscrypt_at_inner_addresses_and_at_no_public_one() {
    let https = "https = [\"10.64.0.1:8443\"]";
    let both = "https = [\"10.64.0.1:443\", \"10.64.0.1:8443\"]";
    let at = |text: &str| vec![text.parse::<SocketAddr>().unwrap()];

    let public = SAMPLE.replace(
        "dnssec = true",
        "dnssec = true\npublic-listen = [\"203.0.113.1:443\"]",
    );
    let doors = DOORS.replace(https, "https = [\"203.0.113.1:443\"]");
    let mistakes = read(&format!("{public}{doors}")).unwrap_err();
    let said = "dns.doors.https: 203.0.113.1 is not an inner address of this gateway";
    assert!(mistakes[0].starts_with(said), "{mistakes:?}");

    let config = with_doors(https, both).unwrap();
    let doors = config.dns.unwrap().doors.unwrap();
    assert_eq!(doors.shared, at("10.64.0.1:443"));
    assert_eq!(doors.https, at("10.64.0.1:8443"));
}
