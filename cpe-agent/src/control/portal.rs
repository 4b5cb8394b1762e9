//! The captive-portal window: opened by the subscriber alone, shut when its time is over or the tunnel is up.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{Control, Link};
use crate::config::KillSwitch;
use crate::exit::chain;
use crate::net::portal::{self, Window};
use crate::status::socket::{self, Answers};

impl Control {
    pub(super) fn on_open_portal(
        &mut self,
        device: Ipv4Addr,
        lasts: Option<Duration>,
        answers: &Answers,
    ) {
        let answer = match self.open_portal(device, lasts) {
            Ok(sentence) => socket::done(&sentence),
            Err(sentence) => socket::refused(&sentence),
        };
        // One line always fits into a new conversation.
        let _ = answers.try_send(answer);
    }

    fn open_portal(&mut self, device: Ipv4Addr, lasts: Option<Duration>) -> Result<String, String> {
        if self.link == Link::Up {
            return Err("the tunnel is up: no portal is in the way".to_owned());
        }
        if self.config.kill_switch == KillSwitch::Off {
            return Err("the kill-switch is off: nothing is shut".to_owned());
        }
        let lasts = lasts.unwrap_or(self.config.portal.window);
        let window = Window {
            device,
            resolver: portal::resolver(&self.config.portal.resolvers),
            until: Instant::now() + lasts,
        };
        self.network
            .set_window(Some(window))
            .map_err(|error| chain(&error))?;
        warn!(
            seconds = lasts.as_secs(),
            "a captive-portal window is open: web of one device leaves in clear"
        );
        let lookups = match window.resolver {
            Some(_) => "web and lookups",
            None => "web, but no lookups since the access network has named no resolver,",
        };
        Ok(format!(
            "open for {} s: {lookups} of {device} leave in clear",
            lasts.as_secs()
        ))
    }

    pub(super) fn on_close_portal(&mut self, answers: &Answers) {
        self.close_portal("the subscriber has shut it");
        // One line always fits into a new conversation.
        let _ = answers.try_send(socket::done("shut"));
    }

    /// Shuts the window if it is open.
    pub(super) fn close_portal(&mut self, why: &'static str) {
        if self.network.window().is_none() {
            return;
        }
        match self.network.set_window(None) {
            Ok(()) => info!(why, "the captive-portal window is shut"),
            Err(error) => {
                warn!(error = %chain(&error), "the captive-portal window shuts by the kernel's clock alone")
            }
        }
    }

    /// The kernel has shut it by then; the rest of its rules go too.
    pub(super) fn keep_portal_time(&mut self) {
        if self
            .network
            .window()
            .is_some_and(|window| window.left().is_none())
        {
            self.close_portal("its time is over");
        }
    }

    pub(super) fn portal_due(&self) -> Option<Instant> {
        self.network.window().map(|window| window.until)
    }
}
