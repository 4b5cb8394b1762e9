use super::*;

fn homes() -> Homes {
    Homes::within([
        ([10, 64, 0, 1].into(), 16),
        ("fd64::1".parse().unwrap(), 48),
    ])
}

fn home(n: u32) -> Holder {
    let address = u32::from(Ipv4Addr::new(10, 64, 0, 16)) + n;
    Holder::of(&homes(), Ipv4Addr::from(address).into())
}

fn stranger(address: &str) -> Holder {
    Holder::of(&homes(), address.parse().unwrap())
}

/// Places that know whose they are.
type Rig = Places<(Holder, usize)>;

/// Takes so many, if there are; whose places they were.
fn take(places: &mut Rig, holder: Holder, many: usize) -> (usize, Vec<(Holder, usize)>) {
    let mut given_up = Vec::new();
    for n in 0..many {
        match places.take(holder, (holder, n)) {
            Ok(taken) => given_up.extend(taken.given_up.map(|(_, what)| what)),
            Err(_) => return (n, given_up),
        }
    }
    (many, given_up)
}

fn has(places: &Rig, holder: Holder) -> usize {
    places.held.get(&holder.home).map_or(0, BTreeMap::len)
}

#[test]
fn nobody_has_more_than_their_own_bound_though_all_is_free() {
    let mut places = Rig::new(2_048);

    assert_eq!(take(&mut places, home(0), 2_048).0, 512);
    assert_eq!(take(&mut Rig::new(2), home(0), 9).0, 2);
    assert_eq!(take(&mut Rig::bounded(64, 16), home(0), 64).0, 16);
}

#[test]
fn who_has_fewer_is_never_robbed_by_who_has_more_or_as_many() {
    let mut places = Rig::new(64);
    take(&mut places, home(0), 16);
    for n in 1..4 {
        take(&mut places, home(n), 16);
    }

    assert_eq!(take(&mut places, home(3), 1).0, 0);
    let (came, given_up) = take(&mut places, home(4), 64);
    // Five among whom 64 are shared: nobody gains from another one's being one short.
    assert_eq!(came, 12);
    assert!(given_up.iter().all(|(holder, _)| *holder != home(4)));
    assert!((0..4).all(|n| has(&places, home(n)) == 13));
    for n in 0..5 {
        assert_eq!(take(&mut places, home(n), 64).0, 0, "{n}");
    }
}

#[test]
fn places_that_are_kept_are_given_up_to_nobody() {
    let mut places = Rig::bounded(4, 4).kept();
    take(&mut places, home(0), 4);

    assert_eq!(take(&mut places, home(1), 1).0, 0);
    assert_eq!(has(&places, home(0)), 4);
}

#[test]
fn sixty_homes_that_take_all_at_once_and_again_leave_their_share_to_the_next_one() {
    let mut places = Rig::new(2_048);
    for n in 0..60 {
        take(&mut places, home(n), 2_048);
    }
    assert_eq!(places.taken, 2_048);

    let (came, given_up) = take(&mut places, home(99), 20);

    assert_eq!((came, given_up.len()), (20, 20));
    // They come again: there is nothing that they would have fewer of.
    for n in 0..60 {
        take(&mut places, home(n), 2_048);
    }
    assert_eq!(has(&places, home(99)), 20);
    assert_eq!(places.taken, 2_048);
}

#[test]
fn who_has_the_most_gives_up_what_they_had_for_longest() {
    let mut places = Rig::bounded(10, 10);
    take(&mut places, home(0), 3);
    take(&mut places, home(1), 5);
    take(&mut places, home(2), 2);

    let (_, given_up) = take(&mut places, home(3), 2);

    assert_eq!(given_up, [(home(1), 0), (home(1), 1)]);
}

#[test]
fn what_was_used_of_late_is_not_what_was_had_for_longest() {
    let mut places = Places::bounded(3, 3);
    let tickets =
        ["first", "second", "third"].map(|what| places.take(home(0), what).unwrap().ticket);
    let [mut first, second, _] = tickets;
    places.renew(&mut first);

    let taken = places.take(home(1), "other").unwrap();

    assert_eq!(taken.given_up, Some((second, "second")));
    assert_eq!(places.give_back(second), None);
    assert_eq!(places.give_back(first), Some("first"));
}

#[test]
fn strangers_share_a_quarter_and_never_take_a_homes_place() {
    let mut places = Rig::new(64);
    take(&mut places, home(0), 16);
    for n in 0..40 {
        let (_, given_up) = take(&mut places, stranger(&format!("203.0.{n}.7")), 16);
        let of_strangers = |(holder, _): &(Holder, usize)| holder.class == Class::Stranger;
        assert!(given_up.iter().all(of_strangers));
    }
    assert_eq!((places.strangers, has(&places, home(0))), (16, 16));
    assert_eq!(places.taken, 32);
}

#[test]
fn a_home_takes_from_strangers_who_have_more_than_any_home() {
    let mut places = Rig::new(32);
    take(&mut places, stranger("203.0.113.7"), 8);
    for n in 0..6 {
        take(&mut places, home(n), 4);
    }

    let (came, given_up) = take(&mut places, home(99), 3);

    assert_eq!(came, 3);
    assert!(
        given_up
            .iter()
            .all(|(holder, _)| *holder == stranger("203.0.113.7"))
    );
}

#[test]
fn the_networks_of_one_provider_are_one_stranger_to_others() {
    let mut places = Rig::new(1_024);
    for n in 0..256 {
        take(&mut places, stranger(&format!("2001:db8:1:{n:x}::7")), 32);
    }
    assert_eq!(places.strangers, 256);

    assert_eq!(take(&mut places, stranger("2001:db8:2::7"), 20).0, 20);
    assert_eq!(take(&mut places, stranger("203.0.113.7"), 20).0, 20);
    assert_eq!(places.strangers, 256);
}

#[test]
fn within_a_network_who_has_the_most_gives_up_to_a_neighbour() {
    let mut places = Rig::new(64);
    take(&mut places, stranger("203.0.113.7"), 12);
    take(&mut places, stranger("203.0.113.8"), 4);
    assert_eq!(places.strangers, 16);

    let (came, given_up) = take(&mut places, stranger("203.0.113.9"), 16);

    assert_eq!(came, 6);
    assert!(
        given_up
            .iter()
            .all(|(holder, _)| *holder == stranger("203.0.113.7"))
    );
    assert_eq!(has(&places, stranger("203.0.113.8")), 4);
}

#[test]
fn neighbours_of_the_tunnel_do_not_count_for_each_other() {
    for (one, other, is_one) in [
        ("fd64::10", "fd64::11", false),
        ("10.64.0.16", "10.64.0.17", false),
        ("203.0.113.7", "203.0.113.8", true),
        ("203.0.113.7", "203.0.112.7", false),
        ("2001:db8:1:2::7", "2001:db8:1:3::7", true),
        ("2001:db8:1::7", "2001:db8:2::7", false),
    ] {
        let of = |address| stranger(address).network;
        assert_eq!(of(one) == of(other), is_one, "{one} and {other}");
    }
}

#[test]
fn nothing_is_kept_of_who_had_places_that_are_given_back() {
    let mut places = Places::bounded(16, 8);
    let mut tickets = Vec::new();
    for n in 0..100 {
        let who = [home(n), home(n / 2), stranger("203.0.113.7")];
        for holder in who {
            tickets.extend(places.take(holder, n).ok());
        }
    }
    assert_eq!(places.taken, 16);

    // Those who had to give theirs up come too, and some twice.
    for taken in tickets.iter().chain(&tickets) {
        places.give_back(taken.ticket);
    }

    assert_eq!((places.taken, places.strangers), (0, 0));
    assert!(places.held.is_empty() && places.networks.is_empty());
    assert!(places.by_count.iter().all(BTreeSet::is_empty));
}
