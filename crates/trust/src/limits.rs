//! What a lease may carry: a rate for each direction, none for as much as there is.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::cbor::{DecodeError, Reader, Writer};

/// Less would be an end of service that no revocation shows.
const MIN_BITS_PER_S: u64 = 64_000;
/// More than any line of a home has.
const MAX_BITS_PER_S: u64 = 100_000_000_000;

/// Bits of inner packets in a second, 64 kb/s to 100 Gb/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BitRate(NonZeroU64);

impl BitRate {
    /// A rate within its bounds.
    #[must_use]
    pub fn new(bits_per_s: u64) -> Option<Self> {
        let fits = (MIN_BITS_PER_S..=MAX_BITS_PER_S).contains(&bits_per_s);
        NonZeroU64::new(bits_per_s).filter(|_| fits).map(Self)
    }

    #[must_use]
    pub fn bits_per_s(self) -> NonZeroU64 {
        self.0
    }
}

/// Why a text is no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("accepted: 64k to 100G bits a second, such as 50M, with or without k, M or G")]
pub struct NotARate;

impl FromStr for BitRate {
    type Err = NotARate;

    fn from_str(text: &str) -> Result<Self, NotARate> {
        let units = [('k', 1_000), ('M', 1_000_000), ('G', 1_000_000_000)];
        let unit = units
            .into_iter()
            .find_map(|(unit, worth)| Some((text.strip_suffix(unit)?, worth)));
        let (digits, worth) = unit.unwrap_or((text, 1));
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotARate);
        }
        let number: Option<u64> = digits.parse().ok();
        number
            .and_then(|number| Self::new(number.checked_mul(worth)?))
            .ok_or(NotARate)
    }
}

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
        let bits = self.0.get();
        let unit = units
            .into_iter()
            .find(|(worth, _)| bits.is_multiple_of(*worth));
        let (worth, name) = unit.unwrap_or((1, ""));
        write!(f, "{}{name}", bits / worth)
    }
}

/// What a lease may carry each way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// From the internet to the home.
    pub down: Option<BitRate>,
    /// From the home to the internet.
    pub up: Option<BitRate>,
}

impl Limits {
    /// The entries that [`Limits::write`] adds to a map.
    pub(crate) fn fields(&self) -> u8 {
        u8::from(self.down.is_some()) + u8::from(self.up.is_some())
    }

    pub(crate) fn write(&self, w: &mut Writer, keys: [u8; 2]) {
        for (key, rate) in keys.into_iter().zip([self.down, self.up]) {
            if let Some(rate) = rate {
                w.uint(key, rate.0.get());
            }
        }
    }

    pub(crate) fn read(r: &mut Reader<'_>, keys: [u8; 2]) -> Result<Self, DecodeError> {
        let mut rate = |key| {
            if !r.is_next(key) {
                return Ok(None);
            }
            let rate = BitRate::new(r.uint(key)?);
            rate.map(Some).ok_or_else(|| r.refused())
        };
        let [down, up] = keys;
        Ok(Self {
            down: rate(down)?,
            up: rate(up)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_rate_or_out_of_bounds_is_refused() {
        for wrong in [
            "",
            "M",
            "-1M",
            "+64k",
            "1.5M",
            "50m",
            "50 M",
            "0",
            "63999",
            "63k",
            "101G",
            "18446744073709551616",
            "18446744073709551615G",
        ] {
            assert_eq!(wrong.parse::<BitRate>(), Err(NotARate), "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_written_with_the_unit_that_it_is_a_multiple_of() {
        for (text, bits) in [
            ("64k", 64_000),
            ("50M", 50_000_000),
            ("1500k", 1_500_000),
            ("64001", 64_001),
            ("100G", 100_000_000_000),
        ] {
            let rate: BitRate = text.parse().unwrap();

            assert_eq!(
                (rate.bits_per_s().get(), rate.to_string().as_str()),
                (bits, text)
            );
        }
    }
}
