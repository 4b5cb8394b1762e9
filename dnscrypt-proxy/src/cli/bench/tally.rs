//! What became of a bench's lookups, and how long each took.

use std::collections::BTreeMap;
use std::time::Duration;

use hickory_proto::op::ResponseCode;

use crate::cli::query::rcode_name;
use crate::proto::message;

/// What became of all lookups so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) answered: u64,
    /// Not answered in time.
    pub(super) lost: u64,
    /// Due, but not sent: too many were under way, or the system had no room.
    pub(super) withheld: u64,
    /// Answers that say that they are not whole.
    pub(super) truncated: u64,
    pub(super) times: Times,
    rcodes: [u64; 16],
}

impl Tally {
    /// Counts an answer.
    pub(super) fn answer(&mut self, answer: &[u8], took: Duration) {
        self.answered += 1;
        self.truncated += u64::from(message::is_truncated(answer));
        let rcode = usize::from(message::rcode_low(answer));
        if let Some(count) = self.rcodes.get_mut(rcode) {
            *count += 1;
        }
        self.times.add(took);
    }

    /// How often each response code came.
    pub(super) fn rcodes(&self) -> BTreeMap<String, u64> {
        let came = (0..).zip(self.rcodes).filter(|(_, count)| *count > 0);
        came.map(|(rcode, count)| (rcode_name(ResponseCode::from(0, rcode)), count))
            .collect()
    }
}

/// Significant bits of a time that is kept: off by less than one in a hundred.
const BITS: u32 = 6;
const STEPS: u64 = 1 << BITS;

/// Times in so many steps for each doubling, of nanoseconds: any number of them takes some kilobytes.
#[derive(Debug, Default)]
pub(super) struct Times {
    steps: Vec<u64>,
    count: u64,
    sum: Duration,
    most: Duration,
}

impl Times {
    fn add(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let shift = ns.max(1).ilog2().saturating_sub(BITS);
        let step = usize::try_from(u64::from(shift) * STEPS + (ns >> shift)).unwrap_or(usize::MAX);
        if self.steps.len() <= step {
            self.steps.resize(step + 1, 0);
        }
        if let Some(count) = self.steps.get_mut(step) {
            *count += 1;
        }
        self.count += 1;
        self.sum += time;
        self.most = self.most.max(time);
    }

    /// The time that this part of all lookups did not exceed.
    pub(super) fn quantile(&self, part: f64) -> Option<Duration> {
        let rank = (part * self.count as f64).ceil().max(1.0) as u64;
        if rank >= self.count {
            return (self.count > 0).then_some(self.most);
        }
        let mut seen = 0;
        for (step, count) in (0_u64..).zip(&self.steps) {
            seen += count;
            if seen >= rank {
                let shift = (step >> BITS).saturating_sub(1);
                let middle = ((step - shift * STEPS) << shift) + ((1 << shift) >> 1);
                return Some(Duration::from_nanos(middle).min(self.most));
            }
        }
        None
    }

    pub(super) fn mean(&self) -> Option<Duration> {
        let count = u32::try_from(self.count).ok().filter(|count| *count > 0)?;
        Some(self.sum / count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_no_times_there_is_no_quantile() {
        let times = Times::default();

        assert_eq!(times.quantile(0.5), None);
        assert_eq!(times.mean(), None);
    }

    #[test]
    fn a_quantile_is_off_by_less_than_a_hundredth_at_every_length() {
        for scale in [1_u64, 100, 10_000, 1_000_000, 50_000_000] {
            let mut times = Times::default();
            for n in 1..=1_000 {
                times.add(Duration::from_nanos(n * scale));
            }

            for (part, exact) in [(0.5, 500), (0.99, 990), (0.999, 999)] {
                let found = times.quantile(part).unwrap().as_nanos() as f64;
                let exact = (exact * scale) as f64;
                assert!(
                    (found / exact - 1.0).abs() < 0.01,
                    "{part} of {scale}: {found} is not {exact}"
                );
            }
            assert_eq!(
                times.quantile(1.0).unwrap(),
                Duration::from_nanos(1_000 * scale)
            );
        }
    }

    #[test]
    fn what_came_is_told_by_its_code() {
        let mut tally = Tally::default();
        let answer = |flags: [u8; 2]| [&[0, 1][..], &flags, &[0; 8]].concat();

        tally.answer(&answer([0x80, 0]), Duration::from_millis(1));
        tally.answer(&answer([0x82, 3]), Duration::from_millis(1));

        assert_eq!((tally.answered, tally.truncated), (2, 1));
        let rcodes: Vec<_> = tally.rcodes().into_iter().collect();
        assert_eq!(
            rcodes,
            [("NOERROR".to_owned(), 1), ("NXDOMAIN".to_owned(), 1)]
        );
    }
}
