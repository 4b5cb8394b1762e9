//! Encrypted lookups. First our gateway's DNSCrypt server beside those of other hands, then our stub beside dnscrypt-proxy
//! and beside resolvers that encrypt nothing. Who is measured has one processor, the load and all upstream another.

use std::time::Duration;

use anyhow::{Context, Result};

mod edge;
mod stub;

mod servers;
mod stubs;

mod answerer;
mod echo;
mod load;
mod questions;
mod strangers;

mod processor;
mod table;

use super::report::{Row, machine};
use super::{Found, Options, plot};
use crate::internet::Internet;
use crate::peers::Peers;
use crate::programs::Programs;
use crate::topology::Lab;
use answerer::Answerer;
use load::Load;
use processor::REST;
use questions::{Names, Questions};
use servers::{Server, Site};
use stubs::Bench;
use table::Table;

/// More than the load and the resolver behind the stubs exchange.
const UPSTREAM_PER_S: f64 = 150_000.0;

/// How long each part takes.
#[derive(Debug, Clone, Copy)]
struct Pace {
    trial: Duration,
    steady: Duration,
}

impl Pace {
    fn of(options: Options) -> Self {
        let [trial, steady] = if options.quick {
            [400, 600]
        } else {
            [1_500, 3_000]
        };
        Self {
            trial: Duration::from_millis(trial),
            steady: Duration::from_millis(steady),
        }
    }

    fn of_a_trial(self, per_s: f64) -> usize {
        (per_s * self.trial.as_secs_f64()) as usize
    }
}

pub(super) fn run(options: Options, say: &dyn Fn(&str)) -> Result<Found> {
    let peers = Peers::of_this_build()?;
    peers.prepare_dns(say)?;
    say("building a lab with three DNSCrypt servers");
    let lab = Lab::for_test()?;
    let programs = Programs::of_this_build()?;
    let [edge, stub] = processor::on(REST, || both(&lab, &programs, &peers, (options, say)))?;
    lab.remove().context("removing the bench's lab")?;
    let panels: Vec<_> = edge.panels.into_iter().chain(stub.panels).collect();
    let title = "Encrypted lookups, each program on one processor";
    let drawn = plot::svg(title, &machine()?, &panels)?;
    let path = programs.target().join("bench-dns.svg");
    std::fs::write(&path, drawn).with_context(|| format!("writing {}", path.display()))?;
    let notes = [
        "each program on one processor, the load and all that is asked upstream on another",
        "lookups over UDP are 256 bytes or more on the wire, answers are opened for one in 64",
        "rows of the servers that name nobody compare with encrypted-dns",
        "garbage: 20,000 packets a second with the classical magic and 4,000 with the post-quantum one, beside 1,000 lookups of one router",
    ];
    let notes = notes.map(str::to_owned).into_iter();
    Ok(Found {
        rows: edge.rows.into_iter().chain(stub.rows).collect(),
        notes: notes.chain(edge.notes).chain(stub.notes).collect(),
        svg: Some(path.display().to_string()),
    })
}

fn both(
    lab: &Lab,
    programs: &Programs,
    peers: &Peers,
    (options, say): (Options, &dyn Fn(&str)),
) -> Result<[Table; 2]> {
    let internet = Internet::start(lab)?;
    let pace = Pace::of(options);
    let edge = {
        let site = Site::set(lab, programs, &internet)?;
        let mut servers = vec![site.ours(lab)?];
        servers.extend(Server::theirs(lab, peers)?);
        edge::measure(&servers, options.rounds, pace, say)?
    };
    say("the stubs, in front of one resolver that is never the limit");
    let listen = "127.0.0.1:4433".parse()?;
    let answerer = Answerer::start(&lab.internet, listen)?;
    let names = Names::New { run: usize::MAX };
    let names = Questions::sealed(&answerer.cert, names, pace.of_a_trial(UPSTREAM_PER_S))?;
    let alone = Load::new(&lab.internet, listen)?.saturate(&names, pace.trial)?;
    drop(names);
    let bench = Bench {
        lab,
        programs,
        peers,
        stamp: &answerer.stamp,
    };
    let mut stub = stub::measure(&bench, options.rounds, pace, say)?;
    answerer.end()?;
    let row = Row::figure("stub upstream without a stub", "lookups/s", &[alone])?;
    stub.rows.push(row);
    Ok([edge, stub])
}
