use hickory_proto::rr::RecordType;

use super::*;
use crate::proto::message;

fn query(name: &str) -> Query {
    Query::read(&message::query(1, name, RecordType::A, 1232).unwrap()).unwrap()
}

/// An answer with one A record.
fn response(query: &Query, ttl_s: u32) -> Response {
    let mut bytes = query.refuse(0, None);
    bytes.truncate(12 + query.question().len());
    bytes[11] = 0;
    bytes[7] = 1;
    bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
    bytes.extend_from_slice(&ttl_s.to_be_bytes());
    bytes.extend_from_slice(&[0, 4, 192, 0, 2, 1]);
    Response::read(&bytes, query).unwrap()
}

fn ttl(answer: &[u8]) -> u32 {
    u32::from_be_bytes(
        answer[answer.len() - 10..answer.len() - 6]
            .try_into()
            .unwrap(),
    )
}

fn fresh(found: Found) -> Option<Vec<u8>> {
    if let Found::Fresh(answer) = found {
        Some(answer)
    } else {
        None
    }
}

fn stale(found: Found) -> Option<Vec<u8>> {
    if let Found::Stale(answer) = found {
        Some(answer)
    } else {
        None
    }
}

#[test]
fn what_may_not_be_kept_is_not_kept() {
    let query = query("a.example");
    let good = response(&query, 300);
    let zero = response(&query, 0);
    let unkeepable = Response {
        lifetime_s: None,
        ..good.clone()
    };
    let truncated = Response {
        truncated: true,
        ..good
    };
    let mut cache = Cache::new(10_000);

    for response in [zero, unkeepable, truncated] {
        cache.insert(&query, &response, 0);
    }

    assert!(cache.is_empty());
    assert_eq!(cache.used_bytes(), 0);
}

#[test]
fn a_cache_of_no_bytes_keeps_nothing() {
    let query = query("a.example");
    let mut cache = Cache::new(0);

    cache.insert(&query, &response(&query, 300), 0);

    assert_eq!(cache.get(&query.key(), 0), Found::Nothing);
}

#[test]
fn an_answer_under_the_hash_of_another_key_is_not_given_to_it() {
    let (asked, other) = (query("a.example"), query("b.example"));
    let mut cache = Cache::new(10_000);
    cache.insert(&other, &response(&other, 300), 0);
    let hash = cache.hash(&asked.key());
    cache.index.insert(hash, 0);

    assert_eq!(cache.get(&asked.key(), 0), Found::Nothing);
    #[cfg(feature = "workers")]
    {
        assert_eq!(cache.look(&asked.key(), &asked, 0), Look::Nothing);
        assert_eq!(cache.stale(&asked.key(), &asked, 400), None);
        cache.forget(&asked.key());
        assert_eq!(cache.len(), 2);
    }
}

#[test]
fn every_lifetime_of_an_answer_is_lowered() {
    let query = query("a.example");
    let mut bytes = response(&query, 300).stored;
    let record = bytes.split_off(12 + query.question().len());
    bytes[7] = 3;
    let all = [&bytes[..], &record, &record, &record].concat();
    let three = Response::read(&all, &query).unwrap();
    let mut cache = Cache::new(10_000);

    cache.insert(&query, &three, 0);

    let answer = fresh(cache.get(&query.key(), 100)).unwrap();
    let ttl_at = three.ttl_at.iter().map(|at| usize::from(*at));
    let ttls: Vec<_> = ttl_at.map(|at| &answer[at..at + 4]).collect();
    assert_eq!(ttls, [[0, 0, 0, 200]; 3]);
}

#[test]
fn lifetimes_count_down_then_the_answer_is_stale_then_it_is_gone() {
    let query = query("a.example");
    let mut cache = Cache::new(10_000);
    cache.insert(&query, &response(&query, 300), 1000);
    let key = query.key();

    assert_eq!(
        fresh(cache.get(&key, 1000)).map(|answer| ttl(&answer)),
        Some(300)
    );
    assert_eq!(
        fresh(cache.get(&key, 1299)).map(|answer| ttl(&answer)),
        Some(1)
    );
    assert_eq!(
        stale(cache.get(&key, 1300)).map(|answer| ttl(&answer)),
        Some(30)
    );
    assert!(stale(cache.get(&key, 1299 + 24 * 3600)).is_some());
    assert_eq!(cache.get(&key, 1300 + 24 * 3600), Found::Nothing);
    assert!(cache.is_empty());
}

#[test]
fn an_answer_that_is_asked_for_often_says_once_that_it_is_near_its_end() {
    let (often, seldom, brief) = (query("a.example"), query("b.example"), query("c.example"));
    let mut cache = Cache::new(10_000);
    cache.insert(&often, &response(&often, 300), 0);
    cache.insert(&seldom, &response(&seldom, 300), 0);
    cache.insert(&brief, &response(&brief, 9), 0);
    let mut ending = |query: &Query, now_s| matches!(cache.get(&query.key(), now_s), Found::Ending(answer) if ttl(&answer) > 0);

    let early = (0..5).any(|_| ending(&often, 269) || ending(&brief, 8));
    let by_seldom = ending(&seldom, 299);
    let told = [ending(&often, 270), ending(&often, 271)];

    assert!(!early && !by_seldom);
    assert_eq!(told, [true, false]);
}

#[test]
fn negative_answers_are_kept_three_hours_at_most() {
    let query = query("a.example");
    let negative = Response {
        positive: false,
        ..response(&query, 86_400)
    };
    let mut cache = Cache::new(10_000);

    cache.insert(&query, &negative, 0);

    assert!(fresh(cache.get(&query.key(), 3 * 3600 - 1)).is_some());
    assert!(stale(cache.get(&query.key(), 3 * 3600)).is_some());
}

#[test]
fn a_newer_answer_replaces_the_older() {
    let query = query("a.example");
    let mut cache = Cache::new(10_000);

    cache.insert(&query, &response(&query, 300), 0);
    cache.insert(&query, &response(&query, 100), 50);

    assert_eq!(cache.len(), 1);
    assert_eq!(
        fresh(cache.get(&query.key(), 60)).map(|answer| ttl(&answer)),
        Some(90)
    );
}

#[test]
fn the_bound_holds_and_what_is_used_survives() {
    let mut cache = Cache::new(8_000);
    let favourite = query("favourite.example");
    cache.insert(&favourite, &response(&favourite, 300), 0);

    for n in 0..1000 {
        let other = query(&format!("n{n}.example"));
        cache.insert(&other, &response(&other, 300), 0);
        assert!(fresh(cache.get(&favourite.key(), 0)).is_some(), "after {n}");
        assert!(cache.used_bytes() <= 8_000);
    }

    assert!(cache.len() > 20);
    assert!(cache.slots.len() < 50);
}
