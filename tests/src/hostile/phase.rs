//! One program under attack: who sends, who provokes lies, who knows the truth, and what the program holds meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Figures;
use super::asker::{Asker, Tally, Truth};
use super::attack::{self, Target};
use crate::dice::Dice;
use crate::process::Running;
use crate::soak::{Held, held};

const SAMPLE_EVERY: Duration = Duration::from_millis(500);
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Between two questions of the one who knows the truth.
const PACE: Duration = Duration::from_millis(5);
/// The second half is judged if it lasts so long, and does where there are so many packets.
pub(super) const JUDGED: Duration = Duration::from_secs(60);
const MANY: u64 = 1_000_000;
/// A gateway's memory of others' names takes three minutes to be full.
const LASTING: Duration = Duration::from_secs(360);
/// Fewer packets are sent in half a second, in which nobody who asks steadily has asked for much.
const BRIEF: Duration = Duration::from_secs(5);
/// No lie more or no packet more for so long: it will not come to an end.
const STALLED: Duration = Duration::from_secs(60);
/// What is asked when all is over, one after the other.
const AFTERWARDS: usize = 200;

pub(super) type Packets<'a> = &'a mut (dyn FnMut() -> Result<Vec<u8>> + Send);
pub(super) type Questions<'a> = &'a mut (dyn FnMut(&mut Dice) -> (String, Truth) + Send);

/// What is to be done to whom.
pub(super) struct Phase<'a> {
    pub(super) who: &'static str,
    pub(super) target: Target<'a>,
    pub(super) packets: u64,
    pub(super) lies: u64,
    /// Questions to liars at the same time.
    pub(super) window: usize,
    /// The share of known names that may stay without an answer while it lasts.
    pub(super) may_miss: f64,
    pub(super) bounds: Bounds,
    pub(super) figures: Arc<Figures>,
}

/// By how much it may grow over the second half.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) memory_kib: f64,
    pub(super) descriptors: f64,
    pub(super) threads: f64,
}

/// What it came to.
pub(super) struct Found {
    pub(super) who: &'static str,
    pub(super) packets: u64,
    pub(super) frames: u64,
    pub(super) may_miss: f64,
    pub(super) bounds: Bounds,
    /// What the kernel dropped of the packets.
    pub(super) dropped: u64,
    pub(super) lies: u64,
    pub(super) fooled: u64,
    pub(super) strays: Vec<String>,
    pub(super) provoked: Tally,
    /// Those of the provoked that are signed.
    pub(super) signed: Tally,
    pub(super) checked: Tally,
    /// What was asked when all was over.
    pub(super) afterwards: Tally,
    pub(super) held: Vec<Held>,
    pub(super) seconds: f64,
    /// Lines of its log that tell of a panic.
    pub(super) panics: Vec<String>,
}

impl Phase<'_> {
    pub(super) fn run(
        self,
        process: &mut Running,
        (udp, tcp): (Packets<'_>, Packets<'_>),
        (mut provoker, lied_about): (Asker, Questions<'_>),
        (mut checker, known): (Asker, Questions<'_>),
        (dice, say): (&mut Dice, &dyn Fn(&str)),
    ) -> Result<Found> {
        let (sent, frames, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let mut dices = [0, 0, 0].map(|_: u8| Dice::new(dice.roll(1 << 60)));
        let [dice_tcp, dice_lies, dice_known] = &mut dices;
        let (start, target, over) = (Instant::now(), self.target, &over);
        let (provoker_, checker_) = (&mut provoker, &mut checker);
        let samples = std::thread::scope(|scope| -> Result<Vec<Held>> {
            let (sent, frames) = (&sent, &frames);
            let tcp_dice = dice_tcp.clone();
            let (known, dice_known) = (&mut *known, &mut *dice_known);
            let told = |ended| told(over, ended);
            let threads = vec![
                scope.spawn(move || told(attack::packets(target, (sent, over), udp))),
                scope.spawn(move || told(attack::frames(target, (frames, over), tcp_dice, tcp))),
                scope.spawn(move || {
                    told(provoke(
                        provoker_,
                        self.window,
                        over,
                        (lied_about, dice_lies),
                    ))
                }),
                scope.spawn(move || told(check(checker_, over, (known, dice_known)))),
            ];
            let samples = self.watch(process, (sent, over), say);
            over.store(true, Ordering::Relaxed);
            for thread in threads {
                joined(thread)?;
            }
            samples
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let checked = std::mem::take(&mut checker.tally);
        for _ in 0..AFTERWARDS {
            let (name, truth) = known(dice_known);
            checker.ask(&name, truth)?;
            checker.finish()?;
        }
        self.lives(process)?;
        let log = process.log();
        let panics = log.lines().filter(|line| line.contains("panicked"));
        Ok(Found {
            who: self.who,
            packets: sent.into_inner(),
            frames: frames.into_inner(),
            may_miss: self.may_miss,
            bounds: self.bounds,
            dropped: target.queue().dropped,
            lies: self.figures.lies(),
            fooled: self.figures.fooled.load(Ordering::Relaxed),
            strays: self.figures.strays(),
            provoked: provoker.tally,
            signed: provoker.signed,
            checked,
            afterwards: checker.tally,
            held: samples,
            seconds,
            panics: panics.map(str::to_owned).collect(),
        })
    }

    fn least(&self) -> Duration {
        match self.packets {
            MANY.. => LASTING,
            _ => BRIEF,
        }
    }

    fn lives(&self, process: &mut Running) -> Result<()> {
        if let Some(status) = process.ended() {
            bail!(
                "{} ended: {status}; it said:\n{}",
                self.who,
                process.log_tail()
            );
        }
        Ok(())
    }

    /// Samples until all packets are sent and all lies are told, and for as long as it takes to judge what is judged: more of both come meanwhile.
    fn watch(
        &self,
        process: &mut Running,
        (sent, over): (&AtomicU64, &AtomicBool),
        say: &dyn Fn(&str),
    ) -> Result<Vec<Held>> {
        let (start, mut samples) = (Instant::now(), Vec::new());
        let mut told = start;
        let [mut packets_go_on, mut lies_go_on] =
            [self.packets, self.lies].map(|wanted| Progress::of(wanted, start));
        loop {
            std::thread::sleep(SAMPLE_EVERY);
            self.lives(process)?;
            let now = held(self.target.pid, start.elapsed())?;
            samples.push(now);
            let (packets, lies) = (sent.load(Ordering::Relaxed), self.figures.lies());
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                say(&format!(
                    "{} {:>5.0} s: {packets} packets, {lies} lies; {:.1} MiB, {} descriptors",
                    self.who,
                    start.elapsed().as_secs_f64(),
                    now.rss_kib as f64 / 1024.0,
                    now.descriptors
                ));
            }
            let now = Instant::now();
            let of_both = [packets_go_on.look(packets, now), lies_go_on.look(lies, now)];
            // A thread that could not go on has its reason; it is told when it is joined.
            let is_done = of_both == [State::Done; 2] && start.elapsed() >= self.least();
            if is_done || over.load(Ordering::Relaxed) {
                return Ok(samples);
            }
            if of_both.contains(&State::Stalled) {
                bail!(
                    "{}: {packets} of {} packets and {lies} of {} lies, and of one no more come",
                    self.who,
                    self.packets,
                    self.lies
                );
            }
        }
    }
}

/// How one of the two counts comes to what is wanted.
struct Progress {
    wanted: u64,
    last: u64,
    moved: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    GoesOn,
    Stalled,
    Done,
}

impl Progress {
    fn of(wanted: u64, now: Instant) -> Self {
        Self {
            wanted,
            last: 0,
            moved: now,
        }
    }

    fn look(&mut self, count: u64, now: Instant) -> State {
        if count != self.last {
            (self.last, self.moved) = (count, now);
        }
        if count >= self.wanted {
            State::Done
        } else if now.duration_since(self.moved) > STALLED {
            State::Stalled
        } else {
            State::GoesOn
        }
    }
}

/// Nobody waits for what a thread that could not go on would have done.
fn told(over: &AtomicBool, ended: Result<()>) -> Result<()> {
    if ended.is_err() {
        over.store(true, Ordering::Relaxed);
    }
    ended
}

fn joined(thread: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    match thread.join() {
        Ok(ended) => ended.context("an attacker could not go on"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Keeps liars busy, and hears out what is under way at the end.
fn provoke(
    asker: &mut Asker,
    window: usize,
    over: &AtomicBool,
    (questions, dice): (Questions<'_>, &mut Dice),
) -> Result<()> {
    while !over.load(Ordering::Relaxed) {
        for _ in asker.under_way()..window {
            let (name, truth) = questions(dice);
            asker.ask(&name, truth)?;
        }
        asker.listen(Duration::from_millis(1))?;
    }
    asker.finish()
}

/// Asks steadily for what is known.
fn check(
    asker: &mut Asker,
    over: &AtomicBool,
    (questions, dice): (Questions<'_>, &mut Dice),
) -> Result<()> {
    while !over.load(Ordering::Relaxed) {
        let (name, truth) = questions(dice);
        asker.ask(&name, truth)?;
        asker.listen(PACE)?;
    }
    asker.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_stands_still_before_its_end_has_stalled_and_one_at_its_end_is_done() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut packets = Progress::of(10, start);

        assert_eq!(packets.look(0, after(60)), State::GoesOn);
        assert_eq!(packets.look(0, after(61)), State::Stalled);
        assert_eq!(packets.look(3, after(62)), State::GoesOn);
        assert_eq!(packets.look(3, after(122)), State::GoesOn);
        assert_eq!(packets.look(3, after(123)), State::Stalled);
        assert_eq!(packets.look(10, after(200)), State::Done);
        assert_eq!(packets.look(10, after(900)), State::Done);
    }
}
