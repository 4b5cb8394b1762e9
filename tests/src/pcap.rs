//! Reads tcpdump's files: the classic pcap header, then records (see pcap-savefile(5)). Ethernet only.

use anyhow::{Context, Result, bail, ensure};

const HEADER: usize = 24;
const RECORD: usize = 16;
const LITTLE_ENDIAN_US: [u8; 4] = [0xd4, 0xc3, 0xb2, 0xa1];
const ETHERNET: u32 = 1;

/// The frames of a capture, each as far as the snap length let it be kept.
#[derive(Debug)]
pub(crate) struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Frames<'a> {
    /// Checks the file's header.
    pub(crate) fn parse(file: &'a [u8]) -> Result<Self> {
        let (header, rest) = file
            .split_at_checked(HEADER)
            .context("a capture without a header")?;
        ensure!(
            header.starts_with(&LITTLE_ENDIAN_US),
            "not a little-endian pcap file"
        );
        ensure!(
            word(header, 20) == Some(ETHERNET),
            "a capture of something that is not Ethernet"
        );
        Ok(Self { rest })
    }
}

/// The frames of a capture of Ethernet; one that was cut short is an error.
pub fn frames(file: &[u8]) -> Result<Vec<Vec<u8>>> {
    Frames::parse(file)?
        .map(|frame| Ok(frame?.to_vec()))
        .collect()
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        Some(self.record())
    }
}

impl<'a> Frames<'a> {
    fn record(&mut self) -> Result<&'a [u8]> {
        let whole = std::mem::take(&mut self.rest);
        let Some((head, after)) = whole.split_at_checked(RECORD) else {
            bail!("a capture cut inside a record")
        };
        let kept = word(head, 8).context("a record without a length")?;
        let kept = usize::try_from(kept).context("a record too long for this machine")?;
        let Some((frame, rest)) = after.split_at_checked(kept) else {
            bail!("a capture cut inside a frame")
        };
        self.rest = rest;
        Ok(frame)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(frames: &[&[u8]]) -> Vec<u8> {
        let mut file = LITTLE_ENDIAN_US.to_vec();
        file.resize(20, 0);
        file.extend(ETHERNET.to_le_bytes());
        for frame in frames {
            let length = u32::try_from(frame.len()).unwrap();
            file.extend([0; 8]);
            file.extend(length.to_le_bytes());
            file.extend(length.to_le_bytes());
            file.extend(*frame);
        }
        file
    }

    #[test]
    fn a_capture_cut_anywhere_inside_a_record_is_an_error() {
        let file = capture(&[b"first", b"second"]);
        let whole = [HEADER, HEADER + RECORD + 5, file.len()];

        for cut in 0..=file.len() {
            let read = Frames::parse(&file[..cut]).and_then(|f| f.collect::<Result<Vec<_>>>());
            assert_eq!(read.is_ok(), whole.contains(&cut), "cut at {cut}");
        }
    }

    #[test]
    fn every_frame_is_read_in_order() {
        let file = capture(&[b"first", b"", b"third"]);

        let frames: Vec<_> = Frames::parse(&file).unwrap().map(Result::unwrap).collect();

        assert_eq!(frames, [b"first".as_slice(), b"", b"third"]);
    }
}
