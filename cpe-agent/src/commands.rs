//! The commands that a person types beside the running agent: `enrol`, `status`, `check-config`, `reset`.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde_json::{Value, json};
use telemetry::watch::{self, Meter};
use trust::ClaimCode;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::{self, Config, KillSwitch, LoadError, Mistakes};
use crate::exit::{Exit, Failure, OrExit};
use crate::state::{Record, StateDir};
use crate::status::render::{self, Source};
use crate::status::{ask, last_words_path};
use crate::{cli, net, run};

/// No claim code is near this size.
const MAX_CODE_BYTES: u64 = 256;
/// Last words are about a kilobyte.
const MAX_LAST_WORDS_BYTES: u64 = 64 * 1024;
/// The agent counts its rates over a second.
const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// Hands the code to the running agent, or enrols at once when none is running.
pub(crate) fn enrol(arguments: &cli::Enrol) -> Result<(), Failure> {
    let config = config::load(&arguments.at.config)?;
    let code = read_code(arguments)?;
    let talk = Talk {
        json: arguments.json,
    };
    let conversation = asked(ask::enrol(&config.status_socket, &code))?;
    let Some(mut conversation) = conversation else {
        talk.progress("no agent is running: enrolling at once");
        return run::enrol_once(&config, code, &talk);
    };
    drop(code);
    while let Some(line) = asked(conversation.next())? {
        let sentence = |key: &str| {
            line.get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        match line.get("ok").and_then(Value::as_bool) {
            None => talk.progress(&sentence("progress")),
            Some(true) => {
                talk.done(&sentence("message"));
                return Ok(());
            }
            Some(false) => return Err(talk.refused(Exit::Unavailable, &sentence("message"))),
        }
    }
    Err(Failure::new(
        Exit::Failed,
        "the agent stopped before the enrolment ended; it goes on when it is started",
    ))
}

fn asked<T>(result: io::Result<T>) -> Result<T, Failure> {
    let exit = match &result {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Exit::Permission,
        Ok(_) | Err(_) => Exit::Io,
    };
    result.or_exit(exit, "talking to the running agent over its status socket")
}

/// How `enrol` speaks: people read stderr and the last line, programs read stdout.
pub(crate) struct Talk {
    json: bool,
}

impl Talk {
    pub(crate) fn progress(&self, sentence: &str) {
        if self.json {
            say(&json!({ "progress": sentence }).to_string());
        } else {
            eprintln!("{sentence}");
        }
    }

    pub(crate) fn done(&self, sentence: &str) {
        if self.json {
            say(&json!({ "ok": true, "message": sentence }).to_string());
        } else {
            say(sentence);
        }
    }

    pub(crate) fn refused(&self, exit: Exit, sentence: &str) -> Failure {
        if self.json {
            say(&json!({ "ok": false, "message": sentence }).to_string());
        }
        Failure::new(exit, sentence)
    }
}

/// Shows the status of the running agent, or what is known of one that is not running.
pub(crate) fn status(arguments: &cli::Status) -> Result<(), Failure> {
    let config = config::load(&arguments.at.config)?;
    let mut meters = [Meter::new("in"), Meter::new("out")];
    loop {
        let (status, source) = current(&config)?;
        let now = Clock::with_floor(0).now();
        let text = match (arguments.json, arguments.watch) {
            (true, _) => status.to_string(),
            (false, false) => render::text(&status, source, now),
            (false, true) => watched(&mut meters, &status, source, now),
        };
        // A closed pipe is the reader's wish.
        let is_read = writeln!(io::stdout(), "{}", text.trim_end()).is_ok();
        match source {
            _ if arguments.watch && is_read => std::thread::sleep(WATCH_PERIOD),
            Source::Agent => return Ok(()),
            Source::LastWords => {
                return Err(Failure::new(Exit::Unavailable, "the agent is not running"));
            }
        }
    }
}

/// The status of the running agent, or what is known of one that is not.
fn current(config: &Config) -> Result<(Value, Source), Failure> {
    let answer = match asked(ask::status(&config.status_socket))? {
        Some(mut conversation) => asked(conversation.next())?,
        None => None,
    };
    Ok(match answer {
        Some(status) => (status, Source::Agent),
        None => (without_agent(config), Source::LastWords),
    })
}

/// The status with the rates below it, in the place of the one before.
fn watched(meters: &mut [Meter; 2], status: &Value, source: Source, now: u64) -> String {
    let mut text = format!("{}{}", watch::CLEAR, render::text(status, source, now));
    for (meter, key) in meters.iter_mut().zip(["rx_bits_per_s", "tx_bits_per_s"]) {
        let rate = status.get("tunnel").and_then(|tunnel| tunnel.get(key));
        meter.push(match source {
            Source::Agent => rate.and_then(Value::as_u64).unwrap_or(0),
            Source::LastWords => 0,
        });
        text.push_str(&meter.line());
        text.push('\n');
    }
    text
}

/// What an agent that is not running left: its last words, made to say that it is not running.
fn without_agent(config: &Config) -> Value {
    let last = std::fs::File::open(last_words_path(config)).and_then(|file| {
        let mut text = String::new();
        file.take(MAX_LAST_WORDS_BYTES).read_to_string(&mut text)?;
        Ok(text)
    });
    let mut status = last
        .ok()
        .and_then(|text| serde_json::from_str::<Value>(&text).ok())
        .filter(Value::is_object)
        .unwrap_or_else(|| json!({ "reason": "it has not run since the router started" }));
    let state = match status.get("state").and_then(Value::as_str) {
        // What it was while it ran is no more; only how it ended stays true.
        Some(ended @ ("error" | "revoked" | "stopped")) => ended.to_owned(),
        Some(_) => {
            status["reason"] = json!("the agent ended without a word: it was killed or crashed");
            "stopped".to_owned()
        }
        None => "stopped".to_owned(),
    };
    status["state"] = json!(state);
    status["running"] = json!(false);
    status["kill_switch"] = json!(config.kill_switch == KillSwitch::On);
    status
}

/// Opens or shuts the captive-portal window of the running agent.
pub(crate) fn portal(verb: &cli::Portal) -> Result<(), Failure> {
    let with = match verb {
        cli::Portal::Open(open) => &open.with,
        cli::Portal::Close(close) => close,
    };
    let socket = config::load(&with.at.config)?.status_socket;
    let conversation = asked(match verb {
        cli::Portal::Open(open) => ask::open_portal(&socket, open.device, open.minutes),
        cli::Portal::Close(_) => ask::close_portal(&socket),
    })?;
    let talk = Talk { json: with.json };
    let answer = match conversation {
        Some(mut conversation) => asked(conversation.next())?,
        None => None,
    };
    let Some(answer) = answer else {
        return Err(talk.refused(Exit::Unavailable, "the agent is not running"));
    };
    let message = answer.get("message").and_then(Value::as_str);
    let message = message.unwrap_or_default();
    if answer.get("ok").and_then(Value::as_bool) == Some(true) {
        talk.done(message);
        Ok(())
    } else {
        Err(talk.refused(Exit::Failed, message))
    }
}

/// Sets the rules that keep packets in; a running agent has set its own, which hold as well.
pub(crate) fn lock(arguments: &cli::Json) -> Result<(), Failure> {
    let config = config::load(&arguments.at.config)?;
    let talk = Talk {
        json: arguments.json,
    };
    if config.kill_switch == KillSwitch::Off {
        talk.done("the kill-switch is off in the configuration: nothing is locked");
        return Ok(());
    }
    if asked(ask::status(&config.status_socket))?.is_some() {
        talk.done("the agent is running: locked already");
        return Ok(());
    }
    net::lock(&config).map_err(run::network_failure)?;
    talk.done("locked");
    Ok(())
}

/// Prints the rules.
pub(crate) fn ruleset(arguments: &cli::AtConfig) -> Result<(), Failure> {
    let config = config::load(&arguments.config)?;
    say(net::locked(&config).trim_end());
    Ok(())
}

/// Says what is wrong with a configuration file.
pub(crate) fn check_config(arguments: &cli::CheckConfig) -> Result<(), Failure> {
    let result = config::load(&arguments.file);
    if arguments.json {
        say(&match &result {
            Ok(_) => json!({ "ok": true }).to_string(),
            Err(LoadError::Unreadable(sentence)) => {
                json!({ "ok": false, "message": sentence }).to_string()
            }
            Err(LoadError::Wrong(_, Mistakes(mistakes))) => {
                json!({ "ok": false, "mistakes": mistakes }).to_string()
            }
        });
    } else if result.is_ok() {
        say(&format!("{}: ok", arguments.file.display()));
    }
    Ok(result.map(drop)?)
}

/// Back to how the router left the factory; the provider still knows the device unless its identity goes too.
pub(crate) fn reset(arguments: &cli::Reset) -> Result<(), Failure> {
    let config = config::load(&arguments.at.config)?;
    let state_dir = StateDir::open(&config.state_dir).map_err(run::lock_failure)?;
    let mut records = vec![Record::Lease, Record::Keys, Record::Psks, Record::Claim];
    if arguments.forget_identity {
        // Another owner may have another provider, whose log is another one.
        records.extend([Record::Stored, Record::Identity]);
    }
    for record in records {
        state_dir.remove(record).map_err(run::state_failure)?;
    }
    // Without the rights there is nothing of ours in the network either.
    if netio::privileges::is_root() {
        net::remove_all().or_exit(Exit::Failed, "removing the kill-switch")?;
    }
    let _ = std::fs::remove_file(last_words_path(&config));
    let what = if arguments.forget_identity {
        "identity, lease and keys are forgotten"
    } else {
        "lease and keys are forgotten"
    };
    if arguments.json {
        say(&json!({ "ok": true, "identity_kept": !arguments.forget_identity }).to_string());
    } else {
        say(what);
    }
    Ok(())
}

fn read_code(arguments: &cli::Enrol) -> Result<ClaimCode, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_CODE_BYTES as usize + 1));
    match (&arguments.code, &arguments.claim_file) {
        (Some(code), _) if code != "-" => text.push_str(code),
        (_, Some(path)) => {
            let doing = || format!("reading the claim code from {}", path.display());
            let file = std::fs::File::open(path).or_exit(Exit::Io, doing())?;
            file.take(MAX_CODE_BYTES)
                .read_to_string(&mut text)
                .or_exit(Exit::Io, doing())?;
        }
        (_, None) => {
            io::stdin()
                .take(MAX_CODE_BYTES)
                .read_to_string(&mut text)
                .or_exit(Exit::Io, "reading the claim code")?;
        }
    }
    text.trim()
        .parse()
        .or_exit(Exit::Usage, "the claim code is not accepted")
}

/// Prints data. A closed pipe is the reader's wish.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}
