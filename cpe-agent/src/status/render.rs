//! The status in words, for a person on the router's console.

use std::fmt::Write;

use serde_json::Value;
use telemetry::watch;

/// Who tells the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The running agent.
    Agent,
    /// The file that an agent left which is not running.
    LastWords,
}

/// Renders what `status --json` shows.
pub(crate) fn text(status: &Value, source: Source, now: u64) -> String {
    let word = |key: &str| status.get(key).and_then(Value::as_str);
    let number = |key: &str| status.get(key).and_then(Value::as_u64);
    let mut lines = Lines::default();
    let state = word("state").unwrap_or("unknown");
    match source {
        Source::Agent => {
            let since = number("since").map_or(0, |since| now.saturating_sub(since));
            lines.add("state", &format!("{state} for {}", watch::duration(since)));
        }
        Source::LastWords if state == "stopped" => lines.add("state", "not running"),
        Source::LastWords => lines.add("state", &format!("not running (last: {state})")),
    }
    lines.maybe("reason", word("reason"));
    lines.maybe("gateway", word("gateway"));
    let gateways = status.get("gateways").and_then(Value::as_array);
    if source == Source::Agent && gateways.is_some_and(|gateways| gateways.len() > 1) {
        for gateway in gateways.into_iter().flatten() {
            lines.add("", &gateway_text(gateway));
        }
    }
    if let Some(lease) = status.get("lease").filter(|lease| !lease.is_null()) {
        lines.add("lease", &lease_text(lease, now));
    }
    if source == Source::Agent {
        if let Some(tunnel) = status.get("tunnel") {
            let [session, traffic] = tunnel_text(tunnel);
            lines.add("tunnel", &session);
            lines.add("traffic", &traffic);
        }
        if let Some(dns) = status.get("dns") {
            let count = |key: &str| dns.get(key).and_then(Value::as_u64).unwrap_or(0);
            let (queries, hits, failed) = (count("queries"), count("cache_hits"), count("failed"));
            let wanted = dns.get("post_quantum_policy").and_then(Value::as_str);
            let sealed = sealed_text(wanted, dns.get("post_quantum").and_then(Value::as_bool));
            lines.add(
                "lookups",
                &format!("{queries}, {hits} from the cache, {failed} failed{sealed}"),
            );
            let said = [
                ("own", "answered here"),
                ("forwarded", "for the home's servers"),
                ("blocked", "blocked"),
                ("rebinding", "led inside"),
            ];
            let said = said.map(|(key, what)| (count(key), what));
            let said = said.iter().filter(|(count, _)| *count > 0);
            let said: Vec<_> = said
                .map(|(count, what)| format!("{count} {what}"))
                .collect();
            if !said.is_empty() {
                lines.add("", &said.join(", "));
            }
        }
    }
    let kill_switch = match status.get("kill_switch").and_then(Value::as_bool) {
        Some(true) => "on: nothing leaves in clear",
        Some(false) => "off: packets leave in clear without a tunnel",
        None => "unknown",
    };
    lines.add("kill-switch", kill_switch);
    if let Some(left) = number("portal_s").filter(|_| source == Source::Agent) {
        lines.add(
            "portal",
            &format!("open to one device for {} more", watch::duration(left)),
        );
    }
    lines.maybe("device", word("device"));
    lines.out
}

#[derive(Default)]
struct Lines {
    out: String,
}

impl Lines {
    fn add(&mut self, name: &str, value: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.out, "{name:<12} {value}");
    }

    fn maybe(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }
}

/// How lookups are sealed, beside how they should be.
fn sealed_text(wanted: Option<&str>, is_post_quantum: Option<bool>) -> &'static str {
    match (wanted, is_post_quantum) {
        (Some("required"), Some(true)) => ", post-quantum as required",
        (Some("required"), _) => ", none without a post-quantum certificate",
        (_, Some(true)) => ", post-quantum",
        (Some("preferred"), Some(false)) => ", not all post-quantum",
        (_, Some(false) | None) => "",
    }
}

fn gateway_text(gateway: &Value) -> String {
    let word = |key: &str| gateway.get(key).and_then(Value::as_str).unwrap_or_default();
    let is_active = gateway.get("active").and_then(Value::as_bool) == Some(true);
    let role = if is_active { "active" } else { "standby" };
    let rtt = gateway.get("rtt_ms").and_then(Value::as_u64);
    let rtt = rtt.map_or(String::new(), |ms| format!(", {ms} ms"));
    format!("{} {role}, {}{rtt}", word("name"), word("state"))
}

fn lease_text(lease: &Value, now: u64) -> String {
    let number = |key: &str| lease.get(key).and_then(Value::as_u64).unwrap_or(0);
    let addresses = lease.get("addresses").and_then(Value::as_array);
    let addresses: Vec<&str> = addresses
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let left = number("not_after").checked_sub(now);
    let life = left.map_or("has ended".to_owned(), |left| {
        format!("for {} more", watch::duration(left))
    });
    format!(
        "epoch {}, {life}, {}",
        number("epoch"),
        addresses.join(", ")
    )
}

fn tunnel_text(tunnel: &Value) -> [String; 2] {
    let number = |key: &str| tunnel.get(key).and_then(Value::as_u64);
    let handshake = number("last_handshake_s").map_or("no session".to_owned(), |age| {
        format!("session {} old", watch::duration(age))
    });
    let sealed = match tunnel.get("post_quantum").and_then(Value::as_bool) {
        Some(true) => ", post-quantum",
        Some(false) | None => "",
    };
    let (rx, tx) = (
        number("rx_bytes").unwrap_or(0),
        number("tx_bytes").unwrap_or(0),
    );
    let dropped: u64 = tunnel
        .get("dropped")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(_, count)| count.as_u64())
        .sum();
    let wan = tunnel.get("wan").and_then(Value::as_str);
    let over = wan.map_or(String::new(), |wan| format!(" over {wan}"));
    let through = match tunnel.get("transport").and_then(Value::as_str) {
        Some("quic") => " inside HTTP/3, since UDP is blocked",
        Some("tls") => " inside TLS, since UDP is blocked; slower",
        Some(_) | None => "",
    };
    let rate = |key: &str| watch::bits(number(key).unwrap_or(0));
    let traffic = format!(
        "{} in at {}, {} out at {}, {dropped} dropped",
        watch::bytes(rx),
        rate("rx_bits_per_s"),
        watch::bytes(tx),
        rate("tx_bits_per_s")
    );
    [format!("{handshake}{over}{through}{sealed}"), traffic]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_is_not_running_is_never_shown_as_protecting() {
        let status = serde_json::json!({ "state": "protected", "since": 5, "kill_switch": true, "reason": null });

        let text = text(&status, Source::LastWords, 10);

        assert!(
            text.starts_with("state        not running (last: protected)\n"),
            "{text}"
        );
    }

    #[test]
    fn lookups_that_are_not_post_quantum_are_never_shown_as_if_they_were() {
        let shown = |wanted: &str, is_post_quantum: Option<bool>| {
            let dns = serde_json::json!({ "post_quantum_policy": wanted, "post_quantum": is_post_quantum });
            let status = serde_json::json!({ "state": "protected", "dns": dns });
            let text = text(&status, Source::Agent, 0);
            let lookups = text.lines().find(|line| line.starts_with("lookups"));
            lookups.unwrap().split("failed").nth(1).unwrap().to_owned()
        };

        assert_eq!(shown("preferred", Some(false)), ", not all post-quantum");
        assert_eq!(shown("off", Some(false)), "");
        assert_eq!(shown("preferred", None), "");
        assert_eq!(shown("preferred", Some(true)), ", post-quantum");
        let waiting = ", none without a post-quantum certificate";
        assert_eq!(shown("required", None), waiting);
        assert_eq!(shown("required", Some(true)), ", post-quantum as required");
    }

    #[test]
    fn a_protected_router_says_since_when_and_until_when() {
        let status = serde_json::json!({
            "state": "protected", "since": 100, "gateway": "gw1", "kill_switch": true,
            "lease": { "epoch": 3, "not_after": 700_000, "addresses": ["10.64.0.2/32"] },
            "tunnel": { "last_handshake_s": 12, "wan": "wan0", "rx_bytes": 5, "tx_bytes": 6, "rx_bits_per_s": 1_500_000, "tx_bits_per_s": 0, "dropped": { "malformed": 2, "too_big": 1 } },
            "dns": { "queries": 9, "cache_hits": 4, "failed": 0, "post_quantum": true },
        });

        let text = text(&status, Source::Agent, 400);

        assert_eq!(
            text,
            "state        protected for 5 min\ngateway      gw1\nlease        epoch 3, for 8 days more, 10.64.0.2/32\n\
             tunnel       session 12 s old over wan0\ntraffic      5 B in at 1.5 Mbit/s, 6 B out at 0 bit/s, 3 dropped\n\
             lookups      9, 4 from the cache, 0 failed, post-quantum\nkill-switch  on: nothing leaves in clear\n"
        );
    }
}
