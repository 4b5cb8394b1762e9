//! `witness init` and `witness serve`: for those outside who see to it that a log has one history.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Output, answers, level, server};
use crate::witness::book::Book;
use crate::witness::{Witness as Server, openapi_json};

const INIT_HELP: &str = "\
Prints the verifier key that the log's provider puts into its trust file, with the URL at which the witness will be asked. Put the
keys of the logs, one in each line, into the file `logs` of the folder; then `witness serve`.";

const SERVE_HELP: &str = "\
It answers POST /add-checkpoint (https://c2sp.org/tlog-witness) over HTTP: all of it is public and signed. For https put a proxy before
it. What it has cosigned last of each log is on disk before it answers; never restore that from a copy: a witness that has forgotten a head
can be led to cosign another history. Begin anew with a new key instead.";

/// Sees to it that logs have one history.
#[derive(Debug, Subcommand)]
pub(super) enum Witness {
    /// Makes a witness: a key in a folder.
    #[command(after_help = INIT_HELP)]
    Init(Init),
    /// Cosigns what continues, and nothing else.
    #[command(after_help = SERVE_HELP)]
    Serve(Serve),
    /// Says whose it is, which logs it knows, and what it cosigned last.
    Status {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        output: Output,
    },
    /// Prints the OpenAPI document of what it answers.
    Openapi,
}

#[derive(Debug, Args)]
pub(super) struct Place {
    /// The witness' folder.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/culvert-witness")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct Init {
    #[command(flatten)]
    place: Place,
    /// What its cosignatures are named after, such as ngo.example/w1: neither spaces nor a plus sign.
    #[arg(long)]
    name: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    place: Place,
    /// Where logs ask.
    #[arg(long, value_name = "IP:PORT", required = true, value_delimiter = ',')]
    listen: Vec<SocketAddr>,
    /// Plain HTTP for Prometheus; loopback or a management address.
    #[arg(long, value_name = "IP:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = level)]
    log_level: telemetry::Level,
}

/// Carries out a command.
pub(super) fn execute(command: Witness) -> anyhow::Result<()> {
    match command {
        Witness::Init(init) => initialise(&init),
        Witness::Serve(serve) => run(&serve),
        Witness::Status { place, output } => status(&place, &output),
        Witness::Openapi => answers::say(&openapi_json()?),
    }
}

fn initialise(init: &Init) -> anyhow::Result<()> {
    let vkey = Book::create(&init.place.dir, &init.name)?;
    let logs = init.place.dir.join("logs").display().to_string();
    if init.output.json {
        return answers::say_json(&json!({ "vkey": vkey.to_string(), "logs": logs }));
    }
    answers::say(&vkey.to_string())?;
    answers::talk(&format!(
        "This is the witness' verifier key: the log's provider needs it, and its URL. Put the keys of the logs into {logs}."
    ));
    Ok(())
}

fn run(serve: &Serve) -> anyhow::Result<()> {
    telemetry::init(telemetry::Format::detect(), serve.log_level);
    let book = Book::open(&serve.place.dir)?;
    if book.logs().is_empty() {
        tracing::warn!(
            "no log is known: put verifier keys into {}",
            serve.place.dir.join("logs").display()
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let asked = server::asked_to_stop()?;
        tracing::info!("the witness {}", book.vkey());
        let witness = Server::start(book, &serve.listen, serve.metrics_listen).await?;
        for address in witness.local_addrs()? {
            tracing::info!(%address, "listening");
        }
        witness.run(asked).await;
        Ok(())
    })
}

fn status(place: &Place, output: &Output) -> anyhow::Result<()> {
    let (vkey, heads) = Book::read(&place.dir)?;
    if output.json {
        let logs = heads.iter().map(|(log, head)| {
            let head = head.as_ref().map(|head| head.checkpoint());
            json!({ "vkey": log.to_string(), "origin": log.name, "size": head.map(|head| head.size) })
        });
        let logs: Vec<_> = logs.collect();
        return answers::say_json(&json!({ "vkey": vkey.to_string(), "logs": logs }));
    }
    let line = |(log, head): &(trust::Vkey, Option<trust::SignedCheckpoint>)| match head {
        Some(head) => format!("{}: {} entries", log.name, head.checkpoint().size),
        None => format!("{}: nothing cosigned yet", log.name),
    };
    let lines: Vec<String> = heads.iter().map(line).collect();
    answers::say(&format!("{vkey}\n{}", lines.join("\n")))
}
