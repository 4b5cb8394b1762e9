//! The ways in which a packet dies, and how often each did. A reason is also the metric's label.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Why a packet from a network was not used. Never an error: it is counted and forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Dropped {
    /// Shorter than the smallest packet of its kind.
    TooShort,
    /// Longer than the protocol allows.
    TooLong,
    /// The first eight bytes name no certificate that is served, and it is no certificate query.
    UnknownMagic,
    /// A public key that leads to an all-zero shared secret.
    WeakKey,
    /// The authentication tag does not match.
    BadTag,
    /// Authentic, but the padding is not ISO/IEC 7816-4.
    BadPadding,
    /// Not a DNS message, or not one with exactly one question.
    Malformed,
    /// A response where a query belongs.
    NotAQuery,
    /// A query where a response belongs.
    NotAResponse,
    /// A response to a nonce that is not outstanding.
    UnknownNonce,
    /// The id or the question differs from what was asked.
    WrongQuestion,
    /// Authentic, but the control block before the message is not what it says.
    BadControl,
    /// A ticket that was not sealed here, or was altered.
    BadTicket,
    /// A ticket under a key that is gone.
    UnknownTicketKey,
    /// A ticket whose time is over.
    ExpiredTicket,
    /// A ticket for a certificate that is not in use.
    TicketOfOtherCert,
    /// A relay was to forward to what is no host of the internet.
    RelayTarget,
    /// A relay was to forward to a port outside its policy.
    RelayPort,
    /// A relay was to forward to itself, or to another relay.
    RelayLoop,
    /// A relay was to forward what begins as QUIC does.
    RelayQuic,
    /// A relay was to forward a query in clear that is not for certificates.
    RelayPlainQuery,
    /// An answer came to a relay from somebody it had not asked.
    RelaySource,
    /// As many clients of unknown keys wait as are allowed; they have a budget of their own.
    StrangersOverBudget,
    /// Its source has asked as often as it may.
    OverRate,
    /// As many queries in flight as are allowed.
    Overloaded,
    /// As many TCP connections as are allowed, in all or from one address.
    TooManyConnections,
    /// The other side of a TCP connection was too slow.
    TimedOut,
    /// The handler had no answer.
    Unanswered,
    /// The operating system would not send it.
    SendFailed,
}

impl Dropped {
    /// Every reason, in the order of the counters.
    pub const ALL: [Self; 29] = [
        Self::TooShort,
        Self::TooLong,
        Self::UnknownMagic,
        Self::WeakKey,
        Self::BadTag,
        Self::BadPadding,
        Self::Malformed,
        Self::NotAQuery,
        Self::NotAResponse,
        Self::UnknownNonce,
        Self::WrongQuestion,
        Self::BadControl,
        Self::BadTicket,
        Self::UnknownTicketKey,
        Self::ExpiredTicket,
        Self::TicketOfOtherCert,
        Self::RelayTarget,
        Self::RelayPort,
        Self::RelayLoop,
        Self::RelayQuic,
        Self::RelayPlainQuery,
        Self::RelaySource,
        Self::StrangersOverBudget,
        Self::OverRate,
        Self::Overloaded,
        Self::TooManyConnections,
        Self::TimedOut,
        Self::Unanswered,
        Self::SendFailed,
    ];

    /// The name used in metrics and in `status`.
    #[must_use]
    pub fn as_label(self) -> &'static str {
        match self {
            Self::TooShort => "too_short",
            Self::TooLong => "too_long",
            Self::UnknownMagic => "unknown_magic",
            Self::WeakKey => "weak_key",
            Self::BadTag => "bad_tag",
            Self::BadPadding => "bad_padding",
            Self::Malformed => "malformed",
            Self::NotAQuery => "not_a_query",
            Self::NotAResponse => "not_a_response",
            Self::UnknownNonce => "unknown_nonce",
            Self::WrongQuestion => "wrong_question",
            Self::BadControl => "bad_control",
            Self::BadTicket => "bad_ticket",
            Self::UnknownTicketKey => "unknown_ticket_key",
            Self::ExpiredTicket => "expired_ticket",
            Self::TicketOfOtherCert => "ticket_of_other_cert",
            Self::RelayTarget => "relay_target",
            Self::RelayPort => "relay_port",
            Self::RelayLoop => "relay_loop",
            Self::RelayQuic => "relay_quic",
            Self::RelayPlainQuery => "relay_plain_query",
            Self::RelaySource => "relay_source",
            Self::StrangersOverBudget => "strangers_over_budget",
            Self::OverRate => "over_rate",
            Self::Overloaded => "overloaded",
            Self::TooManyConnections => "too_many_connections",
            Self::TimedOut => "timed_out",
            Self::Unanswered => "unanswered",
            Self::SendFailed => "send_failed",
        }
    }
}

/// What a server or a stub counted since it started. Word-sized, so that 32-bit routers need no
/// 64-bit atomics; there the figures wrap.
#[derive(Debug, Default)]
pub struct Counters {
    udp_queries: AtomicUsize,
    tcp_queries: AtomicUsize,
    cert_queries: AtomicUsize,
    answers: AtomicUsize,
    truncated: AtomicUsize,
    shared: AtomicUsize,
    shared_failures: AtomicUsize,
    post_quantum: AtomicUsize,
    stale: AtomicUsize,
    ahead: AtomicUsize,
    dropped: [AtomicUsize; Dropped::ALL.len()],
}

/// The events of [`Counters`] that are no drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// A query arrived over UDP and was understood.
    UdpQuery,
    /// A query arrived over TCP and was understood.
    TcpQuery,
    /// A certificate was asked for.
    CertQuery,
    /// An answer was sent.
    Answer,
    /// That answer was cut to the question because it did not fit.
    Truncated,
    /// A query was answered with what had been asked for another one.
    Shared,
    /// It failed with another one that asked the same at the same time.
    SharedFailure,
    /// A query that arrived was sealed under a post-quantum certificate.
    PostQuantum,
    /// A query was answered with what had ended, for want of better.
    Stale,
    /// A question was asked before anybody had to wait.
    Ahead,
}

impl Counters {
    /// Counts one packet that was not used.
    pub fn drop_packet(&self, reason: Dropped) {
        if let Some(counter) = self.dropped.get(reason as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts one event.
    pub fn count(&self, event: Counted) {
        self.cell(event).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an event that happened so many times.
    pub fn count_many(&self, event: Counted, times: usize) {
        self.cell(event).fetch_add(times, Ordering::Relaxed);
    }

    /// How often an event happened.
    #[must_use]
    pub fn get(&self, event: Counted) -> usize {
        self.cell(event).load(Ordering::Relaxed)
    }

    /// How often packets died of one reason.
    #[must_use]
    pub fn dropped(&self, reason: Dropped) -> usize {
        self.dropped
            .get(reason as usize)
            .map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    /// The reasons that occurred, with how often.
    pub fn all_dropped(&self) -> impl Iterator<Item = (Dropped, usize)> + '_ {
        Dropped::ALL
            .iter()
            .map(|reason| (*reason, self.dropped(*reason)))
            .filter(|(_, times)| *times > 0)
    }

    fn cell(&self, event: Counted) -> &AtomicUsize {
        match event {
            Counted::UdpQuery => &self.udp_queries,
            Counted::TcpQuery => &self.tcp_queries,
            Counted::CertQuery => &self.cert_queries,
            Counted::Answer => &self.answers,
            Counted::Truncated => &self.truncated,
            Counted::Shared => &self.shared,
            Counted::SharedFailure => &self.shared_failures,
            Counted::PostQuantum => &self.post_quantum,
            Counted::Stale => &self.stale,
            Counted::Ahead => &self.ahead,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter_and_its_own_label() {
        let counters = Counters::default();

        for reason in Dropped::ALL {
            counters.drop_packet(reason);
        }

        let seen: Vec<_> = counters.all_dropped().collect();
        assert_eq!(seen.len(), Dropped::ALL.len());
        assert!(seen.iter().all(|(_, times)| *times == 1));
        let labels: std::collections::BTreeSet<_> =
            Dropped::ALL.iter().map(|r| r.as_label()).collect();
        assert_eq!(labels.len(), Dropped::ALL.len());
    }
}
