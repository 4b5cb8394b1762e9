use rand_core::OsRng;

use super::*;
use crate::proto::vectors::counter;
use crate::proto::vectors::pq_certificate;

const NOW: u64 = 0x6800_0100;

fn keys() -> TicketKeys {
    TicketKeys::default().renewed(OsRng, NOW).unwrap()
}

fn cert() -> TicketCert {
    TicketCert::of(&pq_certificate())
}

fn secret() -> ResumeSecret {
    ResumeSecret::from_bytes(Zeroizing::new(counter(7)))
}

fn issue(keys: &TicketKeys, now: u64) -> Option<(u32, [u8; TICKET])> {
    keys.issue(&secret(), cert(), OsRng, now)
}

fn reason(keys: &TicketKeys, ticket: &[u8], now: u64) -> Option<Dropped> {
    keys.open(ticket, now).err()
}

#[test]
fn a_ticket_cut_or_changed_anywhere_is_refused() {
    let keys = keys();
    let (_, ticket) = issue(&keys, NOW).unwrap();

    for len in 0..TICKET {
        assert_eq!(reason(&keys, &ticket[..len], NOW), Some(Dropped::BadTicket));
    }
    for at in 0..TICKET {
        let mut forged = ticket;
        forged[at] ^= 1;
        let expected = if at < ID {
            Dropped::UnknownTicketKey
        } else {
            Dropped::BadTicket
        };
        assert_eq!(reason(&keys, &forged, NOW), Some(expected), "byte {at}");
    }
}

#[test]
fn a_ticket_ends_with_its_lifetime() {
    let keys = keys();
    let (lifetime_s, ticket) = issue(&keys, NOW).unwrap();
    let last = NOW + u64::from(lifetime_s);

    assert_eq!(lifetime_s, LIFETIME_S);
    assert!(keys.open(&ticket, last).is_ok());
    assert_eq!(
        reason(&keys, &ticket, last + 1),
        Some(Dropped::ExpiredTicket)
    );
}

#[test]
fn a_ticket_never_outlives_its_certificate_or_its_key() {
    let keys = keys();
    let end = u64::from(pq_certificate().end);
    let near_end = TicketKeys::default().renewed(OsRng, end - 100).unwrap();
    let issues_until = NOW + u64::from(KEY_ISSUES_S);

    assert_eq!(
        issue(&near_end, end - 100).map(|issued| issued.0),
        Some(100)
    );
    assert_eq!(issue(&near_end, end), None);
    assert_eq!(
        issue(&keys, issues_until - 1).map(|issued| issued.0),
        Some(LIFETIME_S)
    );
    assert_eq!(issue(&keys, issues_until), None);
}

#[test]
fn a_retired_key_is_accepted_for_one_lifetime_and_then_forgotten() {
    let first = keys();
    let retires = NOW + u64::from(KEY_ISSUES_S);
    let (_, ticket) = issue(&first, retires - 1).unwrap();

    let second = first.renewed(OsRng, retires).unwrap();
    let gone = retires + u64::from(LIFETIME_S) + 1;
    let third = second.renewed(OsRng, gone).unwrap();

    assert!(second.open(&ticket, retires + 60).is_ok());
    assert_eq!(
        reason(&third, &ticket, retires + 60),
        Some(Dropped::UnknownTicketKey)
    );
    assert_eq!(
        reason(&second, &ticket, gone),
        Some(Dropped::UnknownTicketKey)
    );
    assert_eq!(
        (first.keys.len(), second.keys.len(), third.keys.len()),
        (1, 2, 1)
    );
}

#[test]
fn keys_are_renewed_when_due_and_only_then() {
    let keys = keys();
    let due = keys.due(NOW);

    assert_eq!(due, NOW + u64::from(KEY_ISSUES_S));
    assert!(keys.renewed(OsRng, due - 1).is_none());
    assert!(keys.renewed(OsRng, due).is_some());
    assert_eq!(TicketKeys::default().due(NOW), 0);
}

#[test]
fn a_clock_set_back_a_year_gets_a_key_at_once_and_never_more_than_the_bound() {
    let mut keys = keys();
    for years in 1..9 {
        let then = NOW - years * 31_000_000;
        keys = keys.renewed(OsRng, then).unwrap();
        assert!(issue(&keys, then).is_some());
        assert!(keys.keys.len() <= MAX_KEYS);
    }
}

#[test]
fn every_key_and_every_nonce_is_another_one() {
    let (a, b) = (keys(), keys());
    let (_, ticket) = issue(&a, NOW).unwrap();
    let (_, again) = issue(&a, NOW).unwrap();

    assert_ne!(a.to_secret_bytes(), b.to_secret_bytes());
    assert_eq!(reason(&b, &ticket, NOW), Some(Dropped::UnknownTicketKey));
    assert_ne!(ticket[ID..ID + NONCE], again[ID..ID + NONCE]);
}

#[test]
fn bytes_that_are_no_keys_are_refused() {
    let bytes = keys().to_secret_bytes();
    let mut long_overlap = bytes.to_vec();
    *long_overlap.last_mut().unwrap() ^= 0xff;
    let mut issues_for_years = bytes.to_vec();
    issues_for_years[ID + 32] ^= 0x10;
    let bad = [
        &issues_for_years[..],
        &bytes[1..],
        &bytes.repeat(2),
        &bytes.repeat(MAX_KEYS + 1),
        &long_overlap,
    ];

    for bad in bad {
        assert_eq!(
            TicketKeys::from_secret_bytes(bad).err(),
            Some(BadTicketKeys)
        );
    }
}

#[test]
fn another_gateway_with_the_same_keys_opens_the_ticket() {
    let here = keys();
    let there = TicketKeys::from_secret_bytes(&here.to_secret_bytes()).unwrap();
    let (_, ticket) = issue(&here, NOW).unwrap();

    let opened = there.open(&ticket, NOW).unwrap();

    assert_eq!(opened.secret.bytes(), secret().bytes());
    assert_eq!(opened.cert, cert());
}

#[test]
fn a_key_made_ahead_is_accepted_before_it_issues_and_never_issues_early() {
    let later = NOW + u64::from(KNOWN_AHEAD_S);
    let ahead = || TicketKeys::made_ahead(OsRng, u32::try_from(later).unwrap());
    let mine = ahead();
    let behind = TicketKeys::from_secret_bytes(&mine.to_secret_bytes()).unwrap();

    let early = issue(&mine, later - 1);
    let (_, ticket) = issue(&mine, later).unwrap();

    assert_eq!(early, None);
    assert!(behind.of_use(NOW).open(&ticket, NOW).is_ok());
    assert!(ahead().of_use(NOW - 1).keys.is_empty());
    let until = u64::from(mine.accepted_until().unwrap());
    assert_eq!(mine.of_use(until + 1).keys.len(), 0);
}

#[test]
fn keys_of_the_site_come_before_those_made_here_and_none_comes_twice() {
    let here = keys();
    let site = TicketKeys::made_ahead(OsRng, u32::try_from(NOW).unwrap());
    let site_id = site.keys[0].id;

    let joined = site.and(&here);
    let again = TicketKeys::from_secret_bytes(&joined.to_secret_bytes())
        .unwrap()
        .and(&joined);

    assert!(again.same_as(&joined));
    assert!(!joined.same_as(&here));
    let (_, ticket) = issue(&joined, NOW).unwrap();
    assert_eq!(ticket[..ID], site_id);
    assert!(joined.renewed(OsRng, NOW).is_none());
}

#[test]
fn no_key_shows_itself_in_debug() {
    assert_eq!(format!("{:?}", keys()), "TicketKeys(1)");
}

impl TicketKeys {
    /// One key with everything given, and a ticket with a given nonce, as vectors want it.
    pub(in crate::proto) fn of_vectors(key: [u8; 32], id: [u8; 4], until: u32) -> Self {
        let key = TicketKey {
            id,
            key: SharedKey::from_bytes(Zeroizing::new(key)),
            issues_from: 0,
            issues_until: until,
            accepted_until: until,
        };
        Self {
            keys: vec![Arc::new(key)],
        }
    }

    pub(in crate::proto) fn seal_vector(
        &self,
        secret: &ResumeSecret,
        cert: TicketCert,
        expiry: u32,
        nonce: &[u8; NONCE],
    ) -> [u8; TICKET] {
        self.keys[0].seal(secret, cert, expiry, nonce).unwrap()
    }
}
