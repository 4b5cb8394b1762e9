//! Waiting for several descriptors, a deadline and a call from another thread at once: epoll and an eventfd.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// How many ready descriptors one wait reports; the rest are reported by the next.
const MAX_READY: usize = 32;

/// The token under which the [`Waker`] reports; callers' tokens are 32 bits, so it cannot clash.
const WAKE: u64 = u64::MAX;

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// There is something to read.
    Readable,
    /// There is room to write.
    Writable,
    /// Either.
    Both,
}

/// One thing that became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// The descriptor added under this token; errors and hang-ups count as readable.
    Descriptor {
        /// The token given to [`Poller::add`].
        token: u32,
        /// It can be read, or it failed.
        readable: bool,
        /// It can be written.
        writable: bool,
    },
    /// Some [`Waker`] was called; several calls are reported once.
    Woken,
}

/// Waits for descriptors (level-triggered), a timeout and its [`Waker`]s.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
    wake: Arc<EventFd>,
    events: [EpollEvent; MAX_READY],
}

impl Poller {
    /// Makes a poller that watches nothing but its own waker.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self {
            epoll,
            wake: Arc::new(wake),
            events: [EpollEvent::empty(); MAX_READY],
        })
    }

    /// Watches `fd` under `token`, until it is closed or [`Poller::remove`]d.
    pub fn add(&self, fd: impl AsFd, token: u32, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.add(fd, event(token, interest))?)
    }

    /// Changes what `fd` is watched for.
    pub fn modify(&self, fd: impl AsFd, token: u32, interest: Interest) -> io::Result<()> {
        Ok(self.epoll.modify(fd, &mut event(token, interest))?)
    }

    /// Stops watching `fd`.
    pub fn remove(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(self.epoll.delete(fd)?)
    }

    /// Waits until something is ready or `timeout` has passed (`None`: for ever); an interrupted wait reports nothing.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
    ) -> io::Result<impl Iterator<Item = Ready> + '_> {
        let count = match self.epoll.wait(&mut self.events, epoll_timeout(timeout)) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(e) => return Err(e.into()),
        };
        let wake = &self.wake;
        Ok(self
            .events
            .iter()
            .take(count)
            .map(move |event| ready(event, wake)))
    }

    /// A handle that ends the wait from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker(Arc::clone(&self.wake))
    }
}

/// Ends a [`Poller`]'s wait from any thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// Makes the current or the next wait return at once.
    pub fn wake(&self) -> io::Result<()> {
        match self.0.write(1) {
            // A full counter means that a wake-up is pending already.
            Ok(_) | Err(nix::errno::Errno::EAGAIN) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn event(token: u32, interest: Interest) -> EpollEvent {
    let flags = match interest {
        Interest::Readable => EpollFlags::EPOLLIN,
        Interest::Writable => EpollFlags::EPOLLOUT,
        Interest::Both => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
    };
    EpollEvent::new(flags, u64::from(token))
}

fn ready(event: &EpollEvent, wake: &EventFd) -> Ready {
    let Ok(token) = u32::try_from(event.data()) else {
        // Only clears the counter; it was readable, and a lost race only means another wake-up.
        let _cleared = wake.read();
        return Ready::Woken;
    };
    let flags = event.events();
    Ready::Descriptor {
        token,
        readable: flags
            .intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP),
        writable: flags.contains(EpollFlags::EPOLLOUT),
    }
}

/// Rounds up to epoll's milliseconds: a wait that ends early would spin until its deadline.
fn epoll_timeout(timeout: Option<Duration>) -> EpollTimeout {
    let Some(timeout) = timeout else {
        return EpollTimeout::NONE;
    };
    let ms = timeout.as_micros().div_ceil(1_000);
    EpollTimeout::try_from(i32::try_from(ms).unwrap_or(i32::MAX)).unwrap_or(EpollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_wait_without_anything_ready_ends_at_its_timeout_and_not_before() {
        let mut poller = Poller::new().unwrap();
        let start = Instant::now();

        let ready = poller
            .wait(Some(Duration::from_micros(2_300)))
            .unwrap()
            .count();

        assert_eq!(ready, 0);
        assert!(start.elapsed() >= Duration::from_micros(2_300));
    }

    #[test]
    fn a_waker_ends_the_wait_once_however_often_it_was_called() {
        let mut poller = Poller::new().unwrap();
        let waker = poller.waker();
        waker.wake().unwrap();
        waker.wake().unwrap();

        let first: Vec<_> = poller.wait(None).unwrap().collect();
        let second = poller.wait(Some(Duration::ZERO)).unwrap().count();

        assert_eq!(first, [Ready::Woken]);
        assert_eq!(second, 0);
    }

    #[test]
    fn a_descriptor_reports_under_its_token_until_it_is_removed() {
        let mut poller = Poller::new().unwrap();
        let (mut near, far) = UnixStream::pair().unwrap();
        poller.add(&far, 7, Interest::Readable).unwrap();
        near.write_all(b"x").unwrap();

        let ready: Vec<_> = poller.wait(Some(Duration::from_secs(5))).unwrap().collect();
        poller.remove(&far).unwrap();
        let after = poller.wait(Some(Duration::ZERO)).unwrap().count();

        assert_eq!(
            ready,
            [Ready::Descriptor {
                token: 7,
                readable: true,
                writable: false
            }]
        );
        assert_eq!(after, 0);
    }
}
