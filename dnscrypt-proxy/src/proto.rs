//! The wire formats and the decisions on them. Nothing here opens a socket, reads a clock or waits.

pub mod cert;
pub mod client;
mod curve;
pub mod dropped;
pub mod message;
pub mod padding;
pub mod pq;
pub mod relay;
pub mod seal;
pub mod server;
pub mod stamp;
pub mod tickets;
pub mod xwing;

#[cfg(test)]
mod vectors;

// MUST and MUST NOT, "Transport".
/// Largest encrypted query, and largest plaintext DNS message that is ever sent inside one.
pub const MAX_QUERY: usize = 4096;
// MUST, "Transport".
/// An encrypted response stays below this on every transport, for the sake of deployed clients.
pub const MAX_RESPONSE: usize = 4095;

/// How a packet travels. The size rules differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// One packet per datagram; an answer may not be larger than its query.
    Udp,
    /// Each packet behind a two-byte length.
    Tcp,
}
