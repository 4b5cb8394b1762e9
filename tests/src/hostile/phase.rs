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
/// Nothing told and nothing sent for so long: it will not come to an end.
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
    pub(super) figures: Arc<Figures>,
}

/// What it came to.
pub(super) struct Found {
    pub(super) who: &'static str,
    pub(super) packets: u64,
    pub(super) frames: u64,
    pub(super) may_miss: f64,
    /// What the kernel dropped of the packets.
    pub(super) dropped: u64,
    pub(super) lies: u64,
    pub(super) fooled: u64,
    pub(super) strays: Vec<String>,
    pub(super) provoked: Tally,
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
            let known = &mut *known;
            let threads = vec![
                scope.spawn(move || attack::packets(target, self.packets, (sent, over), udp)),
                scope.spawn(move || attack::frames(target, (frames, over), tcp_dice, tcp)),
                scope.spawn(|| provoke(provoker_, self.window, over, (lied_about, dice_lies))),
                scope.spawn(|| check(checker_, over, (known, dice_known))),
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
        if let Some(status) = process.ended() {
            bail!(
                "{} ended: {status}; it said:\n{}",
                self.who,
                process.log_tail()
            );
        }
        let log = process.log();
        let panics = log.lines().filter(|line| line.contains("panicked"));
        Ok(Found {
            who: self.who,
            packets: sent.into_inner(),
            frames: frames.into_inner(),
            may_miss: self.may_miss,
            dropped: target.queue().dropped,
            lies: self.figures.lies(),
            fooled: self.figures.fooled.load(Ordering::Relaxed),
            strays: self.figures.strays(),
            provoked: provoker.tally,
            checked,
            afterwards: checker.tally,
            held: samples,
            seconds,
            panics: panics.map(str::to_owned).collect(),
        })
    }

    /// Samples until all packets are sent and all lies are told.
    fn watch(
        &self,
        process: &mut Running,
        (sent, over): (&AtomicU64, &AtomicBool),
        say: &dyn Fn(&str),
    ) -> Result<Vec<Held>> {
        let (start, mut samples) = (Instant::now(), Vec::new());
        let (mut told, mut moved, mut last) = (start, start, (0, 0));
        loop {
            std::thread::sleep(SAMPLE_EVERY);
            if let Some(status) = process.ended() {
                bail!(
                    "{} ended: {status}; it said:\n{}",
                    self.who,
                    process.log_tail()
                );
            }
            let now = held(self.target.pid, start.elapsed())?;
            samples.push(now);
            let figures = (sent.load(Ordering::Relaxed), self.figures.lies());
            if figures != last {
                (moved, last) = (Instant::now(), figures);
            }
            let (packets, lies) = figures;
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
            // A thread that could not go on has its reason; it is told when it is joined.
            let is_done = packets >= self.packets && lies >= self.lies;
            if is_done || over.load(Ordering::Relaxed) {
                return Ok(samples);
            }
            if moved.elapsed() > STALLED {
                bail!(
                    "{}: {packets} packets and {lies} lies, and no more come",
                    self.who
                );
            }
        }
    }
}

fn joined(thread: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    match thread.join() {
        Ok(ended) => ended.context("an attacker could not go on"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Keeps liars busy.
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
    Ok(())
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
