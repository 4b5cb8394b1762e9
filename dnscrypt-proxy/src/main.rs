//! `culvert-dns`: DNSCrypt for a machine without an agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    dnscrypt_proxy::cli::main()
}
