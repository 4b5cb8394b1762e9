//! What the headers of packets say on one wire of the lab: class, congestion mark, TCP's MSS.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::capture::record;
use crate::netns::Netns;
use crate::pcap::Frames;
use crate::process::Running;
use crate::topology::Lab;
use crate::wait::wait_until;

const SNAP_BYTES: &str = "160";
const SOON: Duration = Duration::from_secs(5);
const ETHERNET_BYTES: usize = 14;
const TCP: u8 = 6;
const MSS_KIND: u8 = 2;

/// A running capture whose packets are looked at while it runs.
#[derive(Debug)]
pub struct Wiretap {
    _tcpdump: Running,
    file: PathBuf,
}

/// One packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The length of the whole packet.
    pub bytes: usize,
    /// TOS or traffic class: six bits of class, two of congestion mark.
    pub tos: u8,
    /// What a TCP segment's options say of the longest segment.
    pub mss: Option<u16>,
}

impl Wiretap {
    /// Begins to listen on an interface for what tcpdump's filter lets through.
    pub fn start(lab: &Lab, netns: &Netns, interface: &str, filter: &str) -> Result<Self> {
        let (tcpdump, file) = record(lab, (netns, interface), filter, &["-s", SNAP_BYTES])?;
        Ok(Self {
            _tcpdump: tcpdump,
            file,
        })
    }

    /// Everything so far.
    pub fn headers(&self) -> Result<Vec<Header>> {
        let capture = fs::read(&self.file).context("reading the capture")?;
        if capture.is_empty() {
            return Ok(Vec::new());
        }
        // The last frame may be half written.
        let frames = Frames::parse(&capture)?.map_while(Result::ok);
        Ok(frames.filter_map(header).collect())
    }

    /// Waits for the first packet of this length.
    pub fn packet_of(&self, bytes: usize) -> Result<Header> {
        wait_until(&format!("a packet of {bytes} bytes"), SOON, || {
            let headers = self.headers()?;
            let found = headers.iter().find(|header| header.bytes == bytes);
            ensure!(found.is_some(), "only {headers:?}");
            Ok(found.copied())
        })
    }

    /// Waits for a packet that tells an MSS, and gives the last one's.
    pub fn mss(&self) -> Result<u16> {
        wait_until("a SYN", SOON, || {
            let headers = self.headers()?;
            Ok(headers.iter().rev().find_map(|header| header.mss))
        })
    }
}

fn header(frame: &[u8]) -> Option<Header> {
    let packet = frame.get(ETHERNET_BYTES..)?;
    let half = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let (first, second) = (*packet.first()?, *packet.get(1)?);
    let (bytes, tos, protocol, payload) = match first >> 4 {
        4 => (
            half(2)?,
            second,
            *packet.get(9)?,
            usize::from(first & 15) * 4,
        ),
        6 => (half(4)? + 40, first << 4 | second >> 4, *packet.get(6)?, 40),
        _ => return None,
    };
    let segment = packet.get(payload..).filter(|_| protocol == TCP);
    Some(Header {
        bytes: bytes.into(),
        tos,
        mss: segment.and_then(mss),
    })
}

fn mss(segment: &[u8]) -> Option<u16> {
    let end = usize::from(segment.get(12)? >> 4) * 4;
    let mut options = segment.get(20..end)?;
    loop {
        match options {
            [MSS_KIND, 4, high, low, ..] => return Some(u16::from_be_bytes([*high, *low])),
            [1, rest @ ..] => options = rest,
            [_, length, ..] => options = options.get(usize::from(*length).max(2)..)?,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_cut_short_or_without_ip_has_no_header() {
        assert_eq!(header(&[0; 20]), None);
        assert_eq!(header(&[&[0; 14][..], &[0x45, 0xb8, 0, 40]].concat()), None);
    }

    #[test]
    fn class_length_and_mss_are_read_of_both_families() {
        let tcp = [
            &[0; 12][..],
            &[7 << 4, 2, 0, 0, 0, 0, 0, 0],
            &[1, 1, 2, 4, 5, 0xb4, 0, 0],
        ]
        .concat();
        let v4 = [
            &[0; 14][..],
            &[0x45, 0xb9, 0, 48, 0, 0, 0, 0, 64, 6],
            &[0; 10],
            &tcp,
        ]
        .concat();
        let v6 = [&[0; 14][..], &[0x6b, 0x90, 0, 0, 0, 28, 6], &[0; 33], &tcp].concat();

        let [v4, v6] = [v4, v6].map(|frame| header(&frame).unwrap());

        assert_eq!((v4.bytes, v4.tos, v4.mss), (48, 0xb9, Some(1_460)));
        assert_eq!((v6.bytes, v6.tos, v6.mss), (68, 0xb9, Some(1_460)));
    }
}
