//! A way into provisioning for who cannot sign a TLS connection: HTTP on this side, and on the other one connection for each request, over
//! which a device has just got its lease and which a gateway signs. All else is passed on as it came.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, spawn};

use anyhow::{Context, Result, ensure};

use crate::device::{Answer, Device, StreamReader};
use crate::netns::Netns;
use crate::session::Session;

/// In the place of a signature that the courier puts there.
pub const SIGN: &str = "Authorization: sign";

/// The running courier.
#[derive(Debug)]
pub struct Courier {
    address: SocketAddr,
    netns: Netns,
    stop: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

/// Who is at the other end of its connections.
struct Clients {
    device: Device,
    gateway: StreamReader,
    server: SocketAddr,
}

impl Courier {
    /// Listens inside a namespace; the device has its lease already.
    pub fn start(
        netns: &Netns,
        (listen, server): (SocketAddr, SocketAddr),
        (device, gateway): (Device, StreamReader),
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&stop);
        let clients = Clients {
            device,
            gateway,
            server,
        };
        // The thread that accepts is born inside the namespace, and so are the sockets that it makes.
        let (address, acceptor) = netns.enter(move || {
            let listener = TcpListener::bind(listen).context("binding the courier")?;
            let address = listener
                .local_addr()
                .context("asking for the courier's address")?;
            Ok((address, spawn(move || clients.accept(&listener, &theirs))))
        })?;
        Ok(Self {
            address,
            netns: netns.clone(),
            stop,
            acceptor: Some(acceptor),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let address = self.address;
        // A last connection wakes the acceptor, which then sees that it is to stop.
        let woken = self
            .netns
            .enter(move || Ok(TcpStream::connect(address).is_ok()));
        if let (Ok(true), Some(acceptor)) = (woken, self.acceptor.take()) {
            // A panic of the acceptor has already been printed.
            let _ = acceptor.join();
        }
    }
}

impl Clients {
    fn accept(&self, listener: &TcpListener, stop: &AtomicBool) {
        for client in listener.incoming() {
            if stop.load(Ordering::SeqCst) {
                return;
            }
            let Ok(mut client) = client else { continue };
            if let Err(error) = self.carry(&mut client) {
                // Whoever asked sees a connection that ends, which no judge lets pass.
                eprintln!("the courier: {error:#}");
            }
        }
    }

    fn carry(&self, client: &mut TcpStream) -> Result<()> {
        let (head, body) = read_request(client)?;
        let mut session = Session::open(self.server)?;
        let enrolled = self.device.enrol_over(&mut session, None)?;
        ensure!(matches!(enrolled, Answer::Leased(_)), "{enrolled:?}");
        let proof = format!("Authorization: {}", self.gateway.proof(&session)?);
        let mut lines = head.split_inclusive("\r\n");
        let mut message = lines.next().unwrap_or_default().to_owned();
        message.push_str("Connection: close\r\n");
        for line in lines {
            match line.trim_end() {
                SIGN => message.extend([&proof, "\r\n"]),
                other if other.to_ascii_lowercase().starts_with("connection:") => {}
                _ => message.push_str(line),
            }
        }
        session.pass_on(&[message.as_bytes(), &body].concat())?;
        let answer = session.rest()?;
        client.write_all(&answer).context("answering")
    }
}

/// Head and body of one request; its head is ASCII, and its body has a length.
fn read_request(client: &TcpStream) -> Result<(String, Vec<u8>)> {
    let mut reader = BufReader::new(client);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = reader.read_line(&mut head).context("reading a request")?;
        ensure!(read > 0, "a request without an end");
    }
    let lower = head.to_ascii_lowercase();
    ensure!(!lower.contains("transfer-encoding:"), "a chunked request");
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length = length.map_or(Ok(0), |length| length.trim().parse());
    let mut body = vec![0; length.context("a length that is no number")?];
    reader.read_exact(&mut body).context("reading a body")?;
    Ok((head, body))
}
