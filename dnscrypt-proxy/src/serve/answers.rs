//! Kept answers as a server gives them: under a key with everything that the answer depends on.

use crate::cache::{Cache, Look};
use crate::proto::message::{Query, Response};

/// What stands in a header; beyond it are EDNS's high bits, which a stored answer does not have.
const MAX_RCODE: u16 = 15;
pub(super) const RCODE_SERVFAIL: u16 = 2;

/// The kept answer to a query, made to fit it. Stale ones are none here: a server's workers have rules for them.
pub fn find(kept: &mut Cache, query: &Query, now_s: u64) -> Option<Vec<u8>> {
    match kept.look(&query.marked_key()?, query, now_s) {
        Look::Fresh(answer) | Look::Ending(answer) => Some(answer),
        Look::Stale | Look::Vain(_) | Look::Nothing => None,
    }
}

/// Reads an answer and keeps it if it may be kept. Whatever it is, but for a failure, nothing older is kept beside it.
pub fn keep(kept: &mut Cache, query: &Query, answer: &[u8], now_s: u64) -> Option<Response> {
    let key = query.marked_key()?;
    let response = read(query, answer)?;
    if response.rcode != RCODE_SERVFAIL {
        kept.forget(&key);
        kept.insert_under(&key, &response, now_s);
    }
    Some(response)
}

/// Reads an answer; `None`: it is none to this query, or cannot be stored.
pub(super) fn read(query: &Query, answer: &[u8]) -> Option<Response> {
    let response = Response::read(answer, query).ok()?;
    (response.rcode <= MAX_RCODE && query.is_question_of(answer)).then_some(response)
}
