//! What an answer may weigh that hickory keeps: its memory is bounded in entries, and who has a zone decides how large these are.
//! Larger answers are answers, but end at once, so that nobody keeps them; what no honest server sends is refused. And what all
//! large answers on their way may weigh together, and those of one home: ten times their bytes are held for as long as a lookup lasts.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dnscrypt_proxy::listen::{Holder, Places};
use hickory_proto::op::Message;
use hickory_proto::rr::{Record, RecordType};

use super::EDNS_PAYLOAD_BYTES;

/// Of all that are larger than a datagram, at a time: 128 of the largest, 25 of one home.
const HEAVY_KIB: usize = 8 << 10;
/// hickory lets go of what ended at once with the next beat of a clock that has one a second.
const LINGERS: Duration = Duration::from_millis(1_500);
/// Longer ones are not kept: what comes over UDP has 1,232 bytes, keys of a zone mostly less than 2,000.
const KEPT_BYTES: usize = 4_096;
/// Nor those of more records, which take some 300 bytes in memory, whatever they took on the wire. A top-level domain's servers, addresses and
/// signature are 41.
const KEPT_RECORDS: usize = 48;
/// A zone has up to 13 servers, and a denial eight records.
const MOST_AUTHORITIES: usize = 48;
/// Addresses of the servers: two of each.
const MOST_ADDITIONALS: usize = 48;

/// What a record weighs in memory beside its bytes, in these.
const RECORD_BYTES: usize = 75;

/// What an answer that came in so many bytes weighs: many short records are as much as a few long ones.
pub(super) fn weight(answer: &Message, bytes: usize) -> usize {
    match count(answer) {
        ..=KEPT_RECORDS => bytes,
        many => bytes.max(many * RECORD_BYTES),
    }
}

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
    /// Whose the lookup of this task is, what it has of the room for large answers, and whether it found none.
    static HELD: (Holder, RefCell<Vec<Held>>, Cell<bool>);
}

/// The room for all large answers.
#[derive(Clone, Debug)]
pub(crate) struct Room(Arc<Mutex<Shelf>>);

/// In KiB.
#[derive(Debug)]
struct Shelf {
    places: Places,
    /// What is still held of lookups that have ended, and until when.
    leaving: VecDeque<(Instant, Holder, usize)>,
    /// How often there was none.
    refusals: u64,
}

struct Held {
    room: Room,
    holder: Holder,
    kib: usize,
}

impl Room {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Shelf {
            places: Places::new(HEAVY_KIB),
            leaving: VecDeque::new(),
            refusals: 0,
        })))
    }

    /// How often there was none so far. hickory lets lookups share a request, and whose answer it is then is chance: one that fails while
    /// others are refused has learned nothing of its name.
    pub(crate) fn refusals(&self) -> u64 {
        self.shelf().refusals
    }

    /// Room for an answer of so many bytes until the lookup that it is for has ended, and a moment longer. False: there is none.
    pub(super) fn hold(&self, bytes: usize, now: Instant) -> bool {
        if bytes <= EDNS_PAYLOAD_BYTES.into() {
            return true;
        }
        let kib = bytes.div_ceil(1 << 10);
        let held = HELD.try_with(|(holder, held, is_refused)| {
            let mut shelf = self.shelf();
            shelf.let_go(now);
            if !shelf.places.take_many(*holder, kib) {
                is_refused.set(true);
                shelf.refusals += 1;
                return false;
            }
            held.borrow_mut().push(Held {
                room: self.clone(),
                holder: *holder,
                kib,
            });
            true
        });
        // Nobody's lookup: hickory has begun none of its own so far.
        held.unwrap_or(true)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn let_go(&mut self, now: Instant) {
        while let Some((_, holder, kib)) = self.leaving.pop_front_if(|(until, ..)| *until <= now) {
            self.places.give_back_many(holder, kib);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let until = Instant::now() + LINGERS;
        let leaving = &mut self.room.shelf().leaving;
        leaving.push_back((until, self.holder, self.kib));
    }
}

/// Somebody's lookup, which has what it holds until it ends, and whether an answer of its own found no room.
pub(crate) async fn holding<T>(holder: Holder, lookup: impl Future<Output = T>) -> (T, bool) {
    let lookup = async {
        let found = lookup.await;
        let is_refused = HELD.with(|(_, _, is_refused)| is_refused.get());
        (found, is_refused)
    };
    HELD.scope((holder, RefCell::default(), Cell::new(false)), lookup)
        .await
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
    use dnscrypt_proxy::listen::Homes;
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

    #[test]
    fn short_records_weigh_where_they_are_many() {
        let of = |records| weight(&answer(RecordType::A, records, 0, 0), 1_200);

        assert_eq!((of(48), of(49), of(60)), (1_200, 3_675, 4_500));
        assert_eq!(weight(&answer(RecordType::TXT, 220, 0, 0), 60_000), 60_000);
    }

    fn home(last: u8) -> Holder {
        Holder::of(&Homes::default(), [10, 64, 0, last].into())
    }

    #[tokio::test]
    async fn large_answers_beyond_the_room_for_them_are_refused_and_small_ones_never() {
        let (room, now) = (Room::new(), Instant::now());
        let all = |room: Room| async move { (0..200).filter(|_| room.hold(65_535, now)).count() };

        let first = holding(home(1), all(room.clone())).await;
        let second = holding(home(2), all(room.clone())).await;

        assert_eq!((first, second), ((25, true), (20, true)));
        let small = room.clone();
        let small = async move { (0..5_000).all(|_| small.hold(1_232, now)) };
        assert_eq!(holding(home(1), small).await, (true, false));
    }

    #[tokio::test]
    async fn the_room_is_free_again_a_moment_after_a_lookup_has_ended() {
        let (room, now) = (Room::new(), Instant::now());
        let held = room.clone();
        holding(home(1), async move { assert!(held.hold(65_535, now)) }).await;
        assert_eq!(room.shelf().leaving.len(), 1);

        let later = Instant::now() + LINGERS;
        let other = room.clone();
        holding(home(2), async move { assert!(other.hold(1_233, later)) }).await;

        assert_eq!(room.shelf().leaving.len(), 1, "the second one's");
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
