//! One HTTP/3 connection with one request for UDP (RFC 9298), without I/O: datagrams and times in, datagrams out.
//!
//! `quinn-proto` speaks QUIC. HTTP/3 is `masque`'s few frames, since the whole of it would cost a router another
//! 100 KB. What is too long for a QUIC datagram goes as a capsule on the request's stream: WireGuard's packets have no
//! use for a path that swallows the large ones, and they look for no path's MTU, which is why RFC 9298 (section 6)
//! would rather have them dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use masque::http3::{self, Answer, Part};
use masque::{Capsules, Target, capsule, payload};
use quinn_proto::congestion::BbrConfig;
use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig,
    Event, StreamEvent, StreamId, Transmit, TransportConfig, VarInt,
};

use super::RelayError;

/// A middlebox forgets a silent UDP flow after 30 s at the earliest (RFC 4787 asks for two minutes).
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Without a word for this long the way is given up; the tunnel's own timers are faster.
const IDLE_TIMEOUT: VarInt = VarInt::from_u32(20_000);
/// A quarter of a second at 20 Mb/s; more would only be delay.
const DATAGRAM_BUFFER_BYTES: usize = 512 * 1024;
/// What may wait on the stream for packets that are too long for a datagram.
const STREAM_BUFFER_BYTES: usize = 512 * 1024;
/// UDP payload of an Ethernet frame over IPv4 or IPv6.
const LONGEST_UDP: u16 = 1452;

/// The connection.
pub(super) struct Session {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    remote: SocketAddr,
    request: Option<StreamId>,
    /// Bytes of the request's stream that its flow control has not taken.
    unsent: Vec<u8>,
    answer: Answer,
    capsules: Capsules,
    is_open: bool,
    ended: Option<RelayError>,
    path: String,
    authority: String,
}

impl Session {
    /// Begins the handshake; the request goes out as soon as it is through.
    pub(super) fn connect(
        tls: rustls::ClientConfig,
        remote: SocketAddr,
        server_name: &str,
        target: Target,
        now: Instant,
    ) -> Result<Self, RelayError> {
        let initial = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256
            .tls13()
            .and_then(rustls::Tls13CipherSuite::quic_suite)
            .ok_or(RelayError::Setup)?;
        let crypto = QuicClientConfig::with_initial(Arc::new(tls), initial)
            .map_err(|_| RelayError::Setup)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport()));
        // The socket does not fragment, so that the path's MTU may be looked for.
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
        let (handle, connection) = endpoint
            .connect(now, config, remote, server_name)
            .map_err(|_| RelayError::Setup)?;
        Ok(Self {
            endpoint,
            handle,
            connection,
            remote,
            request: None,
            unsent: Vec::new(),
            answer: Answer::default(),
            capsules: Capsules::default(),
            is_open: false,
            ended: None,
            path: target.path(),
            authority: server_name.to_owned(),
        })
    }

    /// Takes a datagram from the server.
    pub(super) fn handle_network_input(&mut self, datagram: &[u8], now: Instant) {
        let mut answer = Vec::new();
        let event = self.endpoint.handle(
            now,
            self.remote,
            None,
            None,
            BytesMut::from(datagram),
            &mut answer,
        );
        if let Some(DatagramEvent::ConnectionEvent(_, event)) = event {
            self.connection.handle_event(event);
        }
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
        }
    }

    pub(super) fn poll_timeout(&mut self) -> Option<Instant> {
        self.connection.poll_timeout()
    }

    /// The next datagrams for the server, written to `buf`.
    pub(super) fn poll_transmit(
        &mut self,
        max_datagrams: usize,
        buf: &mut Vec<u8>,
        now: Instant,
    ) -> Option<Transmit> {
        while let Some(event) = self.connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(self.handle, event) {
                self.connection.handle_event(event);
            }
        }
        self.connection.poll_transmit(now, max_datagrams, buf)
    }

    /// Sends a UDP payload, or drops it where the way is full.
    pub(super) fn send_udp(&mut self, udp: &[u8]) {
        let Some(request) = self.request.filter(|_| self.is_open) else {
            return;
        };
        let is_short = self.max_udp().is_some_and(|max| udp.len() <= max);
        if is_short {
            let datagram = payload::quic_datagram(request.into(), udp);
            // Older ones make room: what is late is of less use.
            let _full = self
                .connection
                .datagrams()
                .send(Bytes::from(datagram), true);
        } else if self.unsent.len() < STREAM_BUFFER_BYTES {
            let mut bytes = Vec::with_capacity(udp.len() + 8);
            capsule::write_udp(&mut bytes, udp);
            http3::write_data_header(&mut self.unsent, bytes.len());
            self.unsent.extend(bytes);
            self.write_request();
        }
    }

    /// The longest UDP payload that fits a datagram at present.
    pub(super) fn max_udp(&mut self) -> Option<usize> {
        let max = self.connection.datagrams().max_size()?;
        Some(max.saturating_sub(payload::FIRST_REQUEST_OVERHEAD))
    }

    /// Takes what has arrived, and hands each UDP payload to `each`.
    pub(super) fn take_udp(&mut self, mut each: impl FnMut(&[u8])) {
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected => self.ask(),
                Event::ConnectionLost { reason } => {
                    self.ended.get_or_insert(RelayError::Quic(reason));
                }
                Event::Stream(StreamEvent::Readable { id }) if Some(id) == self.request => {
                    self.read_answer(&mut each);
                }
                Event::Stream(StreamEvent::Writable { id }) if Some(id) == self.request => {
                    self.write_request();
                }
                Event::Stream(StreamEvent::Opened { dir: Dir::Uni }) => self.drain_theirs(),
                Event::Stream(StreamEvent::Readable { id }) => self.drain(id),
                Event::Stream(_)
                | Event::HandshakeDataReady
                | Event::DatagramReceived
                | Event::DatagramsUnblocked => {}
            }
        }
        while let Some(datagram) = self.connection.datagrams().recv() {
            let ours = self.request.map(u64::from);
            if let Some((stream, udp)) = payload::read_quic_datagram(&datagram)
                && Some(stream) == ours
            {
                each(udp);
            }
        }
    }

    /// Whether the proxy has agreed.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Why it is over.
    pub(super) fn ended(&mut self) -> Option<RelayError> {
        self.ended.take()
    }

    /// Says good-bye, so that the server need not wait for a time-out.
    pub(super) fn close(&mut self, now: Instant) {
        // H3_NO_ERROR (RFC 9114 section 8.1).
        self.connection
            .close(now, VarInt::from_u32(0x100), Bytes::new());
    }

    fn ask(&mut self) {
        let control = self.connection.streams().open(Dir::Uni);
        let request = self.connection.streams().open(Dir::Bi);
        let (Some(control), Some(request)) = (control, request) else {
            self.ended = Some(RelayError::NotHttp);
            return;
        };
        // Five bytes at the start of a connection always fit.
        let _written = self
            .connection
            .send_stream(control)
            .write(&http3::CONTROL_STREAM);
        self.request = Some(request);
        self.unsent = http3::connect_udp(&self.authority, &self.path);
        self.write_request();
    }

    fn write_request(&mut self) {
        let Some(request) = self.request else { return };
        while !self.unsent.is_empty() {
            match self.connection.send_stream(request).write(&self.unsent) {
                Ok(written) => {
                    self.unsent.drain(..written);
                }
                // Flow control; an event says when it goes on, or that it never will.
                Err(_) => break,
            }
        }
    }

    fn read_answer(&mut self, each: &mut impl FnMut(&[u8])) {
        let Some(request) = self.request else { return };
        let mut is_finished = false;
        if let Ok(mut chunks) = self.connection.recv_stream(request).read(true) {
            loop {
                match chunks.next(usize::MAX) {
                    Ok(Some(chunk)) => self.answer.push(&chunk.bytes),
                    Ok(None) => {
                        is_finished = true;
                        break;
                    }
                    Err(quinn_proto::ReadError::Blocked) => break,
                    Err(quinn_proto::ReadError::Reset(_)) => {
                        is_finished = true;
                        break;
                    }
                }
            }
            // What is to be sent for it goes out with the next transmit anyway.
            let _flow_control = chunks.finalize();
        }
        if let Err(error) = self.take_parts(each) {
            self.ended.get_or_insert(error);
        }
        if is_finished {
            self.ended.get_or_insert(RelayError::Closed);
        }
    }

    fn take_parts(&mut self, each: &mut impl FnMut(&[u8])) -> Result<(), RelayError> {
        while let Some(part) = self.answer.next_part().map_err(|_| RelayError::NotHttp)? {
            match part {
                Part::Status(100..200) => {}
                Part::Status(200..300) => self.is_open = true,
                Part::Status(status) => return Err(RelayError::Refused(status)),
                Part::Body(body) => {
                    self.capsules.push(&body);
                    while let Some(udp) =
                        self.capsules.next_udp().map_err(|_| RelayError::NotHttp)?
                    {
                        each(udp);
                    }
                }
            }
        }
        Ok(())
    }

    /// The server's control and QPACK streams: nothing in them changes what we do.
    fn drain_theirs(&mut self) {
        while let Some(id) = self.connection.streams().accept(Dir::Uni) {
            self.drain(id);
        }
    }

    fn drain(&mut self, id: StreamId) {
        if let Ok(mut chunks) = self.connection.recv_stream(id).read(false) {
            while let Ok(Some(_unread)) = chunks.next(usize::MAX) {}
            let _flow_control = chunks.finalize();
        }
    }
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut discovery = quinn_proto::MtuDiscoveryConfig::default();
    discovery.upper_bound(LONGEST_UDP);
    transport
        .mtu_discovery_config(Some(discovery))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .keep_alive_interval(Some(KEEPALIVE))
        .max_idle_timeout(Some(IDLE_TIMEOUT.into()))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .congestion_controller_factory(Arc::new(BbrConfig::default()));
    transport
}
