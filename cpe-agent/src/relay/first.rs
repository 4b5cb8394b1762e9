//! Several tries at one thing, of which the first to succeed counts.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
#[cfg(feature = "quic")]
use tokio::time::timeout;

use super::{Job, RelayError};

/// The next of a relay's addresses is tried when the one before it has been silent for so long (RFC 8305 section 5).
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// What the first try brings, or else the second, which begins when the first has failed or had its head start. The one that fails
/// does not end the other.
#[cfg(feature = "quic")]
pub(super) async fn of<T, E>(
    first: impl Future<Output = Result<T, E>>,
    head_start: Duration,
    second: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let (mut first, mut second) = (std::pin::pin!(first), std::pin::pin!(second));
    match timeout(head_start, &mut first).await {
        Ok(Ok(opened)) => return Ok(opened),
        Ok(Err(_)) => return second.await,
        Err(_) => {}
    }
    tokio::select! {
        opened = &mut first => match opened {
            Ok(opened) => Ok(opened),
            Err(_) => second.await,
        },
        opened = &mut second => match opened {
            Ok(opened) => Ok(opened),
            Err(_) => first.await,
        },
    }
}

/// Tries the relay's addresses, each a moment after the one before it or when that has failed; the first to open counts.
pub(super) async fn address<C, F>(
    job: &Job,
    open_at: impl Fn(Job, SocketAddr) -> F,
) -> Result<C, RelayError>
where
    C: Send + 'static,
    F: Future<Output = Result<C, RelayError>> + Send + 'static,
{
    let mut tries = JoinSet::new();
    let mut addresses = job.record.endpoints.iter();
    let mut error = RelayError::Setup;
    loop {
        let next = addresses.next();
        if let Some(address) = next {
            tries.spawn(open_at(job.clone(), *address));
        }
        let has_more = addresses.len() > 0;
        tokio::select! {
            ended = tries.join_next() => match ended {
                Some(Ok(Ok(connection))) => return Ok(connection),
                Some(Ok(Err(failed))) => error = failed,
                Some(Err(_)) => error = RelayError::Closed,
                None if !has_more => return Err(error),
                None => {}
            },
            () = tokio::time::sleep(NEXT_ADDRESS), if has_more => {}
        }
    }
}

#[cfg(feature = "quic")]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_try_that_fails_ends_no_other_and_neither_begins_twice() {
        let after = |ms: u64, result: Result<u8, &'static str>| async move {
            // The clock advances by itself while everybody waits.
            let _never = timeout(Duration::from_millis(ms), std::future::pending::<()>()).await;
            result
        };
        let head = Duration::from_millis(100);
        let cases = [
            ((1, Err("refused")), (5, Ok(2)), Ok(2)),
            ((200, Err("reset")), (300, Ok(2)), Ok(2)),
            ((300, Ok(1)), (50, Err("refused")), Ok(1)),
            ((300, Ok(1)), (50, Ok(2)), Ok(2)),
            ((50, Ok(1)), (0, Ok(2)), Ok(1)),
            ((1, Err("refused")), (1, Err("closed")), Err("closed")),
            ((500, Err("late")), (1, Err("closed")), Err("late")),
        ];
        for (first, second, expected) in cases {
            let both = of(after(first.0, first.1), head, after(second.0, second.1));
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let result = runtime.block_on(both);
            assert_eq!(result, expected, "{first:?} {second:?}");
        }
    }
}
