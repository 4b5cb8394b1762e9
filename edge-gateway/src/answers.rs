//! From a query to its answer, by whichever door it came: the gateway's own names first, then the resolver.

use std::net::IpAddr;
use std::sync::Arc;

use dnscrypt_proxy::listen::{Holder, Homes, Seats};
use dnscrypt_proxy::proto::message::Query;
use dnscrypt_proxy::serve::{Asking, Heard};
use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use crate::dns::Figures;
use crate::dns64::{self, Asked, Dns64};
use crate::own_names::OwnNames;
use crate::resolver::{Outcome, Refused, Resolver};

/// More lookups than this at a time are answered SERVFAIL, so that a flood costs bounded memory.
pub(crate) const MAX_LOOKUPS: usize = 2_048;
/// So many are one source's: what hickory holds of a lookup until it ends may be a megabyte, and zones are anybody's.
const MAX_OF_ONE: usize = 256;
const RCODE_SERVFAIL: u16 = 2;
/// How often a lookup asks that others' want of room makes fail.
const TRIES: usize = 6;

/// The name of a query's question, which stands right after the header; the root's where it is none.
fn asked_name(query: &[u8]) -> Name {
    const HEADER: usize = 12;
    let question = query.get(HEADER..).unwrap_or_default();
    Name::read(&mut BinDecoder::new(question)).unwrap_or_default()
}

/// What answers; a copy for each who asks.
#[derive(Clone)]
pub(crate) struct Answers {
    own: Arc<OwnNames>,
    resolver: Arc<Resolver>,
    dns64: Option<Dns64>,
    homes: Homes,
    seats: Seats,
    figures: Arc<Figures>,
}

impl Answers {
    pub(crate) fn new(
        own: OwnNames,
        (resolver, dns64): (Resolver, Option<Dns64>),
        homes: Homes,
        figures: Arc<Figures>,
    ) -> Self {
        Self {
            own: Arc::new(own),
            resolver: Arc::new(resolver),
            dns64,
            homes,
            seats: Seats::bounded(MAX_LOOKUPS, MAX_OF_ONE),
            figures,
        }
    }

    /// Answers one query; silence when it is not a query at all.
    pub(crate) async fn answer(&self, query: &[u8], from: IpAddr, asking: Asking) -> Heard {
        let asked = self
            .dns64
            .and_then(|dns64| Some((dns64, dns64.take(query)?)));
        // The prefix may be one of a network's own, whose reverse names nobody has otherwise.
        let is_translated = matches!(asked, Some((_, Asked::Reverse(..))));
        let own = (!is_translated).then(|| self.own.answer(query));
        if let Some(answer) = own.flatten() {
            self.figures.count(Outcome::Answered);
            return Heard::Answer(answer);
        }
        let holder = Holder::of(&self.homes, from);
        // A lookup's state is large. Who finds no place takes no memory for it.
        let lookup = || Box::pin(self.look_up_within(holder, query, asked, asking));
        if asking == Asking::Ahead {
            // What nobody waits for has places of its own.
            let (answer, outcome) = lookup().await;
            return heard(answer, outcome);
        }
        let found = match self.seats.take(holder) {
            Some(seat) => seat.during(lookup()).await.ok(),
            None => None,
        };
        let (answer, outcome) = found.unwrap_or_else(|| {
            let busy = Query::read(query).map(|query| query.refuse(RCODE_SERVFAIL, None));
            (busy.ok(), Outcome::Busy)
        });
        self.figures.count(outcome);
        heard(answer, outcome)
    }

    /// Within the room for large answers. What was not taken says nothing of the name, not even where it was a key that validation wanted,
    /// nor where somebody else had no room for an answer that both waited for: then this one asks again.
    async fn look_up_within(
        &self,
        holder: Holder,
        query: &[u8],
        asked: Option<(Dns64, Asked)>,
        asking: Asking,
    ) -> (Option<Vec<u8>>, Outcome) {
        let mut heard = (None, Outcome::Busy);
        for _ in 0..TRIES {
            let waiting = (holder, asked_name(query));
            let lookup = self.look_up(query, asked.clone(), asking);
            let ((answer, outcome), refused) = self.resolver.room().holding(waiting, lookup).await;
            let is_answer = matches!(outcome, Outcome::Answered | Outcome::Synthesized);
            if is_answer || refused == Refused::No {
                return (answer, outcome);
            }
            heard = (answer, Outcome::Busy);
            if refused == Refused::Own {
                break;
            }
        }
        heard
    }

    async fn look_up(
        &self,
        query: &[u8],
        asked: Option<(Dns64, Asked)>,
        asking: Asking,
    ) -> (Option<Vec<u8>>, Outcome) {
        let Some((dns64, asked)) = asked else {
            return self.resolver.answer(query, asking).await;
        };
        match self.translate(dns64, asked, asking).await {
            Ok(answer) => (answer.to_vec().ok(), Outcome::Answered),
            Err(outcome) => {
                let refused = Query::read(query).ok();
                (refused.map(|it| it.refuse(RCODE_SERVFAIL, None)), outcome)
            }
        }
    }

    /// What a NAT64 makes of a name: what it says of itself, and what its IPv4 addresses are behind the prefix. Where one of
    /// the two cannot be had there is no answer, which could be kept and would be wrong.
    async fn translate(
        &self,
        dns64: Dns64,
        asked: Asked,
        asking: Asking,
    ) -> Result<Message, Outcome> {
        match asked {
            Asked::Addresses(request) => {
                let answer = self.ask(&request, asking).await?;
                if !dns64::is_wanting(&answer) {
                    return Ok(dns64::without_excluded(answer));
                }
                let name = request.queries.first().ok_or(Outcome::Malformed)?.name();
                let v4 = dns64::about(&request, name.clone(), RecordType::A);
                let v4 = self.ask(&v4, asking).await?;
                Ok(dns64.synthesize(answer, v4))
            }
            Asked::Reverse(request, target) => {
                let reverse = dns64::about(&request, target.clone(), RecordType::PTR);
                let answer = self.ask(&reverse, asking).await?;
                Ok(dns64::named(&request, target, answer))
            }
        }
    }

    async fn ask(&self, request: &Message, asking: Asking) -> Result<Message, Outcome> {
        let query = request.to_vec().map_err(|_| Outcome::Malformed)?;
        let answer = match self.own.answer(&query) {
            Some(answer) => Some(answer),
            None => match self.resolver.answer(&query, asking).await {
                (answer, Outcome::Answered | Outcome::Synthesized) => answer,
                (_, outcome) => return Err(outcome),
            },
        };
        let answer = answer.ok_or(Outcome::Failed)?;
        Message::from_vec(&answer).map_err(|_| Outcome::Failed)
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
        | Outcome::Synthesized
        | Outcome::Failed
        | Outcome::Refused
        | Outcome::Malformed => Heard::Answer(answer),
        Outcome::Busy => Heard::Busy(answer),
    }
}

#[cfg(test)]
mod tests;
