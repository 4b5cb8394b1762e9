//! The last page, for people and for machines.

use std::time::Duration;

use serde::Serialize;

use crate::observer::Findings;

/// What the demo measured and found.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Results {
    pub(super) ok: bool,
    pub(super) clear_packets: u64,
    pub(super) first_page_s: f64,
    pub(super) throughput_gbps: f64,
    pub(super) lookups: u32,
    pub(super) throughput_up_gbps: f64,
    pub(super) download_gbps: f64,
    pub(super) protected_s: f64,
    pub(super) page_after_gateway_restart_s: f64,
    pub(super) page_after_agent_crash_s: f64,
    pub(super) agent_memory_mb: f64,
    pub(super) wireguard_packets: u64,
    pub(super) enrolment_tls_packets: u64,
    pub(super) neighbour_packets: u64,
    pub(super) readable_on_the_wire: Vec<String>,
    pub(super) left_behind: Vec<String>,
    pub(super) took_s: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

impl Results {
    pub(super) fn wire(&mut self, findings: &Findings) {
        self.clear_packets = findings.clear;
        self.wireguard_packets = findings.wireguard;
        self.enrolment_tls_packets = findings.provisioning_tls;
        self.neighbour_packets = findings.neighbour;
        self.readable_on_the_wire.clone_from(&findings.markers);
    }

    pub(super) fn conclude(&mut self, error: Option<anyhow::Error>, took: Duration) {
        self.took_s = took.as_secs_f64();
        self.error = error.map(|e| format!("{e:#}"));
        self.ok = self.error.is_none() && self.left_behind.is_empty();
        for figure in [
            &mut self.first_page_s,
            &mut self.throughput_gbps,
            &mut self.throughput_up_gbps,
            &mut self.download_gbps,
            &mut self.protected_s,
            &mut self.page_after_gateway_restart_s,
            &mut self.page_after_agent_crash_s,
            &mut self.agent_memory_mb,
            &mut self.took_s,
        ] {
            *figure = (*figure * 1000.0).round() / 1000.0;
        }
    }

    pub(super) fn print(&self, json: bool) {
        let page = self.page();
        if json {
            eprintln!("{page}");
        } else {
            println!("{page}");
        }
    }

    fn page(&self) -> String {
        let mut lines = vec![
            String::new(),
            "Culvert, first light".to_owned(),
            "-".repeat(64),
        ];
        if let Some(error) = &self.error {
            lines.push(format!("FAILED: {error}"));
        } else {
            lines.extend(self.figures());
        }
        if !self.left_behind.is_empty() {
            lines.push(format!("LEFT BEHIND: {}", self.left_behind.join(", ")));
        }
        lines.push("-".repeat(64));
        lines.push(if self.ok {
            "All of it held.".to_owned()
        } else {
            "It did not hold.".to_owned()
        });
        lines.join("\n")
    }

    fn figures(&self) -> Vec<String> {
        let row = |what: &str, figure: String| format!("{what:<46} {figure:>17}");
        vec![
            row(
                "from power-on to protected",
                format!("{:.2} s", self.protected_s),
            ),
            row(
                "from power-on to the first page",
                format!("{:.2} s", self.first_page_s),
            ),
            row(
                "throughput, internet to home (iperf3)",
                format!("{:.2} Gb/s", self.throughput_gbps),
            ),
            row(
                "throughput, home to internet (iperf3)",
                format!("{:.2} Gb/s", self.throughput_up_gbps),
            ),
            row(
                "100 MB by curl, every byte compared",
                format!("{:.2} Gb/s", self.download_gbps),
            ),
            row(
                "lookups from the home answered as they should",
                self.lookups.to_string(),
            ),
            row(
                "page again after a gateway restart",
                format!("{:.2} s", self.page_after_gateway_restart_s),
            ),
            row(
                "page again after an agent crash",
                format!("{:.2} s", self.page_after_agent_crash_s),
            ),
            row(
                "the agent's memory at its peak",
                format!("{:.1} MB", self.agent_memory_mb),
            ),
            row(
                "WireGuard packets on the access wire",
                self.wireguard_packets.to_string(),
            ),
            row(
                "packets of enrolment's TLS",
                self.enrolment_tls_packets.to_string(),
            ),
            row(
                "packets in clear seen on the access wire",
                self.clear_packets.to_string(),
            ),
        ]
    }
}
