//! From a query to its answer, by whichever door it came: the gateway's own names first, then the resolver.

use std::sync::Arc;

use crate::dns::Figures;
use crate::own_names::OwnNames;
use crate::resolver::{Outcome, Resolver};

/// What answers; a copy for each who asks.
#[derive(Clone)]
pub(crate) struct Answers {
    own: Arc<OwnNames>,
    resolver: Arc<Resolver>,
    figures: Arc<Figures>,
}

impl Answers {
    pub(crate) fn new(own: OwnNames, resolver: Resolver, figures: Arc<Figures>) -> Self {
        Self {
            own: Arc::new(own),
            resolver: Arc::new(resolver),
            figures,
        }
    }

    /// Answers one query; `None` when it is not a query at all.
    pub(crate) async fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        if let Some(answer) = self.own.answer(query) {
            self.figures.count(Outcome::Answered);
            return Some(answer);
        }
        let (answer, outcome) = self.resolver.answer(query).await;
        self.figures.count(outcome);
        answer
    }
}
