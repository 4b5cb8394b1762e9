//! Relays: opened for a gateway that is silent, left again when its endpoint answers.

use tokio::time::Instant;
use tracing::info;
use trust::Verified;

use super::Control;
use crate::engine::{Order, WayEvent};
use crate::net::wan::Path;
use crate::relay::{RelayChange, RelayNews, WayOut};

impl Control {
    pub(super) fn on_way(&mut self, event: WayEvent) {
        match event {
            WayEvent::Silent(gateway) => {
                let gateways = self.bundle.as_ref().map(|b| &Verified::get(b).gateways);
                let silent = gateways
                    .into_iter()
                    .flatten()
                    .find(|record| record.wg_pub == gateway);
                if let Some(record) = silent {
                    self.relays.want(record);
                }
            }
            WayEvent::Relayed(gateway) => {
                self.relays.on_relayed(gateway);
                let name = self.gateway_name(&gateway).unwrap_or_default();
                let transport = self.relays.label(&gateway);
                info!(
                    gateway = name,
                    transport, "the gateway is reached through its relay"
                );
                self.look_at_network();
            }
            WayEvent::Home(gateway) => {
                self.relays.on_home(gateway);
                let name = self.gateway_name(&gateway).unwrap_or_default();
                info!(gateway = name, "the gateway is reached directly again");
                self.look_at_network();
            }
        }
    }

    pub(super) fn on_relay(&mut self, news: Option<RelayNews>) {
        let Some(news) = news else { return };
        if !self.relays.on_news(&news) {
            return;
        }
        let at = match news.what {
            RelayChange::Open { at, .. } => Some(at),
            RelayChange::Ended(_) => None,
        };
        self.engine.order(Order::Relay(news.gateway, at));
        self.look_at_network();
    }

    /// Relays are left with the way that they hang on; where the new one is blocked too they are opened anew on it.
    pub(super) fn relays_go_new_way(&mut self, path: &Path) {
        let way_out = path.out.map(|link| WayOut {
            link,
            interface: path.interface.clone(),
        });
        for gateway in self.relays.go_new_way(way_out) {
            self.engine.order(Order::Relay(gateway, None));
        }
    }

    /// Lets relays go that nobody needs any more.
    pub(super) fn leave_relays(&mut self) {
        while let Some(gateway) = self.relays.handle_timeout(Instant::now()) {
            self.engine.order(Order::Relay(gateway, None));
        }
    }
}
