//! The judge of growth: within a life by the slope of its second half, and from life to life by their middles.
//!
//! The slope is Theil and Sen's, the median over all pairs of samples, which outliers do not move. A leak grows all the time:
//! what grows in one third alone, as by an allocator's step, counts only as far as it also grows in the others.

use std::fmt;

use serde::Serialize;

use super::samples::{Held, Life};

/// What is before belongs to the start: buffers and tables reach their size.
const WARM_UP_S: f64 = 60.0;
/// A judged half has at least so many samples; shorter lives are judged beside each other.
const LEAST: usize = 12;
/// 64 pages, what an allocator takes at once, over the judged half. Thirty minutes thus see a leak of 2 MiB an hour, or an
/// eighth of a byte for each packet of this load, and a day sees one of 22 KiB an hour.
const MEMORY_KIB: f64 = 256.0;
/// Connections to provisioning and resolvers come and go; one leaked in each of the judged half's kills is far more.
const DESCRIPTORS: f64 = 2.0;
const THREADS: f64 = 2.0;
/// From the first of many lives to the last: a life's memory is what its load asked for, within this.
const LIVES_MEMORY_KIB: f64 = 2_048.0;
/// Lives that can be compared.
const LEAST_LIVES: usize = 6;

/// One thing of one daemon over one life, or over its lives.
#[derive(Debug, Clone, Serialize)]
pub struct Growth {
    /// The daemon, and what of it.
    pub of: String,
    /// Seconds that were judged.
    pub seconds: f64,
    /// By how much it grew in that time, robustly.
    pub growth: f64,
    /// The most that is allowed.
    pub bound: f64,
    /// The last value.
    pub last: f64,
    /// The middle of the judged values.
    pub middle: f64,
    /// Beyond the bound, and on the way to what a longer life holds at rest.
    pub excused: bool,
}

impl Growth {
    /// Whether it is a leak.
    pub fn is_leak(&self) -> bool {
        self.growth > self.bound && !self.excused
    }
}

impl fmt::Display for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {:+.1} in {:.0} s (at most {:.0}), at last {:.0}",
            self.of, self.growth, self.seconds, self.bound, self.last
        )?;
        if self.excused {
            f.write_str(": excused, a longer life held more at rest")?;
        }
        Ok(())
    }
}

/// Judges all lives.
pub(super) fn growths(lives: &[Life]) -> Vec<Growth> {
    let mut found: Vec<Growth> = lives.iter().flat_map(within_a_life).collect();
    excuse_first_loads(&mut found);
    let mut names: Vec<&str> = lives.iter().map(|life| life.who).collect();
    names.sort_unstable();
    names.dedup();
    for who in names {
        let of_this: Vec<&Life> = lives.iter().filter(|life| life.who == who).collect();
        found.extend(over_lives(who, &of_this));
    }
    found
}

/// A standby gateway has its first load late in its life. While its memory is less than that of a life of the same daemon
/// that was at rest for twice as long, it is still on its way there; once for each daemon, and by two bounds at most.
fn excuse_first_loads(found: &mut [Growth]) {
    let at_rest: Vec<Growth> = found.iter().filter(|g| !g.is_leak()).cloned().collect();
    let mut excused: Vec<String> = Vec::new();
    for growth in found.iter_mut().filter(|growth| growth.is_leak()) {
        let reaches = |longer: &Growth| {
            longer.of == growth.of
                && longer.seconds >= 2.0 * growth.seconds
                && longer.middle >= growth.last
        };
        growth.excused = growth.of.ends_with(MEASURES[0].0)
            && growth.growth <= 2.0 * growth.bound
            && !excused.contains(&growth.of)
            && at_rest.iter().any(reaches);
        if growth.excused {
            excused.push(growth.of.clone());
        }
    }
}

type Measure = (&'static str, fn(&Held) -> u64, f64);

const MEASURES: [Measure; 3] = [
    ("memory, KiB", |held| held.rss_kib, MEMORY_KIB),
    ("descriptors", |held| held.descriptors, DESCRIPTORS),
    ("threads", |held| held.threads, THREADS),
];

fn within_a_life(life: &Life) -> Vec<Growth> {
    let Some(born) = life.held.first().map(|held| held.at.as_secs_f64()) else {
        return Vec::new();
    };
    let at = |held: &Held| held.at.as_secs_f64();
    let warm: Vec<&Held> = life
        .held
        .iter()
        .filter(|held| at(held) - born >= WARM_UP_S)
        .collect();
    let half = warm.get(warm.len() / 2..).unwrap_or_default();
    if half.len() < LEAST {
        return Vec::new();
    }
    let judge = |(what, of, bound): Measure| {
        let points: Vec<(f64, f64)> = half.iter().map(|h| (at(h), of(h) as f64)).collect();
        growth(format!("{} {what}", life.who), &points, bound)
    };
    MEASURES.into_iter().filter_map(judge).collect()
}

/// The middle of each life by the time of its start: what outlives a process is in its files.
fn over_lives(who: &str, lives: &[&Life]) -> Vec<Growth> {
    let judge = |(what, of, bound): Measure| {
        let points: Vec<(f64, f64)> = lives
            .iter()
            .filter_map(|life| {
                let values = life.held.iter().map(|held| of(held) as f64);
                Some((
                    life.held.first()?.at.as_secs_f64(),
                    median(values.collect())?,
                ))
            })
            .collect();
        let bound = if what.starts_with("memory") {
            LIVES_MEMORY_KIB
        } else {
            bound
        };
        growth(
            format!("{who} {what}, over {} lives", points.len()),
            &points,
            bound,
        )
    };
    if lives.len() < LEAST_LIVES {
        return Vec::new();
    }
    MEASURES.into_iter().filter_map(judge).collect()
}

/// The robust growth of a series, held against a bound; `None` of too few points.
pub(crate) fn growth(of: String, points: &[(f64, f64)], bound: f64) -> Option<Growth> {
    let (first, last) = (points.first()?, points.last()?);
    let seconds = last.0 - first.0;
    Some(Growth {
        of,
        seconds,
        growth: (slope(points)? * seconds).min(3.0 * least_rise(points)?),
        bound,
        last: last.1,
        middle: median(points.iter().map(|(_, y)| *y).collect())?,
        excused: false,
    })
}

/// The median of the slopes between all pairs.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let mut slopes = Vec::new();
    for (n, (x, y)) in points.iter().enumerate() {
        for (later, value) in points.get(n + 1..).unwrap_or_default() {
            if later > x {
                slopes.push((value - y) / (later - x));
            }
        }
    }
    median(slopes)
}

/// The smaller of the two rises between the middles of the three thirds.
fn least_rise(points: &[(f64, f64)]) -> Option<f64> {
    let middles: Vec<f64> = points
        .chunks(points.len().div_ceil(3))
        .filter_map(|third| median(third.iter().map(|(_, y)| *y).collect()))
        .collect();
    let [first, second, third] = middles[..] else {
        return None;
    };
    Some((second - first).min(third - second))
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::dice::Dice;

    /// A life of so many minutes with a sample each five seconds, as a function of the second says.
    fn life(minutes: u64, of: impl Fn(f64) -> (f64, f64)) -> Life {
        let held = (0..minutes * 12).map(|n| {
            let at = Duration::from_secs(n * 5);
            let (rss, descriptors) = of(at.as_secs_f64());
            Held {
                at,
                rss_kib: rss as u64,
                descriptors: descriptors as u64,
                threads: 4,
            }
        });
        Life {
            who: "gw1",
            pid: 1,
            held: held.collect(),
        }
    }

    fn leaks(lives: &[Life]) -> Vec<String> {
        let found = growths(lives).into_iter().filter(Growth::is_leak);
        found.map(|growth| growth.of).collect()
    }

    #[test]
    fn a_planted_leak_of_three_mebibytes_an_hour_is_found_under_noise() {
        let leaking = life(18, |s| {
            let noise = Dice::new(s as u64).fraction() * 200.0;
            (10_000.0 + noise + s * 3_072.0 / 3_600.0, 20.0)
        });

        assert_eq!(leaks(&[leaking]), ["gw1 memory, KiB"]);
    }

    #[test]
    fn a_descriptor_leaked_each_minute_is_found_though_others_come_and_go() {
        let leaking = life(18, |s| {
            (10_000.0, 20.0 + (s / 60.0).floor() + (s / 5.0) % 3.0)
        });

        assert_eq!(leaks(&[leaking]), ["gw1 descriptors"]);
    }

    #[test]
    fn a_leak_that_outlives_its_process_is_found_over_the_lives() {
        let lives: Vec<Life> = (0_u32..10)
            .map(|n| {
                let mut life = life(1, |_| (10_000.0 + f64::from(n) * 300.0, 20.0));
                life.pid = n;
                for held in &mut life.held {
                    held.at += Duration::from_secs(60 * u64::from(n));
                }
                life
            })
            .collect();

        assert_eq!(leaks(&lives), ["gw1 memory, KiB, over 10 lives"]);
    }

    #[test]
    fn a_start_that_fills_its_buffers_a_step_and_noise_are_no_leak() {
        let sound = life(18, |s| {
            let noise = Dice::new(s as u64).fraction() * 400.0;
            let start = 4_000.0 * (1.0 - (-s / 40.0).exp());
            let step = if s > 900.0 { 600.0 } else { 0.0 };
            (10_000.0 + start + step + noise, 20.0 + (s / 5.0) % 5.0)
        });

        assert!(leaks(std::slice::from_ref(&sound)).is_empty());
        assert_eq!(growths(&[sound]).len(), 3);
    }

    #[test]
    fn a_life_on_its_way_to_what_a_longer_one_holds_at_rest_leaks_nothing_and_beyond_it_does() {
        let at_rest = life(10, |_| (17_700.0, 20.0));
        let warming = life(5, |s| (16_700.0 + s * 3.0, 20.0));
        let beyond = life(5, |s| (16_900.0 + s * 3.0, 20.0));

        assert!(leaks(&[warming.clone(), at_rest.clone()]).is_empty());
        assert_eq!(leaks(&[beyond, at_rest]), ["gw1 memory, KiB"]);
        assert_eq!(leaks(&[warming]), ["gw1 memory, KiB"]);
    }

    #[test]
    fn a_longer_life_excuses_no_fast_leak_no_second_one_no_descriptors_and_none_as_long_as_itself()
    {
        let at_rest = || life(10, |_| (18_500.0, 60.0));
        let growing =
            |minutes, a_second: f64| life(minutes, move |s| (16_000.0 + s * a_second, 20.0));
        let descriptors = life(5, |s| (10_000.0, 20.0 + (s / 10.0).floor()));
        let spiked = life(10, |s| (if s > 590.0 { 60_000.0 } else { 10_000.0 }, 20.0));

        assert!(
            !leaks(&[growing(5, 6.0), at_rest()]).is_empty(),
            "21 MiB an hour"
        );
        assert!(!leaks(&[growing(9, 1.8), at_rest()]).is_empty(), "as long");
        assert!(
            !leaks(&[growing(5, 3.0), growing(5, 3.0), at_rest()]).is_empty(),
            "twice"
        );
        assert_eq!(leaks(&[descriptors, at_rest()]), ["gw1 descriptors"]);
        assert!(!leaks(&[growing(5, 3.0), spiked]).is_empty(), "one sample");
        let once = growths(&[growing(5, 3.0), at_rest()]);
        assert!(once.iter().any(|growth| growth.excused), "and it is said");
    }

    #[test]
    fn a_life_that_is_too_short_is_not_judged() {
        assert!(growths(&[life(2, |s| (10_000.0 + s * 10.0, 20.0))]).is_empty());
    }
}
