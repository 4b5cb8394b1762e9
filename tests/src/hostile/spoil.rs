//! Queries, and how they are spoiled: in the places where a parser decides something.

use anyhow::Result;
use dnscrypt_proxy::proto::message::{self, HEADER};

use crate::certificates::refused;
use crate::dice::Dice;
use crate::zones::{EVIL_ZONE, MANY_NAMES, MANY_UNSIGNED_NAMES, WILD_NAMES};

const TYPES: [u16; 12] = [1, 1, 1, 28, 16, 15, 2, 6, 43, 48, 65, 65_280];
/// Zone transfers, ANY, OPT, TSIG, TKEY and what is no type.
const ODD_TYPES: [u16; 9] = [251, 252, 253, 255, 41, 249, 250, 0, 65_535];
const ODD_CLASSES: [u16; 5] = [0, 3, 254, 255, 65_535];
const ODD_COUNTS: [u16; 6] = [0, 1, 2, 255, 4_096, 65_535];
const TYPE_BACK: usize = 4;
const CLASS_BACK: usize = 2;
/// An empty OPT record.
const OPT: [u8; 11] = [0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0];
/// A cookie that is shorter than it says.
const OPT_CUT: [u8; 15] = [0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 4, 0, 10, 0, 99];
/// The question's own name, an address.
const RECORD: [u8; 16] = [0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 203, 0, 113, 99];
/// Names with as many labels as fit, and with one more.
const LABELS: [usize; 2] = [127, 128];

/// A query as anybody asks it; nearly all are for names that are kept.
pub(super) fn query(dice: &mut Dice) -> Result<Vec<u8>> {
    let n = dice.roll(400);
    let name = match dice.roll(100) {
        0..=91 => format!("n{n}.{MANY_NAMES}"),
        92..=96 => format!("n{n}.{MANY_UNSIGNED_NAMES}"),
        97 => format!("r{}.{EVIL_ZONE}", dice.roll(1 << 40)),
        _ => format!("r{}.{WILD_NAMES}", dice.roll(1 << 40)),
    };
    let (kind, id) = (one_of(dice, &TYPES), number(dice));
    message::query(id, &name, kind.into(), 1_232).map_err(refused("writing a query"))
}

/// Changes a message in one to three ways.
pub(super) fn message(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.roll(3) {
        once(bytes, dice);
    }
}

fn once(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let (question_end, len) = (question_end(bytes), bytes.len());
    match dice.roll(18) {
        0 => put(bytes, 2 + place(dice, 2), &[byte(dice)]),
        1 => {
            let count = one_of(dice, &ODD_COUNTS).to_be_bytes();
            put(bytes, 4 + 2 * place(dice, 4), &count);
        }
        2 => bytes.truncate(place(dice, bytes.len())),
        3 => noise(bytes, 1 + place(dice, 64), dice),
        4 => {
            let at = HEADER + place(dice, bytes.len());
            put(bytes, at, &[0xc0 | byte(dice), byte(dice)]);
        }
        5 => put(bytes, HEADER, &[0xc0, 12]),
        6 => put(bytes, HEADER, &[byte(dice)]),
        7 => {
            let kind = one_of(dice, &ODD_TYPES).to_be_bytes();
            put(bytes, question_end.saturating_sub(TYPE_BACK), &kind);
        }
        8 => {
            let class = one_of(dice, &ODD_CLASSES).to_be_bytes();
            put(bytes, question_end.saturating_sub(CLASS_BACK), &class);
        }
        9 => append(bytes, &OPT, 10),
        10 => append(bytes, &OPT_CUT, 10),
        11 => append(bytes, &RECORD, 6 + 2 * place(dice, 3)),
        12 => many_labels(bytes, LABELS[place(dice, LABELS.len())], question_end),
        13 => {
            let question = bytes.get(HEADER..question_end).unwrap_or_default().to_vec();
            append(bytes, &question, 4);
        }
        14 => flip(bytes, 0..HEADER, dice),
        15 => flip(bytes, question_end..len, dice),
        16 => flip(bytes, 0..len, dice),
        _ => put(bytes, question_end + 1 + place(dice, 12), &[byte(dice)]),
    }
}

/// Where a question ends that nothing was done to yet.
fn question_end(bytes: &[u8]) -> usize {
    let mut at = HEADER;
    while let Some(len) = bytes.get(at).filter(|len| **len != 0 && **len < 64) {
        at += 1 + usize::from(*len);
    }
    (at + 5).min(bytes.len())
}

/// Puts bytes at the end, and one to the count that stands at a place.
fn append(bytes: &mut Vec<u8>, more: &[u8], count_at: usize) {
    bytes.extend_from_slice(more);
    let count = bytes.get(count_at..).and_then(|rest| rest.first_chunk());
    let count = count.map_or(0, |two| u16::from_be_bytes(*two));
    put(bytes, count_at, &count.wrapping_add(1).to_be_bytes());
}

fn many_labels(bytes: &mut Vec<u8>, count: usize, question_end: usize) {
    let name_end = question_end.saturating_sub(5);
    if name_end > HEADER {
        bytes.splice(HEADER..name_end, [1, b'a'].repeat(count));
    }
}

/// Changes one to four bits within a range.
pub(super) fn flip(bytes: &mut [u8], within: std::ops::Range<usize>, dice: &mut Dice) {
    for _ in 0..=dice.roll(4) {
        let at = within.start + place(dice, within.len());
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << dice.roll(8);
        }
    }
}

/// Puts bytes over a place, as far as there is room.
pub(super) fn put(bytes: &mut [u8], at: usize, over: &[u8]) {
    for (place, byte) in bytes.iter_mut().skip(at).zip(over) {
        *place = *byte;
    }
}

/// Adds random bytes.
pub(super) fn noise(bytes: &mut Vec<u8>, count: usize, dice: &mut Dice) {
    bytes.extend((0..count).map(|_| byte(dice)));
}

pub(super) fn byte(dice: &mut Dice) -> u8 {
    dice.roll(256).to_le_bytes()[0]
}

pub(super) fn number(dice: &mut Dice) -> u16 {
    u16::from_be_bytes([byte(dice), byte(dice)])
}

/// A place below a length; 0 where there is none.
pub(super) fn place(dice: &mut Dice, len: usize) -> usize {
    usize::try_from(dice.roll(len as u64)).unwrap_or_default()
}

pub(super) fn one_of(dice: &mut Dice, numbers: &[u16]) -> u16 {
    let at = place(dice, numbers.len());
    numbers.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_of_what_is_spoiled_is_no_query_any_more_and_some_of_it_still_is() {
        let mut dice = Dice::new(5);
        let readable = (0..2_000)
            .filter(|_| {
                let mut bytes = query(&mut dice).unwrap();
                assert!(message::Query::read(&bytes).is_ok());
                message(&mut bytes, &mut dice);
                message::Query::read(&bytes).is_ok()
            })
            .count();

        assert!((100..1_500).contains(&readable), "{readable}");
    }
}
