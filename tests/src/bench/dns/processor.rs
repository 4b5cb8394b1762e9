//! Who runs where: what is measured on one processor, everybody else on another.

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Where the program is that is measured.
pub(super) const MEASURED: usize = 0;
/// Where the load and all that is asked upstream is.
pub(super) const REST: usize = 1;

/// Runs on one processor alone, as does every thread and process that is started meanwhile: a program that counts its
/// processors when it starts finds one.
pub(super) fn on<T>(processor: usize, run: impl FnOnce() -> Result<T>) -> Result<T> {
    let this_thread = Pid::from_raw(0);
    let before = sched_getaffinity(this_thread).context("asking for our processors")?;
    let mut one = CpuSet::new();
    one.set(processor).context("choosing a processor")?;
    sched_setaffinity(this_thread, &one)
        .with_context(|| format!("moving to processor {processor}: this bench needs two"))?;
    let result = run();
    sched_setaffinity(this_thread, &before).context("moving back")?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_started_meanwhile_stays_there_and_the_caller_does_not() {
        let processors = || {
            let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
            (0..CpuSet::count())
                .filter(|n| set.is_set(*n).unwrap())
                .collect::<Vec<_>>()
        };
        let before = processors();

        let inside = on(MEASURED, || {
            Ok(std::thread::spawn(processors).join().unwrap())
        });

        assert_eq!(inside.unwrap(), [MEASURED]);
        assert_eq!(processors(), before);
    }

    #[test]
    fn a_processor_that_there_is_not_is_refused() {
        assert!(on(CpuSet::count() - 1, || Ok(())).is_err());
    }
}
