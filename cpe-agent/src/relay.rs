//! The way round blocked UDP: the tunnel's datagrams inside HTTP, to the gateway's relay.
//!
//! A task carries for one gateway: it owns the connection and a loopback socket, waits on both, and tells the control
//! loop when the relay works and when it has ended. To the data thread the relay is a loopback address. Aborting the
//! task is like a cut cable: the tunnel's session outlives it.

mod quic;

/// Why a relay carries nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayError {
    /// Our own settings do not go together.
    #[error("the connection cannot be set up")]
    Setup,
    /// QUIC ended it, or never came about.
    #[error("QUIC: {0}")]
    Quic(quinn_proto::ConnectionError),
    /// The other side does not speak as it should.
    #[error("the relay does not speak HTTP as it should")]
    NotHttp,
    /// The relay does not want to.
    #[error("the relay answered {0}")]
    Refused(u16),
    /// The relay closed the request.
    #[error("the relay closed the connection")]
    Closed,
}

/// Spike: keeps the code in the binary.
pub(crate) fn spike(config: rustls::ClientConfig, at: std::net::SocketAddr) -> bool {
    let now = std::time::Instant::now();
    let Ok(mut session) =
        quic::Session::connect(config, at, "x", masque::Target(at), now)
    else {
        return false;
    };
    let mut buf = Vec::new();
    let _ = session.poll_transmit(1, &mut buf, now);
    session.handle_network_input(&buf, now);
    session.handle_timeout(now);
    session.send_udp(&buf);
    session.take_udp(|udp| drop(udp.to_vec()));
    session.close(now);
    session.is_open() || session.ended().is_some() || session.poll_timeout().is_some()
}
