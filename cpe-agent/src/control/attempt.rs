//! Asking provisioning: which key is asked for, what becomes of the answer, when it is asked again.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::{info, warn};
use trust::ClaimCode;
use x25519_dalek::{PublicKey, StaticSecret};

use super::{Control, Link};
use crate::config::Config;
use crate::engine::Order;
use crate::enrol::{
    self, Applicant, ExchangeError, Exchanged, Refusal, Remedy, Secret, Wish, schedule,
};
use crate::exit::{Exit, chain};
use crate::people;
use crate::psk::{PostQuantum, Psks};
use crate::state::{Keys, StateError};
use crate::status::Condition;
use crate::status::socket::{self, Answers};

/// The WAN comes up by itself, and nobody is run over by asking a router that has no way out yet.
const NO_ROUTE_RETRY: Duration = Duration::from_secs(5);
/// Those who may wait for the same enrolment.
const MAX_LISTENERS: usize = 8;

/// An exchange under way. The task owns its connection; aborting it is like a cut cable, after which the same keys ask again.
pub(super) struct Attempt {
    task: JoinHandle<Result<Exchanged, ExchangeError>>,
    wg_pub: PublicKey,
}

/// How it ended.
pub(super) struct Outcome {
    wg_pub: PublicKey,
    result: Result<Exchanged, ExchangeError>,
}

impl Attempt {
    pub(super) async fn outcome(&mut self) -> Outcome {
        let result = (&mut self.task).await;
        // The task panicked or was aborted: as if the server had fallen silent.
        let result = result.unwrap_or(Err(ExchangeError::Silent("enrolling")));
        Outcome {
            wg_pub: self.wg_pub,
            result,
        }
    }

    pub(super) fn abort(&self) {
        self.task.abort();
    }
}

/// Who asks, with which tunnel key.
pub(crate) fn applicant(
    keys: &Keys,
    claim: Option<&ClaimCode>,
    (fleet_size, people_epoch): (u64, u64),
) -> Applicant {
    let tunnel = keys.next.as_ref().unwrap_or(&keys.tunnel);
    Applicant {
        device: keys.device.clone(),
        tunnel: Secret(StaticSecret::from(tunnel.to_bytes())),
        claim: claim.cloned(),
        fleet_size,
        people_epoch,
        wish: None,
    }
}

/// With whom pre-shared keys are still to be agreed for a tunnel key.
pub(crate) fn wish(config: &Config, psks: &Psks, wg_pub: &[u8; 32], now: u64) -> Option<Wish> {
    (config.tunnel.post_quantum == PostQuantum::On).then(|| Wish {
        known: psks.known(wg_pub),
        now,
    })
}

impl Control {
    /// A code that somebody typed: kept until it is used, and used at once.
    pub(super) fn on_code(&mut self, code: ClaimCode, answers: Answers) {
        if self.listeners.len() >= MAX_LISTENERS {
            self.listeners.clear();
        }
        if let Err(error) = self.state_dir.keep_claim(&code) {
            // A full conversation means that nobody reads it.
            let _ = answers.try_send(socket::refused(&chain(&error)));
            return;
        }
        self.claim = Some(code);
        self.listeners.push(answers);
        self.backoff.reset();
        if let Some(attempt) = self.attempt.take() {
            attempt.abort();
        }
        self.start_attempt();
    }

    pub(super) fn start_attempt(&mut self) {
        self.attempt_due = None;
        if let Err(error) = self.prepare_keys() {
            warn!(error = %chain(&error), "not asking provisioning, since what it answers could not be kept");
            self.explain(chain(&error));
            let pause = self.backoff.next();
            self.ask_in(pause);
            return;
        }
        let seen = (self.stored.fleet_size(), self.anchors.people.epoch());
        let mut applicant = applicant(&self.keys, self.claim.as_ref(), seen);
        let provisioning = self.config.provisioning.clone();
        info!(server = %provisioning.server, with_code = self.claim.is_some(), "asking provisioning");
        self.tell(&socket::progress(&format!(
            "asking the provisioning server {}",
            provisioning.server
        )));
        let wg_pub = PublicKey::from(&applicant.tunnel.0);
        let now = self.clock.now();
        applicant.wish = wish(&self.config, &self.psks, wg_pub.as_bytes(), now);
        let task = tokio::spawn(async move { enrol::exchange(&provisioning, &applicant).await });
        self.attempt = Some(Attempt { task, wg_pub });
        if self.bundle.is_none() && self.status.state != Condition::Enrolling {
            self.turn(Condition::Enrolling, self.lost.clone());
        }
    }

    /// A lease that is due gets a new tunnel key; otherwise the present one is asked for again, which changes nothing.
    fn prepare_keys(&mut self) -> Result<(), StateError> {
        let due = self.bundle.as_ref().is_some_and(|bundle| {
            let lease = &bundle.get().lease;
            schedule::is_due(lease.not_before, lease.not_after, self.clock.now())
        });
        if due {
            self.state_dir.prepare_next_key(&mut self.keys)
        } else {
            Ok(())
        }
    }

    pub(super) fn on_outcome(&mut self, outcome: Outcome) {
        self.attempt = None;
        match outcome.result {
            Ok(exchanged) => self.on_answer(exchanged, &outcome.wg_pub),
            Err(error) => self.on_failure(&error),
        }
    }

    fn on_answer(&mut self, exchanged: Exchanged, wg_pub: &PublicKey) {
        let Exchanged {
            changes,
            bundle,
            agreed,
        } = exchanged;
        let now = self.clock.now();
        let keep = |state: &_| self.state_dir.keep_people(state).map_err(|e| chain(&e));
        people::follow(&mut self.anchors, &changes, now, keep);
        self.status.authority = self.anchors.people.epoch();
        let (verified, stored) = match self.verify(&bundle, wg_pub) {
            Ok(verified) => verified,
            Err(error) => {
                warn!(%error, "the provisioning server's answer is refused");
                return self.fail(format!(
                    "the provisioning server's answer is refused: {error}"
                ));
            }
        };
        let is_agreed = !agreed.is_empty();
        self.psks.add(wg_pub.as_bytes(), agreed);
        if let Err(withheld) = self.peers_of(verified.get()) {
            warn!(error = %withheld, "the new lease is not used");
            return self.fail(withheld.to_string());
        }
        let kept = if is_agreed {
            self.state_dir.keep_psks(&self.psks)
        } else {
            Ok(())
        };
        let kept = kept.and_then(|()| {
            let bytes = bundle.to_bytes();
            self.state_dir
                .keep_lease(&mut self.keys, &bytes, wg_pub.as_bytes(), &stored)
        });
        if let Err(error) = kept {
            warn!(error = %chain(&error), "the new lease is not used, since it could not be kept");
            return self.fail(chain(&error));
        }
        if self.claim.take().is_some()
            && let Err(error) = self.state_dir.forget_claim()
        {
            warn!(error = %chain(&error), "the used claim code could not be removed");
        }
        self.backoff.reset();
        self.take_up(verified, stored);
        let Some(lease) = self.bundle.as_ref().map(|bundle| &bundle.get().lease) else {
            return;
        };
        let addresses: Vec<String> = lease.addresses.iter().map(ToString::to_string).collect();
        let sentence = format!(
            "enrolled: {} until unix time {}",
            addresses.join(", "),
            lease.not_after
        );
        let pause = schedule::until_renewal(lease.not_before, lease.not_after, self.clock.now());
        // A server that answers a due renewal with the old lease would otherwise be asked without a pause.
        self.ask_in(pause.max(Duration::from_secs(30)));
        self.tell(&socket::done(&sentence));
        self.listeners.clear();
    }

    fn on_failure(&mut self, error: &ExchangeError) {
        let sentence = chain(error);
        warn!(error = %sentence, "provisioning gave no lease");
        match error.remedy() {
            Remedy::Retry if is_without_route(error) => {
                self.explain(sentence.clone());
                self.ask_in(NO_ROUTE_RETRY);
                self.tell(&socket::progress(&format!("{sentence}; trying again")));
            }
            Remedy::Retry => self.fail(sentence),
            Remedy::NewClaim => self.on_refused_claim(error, sentence),
            Remedy::AskProvider => self.on_revoked(sentence),
        }
    }

    /// The provider's word alone ends no tunnel, since a lease is a lease until its gateway ends it: that is asked now.
    fn on_revoked(&mut self, sentence: String) {
        self.revoked = Some(sentence.clone());
        self.ask_in(schedule::rarely());
        self.refuse_listeners(&sentence);
        if self.link == Link::Up {
            self.turn(Condition::Protected, Some(sentence));
            self.engine.order(Order::Probe);
        } else {
            self.explain(sentence);
        }
    }

    fn on_refused_claim(&mut self, error: &ExchangeError, sentence: String) {
        if self.claim.take().is_some()
            && let Err(error) = self.state_dir.forget_claim()
        {
            warn!(error = %chain(&error), "the refused claim code could not be removed");
        }
        self.refuse_listeners(&sentence);
        let is_unknown_device = matches!(error, ExchangeError::Refused(Refusal::DeviceUnknown));
        if self.bundle.is_none() {
            self.turn(Condition::Unenrolled, Some(sentence));
        } else if is_unknown_device {
            self.explain(sentence);
        }
        // The provider may know the device later, from a manifest or after a mistake was mended.
        self.ask_in(schedule::rarely());
    }

    /// Says why it is not better, waits longer than the last time, and asks again.
    fn fail(&mut self, sentence: String) {
        self.explain(sentence.clone());
        let pause = self.backoff.next();
        self.ask_in(pause);
        self.tell(&socket::progress(&format!(
            "{sentence}; trying again in {} s",
            pause.as_secs().max(1)
        )));
    }

    /// A reason is shown where there is no lease or no tunnel; a home that is protected is shown protected.
    pub(super) fn explain(&mut self, sentence: String) {
        if self.link == Link::Up {
            return;
        }
        let state = match (&self.revoked, &self.bundle) {
            (Some(_), _) => Condition::Revoked,
            (None, Some(_)) => Condition::Connecting,
            (None, None) => Condition::Enrolling,
        };
        let reason = self
            .revoked
            .as_ref()
            .or(self.lost.as_ref())
            .filter(|known| **known != sentence);
        let reason = reason.map_or(sentence.clone(), |known| format!("{known}; {sentence}"));
        self.turn(state, Some(reason));
    }

    fn tell(&mut self, line: &str) {
        self.listeners
            .retain(|listener| listener.try_send(line.to_owned()).is_ok());
    }

    fn refuse_listeners(&mut self, sentence: &str) {
        self.tell(&socket::refused(sentence));
        self.listeners.clear();
    }
}

fn is_without_route(error: &ExchangeError) -> bool {
    let ExchangeError::Unreachable { source, .. } = error else {
        return false;
    };
    matches!(
        source.kind(),
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable
    )
}

/// With which code a failed exchange ends a command.
pub(crate) fn exit_of(error: &ExchangeError) -> Exit {
    let is_right_missing = matches!(error, ExchangeError::Unreachable { source, .. } if source.kind() == ErrorKind::PermissionDenied);
    if is_right_missing {
        Exit::Permission
    } else {
        Exit::Unavailable
    }
}
