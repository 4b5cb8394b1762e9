//! What the real judges say of every history of a few entries, asked once: the model then looks it up.

use trust::{
    AddCheckpoint, Cosigner, LogSigner, Policy, SignedCheckpoint, Tree, verify_consistency,
};

/// A history, and the head over it: 0 is empty, and each one is continued by two.
pub(crate) type Head = u8;

pub(crate) fn continued(head: Head, entry: u8) -> Head {
    2 * head + 1 + entry
}

pub(crate) fn size(head: Head) -> u32 {
    (head + 1).ilog2()
}

/// Whether `new` begins with all of `old`, by what histories are and not by any proof.
pub(crate) fn continues(old: Head, new: Head) -> bool {
    let mut new = new;
    while size(new) > size(old) {
        new = (new - 1) / 2;
    }
    new == old
}

/// The answers.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) witnesses: usize,
    /// How many heads there are.
    pub(crate) heads: Head,
    pub(crate) longest: u32,
    /// How many of the witnesses the smallest quorum has, told and not asked.
    pub(crate) least: u32,
    /// How many of the witnesses any two quorums share.
    pub(crate) shared: usize,
    cosigns: Vec<Vec<bool>>,
    reads: Vec<Vec<bool>>,
    suffices: Vec<Vec<bool>>,
}

impl Rules {
    /// Asks for histories up to this length, for so many witnesses beside the server's own, and lines of a policy of which so many are enough.
    pub(crate) fn new(witnesses: usize, longest: u32, (least, lines): (u32, &str)) -> Self {
        let heads: Head = (1 << (longest + 1)) - 1;
        let log = LogSigner::from_seed("server/fleet", &[1; 32]).unwrap();
        let cosigner = |name: &str, n| Cosigner::from_seed(name, &[n; 32]).unwrap();
        let server = cosigner("server/cosigner", 2);
        let outside: Vec<_> = (1..)
            .take(witnesses)
            .map(|n| cosigner(&format!("w{n}"), 2 + n))
            .collect();
        let mut policy = format!("log {}\nwitness server {}\n", log.vkey(), server.vkey());
        for one in &outside {
            let vkey = one.vkey();
            policy.push_str(&format!(
                "witness {} {vkey} http://{}/\n",
                vkey.name, vkey.name
            ));
        }
        let policy = Policy::parse(&(policy + lines)).unwrap();
        let trees: Vec<_> = (0..heads).map(tree).collect();
        let signed = |head: &Tree| server.cosign(&log.sign_checkpoint(head.size(), head.root()), 7);
        let signed: Vec<_> = trees.iter().map(signed).collect();
        let logs = [log.vkey().clone()];
        let pairs = |says: &dyn Fn(usize, Option<usize>) -> bool| -> Vec<Vec<bool>> {
            let before = || std::iter::once(None).chain((0..signed.len()).map(Some));
            let row = |new| before().map(|old| says(new, old)).collect();
            (0..signed.len()).map(row).collect()
        };
        let cosigns = |new: usize, last: Option<usize>| {
            let last = last.map(|last| signed[last].checkpoint());
            let old = last.map_or(0, |last| last.size);
            let request = AddCheckpoint {
                old,
                proof: proof(&trees[new], old),
                checkpoint: signed[new].clone(),
            };
            let request = AddCheckpoint::parse(request.to_string().as_bytes());
            request.unwrap().judge(&logs, last).is_ok()
        };
        let reads = |new: usize, seen: Option<usize>| {
            seen.is_none_or(|seen| {
                follows(&trees[new], signed[seen].checkpoint().size, &trees[seen])
            })
        };
        let enough = |head: &SignedCheckpoint, mask: usize| {
            let those = outside
                .iter()
                .enumerate()
                .filter(|(at, _)| mask >> at & 1 == 1);
            let cosigned = those.fold(head.clone(), |head, (_, one)| one.cosign(&head, 7));
            policy.verify_checkpoint(&cosigned).is_ok()
        };
        let masks = |head| (0..1 << witnesses).map(|mask| enough(head, mask)).collect();
        Self {
            witnesses,
            heads,
            longest,
            least,
            shared: policy.overlap(|witness| witness.url.is_some()),
            cosigns: pairs(&cosigns),
            reads: pairs(&reads),
            suffices: signed.iter().map(masks).collect(),
        }
    }

    /// Whether an honest witness that has cosigned `last` cosigns `new`, with the best proof that there is.
    pub(crate) fn cosigns(&self, new: Head, last: Option<Head>) -> bool {
        self.cosigns[usize::from(new)][before(last)]
    }

    /// Whether a router that has seen `seen` goes on to `new`, if enough have cosigned it.
    pub(crate) fn reads(&self, new: Head, seen: Option<Head>) -> bool {
        self.reads[usize::from(new)][before(seen)]
    }

    /// Whether these witnesses are enough, each a bit.
    pub(crate) fn suffices(&self, head: Head, cosigned: usize) -> bool {
        self.suffices[usize::from(head)][cosigned]
    }
}

fn before(head: Option<Head>) -> usize {
    head.map_or(0, |head| 1 + usize::from(head))
}

fn tree(head: Head) -> Tree {
    let mut entries = Vec::new();
    let mut at = head;
    while at > 0 {
        entries.push([(at - 1) % 2]);
        at = (at - 1) / 2;
    }
    let mut tree = Tree::new();
    for entry in entries.iter().rev() {
        tree.append(entry);
    }
    tree
}

/// What a tree can show for having grown from this size; nothing where it has not.
fn proof(tree: &Tree, old: u64) -> Vec<[u8; 32]> {
    tree.consistency_proof(old, tree.size()).unwrap_or_default()
}

/// `check_continues` of crates/trust/src/verify.rs: no fewer entries than before, and all that were there.
fn follows(new: &Tree, size: u64, seen: &Tree) -> bool {
    let path = proof(new, size);
    new.size() >= size
        && verify_consistency((size, &seen.root()), (new.size(), &new.root()), &path).is_ok()
}
