//! What an answer may weigh that hickory keeps: its memory is bounded in entries, and who has a zone decides how large these are.
//! Larger answers are answers, but end at once, so that nobody keeps them; what no honest server sends is refused. And what all
//! large answers on their way may weigh together, and those of one home: ten times their bytes are held for as long as a lookup lasts.

mod portions;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dnscrypt_proxy::listen::Holder;
use hickory_proto::op::Message;
use hickory_proto::rr::{Name, Record, RecordType};

use super::EDNS_PAYLOAD_BYTES;
use portions::Portions;

/// Of all that are larger than a datagram, at a time: 128 of the largest, 25 of one home.
const HEAVY_KIB: usize = 8 << 10;
/// hickory lets go of what ended at once with the next beat of a clock that has one a second.
const LINGERS: Duration = Duration::from_millis(1_500);
/// hickory forgets a shared request when the task that began it goes on.
const LATE: Duration = Duration::from_millis(50);
/// Far more than are refused in that time, but by who wants to.
const MOST_LATE: usize = 64;
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

/// Whether want of room for large answers may be why a lookup failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    No,
    /// Its own.
    Own,
    /// That of others, with whom it shared a request.
    Shared,
}

/// The room for all large answers.
#[derive(Clone, Debug)]
pub(crate) struct Room(Arc<Mutex<Shelf>>);

/// In KiB.
#[derive(Debug)]
struct Shelf {
    portions: Portions,
    /// What is still held of lookups that have ended, and until when.
    leaving: VecDeque<(Instant, Holder, usize)>,
    /// Lookups under way, by number.
    waiting: HashMap<u64, Waiting>,
    next: u64,
    /// What was refused of late: who comes now may still join a request that has come to that.
    refused: VecDeque<(Instant, Name)>,
}

/// A lookup under way.
#[derive(Debug)]
struct Waiting {
    holder: Holder,
    name: Name,
    /// Whether something was refused that it may have waited for too.
    is_touched: bool,
    /// Whether its room was taken for an answer that another's task had: once, or others could use it up.
    has_lent: bool,
}

/// Its place among those under way, until it is dropped.
struct Registered<'a> {
    room: &'a Room,
    number: u64,
}

struct Held {
    room: Room,
    holder: Holder,
    kib: usize,
}

impl Room {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Shelf {
            portions: Portions::new(HEAVY_KIB),
            leaving: VecDeque::new(),
            waiting: HashMap::new(),
            next: 0,
            refused: VecDeque::new(),
        })))
    }

    /// Somebody's lookup of a name, which has what it holds until it ends, and whether it failed for want of room.
    pub(crate) async fn holding<T>(
        &self,
        (holder, name): (Holder, Name),
        lookup: impl Future<Output = T>,
    ) -> (T, Refused) {
        let registered = self.register(holder, name);
        let lookup = async {
            let found = lookup.await;
            let is_own = HELD.with(|(_, _, is_refused)| is_refused.get());
            (found, is_own)
        };
        let held = (holder, RefCell::default(), Cell::new(false));
        let (found, is_own) = HELD.scope(held, lookup).await;
        let refused = match (is_own, registered.is_touched()) {
            (true, _) => Refused::Own,
            (false, true) => Refused::Shared,
            (false, false) => Refused::No,
        };
        (found, refused)
    }

    fn register(&self, holder: Holder, name: Name) -> Registered<'_> {
        let mut shelf = self.shelf();
        let number = shelf.next;
        shelf.next += 1;
        let since = Instant::now().checked_sub(LATE);
        let is_late = |(at, about): &(Instant, Name)| since < Some(*at) && about.zone_of(&name);
        let is_touched = shelf.refused.iter().any(is_late);
        let waiting = Waiting {
            holder,
            name,
            is_touched,
            has_lent: false,
        };
        shelf.waiting.insert(number, waiting);
        Registered { room: self, number }
    }

    /// Room for an answer of so many bytes about a name, until the lookup that it is for has ended, and a moment longer. False: there is
    /// none. hickory lets lookups share a request, and whose task takes the answer then is chance: whoever else may wait for it has room
    /// for it too, or hears that it was refused.
    pub(super) fn hold(&self, about: &Name, bytes: usize, now: Instant) -> bool {
        if bytes <= EDNS_PAYLOAD_BYTES.into() {
            return true;
        }
        let kib = bytes.div_ceil(1 << 10);
        let held = HELD.try_with(|(holder, held, is_refused)| {
            let mut shelf = self.shelf();
            shelf.let_go(now);
            let Some(holder) = shelf.take(*holder, about, kib) else {
                is_refused.set(true);
                return false;
            };
            held.borrow_mut().push(Held {
                room: self.clone(),
                holder,
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
    /// Takes room of this one, or of another who waits for the same; gives whose it is. If nobody has any, all of these are told.
    fn take(&mut self, holder: Holder, about: &Name, kib: usize) -> Option<Holder> {
        if self.portions.take(holder, kib) {
            return Some(holder);
        }
        // A lookup of a name waits for what is above it too, such as the keys of its zone.
        let sharing = self.waiting.values_mut();
        let sharing = sharing.filter(|one| about.zone_of(&one.name));
        for one in sharing {
            let may_lend = one.holder != holder && !one.has_lent;
            if may_lend && self.portions.take(one.holder, kib) {
                one.has_lent = true;
                return Some(one.holder);
            }
            one.is_touched = true;
        }
        if self.refused.len() == MOST_LATE {
            self.refused.pop_front();
        }
        self.refused.push_back((Instant::now(), about.clone()));
        None
    }

    fn let_go(&mut self, now: Instant) {
        while let Some((_, holder, kib)) = self.leaving.pop_front_if(|(until, ..)| *until <= now) {
            self.portions.give_back(holder, kib);
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

impl Registered<'_> {
    fn is_touched(&self) -> bool {
        let shelf = self.room.shelf();
        let waiting = shelf.waiting.get(&self.number);
        waiting.is_some_and(|waiting| waiting.is_touched)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.room.shelf().waiting.remove(&self.number);
    }
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
    use hickory_proto::rr::RData;
    use hickory_proto::rr::rdata::{A, NS};

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

    fn one(wanted: &str) -> (Holder, Name) {
        (home(1), name(wanted))
    }

    fn other(wanted: &str) -> (Holder, Name) {
        (home(2), name(wanted))
    }

    #[tokio::test]
    async fn large_answers_beyond_the_room_for_them_are_refused_and_small_ones_never() {
        let (room, now) = (Room::new(), Instant::now());
        let all = |of: Name| (0..200).filter(|_| room.hold(&of, 65_535, now)).count();

        let first = room.holding(one("a."), async { all(name("a.")) }).await;
        let second = room.holding(other("b."), async { all(name("b.")) }).await;

        assert_eq!((first, second), ((25, Refused::Own), (20, Refused::Own)));
        let small = async { (0..5_000).all(|_| room.hold(&name("a."), 1_232, now)) };
        assert_eq!(room.holding(one("a."), small).await, (true, Refused::No));
    }

    /// A home fills its room, and takes an answer about `about` while another waits for `name`.
    async fn with_a_full_home(about: &str, wanted: &str, is_other_full: bool) -> (bool, Refused) {
        let (room, now) = (Room::new(), Instant::now());
        let fill = |of: Name| (0..200).filter(|_| room.hold(&of, 65_535, now)).count();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let (end, ended) = tokio::sync::oneshot::channel();
        let full = room.holding(one("attack."), async {
            fill(name("attack."));
            begun.await.unwrap();
            let is_taken = room.hold(&name(about), 65_535, now);
            end.send(()).unwrap();
            is_taken
        });
        let waits = room.holding(other(wanted), async {
            if is_other_full {
                fill(name("unrelated."));
            }
            begin.send(()).unwrap();
            ended.await.unwrap();
        });
        let ((is_taken, _), ((), refused)) = tokio::join!(full, waits);
        (is_taken, refused)
    }

    #[tokio::test]
    async fn who_waits_for_the_same_has_room_for_it_or_hears_that_it_was_refused() {
        for about in ["www.big.example.", "WWW.BIG.example.", "big.example."] {
            let told = with_a_full_home(about, "www.big.example.", false).await;
            assert_eq!(told, (true, Refused::No), "{about}");
        }
        let told = with_a_full_home("big.", "www.big.", true).await;
        assert!(!told.0);
        assert_ne!(told.1, Refused::No);
    }

    #[tokio::test]
    async fn a_refusal_of_something_else_is_nothing_to_others() {
        for about in ["big.example.", "a.www.big.", "attack."] {
            let told = with_a_full_home(about, "www.big.", false).await;
            assert_eq!(told, (false, Refused::No), "{about}");
        }
    }

    #[tokio::test]
    async fn the_room_is_free_again_a_moment_after_a_lookup_has_ended() {
        let (room, now) = (Room::new(), Instant::now());
        let held = async { assert!(room.hold(&name("a."), 65_535, now)) };
        room.holding(one("a."), held).await;
        assert_eq!(room.shelf().leaving.len(), 1);
        assert!(room.shelf().waiting.is_empty());

        let later = Instant::now() + LINGERS;
        let held = async { assert!(room.hold(&name("b."), 1_233, later)) };
        room.holding(other("b."), held).await;

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
