//! The commands that people type, with real `ssh-keygen` and a token without hardware (`sk-dummy.so` of Debian's openssh-tests).

#![expect(clippy::unwrap_used, reason = "a test's helper fails by panicking")]

mod rig;

mod page;
mod refusals;
mod roads;
