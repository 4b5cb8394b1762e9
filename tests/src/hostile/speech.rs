//! How liars say what they say: lies first, the truth behind them, over UDP each in a datagram. What was said is counted here.

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Figures;

/// Between two looks at whether it is over.
const LOOK: Duration = Duration::from_millis(50);
/// Between two looks at whether somebody connects.
const KNOCK: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_millis(200);
const LARGEST: usize = 4_097;

/// Answers to one question.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) lies: Vec<Vec<u8>>,
    pub(super) truth: Option<Vec<u8>>,
}

/// Threads that answer while it lives.
#[derive(Default)]
pub(super) struct Speech {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Speech {
    /// Answers each datagram.
    pub(super) fn over_udp(
        &mut self,
        socket: UdpSocket,
        figures: &Arc<Figures>,
        mut answers: impl FnMut(&[u8]) -> Said + Send + 'static,
    ) -> Result<()> {
        socket
            .set_read_timeout(Some(LOOK))
            .context("bounding a wait")?;
        let (over, figures) = (Arc::clone(&self.over), Arc::clone(figures));
        self.threads.push(std::thread::spawn(move || {
            let mut buffer = [0; LARGEST];
            while !over.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let said = answers(buffer.get(..len).unwrap_or_default());
                for lie in said.lies {
                    // Whoever asked may have gone; a lie of no bytes, or of more than a datagram has, tells nothing.
                    figures.told(socket.send_to(&lie, from).is_ok_and(|sent| sent > 0));
                }
                if let Some(truth) = said.truth {
                    let _sent = socket.send_to(&truth, from);
                }
            }
        }));
        Ok(())
    }

    /// Has one conversation after the other.
    pub(super) fn over_tcp(
        &mut self,
        listener: TcpListener,
        mut converse: impl FnMut(TcpStream) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        listener.set_nonblocking(true).context("not waiting")?;
        let over = Arc::clone(&self.over);
        self.threads.push(std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                match listener.accept() {
                    // Whatever becomes of it is the business of whoever asks.
                    Ok((stream, _)) => drop(converse(stream)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(KNOCK);
                    }
                    Err(_) => std::thread::sleep(LOOK),
                }
            }
        }));
        Ok(())
    }
}

impl Drop for Speech {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // One that panicked has told why already.
            let _ended = thread.join();
        }
    }
}

/// The one question of a connection.
pub(super) fn question(stream: &mut TcpStream) -> Result<Vec<u8>> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut prefix = [0; 2];
    stream.read_exact(&mut prefix)?;
    let mut question = vec![0; u16::from_be_bytes(prefix).into()];
    stream.read_exact(&mut question)?;
    Ok(question)
}
