use proptest::prelude::*;

use super::*;
use crate::proto::vectors::replay;

/// A stamp as dnscrypt-proxy's resolver lists have them.
const QUAD9: &str = "sdns://AQMAAAAAAAAADDkuOS45Ljk6ODQ0MyBnyEe4yHWM0SAkVUO-dWdG3zTfHYTAC4xHA2jfgh2GPhkyLmRuc2NyeXB0LWNlcnQucXVhZDkubmV0";

fn text(bytes: &[u8]) -> String {
    format!("{SCHEME}{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn dnscrypt(addr: &str, key: &[u8], name: &str) -> Vec<u8> {
    let mut bytes = vec![1, 7, 0, 0, 0, 0, 0, 0, 0];
    for field in [addr.as_bytes(), key, name.as_bytes()] {
        put(&mut bytes, field).unwrap();
    }
    bytes
}

fn failure(bytes: &[u8]) -> Option<StampError> {
    text(bytes).parse::<Stamp>().err()
}

#[test]
fn texts_that_are_no_stamps_are_refused() {
    assert_eq!("".parse::<Stamp>(), Err(StampError::NoScheme));
    assert_eq!(
        "https://example".parse::<Stamp>(),
        Err(StampError::NoScheme)
    );
    assert_eq!("sdns://".parse::<Stamp>(), Err(StampError::CutOff));
    assert_eq!("sdns://a b".parse::<Stamp>(), Err(StampError::NotBase64));
    assert_eq!("sdns://+/+/".parse::<Stamp>(), Err(StampError::NotBase64));
    assert_eq!(failure(&[0x99]), Some(StampError::UnknownKind(0x99)));
    assert_eq!(
        format!("sdns://{}", "A".repeat(5000)).parse::<Stamp>(),
        Err(StampError::TooLong)
    );
}

#[test]
fn a_stamp_cut_anywhere_is_refused_and_so_is_one_byte_more() {
    let whole = dnscrypt("192.0.2.1", &[7; 32], "2.dnscrypt-cert.example");

    for len in 0..whole.len() {
        assert!(failure(&whole[..len]).is_some(), "{len} bytes");
    }
    let longer = [&whole[..], &[0]].concat();
    assert_eq!(failure(&longer), Some(StampError::Trailing));
}

#[test]
fn wrong_keys_names_and_addresses_are_refused() {
    let name = "2.dnscrypt-cert.example";
    let wrong_key = failure(&dnscrypt("192.0.2.1", &[7; 31], name));
    let wrong_name = failure(&dnscrypt("192.0.2.1", &[7; 32], "a..b"));
    let no_name = failure(&dnscrypt("192.0.2.1", &[7; 32], ""));

    assert_eq!(wrong_key, Some(StampError::BadKey(31)));
    assert_eq!(wrong_name, Some(StampError::BadName("a..b".to_owned())));
    assert_eq!(no_name, Some(StampError::BadName(String::new())));
    for addr in [
        "",
        ":443",
        "example.com",
        "192.0.2",
        "192.0.2.1:",
        "192.0.2.1:99999",
        "[::1",
        "::1]",
    ] {
        let failure = failure(&dnscrypt(addr, &[7; 32], name));
        assert_eq!(
            failure,
            Some(StampError::BadAddress(addr.to_owned())),
            "{addr}"
        );
    }
}

#[test]
fn a_stamp_of_another_kind_is_no_dnscrypt_stamp() {
    let relay = Stamp::DnsCryptRelay {
        addr: "192.0.2.1:443".parse().unwrap(),
    };

    let outcome = relay.to_string().parse::<DnsCryptStamp>();

    assert_eq!(outcome, Err(NotDnsCrypt::OtherKind("a DNSCrypt relay")));
}

#[test]
fn a_published_stamp_reads_and_writes_back() {
    let stamp: DnsCryptStamp = QUAD9.parse().unwrap();

    assert_eq!(stamp.addr, "9.9.9.9:8443".parse().unwrap());
    assert_eq!(stamp.provider_name, "2.dnscrypt-cert.quad9.net");
    assert_eq!(
        hex::encode(stamp.provider_key),
        "67c847b8c8758cd120245543be756746df34df1d84c00b8c470368df821d863e"
    );
    assert!(
        stamp.props.has(Props::DNSSEC)
            && stamp.props.has(Props::NO_LOG)
            && !stamp.props.has(Props::NO_FILTER)
    );
    assert_eq!(stamp.to_string(), QUAD9);
}

#[test]
fn addresses_are_written_as_short_as_they_can_be_read() {
    let cases = [
        ("192.0.2.1", "192.0.2.1:443"),
        ("192.0.2.1:8443", "192.0.2.1:8443"),
        ("[2001:db8::1]", "[2001:db8::1]:443"),
        ("[2001:db8::1]:53", "[2001:db8::1]:53"),
    ];
    for (short, whole) in cases {
        let bytes = dnscrypt(short, &[7; 32], "2.dnscrypt-cert.example");
        let stamp: DnsCryptStamp = text(&bytes).parse().unwrap();
        assert_eq!(stamp.addr, whole.parse().unwrap());
        assert_eq!(stamp.to_string(), text(&bytes));
    }
}

fn tls(bootstrap: &[&str]) -> Tls {
    Tls {
        props: Props(5),
        addr: "192.0.2.1".to_owned(),
        hashes: vec![vec![1; 32], vec![2; 32]],
        host: "dns.example:8443".to_owned(),
        bootstrap: bootstrap.iter().map(|ip| (*ip).to_owned()).collect(),
    }
}

/// Length-prefixed fields behind a kind.
fn fields(kind: u8, props: &[u8], fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = [&[kind], props].concat();
    for field in fields {
        put(&mut bytes, field).unwrap();
    }
    bytes
}

/// Every kind but DNSCrypt's, in bytes put together by hand, and how it reads.
fn by_hand() -> Vec<(Vec<u8>, Stamp)> {
    const PROPS: [u8; 8] = [5, 0, 0, 0, 0, 0, 0, 0];
    // A list: the first of two hashes says by its high bit that another follows.
    let hashes = [&[0x80 | 32][..], &[1; 32], &[32], &[2; 32]].concat();
    let bootstrap = [&[0x80 | 9][..], b"192.0.2.2", &[9], b"192.0.2.3"].concat();
    let over_tls = |kind, path: &[u8], bootstrap: &[u8]| {
        let address = fields(kind, &PROPS, &[b"192.0.2.1"]);
        let host = fields(16, b"dns.example:8443", &[]);
        [&address[..], &hashes, &host, path, bootstrap].concat()
    };
    let path = fields(2, b"/q", &[]);
    let bootstrapped = tls(&["192.0.2.2", "192.0.2.3"]);
    vec![
        (
            fields(0x00, &PROPS, &[b"192.0.2.1"]),
            Stamp::Plain {
                props: Props(5),
                addr: "192.0.2.1:53".parse().unwrap(),
            },
        ),
        (
            over_tls(0x02, &path, &[]),
            Stamp::Doh(tls(&[]), "/q".to_owned()),
        ),
        (
            over_tls(0x02, &path, &bootstrap),
            Stamp::Doh(bootstrapped.clone(), "/q".to_owned()),
        ),
        (over_tls(0x03, &[], &[]), Stamp::Dot(tls(&[]))),
        (
            over_tls(0x04, &[], &bootstrap),
            Stamp::Doq(bootstrapped.clone()),
        ),
        (
            fields(0x05, &PROPS, &[b"odoh.example", b"/q"]),
            Stamp::OdohTarget {
                props: Props(5),
                host: "odoh.example".to_owned(),
                path: "/q".to_owned(),
            },
        ),
        (
            fields(0x81, &[], &[b"[2001:db8::1]"]),
            Stamp::DnsCryptRelay {
                addr: "[2001:db8::1]:443".parse().unwrap(),
            },
        ),
        (
            over_tls(0x85, &path, &bootstrap),
            Stamp::OdohRelay(bootstrapped, "/q".to_owned()),
        ),
    ]
}

#[test]
fn every_kind_cut_anywhere_is_refused_or_another_whole_stamp() {
    for (whole, stamp) in by_hand() {
        for len in 0..whole.len() {
            // What may be cut off is the list of bootstrap addresses, as a whole.
            match text(&whole[..len]).parse::<Stamp>() {
                Ok(
                    Stamp::Doh(tls, _)
                    | Stamp::Dot(tls)
                    | Stamp::Doq(tls)
                    | Stamp::OdohRelay(tls, _),
                ) => {
                    assert!(tls.bootstrap.is_empty());
                }
                Ok(other) => panic!("{other:?} of {stamp:?} at {len}"),
                Err(reason) => assert!(
                    matches!(reason, StampError::CutOff | StampError::BadAddress(_)),
                    "{reason:?}"
                ),
            }
        }
        let longer = [&whole[..], &[1]].concat();
        assert!(failure(&longer).is_some(), "{stamp:?}");
    }
}

#[test]
fn every_kind_is_laid_out_as_published() {
    for (bytes, stamp) in by_hand() {
        assert_eq!(text(&bytes).parse(), Ok(stamp.clone()));
        assert_eq!(stamp.to_string(), text(&bytes));
    }
}

#[test]
fn every_kind_reads_back_what_it_wrote() {
    let kinds = [
        Stamp::Plain {
            props: Props(0),
            addr: "[2001:db8::1]:53".parse().unwrap(),
        },
        Stamp::Doh(tls(&[]), "/dns-query".to_owned()),
        Stamp::Doh(tls(&["192.0.2.2", "192.0.2.3"]), "/dns-query".to_owned()),
        Stamp::Dot(tls(&[])),
        Stamp::Doq(tls(&["192.0.2.2"])),
        Stamp::OdohTarget {
            props: Props(u64::MAX),
            host: "odoh.example".to_owned(),
            path: "/q".to_owned(),
        },
        Stamp::DnsCryptRelay {
            addr: "192.0.2.1:4343".parse().unwrap(),
        },
        Stamp::OdohRelay(tls(&["192.0.2.2"]), "/proxy".to_owned()),
    ];
    for stamp in kinds {
        assert_eq!(stamp.to_string().parse(), Ok(stamp));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic_and_what_it_accepts_is_stable(
        kind in proptest::sample::select(vec![0_u8, 1, 2, 3, 4, 5, 0x81, 0x85]),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        check(&[&[kind], &bytes[..]].concat());
        check(&bytes);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".*") {
        let _ = text.parse::<Stamp>();
        let _ = format!("sdns://{text}").parse::<DnsCryptStamp>();
    }
}

fn check(bytes: &[u8]) {
    if let Ok(stamp) = text(bytes).parse::<Stamp>() {
        assert_eq!(stamp.to_string().parse(), Ok(stamp));
    }
}

#[test]
fn the_corpus_is_replayed() {
    replay("stamp", check);
}
