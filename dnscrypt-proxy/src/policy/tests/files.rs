//! Hosts, leases and lists: what their lines say, and when they are read again.

use std::io::{BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::*;
use crate::policy::lists::{Says, names_in};

const NOW_S: u64 = 1_000;

fn said(line: &[u8]) -> Vec<(Says, String)> {
    let mut all = Vec::new();
    names_in(line, &mut |says, name| {
        let mut text = String::new();
        for at in name::labels(name) {
            let len = usize::from(name[at]);
            text += std::str::from_utf8(&name[at + 1..=at + len]).unwrap();
            text.push('.');
        }
        all.push((says, text));
    });
    all
}

fn block(names: &[&str]) -> Vec<(Says, String)> {
    names
        .iter()
        .map(|name| (Says::Block, (*name).to_owned()))
        .collect()
}

fn write(path: &Path, text: impl AsRef<[u8]>) {
    // Another file in the place of the first, as most programs write.
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(beside, path).unwrap();
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn blocking(blocklist: &Path, allowlists: Vec<PathBuf>) -> Policy {
    let policy = Policy::new(Rules {
        blocklists: vec![blocklist.to_owned()],
        allowlists,
        ..Rules::default()
    });
    policy.settle();
    policy
}

#[test]
fn lines_that_say_something_finer_than_a_name_or_nothing_block_nothing() {
    for line in [
        &b""[..],
        b"# ads.example",
        b"! ads.example",
        b"[Adblock Plus 2.0]",
        b"ads.example junk",
        b"ads.example/path",
        b"https://ads.example",
        b"example.com##.banner",
        b"example.com#@#.banner",
        b"||ads.example^$script",
        b"||ads.example^$third-party",
        b"||ads.example",
        b"||ads.example/x^",
        b"||ads.*^",
        b"|ads.example^",
        b"/ads[0-9]+/",
        b"-ads.",
        b"localhost",
        b"127.0.0.1 localhost",
        b"0.0.0.0",
        b"0.0.0.0 # ads.example",
        b"ads..example",
        b"ads.ex\xe4mple",
        "wérbung.example".as_bytes(),
        b"a\0b.example",
        b"\xff\xfe\xfd",
    ] {
        assert_eq!(said(line), [], "{}", String::from_utf8_lossy(line));
    }
    assert_eq!(said("a.".repeat(150).as_bytes()), [], "over 255 bytes");
    assert_eq!(said(format!("{}.example", "a".repeat(64)).as_bytes()), []);
}

#[test]
fn three_formats_are_read() {
    assert_eq!(
        said(b"0.0.0.0 Ads.Example t.example # c.example"),
        block(&["ads.example.", "t.example."])
    );
    assert_eq!(said(b"::1\tads.example"), block(&["ads.example."]));
    assert_eq!(said(b"ads.example."), block(&["ads.example."]));
    assert_eq!(said(b"*.ads.example #why"), block(&["ads.example."]));
    assert_eq!(said(b"\xef\xbb\xbfads.example"), block(&["ads.example."]));
    assert_eq!(said(b"||ads.example^"), block(&["ads.example."]));
    assert_eq!(said(b"||zip^$important"), block(&["zip."]));
    assert_eq!(
        said(b"@@||good.example^"),
        [(Says::Allow, "good.example.".to_owned())]
    );
}

#[test]
fn a_line_of_a_gigabyte_is_passed_over_and_the_next_one_read() {
    let endless = std::io::repeat(b'a').take(1 << 30);
    let text = endless
        .chain(&b"\nads.example\r\n \n"[..])
        .chain(&b"last.example"[..]);
    let mut lines = Vec::new();

    let last = lines::whole_lines(&mut BufReader::new(text), &mut |line| {
        lines.push(line.iter().take(20).copied().collect::<Vec<_>>())
    })
    .unwrap();

    assert_eq!(lines, [&b"ads.example"[..], b""]);
    assert_eq!(last, b"last.example");
}

#[test]
fn half_a_line_at_the_bound_of_a_file_is_not_believed() {
    let folder = folder();
    let file = folder.path().join("list");
    write(&file, "a.example\nads.example.com\n");
    let read = |most_bytes| {
        let mut lines = Vec::new();
        lines::of_file(&file, most_bytes, &mut |line| {
            lines.push(String::from_utf8(line.to_vec()).unwrap());
        });
        lines
    };

    // "ads.example" is another name than "ads.example.com".
    assert_eq!(read(21), ["a.example"]);
    assert_eq!(read(10), ["a.example"]);
    assert_eq!(read(26), ["a.example", "ads.example.com", ""]);
    write(&file, "a.example\nads.example");
    assert_eq!(read(21), ["a.example", "ads.example"]);
}

#[test]
fn what_could_not_be_made_of_files_is_tried_again_at_the_next_look() {
    let (folder, mut watched) = (folder(), Watched::<Option<u8>>::default());
    let file = folder.path().join("list");
    write(&file, "ads.example\n");
    let stamps = Stamp::of_all(&[&file]);

    watched.follow(stamps.clone(), || None);
    assert_eq!(watched.made, None);
    watched.follow(stamps.clone(), || Some(1));
    watched.follow(stamps, || Some(2));

    assert_eq!(watched.made, Some(1));
}

#[test]
fn that_an_address_has_no_name_is_soon_forgotten_where_leases_are_read() {
    let private = "9.1.168.192.in-addr.arpa";
    let lifetimes = |policy: &Policy| {
        let own = answer(policy, private, RecordType::PTR).unwrap();
        let asked = query("1.2.0.192.in-addr.arpa", RecordType::PTR);
        let mut message = Message::from_vec(&asked.to_upstream(7, 1232)).unwrap();
        message = message.into_response();
        message.metadata.response_code = ResponseCode::NXDomain;
        message.add_authority(own.authorities[0].clone());
        let response = Response::read(&message.to_vec().unwrap(), &asked).unwrap();
        let judged = policy.judge(&asked, response);
        (own.authorities[0].ttl, judged.lifetime_s)
    };
    let (_folder, with_leases) = home("", "");

    assert_eq!(lifetimes(&plain()), (SPECIAL_TTL_S, Some(SPECIAL_TTL_S)));
    assert_eq!(lifetimes(&with_leases), (HOME_TTL_S, None));
    let bare = answer(&with_leases, "phone", RecordType::A).unwrap();
    assert_eq!(bare.authorities[0].ttl, HOME_TTL_S);
}

#[test]
fn a_listed_name_is_blocked_with_all_below_and_nothing_else_is() {
    let folder = folder();
    let list = folder.path().join("list");
    write(
        &list,
        "ads.example\n0.0.0.0 tracker.example\n@@||good.ads.example^\nsub.only.example\n",
    );
    let policy = blocking(&list, Vec::new());

    for name in [
        "example",
        "ads.example.com",
        "bads.example",
        "only.example",
        "xsub.only.example",
        "GOOD.ads.example",
        "x.good.ads.example",
    ] {
        assert!(answer(&policy, name, RecordType::NS).is_none(), "{name}");
    }
    for name in [
        "ads.example",
        "X.y.ADS.example",
        "tracker.example",
        "sub.only.example",
    ] {
        let answer = answer(&policy, name, RecordType::TXT).unwrap();
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NXDomain,
            "{name}"
        );
        assert_eq!(extended_error(&answer), Some(15));
        assert_eq!(answer.authorities.len(), 1);
    }
    assert_eq!(policy.figures().blocked, 4);
}

#[test]
fn an_allowlist_wins_over_every_blocklist() {
    let folder = folder();
    let (list, allow) = (folder.path().join("list"), folder.path().join("allow"));
    write(&list, "ads.example\nother.example\n");
    write(&allow, "ads.example\n");
    let policy = blocking(&list, vec![allow]);

    assert!(answer(&policy, "x.ads.example", RecordType::A).is_none());
    assert!(answer(&policy, "x.other.example", RecordType::A).is_some());
}

#[test]
fn a_blocked_name_may_have_the_address_that_leads_nowhere() {
    let folder = folder();
    let list = folder.path().join("list");
    write(&list, "ads.example\n");
    let policy = Policy::new(Rules {
        blocklists: vec![list],
        block_answer: BlockAnswer::Zero,
        ..Rules::default()
    });
    policy.settle();

    let of = |rtype| addresses(&answer(&policy, "ads.example", rtype).unwrap());
    assert_eq!(of(RecordType::A), [IpAddr::from([0; 4])]);
    assert_eq!(of(RecordType::AAAA), [IpAddr::from([0; 16])]);
    assert!(of(RecordType::HTTPS).is_empty());
}

#[test]
fn an_answer_whose_alias_is_blocked_is_not_given() {
    let folder = folder();
    let list = folder.path().join("list");
    write(&list, "tracker.example\n@@||fine.example^\n");
    let policy = blocking(&list, Vec::new());
    let judged = |name: &str, target: &[u8]| {
        let query = query(name, RecordType::A);
        let (own, _) = query.own_answer(0, 60).name(RecordType::CNAME, target);
        policy.judge(&query, Response::read(&own.end(0), &query).unwrap())
    };

    let other = judged("www.shop.example", b"\x03cdn\x04shop\x07example\0");
    let allowed = judged("www.fine.example", b"\x07tracker\x07example\0");
    let blocked = judged("www.shop.example", b"\x04Shop\x07TRACKER\x07example\0");

    assert_eq!((other.rcode, other.error), (0, None));
    assert_eq!((allowed.rcode, allowed.error), (0, None));
    assert_eq!(
        (blocked.rcode, blocked.error),
        (3, Some(ExtendedError::Blocked))
    );
}

#[test]
fn a_list_is_read_again_when_it_has_changed_and_looked_at_no_more_than_once_in_a_while() {
    let folder = folder();
    let list = folder.path().join("list");
    let policy = blocking(&list, Vec::new());
    let (first, second) = (
        query("one.example", RecordType::A),
        query("two.example", RecordType::A),
    );
    let is_blocked = |query: &Query, now_s| {
        matches!(
            policy.decide(query, &query.key(), now_s),
            Verdict::Answer(_)
        )
    };
    assert!(!is_blocked(&first, NOW_S));
    let before = policy.generation();

    write(&list, "one.example\ntwo.example\n");
    assert!(!is_blocked(&first, NOW_S + 1));
    policy.settle();
    assert!(!is_blocked(&first, NOW_S + 1), "not looked at yet");
    is_blocked(&second, NOW_S + 3);
    policy.settle();
    assert!(is_blocked(&first, NOW_S + 3));
    assert_ne!(policy.generation(), before, "what was kept is forgotten");

    std::fs::remove_file(&list).unwrap();
    is_blocked(&second, NOW_S + 6);
    policy.settle();
    assert!(!is_blocked(&first, NOW_S + 6));
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let folder = folder();
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo")
        .arg(&pipe)
        .status()
        .unwrap();
    assert!(made.success());

    let policy = blocking(&pipe, vec![folder.path().to_owned()]);

    assert!(answer(&policy, "ads.example", RecordType::A).is_none());
}

fn home(hosts: &str, leases: &str) -> (tempfile::TempDir, Policy) {
    let folder = folder();
    let (hosts_file, leases_file) = (folder.path().join("hosts"), folder.path().join("leases"));
    write(&hosts_file, hosts);
    write(&leases_file, leases);
    let policy = Policy::new(Rules {
        local_domain: Some("lan".parse().unwrap()),
        hosts_files: vec![hosts_file],
        leases_files: vec![leases_file],
        ..Rules::default()
    });
    (folder, policy)
}

fn texts(policy: &Policy, name: &str, rtype: RecordType) -> Vec<String> {
    let answer = answer(policy, name, rtype).unwrap_or_else(|| panic!("{name} was asked"));
    answer
        .answers
        .iter()
        .map(|record| record.data.to_string())
        .collect()
}

#[test]
fn lines_of_leases_that_are_not_one_name_no_name() {
    let (_folder, policy) = home(
        "192.168.1.1 router\n",
        "1700000000 aa:bb:cc:dd:ee:ff 192.168.1.9 * 01:aa\nduid 00:01:00:01\n1700000000 aa 192.168.1.10 wpad *\n\
         1700000000 aa 192.168.1.11 a.lan *\n1700000000 aa 192.168.1.12 b\u{e4}d *\n1700000000 aa not-an-address c *\n\
         soon aa 192.168.1.13 d *\n1700000000 aa 192.168.1.14\n1700000000 aa 192.168.1.15 router *\n0 aa 192.168.1.16 LOCALHOST *\n",
    );

    assert_eq!(lock(&policy.home).made.len(), 1);
    assert_eq!(
        texts(&policy, "router.lan", RecordType::A),
        ["192.168.1.1"],
        "a device took the router's name"
    );
}

#[test]
fn a_device_is_found_by_its_name_bare_or_whole_and_by_its_address() {
    let (_folder, policy) = home(
        "# comment\n127.0.0.1 localhost myself\n::1 localhost\n192.168.1.5 nas nas.Example.com # the box\nfd01::5 nas\n",
        "0 aa:bb:cc:dd:ee:ff 192.168.1.9 Phone 01:aa\n1700000000 1234 fd01::9 phone 00:01\n",
    );

    assert_eq!(texts(&policy, "NAS.lan", RecordType::A), ["192.168.1.5"]);
    assert_eq!(texts(&policy, "nas", RecordType::AAAA), ["fd01::5"]);
    assert_eq!(
        texts(&policy, "nas.example.com", RecordType::A),
        ["192.168.1.5"]
    );
    assert_eq!(
        texts(&policy, "phone.lan", RecordType::ANY),
        ["192.168.1.9", "fd01::9"]
    );
    assert_eq!(texts(&policy, "nas.lan", RecordType::MX), [""; 0]);
    assert_eq!(texts(&policy, "myself.lan", RecordType::A), [""; 0]);
    assert_eq!(
        texts(&policy, "9.1.168.192.in-addr.arpa", RecordType::PTR),
        ["phone.lan."]
    );
    let reverse = hickory_proto::rr::Name::from("fd01::5".parse::<IpAddr>().unwrap()).to_ascii();
    assert_eq!(texts(&policy, &reverse, RecordType::PTR), ["nas.lan."]);
    let below = answer(&policy, "example.com", RecordType::A);
    assert!(below.is_none(), "names beside a known one are asked");
}

#[test]
fn a_lease_is_known_and_forgotten_with_its_line() {
    let (folder, policy) = home("", "");
    let leases = folder.path().join("leases");
    let query = query("phone.lan", RecordType::A);
    let rcode = |now_s| match policy.decide(&query, &query.key(), now_s) {
        Verdict::Answer(made) => made.stored[3] & 15,
        other @ (Verdict::Pass | Verdict::Alias(_)) => panic!("{other:?}"),
    };
    let before = policy.generation();
    assert_eq!(rcode(NOW_S), 3);

    write(&leases, "0 aa 192.168.1.9 phone *\n");
    assert_eq!(rcode(NOW_S + 2), 3, "looked at too soon");
    assert_eq!(rcode(NOW_S + 3), 0);
    write(&leases, "\n");
    assert_eq!(rcode(NOW_S + 6), 3);
    assert_eq!(
        policy.generation(),
        before,
        "leases have no part in what is cached"
    );
}

#[test]
fn a_flood_of_names_is_bounded() {
    let lines: String = (0..10_000)
        .map(|n| format!("0 aa 10.0.{}.{} h{n} *\n", n / 250, n % 250))
        .collect();
    let many: String = (0..100).map(|n| format!("10.1.0.{n} same\n")).collect();

    let (_folder, policy) = home(&many, &lines);

    assert_eq!(lock(&policy.home).made.len(), home::MAX_NAMES);
    assert_eq!(
        texts(&policy, "same", RecordType::A).len(),
        home::MAX_ADDRESSES
    );
}

proptest! {
    #[test]
    fn files_of_any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let path = file.path().to_owned();

        let policy = Policy::new(Rules {
            hosts_files: vec![path.clone()],
            leases_files: vec![path.clone()],
            blocklists: vec![path],
            ..Rules::default()
        });
        policy.settle();

        prop_assert!(answer(&policy, "www.example.com", RecordType::A).is_none());
    }

    #[test]
    fn what_was_put_into_a_set_is_in_it(names in prop::collection::hash_set("[a-z0-9]{1,12}(\\.[a-z0-9]{1,12}){0,3}", 0..300)) {
        let mut set = hashed::HashedNames::with_room_for(names.len());
        for name in &names {
            set.insert(name.parse::<WireName>().unwrap().as_bytes());
        }

        prop_assert_eq!(set.len(), names.len());
        for name in &names {
            let below = format!("x-y.{name}");
            prop_assert!(set.has_name_or_above(below.parse::<WireName>().unwrap().as_bytes()));
        }
        prop_assert!(!set.has_name_or_above("not-there".parse::<WireName>().unwrap().as_bytes()));
    }
}
