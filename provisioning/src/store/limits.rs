//! The two columns of what a line may carry, as claims and devices have them.

use anyhow::Context;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use trust::{BitRate, Limits};

use super::{signed, unsigned};

/// What to bind for them, from the internet first.
pub(super) fn columns(limits: &Limits) -> anyhow::Result<[Option<i64>; 2]> {
    let column = |rate: Option<BitRate>| rate.map(|rate| signed(rate.bits_per_s().get()));
    Ok([
        column(limits.down).transpose()?,
        column(limits.up).transpose()?,
    ])
}

/// Reads them.
pub(super) fn from_columns(row: &SqliteRow) -> anyhow::Result<Limits> {
    let rate = |name| -> anyhow::Result<Option<BitRate>> {
        let bits: Option<i64> = row.try_get(name)?;
        let read = |bits| BitRate::new(unsigned(bits).ok()?);
        let rate = bits.map(|bits| read(bits).with_context(|| format!("{name} is out of bounds")));
        rate.transpose()
    };
    Ok(Limits {
        down: rate("limit_down")?,
        up: rate("limit_up")?,
    })
}
