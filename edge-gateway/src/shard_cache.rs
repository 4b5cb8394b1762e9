//! The shard stream on disk, so that a gateway starts while provisioning is away: one append-only
//! file per shard, its entries exactly as they came. Nothing here is believed: what is read back is
//! verified like what comes from the network.
//!
//! File: the 16 bytes of [`MAGIC`], then records `kind u8 | length u32 LE | payload | check [u8; 8]`, the check
//! being the first 8 bytes of the SHA-256 of what stands before it in the record. Kind 1 is a
//! `ShardEntry`; kind 2 is a position (u64 LE): everything before it in the stream is in the file.
//! A record that does not check, and what follows it, is as if never written: the position before it
//! says from where to fetch again.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use trust::ShardEntry;

const MAGIC: &[u8; 16] = b"culvert-shard-1\n";
const KIND_ENTRY: u8 = 1;
const KIND_POSITION: u8 = 2;
const HEAD_BYTES: usize = 5;
const CHECK_BYTES: usize = 8;
/// Above the greatest entry (48 KiB), so that a garbled length cannot ask for much memory.
const MAX_PAYLOAD_BYTES: usize = 64 * 1024;
/// A file below this is not worth rewriting.
const COMPACT_ABOVE_BYTES: u64 = 16 * 1024 * 1024;

/// One shard's file, open at its end.
#[derive(Debug)]
pub struct ShardCache {
    path: PathBuf,
    file: File,
    /// Bytes that are whole records; what a failed write left behind them is cut off before the next.
    good_bytes: u64,
    compacted_bytes: u64,
    next: u64,
}

/// What opening a file found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Entries handed to the caller.
    pub entries: usize,
    /// Bytes at the end that were no whole record and were cut off.
    pub torn_bytes: u64,
}

impl ShardCache {
    /// Opens or makes the file of a shard and hands its entries to `each`, in order.
    pub fn open(
        directory: &Path,
        shard: u32,
        mut each: impl FnMut(ShardEntry),
    ) -> io::Result<(Self, Recovered)> {
        let path = directory.join(format!("shard-{shard}.log"));
        let mut file = open_private(&path)?;
        let length = file.metadata()?.len();
        let mut scan = Scan::new(&file);
        let mut entries = 0;
        while let Some(record) = scan.next()? {
            if let Record::Entry(entry) = record {
                entries += 1;
                each(entry);
            }
        }
        let (mut good_bytes, next) = (scan.good_bytes, scan.next);
        let torn_bytes = length - good_bytes;
        if good_bytes == 0 {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(MAGIC)?;
            good_bytes = MAGIC.len() as u64;
        }
        let cache = Self {
            path,
            file,
            good_bytes,
            compacted_bytes: good_bytes,
            next,
        };
        Ok((
            cache,
            Recovered {
                entries,
                torn_bytes,
            },
        ))
    }

    /// The place in the stream up to which the file has everything.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Adds a page's entries and the position behind it; on an error the file is as before.
    pub fn append(&mut self, entries: &[ShardEntry], next: u64) -> io::Result<()> {
        let mut bytes = Vec::new();
        for entry in entries {
            push_record(&mut bytes, KIND_ENTRY, &entry.to_bytes());
        }
        push_record(&mut bytes, KIND_POSITION, &next.to_le_bytes());
        self.file.set_len(self.good_bytes)?;
        self.file.seek(SeekFrom::Start(self.good_bytes))?;
        self.file.write_all(&bytes)?;
        self.file.sync_data()?;
        self.good_bytes += bytes.len() as u64;
        self.next = next;
        Ok(())
    }

    /// Whether a rewrite would pay: the file is large and has doubled since the last one.
    pub fn wants_compaction(&self) -> bool {
        self.good_bytes > COMPACT_ABOVE_BYTES && self.good_bytes > 2 * self.compacted_bytes
    }

    /// Rewrites the file with only the entries that `keep` says yes to.
    pub fn compact(&mut self, mut keep: impl FnMut(&ShardEntry) -> bool) -> io::Result<()> {
        let fresh_path = self.path.with_extension("log.new");
        // A rewrite that was cut short by a crash is worth nothing.
        remove_if_there(&fresh_path)?;
        let mut fresh = BufWriter::new(open_private(&fresh_path)?);
        fresh.write_all(MAGIC)?;
        let mut scan = Scan::new(&self.file);
        while let Some(record) = scan.next()? {
            if let Record::Entry(entry) = record
                && keep(&entry)
            {
                let mut bytes = Vec::new();
                push_record(&mut bytes, KIND_ENTRY, &entry.to_bytes());
                fresh.write_all(&bytes)?;
            }
        }
        let mut position = Vec::new();
        push_record(&mut position, KIND_POSITION, &self.next.to_le_bytes());
        fresh.write_all(&position)?;
        let mut file = fresh.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(&fresh_path, &self.path)?;
        sync_directory(&self.path)?;
        self.good_bytes = file.stream_position()?;
        self.compacted_bytes = self.good_bytes;
        self.file = file;
        Ok(())
    }

    /// Begins anew with the stream. Revocations stay: a stream that lacks them must bring nobody back.
    pub fn begin_anew(&mut self) -> io::Result<()> {
        self.next = 0;
        self.compact(|entry| matches!(entry, ShardEntry::Revocation { .. }))
    }
}

fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A rename is durable once its directory is.
fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

fn push_record(bytes: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    let start = bytes.len();
    let length = u32::try_from(payload.len()).expect("an entry has at most 48 KiB");
    bytes.push(kind);
    bytes.extend(length.to_le_bytes());
    bytes.extend(payload);
    let check = Sha256::digest(bytes.get(start..).unwrap_or_default());
    bytes.extend(check.iter().take(CHECK_BYTES));
}

enum Record {
    Entry(ShardEntry),
    Position,
}

/// Reads whole records from the start of a file.
struct Scan<'f> {
    reader: BufReader<&'f File>,
    started: bool,
    good_bytes: u64,
    next: u64,
}

impl<'f> Scan<'f> {
    fn new(file: &'f File) -> Self {
        Self {
            reader: BufReader::new(file),
            started: false,
            good_bytes: 0,
            next: 0,
        }
    }

    /// The next record, or `None` at the end of what checks.
    fn next(&mut self) -> io::Result<Option<Record>> {
        if !self.started {
            self.reader.seek(SeekFrom::Start(0))?;
            self.started = true;
            let mut magic = [0; MAGIC.len()];
            if !fill(&mut self.reader, &mut magic)? || &magic != MAGIC {
                return Ok(None);
            }
            self.good_bytes = MAGIC.len() as u64;
        }
        if self.good_bytes == 0 {
            return Ok(None);
        }
        let mut head = [0; HEAD_BYTES];
        if !fill(&mut self.reader, &mut head)? {
            return Ok(None);
        }
        let [kind, length @ ..] = head;
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_PAYLOAD_BYTES {
            return Ok(None);
        }
        let mut rest = vec![0; length + CHECK_BYTES];
        if !fill(&mut self.reader, &mut rest)? {
            return Ok(None);
        }
        let (payload, check) = rest.split_at(length);
        let expected = Sha256::new()
            .chain_update(head)
            .chain_update(payload)
            .finalize();
        if !expected.starts_with(check) {
            return Ok(None);
        }
        let Some(record) = self.read(kind, payload) else {
            return Ok(None);
        };
        self.good_bytes += (HEAD_BYTES + rest.len()) as u64;
        Ok(Some(record))
    }

    fn read(&mut self, kind: u8, payload: &[u8]) -> Option<Record> {
        match kind {
            KIND_ENTRY => ShardEntry::from_bytes(payload).ok().map(Record::Entry),
            KIND_POSITION => {
                self.next = u64::from_le_bytes(payload.try_into().ok()?);
                Some(Record::Position)
            }
            _ => None,
        }
    }
}

/// Reads exactly `bytes`; `false` when the file ends first.
fn fill(reader: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
