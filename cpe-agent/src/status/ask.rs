//! The other end of the socket: how `status` and `enrol` ask the running agent.

use std::io::{self, BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use zeroize::Zeroizing;

/// A status comes at once; an enrolment speaks at every step, and no step takes longer.
const SILENCE: Duration = Duration::from_secs(90);

/// A conversation with the running agent.
pub(crate) struct Conversation {
    lines: io::Lines<BufReader<UnixStream>>,
}

/// Starts a conversation; `None` when no agent is running.
fn start(socket: &Path, request: &[u8]) -> io::Result<Option<Conversation>> {
    let mut stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(SILENCE))?;
    stream.write_all(request)?;
    Ok(Some(Conversation {
        lines: BufReader::new(stream).lines(),
    }))
}

/// Asks for the status.
pub(crate) fn status(socket: &Path) -> io::Result<Option<Conversation>> {
    start(socket, b"{\"do\":\"status\"}\n")
}

/// Hands a claim code over.
pub(crate) fn enrol(socket: &Path, code: &trust::ClaimCode) -> io::Result<Option<Conversation>> {
    let request = Zeroizing::new(format!(
        "{{\"do\":\"enrol\",\"code\":\"{}\"}}\n",
        Zeroizing::new(code.to_string()).as_str()
    ));
    start(socket, request.as_bytes())
}

/// Opens the captive-portal window.
pub(crate) fn open_portal(
    socket: &Path,
    device: Ipv4Addr,
    minutes: Option<u16>,
) -> io::Result<Option<Conversation>> {
    let window = minutes.map_or("null".to_owned(), |minutes| (minutes * 60).to_string());
    let request =
        format!("{{\"do\":\"portal-open\",\"device\":\"{device}\",\"window_s\":{window}}}\n");
    start(socket, request.as_bytes())
}

/// Shuts it.
pub(crate) fn close_portal(socket: &Path) -> io::Result<Option<Conversation>> {
    start(socket, b"{\"do\":\"portal-close\"}\n")
}

impl Conversation {
    /// The next line, or `None` at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Value>> {
        match self.lines.next() {
            Some(line) => Ok(Some(serde_json::from_str(&line?)?)),
            None => Ok(None),
        }
    }
}
