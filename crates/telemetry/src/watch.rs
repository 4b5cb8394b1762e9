//! Rates as a person sees them: figures with units, and a plot of the last minute in block characters, for the
//! `status --watch` of router, gateway and stub. Lines stay within 80 columns.

use std::collections::VecDeque;
use std::time::Instant;

/// Values in the plot.
const WIDTH: usize = 48;
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Clears the terminal and goes to its first line (ECMA-48: CUP, ED).
pub const CLEAR: &str = "\x1b[H\x1b[2J";

/// One rate over time.
#[derive(Debug)]
pub struct Meter {
    label: &'static str,
    unit: Unit,
    counted: Option<(u64, Instant)>,
    rates: VecDeque<u64>,
}

/// What is counted, and how its rate is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Bytes, in bits per second.
    Bytes,
    /// Anything else, as so many per second.
    Events,
}

impl Unit {
    fn per_count(self) -> u64 {
        match self {
            Self::Bytes => 8,
            Self::Events => 1,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bytes => "bit/s",
            Self::Events => "/s",
        }
    }
}

impl Meter {
    /// A meter of bytes whose lines begin with `label`, which has at most 12 characters.
    #[must_use]
    pub fn new(label: &'static str) -> Self {
        Self::of(label, Unit::Bytes)
    }

    /// The same for things that happen.
    #[must_use]
    pub fn of_events(label: &'static str) -> Self {
        Self::of(label, Unit::Events)
    }

    fn of(label: &'static str, unit: Unit) -> Self {
        Self {
            label,
            unit,
            counted: None,
            rates: VecDeque::new(),
        }
    }

    /// Takes a count, and gives its rate since the last one: bits per second for bytes. A count that went back began anew.
    pub fn count(&mut self, count: u64, now: Instant) -> u64 {
        let before = self.counted.replace((count, now));
        let rate = before.map_or(0, |(before, at)| {
            let more = count.saturating_sub(before);
            rate(more, self.unit.per_count(), at, now)
        });
        if before.is_some() {
            self.push(rate);
        }
        rate
    }

    /// Takes a rate that is known already: bits per second for bytes.
    pub fn push(&mut self, rate: u64) {
        if self.rates.len() == WIDTH {
            self.rates.pop_front();
        }
        self.rates.push_back(rate);
    }

    /// The last rate and those before it, on a line.
    #[must_use]
    pub fn line(&self) -> String {
        let last = self.rates.back().copied().unwrap_or(0);
        let most = self.rates.iter().copied().max().unwrap_or(0);
        let plot: String = self.rates.iter().map(|rate| block(*rate, most)).collect();
        let last = scaled(last, self.unit.name());
        format!("{:<12} {last:>12}  {plot}", self.label)
    }
}

/// Bits per second of `bytes` between two moments.
#[must_use]
pub fn per_second(bytes: u64, from: Instant, to: Instant) -> u64 {
    rate(bytes, Unit::Bytes.per_count(), from, to)
}

fn rate(count: u64, per_count: u64, from: Instant, to: Instant) -> u64 {
    let passed = to.saturating_duration_since(from).as_micros().max(1);
    let all = u128::from(count) * u128::from(per_count);
    u64::try_from(all * 1_000_000 / passed).unwrap_or(u64::MAX)
}

/// Bits per second as people say them.
#[must_use]
pub fn bits(rate: u64) -> String {
    scaled(rate, "bit/s")
}

/// Bytes as people say them.
#[must_use]
pub fn bytes(count: u64) -> String {
    scaled(count, "B")
}

/// Seconds as people say them.
#[must_use]
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// In the largest unit that leaves at least 1 before the point.
fn scaled(number: u64, unit: &str) -> String {
    const PREFIXES: [(u64, &str); 4] = [
        (1_000_000_000_000, "T"),
        (1_000_000_000, "G"),
        (1_000_000, "M"),
        (1_000, "k"),
    ];
    match PREFIXES.iter().find(|(size, _)| number >= *size) {
        Some((size, prefix)) => {
            let (whole, tenths) = (number / size, number % size * 10 / size);
            format!("{whole}.{tenths} {prefix}{unit}")
        }
        None => format!("{number} {unit}"),
    }
}

fn block(rate: u64, most: u64) -> char {
    if rate == 0 {
        return ' ';
    }
    let step = (u128::from(rate) * BLOCKS.len() as u128).div_ceil(u128::from(most.max(1)));
    let at = usize::try_from(step).unwrap_or(1).clamp(1, BLOCKS.len()) - 1;
    BLOCKS.get(at).copied().unwrap_or(' ')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_count_that_went_back_or_came_at_once_makes_no_wild_rate() {
        let now = Instant::now();
        let mut meter = Meter::new("in");

        assert_eq!(meter.count(1_000, now), 0);
        assert_eq!(meter.count(10, now + Duration::from_secs(1)), 0);
        assert_eq!(meter.count(10, now + Duration::from_secs(1)), 0);
        assert_eq!(meter.count(260, now + Duration::from_secs(3)), 1_000);
    }

    #[test]
    fn a_line_fits_into_80_columns_however_long_and_fast_it_was() {
        let mut meter = Meter::new("from routers");
        for rate in (0..1_000)
            .map(|n| n * 1_000_000_000)
            .chain([999_999_999_999])
        {
            meter.push(rate);
        }

        let line = meter.line();

        assert!(line.chars().count() <= 80, "{line}");
        assert!(line.starts_with("from routers 999.9 Gbit/s  "), "{line}");
        assert!(line.ends_with('█'), "{line}");
    }

    #[test]
    fn nothing_is_blank_and_little_is_seen_beside_much() {
        let mut meter = Meter::new("in");
        for rate in [0, 1, 500_000, 1_000_000] {
            meter.push(rate);
        }

        assert_eq!(meter.line(), "in             1.0 Mbit/s   ▁▄█");
    }

    #[test]
    fn events_are_not_said_in_bits() {
        let now = Instant::now();
        let mut meter = Meter::of_events("lookups");

        meter.count(100, now);

        assert_eq!(meter.count(3_100, now + Duration::from_secs(2)), 1_500);
        assert_eq!(meter.line(), "lookups           1.5 k/s  █");
    }

    #[test]
    fn rates_are_shown_in_the_unit_people_use() {
        assert_eq!(bits(999), "999 bit/s");
        assert_eq!(bits(1_250), "1.2 kbit/s");
        assert_eq!(bits(2_500_000_000), "2.5 Gbit/s");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_250_000), "1.2 MB");
        assert_eq!(bytes(u64::MAX), "18446744.0 TB");
    }
}
