//! Kept answers as a server gives them: under a key with everything that the answer depends on.

use crate::cache::Cache;
use crate::proto::message::{Query, Response};

/// What stands in a header; beyond it are EDNS's high bits, which a stored answer does not have.
const MAX_RCODE: u16 = 15;

/// The kept answer to a query, made to fit it. Stale ones are none: the resolver behind has its own judgement
/// of what is too old.
pub fn find(kept: &mut Cache, query: &Query, now_s: u64) -> Option<Vec<u8>> {
    kept.fresh(&query.marked_key()?, query, now_s)
}

/// Reads an answer and keeps it if it may be kept.
pub fn keep(kept: &mut Cache, query: &Query, answer: &[u8], now_s: u64) -> Option<Response> {
    let key = query.marked_key()?;
    let response = Response::read(answer, query).ok()?;
    if response.rcode > MAX_RCODE || !query.is_question_of(answer) {
        return None;
    }
    kept.insert_under(&key, &response, now_s);
    Some(response)
}
