//! From a query to its answer, by whichever door it came: the gateway's own names first, then the resolver.

use std::net::IpAddr;
use std::sync::Arc;

use dnscrypt_proxy::listen::Homes;
use dnscrypt_proxy::proto::message::Query;
use dnscrypt_proxy::serve::{Asking, Heard};
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

    /// Answers one query; silence when it is not a query at all.
    pub(crate) async fn answer(&self, query: &[u8], from: IpAddr, asking: Asking) -> Heard {
        if let Some(answer) = self.own.answer(query) {
            self.figures.count(Outcome::Answered);
            return Heard::Answer(answer);
        }
        let place = (!self.homes.hold(from)).then(|| self.strangers.try_acquire());
        let Ok(_place) = place.transpose() else {
            self.figures.count(Outcome::Busy);
            let busy = Query::read(query).map(|query| query.refuse(RCODE_SERVFAIL, None));
            return busy.ok().into();
        };
        let (answer, outcome) = self.resolver.answer(query, asking).await;
        if asking != Asking::Ahead {
            self.figures.count(outcome);
        }
        heard(answer, outcome)
    }
}

/// What an older answer may stand in for, and what not.
fn heard(answer: Option<Vec<u8>>, outcome: Outcome) -> Heard {
    let Some(answer) = answer else {
        return Heard::Silence;
    };
    match outcome {
        Outcome::Bogus | Outcome::Declined => Heard::Refused(answer),
        Outcome::Answered
        | Outcome::Failed
        | Outcome::Busy
        | Outcome::Refused
        | Outcome::Malformed => Heard::Answer(answer),
    }
}

#[cfg(test)]
mod tests;
