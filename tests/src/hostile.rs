//! Hostile input through the real sockets: packets that are nearly right for the gateway's DNSCrypt server and for the
//! stub, while those whom they ask lie. Somebody who knows the answers asks on and is never told another one.

mod asker;
mod attack;
mod draft;
mod forge;
mod liar;
mod phase;
mod report;
mod resolver;
mod speech;
mod spoil;

use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnscrypt_proxy::DnsCryptStamp;
use dnscrypt_proxy::proto::cert::{Certificate, Policy};
use dnscrypt_proxy::proto::client::PqSession;

use crate::certificates::{PADDED, PLAIN, POST_QUANTUM, certificate, session_with_ticket};
use crate::dice::Dice;
use crate::dns_peers::DnscryptStub;
use crate::internet::Internet;
use crate::netns::Netns;
use crate::office::Office;
use crate::pop::Pop;
use crate::programs::Programs;
use crate::topology::{LIAR, Lab};
use crate::zones::{
    BOGUS_NAME, EVIL_ZONE, MANY_NAMES, MANY_UNSIGNED_NAMES, PAGE_NAME, SEALED_ZONE,
};
use asker::{Asker, Truth};
use attack::Target;
use forge::Forge;
use liar::{Liar, Role};
use phase::{Bounds, Found, Phase};
use resolver::LyingResolver;

pub use report::Report;

/// The address that liars give to names that are not theirs.
const FORGED: &str = "6.6.6.6";
const FORGED_BYTES: [u8; 4] = [6, 6, 6, 6];
/// Two of the gateway's homes: one asks about liars' names, one about known ones.
const HOMES: [&str; 2] = ["10.64.3.1", "10.64.3.2"];
/// Two of a home's devices, likewise: the first sends what is spoiled, too.
const DEVICES: [&str; 2] = ["127.0.0.1", "127.0.0.2"];
/// What the lying resolver tells the truth about.
const CANARY_ZONE: &str = "canary";
/// The gateway's part of the packets and of the lies: where it recurses, and where it forwards; the rest is the stub's.
const RECURSING: [f64; 2] = [0.5, 0.2];
const FORWARDING: [f64; 2] = [0.2, 0.3];
/// Questions to liars at the same time: a resolver may wait eight seconds for each, and a router's stub lets 256 in.
const WINDOW_OF_GATEWAY: usize = 512;
const WINDOW_OF_STUB: usize = 128;
/// A resolver's caches and pools fill with millions of names, whole allocations at a time; a stub's have 512 KiB.
const BOUNDS_OF_GATEWAY: Bounds = Bounds {
    memory_kib: 8_192.0,
    descriptors: 24.0,
    threads: 2.0,
};
const BOUNDS_OF_STUB: Bounds = Bounds {
    memory_kib: 1_024.0,
    descriptors: 4.0,
    threads: 2.0,
};
const PATIENCE: Duration = Duration::from_secs(5);

/// How much of it, and how it is told.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Packets that are sent.
    pub packets: u64,
    /// Answers that are lies.
    pub lies: u64,
    /// What chance is drawn from.
    pub seed: u64,
    /// Whether a gateway that forwards to a liar is attacked, too.
    pub forwarding: bool,
    /// One object on the last line of stdout.
    pub json: bool,
}

/// What the liars count.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    lies: AtomicU64,
    /// Queries sealed for a certificate that must not be used.
    fooled: AtomicU64,
    /// Names of other zones that a liar was asked for.
    strays: Mutex<BTreeSet<String>>,
}

impl Figures {
    fn stray(&self, name: &str) {
        let mut strays = self.strays.lock().unwrap_or_else(PoisonError::into_inner);
        if strays.len() < 20 {
            strays.insert(name.to_owned());
        }
    }

    fn strays(&self) -> Vec<String> {
        let strays = self.strays.lock().unwrap_or_else(PoisonError::into_inner);
        strays.iter().cloned().collect()
    }

    /// Counts a lie if it was told.
    fn told(&self, was_told: bool) {
        self.lies.fetch_add(was_told.into(), Ordering::Relaxed);
    }

    fn lies(&self) -> u64 {
        self.lies.load(Ordering::Relaxed)
    }
}

/// Runs it all in a lab of its own.
pub fn run(options: Options) -> Result<Report> {
    let say = |line: &str| match options.json {
        true => eprintln!("{line}"),
        false => println!("{line}"),
    };
    let lab = Lab::for_test()?;
    let internet = Internet::start(&lab)?;
    let programs = Programs::of_this_build()?;
    let mut dice = Dice::new(options.seed);
    let part = |all: u64, share: f64| (all as f64 * share) as u64;
    let part =
        |[packets, lies]: [f64; 2]| (part(options.packets, packets), part(options.lies, lies));
    let recursing = part(RECURSING);
    let forwarding = options.forwarding.then(|| part(FORWARDING));
    let (packets, lies) = forwarding.unwrap_or_default();
    let rest = (
        options.packets - recursing.0 - packets,
        options.lies - recursing.1 - lies,
    );
    let office = Office::init(&lab, &programs)?;
    let provisioning = office.start()?;
    let pop = Pop::install(&lab, &programs, &office, &internet.zones)?;
    let mut found = vec![gateway(
        &lab,
        &pop,
        Role::NameServer,
        recursing,
        &mut dice,
        &say,
    )?];
    if let Some(amounts) = forwarding {
        pop.edit_config(forwarding_to_the_liar)?;
        let role = Role::Forwarder;
        found.push(gateway(&lab, &pop, role, amounts, &mut dice, &say)?);
    }
    drop(provisioning);
    found.push(stub(&lab, &programs, rest, &mut dice, &say)?);
    drop(internet);
    lab.remove().context("removing the lab")?;
    Report::of(options, found)
}

/// The configuration of a gateway that believes one resolver.
fn forwarding_to_the_liar(text: String) -> String {
    let kept = text
        .lines()
        .filter(|line| !line.starts_with("roots = ") && !line.starts_with("trust-anchor-file = "));
    let forward = format!("mode = \"forward\"\nforward = [\"{LIAR}:53\"]");
    let text = kept.collect::<Vec<_>>().join("\n") + "\n";
    text.replace("mode = \"recurse\"", &forward)
        .replace("dnssec = true", "dnssec = false")
}

/// The gateway: it recurses, and a liar answers for two zones, or it forwards to the liar.
fn gateway(
    lab: &Lab,
    pop: &Pop,
    role: Role,
    (packets, lies): (u64, u64),
    dice: &mut Dice,
    say: &dyn Fn(&str),
) -> Result<Found> {
    let figures = Arc::default();
    let _liar = Liar::start(&lab.internet, role, &figures, dice)?;
    let mut gateway = pop.start()?;
    let stamp: DnsCryptStamp = pop.stamp.parse().context("reading the gateway's stamp")?;
    let asked = |len, policy| certificate(&lab.pop, &stamp, len, policy);
    let classical = asked(PLAIN, Policy::CLASSICAL)?.context("no classical certificate")?;
    let post_quantum = asked(PADDED, POST_QUANTUM)?.context("no post-quantum certificate")?;
    let certs = [&classical, &post_quantum];
    let forge = |dice: &mut Dice| {
        let resumed = with_ticket(&lab.pop, stamp.addr, &post_quantum)?;
        Forge::new(&stamp, certs, resumed, Dice::new(dice.roll(1 << 60)))
    };
    let (mut udp, mut tcp) = (forge(dice)?, forge(dice)?);
    // Nobody's questions take the places of another home's.
    for own in HOMES {
        let own = format!("{own}/32");
        lab.pop
            .run(&["ip", "address", "replace", &own, "dev", "lo"])?;
    }
    let [provoker, checker] = HOMES.map(|own| {
        let own = own.parse().context("an address")?;
        Asker::sealed(&lab.pop, (own, stamp.addr), &classical)
    });
    Phase {
        who: match role {
            Role::NameServer => "gateway",
            Role::Forwarder => "gateway that forwards",
        },
        target: Target {
            netns: &lab.pop,
            address: stamp.addr,
            pid: gateway.pid(),
        },
        packets,
        lies,
        window: WINDOW_OF_GATEWAY,
        may_miss: 0.02,
        bounds: BOUNDS_OF_GATEWAY,
        figures,
    }
    .run(
        &mut gateway,
        (&mut || udp.packet(), &mut || tcp.packet()),
        (provoker?, &mut |dice| lied_about(role, dice)),
        (checker?, &mut |dice| known(role, dice)),
        (dice, say),
    )
}

fn lied_about(role: Role, dice: &mut Dice) -> (String, Truth) {
    let evil = format!("r{}.{EVIL_ZONE}", dice.roll(1 << 40));
    match role {
        Role::Forwarder => (evil, Truth::Whatever),
        Role::NameServer if dice.happens(0.6) => (evil, Truth::Anything),
        Role::NameServer => {
            let name = format!("n{}.{SEALED_ZONE}", dice.roll(400));
            (name, Truth::KnownOrNothing)
        }
    }
}

fn known(role: Role, dice: &mut Dice) -> (String, Truth) {
    let n = dice.roll(400);
    match dice.roll(8) {
        0 if role == Role::NameServer => (BOGUS_NAME.to_owned(), Truth::Nothing),
        1 => ("www.plain".to_owned(), Truth::Known),
        2 => (PAGE_NAME.to_owned(), Truth::Known),
        3 => (format!("n{n}.{MANY_NAMES}"), Truth::Known),
        _ => (format!("n{n}.{MANY_UNSIGNED_NAMES}"), Truth::Known),
    }
}

/// The stub on a machine without an agent, in front of a resolver that lies.
fn stub(
    lab: &Lab,
    programs: &Programs,
    (packets, lies): (u64, u64),
    dice: &mut Dice,
    say: &dyn Fn(&str),
) -> Result<Found> {
    let figures = Arc::default();
    let netns = &lab.access;
    let listen = "127.0.0.1:4434".parse().context("an address")?;
    let resolver = LyingResolver::start(netns, listen, &figures, dice)?;
    let mut stub = DnscryptStub::start(lab, netns, programs, &resolver.stamp)?;
    let address: SocketAddr = DnscryptStub::LISTEN.parse().context("an address")?;
    let target = Target {
        netns,
        address,
        pid: stub.pid(),
    };
    let mut spoiled = [0, 0].map(|_: u8| Dice::new(dice.roll(1 << 60)));
    let [udp, tcp] = &mut spoiled;
    let asker = |own: &str| {
        let own = own.parse().context("an address")?;
        Asker::plain(netns, (own, address))
    };
    Phase {
        who: "stub",
        target,
        packets,
        lies,
        window: WINDOW_OF_STUB,
        // Its resolver forgets all keys every ten seconds.
        may_miss: 0.1,
        bounds: BOUNDS_OF_STUB,
        figures,
    }
    .run(
        stub.process(),
        (&mut || question(udp), &mut || question(tcp)),
        (asker(DEVICES[0])?, &mut |dice| {
            let name = format!("r{}.{EVIL_ZONE}", dice.roll(1 << 40));
            (name, Truth::Whatever)
        }),
        (asker(DEVICES[1])?, &mut |dice| {
            let name = format!("n{}.{CANARY_ZONE}", dice.roll(400));
            (name, Truth::Known)
        }),
        (dice, say),
    )
}

/// A home's question, mostly spoiled.
fn question(dice: &mut Dice) -> Result<Vec<u8>> {
    let mut message = spoil::query(dice)?;
    if dice.happens(0.9) {
        spoil::message(&mut message, dice);
    }
    Ok(message)
}

/// A session with a ticket.
fn with_ticket(netns: &Netns, server: SocketAddr, cert: &Certificate) -> Result<PqSession> {
    let session = session_with_ticket(cert, |packet, is_it| {
        let socket = netns.enter(|| UdpSocket::bind("0.0.0.0:0").context("binding UDP"))?;
        socket
            .set_read_timeout(Some(PATIENCE))
            .context("bounding a wait")?;
        socket.send_to(packet, server).context("asking")?;
        let mut answer = vec![0; 4_096];
        let len = socket.recv(&mut answer).context("waiting for a ticket")?;
        answer.truncate(len);
        ensure!(is_it(&answer), "another answer came");
        Ok(answer)
    });
    session?.context("no ticket came")
}
