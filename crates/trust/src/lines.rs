//! The words that all C2SP text formats share: strict decimals, strict base64, key names.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// C2SP bounds times and, in practice, tree sizes to 63 bits; so no sum of two of them overflows.
pub(crate) const MAX_63_BITS: u64 = u64::MAX >> 1;

/// Reads an ASCII decimal without sign or leading zeroes, of at most 63 bits.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (text.len() > 1 && text.starts_with('0')) {
        return None;
    }
    text.parse().ok().filter(|value| *value <= MAX_63_BITS)
}

/// Reads padded standard base64 in its only canonical form.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

pub(crate) fn base64_hash(text: &str) -> Option<[u8; 32]> {
    base64(text)?.try_into().ok()
}

pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Whether text may name a key of a signed note.
pub(crate) fn is_key_name(name: &str) -> bool {
    !name.is_empty()
        && !name
            .chars()
            .any(|c| c == '+' || c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_with_sign_space_or_leading_zero_is_refused() {
        for text in [
            "",
            "+1",
            "-1",
            " 1",
            "1 ",
            "00",
            "01",
            "1_0",
            "0x1",
            "9223372036854775808",
            "١",
        ] {
            assert_eq!(decimal(text), None, "{text:?}");
        }

        assert_eq!(decimal("0"), Some(0));
        assert_eq!(decimal("9223372036854775807"), Some(MAX_63_BITS));
    }

    #[test]
    fn base64_with_spare_bits_or_without_padding_is_refused() {
        for text in ["AA", "AB==", "AA=", "A A=", "AA==\n", "_-8="] {
            assert_eq!(base64(text), None, "{text:?}");
        }

        assert_eq!(base64("AA=="), Some(vec![0]));
    }

    #[test]
    fn a_key_name_with_space_or_plus_is_refused() {
        for name in ["", "a b", "a+b", "a\u{2003}b", "a\tb", "a\u{7f}"] {
            assert!(!is_key_name(name), "{name:?}");
        }

        assert!(is_key_name("example.com/log"));
    }
}
