//! Zones with every turn that a lookup can take, and questions about them: names that are there, and names that are
//! not in each of the ways in which a name can be missing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Denial, delegation, sign, zone};
use crate::dice::Dice;
use crate::topology::{WEB, WEB_V6, ZONE_SERVER};

/// A zone with NSEC, one with NSEC3, and two below the first, one of them without signatures.
const ZONES: [&str; 4] = ["maze.", "hashed.", "child.maze.", "loose.maze."];
/// Every one of these zones has them.
const IN_EACH: [&str; 10] = [
    "www", "mail", "caa", "*.w", "x.y.w", "a.b.c", "c1", "c3", "gone", "empty",
];
/// And only `maze.` has these.
const IN_ONE: [&str; 26] = [
    "_sip._udp.maze.",
    "ptr.maze.",
    "odd-type.maze.",
    "zero.maze.",
    "*.cw.maze.",
    "*.cn.maze.",
    "c8.maze.",
    "out.maze.",
    "to-loose.maze.",
    "to-child.maze.",
    "to-hashed.maze.",
    "to-bogus.maze.",
    "wide.maze.",
    "wider.maze.",
    "long.maze.",
    "UPPER.Case.maze.",
    "under_score.maze.",
    r"dot\.dot.maze.",
    r"sp\032ace.maze.",
    r"\000bin\255.maze.",
    "st*r.maze.",
    "a.*.star.maze.",
    "xn--nxasmq6b.maze.",
    "up.child.maze.",
    "in.loose.maze.",
    "nothing.maze.",
];
/// Names outside of these zones.
const ELSEWHERE: [&str; 12] = [
    ".",
    "lab.",
    "plain.",
    "www.first-light.lab.",
    "big.first-light.lab.",
    "n7.many.first-light.lab.",
    "any.wild.first-light.lab.",
    "alias.first-light.lab.",
    "www.plain.",
    "www.bogus.",
    "nowhere.",
    "www.nowhere.",
];
/// Not NSEC: of an alias some resolvers give the alias's, others its target's.
const TYPES: [&str; 17] = [
    "A",
    "AAAA",
    "A",
    "TXT",
    "MX",
    "NS",
    "SOA",
    "SRV",
    "CNAME",
    "DS",
    "DNSKEY",
    "PTR",
    "CAA",
    "DNAME",
    "HTTPS",
    "TYPE65280",
    "TYPE1234",
];
const LONGEST_LABEL: usize = 63;
/// In presentation; what a question has room for.
const LONGEST_NAME: usize = 250;

/// Writes and signs them, and gives the DS records for the root.
pub(super) fn make(dir: &Path) -> Result<String> {
    let child = format!(
        "{}up.child.maze. IN CNAME www.maze.\n",
        of_each("child.maze.")
    );
    let child = sign(
        dir,
        "child.maze.",
        &zone("child.maze.", &child),
        Denial::Nsec,
    )?;
    let loose = format!(
        "{}in.loose.maze. IN CNAME www.maze.\n",
        of_each("loose.maze.")
    );
    fs::write(dir.join("loose.maze.zone"), zone("loose.maze.", &loose))
        .context("writing a zone")?;
    let cuts: String = ["child.maze.", "loose.maze."]
        .map(|below| delegation(below, ZONE_SERVER))
        .concat();
    let maze = format!("{}{}{cuts}{child}", of_each("maze."), of_one());
    let maze = sign(dir, "maze.", &zone("maze.", &maze), Denial::Nsec)?;
    let hashed = zone("hashed.", &of_each("hashed."));
    let hashed = sign(dir, "hashed.", &hashed, Denial::Nsec3)?;
    Ok(format!("{maze}{hashed}"))
}

fn of_each(zone: &str) -> String {
    format!(
        "www.{zone} IN A {WEB}\nwww.{zone} IN AAAA {WEB_V6}\nwww.{zone} IN TXT \"one\" \"two words\"\n\
         mail.{zone} IN MX 10 www.{zone}\nmail.{zone} IN MX 20 mail.plain.\ncaa.{zone} IN CAA 0 issue \"ca.example\"\n\
         *.w.{zone} IN A {WEB}\n*.w.{zone} IN TXT \"wild\"\nx.y.w.{zone} IN A {WEB}\na.b.c.{zone} IN A {WEB}\n\
         c1.{zone} IN CNAME c2.{zone}\nc2.{zone} IN CNAME c3.{zone}\nc3.{zone} IN CNAME www.{zone}\n\
         gone.{zone} IN CNAME nothing.{zone}\nempty.{zone} IN CNAME caa.{zone}\n"
    )
}

fn of_one() -> String {
    let chain: String = (4..8)
        .map(|n| format!("c{}.maze. IN CNAME c{n}.maze.\n", n + 1))
        .collect();
    let addresses = |name: &str, count: u32| -> String {
        (0..count)
            .map(|n| format!("{name} IN A 198.51.100.{n}\n"))
            .collect()
    };
    let (wide, wider) = (addresses("wide.maze.", 70), addresses("wider.maze.", 120));
    let text = "0123456789".repeat(25);
    let long: String = (0..12).map(|n| format!(" \"{n:02}{text}\"")).collect();
    format!(
        "_sip._udp.maze. IN SRV 1 2 5060 www.maze.\nptr.maze. IN PTR www.maze.\n\
         odd-type.maze. IN TYPE65280 \\# 4 01020304\nzero.maze. 0 IN A {WEB}\n\
         *.cw.maze. IN CNAME www.maze.\n*.cn.maze. IN CNAME nothing.maze.\n\
         c4.maze. IN CNAME c3.maze.\n{chain}out.maze. IN CNAME www.plain.\n\
         to-loose.maze. IN CNAME www.loose.maze.\nto-child.maze. IN CNAME www.child.maze.\n\
         to-hashed.maze. IN CNAME any.w.hashed.\nto-bogus.maze. IN CNAME www.bogus.\n\
         {wide}{wider}long.maze. IN TXT{long}\n\
         UPPER.Case.maze. IN A {WEB}\nunder_score.maze. IN A {WEB}\ndot\\.dot.maze. IN A {WEB}\n\
         sp\\032ace.maze. IN A {WEB}\n\\000bin\\255.maze. IN A {WEB}\nst*r.maze. IN A {WEB}\n\
         a.*.star.maze. IN A {WEB}\nxn--nxasmq6b.maze. IN A {WEB}\n{}.maze. IN A {WEB}\n",
        "l".repeat(LONGEST_LABEL)
    )
}

/// Questions, each once, as lines for dig: a name and a type.
pub fn questions(count: usize, seed: u64) -> Vec<String> {
    let known: Vec<String> = ZONES
        .iter()
        .flat_map(|zone| IN_EACH.map(|name| format!("{name}.{zone}")))
        .chain(ZONES.map(str::to_owned))
        .chain(IN_ONE.map(str::to_owned))
        .chain(ELSEWHERE.map(str::to_owned))
        .chain([format!("{}.maze.", "l".repeat(LONGEST_LABEL))])
        .collect();
    let mut dice = Dice::new(seed);
    let mut seen = BTreeSet::new();
    let mut questions = Vec::new();
    while questions.len() < count {
        let name = turned(pick(&mut dice, &known), &mut dice);
        let question = format!("{name} {}", pick(&mut dice, &TYPES));
        // Nobody is above the root to be asked for the first; the others a home's stub keeps to itself.
        let is_of = |types: &[&str]| types.iter().any(|kind| question.ends_with(kind));
        let is_kept = match name.matches('.').count() {
            1 if name != "." => !is_of(&[" NS", " SOA", " DS", " DNSKEY"]),
            1 => is_of(&[" A", " AAAA", " HTTPS"]),
            _ => false,
        };
        let is_sensible = question != ". DS" && !is_kept && name.len() <= LONGEST_NAME;
        if is_sensible && seen.insert(question.to_lowercase()) {
            questions.push(question);
        }
    }
    questions
}

/// The name itself, one near it, above it or below it.
fn turned(name: &str, dice: &mut Dice) -> String {
    let below = |label: &str| match name {
        "." => format!("{label}."),
        _ => format!("{label}.{name}"),
    };
    match dice.roll(10) {
        0 | 1 => name.to_owned(),
        2 => name
            .chars()
            .map(|c| match dice.happens(0.5) {
                true => c.to_ascii_uppercase(),
                false => c.to_ascii_lowercase(),
            })
            .collect(),
        3 => match name.split_once('.') {
            Some((_, rest)) if !rest.is_empty() && !name.contains('\\') => rest.to_owned(),
            _ => name.to_owned(),
        },
        4 => below(pick(dice, &["www", "a", "x.y", "ns", "_tcp"])),
        5 => below(&format!("{}.{}", word(dice), word(dice))),
        _ if name.starts_with("*.") => format!("{}.{}", word(dice), &name[2..]),
        _ => below(&word(dice)),
    }
}

fn word(dice: &mut Dice) -> String {
    let len = 1 + dice.roll(9);
    (0..len)
        .map(|_| char::from(b'a' + u8::try_from(dice.roll(26)).unwrap_or_default()))
        .collect()
}

fn pick<'a, T: AsRef<str>>(dice: &mut Dice, from: &'a [T]) -> &'a str {
    let place = usize::try_from(dice.roll(from.len() as u64)).unwrap_or_default();
    from.get(place).map_or("", AsRef::as_ref)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_asks_the_same_again_and_another_one_asks_otherwise() {
        let asked = questions(2_000, 1);

        assert_eq!(asked, questions(2_000, 1));
        assert_ne!(asked, questions(2_000, 2));
        assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), 2_000);
    }
}
