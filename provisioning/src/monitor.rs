//! Somebody outside who looks at everything that a server shows, over and over: that each log only grows, that its heads have their quorum, and that
//! nothing in the authority log has an effect that the people did not sign for. It believes the trust file that images carry, and no server.

pub mod book;
pub mod effects;
pub mod source;

use anyhow::Context;
use trust::tiles::parse_entry_bundle;
use trust::{Anchors, Authority, Proposal, SignedCheckpoint, Sworn, Tile, TileKind, leaf_hash};

use crate::failure::sentence;
use crate::log::{self, Log};
use book::{Book, Seen};
use source::Source;

/// A log may grow by so much between two looks: what a server says of itself must not fill the memory.
const fn most(log: Log) -> u64 {
    match log {
        Log::Fleet => 1 << 26,
        Log::Authority => 1 << 12,
    }
}

/// What was found, in the words that programs read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A log has grown, and continues what was seen.
    Grown,
    /// Somebody has proposed something.
    Proposed,
    /// The people have signed enough for it, and long enough ago.
    Decided,
    /// The server does not show what it should.
    Unreachable,
    /// A head has no signature of its log, or one that does not hold.
    Unsigned,
    /// Too few have cosigned a head.
    NotCosigned,
    /// A head that is older than one that was shown.
    Behind,
    /// Two heads that cannot both be true.
    Forked,
    /// An entry of the authority log is none that this program can read.
    Unreadable,
    /// The server says that something has its effect that the people have not signed for.
    NotApproved,
}

impl Kind {
    /// As programs read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grown => "grown",
            Self::Proposed => "proposed",
            Self::Decided => "decided",
            Self::Unreachable => "unreachable",
            Self::Unsigned => "unsigned",
            Self::NotCosigned => "not-cosigned",
            Self::Behind => "behind",
            Self::Forked => "forked",
            Self::Unreadable => "unreadable",
            Self::NotApproved => "not-approved",
        }
    }

    /// Whether somebody has to look.
    #[must_use]
    pub fn is_alarm(self) -> bool {
        !matches!(self, Self::Grown | Self::Proposed | Self::Decided)
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Of what sort it is.
    pub kind: Kind,
    /// The log in which.
    pub log: Log,
    /// What, for people.
    pub sentence: String,
}

/// A monitor of one server.
#[derive(Debug)]
pub struct Monitor {
    source: Source,
    anchors: Anchors,
    book: Book,
    fleet: Seen,
    authority: Seen,
    /// The states of the people, the trust file's first.
    people: Vec<Authority>,
}

/// What a head that was shown turned out to be.
struct Shown {
    head: SignedCheckpoint,
    sworn: Sworn,
}

impl Monitor {
    /// Looks at a server, with what was seen before.
    ///
    /// # Errors
    /// When the folder cannot be read, or holds something else.
    pub fn new(source: Source, anchors: Anchors, book: Book) -> anyhow::Result<Self> {
        Ok(Self {
            fleet: book.seen(Log::Fleet)?,
            authority: book.seen(Log::Authority)?,
            people: book.people_since(anchors.people.clone())?,
            source,
            anchors,
            book,
        })
    }

    /// Looks once at everything.
    ///
    /// # Errors
    /// When what was seen cannot be kept.
    pub async fn look(&mut self, now: u64) -> anyhow::Result<Vec<Finding>> {
        let mut found = Vec::new();
        for log in Log::ALL {
            self.look_at(log, &mut found).await?;
        }
        self.look_at_effects(now, &mut found).await?;
        Ok(found)
    }

    async fn look_at(&mut self, log: Log, found: &mut Vec<Finding>) -> anyhow::Result<()> {
        let mut tell = |kind, sentence| {
            found.push(Finding {
                kind,
                log,
                sentence,
            })
        };
        let name = log.as_str();
        let shown = match self.head(log).await {
            Ok(shown) => shown,
            Err((kind, sentence)) => {
                tell(kind, sentence);
                return Ok(());
            }
        };
        let (head, seen) = (shown.head.checkpoint(), self.seen(log));
        let (old, new) = (seen.tree.size(), head.size);
        if new <= old {
            if seen.tree.root_at(new) != Ok(head.root) {
                tell(Kind::Forked, self.evidence(log, &shown.head)?);
            } else if new < old {
                let sentence = format!(
                    "the {name} log shows a head of {new} entries, and has shown one of {old}"
                );
                tell(Kind::Behind, sentence);
            }
            return Ok(());
        }
        let grown = match self.growth(log, old, new).await {
            Ok(grown) => grown,
            Err(error) => {
                tell(
                    Kind::Unreachable,
                    format!("the {name} log: {}", sentence(&error)),
                );
                return Ok(());
            }
        };
        let mut tree = seen.tree.clone();
        for leaf in &grown.leaves {
            tree.append_leaf_hash(*leaf);
        }
        if tree.root() != head.root {
            tell(Kind::Forked, self.evidence(log, &shown.head)?);
            return Ok(());
        }
        for (index, entry) in (old..).zip(&grown.entries) {
            self.book.keep_entry(index, entry, shown.sworn.since)?;
            let (kind, sentence) = proposed(index, entry);
            tell(kind, sentence);
        }
        self.book.grow(log, old, &grown.leaves, &shown.head)?;
        tell(
            Kind::Grown,
            format!("the {name} log has grown from {old} to {new} entries, and continues"),
        );
        *self.seen_mut(log) = Seen {
            head: Some(shown.head),
            tree,
        };
        Ok(())
    }

    /// The head that is shown, if it is worth a look.
    async fn head(&self, log: Log) -> Result<Shown, (Kind, String)> {
        let name = log.as_str();
        let told = |kind, why: &str| (kind, format!("the {name} log's head: {why}"));
        let text = self.source.get(&format!("/v1/log/{name}/checkpoint")).await;
        let text = text.map_err(|error| told(Kind::Unreachable, &sentence(&error)))?;
        let text = text.ok_or_else(|| told(Kind::Unreachable, "there is none"))?;
        let head = String::from_utf8(text).ok();
        let head = head.and_then(|head| SignedCheckpoint::parse(&head).ok());
        let head = head.ok_or_else(|| told(Kind::Unsigned, "it is no checkpoint"))?;
        match log::policy(&self.anchors, log).verify_checkpoint(&head) {
            Ok(sworn) => Ok(Shown { head, sworn }),
            Err(error @ trust::ProofError::NoQuorum) => {
                Err(told(Kind::NotCosigned, &error.to_string()))
            }
            Err(error) => Err(told(Kind::Unsigned, &error.to_string())),
        }
    }

    /// What a log has grown by: hashes, and of the authority log the entries.
    async fn growth(&self, log: Log, old: u64, new: u64) -> anyhow::Result<Growth> {
        let by = new - old;
        anyhow::ensure!(
            by <= most(log),
            "{by} new entries are more than one look goes through"
        );
        let tiles = match log {
            Log::Authority => Tile::entries_between(old, new),
            Log::Fleet => Tile::hashes_between(old, new)
                .into_iter()
                .filter(|tile| tile.kind == TileKind::Hashes { level: 0 })
                .collect(),
        };
        let mut growth = Growth::default();
        for tile in tiles {
            let path = format!("/v1/log/{}/{tile}", log.as_str());
            let bytes = self.source.get(&path).await?;
            let bytes = bytes.with_context(|| format!("it does not show {tile}"))?;
            // What was seen is not taken from the server a second time.
            let known = usize::try_from(old.saturating_sub(tile.range().start))?;
            match log {
                Log::Authority => {
                    let entries = parse_entry_bundle(&bytes)
                        .filter(|all| all.len() == usize::from(tile.width));
                    let entries = entries.with_context(|| {
                        format!("{tile} is no bundle of {} entries", tile.width)
                    })?;
                    let entries = entries.into_iter().skip(known);
                    growth.entries.extend(entries.map(<[u8]>::to_vec));
                }
                Log::Fleet => {
                    let (hashes, rest) = bytes.as_chunks();
                    let is_whole = rest.is_empty() && hashes.len() == usize::from(tile.width);
                    anyhow::ensure!(is_whole, "{tile} has not {} hashes", tile.width);
                    growth.leaves.extend(hashes.iter().skip(known));
                }
            }
        }
        if log == Log::Authority {
            growth.leaves = growth
                .entries
                .iter()
                .map(|entry| leaf_hash(entry))
                .collect();
        }
        Ok(growth)
    }

    /// Keeps two heads that cannot both be true.
    fn evidence(&self, log: Log, shown: &SignedCheckpoint) -> anyhow::Result<String> {
        let (name, size) = (log.as_str(), shown.checkpoint().size);
        let Some(seen) = &self.seen(log).head else {
            return Ok(format!(
                "the entries of the {name} log do not lead to its head of {size} entries"
            ));
        };
        let path = self.book.keep_evidence(seen, shown)?;
        Ok(format!(
            "the {name} log's head of {size} entries does not continue the one of {} that was seen: both are in {}",
            seen.checkpoint().size,
            path.display()
        ))
    }

    fn seen(&self, log: Log) -> &Seen {
        match log {
            Log::Fleet => &self.fleet,
            Log::Authority => &self.authority,
        }
    }

    fn seen_mut(&mut self, log: Log) -> &mut Seen {
        match log {
            Log::Fleet => &mut self.fleet,
            Log::Authority => &mut self.authority,
        }
    }
}

#[derive(Default)]
struct Growth {
    leaves: Vec<[u8; 32]>,
    entries: Vec<Vec<u8>>,
}

/// What is told of a new entry of the authority log.
fn proposed(index: u64, entry: &[u8]) -> (Kind, String) {
    match Proposal::from_bytes(entry) {
        Ok(read) => {
            let about = effects::about(&read);
            let sentence = format!(
                "entry {index} of the authority log proposes {about}, in the name of {}",
                read.proposer
            );
            (Kind::Proposed, sentence)
        }
        Err(error) => (
            Kind::Unreadable,
            format!("entry {index} of the authority log cannot be read: {error}"),
        ),
    }
}
