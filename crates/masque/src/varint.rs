//! QUIC's integers of one to eight bytes (RFC 9000 section 16).

/// The largest number that there is.
pub const MAX: u64 = (1 << 62) - 1;

/// Appends `value`, which is cut to [`MAX`], in its shortest form.
pub fn write(out: &mut Vec<u8>, value: u64) {
    let value = value.min(MAX);
    let bytes = value.to_be_bytes();
    let (length, prefix) = match value {
        0..=0x3f => (1, 0x00),
        0x40..=0x3fff => (2, 0x40),
        0x4000..=0x3fff_ffff => (4, 0x80),
        _ => (8, 0xc0),
    };
    let at = out.len();
    out.extend(bytes.iter().skip(8 - length));
    if let Some(first) = out.get_mut(at) {
        *first |= prefix;
    }
}

/// Reads one integer and what follows it; `None` when more bytes are needed.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let first = *bytes.first()?;
    let length = 1_usize << (first >> 6);
    let (number, rest) = bytes.split_at_checked(length)?;
    let value = number
        .iter()
        .skip(1)
        .fold(u64::from(first & 0x3f), |value, byte| {
            value << 8 | u64::from(*byte)
        });
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 9000, appendix A.1.
    #[test]
    fn the_samples_of_the_rfc_are_read() {
        let samples: [(&[u8], u64); 5] = [
            (
                &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c],
                151_288_809_941_952_652,
            ),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, value) in samples {
            assert_eq!(read(bytes), Some((value, &[][..])));
        }
    }

    #[test]
    fn an_integer_cut_at_any_byte_waits_for_more() {
        let whole = [0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c];

        for cut in 0..whole.len() {
            assert_eq!(read(&whole[..cut]), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(value in 0..=MAX, rest: Vec<u8>) {
            let mut bytes = Vec::new();
            write(&mut bytes, value);
            bytes.extend(&rest);

            prop_assert_eq!(read(&bytes), Some((value, rest.as_slice())));
        }
    }
}
