use super::*;

const SAMPLE: &str = include_str!("../../../docs/config/cpe-agent.toml");
pub(super) const SMALLEST: &str = r#"
[provisioning]
url = "https://198.18.2.2:8443"
spki-sha256 = ["00000000000000000000000000000000000000000000000000000000000000ff"]
[wan]
interface = "wan0"
[lan]
interfaces = ["lan0"]
"#;

pub(super) fn keys_of_mistakes(text: &str) -> Vec<String> {
    let Err(Mistakes(mistakes)) = parse(text) else {
        return Vec::new();
    };
    mistakes.into_iter().map(|mistake| mistake.key).collect()
}

#[test]
fn an_empty_file_names_every_missing_key() {
    assert_eq!(
        keys_of_mistakes(""),
        [
            "provisioning.url",
            "provisioning.spki-sha256",
            "wan.interface",
            "lan.interfaces"
        ]
    );
}

#[test]
fn all_mistakes_are_named_at_once_with_their_key_paths() {
    let text = r#"
        state-dir = "relative"
        kill-switch = "yes"
        colour = "blue"
        log-level = "loud"
        [provisioning]
        url = "https://provisioning.example:8443"
        spki-sha256 = ["abc"]
        [wan]
        interface = "a name; drop"
        mtu = 3
        [lan]
        interfaces = []
        dns-listen = ["192.168.1.1"]
        dns-redirect = 1
        [tunnel]
        interface = "sixteen-letters-"
        mtu = 1279
        dscp = 64
        keepalive-s = 4
    "#;

    assert_eq!(
        keys_of_mistakes(text),
        [
            "state-dir",
            "kill-switch",
            "log-level",
            "provisioning.url",
            "provisioning.spki-sha256",
            "wan.interface",
            "wan.mtu",
            "lan.interfaces",
            "lan.dns-listen",
            "lan.dns-redirect",
            "tunnel.interface",
            "tunnel.mtu",
            "tunnel.dscp",
            "tunnel.keepalive-s",
            "colour",
        ]
    );
}

#[test]
fn a_mistake_says_what_is_there_and_what_is_accepted() {
    let Err(mistakes) = parse(&SMALLEST.replace("https://198.18.2.2:8443", "http://198.18.2.2"))
    else {
        panic!("a server without TLS and port was accepted");
    };

    assert_eq!(
        mistakes.to_string(),
        "the configuration has mistakes:\n  provisioning.url: is \"http://198.18.2.2\"; accepted: https://ADDRESS:PORT \
         with an IP address, since names cannot be resolved before the tunnel stands"
    );
}

#[test]
fn interfaces_with_two_roles_are_refused() {
    let wan_is_lan = SMALLEST.replace("\"lan0\"", "\"lan0\", \"wan0\"");
    let backup_is_wan = SMALLEST.replace("\"wan0\"", "\"wan0\"\nbackup = \"wan0\"");
    let backup_is_lan = SMALLEST.replace("\"wan0\"", "\"wan0\"\nbackup = \"lan0\"");
    let tunnel_is_lan = format!("{SMALLEST}\n[tunnel]\ninterface = \"lan0\"\n");

    assert_eq!(keys_of_mistakes(&wan_is_lan), ["lan.interfaces"]);
    assert_eq!(keys_of_mistakes(&backup_is_wan), ["wan.backup"]);
    assert_eq!(keys_of_mistakes(&backup_is_lan), ["lan.interfaces"]);
    assert_eq!(keys_of_mistakes(&tunnel_is_lan), ["tunnel.interface"]);
}

#[test]
fn text_that_is_not_toml_is_one_mistake() {
    assert_eq!(keys_of_mistakes("[provisioning\nurl"), ["the file"]);
    assert_eq!(
        keys_of_mistakes("wan = 3"),
        [
            "provisioning.url",
            "provisioning.spki-sha256",
            "wan",
            "lan.interfaces"
        ]
    );
}

#[test]
fn doubled_pins_and_addresses_are_refused() {
    let pin = "00000000000000000000000000000000000000000000000000000000000000ff";
    let doubled = SMALLEST.replace(
        &format!("[\"{pin}\"]"),
        &format!("[\"{pin}\", \"{}\"]", pin.to_uppercase()),
    );

    assert_eq!(keys_of_mistakes(&doubled), ["provisioning.spki-sha256"]);
}

#[test]
fn the_smallest_file_gets_the_documented_defaults() {
    let config = parse(SMALLEST).unwrap();

    assert_eq!(config.kill_switch, KillSwitch::On);
    assert_eq!(config.tunnel.mtu, 1420);
    assert_eq!(config.tunnel.keepalive, Duration::from_secs(25));
    assert_eq!(config.user, "nobody");
    assert_eq!(config.provisioning.pins[0][31], 0xff);
    assert!(config.lan.dns_listen.is_empty());
}

#[test]
fn the_documented_sample_is_right_and_so_are_its_commented_defaults() {
    let bare = parse(SAMPLE).unwrap();
    let is_setting = |line: &str| {
        line.strip_prefix("# ").is_some_and(|rest| {
            rest.split_once(" = ")
                .is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        })
    };
    let uncommented: Vec<&str> = SAMPLE
        .lines()
        .map(|line| if is_setting(line) { &line[2..] } else { line })
        .collect();

    assert_eq!(parse(&uncommented.join("\n")).unwrap(), bare);
}
