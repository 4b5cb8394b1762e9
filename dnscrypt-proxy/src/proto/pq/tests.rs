use proptest::prelude::*;

use super::*;

fn plain(control: &[u8], message: &[u8]) -> Vec<u8> {
    let len = u16::try_from(control.len()).unwrap().to_be_bytes();
    [&len[..], control, message].concat()
}

fn control(lifetime_s: u32, ticket: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_control(&mut out, lifetime_s, ticket);
    out.split_off(CONTROL_LEN)
}

#[test]
fn a_control_length_beyond_the_plaintext_is_refused() {
    for plain in [&[][..], &[0], &[0, 1], &[0xff, 0xff, 1, 2, 3]] {
        assert_eq!(split_control(plain), Err(Dropped::BadControl));
    }
}

#[test]
fn a_ticket_of_version_1_that_is_not_exact_is_refused() {
    let whole = control(300, b"ticket");
    let longer = [&whole[..], &[0]].concat();
    let short: Vec<_> = (4..whole.len())
        .filter(|len| *len != 0)
        .map(|len| &whole[..len])
        .collect();

    for bad in short.into_iter().chain([longer.as_slice()]) {
        assert_eq!(split_control(&plain(bad, b"m")), Err(Dropped::BadControl));
    }
    for bad in [control(0, b"ticket"), control(300, b"")] {
        assert_eq!(split_control(&plain(&bad, b"m")), Err(Dropped::BadControl));
    }
}

#[test]
fn unknown_controls_are_skipped() {
    let mut newer = control(300, b"ticket");
    newer[4] = 2;

    for unknown in [&b""[..], b"P", b"PQDX", b"something else", &newer] {
        let plain = plain(unknown, b"message");
        assert_eq!(split_control(&plain), Ok((None, &b"message"[..])));
    }
}

#[test]
fn a_ticket_is_read_as_it_was_written() {
    let offer = Offer {
        lifetime_s: 300,
        ticket: b"ticket",
    };

    let written = plain(&control(300, b"ticket"), b"message");

    assert_eq!(split_control(&written), Ok((Some(offer), &b"message"[..])));
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), known in any::<bool>()) {
        let control = if known { [&b"PQDR\x01"[..], &bytes].concat() } else { bytes.clone() };
        let _ = split_control(&plain(&control, b"m"));
        let _ = split_control(&bytes);
    }
}
