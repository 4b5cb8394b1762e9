//! Handshakes and sessions with boringtun as the other side, so that both cannot have the same mistake.

use std::net::SocketAddr;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use x25519_dalek::StaticSecret;

use super::*;

const FROM: &str = "192.0.2.1:7";
const NUMBER: u32 = 0x0012_3456;

fn key(n: u8) -> StaticSecret {
    StaticSecret::from([n; 32])
}

fn identity(now: Instant) -> Arc<Identity> {
    let today = Duration::from_secs(1_800_000_000);
    Arc::new(Identity::new(key(1), today, now))
}

/// Ours, and boringtun's for the same two keys.
struct Two {
    us: Arc<Identity>,
    noise: Noise,
    other: Tunn,
    now: Instant,
}

impl Two {
    fn with(psk: [u8; 32], theirs: Option<[u8; 32]>) -> Self {
        let now = Instant::now();
        let us = identity(now);
        let public = PublicKey::from(&key(2));
        Self {
            noise: Noise::new(Arc::clone(&us), public.to_bytes(), psk, NUMBER),
            other: Tunn::new(key(2), PublicKey::from(&key(1)), theirs, None, 9, None),
            us,
            now,
        }
    }

    fn new() -> Self {
        Self::with([0; 32], None)
    }

    fn theirs(&mut self) -> Vec<u8> {
        let mut buf = [0; 256];
        let initiation = self.other.format_handshake_initiation(&mut buf, true);
        let TunnResult::WriteToNetwork(initiation) = initiation else {
            panic!("no initiation");
        };
        initiation.to_vec()
    }

    /// What the other side answers to a datagram of ours.
    fn at_other(&mut self, datagram: &[u8]) -> Result<Vec<u8>, String> {
        let mut buf = vec![0; 2_048];
        match self.other.decapsulate(None, datagram, &mut buf) {
            TunnResult::WriteToNetwork(bytes)
            | TunnResult::WriteToTunnelV4(bytes, _)
            | TunnResult::WriteToTunnelV6(bytes, _) => Ok(bytes.to_vec()),
            TunnResult::Done => Ok(Vec::new()),
            TunnResult::Err(error) => Err(format!("{error:?}")),
        }
    }

    fn sealed_by_other(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut buf = vec![0; 2_048];
        let TunnResult::WriteToNetwork(datagram) = self.other.encapsulate(packet, &mut buf) else {
            panic!("not sealed");
        };
        datagram.to_vec()
    }

    fn accept(&mut self, initiation: &[u8]) -> Result<[u8; RESPONSE_BYTES], Dropped> {
        let initiator = self.us.initiator(initiation)?;
        assert_eq!(initiator.public(), *PublicKey::from(&key(2)).as_bytes());
        self.noise.accept(&initiator, self.now)
    }

    fn open(&mut self, datagram: &[u8]) -> Result<(By, Vec<u8>), Dropped> {
        let Message::Data { index } = Message::classify(datagram)? else {
            panic!("not data");
        };
        let mut buf = vec![0; datagram.len()];
        let (by, packet) = self.noise.open(index, datagram, &mut buf)?;
        Ok((by, packet.to_vec()))
    }

    fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut room = vec![0; packet.len() + OVERHEAD_BYTES];
        room[HEADER_BYTES..][..packet.len()].copy_from_slice(packet);
        self.noise.seal(&mut room).unwrap();
        room
    }

    /// With a session that the other side began.
    fn answered() -> Self {
        let mut two = Self::new();
        let initiation = two.theirs();
        let response = two.accept(&initiation).unwrap();
        let keepalive = two.at_other(&response).unwrap();
        let (by, packet) = two.open(&keepalive).unwrap();
        assert_eq!((by, packet.len()), (By::Confirmed(two.now), 0));
        two
    }

    /// With a session that we began.
    fn begun() -> Self {
        let mut two = Self::new();
        let initiation = two.noise.initiate(two.now);
        let response = two.at_other(&initiation).unwrap();
        two.noise.finish(&response, two.now).unwrap();
        let keepalive = two.seal(&[]);
        two.at_other(&keepalive).unwrap();
        two
    }
}

/// An IPv4 packet of `len` bytes.
fn packet(len: usize) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..len).map(|at| at as u8).collect();
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet
}

#[test]
fn packets_of_all_sizes_pass_both_ways_whoever_began() {
    for mut two in [Two::begun(), Two::answered()] {
        for len in 20..=1_420 {
            let packet = packet(len);
            let sealed = two.seal(&packet);
            assert_eq!(two.at_other(&sealed), Ok(packet.clone()));
            let sealed = two.sealed_by_other(&packet);
            assert_eq!(two.open(&sealed), Ok((By::Known, packet)));
        }
    }
}

#[test]
fn a_pre_shared_key_is_agreed_with_on_both_sides_or_there_is_no_session() {
    for (ours, theirs) in [
        ([7; 32], None),
        ([0; 32], Some([7; 32])),
        ([7; 32], Some([8; 32])),
    ] {
        let mut two = Two::with(ours, theirs);
        let initiation = two.noise.initiate(two.now);
        let response = two.at_other(&initiation).unwrap();
        assert_eq!(two.noise.finish(&response, two.now), Err(Dropped::Forged));

        let initiation = two.theirs();
        let response = two.accept(&initiation).unwrap();
        assert!(two.at_other(&response).is_err());
    }
    let mut two = Two::with([7; 32], Some([7; 32]));
    let initiation = two.theirs();
    let response = two.accept(&initiation).unwrap();
    assert!(two.at_other(&response).is_ok());
}

#[test]
fn an_initiation_with_any_byte_changed_is_refused_and_the_right_one_still_taken() {
    let mut two = Two::new();
    let initiation = two.theirs();
    let mut checker = Checker::new(&two.us.public());
    let from = FROM.parse().unwrap();
    for at in 0..initiation.len() {
        let mut changed = initiation.clone();
        changed[at] ^= 0x10;
        // The second mac is looked at under load only.
        if at < INITIATION_BYTES - 16 {
            let checked = checker.check(&changed, from, false, two.now);
            assert_eq!(checked, Err(Dropped::WrongRecipient), "byte {at}");
        }
        // Beyond the header everything is bound to keys besides.
        if (8..INITIATION_BYTES - 32).contains(&at) {
            assert_eq!(two.accept(&changed), Err(Dropped::Forged), "byte {at}");
        }
    }

    assert_eq!(
        checker.check(&initiation, from, false, two.now),
        Ok(Verdict::Right)
    );
    assert!(two.accept(&initiation).is_ok());
}

#[test]
fn an_answer_with_any_byte_changed_is_refused_and_the_right_one_still_taken() {
    let mut two = Two::new();
    let initiation = two.noise.initiate(two.now);
    let response = two.at_other(&initiation).unwrap();
    for at in 8..RESPONSE_BYTES - 32 {
        let mut changed = response.clone();
        changed[at] ^= 1;
        let refused = two.noise.finish(&changed, two.now);
        let expected = if at < 12 {
            Dropped::Unexpected
        } else {
            Dropped::Forged
        };
        assert_eq!(refused, Err(expected), "byte {at}");
    }

    assert_eq!(two.noise.finish(&response, two.now), Ok(()));
    assert_eq!(
        two.noise.finish(&response, two.now),
        Err(Dropped::Unexpected),
        "an answer is taken once"
    );
}

#[test]
fn an_ephemeral_key_of_small_order_is_refused() {
    let mut two = Two::new();
    let mut initiation = two.theirs();
    initiation[8..40].fill(0);
    assert_eq!(two.accept(&initiation), Err(Dropped::Forged));

    let ours = two.noise.initiate(two.now);
    let mut response = two.at_other(&ours).unwrap();
    response[12..44].fill(0);
    assert_eq!(two.noise.finish(&response, two.now), Err(Dropped::Forged));
}

#[test]
fn an_initiation_passes_once_and_an_older_one_not_at_all() {
    let mut two = Two::new();
    let older = two.theirs();
    let newer = two.theirs();
    assert!(two.accept(&newer).is_ok());

    assert_eq!(two.accept(&newer), Err(Dropped::Replayed));
    assert_eq!(two.accept(&older), Err(Dropped::Replayed));
}

#[test]
fn each_initiation_claims_a_later_time_even_at_the_same_instant() {
    let mut two = Two::new();
    // More in a second would have boringtun ask for a cookie.
    for _ in 0..8 {
        let initiation = two.noise.initiate(two.now);
        let response = two.at_other(&initiation).unwrap();
        assert_eq!(two.noise.finish(&response, two.now), Ok(()));
    }
    // A restart, with the calendar a second further.
    two.now += Duration::from_secs(1);
    let later = Duration::from_secs(1_800_000_001);
    let us = Arc::new(Identity::new(key(1), later, two.now));
    two.noise = Noise::new(us, PublicKey::from(&key(2)).to_bytes(), [0; 32], NUMBER);
    let initiation = two.noise.initiate(two.now);
    assert!(two.at_other(&initiation).is_ok());
}

#[test]
fn the_receiver_index_names_the_peer_and_differs_between_sessions() {
    let mut two = Two::new();
    let indexes: Vec<_> = (0..3)
        .map(|_| word(&two.noise.initiate(two.now), 4).unwrap())
        .collect();

    assert!(indexes.iter().all(|index| index >> 8 == NUMBER));
    assert!(indexes[0] != indexes[1] && indexes[1] != indexes[2]);
}

#[test]
fn under_load_a_sender_must_show_a_cookie_that_was_made_for_its_address() {
    let mut two = Two::new();
    let mut checker = Checker::new(&two.us.public());
    let from = FROM.parse().unwrap();
    let initiation = two.theirs();
    let Ok(Verdict::Ask(reply)) = checker.check(&initiation, from, true, two.now) else {
        panic!("not asked");
    };
    let mut forged = reply;
    forged[40] ^= 1;
    assert!(two.at_other(&forged).is_err());
    assert_eq!(two.at_other(&reply), Ok(Vec::new()));

    let initiation = two.theirs();
    let checked = checker.check(&initiation, from, true, two.now);
    assert_eq!(checked, Ok(Verdict::Right));
    for other in ["192.0.2.1:8", "192.0.2.2:7", "[2001:db8::1]:7"] {
        let other = other.parse().unwrap();
        let checked = checker.check(&initiation, other, true, two.now);
        assert!(matches!(checked, Ok(Verdict::Ask(_))), "{other}");
    }
    let later = two.now + Duration::from_secs(121);
    let checked = checker.check(&initiation, from, true, later);
    assert!(matches!(checked, Ok(Verdict::Ask(_))), "the secret is new");
}

#[test]
fn who_shows_a_cookie_is_heard_twenty_times_a_second_under_load_and_its_neighbour_all_the_same() {
    let mut two = Two::new();
    let mut checker = Checker::new(&two.us.public());
    let mut shown = |two: &mut Two, from: SocketAddr| {
        let initiation = two.theirs();
        let asked = checker.check(&initiation, from, true, two.now);
        if let Ok(Verdict::Ask(reply)) = asked {
            two.at_other(&reply).unwrap();
        }
        let initiation = two.theirs();
        move |checker: &mut Checker, load, now| checker.check(&initiation, from, load, now)
    };
    let flood = shown(&mut two, FROM.parse().unwrap());
    let home = shown(&mut two, "198.51.100.9:7".parse().unwrap());
    let is_heard = |verdict| verdict == Ok(Verdict::Right);
    let heard = (0..1_000).filter(|_| is_heard(flood(&mut checker, true, two.now)));
    assert_eq!(heard.count(), 20);
    let refused = flood(&mut checker, true, two.now);
    assert_eq!(refused, Err(Dropped::RateLimited));

    assert!(is_heard(home(&mut checker, true, two.now)));
    let later = |ms| two.now + Duration::from_millis(ms);
    let heard = (0..10_000).filter(|ms| is_heard(flood(&mut checker, true, later(*ms))));
    assert_eq!(heard.count(), 199);
    assert!(is_heard(flood(&mut checker, false, later(10_000))));
}

#[test]
fn a_cookie_that_the_peer_demands_is_shown_while_it_is_fresh() {
    let mut two = Two::new();
    let strict = RateLimiter::new(&PublicKey::from(&key(2)), 0);
    let from = Some([192, 0, 2, 1].into());
    let asks = |initiation: &[u8]| {
        let mut buf = [0; COOKIE_BYTES];
        match strict.verify_packet(from, initiation, &mut buf) {
            Ok(_) => None,
            Err(TunnResult::WriteToNetwork(reply)) => Some(reply.to_vec()),
            Err(_) => panic!("refused"),
        }
    };
    let initiation = two.noise.initiate(two.now);
    let reply = asks(&initiation).unwrap();
    let mut forged = reply.clone();
    forged[50] ^= 1;
    assert_eq!(
        two.noise.take_cookie(&forged, two.now),
        Err(Dropped::Forged)
    );
    assert_eq!(two.noise.take_cookie(&reply, two.now), Ok(()));

    assert_eq!(asks(&two.noise.initiate(two.now)), None);
    two.now += Duration::from_secs(120);
    assert!(asks(&two.noise.initiate(two.now)).is_some(), "it is stale");
    assert_eq!(
        two.noise.take_cookie(&reply, two.now),
        Err(Dropped::Unexpected),
        "it answers an earlier initiation"
    );
}

#[test]
fn a_cookie_that_the_peer_demands_with_our_answer_is_taken() {
    let mut two = Two::new();
    let strict = RateLimiter::new(&PublicKey::from(&key(2)), 0);
    let initiation = two.theirs();
    let response = two.accept(&initiation).unwrap();
    let mut buf = [0; COOKIE_BYTES];
    let asked = strict.verify_packet(Some([192, 0, 2, 1].into()), &response, &mut buf);
    let Err(TunnResult::WriteToNetwork(reply)) = asked else {
        panic!("not asked");
    };
    let mut for_another = reply.to_vec();
    for_another[4] ^= 1;
    let refused = two.noise.take_cookie(&for_another, two.now);
    assert_eq!(refused, Err(Dropped::Unexpected));

    assert_eq!(two.noise.take_cookie(reply, two.now), Ok(()));
    two.now += BETWEEN_ANSWERS;
    let initiation = two.theirs();
    let response = two.accept(&initiation).unwrap();
    let asked = strict.verify_packet(Some([192, 0, 2, 1].into()), &response, &mut buf);
    assert!(asked.is_ok(), "it was shown none");
}

#[test]
fn an_answer_that_was_held_back_makes_no_session() {
    let mut two = Two::new();
    let initiation = two.noise.initiate(two.now);
    let response = two.at_other(&initiation).unwrap();

    let late = two.now + ANSWER_WITHIN;
    let refused = two.noise.finish(&response, late);
    assert_eq!(refused, Err(Dropped::Unexpected));
    let in_time = late - Duration::from_millis(1);
    assert_eq!(two.noise.finish(&response, in_time), Ok(()));
}

#[test]
fn a_peer_in_haste_is_answered_once_in_twenty_milliseconds() {
    let mut two = Two::new();
    let [first, second] = [two.theirs(), two.theirs()];
    assert!(two.accept(&first).is_ok());
    two.now += Duration::from_millis(19);
    assert_eq!(two.accept(&second), Err(Dropped::RateLimited));
    two.now += Duration::from_millis(1);

    assert!(two.accept(&second).is_ok(), "it was kept as taken");
}

#[test]
fn handshakes_that_cross_on_the_way_leave_both_sides_able_to_send() {
    let mut two = Two::new();
    let ours = two.noise.initiate(two.now);
    let theirs = two.theirs();
    let to_theirs = two.accept(&theirs).unwrap();
    let to_ours = two.at_other(&ours).unwrap();
    two.noise.finish(&to_ours, two.now).unwrap();
    let proof = two.seal(&[]);
    two.at_other(&proof).unwrap();
    let keepalive = two.at_other(&to_theirs).unwrap();
    assert!(two.open(&keepalive).is_ok());

    for _ in 0..3 {
        let sealed = two.seal(&packet(100));
        assert_eq!(two.at_other(&sealed), Ok(packet(100)));
        let sealed = two.sealed_by_other(&packet(100));
        assert_eq!(two.open(&sealed), Ok((By::Known, packet(100))));
    }
}

#[test]
fn a_new_session_takes_over_at_once_and_the_last_one_still_receives() {
    let mut two = Two::begun();
    let late = two.sealed_by_other(&packet(60));
    let initiation = two.noise.initiate(two.now);
    let response = two.at_other(&initiation).unwrap();
    two.noise.finish(&response, two.now).unwrap();
    let sealed = two.seal(&packet(80));
    assert_eq!(two.at_other(&sealed), Ok(packet(80)));

    assert_eq!(two.open(&late), Ok((By::Known, packet(60))));
    two.noise.forget_sessions();
    let sealed = two.sealed_by_other(&packet(60));
    assert_eq!(two.open(&sealed), Err(Dropped::NoSession));
    assert_eq!(two.noise.seal(&mut [0; 64]), Err(Dropped::NoSession));
}

#[test]
fn nothing_is_sent_by_a_session_whose_initiator_has_not_come_back() {
    let mut two = Two::new();
    let initiation = two.theirs();
    two.accept(&initiation).unwrap();

    assert_eq!(two.noise.seal(&mut [0; 64]), Err(Dropped::NoSession));
    assert_eq!(two.noise.unconfirmed_since(), Some(two.now));
    two.noise.forget_unconfirmed();
    assert_eq!(two.noise.unconfirmed_since(), None);
}

#[test]
fn what_has_another_length_or_type_is_malformed() {
    for (kind, right) in [(1, 148), (2, 92), (3, 64)] {
        for len in (0..300).filter(|len| *len != right) {
            let mut datagram = vec![0; len];
            if let Some(first) = datagram.first_mut() {
                *first = kind;
            }
            assert_eq!(Message::classify(&datagram), Err(Dropped::Malformed));
        }
    }
    for datagram in [
        &[4, 0, 0, 0][..],
        &[4; 40],
        &[4, 1, 0, 0, 0, 0, 0, 0],
        &[5, 0, 0, 0],
    ] {
        assert_eq!(Message::classify(datagram), Err(Dropped::Malformed));
    }
    let mut short = [0; OVERHEAD_BYTES - 1];
    short[0] = 4;
    assert_eq!(Message::classify(&short), Err(Dropped::Malformed));
}
