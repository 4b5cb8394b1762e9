//! Lookups that came by the resolver's doors, for `status`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::counts;
use crate::doors::Figures;

/// The doors since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DoorsStatus {
    /// Connections at this moment, of all doors.
    pub open: u64,
    /// Queries, by door.
    pub queries: BTreeMap<String, u64>,
    /// Those of them that a kept answer was given to.
    pub shared: u64,
    /// What was turned away, by reason; reasons that never happened are left out.
    pub refused: BTreeMap<String, u64>,
}

impl DoorsStatus {
    pub(crate) fn new(figures: &Figures) -> Self {
        let of = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let refused = figures.turned_away().into_iter();
        let refused = refused.map(|(reason, times)| (reason.to_owned(), of(times)));
        let queries = figures.queries();
        Self {
            open: figures.open().map(|(_, open)| of(open)).sum(),
            queries: queries
                .map(|(door, queries)| (door.as_label().to_owned(), of(queries)))
                .collect(),
            shared: of(&figures.shared),
            refused: refused.filter(|(_, times)| *times > 0).collect(),
        }
    }

    pub(super) fn in_words(&self) -> String {
        let queries = counts(&self.queries);
        let mut line = format!(
            "doors      {} connections now; lookups: {queries}",
            self.open
        );
        if !self.refused.is_empty() {
            line += &format!("; turned away: {}", counts(&self.refused));
        }
        line
    }
}
