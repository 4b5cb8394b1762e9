use proptest::prelude::*;

use super::*;

fn parts(bytes: &[u8]) -> Result<Vec<Part>, AnswerError> {
    let mut answer = Answer::default();
    answer.push(bytes);
    let mut found = Vec::new();
    while let Some(part) = answer.next_part()? {
        found.push(part);
    }
    Ok(found)
}

#[test]
fn headers_without_a_readable_status_are_refused() {
    for section in [
        &[][..],
        &[0, 0],
        &[0, 0, 0xc0 | 17],
        &[0, 0, 0x5f, 9, 3, b'2', b'0'],
        &[0, 0, 0x5f, 9, 0x83, b'2', b'0', b'0'],
        &[0, 0, 0x5f, 9, 2, b'2', b'0'],
        &[0, 0, 0x21, b'x', 1, b'y'],
    ] {
        let mut frame = vec![1, u8::try_from(section.len()).unwrap()];
        frame.extend(section);

        assert_eq!(parts(&frame), Err(AnswerError::Malformed), "{section:x?}");
    }
}

#[test]
fn endless_headers_are_refused_before_they_are_there() {
    assert_eq!(
        parts(&[1, 0x80, 1, 0, 0]),
        Err(AnswerError::TooLong(0x1_0000))
    );
}

#[test]
fn a_status_is_read_from_the_static_table_and_from_digits() {
    for (section, status) in [
        (&[0, 0, 0xc0 | 25][..], 200),
        (&[0, 0, 0xc0 | 27], 404),
        (&[0, 0, 0xff, 1], 204),
        (&[0, 0, 0x5f, 9, 3, b'4', b'2', b'9'], 429),
    ] {
        let mut frame = vec![1, u8::try_from(section.len()).unwrap()];
        frame.extend(section);

        assert_eq!(parts(&frame), Ok(vec![Part::Status(status)]));
    }
}

#[test]
fn frames_that_nobody_knows_are_skipped_and_bodies_come_in_pieces() {
    let whole = [
        0x21,
        3,
        9,
        9,
        9,
        1,
        3,
        0,
        0,
        0xc0 | 25,
        0,
        4,
        b'b',
        b'o',
        b'd',
        b'y',
    ];

    let mut answer = Answer::default();
    let mut found = Vec::new();
    for byte in whole {
        answer.push(&[byte]);
        while let Some(part) = answer.next_part().unwrap() {
            found.push(part);
        }
    }

    let body: Vec<u8> = found
        .iter()
        .flat_map(|part| match part {
            Part::Body(bytes) => bytes.clone(),
            Part::Status(_) => Vec::new(),
        })
        .collect();
    assert_eq!(found.first(), Some(&Part::Status(200)));
    assert_eq!(body, b"body");
}

/// RFC 7541 appendix C.1.2: 1337 in five bits.
#[test]
fn long_integers_are_written_as_the_rfc_shows() {
    let mut out = Vec::new();
    integer(&mut out, 0, 5, 1337);

    assert_eq!(out, [0b0001_1111, 0b1001_1010, 0b0000_1010]);
    assert_eq!(read_integer(&out, 5), Some((1337, &[][..])));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_give_more_than_they_hold(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        if let Ok(parts) = parts(&bytes) {
            prop_assert!(parts.len() <= bytes.len());
        }
    }
}
