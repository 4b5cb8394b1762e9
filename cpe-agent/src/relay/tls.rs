//! HTTP/1.1 over TLS, upgraded to UDP (RFC 9298 section 3.2): datagrams as capsules, where no UDP passes at all.

use std::net::SocketAddr;

use masque::{Capsules, capsule};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Carrier, Job, LOST_AFTER, RelayChange, RelayError, WayOut, first};
use crate::net::MARK;

/// The relay's answer is some hundred bytes.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// The longest datagram.
const DATAGRAM_BYTES: usize = 65_536;
/// What is written at once: a burst of the tunnel's.
const WRITE_BYTES: usize = 32 * 1024;

type Stream = TlsStream<TcpStream>;

/// A connection that the relay has upgraded.
pub(super) struct Connection {
    stream: Stream,
    /// What came with the answer.
    capsules: Capsules,
}

pub(super) async fn open(job: &Job) -> Result<Connection, RelayError> {
    first::address(
        job,
        |job, server| async move { open_at(&job, server).await },
    )
    .await
}

async fn open_at(job: &Job, server: SocketAddr) -> Result<Connection, RelayError> {
    let tcp = connect(server, job.way_out.as_ref()).await?;
    let name =
        ServerName::try_from(job.record.server_name.clone()).map_err(|_| RelayError::Setup)?;
    let connector = TlsConnector::from(std::sync::Arc::new(job.tls(b"http/1.1")?));
    let mut stream = Box::pin(connector.connect(name, tcp)).await?;
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: {}\r\nconnection: Upgrade\r\nupgrade: connect-udp\r\ncapsule-protocol: ?1\r\n\r\n",
        job.target.path(),
        job.record.server_name
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let capsules = read_answer(&mut stream).await?;
    Ok(Connection { stream, capsules })
}

async fn connect(server: SocketAddr, way_out: Option<&WayOut>) -> Result<TcpStream, RelayError> {
    let socket = match server {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Lets it past the kill-switch and the tunnel's routing.
    setsockopt(&socket, sockopt::Mark, &MARK).map_err(std::io::Error::from)?;
    if let Some(out) = way_out {
        // Before Linux 5.7 a right that the agent has given up: the routes choose there.
        let _by_route = socket.bind_device(Some(out.interface.as_bytes()));
    }
    let lost_after = u32::try_from(LOST_AFTER.as_millis()).unwrap_or(u32::MAX);
    setsockopt(&socket, sockopt::TcpUserTimeout, &lost_after).map_err(std::io::Error::from)?;
    let stream = socket.connect(server).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads the head of the answer; capsules may follow it at once.
async fn read_answer<S: tokio::io::AsyncRead + Unpin>(
    stream: &mut S,
) -> Result<Capsules, RelayError> {
    const HEAD_END: &[u8] = b"\r\n\r\n";
    let mut read = Vec::new();
    let mut piece = [0; 1024];
    let end = loop {
        let found = read.windows(HEAD_END.len()).position(|w| w == HEAD_END);
        if let Some(end) = found {
            break end;
        }
        if read.len() > MAX_HEAD_BYTES {
            return Err(RelayError::NotHttp);
        }
        match stream.read(&mut piece).await? {
            0 => return Err(RelayError::Closed),
            length => read.extend(piece.iter().take(length)),
        }
    };
    let head = read.get(..end).unwrap_or_default();
    match status_of(head).ok_or(RelayError::NotHttp)? {
        101 if is_upgraded(head) => {}
        101 => return Err(RelayError::NotHttp),
        status => return Err(RelayError::Refused(status)),
    }
    let mut capsules = Capsules::default();
    capsules.push(read.get(end + HEAD_END.len()..).unwrap_or_default());
    Ok(capsules)
}

fn status_of(head: &[u8]) -> Option<u16> {
    let digits = head.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    let is_number = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits)
        .ok()?
        .parse()
        .ok()
        .filter(|_| is_number)
}

/// Whether the answer names the protocol that was asked for.
fn is_upgraded(head: &[u8]) -> bool {
    let Ok(head) = std::str::from_utf8(head) else {
        return false;
    };
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| {
            name.eq_ignore_ascii_case("upgrade") && value.trim().eq_ignore_ascii_case("connect-udp")
        })
}

impl Connection {
    /// Carries until either side is gone.
    pub(super) async fn carry(self, job: &Job, local: &UdpSocket) -> Result<(), RelayError> {
        let at = local.local_addr()?;
        job.tell(RelayChange::Open {
            carrier: Carrier::Tls,
            at,
            longest: None,
        })
        .await;
        let (reader, writer) = tokio::io::split(self.stream);
        tokio::select! {
            result = inwards(reader, self.capsules, local) => result,
            result = outwards(writer, local) => result,
        }
    }
}

async fn inwards(
    mut reader: ReadHalf<Stream>,
    mut capsules: Capsules,
    local: &UdpSocket,
) -> Result<(), RelayError> {
    let mut buffer = vec![0; WRITE_BYTES];
    loop {
        while let Some(udp) = capsules.next_udp().map_err(|_| RelayError::NotHttp)? {
            // What the packet thread does not take is lost, as on any wire.
            let _full = local.try_send(udp);
        }
        match reader.read(&mut buffer).await? {
            0 => return Err(RelayError::Closed),
            length => capsules.push(buffer.get(..length).unwrap_or_default()),
        }
    }
}

async fn outwards(mut writer: WriteHalf<Stream>, local: &UdpSocket) -> Result<(), RelayError> {
    let mut buffer = vec![0; DATAGRAM_BYTES];
    let mut out = Vec::with_capacity(2 * WRITE_BYTES);
    loop {
        let length = local.recv(&mut buffer).await?;
        out.clear();
        capsule::write_udp(&mut out, buffer.get(..length).unwrap_or_default());
        while out.len() < WRITE_BYTES {
            let Ok(length) = local.try_recv(&mut buffer) else {
                break;
            };
            capsule::write_udp(&mut out, buffer.get(..length).unwrap_or_default());
        }
        writer.write_all(&out).await?;
        writer.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(mut bytes: &[u8]) -> Result<Capsules, RelayError> {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(read_answer(&mut bytes))
    }

    #[test]
    fn an_answer_that_does_not_upgrade_to_udp_is_refused() {
        for (head, wanted) in [
            ("HTTP/1.1 101 X\r\nupgrade: websocket\r\n\r\n", "NotHttp"),
            ("HTTP/1.1 101 X\r\n\r\n", "NotHttp"),
            ("HTTP/1.1 404 Not Found\r\n\r\n", "Refused(404)"),
            ("HTTP/1.1 +10 X\r\n\r\n", "NotHttp"),
            ("SSH-2.0-x\r\n\r\n", "NotHttp"),
            ("HTTP/1.1 101 X\r\nupgrade: connect-udp\r\n", "Closed"),
        ] {
            let error = answer(head.as_bytes()).map(drop).unwrap_err();
            assert_eq!(format!("{error:?}"), wanted, "{head}");
        }
    }

    #[test]
    fn capsules_may_come_with_the_answer() {
        let mut bytes = b"HTTP/1.1 101 X\r\nUpgrade: connect-udp\r\n\r\n".to_vec();
        capsule::write_udp(&mut bytes, b"early");

        let mut capsules = answer(&bytes).unwrap();

        assert_eq!(capsules.next_udp(), Ok(Some(&b"early"[..])));
    }
}
