//! Which resolvers a question is for, and that it never goes to others. Answers are followed by hickory where it asks, and
//! keys asked for, so that this is seen to at the connections, both ways: what is not for these resolvers does not leave, and
//! an answer that leads to a name of others' is not taken. The name is then an alias, which is followed step by step. What is too
//! heavy to be kept is seen here, too (`weight`).

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use hickory_proto::op::{DnsRequest, DnsResponse, Message, OpCode, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsExchange, DnsHandle, DnsResponseStream, FirstAnswer as _};
use hickory_resolver::{ConnectionProvider, PoolContext};

use super::weight::{Room, lighten, weight};

/// The zones that have resolvers of their own, by their place in the configuration.
#[derive(Debug)]
pub(super) struct Routes(Vec<Name>);

/// Whose a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// That of the resolvers of the zone at that place.
    Zone(usize),
    /// That of the resolvers of all that is in none of the zones.
    Rest,
}

impl Routes {
    pub(super) fn new(zones: impl Iterator<Item = Name>) -> Self {
        Self(zones.collect())
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose resolvers a name is for: the longest zone counts.
    pub(super) fn of(&self, name: &Name) -> Whose {
        let around = self.0.iter().enumerate();
        let around = around.filter(|(_, zone)| zone.zone_of(name));
        let longest = around.max_by_key(|(_, zone)| zone.num_labels());
        longest.map_or(Whose::Rest, |(at, _)| Whose::Zone(at))
    }

    /// Whether those may be asked about a name: it is theirs, or lies above their zone, whose keys follow from those there.
    fn allow(&self, whose: Whose, name: &Name) -> bool {
        match (whose, self.of(name)) {
            (Whose::Zone(at), Whose::Rest) => self.0.get(at).is_some_and(|zone| name.zone_of(zone)),
            (_, of) => of == whose,
        }
    }
}

/// Connections to the resolvers of one zone, or to those of the rest.
#[derive(Clone)]
pub(super) struct Connections {
    routes: Arc<Routes>,
    whose: Whose,
    room: Room,
    provider: TokioRuntimeProvider,
}

impl Connections {
    pub(super) fn of(whose: Whose, routes: &Arc<Routes>, room: &Room) -> Self {
        Self {
            routes: Arc::clone(routes),
            whose,
            room: room.clone(),
            provider: TokioRuntimeProvider::default(),
        }
    }
}

impl ConnectionProvider for Connections {
    type Conn = Connection;
    type FutureConn = Pin<Box<dyn Future<Output = Result<Connection, NetError>> + Send>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        context: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let opening = self.provider.new_connection(ip, config, context)?;
        let (routes, whose, room) = (Arc::clone(&self.routes), self.whose, self.room.clone());
        Ok(Box::pin(async move {
            Ok(Connection {
                routes,
                whose,
                room,
                exchange: opening.await?,
            })
        }))
    }

    fn runtime_provider(&self) -> &TokioRuntimeProvider {
        &self.provider
    }
}

/// One of them.
#[derive(Clone)]
pub(super) struct Connection {
    routes: Arc<Routes>,
    whose: Whose,
    room: Room,
    exchange: DnsExchange<TokioRuntimeProvider>,
}

impl DnsHandle for Connection {
    type Response = DnsResponseStream;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> DnsResponseStream {
        let allowed =
            (request.queries.iter()).all(|question| self.routes.allow(self.whose, question.name()));
        if !allowed {
            return DnsResponseStream::from(Box::pin(async move { refusal(&request) }));
        }
        let (routes, whose, room) = (Arc::clone(&self.routes), self.whose, self.room.clone());
        let asking = self.exchange.send(request.clone());
        DnsResponseStream::from(Box::pin(async move {
            let mut response = asking.first_answer().await?;
            let bytes = response.as_buffer().len();
            let is_ours = !leads_to_others(&response, &routes, whose);
            if is_ours
                && lighten(&mut response, bytes)
                && is_room_for(&room, &request, weight(&response, bytes))
            {
                Ok(response)
            } else {
                refusal(&request)
            }
        }))
    }
}

fn is_room_for(room: &Room, request: &DnsRequest, weight: usize) -> bool {
    let question = request.queries.first();
    question.is_none_or(|question| room.hold(question.name(), weight, Instant::now()))
}

/// Whether an alias that was followed is another name for one of others'.
fn leads_to_others(response: &Message, routes: &Routes, whose: Whose) -> bool {
    let asks_alias = |message: &Message| {
        let mut kinds = message.queries.iter().map(|it| it.query_type());
        kinds.any(|kind| kind == RecordType::CNAME)
    };
    let mut targets = response.answers.iter().filter_map(|record| {
        let RData::CNAME(target) = &record.data else {
            return None;
        };
        Some(&target.0)
    });
    !asks_alias(response) && targets.any(|target| routes.of(target) != whose)
}

/// What hickory holds against no server, and gives up at.
fn refusal(request: &DnsRequest) -> Result<DnsResponse, NetError> {
    let mut refusal = Message::response(request.metadata.id, OpCode::Query);
    refusal.metadata.response_code = ResponseCode::Refused;
    refusal.add_queries(request.queries.iter().cloned());
    Ok(DnsResponse::from_message(refusal)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn routes() -> Routes {
        Routes::new(
            ["corp.example.", "lab.corp.example.", "example.org."]
                .map(name)
                .into_iter(),
        )
    }

    #[test]
    fn a_name_is_for_the_resolvers_of_the_longest_zone_around_it() {
        for (asked, whose) in [
            ("example.", Whose::Rest),
            ("xcorp.example.", Whose::Rest),
            ("corp.example.org.", Whose::Zone(2)),
            ("corp.example.", Whose::Zone(0)),
            ("a.CORP.example.", Whose::Zone(0)),
            ("xlab.corp.example.", Whose::Zone(0)),
            ("Lab.corp.example.", Whose::Zone(1)),
            ("a.b.lab.corp.example.", Whose::Zone(1)),
        ] {
            assert_eq!(routes().of(&name(asked)), whose, "{asked}");
        }
    }

    #[test]
    fn nobody_is_asked_about_names_of_others_and_a_zones_resolvers_about_those_above_it() {
        for (whose, asked) in [
            (Whose::Rest, "corp.example."),
            (Whose::Rest, "a.lab.corp.example."),
            (Whose::Zone(0), "lab.corp.example."),
            (Whose::Zone(1), "corp.example."),
            (Whose::Zone(0), "www.example."),
            (Whose::Zone(0), "net."),
        ] {
            assert!(!routes().allow(whose, &name(asked)), "{whose:?} {asked}");
        }
        for (whose, asked) in [
            (Whose::Rest, "example."),
            (Whose::Zone(0), "www.corp.example."),
            (Whose::Zone(0), "example."),
            (Whose::Zone(0), "."),
        ] {
            assert!(routes().allow(whose, &name(asked)), "{whose:?} {asked}");
        }
    }
}
