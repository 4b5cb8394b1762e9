//! From a query to its answer, by whichever door it came: the gateway's own names first, then the resolver.

use std::net::IpAddr;
use std::sync::Arc;

use dnscrypt_proxy::listen::Homes;
use dnscrypt_proxy::proto::Transport;
use dnscrypt_proxy::proto::message::Query;
use tokio::sync::Semaphore;

use crate::dns::Figures;
use crate::own_names::OwnNames;
use crate::resolver::{MAX_LOOKUPS, Outcome, Resolver};

/// What strangers may take of the resolver's places; the rest is the homes'.
const MAX_STRANGERS: usize = MAX_LOOKUPS / 4;
const RCODE_SERVFAIL: u16 = 2;

/// What answers; a copy for each who asks.
#[derive(Clone)]
pub(crate) struct Answers {
    own: Arc<OwnNames>,
    resolver: Arc<Resolver>,
    homes: Homes,
    strangers: Arc<Semaphore>,
    figures: Arc<Figures>,
}

impl Answers {
    pub(crate) fn new(
        own: OwnNames,
        resolver: Resolver,
        homes: Homes,
        figures: Arc<Figures>,
    ) -> Self {
        Self {
            own: Arc::new(own),
            resolver: Arc::new(resolver),
            homes,
            strangers: Arc::new(Semaphore::new(MAX_STRANGERS)),
            figures,
        }
    }

    /// Answers one query, over TCP alone where `upstream` says so; `None` when it is not a query at all.
    pub(crate) async fn answer(
        &self,
        query: &[u8],
        from: IpAddr,
        upstream: Transport,
    ) -> Option<Vec<u8>> {
        if let Some(answer) = self.own.answer(query) {
            self.figures.count(Outcome::Answered);
            return Some(answer);
        }
        let place = (!self.homes.hold(from)).then(|| self.strangers.try_acquire());
        let Ok(_place) = place.transpose() else {
            self.figures.count(Outcome::Busy);
            return Some(Query::read(query).ok()?.refuse(RCODE_SERVFAIL, None));
        };
        let (answer, outcome) = self.resolver.answer(query, upstream).await;
        self.figures.count(outcome);
        answer
    }
}

#[cfg(test)]
mod tests;
