//! How commands answer: lines for people, one JSON object for programs.

use std::io::{self, Write};

use anyhow::Context;
use serde_json::Value;

/// Prints data.
pub(super) fn say(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()) {
        // Whoever reads has read enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to stdout"),
    }
}

/// Prints JSON.
pub(super) fn say_json(value: &Value) -> anyhow::Result<()> {
    say(&value.to_string())
}

/// Prints to stderr.
pub(super) fn talk(text: &str) {
    // Nobody is left to tell when this cannot be printed.
    let _unheard = writeln!(io::stderr().lock(), "{text}");
}

/// Unix seconds as a date and time in UTC.
pub(super) fn date(unix: u64) -> String {
    const DAY_S: u64 = 86_400;
    let (days, second) = (unix / DAY_S, unix % DAY_S);
    let (mut year, mut day) = (1970, days);
    while day >= year_days(year) {
        day -= year_days(year);
        year += 1;
    }
    let february = if year_days(year) == 366 { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute) = (second / 3600, second % 3600 / 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}Z", day + 1)
}

fn year_days(year: u64) -> u64 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    if leap { 366 } else { 365 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_agree_with_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00Z");
        assert_eq!(date(951_782_400), "2000-02-29 00:00Z");
        assert_eq!(date(951_868_799), "2000-02-29 23:59Z");
        assert_eq!(date(4_107_542_399), "2100-02-28 23:59Z");
        assert_eq!(date(4_107_542_400), "2100-03-01 00:00Z");
        assert_eq!(date(1_798_761_600), "2027-01-01 00:00Z");
    }
}
