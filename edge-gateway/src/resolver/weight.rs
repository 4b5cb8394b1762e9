//! What an answer may weigh that hickory keeps: its memory is bounded in entries, and who has a zone decides how large these are.
//! Larger answers are answers, but end at once, so that nobody keeps them; what no honest server sends is refused. And what all
//! large answers on their way may weigh together: ten times their bytes are held for as long as a lookup lasts.

use std::cell::RefCell;
use std::sync::Arc;

use hickory_proto::op::Message;
use hickory_proto::rr::{Record, RecordType};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::EDNS_PAYLOAD_BYTES;

/// Of all that are larger than a datagram, at a time: 128 of the largest.
const HEAVY_KIB: usize = 8 << 10;

/// Longer ones are not kept: what comes over UDP has 1,232 bytes, keys of a zone mostly less than 2,000.
const KEPT_BYTES: usize = 4_096;
/// Nor those of more records, which take some 300 bytes in memory, whatever they took on the wire. A top-level domain's servers, addresses and
/// signature are 41.
const KEPT_RECORDS: usize = 48;
/// A zone has up to 13 servers, and a denial eight records.
const MOST_AUTHORITIES: usize = 48;
/// Addresses of the servers: two of each.
const MOST_ADDITIONALS: usize = 48;

/// Makes an answer that came in so many bytes light enough to be kept, or not to be kept at all. False: it is none.
pub(super) fn lighten(answer: &mut Message, bytes: usize) -> bool {
    let asks_servers = |message: &Message| {
        let mut kinds = message.queries.iter().map(|query| query.query_type());
        kinds.any(|kind| kind == RecordType::NS)
    };
    // Servers are kept whatever the lifetime, until others take their place.
    let are_servers_many = asks_servers(answer) && answer.answers.len() > MOST_AUTHORITIES;
    if answer.authorities.len() > MOST_AUTHORITIES || are_servers_many {
        return false;
    }
    let is_light = bytes <= KEPT_BYTES && count(answer) <= KEPT_RECORDS;
    answer.additionals.truncate(MOST_ADDITIONALS);
    if !is_light {
        records(answer).for_each(|record| record.ttl = 0);
    }
    true
}

tokio::task_local! {
    /// What the lookup of this task has of the room for large answers.
    static HELD: RefCell<Vec<OwnedSemaphorePermit>>;
}

/// The room for all large answers.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(HEAVY_KIB)))
    }

    /// Room for an answer of so many bytes until the lookup that it is for has ended. False: there is none.
    pub(super) fn hold(&self, bytes: usize) -> bool {
        if bytes <= EDNS_PAYLOAD_BYTES.into() {
            return true;
        }
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let Ok(held) = Arc::clone(&self.0).try_acquire_many_owned(kib) else {
            return false;
        };
        // Outside of a lookup nobody holds it for longer than this.
        let _outside = HELD.try_with(|all| all.borrow_mut().push(held));
        true
    }
}

/// A lookup, which has what it holds until it ends.
pub(super) async fn holding<T>(lookup: impl Future<Output = T>) -> T {
    HELD.scope(RefCell::default(), lookup).await
}

fn count(answer: &Message) -> usize {
    answer.answers.len() + answer.authorities.len() + answer.additionals.len()
}

fn records(answer: &mut Message) -> impl Iterator<Item = &mut Record> {
    let beside = answer.authorities.iter_mut().chain(&mut answer.additionals);
    answer.answers.iter_mut().chain(beside)
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{OpCode, Query};
    use hickory_proto::rr::rdata::{A, NS};
    use hickory_proto::rr::{Name, RData};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn answer(kind: RecordType, answers: usize, authorities: usize, additionals: usize) -> Message {
        let mut message = Message::response(1, OpCode::Query);
        message.add_query(Query::query(name("big."), kind));
        let address = || Record::from_rdata(name("big."), 300, RData::A(A::new(192, 0, 2, 1)));
        let server = || Record::from_rdata(name("big."), 300, RData::NS(NS(name("ns.big."))));
        message.answers = vec![address(); answers];
        message.authorities = vec![server(); authorities];
        message.additionals = vec![address(); additionals];
        message
    }

    fn lifetimes(mut message: Message, bytes: usize) -> Option<Vec<u32>> {
        lighten(&mut message, bytes).then(|| records(&mut message).map(|it| it.ttl).collect())
    }

    #[tokio::test]
    async fn large_answers_beyond_the_room_for_them_are_refused_until_lookups_end_and_small_ones_never()
     {
        let room = Room::new();
        let (first, second) = (room.clone(), room.clone());

        let held = holding(async move { (0..200).filter(|_| first.hold(65_535)).count() }).await;
        assert_eq!(held, 128);
        holding(async move {
            assert!((0..127).all(|_| second.hold(65_535)));
            assert!(!second.hold(65_535 * 2));
            assert!((0..5_000).all(|_| second.hold(1_232)));
        })
        .await;

        assert_eq!(room.0.available_permits(), HEAVY_KIB);
    }

    #[test]
    fn more_servers_than_a_zone_can_have_are_no_answer() {
        assert_eq!(lifetimes(answer(RecordType::A, 0, 49, 0), 900), None);
        assert_eq!(lifetimes(answer(RecordType::NS, 49, 0, 0), 900), None);
        // Another type may have so many, and then nobody keeps them.
        assert!(lifetimes(answer(RecordType::A, 4_000, 0, 0), 64_000).is_some());
    }

    #[test]
    fn what_is_long_or_has_many_records_ends_at_once() {
        for (message, bytes) in [
            (answer(RecordType::TXT, 1, 0, 0), 4_097),
            (answer(RecordType::A, 49, 0, 0), 1_200),
            (answer(RecordType::A, 10, 13, 26), 1_500),
            (answer(RecordType::A, 0, 1, 500), 10_000),
        ] {
            let lifetimes = lifetimes(message, bytes).unwrap();
            assert!(!lifetimes.is_empty() && lifetimes.iter().all(|ttl| *ttl == 0));
        }
    }

    #[test]
    fn what_honest_zones_say_keeps_its_lifetime() {
        for (message, bytes) in [
            (answer(RecordType::TXT, 12, 0, 0), 4_096),
            (answer(RecordType::DNSKEY, 8, 0, 0), 2_400),
            (answer(RecordType::A, 30, 0, 0), 600),
            // A referral to a top-level domain, signed.
            (answer(RecordType::A, 0, 15, 27), 1_200),
        ] {
            let lifetimes = lifetimes(message, bytes).unwrap();
            assert!(!lifetimes.is_empty() && lifetimes.iter().all(|ttl| *ttl == 300));
        }
    }
}
