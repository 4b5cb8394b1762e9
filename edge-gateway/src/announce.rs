//! Which inner addresses this gateway carries, as host routes in a kernel table of its own, from where a routing daemon
//! tells the site's routers. Nothing is forwarded by that table: no rule points to it.
//!
//! A route's metric falls with the second of its making, so that of two gateways that both announce an address the
//! later one wins wherever lower metrics do (a kernel table, or BGP's MED); the earlier one may not know yet that
//! the router has left.
//!
//! The thread owns a netlink socket and the list of what stands in the table; it waits for [`Word`]s from the workers
//! and ends with the last of their senders. Killed at any point, it leaves routes that the kernel removes together with
//! the tunnel's interface.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use ipnet::IpNet;
use netio::clock;
use netio::netlink::{LinkIndex, Netlink, NetlinkError, Route, Via};

use crate::config::{Announce, Config};
use crate::exit::Fault;

/// Words that the thread has not taken yet; a route takes it some microseconds.
const MAX_WORDS: usize = 65_536;

/// What a worker tells.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Carried(Vec<IpNet>),
    Left(Vec<IpNet>),
}

/// A worker's end; without `[announce]` it leads nowhere.
#[derive(Clone, Debug, Default)]
pub struct Announcer {
    words: Option<SyncSender<Word>>,
    lost: Arc<AtomicUsize>,
}

impl Announcer {
    /// These addresses are carried here from now on.
    pub fn carried(&self, addresses: Vec<IpNet>) {
        self.say(Word::Carried(addresses));
    }

    /// These are not any more.
    pub fn left(&self, addresses: Vec<IpNet>) {
        self.say(Word::Left(addresses));
    }

    /// How many words found no room: routes that are missing, or that stand too long.
    pub fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }

    fn say(&self, word: Word) {
        let Some(words) = &self.words else {
            return;
        };
        match words.try_send(word) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
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
        standing: HashMap::new(),
    };
    let thread = std::thread::Builder::new()
        .name("announcer".to_owned())
        .spawn(move || table.run(&inbox))
        .map_err(|error| Fault::io("start the announcer's thread", &error))?;
    let announcer = Announcer {
        words: Some(words),
        lost: Arc::default(),
    };
    Ok((announcer, Some(thread)))
}

/// The kernel's table, and what we put there.
struct Table {
    netlink: Netlink,
    link: LinkIndex,
    announce: Announce,
    /// Each address with the metric of its route.
    standing: HashMap<IpNet, u32>,
}

impl Table {
    fn run(&mut self, inbox: &Receiver<Word>) {
        while let Ok(word) = inbox.recv() {
            let result = match word {
                Word::Carried(addresses) => self.add(&addresses, metric(clock::unix_s())),
                Word::Left(addresses) => self.remove(&addresses),
            };
            if let Err(error) = result {
                // The address is a customer's, and stays out of the log.
                tracing::warn!(%error, "a carried address is not announced as it should be");
            }
        }
        let all: Vec<IpNet> = self.standing.keys().copied().collect();
        if let Err(error) = self.remove(&all) {
            tracing::debug!(%error, "announced addresses go with the interface");
        }
    }

    fn add(&mut self, addresses: &[IpNet], metric: u32) -> Result<(), NetlinkError> {
        for address in addresses {
            let before = self.standing.insert(*address, metric);
            self.netlink
                .add_route_of(&self.route(*address, metric), self.announce.protocol)?;
            if let Some(before) = before.filter(|before| *before != metric) {
                self.delete(*address, before)?;
            }
        }
        Ok(())
    }

    fn remove(&mut self, addresses: &[IpNet]) -> Result<(), NetlinkError> {
        for address in addresses {
            if let Some(metric) = self.standing.remove(address) {
                self.delete(*address, metric)?;
            }
        }
        Ok(())
    }

    fn delete(&mut self, to: IpNet, metric: u32) -> Result<(), NetlinkError> {
        self.netlink
            .delete_route_of(&self.route(to, metric), self.announce.protocol)
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

    #[test]
    fn words_beyond_the_bound_are_counted_and_nobody_waits() {
        let (words, inbox) = sync_channel(1);
        let announcer = Announcer {
            words: Some(words),
            lost: Arc::default(),
        };
        let net: IpNet = "10.64.0.16/32".parse().unwrap();

        announcer.carried(vec![net]);
        announcer.left(vec![net]);

        assert_eq!(announcer.lost(), 1);
        assert_eq!(inbox.recv(), Ok(Word::Carried(vec![net])));
        let nowhere = Announcer::default();
        nowhere.carried(vec![net]);
        assert_eq!(nowhere.lost(), 0);
    }
}
