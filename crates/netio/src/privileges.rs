//! Becoming another user while keeping only named capabilities.
#![expect(unsafe_code, reason = "prctl and capset have no safe wrapper in nix")]

use std::io;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, User, setgroups, setresgid, setresuid};

/// A right that may be kept (numbers: `linux/capability.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// Ports below 1024.
    NetBindService = 10,
    /// Interfaces, routes, rules, packet filter, marks on sockets.
    NetAdmin = 12,
    /// Raw sockets and binding to a device.
    NetRaw = 13,
}

/// Allows this process as many descriptors as whoever started it lets it have, and says how many that are. What cannot be
/// raised stays as it is.
pub fn raise_descriptors() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 0;
    };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

/// Why privileges could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// The user is not in the system's user database.
    #[error("there is no user named {0} on this system")]
    NoSuchUser(String),
    /// Rights are changed per thread, so that only a process with one thread may change them.
    #[error("privileges were to be dropped after threads had started")]
    Threads,
    /// The kernel refused.
    #[error("the kernel refused to {what}")]
    Refused {
        /// What was asked, as an infinitive.
        what: &'static str,
        /// Its answer.
        #[source]
        errno: Errno,
    },
    /// The user database or `/proc` could not be read.
    #[error("the system's user database or /proc could not be read")]
    Lookup(#[source] io::Error),
}

/// A user of the system, looked up before its files are handed over to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserIds {
    /// User.
    pub uid: Uid,
    /// Main group.
    pub gid: Gid,
}

/// Looks a user up by name.
pub fn find_user(name: &str) -> Result<UserIds, DropError> {
    let user = User::from_name(name)
        .map_err(|errno| DropError::Lookup(errno.into()))?
        .ok_or_else(|| DropError::NoSuchUser(name.to_owned()))?;
    Ok(UserIds {
        uid: user.uid,
        gid: user.gid,
    })
}

/// Tells whether the process is root, as it must be before interfaces can be made.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Becomes `user` for ever, with the rights in `keep` and no others, for itself and the programs that it starts (ambient
/// set), none of which can gain more.
///
/// To be called before any thread is started: rights belong to threads.
pub fn drop_to(user: &str, keep: &[Capability]) -> Result<(), DropError> {
    let ids = find_user(user)?;
    if thread_count().map_err(DropError::Lookup)? != 1 {
        return Err(DropError::Threads);
    }
    bound_to(keep)?;
    // Without this the change of user clears the permitted set.
    refused(
        "keep rights over the change of user",
        prctl::set_keepcaps(true),
    )?;
    refused("give up supplementary groups", setgroups(&[]))?;
    refused("change the group", setresgid(ids.gid, ids.gid, ids.gid))?;
    refused("change the user", setresuid(ids.uid, ids.uid, ids.uid))?;
    set_capabilities(keep)?;
    raise_ambient(keep)?;
    refused("forbid new privileges", prctl::set_no_new_privs())
}

fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Shrinks the bounding set; the numbers above the kernel's last capability answer EINVAL.
fn bound_to(keep: &[Capability]) -> Result<(), DropError> {
    for number in 0..64u8 {
        if keep.iter().any(|capability| *capability as u8 == number) {
            continue;
        }
        // SAFETY: PR_CAPBSET_DROP takes one integer and touches no memory of ours.
        let result =
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(number), 0, 0, 0) };
        match Errno::result(result) {
            Ok(_) => {}
            Err(Errno::EINVAL) => break,
            Err(errno) => {
                return Err(DropError::Refused {
                    what: "give up rights for ever",
                    errno,
                });
            }
        }
    }
    Ok(())
}

/// `__user_cap_header_struct` with version 3, which has two data words per set.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

/// `__user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

fn set_capabilities(keep: &[Capability]) -> Result<(), DropError> {
    let mask = keep
        .iter()
        .fold(0u32, |mask, capability| mask | 1 << *capability as u8);
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION_3,
        pid: 0,
    };
    let low = CapabilityData {
        effective: mask,
        permitted: mask,
        inheritable: mask,
    };
    let high = CapabilityData {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    };
    let data = [low, high];
    // SAFETY: both pointers are to live values of the layout that version 3 demands (one header, two data structs); the
    // kernel only reads them.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    refused(
        "keep only the named rights",
        Errno::result(result).map(drop),
    )
}

fn raise_ambient(keep: &[Capability]) -> Result<(), DropError> {
    for capability in keep {
        let (raise, number) = (
            libc::PR_CAP_AMBIENT_RAISE as libc::c_ulong,
            libc::c_ulong::from(*capability as u8),
        );
        // SAFETY: PR_CAP_AMBIENT takes integers and touches no memory of ours.
        let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, number, 0, 0) };
        refused(
            "hand rights on to started programs",
            Errno::result(result).map(drop),
        )?;
    }
    Ok(())
}

fn refused(what: &'static str, result: nix::Result<()>) -> Result<(), DropError> {
    result.map_err(|errno| DropError::Refused { what, errno })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_user_is_named_in_the_error() {
        let error = drop_to("no-such-user-here", &[]).unwrap_err();

        assert_eq!(
            error.to_string(),
            "there is no user named no-such-user-here on this system"
        );
    }

    #[test]
    fn a_process_with_threads_keeps_its_rights() {
        let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(1);
        let thread = std::thread::spawn(move || stopped.recv().is_err());

        let error = drop_to("root", &[Capability::NetAdmin]).unwrap_err();

        assert!(matches!(error, DropError::Threads));
        drop(stop);
        assert!(thread.join().unwrap());
    }
}
