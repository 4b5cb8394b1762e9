//! The running agent's socket: one request per connection, a line of JSON; answers are lines too.
//!
//! The task owns the listener. It waits for connections and sends each request to the control loop; aborting it loses
//! nothing but open conversations.

use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use trust::{ClaimCode, ClaimCodeError};
use zeroize::Zeroizing;

use crate::config::MAX_WINDOW_S;

/// No request is near this size.
const MAX_REQUEST_BYTES: usize = 512;
/// Whoever connects has typed already.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Conversations at a time.
const MAX_CONVERSATIONS: usize = 8;
/// Lines that wait for a slow reader; more are dropped.
const MAX_LINES: usize = 16;
/// After a failed accept, so that a broken listener does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What somebody at the router asks for.
#[derive(Debug)]
pub(crate) enum Request {
    /// The status, once.
    Status(Answers),
    /// To enrol with this code, and to hear how it goes.
    Enrol(ClaimCode, Answers),
    /// To open the captive-portal window for a device of the home.
    OpenPortal(Ipv4Addr, Option<Duration>, Answers),
    /// To shut it.
    ClosePortal(Answers),
}

/// Where the answer's lines go. The conversation ends when it is dropped.
pub(crate) type Answers = mpsc::Sender<String>;

/// Binds the socket, in the place of one that a killed agent left. Only root may connect.
pub(crate) fn bind(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => std::fs::remove_file(path)?,
        // Somebody's file.
        Ok(_) => return Err(io::ErrorKind::AlreadyExists.into()),
        // What is wrong with the path is said when it is bound.
        Err(_) => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves the socket for ever.
pub(crate) async fn serve(listener: UnixListener, requests: mpsc::Sender<Request>) {
    let free = Arc::new(Semaphore::new(MAX_CONVERSATIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&free).try_acquire_owned() else {
            continue;
        };
        let requests = requests.clone();
        tokio::spawn(async move {
            // A peer that goes away in the middle only ends its own conversation.
            let _ = converse(stream, requests).await;
            drop(permit);
        });
    }
}

async fn converse(mut stream: UnixStream, requests: mpsc::Sender<Request>) -> io::Result<()> {
    // The socket's mode says so too, until somebody changes it.
    if stream.peer_cred()?.uid() != 0 {
        return write_line(&mut stream, &refused("only root may ask")).await;
    }
    let line = timeout(REQUEST_TIMEOUT, read_line(&mut stream)).await??;
    let (answers, mut lines) = mpsc::channel(MAX_LINES);
    match parse(&line, answers) {
        // Fails only while the agent is stopping; the conversation then ends without an answer.
        Ok(request) => drop(requests.try_send(request)),
        Err(sentence) => return write_line(&mut stream, &refused(&sentence)).await,
    }
    drop(line);
    while let Some(answer) = lines.recv().await {
        write_line(&mut stream, &answer).await?;
    }
    Ok(())
}

async fn read_line(stream: &mut UnixStream) -> io::Result<Zeroizing<Vec<u8>>> {
    // Full size from the start: growing would leave copies of a claim code behind.
    let mut line = Zeroizing::new(vec![0; MAX_REQUEST_BYTES]);
    let mut length = 0;
    loop {
        let count = stream
            .read(line.get_mut(length..).unwrap_or(&mut []))
            .await?;
        length += count;
        if let Some(end) = line.iter().take(length).position(|byte| *byte == b'\n') {
            line.truncate(end);
            return Ok(line);
        }
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Borrows from the line, so that there is one copy of a code.
#[derive(serde::Deserialize)]
struct Asked<'a> {
    r#do: &'a str,
    code: Option<&'a str>,
    device: Option<&'a str>,
    window_s: Option<u16>,
}

fn parse(line: &[u8], answers: Answers) -> Result<Request, String> {
    match serde_json::from_slice(line) {
        Ok(Asked {
            r#do: "status",
            code: None,
            ..
        }) => Ok(Request::Status(answers)),
        Ok(Asked {
            r#do: "enrol",
            code: Some(code),
            ..
        }) => match code.parse() {
            Ok(code) => Ok(Request::Enrol(code, answers)),
            Err(error) => {
                let error: ClaimCodeError = error;
                Err(error.to_string())
            }
        },
        Ok(Asked {
            r#do: "portal-open",
            device: Some(device),
            window_s,
            ..
        }) => open_portal(device, window_s, answers),
        Ok(Asked {
            r#do: "portal-close",
            ..
        }) => Ok(Request::ClosePortal(answers)),
        Ok(Asked { .. }) | Err(_) => Err("the request is not understood".to_owned()),
    }
}

fn open_portal(device: &str, window_s: Option<u16>, answers: Answers) -> Result<Request, String> {
    let device: Ipv4Addr = device
        .parse()
        .map_err(|_| "the device is named by its IPv4 address".to_owned())?;
    if window_s.is_some_and(|seconds| !(1..=MAX_WINDOW_S).contains(&seconds)) {
        return Err("a window is open for at most 15 minutes".to_owned());
    }
    let window = window_s.map(|seconds| Duration::from_secs(seconds.into()));
    Ok(Request::OpenPortal(device, window, answers))
}

async fn write_line(stream: &mut UnixStream, line: &str) -> io::Result<()> {
    stream.write_all(line.as_bytes()).await?;
    stream.write_all(b"\n").await
}

/// A step on the way.
pub(crate) fn progress(sentence: &str) -> String {
    serde_json::json!({ "progress": sentence }).to_string()
}

/// The good end.
pub(crate) fn done(sentence: &str) -> String {
    serde_json::json!({ "ok": true, "message": sentence }).to_string()
}

/// The bad end.
pub(crate) fn refused(sentence: &str) -> String {
    serde_json::json!({ "ok": false, "message": sentence }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_not_known_or_whose_code_has_a_typing_error_is_refused_in_words() {
        let (answers, _lines) = mpsc::channel(1);

        let unknown = parse(b"{\"do\":\"reboot\"}", answers.clone()).unwrap_err();
        let rubbish = parse(b"\xff\xfe", answers.clone()).unwrap_err();
        let typing = parse(b"{\"do\":\"enrol\",\"code\":\"CV-1\"}", answers.clone()).unwrap_err();
        let window = |more: &str| {
            let line = format!("{{\"do\":\"portal-open\",\"device\":{more}}}");
            parse(line.as_bytes(), answers.clone()).unwrap_err()
        };

        assert_eq!(unknown, "the request is not understood");
        assert_eq!(rubbish, "the request is not understood");
        assert!(typing.contains("claim code"), "{typing}");
        assert!(window("\"fd01::10\"").contains("IPv4"));
        assert!(window("\"192.168.1.10\",\"window_s\":901").contains("15 minutes"));
        assert!(window("\"192.168.1.10\",\"window_s\":0").contains("15 minutes"));
    }

    #[tokio::test]
    async fn a_dead_agents_socket_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, file) = (dir.path().join("socket"), dir.path().join("file"));
        std::fs::write(&file, "precious").unwrap();
        drop(bind(&socket).unwrap());

        let refused = bind(&file).unwrap_err();

        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
        bind(&socket).unwrap();
    }

    #[tokio::test]
    async fn a_line_that_never_ends_is_cut_off() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        far.write_all(&[b'x'; MAX_REQUEST_BYTES + 1]).await.unwrap();

        let error = read_line(&mut near).await.unwrap_err();

        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
