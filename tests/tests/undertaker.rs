//! Nothing of a lab outlives its owner.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lab::{Lab, wait_for, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A process that holds a lab, and the lab's prefix.
fn holder() -> (Child, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_lab-hold"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut prefix = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut prefix)
        .unwrap();
    (child, prefix.trim().to_owned())
}

fn left(prefix: &str) -> Vec<String> {
    ["/run/netns", "/etc/netns", "/run/culvert-lab"]
        .into_iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(|entries| entries.flatten())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

fn assert_gone(prefix: &str, how: &str) {
    assert!(!prefix.is_empty());
    wait_for(
        &format!("nothing is left after {how}"),
        Duration::from_secs(5),
        || left(prefix).is_empty(),
    )
    .unwrap_or_else(|error| panic!("{error}: {:?}", left(prefix)));
}

#[test]
fn a_lab_is_gone_after_ctrl_c_and_after_a_crash_of_its_owner() {
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGKILL,
    ] {
        let (mut owner, prefix) = holder();
        assert_eq!(
            left(&prefix).len(),
            8,
            "six namespaces, home's settings, the registry"
        );

        kill(Pid::from_raw(i32::try_from(owner.id()).unwrap()), signal).unwrap();
        owner.wait().unwrap();

        assert_gone(&prefix, signal.as_str());
    }
}

#[test]
fn a_lab_is_gone_after_a_panic_and_after_a_normal_end() {
    for word in ["panic", "end"] {
        let (mut owner, prefix) = holder();

        writeln!(owner.stdin.take().unwrap(), "{word}").unwrap();
        owner.wait().unwrap();

        assert_gone(&prefix, word);
    }
}

#[test]
fn a_dropped_lab_leaves_no_namespace_and_no_process() {
    let lab = Lab::for_test().unwrap();
    let prefix = lab.prefix().to_owned();
    let work = lab.work().to_owned();
    let sleeper = lab
        .home
        .spawn("sleeper", "sleep", &["1000".as_ref()])
        .unwrap();
    let pid = sleeper.pid();
    // `ip` enters the namespace before it becomes the sleeper; who is on the way there is not found in it.
    wait_until("the sleeper", Duration::from_secs(10), || {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm"))?;
        Ok((name.trim() == "sleep").then_some(()))
    })
    .unwrap();
    // Nobody ends this one but the undertaker.
    sleeper.let_go();

    lab.remove().unwrap();

    assert_eq!(left(&prefix), Vec::<String>::new());
    assert!(!work.exists());
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(
        state.is_empty() || state.contains(") Z "),
        "the sleeper still runs: {state}"
    );
}
