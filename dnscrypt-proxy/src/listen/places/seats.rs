//! Places that tasks take: who has to give one up stops what it does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{Holder, Places, Ticket};

/// What a place is for: once it is dropped, the task that has the other end gives up.
type Leash = oneshot::Sender<()>;

/// Places that many tasks take from.
#[derive(Clone, Debug)]
pub struct Seats(
    // Held for as long as it takes to find a place, or to give one back.
    Arc<Mutex<Places<Leash>>>,
);

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Seats,
    ticket: Ticket,
    gone: oneshot::Receiver<()>,
}

/// Somebody else has the place that was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp;

impl Seats {
    /// So many, of which nobody has more than a quarter.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self::of(Places::new(most))
    }

    /// So many, of which no source has more than so many.
    #[must_use]
    pub fn bounded(most: usize, each: usize) -> Self {
        Self::of(Places::bounded(most, each))
    }

    /// The same, but that nobody has to give one up.
    #[must_use]
    pub fn kept(most: usize, each: usize) -> Self {
        Self::of(Places::bounded(most, each).kept())
    }

    fn of(places: Places<Leash>) -> Self {
        Self(Arc::new(Mutex::new(places)))
    }

    /// A place, if there is one for this one, or somebody has to give one up for it.
    #[must_use]
    pub fn take(&self, holder: Holder) -> Option<Seat> {
        let (leash, gone) = oneshot::channel();
        // What others give up for it is dropped with the rest of this, when nobody is kept waiting for the lock.
        let taken = self.places().take(holder, leash).ok()?;
        Some(Seat {
            seats: self.clone(),
            ticket: taken.ticket,
            gone,
        })
    }

    /// How many there are.
    #[must_use]
    pub fn most(&self) -> usize {
        self.places().most()
    }

    /// How many are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.places().taken
    }

    fn places(&self) -> MutexGuard<'_, Places<Leash>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Does what the place is for.
    ///
    /// # Errors
    /// When the place has to be given up before that is done, which ends it.
    pub async fn during<T>(mut self, doing: impl Future<Output = T>) -> Result<T, GivenUp> {
        tokio::select! {
            biased;
            _ = &mut self.gone => Err(GivenUp),
            done = doing => Ok(done),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.places().give_back(self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::listen::Homes;

    fn home(last: u8) -> Holder {
        let homes = Homes::within([([10, 64, 0, 1].into(), 16)]);
        Holder::of(&homes, [10, 64, 0, last].into())
    }

    #[tokio::test]
    async fn a_task_whose_place_is_given_to_another_ends_and_gives_back_nothing() {
        let seats = Seats::bounded(2, 2);
        let oldest = seats.take(home(16)).unwrap();
        let younger = seats.take(home(16)).unwrap();
        let _theirs = seats.take(home(17)).unwrap();

        assert_eq!(oldest.during(pending::<()>()).await, Err(GivenUp));
        assert_eq!(seats.taken(), 2);
        assert!(seats.take(home(16)).is_none());

        assert_eq!(younger.during(async { 7 }).await, Ok(7));
        assert_eq!(seats.taken(), 1);
    }
}
