//! The running stub's side: whoever connects gets one line of JSON. Figures of lookups, and never a name.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;
use tokio::time::timeout;

use crate::cli::exit::{Failure, IO};
use crate::proto::cert::System;
use crate::proto::dropped::Counted;
use crate::stub::Stub;
use crate::upstream::Health;

/// The line fits a socket's buffer, so that nobody who connects can keep others waiting for long.
const PATIENCE: Duration = Duration::from_secs(1);
/// After a failed accept, so that a broken listener does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Its owner and root may ask.
const MODE: u32 = 0o600;

/// The socket that the status is told on; removed at the end.
pub(in crate::cli) struct Page {
    path: PathBuf,
    listener: UnixListener,
    opened: Instant,
}

impl Page {
    /// Binds the socket, in the place of one that a killed program left, and never of one that is alive.
    pub(in crate::cli) fn open(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let refused = |error: io::Error| Failure::io(&format!("status-socket {shown}"), &error);
        // A connection is refused by what is no socket, too, and that is somebody's file.
        if std::fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
            let message = format!(
                "status-socket {shown}: what is there is no socket: remove it, or choose another path"
            );
            return Err(Failure::new(IO, message));
        }
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(_alive) => {
                let message = format!(
                    "status-socket {shown}: another program tells its status there: stop it, or choose another path"
                );
                return Err(Failure::new(IO, message));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(refused)?;
            }
            // What is wrong with the path is said when it is bound.
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(refused)?;
        let page = Self {
            path: path.to_owned(),
            listener,
            opened: Instant::now(),
        };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(MODE)).map_err(refused)?;
        Ok(page)
    }

    /// Tells everybody who connects, for ever.
    pub(in crate::cli) async fn tell(&self, stub: &Stub, cache_bytes: usize) {
        loop {
            let Ok((mut stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let status = status(stub, cache_bytes, self.opened.elapsed());
            let line = format!("{status}\n");
            // Whoever went away did not want it.
            let _gone = timeout(PATIENCE, stream.write_all(line.as_bytes())).await;
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // What does not go is replaced at the next start.
        let _left = std::fs::remove_file(&self.path);
    }
}

fn status(stub: &Stub, cache_bytes: usize, uptime: Duration) -> Value {
    let (figures, counters) = (stub.figures(), stub.counters());
    let resolvers: Vec<_> = stub.upstream().health().iter().map(resolver).collect();
    let dropped = counters.all_dropped();
    let dropped: serde_json::Map<_, _> = dropped
        .map(|(reason, times)| (reason.as_label().to_owned(), times.into()))
        .collect();
    let upstream_ms = (figures.upstream_us > 0).then_some(figures.upstream_us as f64 / 1e3);
    json!({
        "version": env!("CARGO_PKG_VERSION"), "uptime_s": uptime.as_secs(),
        "queries": figures.queries, "tcp_queries": counters.get(Counted::TcpQuery),
        "cache_hits": figures.cache_hits, "stale": figures.stale, "coalesced": figures.coalesced,
        "asked": figures.asked, "forwarded": figures.forwarded, "prefetched": figures.prefetched, "failed": figures.failed, "truncated": counters.get(Counted::Truncated),
        "own": figures.policy.own, "blocked": figures.policy.blocked, "rebinding": figures.policy.rebinding,
        "upstream_ms": upstream_ms, "resolvers": resolvers,
        "cache": {"answers": figures.cached, "bytes": figures.cached_bytes, "max_bytes": cache_bytes},
        "dropped": dropped,
    })
}

fn resolver(health: &Health) -> Value {
    let certificate = health.certificate.as_ref().map(|certificate| {
        json!({
            "serial": certificate.serial, "end": certificate.end,
            "post_quantum": certificate.system == System::XWing,
        })
    });
    let rtt_ms = health.rtt.map(|rtt| rtt.as_secs_f64() * 1e3);
    json!({
        "rtt_ms": rtt_ms, "address": health.stamp.addr.to_string(), "provider": health.stamp.provider_name,
        "certificate": certificate, "failures": health.failures, "last_error": health.last_error,
    })
}
