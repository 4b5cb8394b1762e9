//! The search through all that a machine holds: the memory of its processes, its files, what was captured on its wires.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Memory and files are read in pieces of this many bytes, which overlap by a marker's length.
const PIECE: usize = 1 << 20;
/// What cannot be read is passed over in steps of this many bytes.
const PAGE: u64 = 4_096;
/// The share of all bytes that may be passed over.
const SKIPPED: f64 = 0.01;

/// Something that is to be found, or not.
#[derive(Debug, Clone)]
pub struct Marker {
    what: String,
    /// As it may stand somewhere.
    forms: Vec<Vec<u8>>,
    spelling: Spelling,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    Exact,
    /// In small letters or capitals or both, as resolvers ask.
    AnyCase,
}

/// A marker, and where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The marker.
    pub what: String,
    /// A process with the place in its memory, or a file.
    pub place: String,
}

/// What was searched, so that nobody takes an empty machine for a silent one.
#[derive(Debug, Default)]
pub struct Searched {
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes that could not be read.
    pub skipped: u64,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Marker {
    /// Bytes as they are.
    pub fn bytes(what: &str, bytes: &[u8]) -> Self {
        Self {
            what: what.to_owned(),
            forms: vec![bytes.to_vec()],
            spelling: Spelling::Exact,
        }
    }

    /// A text, as it is written and as DNS may spell it.
    pub fn text(text: &str) -> Self {
        Self {
            what: text.to_owned(),
            forms: vec![text.to_ascii_lowercase().into_bytes()],
            spelling: Spelling::AnyCase,
        }
    }

    /// A key: its bytes, in hexadecimal and in base64.
    pub fn key(what: &str, key: &[u8; 32]) -> Self {
        use base64::Engine as _;
        use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let base64 = STANDARD.encode(key);
        Self {
            what: what.to_owned(),
            forms: vec![
                key.to_vec(),
                hex.into_bytes(),
                base64.into_bytes(),
                URL_SAFE_NO_PAD.encode(key).into_bytes(),
            ],
            spelling: Spelling::Exact,
        }
    }

    fn longest(&self) -> usize {
        self.forms.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// A piece, and the same in small letters.
    fn is_in(&self, piece: &[u8], small: &[u8]) -> bool {
        let piece = match self.spelling {
            Spelling::Exact => piece,
            Spelling::AnyCase => small,
        };
        self.forms.iter().any(|form| contains(piece, form))
    }
}

impl Searched {
    /// Searches everything that a process can write to in its memory.
    pub fn memory(&mut self, pid: u32, markers: &[Marker]) -> Result<()> {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps"))
            .with_context(|| format!("reading the map of process {pid}"))?;
        let memory = File::open(format!("/proc/{pid}/mem"))
            .with_context(|| format!("opening the memory of process {pid}"))?;
        let before = self.bytes;
        for line in maps.lines() {
            let mut words = line.split_ascii_whitespace();
            let (range, rights) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            if !rights.starts_with("rw") {
                continue;
            }
            let (from, to) = range.split_once('-').context("a map without a range")?;
            let from = u64::from_str_radix(from, 16).context("a map's begin")?;
            let to = u64::from_str_radix(to, 16).context("a map's end")?;
            let place = format!("process {pid} {}", words.last().unwrap_or("anonymous"));
            self.range(&memory, from..to, &place, markers);
        }
        ensure!(
            self.bytes > before,
            "nothing of process {pid} could be read"
        );
        self.is_whole()
    }

    /// Searches every file below a folder, or one file.
    pub fn files(&mut self, path: &Path, markers: &[Marker]) -> Result<()> {
        let kind =
            fs::symlink_metadata(path).with_context(|| format!("looking at {}", path.display()))?;
        if kind.is_dir() {
            for entry in
                fs::read_dir(path).with_context(|| format!("listing {}", path.display()))?
            {
                self.files(&entry?.path(), markers)?;
            }
        } else if kind.is_file() {
            let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
            self.range(&file, 0..kind.len(), &path.display().to_string(), markers);
        }
        self.is_whole()
    }

    /// Whether nearly all of it could be read.
    fn is_whole(&self) -> Result<()> {
        let all = self.bytes + self.skipped;
        ensure!(
            self.skipped as f64 <= all as f64 * SKIPPED,
            "{} of {all} bytes could not be read",
            self.skipped
        );
        Ok(())
    }

    /// What cannot be read (a page of a device) is passed over; a file that shrinks has its end where it has it.
    fn range(&mut self, file: &File, range: std::ops::Range<u64>, place: &str, markers: &[Marker]) {
        let overlap = markers.iter().map(Marker::longest).max().unwrap_or(0);
        let mut piece = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let kept = piece.len().min(overlap);
            piece.drain(..piece.len() - kept);
            let wanted = usize::try_from(range.end - at).map_or(PIECE, |left| left.min(PIECE));
            piece.resize(kept + wanted, 0);
            let Ok(len) = file.read_at(&mut piece[kept..], at) else {
                piece.clear();
                let next = ((at / PAGE + 1) * PAGE).min(range.end);
                self.skipped += next - at;
                at = next;
                continue;
            };
            if len == 0 {
                break;
            }
            piece.truncate(kept + len);
            at += len as u64;
            self.bytes += len as u64;
            let small = piece.to_ascii_lowercase();
            for marker in markers.iter().filter(|it| it.is_in(&piece, &small)) {
                let finding = Finding {
                    what: marker.what.clone(),
                    place: place.to_owned(),
                };
                if !self.findings.contains(&finding) {
                    self.findings.push(finding);
                }
            }
        }
    }
}

/// By the form's last byte first, which is rare among zeros.
fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some((last, rest)) = needle.split_last() else {
        return false;
    };
    let mut from = rest.len();
    while let Some(found) = haystack
        .get(from..)
        .and_then(|tail| tail.iter().position(|byte| byte == last))
    {
        let end = from + found;
        if haystack[end - rest.len()..end] == *rest {
            return true;
        }
        from = end + 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_is_not_there_is_not_found_and_an_empty_marker_nowhere() {
        assert!(!contains(b"abcabd", b"abe"));
        assert!(!contains(b"ab", b"abc"));
        assert!(!contains(b"ab", b""));
        assert!(contains(b"ababac", b"abac"));
    }

    #[test]
    fn what_another_process_holds_is_found_and_what_it_does_not_hold_is_not() {
        let mut other = Command::new("cat")
            .env("PLANTED", "a-marker-in-the-other-process")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();

        let mut searched = Searched::default();
        let markers = ["a-marker-in-the-other-process", "a-marker-nowhere"].map(Marker::text);
        searched.memory(other.id(), &markers).unwrap();
        drop(other.stdin.take());
        other.wait().unwrap();

        let found: Vec<_> = searched.findings.iter().map(|f| f.what.as_str()).collect();
        assert_eq!(found, ["a-marker-in-the-other-process"]);
        assert!(searched.bytes > 1 << 12);
    }

    #[test]
    fn a_marker_over_the_edge_of_two_pieces_is_found_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("inner")).unwrap();
        let mut file = vec![0; PIECE - 3];
        file.extend_from_slice(b"marker");
        file.resize(PIECE * 2 + 17, 0);
        fs::write(dir.path().join("inner/file"), &file).unwrap();

        let mut searched = Searched::default();
        let markers = [Marker::text("marker"), Marker::text("nowhere")];
        searched.files(dir.path(), &markers).unwrap();

        let found: Vec<_> = searched.findings.iter().map(|f| f.what.as_str()).collect();
        assert_eq!(found, ["marker"]);
        assert_eq!(searched.bytes, file.len() as u64);
    }
}
