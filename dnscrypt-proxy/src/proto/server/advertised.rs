//! Which certificates are handed out, and the answers that they fit into. Section of the draft: "Certificate
//! Retrieval".

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Keyring, ResolverKey};
use crate::proto::Transport;
use crate::proto::message;
use crate::proto::xwing::CIPHERTEXT;

/// Certificates of one system that are handed out at one time.
const ADVERTISED: usize = 2;
/// How far clients' clocks may be behind, where there is room for one certificate alone.
const SETTLED_AFTER_S: u32 = 3600;

impl Keyring {
    /// The certificates to hand out at a moment, as TXT data, the newest first: of each system the newest, and
    /// the one before it for clients whose clocks are behind. While the provider has two keys, one of each system and
    /// key: the newest that suits such clients, too. More would not fit into what clients take.
    #[must_use]
    pub fn advertised(&self, now: u64) -> Vec<&[u8]> {
        let mut valid: Vec<_> = self
            .keys
            .iter()
            .filter(|key| key.cert.check_time(now).is_ok())
            .collect();
        let signers: HashSet<_> = valid.iter().map(|key| key.signer).collect();
        let is_changing = signers.len() > 1;
        let most = if is_changing { 1 } else { ADVERTISED };
        let newest = |key: &&Arc<ResolverKey>| {
            let suits_all = !is_changing || key.is_settled(now);
            std::cmp::Reverse((suits_all, key.cert.serial))
        };
        valid.sort_by_key(newest);
        let mut of_kind = HashMap::new();
        valid.retain(|key| {
            let kind = (key.signer, key.cert.system);
            let count: &mut usize = of_kind.entry(kind).or_default();
            *count += 1;
            *count <= most
        });
        valid.into_iter().map(|key| key.wire.as_slice()).collect()
    }

    /// The answer to a query for the certificates that came as `query_len` bytes.
    // MUST NOT, "Certificate Retrieval": post-quantum certificates over UDP in more bytes than the query
    // had, or than its sender takes; what is left out is told by TC. MUST there: all of them over TCP.
    #[must_use]
    pub fn cert_answer(
        &self,
        query: &message::Query,
        query_len: usize,
        transport: Transport,
        ttl_s: u32,
        now: u64,
    ) -> Vec<u8> {
        let all = self.advertised(now);
        let whole = query.answer_txt(&all, ttl_s);
        let classical: Vec<_> = all
            .iter()
            .copied()
            .filter(|wire| wire.len() < CIPHERTEXT)
            .collect();
        let room = match transport {
            Transport::Tcp => return whole,
            Transport::Udp if classical.len() == all.len() => query.udp_size(),
            Transport::Udp => query.udp_size().min(query_len),
        };
        if whole.len() <= room {
            return whole;
        }
        let mut answer = query.answer_txt(&classical, ttl_s);
        if answer.len() > query.udp_size() {
            answer = query.answer_txt(classical.get(..1).unwrap_or_default(), ttl_s);
        }
        message::mark_incomplete(&mut answer);
        answer
    }
}

impl ResolverKey {
    /// Whether every client thinks that its time has come: their clocks may be behind.
    fn is_settled(&self, now: u64) -> bool {
        let life_s = self.cert.end.saturating_sub(self.cert.start);
        let margin_s = (life_s / 4).min(SETTLED_AFTER_S);
        now >= u64::from(self.cert.start) + u64::from(margin_s)
    }
}
