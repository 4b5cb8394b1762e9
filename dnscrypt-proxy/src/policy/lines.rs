//! Files of other hands, line by line, within bounds: a line that is too long costs time and no memory.

use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Longer lines are passed over: none with a name in it is near this length.
pub(super) const MAX_LINE: usize = 1024;

/// What tells whether a file is another than it was. The default is that of a file that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    node: u64,
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Stamp {
    /// Looks at a file. What is no file is not there: a pipe would make its reader wait.
    pub(super) fn of(path: &Path) -> Self {
        std::fs::metadata(path)
            .ok()
            .filter(Metadata::is_file)
            .map_or_else(Self::default, |of| Self {
                node: of.ino(),
                size: of.size(),
                seconds: of.mtime(),
                nanoseconds: of.mtime_nsec(),
            })
    }

    pub(super) fn of_all(paths: &[impl AsRef<Path>]) -> Vec<Self> {
        paths.iter().map(|path| Self::of(path.as_ref())).collect()
    }
}

/// Gives each line of a file, up to a number of bytes. A file that is not there has none; one that cannot be read, or is
/// longer, is named in the log.
pub(super) fn of_file(path: &Path, most_bytes: u64, see: &mut dyn FnMut(&[u8])) {
    if Stamp::of(path) == Stamp::default() {
        tracing::debug!(file = %path.display(), "there is no such file");
        return;
    }
    let read = File::open(path).and_then(|file| {
        let mut reader = BufReader::new(file.take(most_bytes));
        let last = whole_lines(&mut reader, see)?;
        if reader.into_inner().into_inner().read(&mut [0])? == 0 {
            see(last.trim_ascii());
        } else {
            // Of the last line there may be a part, which is another name.
            tracing::warn!(file = %path.display(), most_bytes, "a file of names is too long: its end is not read");
        }
        Ok(())
    });
    if let Err(error) = read {
        tracing::warn!(file = %path.display(), %error, "a file of names cannot be read");
    }
}

/// Gives each line that ends, without its end and the white space around it, and leaves what is behind the last end.
pub(super) fn whole_lines(
    reader: &mut dyn BufRead,
    see: &mut dyn FnMut(&[u8]),
) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(MAX_LINE);
    let mut is_too_long = false;
    loop {
        let chunk = match reader.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
        let used = part.len() + usize::from(end.is_some());
        is_too_long |= line.len() + part.len() > MAX_LINE;
        if !is_too_long {
            line.extend_from_slice(part);
        }
        reader.consume(used);
        if used == 0 {
            return Ok(if is_too_long { Vec::new() } else { line });
        }
        if end.is_some() {
            if !is_too_long {
                see(line.trim_ascii());
            }
            line.clear();
            is_too_long = false;
        }
    }
}
