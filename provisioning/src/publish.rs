//! Publication: what this server has sealed is shown to the witnesses, and once as many have cosigned it as the trust file asks for,
//! everybody sees it. One task for each log; what it shares with the sequencer and the command line is the database. Whoever waits for an
//! entry is woken by [`Changes`]. Aborting it loses answers, which the witnesses repeat.

mod ask;

use std::time::Duration;

use anyhow::Context;
use hyper::{StatusCode, Uri};
use tokio::task::JoinSet;
use tokio::time::Instant;
use trust::{AddCheckpoint, Policy, SignedCheckpoint, Vkey};

use crate::changes::Changes;
use crate::clock::unix_now;
use crate::failure::{Blame, Failure, sentence};
use crate::log::{self, Head, Log};
use crate::metrics::Metrics;
use crate::store::witnesses;
use crate::store::{Store, Writer};
use ask::{Answer, Asker};

/// A witness that did not cosign is left alone for so long.
const PAUSE: Duration = Duration::from_secs(1);

/// The task of one log.
#[derive(Debug)]
pub struct Publisher {
    log: Log,
    policy: Policy,
    witnesses: Vec<Witness>,
    /// Being cosigned: no later one is, before enough have cosigned it, so that a log that grows all the time is published too.
    current: Option<(Head, SignedCheckpoint)>,
    asked: JoinSet<(usize, u64, Answer)>,
    asker: Asker,
    store: Store,
    writer: Writer,
    changes: Changes,
    metrics: Metrics,
}

/// One who is asked.
#[derive(Debug)]
struct Witness {
    name: String,
    vkey: Vkey,
    url: Uri,
    /// The size that it has cosigned, as far as is known.
    size: Option<u64>,
    /// Whether it has just said which size that is, and was asked again at once.
    is_corrected: bool,
    /// A word for what is wrong.
    problem: Option<&'static str>,
    turn: Turn,
}

/// What a witness is doing.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// It may be asked.
    Idle,
    /// It is being asked.
    Busy,
    /// It has cosigned the current head.
    Done,
    /// It did not cosign, and is asked again then.
    Paused(Instant),
}

impl Publisher {
    /// Prepares the task; none where nobody else is to be asked.
    pub async fn new(
        log: Log,
        policy: &Policy,
        store: &Store,
        (changes, metrics): (&Changes, &Metrics),
    ) -> anyhow::Result<Option<Self>> {
        let mut witnesses = Vec::new();
        for (name, witness) in policy.witnesses() {
            if let Some(url) = &witness.url {
                witnesses.push(Witness::new(name, &witness.vkey, url)?);
            }
        }
        if witnesses.is_empty() {
            let next = log::next(&mut *store.read().await?, log).await?;
            return match next {
                None => Ok(None),
                Some(_) => Err(nobody_to_ask(log)),
            };
        }
        Ok(Some(Self {
            log,
            policy: policy.clone(),
            witnesses,
            current: None,
            asked: JoinSet::new(),
            asker: Asker::new()?,
            store: store.clone(),
            writer: store.writer().await?,
            changes: changes.clone(),
            metrics: metrics.clone(),
        }))
    }

    /// Works until dropped.
    pub async fn run(mut self) {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            if let Err(error) = self.ask_all().await {
                self.begin_again(&error).await;
                continue;
            }
            let wake = self.next_turn();
            tokio::select! {
                Some(answered) = self.asked.join_next() => {
                    let Ok((at, size, answer)) = answered else { continue };
                    if let Err(error) = self.take(at, size, answer).await {
                        self.begin_again(&error).await;
                    }
                }
                // The sender lives as long as this does.
                _ = changes.changed() => {}
                () = wake => {}
            }
        }
    }

    /// What was gathered cannot be written, or nothing can be read: everybody is asked once more, who then say the same again.
    async fn begin_again(&mut self, error: &anyhow::Error) {
        let log = self.log.as_str();
        tracing::error!(log, "the log cannot be published: {}", sentence(error));
        self.current = None;
        tokio::time::sleep(PAUSE).await;
    }

    /// Until a witness may be asked again; for ever where none is paused.
    fn next_turn(&self) -> impl Future<Output = ()> + use<> {
        let until = |witness: &Witness| match witness.turn {
            Turn::Paused(until) => Some(until),
            Turn::Idle | Turn::Busy | Turn::Done => None,
        };
        let first = self.witnesses.iter().filter_map(until).min();
        async move {
            match first {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Asks everybody for the head that is to be cosigned, who has not cosigned it and is not being asked.
    async fn ask_all(&mut self) -> anyhow::Result<()> {
        let mut db = self.store.read().await?;
        if self.current.is_none() {
            let Some(next) = log::next(&mut db, self.log).await? else {
                return Ok(());
            };
            let checkpoint = next.checkpoint()?;
            self.current = Some((next, checkpoint));
            for witness in &mut self.witnesses {
                if witness.turn == Turn::Done {
                    witness.turn = Turn::Idle;
                }
            }
        }
        let Some((head, checkpoint)) = &self.current else {
            return Ok(());
        };
        let published = log::head(&mut db, self.log)
            .await?
            .map_or(0, |head| head.size);
        let now = Instant::now();
        for (at, witness) in self.witnesses.iter_mut().enumerate() {
            let is_its_turn = match witness.turn {
                Turn::Idle => true,
                Turn::Paused(until) => until <= now,
                Turn::Busy | Turn::Done => false,
            };
            if !is_its_turn {
                continue;
            }
            let old = witness.size.unwrap_or(published).min(head.size);
            let question = AddCheckpoint {
                old,
                proof: log::consistency(&mut db, self.log, (old, head.size)).await?,
                checkpoint: checkpoint.clone(),
            };
            let (asker, url, size) = (self.asker.clone(), witness.url.clone(), head.size);
            self.asked
                .spawn(async move { (at, size, asker.ask(&url, &question).await) });
            witness.turn = Turn::Busy;
        }
        Ok(())
    }

    /// Takes an answer to a question about the head of this size.
    async fn take(&mut self, at: usize, size: u64, answer: Answer) -> anyhow::Result<()> {
        let witness = self.witnesses.get_mut(at).context("nobody was asked")?;
        witness.turn = Turn::Idle;
        let current = self.current.as_mut().filter(|(head, _)| head.size == size);
        let problem = match answer {
            Answer::Lines(lines) => {
                let Some((_, checkpoint)) = current else {
                    // Enough others were quicker; its next answer is looked at.
                    witness.size = Some(size);
                    return Ok(());
                };
                match checkpoint.with_line_of(&witness.vkey, &lines) {
                    Some(cosigned) => {
                        *checkpoint = cosigned;
                        return self.cosigned(at, size).await;
                    }
                    None => ("bad-answer", None),
                }
            }
            Answer::At(at) if at > size => ("ahead", Some(at)),
            Answer::At(at) if witness.size == Some(at) => ("fork", Some(at)),
            Answer::At(at) if !witness.is_corrected => {
                (witness.size, witness.is_corrected) = (Some(at), true);
                return Ok(());
            }
            Answer::At(at) => ("bad-answer", Some(at)),
            Answer::Refused(StatusCode::NOT_FOUND) => ("unknown-log", None),
            Answer::Refused(StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY) => {
                ("fork", None)
            }
            Answer::Refused(_) => ("refused", None),
            Answer::Unreachable(why) => {
                tracing::debug!(witness = witness.name, "a witness cannot be asked: {why}");
                ("unreachable", None)
            }
        };
        self.failed(at, problem).await
    }

    async fn cosigned(&mut self, at: usize, size: u64) -> anyhow::Result<()> {
        let log = self.log;
        let witness = self.witnesses.get_mut(at).context("nobody was asked")?;
        if witness.problem.take().is_some() {
            let name = &witness.name;
            tracing::info!(log = log.as_str(), "the witness {name} cosigns again");
        }
        (witness.turn, witness.is_corrected) = (Turn::Done, false);
        witness.size = Some(size);
        self.metrics.witnesses.with("cosigned").inc();
        let Some((head, checkpoint)) = &self.current else {
            return Ok(());
        };
        let is_enough = self.policy.verify_checkpoint(checkpoint).is_ok();
        let now = unix_now();
        let mut db = self.writer.begin().await?;
        witnesses::cosigned(&mut db, (log.number(), &witness.vkey.key), size, now).await?;
        if is_enough {
            let statement = checkpoint.text().into_bytes();
            let head = Head {
                statement,
                ..head.clone()
            };
            log::publish(&mut db, log, &head).await?;
        }
        db.commit().await?;
        if is_enough {
            self.current = None;
            self.changes.announce();
        }
        Ok(())
    }

    async fn failed(
        &mut self,
        at: usize,
        (problem, size): (&'static str, Option<u64>),
    ) -> anyhow::Result<()> {
        self.metrics.witnesses.with(problem).inc();
        let witness = self.witnesses.get_mut(at).context("nobody was asked")?;
        (witness.turn, witness.is_corrected) = (Turn::Paused(Instant::now() + PAUSE), false);
        if witness.problem.replace(problem) == Some(problem) {
            return Ok(());
        }
        let (log, name) = (self.log.as_str(), &witness.name);
        match problem {
            "ahead" => tracing::error!(
                log,
                "the witness {name} has cosigned {} entries, more than this database has: it is older than what this server signed. \
                 Stop the server and restore the latest copy",
                size.unwrap_or_default()
            ),
            "fork" => tracing::error!(
                log,
                "the witness {name} has cosigned another history of this log: this server's keys or its database are in other hands, \
                 or a copy of them runs elsewhere, or it was put back to an old copy and has grown since"
            ),
            _ => tracing::warn!(log, "the witness {name} does not cosign: {problem}"),
        }
        let key = (self.log.number(), &witness.vkey.key);
        let mut db = self.writer.begin().await?;
        witnesses::failed(&mut db, key, (problem, size), unix_now()).await?;
        db.commit().await?;
        Ok(())
    }
}

impl Witness {
    fn new(name: &str, vkey: &Vkey, url: &str) -> anyhow::Result<Self> {
        let url = ask::address(url).map_err(|error| {
            let sentence =
                format!("the trust file's witness {name} cannot be asked at {url}: {error}");
            Failure::new(Blame::Config, sentence)
        })?;
        Ok(Self {
            name: name.to_owned(),
            vkey: vkey.clone(),
            url,
            size: None,
            is_corrected: false,
            problem: None,
            turn: Turn::Idle,
        })
    }
}

fn nobody_to_ask(log: Log) -> anyhow::Error {
    let sentence = format!(
        "the trust file asks others to cosign the {} log, and no witness line in it says where: add a URL to the lines",
        log.as_str()
    );
    Failure::new(Blame::Config, sentence).into()
}
