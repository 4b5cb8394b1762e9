//! The kernel's switches under `/proc/sys/net` that the agent needs.

use std::fs;

use tracing::warn;

use crate::config::InterfaceName;

/// With this on, the reverse-path check of a packet looks where its mark says; otherwise a strict router drops the
/// gateway's answers, since unmarked packets to the gateway would go into the tunnel. For all interfaces, since the WAN's
/// may come later; harmless to a router without marked routes, where it stays on after the agent was killed.
const SRC_VALID_MARK: &str = "/proc/sys/net/ipv4/conf/all/src_valid_mark";
const FORWARDING: [&str; 2] = [
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv6/conf/all/forwarding",
];

/// `src_valid_mark`, and what it was before.
#[derive(Debug)]
pub(super) struct SourceValidMark {
    before: Option<String>,
}

impl SourceValidMark {
    pub(super) fn set() -> Self {
        let before = fs::read_to_string(SRC_VALID_MARK).ok();
        if let Err(error) = fs::write(SRC_VALID_MARK, "1") {
            warn!(%error, "src_valid_mark cannot be set; a strict reverse-path filter would drop the gateway's answers");
        }
        Self { before }
    }

    pub(super) fn restore(&self) {
        if let Some(before) = &self.before {
            // Then it stays on.
            let _ = fs::write(SRC_VALID_MARK, before.trim());
        }
    }
}

/// The tunnel carries leased addresses only: no link-local one, whose router solicitations the edge would drop.
pub(super) fn no_link_local(tunnel: &InterfaceName) {
    // Without IPv6 there is no such file, and nothing to keep away.
    let _ = fs::write(
        format!("/proc/sys/net/ipv6/conf/{tunnel}/addr_gen_mode"),
        "1",
    );
}

pub(super) fn warn_unless_forwarding() {
    for path in FORWARDING {
        if fs::read_to_string(path).is_ok_and(|value| value.trim() == "0") {
            warn!(
                path,
                "the router does not forward packets; the home will not reach the tunnel"
            );
        }
    }
}
