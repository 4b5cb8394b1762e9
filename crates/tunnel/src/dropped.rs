//! Every way a packet dies here: returned to the caller, counted, never logged. The labels are the metric's.

/// Why a packet went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dropped {
    /// Not an IP packet, or not a WireGuard message.
    Malformed,
    /// Longer than the tunnel's MTU or the buffer given.
    TooBig,
    /// No peer has the destination; at the agent: it is no address of ours.
    NotRouted,
    /// The inner source address is not one that its sender may use.
    SourceMismatch,
    /// An initiation proves a key that holds no lease.
    UnknownPeer,
    /// A handshake message that was not made for our public key.
    WrongRecipient,
    /// Under load: a cookie went back, or its address has sent too many; or the budget for waking peers is spent.
    RateLimited,
    /// No session has that receiver index, or none could be asked for.
    NoSession,
    /// The counter or the initiation's timestamp has been seen.
    Replayed,
    /// The ciphertext does not authenticate.
    Forged,
    /// A response or a cookie that nothing asked for.
    Unexpected,
    /// The peer's lease has ended.
    LeaseExpired,
    /// Too much is waiting for a session or for the socket.
    QueueFull,
    /// Too many peers are awake.
    TableFull,
    /// More than the rate of the lease.
    OverLimit,
    /// The path marked congestion and the inner flow cannot be told (RFC 6040).
    Congested,
}

impl Dropped {
    /// Every reason, in the order of [`DropCounts`].
    pub const ALL: [Self; 16] = [
        Self::Malformed,
        Self::TooBig,
        Self::NotRouted,
        Self::SourceMismatch,
        Self::UnknownPeer,
        Self::WrongRecipient,
        Self::RateLimited,
        Self::NoSession,
        Self::Replayed,
        Self::Forged,
        Self::Unexpected,
        Self::LeaseExpired,
        Self::QueueFull,
        Self::TableFull,
        Self::OverLimit,
        Self::Congested,
    ];

    /// The metric's label value.
    #[must_use]
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooBig => "too_big",
            Self::NotRouted => "not_routed",
            Self::SourceMismatch => "source_mismatch",
            Self::UnknownPeer => "unknown_peer",
            Self::WrongRecipient => "wrong_recipient",
            Self::RateLimited => "rate_limited",
            Self::NoSession => "no_session",
            Self::Replayed => "replayed",
            Self::Forged => "forged",
            Self::Unexpected => "unexpected",
            Self::LeaseExpired => "lease_expired",
            Self::QueueFull => "queue_full",
            Self::TableFull => "table_full",
            Self::OverLimit => "over_limit",
            Self::Congested => "congested",
        }
    }
}

/// How many packets died, by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DropCounts([u64; Dropped::ALL.len()]);

impl DropCounts {
    /// How many died of `reason`.
    #[must_use]
    pub fn get(&self, reason: Dropped) -> u64 {
        self.0.get(reason as usize).copied().unwrap_or(0)
    }

    /// Every reason with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Dropped, u64)> + '_ {
        Dropped::ALL.into_iter().zip(self.0)
    }

    /// All of them together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    pub(crate) fn add(&mut self, reason: Dropped) {
        self.add_many(reason, 1);
    }

    pub(crate) fn add_many(&mut self, reason: Dropped, packets: usize) {
        if let Some(count) = self.0.get_mut(reason as usize) {
            *count += packets as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_counts_under_a_label_of_its_own() {
        for (place, reason) in Dropped::ALL.into_iter().enumerate() {
            let mut counts = DropCounts::default();

            counts.add(reason);

            assert_eq!(reason as usize, place);
            assert_eq!((counts.get(reason), counts.total()), (1, 1));
            let same = Dropped::ALL
                .iter()
                .filter(|r| r.as_label() == reason.as_label());
            assert_eq!(same.count(), 1);
        }
    }
}
