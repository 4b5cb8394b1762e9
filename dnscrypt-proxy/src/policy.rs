//! What the stub answers or refuses by itself, and how it judges what resolvers say.
//!
//! A question is judged when the cache has nothing for it, an answer before it is kept: so what is in the cache has been
//! let through, and a hit costs nothing more. When rules or lists change, the cache is emptied
//! ([`Policy::generation`]). The decisions are pure; this file reads the files they need, when a question comes and
//! some seconds have passed since the last look.

mod hashed;
mod home;
mod inside;
mod lines;
mod lists;
mod name;
mod reverse;
mod rules;
mod special;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use hickory_proto::rr::RecordType;

pub use name::{NotAName, WireName};
pub use rules::{
    Aaaa, BlockAnswer, Cloak, Forward, MAX_FILES, MAX_NAMES, MAX_SERVERS, NotAForward, OwnResolver,
    Rebinding, Rules,
};

use crate::proto::message::{ExtendedError, HEADER, Query, Response};
use home::Home;
use lines::Stamp;
use lists::Lists;
use name::{is_dotless, parent_at, zone_at};
use rules::CloakTo;
use special::Special;

/// Files are looked at no more often.
const LOOK_EVERY_S: usize = 3;
/// How long an answer of the home's own may be kept: a device may come or go meanwhile.
const HOME_TTL_S: u32 = 10;
/// Likewise one that a list or a setting made.
const RULE_TTL_S: u32 = 60;
/// Likewise what follows from a standard (RFC 6303, section 3).
const SPECIAL_TTL_S: u32 = 10_800;
const NOERROR: u8 = 0;
const NXDOMAIN: u8 = 3;
/// What follows the name in a key: type, class, and the flags.
const KEY_TAIL: usize = 5;

/// Rules, and what their files say.
#[derive(Debug)]
pub struct Policy {
    rules: Rules,
    is_idle: bool,
    // Contended by questions that are not in the cache, for a look into a map; by one in a while for reading a file.
    home: Mutex<Watched<Home>>,
    lists: Arc<Current>,
    reading: Mutex<Watched<Option<JoinHandle<()>>>>,
    next_look_s: AtomicUsize,
    denies_aaaa: AtomicBool,
    // Contended by answers that come, for a look at a few addresses.
    gateways: Mutex<Vec<IpAddr>>,
    own: AtomicUsize,
    blocked: AtomicUsize,
    rebinding: AtomicUsize,
}

/// The lists in use, and how many times rules have changed.
#[derive(Debug)]
struct Current {
    lists: RwLock<Lists>,
    generation: AtomicUsize,
}

/// What was made from files, and how they were.
#[derive(Debug, Default)]
struct Watched<T> {
    stamps: Vec<Stamp>,
    made: T,
}

impl<T> Watched<Option<T>> {
    /// Makes it of files that are others than they were; what does not come to be is tried again at the next look.
    fn follow(&mut self, stamps: Vec<Stamp>, make: impl FnOnce() -> Option<T>) {
        if self.stamps != stamps
            && let Some(made) = make()
        {
            self.made = Some(made);
            self.stamps = stamps;
        }
    }
}

/// How often a policy took part since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyFigures {
    /// Questions that were answered here: the home's names, special-use names, names with answers of their own.
    pub own: usize,
    /// Questions or answers that a list forbade.
    pub blocked: usize,
    /// Answers that would have led inside.
    pub rebinding: usize,
}

/// What becomes of a question.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// A resolver is asked.
    Pass,
    /// This is the answer.
    Answer(Made),
    /// The name stands for this one, in wire format.
    Alias(Box<[u8]>),
}

/// An answer that was made here, as [`Query::adopt`] takes it.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) stored: Vec<u8>,
    pub(crate) error: Option<ExtendedError>,
    rcode: u8,
}

impl Policy {
    /// Reads the home's names; lists are read beside, see [`settle`](Self::settle).
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let mut policy = Self::idle(rules);
        policy.is_idle = false;
        policy.look();
        policy
    }

    /// Lets everything through.
    #[must_use]
    pub fn none() -> Self {
        Self::idle(Rules::default())
    }

    fn idle(rules: Rules) -> Self {
        Self {
            is_idle: true,
            home: Mutex::default(),
            lists: Arc::new(Current {
                lists: RwLock::new(Lists::none()),
                generation: AtomicUsize::new(0),
            }),
            reading: Mutex::default(),
            next_look_s: AtomicUsize::new(LOOK_EVERY_S),
            denies_aaaa: AtomicBool::new(rules.aaaa == Aaaa::Denied),
            gateways: Mutex::default(),
            own: AtomicUsize::new(0),
            blocked: AtomicUsize::new(0),
            rebinding: AtomicUsize::new(0),
            rules,
        }
    }

    /// Waits until lists that are being read are in use.
    pub fn settle(&self) {
        let thread = lock(&self.reading).made.take();
        // A panic ends the process.
        let _ended = thread.map(JoinHandle::join);
    }

    /// Takes another view of IPv6.
    pub fn set_aaaa(&self, aaaa: Aaaa) {
        let denies = aaaa == Aaaa::Denied;
        if self.denies_aaaa.swap(denies, Ordering::Relaxed) != denies {
            self.lists.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Takes other addresses for the gateways' own, which lie inside and which names from outside may have: devices find the
    /// gateways' resolvers by name.
    pub fn set_gateways(&self, addresses: Vec<IpAddr>) {
        let mut gateways = lock(&self.gateways);
        if *gateways != addresses {
            *gateways = addresses;
            self.lists.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// What it did so far.
    #[must_use]
    pub fn figures(&self) -> PolicyFigures {
        PolicyFigures {
            own: self.own.load(Ordering::Relaxed),
            blocked: self.blocked.load(Ordering::Relaxed),
            rebinding: self.rebinding.load(Ordering::Relaxed),
        }
    }

    /// Another number after each change by which an answer that was let through might not be again.
    pub(crate) fn generation(&self) -> usize {
        self.lists.generation.load(Ordering::Acquire)
    }

    /// What becomes of a question whose key is `key`.
    pub(crate) fn decide(&self, query: &Query, key: &[u8], now_s: u64) -> Verdict {
        if self.is_idle {
            return Verdict::Pass;
        }
        self.look_again(now_s);
        let name = name_of(key);
        if let Some(to) = self.cloak(name) {
            self.own.fetch_add(1, Ordering::Relaxed);
            return match to {
                CloakTo::Name(other) => Verdict::Alias(other.as_bytes().into()),
                CloakTo::Addresses(addresses) => {
                    Verdict::Answer(with_addresses(query, addresses, RULE_TTL_S).forged())
                }
            };
        }
        let is_forwarded = self.forward(name).is_some();
        let own = self.of_home(query, name).or_else(|| {
            let is_ours = !is_forwarded;
            is_ours.then(|| {
                self.missing_at_home(name, query)
                    .or_else(|| self.known(query, name))
            })?
        });
        if let Some(made) = own {
            self.own.fetch_add(1, Ordering::Relaxed);
            return Verdict::Answer(made);
        }
        if self.lists().blocks(name) {
            return Verdict::Answer(self.blocked(query, name));
        }
        // A network may have IPv6 inside that leads nowhere outside.
        if !is_forwarded
            && query.qtype == RecordType::AAAA
            && self.denies_aaaa.load(Ordering::Relaxed)
        {
            self.own.fetch_add(1, Ordering::Relaxed);
            let made = nothing(query, NOERROR, 0, RULE_TTL_S);
            return Verdict::Answer(made.because(ExtendedError::Filtered));
        }
        Verdict::Pass
    }

    /// What is made of a resolver's answer: itself, or one that says that it is refused.
    pub(crate) fn judge(&self, query: &Query, mut response: Response) -> Response {
        if self.is_idle {
            return response;
        }
        let key = query.key();
        let name = name_of(&key);
        let is_rebinding = self.rules.rebinding == Rebinding::Refused
            && self.forward(name).is_none()
            && inside::leads_inside(&response, &lock(&self.gateways))
            && !self
                .rules
                .rebind_allow
                .iter()
                .any(|zone| zone_at(name, zone.as_bytes()).is_some());
        if is_rebinding {
            self.rebinding.fetch_add(1, Ordering::Relaxed);
            let made = nothing(query, NOERROR, 0, RULE_TTL_S);
            return made.because(ExtendedError::Blocked).into_response();
        }
        // Nobody else says what is in a zone of the network's own servers.
        if self.forward(name).is_none()
            && !self.rules.forwards.is_empty()
            && inside::aliases(&response).any(|alias| self.forward(&alias).is_some())
        {
            let made = nothing(query, NOERROR, 0, RULE_TTL_S);
            return made.because(ExtendedError::Blocked).into_response();
        }
        let lists = self.lists();
        let is_blocked = !lists.is_empty()
            && !lists.allows(name)
            && inside::aliases(&response).any(|alias| lists.blocks(&alias));
        drop(lists);
        if is_blocked {
            return self.blocked(query, name).into_response();
        }
        if !response.positive && self.may_be_leased(query, name) {
            response.lifetime_s = None;
        }
        response
    }

    /// The answer to a question whose name stands for another, made of that one's. `None`: that one says nothing of it.
    pub(crate) fn alias(query: &Query, target: &[u8], answer: &Response) -> Option<Made> {
        // RFC 6604, section 2: the code is that of the name at the end.
        let rcode = u8::try_from(answer.rcode)
            .ok()
            .filter(|rcode| [NOERROR, NXDOMAIN].contains(rcode))?;
        let ttl_s = answer.lifetime_s.unwrap_or_default().min(RULE_TTL_S);
        let own = query.own_answer(rcode, ttl_s);
        let (own, at) = own.name(RecordType::CNAME, target);
        let addresses: Vec<IpAddr> = inside::addresses(answer)
            .filter(|address| is_asked(query, *address))
            .take(home::MAX_ADDRESSES)
            .collect();
        Some(Made::new(own.addresses(at, &addresses).end(0), rcode).forged())
    }

    /// The servers that a question is for, if it is for some of the network's own: those of the smallest zone.
    pub(crate) fn servers(&self, query: &Query) -> Option<&[SocketAddr]> {
        if self.rules.forwards.is_empty() {
            return None;
        }
        self.forward(name_of(&query.key()))
    }

    fn forward(&self, name: &[u8]) -> Option<&[SocketAddr]> {
        let forwards = self.rules.forwards.iter();
        let at = |forward: &Forward| zone_at(name, forward.zone.as_bytes());
        let zones = forwards.filter_map(|forward| Some((at(forward)?, &forward.servers)));
        let (_, servers) = zones.min_by_key(|(at, _)| *at)?;
        // A zone above one of these (`arpa`) does not have it.
        (!special::is_of_no_server(name)).then_some(servers)
    }

    fn cloak(&self, name: &[u8]) -> Option<&CloakTo> {
        let cloak = self
            .rules
            .cloaks
            .iter()
            .find(|cloak| cloak.name.as_bytes() == name)?;
        Some(&cloak.to)
    }

    /// The home's own names that are known, and the names of its addresses.
    fn of_home(&self, query: &Query, name: &[u8]) -> Option<Made> {
        let domain = self.domain();
        let home = &lock(&self.home).made;
        if let Some(addresses) = home.addresses(name, domain) {
            return Some(with_addresses(query, addresses, HOME_TTL_S));
        }
        if query.qtype == RecordType::PTR
            && let Some(address) = reverse::read(name).and_then(|reverse| reverse.address)
            && let Some(host) = home.name_of(address)
        {
            let (own, _) = query
                .own_answer(NOERROR, HOME_TTL_S)
                .name(RecordType::PTR, host);
            return Some(Made::new(own.end(0), NOERROR));
        }
        None
    }

    /// Nobody else has names in the home's domain.
    fn missing_at_home(&self, name: &[u8], query: &Query) -> Option<Made> {
        let at = zone_at(name, self.domain())?;
        let home = &lock(&self.home).made;
        let rcode = if at == 0 || home.has_below(name) {
            NOERROR
        } else {
            NXDOMAIN
        };
        Some(nothing(query, rcode, at, HOME_TTL_S))
    }

    /// What standards and the settings for canaries say.
    fn known(&self, query: &Query, name: &[u8]) -> Option<Made> {
        if let Some(special) = special::look_up(name, query.qtype) {
            let ttl_s = match self.may_be_leased(query, name) {
                true => HOME_TTL_S,
                false => SPECIAL_TTL_S,
            };
            return Some(match special {
                Special::Loopback => {
                    let loopback = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
                    with_addresses(query, &loopback, SPECIAL_TTL_S)
                }
                Special::Nothing(at) => nothing(query, NXDOMAIN, at, ttl_s),
                Special::Empty(at) => nothing(query, NOERROR, at, ttl_s),
            });
        }
        let denied = OwnResolver::Denied;
        let is_canary = (self.rules.browser_doh == denied && special::is_browser_canary(name))
            || (self.rules.private_relay == denied && special::is_relay_canary(name));
        is_canary.then(|| nothing(query, NXDOMAIN, parent_at(name), RULE_TTL_S))
    }

    /// Whether a lease that comes may give the name an answer, which one that is kept would hide.
    fn may_be_leased(&self, query: &Query, name: &[u8]) -> bool {
        let is_of_device = query.qtype == RecordType::PTR || is_dotless(name);
        is_of_device && !self.rules.leases_files.is_empty()
    }

    fn blocked(&self, query: &Query, name: &[u8]) -> Made {
        self.blocked.fetch_add(1, Ordering::Relaxed);
        match self.rules.block_answer {
            BlockAnswer::NoName => nothing(query, NXDOMAIN, parent_at(name), RULE_TTL_S)
                .because(ExtendedError::Blocked),
            BlockAnswer::Zero => {
                let zero = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
                with_addresses(query, &zero, RULE_TTL_S).because(ExtendedError::Blocked)
            }
        }
    }

    fn domain(&self) -> &[u8] {
        let domain = self.rules.local_domain.as_ref();
        domain.map_or(&[], WireName::as_bytes)
    }

    fn lists(&self) -> std::sync::RwLockReadGuard<'_, Lists> {
        let lists = self.lists.lists.read();
        lists.unwrap_or_else(PoisonError::into_inner)
    }

    fn look_again(&self, now_s: u64) {
        let now_s = usize::try_from(now_s).unwrap_or(usize::MAX);
        let due = self.next_look_s.load(Ordering::Relaxed);
        // Of several who come at once, each would find the same.
        if now_s >= due {
            self.next_look_s
                .store(now_s.saturating_add(LOOK_EVERY_S), Ordering::Relaxed);
            self.look();
        }
    }

    /// Looks at the files, and reads those that are others than they were.
    fn look(&self) {
        let rules = &self.rules;
        let files: Vec<_> = rules
            .hosts_files
            .iter()
            .chain(&rules.leases_files)
            .collect();
        let stamps = Stamp::of_all(&files);
        let mut home = lock(&self.home);
        if home.stamps != stamps {
            let hosts = rules.hosts_files.len();
            if home.stamps.get(..hosts) != stamps.get(..hosts) {
                self.lists.generation.fetch_add(1, Ordering::Release);
            }
            home.stamps = stamps;
            home.made = Home::read(&rules.hosts_files, &rules.leases_files, self.domain());
        }
        drop(home);
        let files: Vec<_> = rules.blocklists.iter().chain(&rules.allowlists).collect();
        let stamps = Stamp::of_all(&files);
        let mut reading = lock(&self.reading);
        let is_busy = reading
            .made
            .as_ref()
            .is_some_and(|thread| !thread.is_finished());
        if !is_busy {
            reading.follow(stamps, || self.read_lists());
        }
    }

    /// Reads the lists in a thread of its own: on a router, that takes a second.
    fn read_lists(&self) -> Option<JoinHandle<()>> {
        let current = Arc::clone(&self.lists);
        let (block, allow) = (self.rules.blocklists.clone(), self.rules.allowlists.clone());
        let read = move || {
            let lists = Lists::read(&block, &allow);
            *current
                .lists
                .write()
                .unwrap_or_else(PoisonError::into_inner) = lists;
            current.generation.fetch_add(1, Ordering::Release);
        };
        let thread = std::thread::Builder::new().name("lists".to_owned());
        thread
            .spawn(read)
            .inspect_err(|error| tracing::warn!(%error, "the lists of names cannot be read"))
            .ok()
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Made {
    fn new(stored: Vec<u8>, rcode: u8) -> Self {
        Self {
            stored,
            rcode,
            error: None,
        }
    }

    fn because(self, error: ExtendedError) -> Self {
        Self {
            error: Some(error),
            ..self
        }
    }

    fn forged(self) -> Self {
        self.because(ExtendedError::ForgedAnswer)
    }

    /// In the place of a resolver's answer. It is not kept: the next question finds out anew.
    fn into_response(self) -> Response {
        Response {
            stored: self.stored,
            ttl_at: Vec::new(),
            rcode: self.rcode.into(),
            truncated: false,
            positive: false,
            lifetime_s: None,
            error: self.error,
        }
    }
}

/// An answer without records.
fn nothing(query: &Query, rcode: u8, zone_at: usize, ttl_s: u32) -> Made {
    Made::new(query.own_answer(rcode, ttl_s).end(zone_at), rcode)
}

/// Those of a name's addresses that were asked for.
fn with_addresses(query: &Query, addresses: &[IpAddr], ttl_s: u32) -> Made {
    let asked = addresses
        .iter()
        .filter(|address| is_asked(query, **address));
    let own = query.own_answer(NOERROR, ttl_s);
    Made::new(own.addresses(HEADER, asked).end(0), NOERROR)
}

fn is_asked(query: &Query, address: IpAddr) -> bool {
    let rtype = if address.is_ipv4() {
        RecordType::A
    } else {
        RecordType::AAAA
    };
    [rtype, RecordType::ANY].contains(&query.qtype)
}

/// The name in a key.
fn name_of(key: &[u8]) -> &[u8] {
    let end = key.len().saturating_sub(KEY_TAIL);
    key.get(..end).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
