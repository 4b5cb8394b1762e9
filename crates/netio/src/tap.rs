//! A TAP device: whole Ethernet frames, one in each system call, for a program that is a cable.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use crate::tun::{
    TunError, Written, attach, is_interface_name, is_transient, not_attached, open_driver, write_to,
};

/// A TAP device without offloads, so that the kernel cuts and sums before a frame is read; it goes away with the value.
#[derive(Debug)]
pub struct Tap {
    file: File,
}

impl Tap {
    /// Makes the device `name` in the network namespace of the calling thread; it is left down.
    ///
    /// # Errors
    /// By cause, see [`TunError`].
    pub fn open(name: &str) -> Result<Self, TunError> {
        if !is_interface_name(name) {
            return Err(TunError::BadName(name.to_owned()));
        }
        let file = open_driver(name)?;
        attach(&file, name, libc::IFF_TAP | libc::IFF_NO_PI).map_err(|e| not_attached(name, e))?;
        Ok(Self { file })
    }

    /// Reads one frame that the kernel sends, or `None` when there is none; one longer than `buf` is cut.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<Option<usize>> {
        match (&self.file).read(buf) {
            Ok(len) => Ok(Some(len)),
            Err(e) if is_transient(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Gives the kernel one frame to receive.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn send(&self, frame: &[u8]) -> io::Result<Written> {
        write_to(&self.file, frame)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
