//! `serve` and `check-config`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{Output, answers};
use crate::config::{Config, ConfigErrors};
use crate::serve::Server;

/// Runs the server until SIGTERM or SIGINT.
pub(super) fn serve(
    file: &Path,
    data_dir: Option<PathBuf>,
    level: telemetry::Level,
) -> anyhow::Result<()> {
    let mut config = Config::load(file)?;
    if let Some(data_dir) = data_dir {
        config.data_dir = data_dir;
    }
    telemetry::init(telemetry::Format::detect(), level);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let asked = asked_to_stop()?;
        let server = Server::start(&config).await?;
        for address in server.local_addrs()? {
            tracing::info!(%address, "listening");
        }
        server.run(asked).await;
        Ok(())
    })
}

/// Ready when a signal says so; the handlers are there at once.
pub(super) fn asked_to_stop() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                _ = hangup.recv() => tracing::info!(
                    "hangup: nothing is read anew; restart for another configuration"
                ),
            }
        }
    })
}

/// Reports every mistake in a configuration.
pub(super) fn check_config(file: &Path, output: &Output) -> anyhow::Result<()> {
    match Config::load(file) {
        Ok(_) if output.json => answers::say_json(&json!({ "ok": true, "mistakes": [] })),
        Ok(_) => answers::say(&format!("{} is in order", file.display())),
        Err(error) if output.json && error.is::<ConfigErrors>() => {
            let mistakes = error
                .downcast::<ConfigErrors>()
                .context("the configuration")?;
            let lines: Vec<String> = mistakes.to_string().lines().map(str::to_owned).collect();
            answers::say_json(&json!({ "ok": false, "mistakes": lines }))?;
            Err(mistakes.into())
        }
        Err(error) => Err(error),
    }
}
