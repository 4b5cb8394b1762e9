//! Progress as a person sees it: numbered steps, each with what came of it.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

pub(super) struct Steps {
    quiet_stdout: bool,
    number: u32,
    start: Instant,
}

impl Steps {
    /// With `json` everything goes to stderr, since stdout's last line is for a machine.
    pub(super) fn new(json: bool) -> Self {
        Self {
            quiet_stdout: json,
            number: 0,
            start: Instant::now(),
        }
    }

    pub(super) fn begin(&mut self, what: &str) {
        self.number += 1;
        self.say(&format!(
            "{:>2}. [{:5.1} s] {what}",
            self.number,
            self.start.elapsed().as_secs_f32()
        ));
    }

    pub(super) fn done(&self, outcome: &str) {
        self.say(&format!("              {outcome}"));
    }

    pub(super) fn say(&self, line: &str) {
        if self.quiet_stdout {
            eprintln!("{line}");
        } else {
            println!("{line}");
            // A reader that went away does not stop the demo.
            let _ = std::io::stdout().flush();
        }
    }
}

/// What there is to do in a lab that was kept.
pub(super) fn what_to_type(removal: &Path, work: &Path) -> String {
    format!(
        "\nThe lab is up. To try:\n\
         \x20 ip netns exec culvert-home dig www.first-light.lab\n\
         \x20 ip netns exec culvert-home curl http://www.first-light.lab/\n\
         \x20 ip netns exec culvert-home iperf3 -c 203.0.113.10 -R\n\
         \x20 ip netns exec culvert-access tcpdump -ni rtr0\n\
         \x20 ip netns exec culvert-router nft list ruleset\n\
         \x20 cpe-agent status --watch --config {work}/router/agent.toml\n\
         \x20 edge-gateway status --watch --socket {work}/gateway.sock\n\
         Configurations and logs are in {work}.\n\
         To remove it:\n\
         \x20 sh {}\n",
        removal.display(),
        work = work.display(),
    )
}
