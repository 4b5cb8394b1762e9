use std::future::poll_fn;
use std::net::{SocketAddr, UdpSocket};
use std::pin::{Pin, pin};
use std::task::Poll;

use dnscrypt_proxy::proto::message;
use hickory_proto::rr::RecordType;

use super::*;
use crate::config;

/// What asks a resolver that never answers.
fn answers(silent: SocketAddr) -> Answers {
    let dns = config::Dns {
        behind: vec!["10.64.0.1/16".parse().unwrap()],
        ..config::Dns::forwarding_to(silent)
    };
    let resolver = Resolver::new(&dns).unwrap();
    let resolver = (resolver, dns.dns64.map(Dns64));
    Answers::new(OwnNames::new(&dns), resolver, dns.homes(), Arc::default())
}

/// One of many names, asked for from an address.
fn asked(
    answers: &Answers,
    n: usize,
    from: IpAddr,
    asking: Asking,
) -> Pin<Box<impl Future<Output = Heard> + use<>>> {
    let query = message::query(1, &format!("n{n}.example"), RecordType::A, 1232).unwrap();
    let answers = answers.clone();
    Box::pin(async move { answers.answer(&query, from, asking).await })
}

#[tokio::test]
async fn strangers_that_wait_leave_places_for_the_homes() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let answers = answers(silent.local_addr().unwrap());
    let ask = |n, from: &str| asked(&answers, n, from.parse().unwrap(), Asking::Anyhow);
    let mut waiting = Vec::new();

    for n in 0..MAX_LOOKUPS / 4 {
        let mut asking = ask(n, &format!("203.0.113.{}", n % 8));
        let at_once = poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await;
        assert!(at_once.is_pending(), "{n}");
        waiting.push(asking);
    }
    let refused = ask(MAX_LOOKUPS, "203.0.113.7").await;
    let refused = refused.into_message().unwrap();
    let mut home = pin!(ask(MAX_LOOKUPS, "10.64.0.16"));
    let home = poll_fn(|context| Poll::Ready(home.as_mut().poll(context))).await;

    assert_eq!(refused[3] & 15, RCODE_SERVFAIL as u8);
    assert!(home.is_pending(), "a home is asked for");
    let busy = answers.figures.outcomes();
    assert!(busy.into_iter().any(|it| it == (Outcome::Busy, 1)));
}

#[tokio::test]
async fn a_home_whose_questions_nobody_answers_leaves_places_for_another() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let answers = answers(silent.local_addr().unwrap());
    let ask = |n, from: &str| asked(&answers, n, from.parse().unwrap(), Asking::Anyhow);
    let mut waiting = Vec::new();

    for n in 0..MAX_LOOKUPS {
        let mut asking = ask(n, "10.64.0.16");
        let at_once = poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await;
        if at_once.is_pending() {
            waiting.push(asking);
        }
    }
    let mut other = pin!(ask(MAX_LOOKUPS, "10.64.0.17"));
    let other = poll_fn(|context| Poll::Ready(other.as_mut().poll(context))).await;

    assert_eq!(waiting.len(), MAX_OF_ONE);
    assert!(other.is_pending(), "another home is asked for");
}

#[tokio::test]
async fn homes_that_take_all_places_at_once_give_one_up_to_the_next_and_hear_that_others_may_ask() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let answers = answers(silent.local_addr().unwrap());
    let ask = |n, from: String| asked(&answers, n, from.parse().unwrap(), Asking::Anyhow);
    let mut waiting = Vec::new();
    for n in 0..MAX_LOOKUPS {
        let mut asking = ask(n, format!("10.64.0.{}", 16 + n % 64));
        let at_once = poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await;
        assert!(at_once.is_pending(), "{n}");
        waiting.push(asking);
    }

    for n in 0..8 {
        let mut asking = ask(MAX_LOOKUPS + n, "10.64.0.99".to_owned());
        let at_once = poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await;
        assert!(at_once.is_pending(), "the next one's {n}");
        waiting.push(asking);
    }

    let mut busy = 0;
    for (n, asking) in waiting.iter_mut().enumerate() {
        let now = poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await;
        if let Poll::Ready(heard) = now {
            assert!(matches!(heard, Heard::Busy(_)) && n < 64, "the oldest: {n}");
            busy += 1;
        }
    }
    assert_eq!(busy, 8);
}

#[test]
fn nothing_older_stands_in_for_what_validation_refused_or_may_have() {
    for outcome in Outcome::ALL {
        let refused = matches!(outcome, Outcome::Bogus | Outcome::Declined);
        let said = vec![1];
        let expected = if outcome == Outcome::Busy {
            Heard::Busy(said.clone())
        } else if refused {
            Heard::Refused(said.clone())
        } else {
            Heard::Answer(said.clone())
        };
        assert_eq!(heard(Some(said), outcome), expected, "{outcome:?}");
        assert_eq!(heard(None, outcome), Heard::Silence);
    }
}

#[tokio::test]
async fn what_is_asked_ahead_is_no_lookup_and_finds_places_of_its_own() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let answers = answers(silent.local_addr().unwrap());
    let ask = |n: usize, asking| {
        let [.., third, last] = (n % 1_000).to_be_bytes();
        asked(&answers, n, [10, 64, third, last].into(), asking)
    };
    let mut waiting = Vec::new();

    for n in 0..MAX_LOOKUPS {
        let mut asking = ask(n, Asking::Anyhow);
        let at_once = poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await;
        assert!(at_once.is_pending(), "{n}");
        waiting.push(asking);
    }
    let ahead =
        poll_fn(|context| Poll::Ready(ask(MAX_LOOKUPS, Asking::Ahead).as_mut().poll(context)));
    assert!(ahead.await.is_pending());
    assert!(matches!(
        ask(MAX_LOOKUPS, Asking::Anyhow).await,
        Heard::Busy(_)
    ));

    let mut counted = answers.figures.outcomes();
    assert!(counted.all(|(outcome, count)| count == u64::from(outcome == Outcome::Busy)));
}
