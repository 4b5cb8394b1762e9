//! The length of packets follows the path: what its link takes, and what probes found of the rest.

use std::time::Instant;

use super::probe::Line;
use super::{AgentEvent, AgentTunnel, Link};

impl AgentTunnel {
    /// Takes packets up to another length from now on, since the link of the path to the gateway has changed; less where
    /// the rest of the path turns out to take less, which [`AgentEvent::PathMtu`] tells.
    pub fn set_mtu(&mut self, mtu: u16, now: Instant) {
        self.probe.set_ceiling(mtu);
        self.use_mtu(mtu, now);
        self.work(now);
    }

    fn use_mtu(&mut self, mtu: u16, now: Instant) {
        self.shape.mtu = mtu.into();
        for path in &mut self.paths {
            path.wg.set_mtu(mtu.into());
            path.watch.tell(now);
        }
        self.tell(AgentEvent::PathMtu { mtu });
    }

    /// Follows what the last answers said.
    pub(super) fn follow_probe(&mut self, now: Instant) {
        let mtu = self.probe.mtu();
        if self.shape.mtu != usize::from(mtu) {
            self.use_mtu(mtu, now);
        }
    }

    /// Sends the probes that are due to a gateway that answers asks, and says when the next are.
    pub(super) fn probe_path(&mut self, now: Instant) -> Option<Instant> {
        let is_at_work = self.is_at_work(now);
        let want = self.want(self.active, now);
        let path = self.paths.get_mut(self.active)?;
        if !matches!(self.link, Link::Connected { .. }) || !path.watch.answers() {
            return None;
        }
        let rtt = path.watch.rtt();
        let line = Line { rtt, is_at_work };
        for length in self.probe.handle_timeout(line, now) {
            let sequence = self.probe.sequence(length);
            path.probe(&want, (sequence, self.moves), length, &mut self.outbox, now);
        }
        self.probe.next(line)?
    }
}
