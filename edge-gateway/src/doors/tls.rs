//! DNS over TLS (RFC 7858): messages behind their lengths, several on their way at once and answered as they are ready
//! (RFC 7766, section 6.2.1.1).

use std::net::SocketAddr;
use std::sync::Arc;

use dnscrypt_proxy::listen::{read_frame, write_frame};
use dnscrypt_proxy::proto::MAX_QUERY;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::front::{Door, Front};
use super::{AT_ONCE, EXCHANGE, EXCHANGES, IDLE};
use crate::places::Counted;

/// Length and message come in one record; longer ones are read in parts.
const BUFFER_BYTES: usize = 600;

/// Why a connection ended before its other end closed it. Nobody is told.
struct Ended;

pub(super) async fn converse(stream: TlsStream<TcpStream>, from: SocketAddr, front: Arc<Front>) {
    let figures = Arc::clone(&front.figures);
    let _open = Counted::new(figures.open_at(Door::Tls));
    let (reader, mut writer) = tokio::io::split(stream);
    // What is ready waits in its own task, of which there are so many.
    let (answers, answered) = mpsc::channel(1);
    let ended = tokio::try_join!(
        listen(reader, from, &front, answers),
        speak(&mut writer, answered)
    );
    if ended.is_ok() {
        // The other end may be gone already.
        let _told = timeout(EXCHANGE, writer.shutdown()).await;
    }
}

/// Reads questions until the other end has no more, and sees that all of them are answered.
async fn listen(
    reader: impl AsyncRead + Unpin,
    from: SocketAddr,
    front: &Arc<Front>,
    answers: mpsc::Sender<Result<Vec<u8>, Ended>>,
) -> Result<(), Ended> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, reader);
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut asking = JoinSet::new();
    for _ in 0..EXCHANGES {
        let place = Arc::clone(&places).acquire_owned().await;
        while asking.try_join_next().is_some() {}
        // A broken connection is found by reading on.
        let _begun = timeout(IDLE, reader.fill_buf()).await.map_err(|_| Ended)?;
        let read = timeout(EXCHANGE, read_frame(&mut reader, MAX_QUERY)).await;
        let Ok(Some(message)) = read.map_err(|_| Ended)? else {
            break;
        };
        let (front, answers) = (Arc::clone(front), answers.clone());
        asking.spawn(async move {
            let answer = front.ask(&message, from.ip(), Door::Tls).await;
            let answer = answer.map(|answer| answer.message).map_err(|_| Ended);
            // Without the other half the connection has ended.
            let _gone = answers.send(answer).await;
            drop(place);
        });
    }
    while asking.join_next().await.is_some() {}
    Ok(())
}

/// Writes answers as they are ready, until there will be no more, or one is refused.
async fn speak(
    mut writer: impl AsyncWrite + Unpin,
    mut answered: mpsc::Receiver<Result<Vec<u8>, Ended>>,
) -> Result<(), Ended> {
    while let Some(answer) = answered.recv().await {
        let answer = answer?;
        let writing = async {
            write_frame(&mut writer, &answer).await.map_err(|_| Ended)?;
            writer.flush().await.map_err(|_| Ended)
        };
        timeout(EXCHANGE, writing).await.map_err(|_| Ended)??;
    }
    Ok(())
}
