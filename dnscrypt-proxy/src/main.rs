//! `culvert-dns`: DNSCrypt for a machine without an agent.
fn main() {}
