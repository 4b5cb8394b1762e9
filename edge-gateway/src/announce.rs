//! Which inner addresses this gateway carries, as host routes in a kernel table of its own, from where a routing daemon
//! tells the site's routers. Nothing is forwarded by that table: no rule points to it.
//!
//! A route's metric falls with the second of its making, so that of two gateways that both announce an address the
//! later one wins wherever lower metrics do (a kernel table, or BGP's MED); the earlier one may not know yet that
//! the router has left.
//!
//! A word that finds no room is not said again: its worker says, a moment later, all that it carries.
//!
//! The thread owns a netlink socket and the list of what stands in the table; it waits for [`Word`]s from the workers
//! and ends with the last of their senders. Killed at any point, it leaves routes that the kernel removes together with
//! the tunnel's interface.

mod standing;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netio::clock;
use netio::netlink::{LinkIndex, Netlink, NetlinkError, Route, Via};

use crate::config::{Announce, Config};
use crate::exit::Fault;
use standing::{Change, Standing, Word};

/// Words that the thread has not taken yet; a route takes it some microseconds.
const MAX_WORDS: usize = 65_536;

/// How long after a word was lost everything is said, and how often that is tried: it takes a walk over all peers.
const SAY_ALL_AFTER: Duration = Duration::from_secs(1);

/// A worker's end; without `[announce]` it leads nowhere.
#[derive(Clone, Debug, Default)]
pub struct Announcer {
    words: Option<SyncSender<(u8, Word)>>,
    lost: Arc<AtomicUsize>,
    worker: u8,
    /// When everything is to be said, since something was lost.
    say_all_at: Option<Instant>,
}

impl Announcer {
    /// The end of the worker with this number.
    #[must_use]
    pub fn of_worker(&self, worker: u8) -> Self {
        Self {
            worker,
            ..self.clone()
        }
    }

    /// These addresses are carried here from now on.
    pub fn carried(&mut self, addresses: Vec<IpNet>, now: Instant) {
        self.say(Word::Carried(addresses), now);
    }

    /// These are not any more.
    pub fn left(&mut self, addresses: Vec<IpNet>, now: Instant) {
        self.say(Word::Left(addresses), now);
    }

    /// When [`Announcer::handle_timeout`] is to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.say_all_at
    }

    /// Says everything that is carried, if that is due.
    pub fn handle_timeout<'a>(&mut self, carried: impl Iterator<Item = &'a [IpNet]>, now: Instant) {
        if self.say_all_at.take_if(|at| *at <= now).is_some() {
            self.say(Word::All(carried.flatten().copied().collect()), now);
        }
    }

    /// How many words found no room. What they would have said is said a second later.
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }

    fn say(&mut self, word: Word, now: Instant) {
        let Some(words) = &self.words else {
            return;
        };
        match words.try_send((self.worker, word)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                self.say_all_at.get_or_insert(now + SAY_ALL_AFTER);
            }
        }
    }
}

/// Starts the thread, if there is anything to announce.
pub(crate) fn start(config: &Config) -> Result<(Announcer, Option<JoinHandle<()>>), Fault> {
    let Some(announce) = config.announce else {
        return Ok((Announcer::default(), None));
    };
    let fault =
        |error: NetlinkError| Fault::io("announce addresses", &std::io::Error::other(error));
    let netlink = Netlink::open().map_err(fault)?;
    let link = netlink.link(&config.tunnel.interface).map_err(fault)?;
    let (words, inbox) = sync_channel(MAX_WORDS);
    let mut table = Table {
        netlink,
        link,
        announce,
        standing: Standing::default(),
    };
    let thread = std::thread::Builder::new()
        .name("announcer".to_owned())
        .spawn(move || table.run(&inbox))
        .map_err(|error| Fault::io("start the announcer's thread", &error))?;
    let announcer = Announcer {
        words: Some(words),
        ..Announcer::default()
    };
    Ok((announcer, Some(thread)))
}

/// The kernel's table, and what we put there.
struct Table {
    netlink: Netlink,
    link: LinkIndex,
    announce: Announce,
    standing: Standing,
}

impl Table {
    fn run(&mut self, inbox: &Receiver<(u8, Word)>) {
        while let Ok((worker, word)) = inbox.recv() {
            let metric = metric(clock::unix_s());
            for change in self.standing.apply(worker, word, metric) {
                if let Err(error) = self.make(change) {
                    // The address is a customer's, and stays out of the log.
                    tracing::warn!(%error, "a carried address is not announced as it should be");
                }
            }
        }
        for change in self.standing.clear() {
            if let Err(error) = self.make(change) {
                tracing::debug!(%error, "announced addresses go with the interface");
            }
        }
    }

    fn make(&mut self, change: Change) -> Result<(), NetlinkError> {
        let protocol = self.announce.protocol;
        match change {
            Change::Add(to, metric) => {
                let route = self.route(to, metric);
                self.netlink.add_route_of(&route, protocol)
            }
            Change::Delete(to, metric) => {
                let route = self.route(to, metric);
                self.netlink.delete_route_of(&route, protocol)
            }
        }
    }

    fn route(&self, to: IpNet, metric: u32) -> Route {
        Route {
            to,
            via: Via::Link(self.link),
            table: self.announce.table,
            metric: Some(metric),
        }
    }
}

/// The later, the lower. Unix seconds fit into 32 bits until 2106.
fn metric(now_s: u64) -> u32 {
    u32::MAX - u32::try_from(now_s).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_announcement_has_the_lower_metric_and_none_is_out_of_range() {
        assert!(metric(1_800_000_001) < metric(1_800_000_000));
        assert_eq!((metric(0), metric(u64::MAX)), (u32::MAX, 0));
    }

    fn bounded(words: SyncSender<(u8, Word)>) -> Announcer {
        let announcer = Announcer {
            words: Some(words),
            ..Announcer::default()
        };
        announcer.of_worker(3)
    }

    #[test]
    fn without_announcements_nothing_is_lost_or_due() {
        let mut nowhere = Announcer::default();

        nowhere.carried(vec!["10.64.0.16/32".parse().unwrap()], Instant::now());

        assert_eq!((nowhere.lost(), nowhere.poll_timeout()), (0, None));
    }

    #[test]
    fn after_words_were_lost_everything_is_said_as_soon_as_there_is_room() {
        let (words, inbox) = sync_channel(1);
        let mut announcer = bounded(words);
        let (start, nets): (_, [IpNet; 2]) = (
            Instant::now(),
            ["10.64.0.16/32", "10.64.0.17/32"].map(|net| net.parse().unwrap()),
        );
        let table = || [&nets[..1], &nets[1..]].into_iter();
        announcer.carried(vec![nets[0]], start);
        assert_eq!(announcer.poll_timeout(), None);

        announcer.carried(vec![nets[1]], start);
        announcer.left(vec![nets[1]], start);

        let due = start + SAY_ALL_AFTER;
        assert_eq!((announcer.lost(), announcer.poll_timeout()), (2, Some(due)));
        announcer.handle_timeout(table(), due - Duration::from_millis(1));
        announcer.handle_timeout(table(), due);
        assert_eq!(
            announcer.poll_timeout(),
            Some(due + SAY_ALL_AFTER),
            "still full"
        );
        assert_eq!(inbox.recv(), Ok((3, Word::Carried(vec![nets[0]]))));
        announcer.handle_timeout(table(), due + SAY_ALL_AFTER);
        assert_eq!(inbox.recv(), Ok((3, Word::All(nets.to_vec()))));
        assert_eq!(announcer.poll_timeout(), None);
    }
}
