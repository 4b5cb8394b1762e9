//! Two workers of one gateway: each has its peers, and tells whose everything else is.

use std::time::Instant;

use tunnel::agent::AgentTunnel;
use tunnel::edge::{EdgeLimits, EdgeTunnel, Elsewhere, PeerConfig, Taken};
use tunnel::offload::VNET_BYTES;
use tunnel::{Dropped, Share};

use crate::rig::{
    AGENT, GATEWAYS, INNER, TODAY, WEB, agent_config, key, lease, packet, public, socket,
};

/// Two workers, the one that has the rig's peer first, and its agent.
struct Gateway {
    now: Instant,
    owner: EdgeTunnel,
    other: EdgeTunnel,
    owner_number: u8,
    agent: AgentTunnel,
}

impl Gateway {
    fn new() -> Self {
        let now = Instant::now();
        let shares: Vec<Share> = Share::split(2, 7).collect();
        let lease = lease(now);
        let owner_number = shares[0].owner(&lease.public);
        let mut workers = shares.into_iter().map(|share| {
            EdgeTunnel::for_worker(key(100), EdgeLimits::default(), share, TODAY, now)
        });
        let (zero, one) = (workers.next().unwrap(), workers.next().unwrap());
        let (mut owner, mut other) = if owner_number == 0 {
            (zero, one)
        } else {
            (one, zero)
        };
        other.route_elsewhere(&lease.public, &lease.allowed);
        owner.upsert_peer(lease, now).unwrap();
        let config = agent_config(&[(100, &GATEWAYS[..1])], &["10.64.0.7/32"]);
        Self {
            now,
            owner,
            other,
            owner_number,
            agent: AgentTunnel::new(config, now).unwrap(),
        }
    }

    /// The worker that another is told of.
    fn owner(&self) -> Elsewhere {
        Elsewhere {
            worker: self.owner_number,
            initiator: None,
        }
    }

    /// What the agent sends: of several datagrams the last.
    fn sent(&mut self) -> Vec<u8> {
        let mut last = Vec::new();
        while let Some(run) = self.agent.poll_transmit() {
            last = run.datagrams().last().unwrap().to_vec();
        }
        assert!(!last.is_empty(), "the agent has nothing to send");
        last
    }

    /// What the owner answers goes to the agent.
    fn answer(&mut self) {
        while let Some(run) = self.owner.poll_transmit() {
            let from = socket(GATEWAYS[0]);
            for datagram in run.datagrams() {
                self.agent
                    .handle_datagram(datagram, from, 0, self.now)
                    .unwrap();
            }
        }
    }

    /// With a session made through the worker that does not have the peer.
    fn connected() -> Self {
        let mut gateway = Self::new();
        let now = gateway.now;
        gateway.agent.handle_timeout(now);
        let initiation = gateway.sent();
        let from = socket(AGENT);
        let taken = gateway
            .other
            .handle_datagram(&initiation, from, 0, now)
            .unwrap();
        let Taken::Elsewhere(elsewhere) = taken else {
            panic!("the other worker took it for its own");
        };
        assert_eq!(elsewhere.worker, gateway.owner().worker);
        let initiator = elsewhere.initiator.unwrap();
        assert_eq!(initiator.public(), public(&key(7)));
        gateway
            .owner
            .handle_initiation(&initiator, from, now)
            .unwrap();
        gateway.answer();
        gateway
    }
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; VNET_BYTES];
    frame.extend(bytes);
    frame
}

#[test]
fn an_index_of_a_worker_that_is_not_there_and_a_key_without_a_lease_are_nobodys() {
    let mut gateway = Gateway::connected();
    let mut data = gateway.sent();
    data[5] = data[5] & 0xc0 | 5;
    let from = socket(AGENT);

    let nobodys = gateway.owner.handle_datagram(&data, from, 0, gateway.now);
    assert_eq!(nobodys, Err(Dropped::NoSession));
    let mut stranger = agent_config(&[(100, &[GATEWAYS[0]])], &["10.64.0.7/32"]);
    stranger.private = key(3);
    let mut stranger = AgentTunnel::new(stranger, gateway.now).unwrap();
    stranger.handle_timeout(gateway.now);
    let initiation = stranger.poll_transmit().unwrap().payload.to_vec();
    for worker in [&mut gateway.owner, &mut gateway.other] {
        let taken = worker.handle_datagram(&initiation, from, 0, gateway.now);
        let unknown = match taken {
            Ok(Taken::Elsewhere(Elsewhere {
                initiator: Some(initiator),
                ..
            })) => worker.handle_initiation(&initiator, from, gateway.now),
            taken => taken.map(|_| ()),
        };
        assert_eq!(unknown, Err(Dropped::UnknownPeer));
    }
}

#[test]
fn what_came_to_the_wrong_worker_passes_when_it_is_handed_to_the_right_one() {
    let mut gateway = Gateway::connected();
    let (now, from) = (gateway.now, socket(AGENT));
    let keepalive = gateway.sent();
    let up = packet(INNER, WEB, 100, 1);
    let kept = gateway.owner.handle_datagram(&keepalive, from, 0, now);
    assert_eq!(kept, Ok(Taken::Here));
    // The agent's question after its gateway's health.
    gateway.owner.flush_tun();
    assert!(gateway.owner.poll_tun().is_some());
    gateway.agent.handle_tun_frame(&frame(&up), now).unwrap();
    let sealed = gateway.sent();
    let elsewhere = Taken::Elsewhere(gateway.owner());

    assert_eq!(
        gateway.other.handle_datagram(&sealed, from, 0, now),
        Ok(elsewhere.clone())
    );
    assert_eq!(
        gateway.owner.handle_datagram(&sealed, from, 0, now),
        Ok(Taken::Here)
    );
    gateway.owner.flush_tun();
    assert_eq!(gateway.owner.poll_tun(), Some(&*frame(&up)),);

    let down = frame(&packet(WEB, INNER, 100, 2));
    assert_eq!(gateway.other.handle_tun_frame(&down, now), Ok(elsewhere));
    assert_eq!(gateway.owner.handle_tun_frame(&down, now), Ok(Taken::Here));
    gateway.answer();
    gateway.agent.flush_tun();
    assert!(gateway.agent.poll_tun().is_some());
    assert_eq!(gateway.other.dropped().total(), 0);
}

#[test]
fn an_address_that_another_workers_peer_has_is_refused_until_it_is_given_up() {
    let mut gateway = Gateway::new();
    let now = gateway.now;
    let taken = lease(now);
    let mut n = 0_u8;
    let second = loop {
        n += 1;
        let public = [n; 32];
        if Share::split(2, 7).next().unwrap().owner(&public) != gateway.owner_number {
            break PeerConfig {
                id: [n; 32],
                public,
                ..lease(now)
            };
        }
    };

    let refused = gateway.other.upsert_peer(second.clone(), now).unwrap_err();
    assert!(
        refused.to_string().contains("leased to another device"),
        "{refused}"
    );
    gateway
        .other
        .unroute_elsewhere(&taken.public, &taken.allowed);
    gateway.other.upsert_peer(second, now).unwrap();
    assert_eq!(gateway.other.peer_count(), 1);
}
