//! The load over TCP: a connection for each lookup, some of them at the same time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand_core::{OsRng, RngCore as _};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use super::plan::{Pace, Plan, Progress};
use super::tally::Tally;
use crate::cli::exit::Failure;
use crate::cli::query::runtime;
use crate::listen::{read_frame, write_frame};
use crate::proto::client::QueryPadding;

/// A lookup that takes longer is lost; three packets go there and back.
const PATIENCE: Duration = Duration::from_secs(5);
const TOLD: Duration = Duration::from_millis(200);

/// What the connections share; all of them run on one thread.
struct Load {
    plan: Plan,
    tally: RefCell<Tally>,
    numbers: Cell<u64>,
    began: Instant,
}

/// Runs the plan and gives what came of it, and how long it took.
pub(super) fn run(plan: Plan) -> Result<(Tally, Duration), Failure> {
    let load = Rc::new(Load {
        plan,
        tally: RefCell::default(),
        numbers: Cell::new(0),
        began: Instant::now(),
    });
    let clients = LocalSet::new();
    let all = clients.run_until(async {
        let mut tasks = JoinSet::new();
        for _ in 0..load.plan.in_flight {
            tasks.spawn_local(Rc::clone(&load).client());
        }
        let mut progress = Progress::new(load.began);
        while !matches!(timeout(TOLD, tasks.join_next()).await, Ok(None)) {
            progress.look(&load.tally.borrow(), Instant::now());
        }
    });
    runtime()?.block_on(all);
    let lasted = load.began.elapsed().min(load.plan.lasting);
    Ok((load.tally.take(), lasted))
}

impl Load {
    /// One lookup after the other, each when it is due.
    async fn client(self: Rc<Self>) {
        loop {
            let number = self.numbers.replace(self.numbers.get() + 1);
            let due = self.began + self.plan.pace.at(number);
            sleep(due.saturating_duration_since(Instant::now())).await;
            if !self.plan.goes_on(self.began.elapsed()) {
                return;
            }
            self.lookup(number).await;
        }
    }

    async fn lookup(&self, number: u64) {
        let [choice, ..] = OsRng.next_u32().to_be_bytes();
        let id = u16::try_from(number % 0x1_0000).unwrap_or_default();
        let query = self.plan.names.message(number, id);
        let how = QueryPadding::Tcp { choice };
        let lookup = query.and_then(|query| self.plan.sealing.dress(query, 0, how));
        let Some(lookup) = lookup else {
            self.tally.borrow_mut().withheld += 1;
            return;
        };
        self.tally.borrow_mut().sent += 1;
        let sent_at = match self.plan.pace {
            // Where all connections are busy the wait for one of them counts too.
            Pace::PerSecond(_) => self.began + self.plan.pace.at(number),
            Pace::Saturate => Instant::now(),
        };
        let exchange = async {
            let mut stream = TcpStream::connect(self.plan.server).await.ok()?;
            stream.set_nodelay(true).ok()?;
            write_frame(&mut stream, &lookup.packet).await.ok()?;
            let longest = self.plan.sealing.longest_answer();
            let answer = read_frame(&mut stream, longest).await.ok()??;
            self.plan.sealing.open(&lookup, &answer)
        };
        match timeout(PATIENCE, exchange).await.ok().flatten() {
            Some(answer) => self.tally.borrow_mut().answer(&answer, sent_at.elapsed()),
            None => {
                self.tally.borrow_mut().lost += 1;
                self.plan.sealing.unanswered(&lookup);
                // A server that refuses is not asked at the speed of its refusals.
                sleep(TOLD).await;
            }
        }
    }
}
