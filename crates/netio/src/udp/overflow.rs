//! What a socket's buffer had no room for, as the kernel counts it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The kernel's array of a socket's memory: nine numbers, of which the last one counts drops (`SK_MEMINFO_DROPS`).
const NUMBERS: usize = 9;
const DROPS: usize = 8;

#[expect(unsafe_code, reason = "SO_MEMINFO has no safe form")]
pub(super) fn drops(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut numbers = [0_u32; NUMBERS];
    let mut length = size_of_val(&numbers) as libc::socklen_t;
    // SAFETY: `numbers` has room for `length` bytes, and the kernel writes no more than it is told.
    let status = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(numbers[DROPS])
}
