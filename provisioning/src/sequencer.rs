//! The sequencer: the one task of the server that writes. It takes the enrolments that wait, carries them out
//! in one transaction, seals the fleet log once, commits, and only then lets anybody hear of it.
//! Owns the writing connection and the log keys; aborting it between transactions loses nothing, and
//! within one the transaction is rolled back.

use tokio::sync::{mpsc, oneshot};

use crate::changes::Changes;
use crate::clock::unix_now;
use crate::config::LeaseTimes;
use crate::enrol::{self, Issued, Leased, Outcome, Request};
use crate::failure;
use crate::log::{self, Log, LogKeys};
use crate::psk::{self, Parcel};
use crate::store::Writer;

/// More than this wait for the disk: the next one is told to come again.
const MAX_WAITING: usize = 1024;
/// One fsync serves this many.
const MAX_BATCH: usize = 64;

/// Why an enrolment was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// Too many wait, or the server is stopping.
    Busy,
    /// The disk is full.
    Full,
    /// The database failed; the log says how.
    Failed,
}

struct Job {
    work: Work,
    reply: oneshot::Sender<Result<Done, NotDone>>,
}

#[derive(Clone)]
enum Work {
    Enrol(Request),
    Carry(Parcel),
}

enum Done {
    Enrolled(Outcome),
    Carried,
}

/// The front door of the sequencer.
#[derive(Clone, Debug)]
pub struct Jobs(mpsc::Sender<Job>);

impl Jobs {
    /// Carries out an enrolment; the answer comes after the commit.
    pub async fn enrol(&self, request: Request) -> Result<Outcome, NotDone> {
        match self.work(Work::Enrol(request)).await? {
            Done::Enrolled(outcome) => Ok(outcome),
            Done::Carried => Err(NotDone::Failed),
        }
    }

    /// Writes down what is to be carried; the answer comes after the commit.
    pub async fn carry(&self, parcel: Parcel) -> Result<(), NotDone> {
        self.work(Work::Carry(parcel)).await.map(|_| ())
    }

    async fn work(&self, work: Work) -> Result<Done, NotDone> {
        let (reply, answer) = oneshot::channel();
        self.0
            .try_send(Job { work, reply })
            .map_err(|_| NotDone::Busy)?;
        answer.await.unwrap_or(Err(NotDone::Busy))
    }
}

/// Everything that writing takes.
#[derive(Debug)]
pub struct Sequencer {
    writer: Writer,
    keys: LogKeys,
    times: LeaseTimes,
    changes: Changes,
    waiting: mpsc::Receiver<Job>,
}

impl Sequencer {
    /// Prepares the task; [`Sequencer::run`] is the task.
    pub fn new(writer: Writer, keys: LogKeys, times: LeaseTimes, changes: Changes) -> (Self, Jobs) {
        let (jobs, waiting) = mpsc::channel(MAX_WAITING);
        (
            Self {
                writer,
                keys,
                times,
                changes,
                waiting,
            },
            Jobs(jobs),
        )
    }

    /// Works until every [`Jobs`] is gone.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        while self.waiting.recv_many(&mut batch, MAX_BATCH).await > 0 {
            self.carry_out(std::mem::take(&mut batch)).await;
        }
    }

    async fn carry_out(&mut self, batch: Vec<Job>) {
        let (requests, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|job| (job.work, job.reply)).unzip();
        let outcomes = match self.transact(&requests).await {
            Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
            Err(error) if requests.len() == 1 || failure::is_full(&error) => {
                let why = not_done(&error);
                requests.iter().map(|_| Err(why)).collect()
            }
            // One bad request must not take the others of its batch with it.
            Err(_) => self.one_by_one(&requests).await,
        };
        self.changes.announce();
        for (reply, outcome) in replies.into_iter().zip(outcomes) {
            // A device that has gone away asks again.
            let _unheard = reply.send(outcome);
        }
    }

    async fn one_by_one(&mut self, requests: &[Work]) -> Vec<Result<Done, NotDone>> {
        let mut outcomes = Vec::with_capacity(requests.len());
        for request in requests {
            let outcome = self.transact(std::slice::from_ref(request)).await;
            outcomes.push(match outcome.map(|mut outcomes| outcomes.pop()) {
                Ok(Some(outcome)) => Ok(outcome),
                Ok(None) => Err(NotDone::Failed),
                Err(error) => Err(not_done(&error)),
            });
        }
        outcomes
    }

    async fn transact(&mut self, requests: &[Work]) -> anyhow::Result<Vec<Done>> {
        let now = unix_now();
        let mut db = self.writer.begin().await?;
        let mut outcomes = Vec::with_capacity(requests.len());
        for request in requests {
            outcomes.push(match request {
                Work::Enrol(request) => {
                    Done::Enrolled(enrol::enrol(&mut db, request, &self.times, now).await?)
                }
                Work::Carry(parcel) => {
                    psk::carry(&mut db, parcel).await?;
                    Done::Carried
                }
            });
        }
        let grew = |done: &Done| {
            matches!(
                done,
                Done::Enrolled(Outcome::Leased(Leased {
                    issued: Issued::Now,
                    ..
                }))
            )
        };
        if outcomes.iter().any(grew) {
            log::seal(&mut db, Log::Fleet, &self.keys, now).await?;
        }
        db.commit().await?;
        Ok(outcomes)
    }
}

fn not_done(error: &anyhow::Error) -> NotDone {
    if failure::is_full(error) {
        tracing::error!(
            "the disk is full, nobody can enrol: {}",
            failure::sentence(error)
        );
        NotDone::Full
    } else {
        tracing::error!(
            "an enrolment failed in the database: {}",
            failure::sentence(error)
        );
        NotDone::Failed
    }
}
