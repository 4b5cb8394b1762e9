//! Where the policy takes part in a question: once the cache has nothing for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{RCODE_SERVFAIL, Stub, is_bogus};
use crate::cache::{Cache, Found};
use crate::listen::Step;
use crate::policy::{Made, Policy, Verdict};
use crate::proto::Transport;
use crate::proto::message::{ExtendedError, Query, Response};

impl Stub {
    /// Empties the cache if the policy would let through other answers than it did.
    pub(super) fn follow_policy(&self) {
        let generation = self.policy.generation();
        if self.generation.load(Ordering::Relaxed) != generation {
            let mut cache = self.cache();
            *cache = Cache::new(self.config.cache_bytes);
            self.generation.store(generation, Ordering::Relaxed);
        }
    }

    /// Answers what the cache has nothing for: by itself, or with what a resolver says.
    pub(super) fn begin_unknown(
        self: &Arc<Self>,
        query: Query,
        key: &[u8],
        transport: Transport,
    ) -> Step {
        let target = match self.policy.decide(&query, key, self.now_s()) {
            Verdict::Answer(made) => return Step::Answer(self.give(&query, &made, transport)),
            Verdict::Alias(target) => Some(target),
            Verdict::Pass => None,
        };
        let stub = Arc::clone(self);
        Step::Wait(Box::pin(async move {
            let answer = match target {
                None => stub
                    .ask(&query)
                    .await
                    .map(|response| stub.deliver(&query, &response, transport)),
                Some(target) => stub
                    .cloaked(&query, &target)
                    .await
                    .map(|made| stub.give(&query, &made, transport)),
            };
            let failed = || query.refuse(RCODE_SERVFAIL, Some(ExtendedError::NetworkError));
            Ok(answer.unwrap_or_else(failed))
        }))
    }

    /// Keeps what was let through, unless the policy has changed since it was asked for.
    pub(super) fn keep(&self, query: &Query, response: &Response, generation: usize) {
        let now_s = self.now_s();
        let mut cache = self.cache();
        let key = query.key();
        if is_bogus(response) {
            // One that has not ended is good to its end.
            if matches!(cache.get(&key, now_s), Found::Stale(_)) {
                cache.forget(&key);
            }
        } else if self.policy.generation() == generation {
            cache.insert(query, response, now_s);
        }
    }

    fn give(&self, query: &Query, made: &Made, transport: Transport) -> Vec<u8> {
        self.finish(query, &made.stored, made.error, transport)
    }

    /// The answer to `query`, whose name stands for `target`. A target that stands for something itself is not
    /// followed.
    async fn cloaked(self: &Arc<Self>, query: &Query, target: &[u8]) -> Option<Made> {
        let asked = query.for_name(target);
        let answer = self.answer_of(&asked).await?;
        Policy::alias(query, target, &answer)
    }

    async fn answer_of(self: &Arc<Self>, asked: &Query) -> Option<Response> {
        let key = asked.key();
        let found = self.cache().get(&key, self.now_s());
        match found {
            Found::Fresh(stored) => return Response::read(&stored, asked).ok(),
            Found::Ending(stored) => {
                self.prefetch(asked);
                return Response::read(&stored, asked).ok();
            }
            Found::Stale(stored) => {
                if !self.is_vain(asked)
                    && let Some(renewed) = self.renewed(asked).await
                {
                    return Some(renewed.as_ref().clone());
                }
                self.stale.fetch_add(1, Ordering::Relaxed);
                return Response::read(&stored, asked).ok();
            }
            Found::Nothing => {}
        }
        match self.policy.decide(asked, &key, self.now_s()) {
            Verdict::Answer(made) => Response::read(&made.stored, asked).ok(),
            Verdict::Pass => Some(self.ask(asked).await?.as_ref().clone()),
            Verdict::Alias(_) => None,
        }
    }
}
