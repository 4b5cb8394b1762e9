use super::*;
use crate::proto::relay::{Reach, wrap};

/// Another host than the tests' own, which is 127.0.0.1.
const RESOLVER: &str = "127.0.0.2:0";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 8));

struct Rig {
    relay: Arc<Relay>,
    resolver: UdpSocket,
}

async fn rig() -> Rig {
    let resolver = UdpSocket::bind(RESOLVER).await.unwrap();
    let relaying = Relaying {
        policy: RelayPolicy {
            ports: vec![resolver.local_addr().unwrap().port()],
            own: Vec::new(),
            behind: Vec::new(),
            reach: Reach::AnyForTests,
        },
        in_flight: 12,
        per_source: 2,
        counters: Arc::default(),
    };
    Rig {
        relay: Relay::new(relaying, Homes::within([("fd64::1".parse().unwrap(), 48)])),
        resolver,
    }
}

impl Rig {
    fn packet(&self) -> Vec<u8> {
        wrap(self.resolver.local_addr().unwrap(), &[0x11; 300])
    }

    fn begin(&self, source: IpAddr) -> Result<Exchange, Dropped> {
        self.relay.begin(&self.packet(), source, Transport::Udp)
    }

    /// Takes the query that arrived and who sent it.
    async fn received(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 4096];
        let (len, from) = self.resolver.recv_from(&mut buffer).await.unwrap();
        (buffer[..len].to_vec(), from)
    }
}

fn sealed(len: usize) -> Vec<u8> {
    let mut answer = b"r6fnvWj8".to_vec();
    answer.resize(len, 0x22);
    answer
}

#[tokio::test]
async fn a_target_on_this_machine_is_refused_whatever_the_policy_says() {
    let rig = rig().await;
    let own = PlainSocket::bind("127.0.0.1:0").unwrap();
    own.set_nonblocking(true).unwrap();

    let refused = connected(own.local_addr().unwrap()).await;

    assert_eq!(refused.err(), Some(Dropped::RelayLoop));
    assert!(own.recv(&mut [0; 16]).is_err(), "nothing was sent");
    drop(rig);
}

#[tokio::test]
async fn one_stranger_and_all_together_have_so_many_exchanges_and_homes_have_the_rest() {
    let rig = rig().await;
    let first = rig.begin(CLIENT).unwrap();
    let second = rig.begin(CLIENT).unwrap();

    assert_eq!(rig.begin(CLIENT).err(), Some(Dropped::Overloaded));
    let third = rig.begin(OTHER).unwrap();
    assert_eq!(rig.begin(OTHER).err(), Some(Dropped::Overloaded));
    let home = rig.begin("fd64::10".parse().unwrap()).unwrap();
    drop((first, home));

    let fourth = rig.begin(OTHER).unwrap();
    assert_eq!(rig.begin(OTHER).err(), Some(Dropped::Overloaded));
    drop((second, third, fourth));
    assert_eq!(rig.relay.seats.taken(), 0);
}

#[tokio::test]
async fn an_exchange_that_is_given_up_for_another_home_ends_as_one_too_many_and_no_other_does() {
    let rig = rig().await;
    let home = |n: u16| IpAddr::from([0xfd64, 0, 0, 0, 0, 0, 0, 0x10 + n]);
    let mut waiting = JoinSet::new();
    for (n, at) in (0..6).flat_map(|n| [(n, 0), (n, 1)]) {
        let exchange = rig.begin(home(n)).unwrap();
        waiting.spawn(async move { ((n, at), exchange.run().await) });
    }

    let theirs = rig.begin(home(9)).unwrap();

    let ((n, at), ended) = waiting.join_next().await.unwrap().unwrap();
    assert_eq!((at, ended), (0, Err(Dropped::Overloaded)));
    assert_eq!(rig.begin(home(9)).err(), Some(Dropped::Overloaded));
    assert_eq!(rig.begin(home(n)).err(), Some(Dropped::Overloaded));
    assert_eq!(rig.relay.seats.taken(), 12);
    drop(theirs);
    let again = rig.begin(home(n)).unwrap();
    let asked = async {
        loop {
            let (_, from) = rig.received().await;
            rig.resolver.send_to(&sealed(300), from).await.unwrap();
        }
    };
    tokio::select! {
        answer = again.run() => assert_eq!(answer, Ok(sealed(300))),
        () = asked => {}
    }
}

#[tokio::test]
async fn homes_of_the_internet_have_a_network_each_and_those_of_the_tunnel_an_address() {
    for (one, other, is_one) in [
        ("2001:db8:1:2::7", "2001:db8:1:2:ffff::1", true),
        ("2001:db8:1:2::7", "2001:db8:1:3::7", false),
        ("fd64::10", "fd64::11", false),
    ] {
        let rig = rig().await;
        let _held = [(); 2].map(|()| rig.begin(one.parse().unwrap()).unwrap());

        let begun = rig.begin(other.parse().unwrap());

        assert_eq!(begun.is_err(), is_one, "{one} and {other}");
    }
}

#[tokio::test]
async fn what_is_longer_than_the_query_or_of_no_known_kind_does_not_come_back() {
    let rig = rig().await;
    let exchange = tokio::spawn(rig.begin(CLIENT).unwrap().run());
    let (query, from) = rig.received().await;
    assert_eq!(query, [0x11; 300]);

    rig.resolver.send_to(&sealed(301), from).await.unwrap();
    rig.resolver.send_to(&[0x33; 200], from).await.unwrap();
    rig.resolver.send_to(&sealed(40), from).await.unwrap();
    rig.resolver.send_to(&sealed(300), from).await.unwrap();

    assert_eq!(exchange.await.unwrap(), Ok(sealed(300)));
    let counters = rig.relay.counters();
    for reason in [Dropped::TooLong, Dropped::UnknownMagic, Dropped::TooShort] {
        assert_eq!(counters.dropped(reason), 1, "{reason:?}");
    }
}

#[tokio::test]
async fn only_the_resolver_is_heard_and_a_forger_cannot_end_the_wait() {
    let rig = rig().await;
    let exchange = tokio::spawn(rig.begin(CLIENT).unwrap().run());
    let (_, from) = rig.received().await;
    let forger = UdpSocket::bind("127.0.0.3:0").await.unwrap();

    for _ in 0..2 * MAX_REFUSED {
        forger.send_to(&sealed(200), from).await.unwrap();
    }
    for _ in 1..MAX_REFUSED {
        rig.resolver.send_to(&[0x33; 200], from).await.unwrap();
    }
    rig.resolver.send_to(&sealed(250), from).await.unwrap();

    assert_eq!(exchange.await.unwrap(), Ok(sealed(250)));
}

#[tokio::test(start_paused = true)]
async fn a_silent_resolver_costs_its_place_for_as_long_as_the_wait_and_no_longer() {
    let rig = rig().await;
    let before = tokio::time::Instant::now();

    let answer = rig.begin(CLIENT).unwrap().run().await;

    assert_eq!(answer, Err(Dropped::Unanswered));
    assert_eq!(before.elapsed(), WAIT);
    assert_eq!(rig.relay.seats.taken(), 0);
}

#[tokio::test]
async fn a_full_queue_refuses_and_counts_and_does_not_wait() {
    let rig = rig().await;
    let relaying = rig.relay.relaying.clone();
    let worker = WorkerSockets::default();
    let mut desk = Desk::open(Some(relaying), &Homes::default(), Some(&worker))
        .unwrap()
        .unwrap();
    let (door, _) = desk.door(netio::Poller::new().unwrap().waker(), 1);
    let place = Place {
        way: Way::Udp(0),
        peer: (CLIENT, 5353).into(),
    };

    let taken = (0..QUEUE + 5).filter(|_| door.hand_over(place, &rig.packet()).is_ok());

    assert_eq!(taken.count(), QUEUE);
    assert_eq!(rig.relay.counters().dropped(Dropped::Overloaded), 5);
}
