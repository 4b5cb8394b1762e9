//! `[sampling]`: volume by network of the internet, estimated from some of the packets.

use std::num::NonZeroU32;
use std::path::PathBuf;

use toml::Table;

use super::Mistake;
use super::fields::Fields;

/// Fewer would be a log of traffic.
const MIN_ONE_IN: u32 = 100;
const MAX_ONE_IN: u32 = 1_000_000;
const DEFAULT_ONE_IN: u32 = 1_000;

/// `[sampling]`.
#[derive(Clone, Debug)]
pub struct Sampling {
    /// `one-in`: one packet in so many is counted, 100 to 1000000. Default 1000.
    pub one_in: NonZeroU32,
    /// `prefixes`: a file with a prefix of the internet and its AS number or name on each line.
    pub prefixes: PathBuf,
}

pub(super) fn read_sampling(table: Table, mistakes: &mut Vec<Mistake>) -> Option<Sampling> {
    let mut fields = Fields::new("sampling", table, mistakes);
    let one_in = fields.number("one-in", MIN_ONE_IN, MAX_ONE_IN);
    let file_form = "the path of a file of prefixes and names";
    let prefixes = fields.parsed("prefixes", file_form);
    if prefixes.is_none() {
        fields.missing("prefixes", file_form);
    }
    fields.finish();
    Some(Sampling {
        one_in: NonZeroU32::new(one_in.unwrap_or(DEFAULT_ONE_IN))?,
        prefixes: prefixes?,
    })
}
