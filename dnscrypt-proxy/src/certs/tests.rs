use std::fs;
use std::sync::Mutex;

use super::*;
use crate::proto::cert::{Legacy, Policy, PostQuantum, select};

/// A clock that only moves when told.
#[derive(Clone, Default)]
struct HandClock(Arc<Mutex<u64>>);

impl HandClock {
    fn at(now: u64) -> Self {
        let clock = Self::default();
        clock.set(now);
        clock
    }

    fn set(&self, now: u64) {
        *self.0.lock().unwrap() = now;
    }

    fn clock(&self) -> Clock {
        let cell = Arc::clone(&self.0);
        Arc::new(move || *cell.lock().unwrap())
    }
}

fn provider() -> SigningKey {
    SigningKey::from_bytes(&[5; 32])
}

fn ring(certs: &Certs) -> Arc<Keyring> {
    Arc::clone(&certs.keyring().borrow())
}

/// Of the classical certificates; there is a post-quantum one to each of them.
fn serials(certs: &Certs) -> Vec<u32> {
    let ring = ring(certs);
    let of = |system| {
        let keys = ring.keys().iter().map(|key| key.cert());
        let of_system = keys.filter(move |cert| cert.system == system);
        of_system.map(|cert| cert.serial).collect::<Vec<_>>()
    };
    let classical = of(System::XChaCha20Poly1305);
    assert_eq!(of(System::XWing), classical);
    classical
}

const START: u64 = 1_800_000_000;
const HOUR: u64 = 3600;

#[test]
fn rotations_beyond_a_day_or_without_pause_are_refused() {
    let day = Rotation {
        every_s: 24 * 3600,
        ..Rotation::default()
    };
    let restless = Rotation {
        every_s: 1,
        ..Rotation::default()
    };
    let huge = Rotation {
        every_s: u32::MAX,
        ..Rotation::default()
    };

    for rotation in [day, restless, huge] {
        assert_eq!(rotation.check(), Err(BadRotation));
    }
    assert!(Rotation::default().check().is_ok());
}

#[test]
fn keys_rotate_with_overlap_and_end_within_a_day() {
    let hand = HandClock::at(START);
    let mut certs = Certs::signing(provider(), Rotation::default(), hand.clock()).unwrap();
    assert_eq!(serials(&certs).len(), 1);
    let first = serials(&certs)[0];

    hand.set(START + 8 * HOUR - 1);
    certs.refresh().unwrap();
    assert_eq!(serials(&certs), [first]);

    hand.set(START + 8 * HOUR);
    certs.refresh().unwrap();
    assert_eq!(serials(&certs).len(), 2);
    assert!(serials(&certs)[1] > first);

    hand.set(START + 16 * HOUR + 1);
    certs.refresh().unwrap();
    assert!(!serials(&certs).contains(&first));
    let ring = ring(&certs);
    for key in ring.keys() {
        assert!(key.cert().end - key.cert().start <= MAX_KEY_LIFE_S);
    }
}

#[test]
fn a_post_quantum_secret_has_nothing_of_the_classical_one_beside_it() {
    let certs = Certs::signing(
        provider(),
        Rotation::default(),
        HandClock::at(START).clock(),
    )
    .unwrap();
    let ring = ring(&certs);

    let secrets: Vec<_> = ring
        .keys()
        .iter()
        .map(|key| key.to_secret_bytes().last_chunk::<32>().copied().unwrap())
        .collect();

    assert_eq!(secrets.len(), 2);
    assert_ne!(secrets[0], secrets[1]);
    let [classical, post_quantum] = ring.keys() else {
        panic!("two keys")
    };
    assert_ne!(classical.cert().magic, post_quantum.cert().magic);
    // The X25519 half stands at the end of X-Wing's key.
    let half = post_quantum.cert().resolver_key.last_chunk::<32>().unwrap();
    assert_ne!(classical.cert().resolver_key, half);
}

#[test]
fn ticket_keys_rotate_while_certificates_stay_and_end_with_the_process() {
    let hand = HandClock::at(START);
    let start = || Certs::signing(provider(), Rotation::default(), hand.clock()).unwrap();
    let mut certs = start();
    let first = Arc::clone(ring(&certs).tickets().unwrap());
    let keys = ring(&certs).keys().to_vec();

    let pause = certs.refresh().unwrap();
    hand.set(START + 4 * HOUR);
    certs.refresh().unwrap();

    let second = Arc::clone(ring(&certs).tickets().unwrap());
    assert!(pause <= LONGEST_SLEEP);
    assert!(same_keys(&keys, ring(&certs).keys()));
    assert_eq!(
        second.to_secret_bytes().len(),
        2 * first.to_secret_bytes().len()
    );
    let other = Arc::clone(ring(&start()).tickets().unwrap());
    assert_ne!(*other.to_secret_bytes(), *first.to_secret_bytes());
}

#[test]
fn what_is_advertised_satisfies_a_client_at_every_hour() {
    let hand = HandClock::at(START);
    let mut certs = Certs::signing(provider(), Rotation::default(), hand.clock()).unwrap();

    for hour in 0..100 {
        let now = START + hour * HOUR;
        hand.set(now);
        certs.refresh().unwrap();
        let ring = ring(&certs);
        // A client whose clock is three quarters of an hour behind is served, too.
        for clients_now in [now, now - 45 * 60] {
            for post_quantum in [PostQuantum::Off, PostQuantum::Required] {
                let policy = Policy {
                    post_quantum,
                    legacy: Legacy::Refused,
                };
                let advertised = ring.advertised(now);
                let provider = certs.provider_public();
                let selection = select(advertised, &provider, policy, clients_now);
                assert!(selection.best.is_some(), "hour {hour}, {post_quantum:?}");
            }
        }
        assert!(ring.keys().len() <= 6);
        let records = ring.advertised(now);
        assert!(records.len() <= 4);
        // Clients take 4096 bytes, with the question and some ten bytes before each record and in it.
        assert!(records.iter().map(|wire| wire.len() + 32).sum::<usize>() < 3_200);
    }
}

#[test]
fn a_clock_that_was_wrong_at_start_is_recovered_from() {
    let hand = HandClock::at(START + 1000 * HOUR);
    let mut certs = Certs::signing(provider(), Rotation::default(), hand.clock()).unwrap();

    hand.set(START);
    certs.refresh().unwrap();

    let ring = ring(&certs);
    assert_eq!(ring.advertised(START).len(), 2);
}

#[test]
fn provider_key_files_are_private_never_overwritten_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("provider.key");

    let made = create_provider_key(&path).unwrap();
    let again = create_provider_key(&path);
    let read = read_provider_key(&path).unwrap();

    assert!(matches!(again, Err(ProviderKeyError::Write { .. })));
    assert_eq!(read.to_bytes(), made.to_bytes());
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    for bad in [
        "",
        "00",
        &"0g".repeat(32),
        &"00".repeat(33),
        &"+1".repeat(32),
    ] {
        fs::write(&path, bad).unwrap();
        assert!(matches!(
            read_provider_key(&path),
            Err(ProviderKeyError::NotAKey { .. })
        ));
    }
    let public = dir.path().join("provider.pub");
    let open = dir.path().join("open.key");
    for (path, mode) in [(&public, 0o600), (&open, 0o644)] {
        fs::write(path, "00".repeat(32)).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(path, mode).unwrap();
        let refused = read_provider_key(path).unwrap_err();
        assert!(
            matches!(refused, ProviderKeyError::NotSecret { .. }),
            "{refused}"
        );
    }
    let missing = read_provider_key(&dir.path().join("none"));
    assert!(matches!(missing, Err(ProviderKeyError::Read { .. })));
}

fn series(count: usize) -> Series {
    Series {
        start: u32::try_from(START).unwrap(),
        count,
        lifetime_s: 24 * 3600,
    }
}

#[test]
fn series_beyond_a_day_or_without_end_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let long = Series {
        lifetime_s: 25 * 3600,
        ..series(1)
    };

    for bad in [long, series(0), series(100_000)] {
        let outcome = write_series(&provider(), dir.path(), bad);
        assert!(matches!(outcome, Err(DirectoryError::BadSeries)));
    }
}

#[test]
fn a_directory_serves_its_series_and_erases_what_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let files = write_series(&provider(), dir.path(), series(4)).unwrap();
    let hand = HandClock::at(START + 1);
    let mut certs = Certs::directory(dir.path(), hand.clock()).unwrap();

    assert_eq!(
        certs.provider_public(),
        provider().verifying_key().to_bytes()
    );
    assert_eq!(serials(&certs).len(), 1);
    hand.set(START + 13 * HOUR);
    certs.refresh().unwrap();
    assert_eq!(serials(&certs).len(), 2);
    hand.set(START + 24 * HOUR + 1);
    certs.refresh().unwrap();

    assert_eq!(serials(&certs).len(), 2);
    assert!(!files[0].exists() && !files[1].exists());
    assert!(files[2].exists() && files[3].exists());
}

#[test]
fn a_key_that_stays_valid_stays_the_same_object() {
    let dir = tempfile::tempdir().unwrap();
    write_series(&provider(), dir.path(), series(4)).unwrap();
    let hand = HandClock::at(START + 1);
    let mut certs = Certs::directory(dir.path(), hand.clock()).unwrap();
    let mut keyring = certs.keyring();
    keyring.mark_unchanged();

    certs.refresh().unwrap();

    assert!(!keyring.has_changed().unwrap());
}

#[test]
fn a_directory_without_anything_valid_says_so_and_what_was_valid_stays() {
    let dir = tempfile::tempdir().unwrap();
    write_series(&provider(), dir.path(), series(1)).unwrap();

    let too_early = Certs::directory(dir.path(), HandClock::at(START - 1).clock());
    let missing = Certs::directory(dir.path().join("none"), HandClock::at(START).clock());

    let text = too_early.err().unwrap().to_string();
    assert!(
        text.contains("is valid now") && text.contains("clock"),
        "{text}"
    );
    assert!(matches!(
        missing,
        Err(CertsError::Directory(DirectoryError::Io { .. }))
    ));
}

#[test]
fn files_that_were_altered_or_belong_to_another_provider_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let files = write_series(&provider(), dir.path(), series(3)).unwrap();
    let other = write_series(
        &SigningKey::from_bytes(&[6; 32]),
        &dir.path().join("other"),
        series(1),
    )
    .unwrap();
    let mut altered = fs::read(&files[0]).unwrap();
    *altered.last_mut().unwrap() ^= 1;
    fs::write(&files[0], altered).unwrap();
    fs::copy(&other[0], dir.path().join("9.cert")).unwrap();
    fs::write(dir.path().join("8.cert"), b"short").unwrap();

    let certs = Certs::directory(dir.path(), HandClock::at(START + 13 * HOUR).clock()).unwrap();

    let ring = ring(&certs);
    let classical = ring
        .keys()
        .iter()
        .filter(|key| key.cert().system == System::XChaCha20Poly1305);
    assert_eq!((classical.count(), ring.keys().len()), (1, 3));
}

#[test]
fn a_ticket_file_that_cannot_be_read_keeps_no_certificate_from_being_renewed() {
    let dir = tempfile::tempdir().unwrap();
    write_series(&provider(), dir.path(), series(3)).unwrap();
    let hand = HandClock::at(START + HOUR);
    let mut certs = Certs::directory(dir.path(), hand.clock()).unwrap();
    let before = serials(&certs);
    std::os::unix::fs::symlink("nowhere", dir.path().join("9-broken.tickets")).unwrap();

    hand.set(START + 13 * HOUR);
    certs.refresh().unwrap();

    assert_ne!(serials(&certs), before);
    assert!(ring(&certs).tickets().is_some());
}

/// A file that nobody can write to, root neither, until it is dropped.
struct Immutable(std::path::PathBuf);

impl Immutable {
    fn of(path: &std::path::Path) -> Option<Self> {
        chattr("+i", path).then(|| Self(path.to_owned()))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        chattr("-i", &self.0);
    }
}

fn chattr(how: &str, path: &std::path::Path) -> bool {
    let run = std::process::Command::new("chattr")
        .arg(how)
        .arg(path)
        .status();
    run.is_ok_and(|status| status.success())
}

#[test]
fn a_secret_that_cannot_be_erased_keeps_no_certificate_from_being_renewed() {
    let dir = tempfile::tempdir().unwrap();
    let files = write_series(&provider(), dir.path(), series(3)).unwrap();
    let hand = HandClock::at(START + HOUR);
    let mut certs = Certs::directory(dir.path(), hand.clock()).unwrap();
    let before = serials(&certs);
    let Some(_immutable) = Immutable::of(&files[0]) else {
        eprintln!("SKIPPED: this file system or user knows no immutable files");
        return;
    };

    hand.set(START + 30 * HOUR);
    certs.refresh().unwrap();

    assert!(files[0].exists() && !files[1].exists());
    assert!(!serials(&certs).contains(&before[0]));
}

fn next_provider() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// What clients that were given one of the provider's keys make of an answer at a moment.
fn best(ring: &Keyring, provider: &SigningKey, now: u64, clients_now: u64) -> Option<Certificate> {
    let public = provider.verifying_key().to_bytes();
    let advertised = ring.advertised(now);
    select(advertised, &public, Policy::default(), clients_now).best
}

#[test]
fn a_file_with_three_provider_keys_or_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_series(&provider(), dir.path(), series(1)).unwrap();
    let line = format!(
        "{}\n",
        super::provider::hex(&provider().verifying_key().to_bytes())
    );

    for bad in [String::new(), line.repeat(3), format!("{line}\n{line}")] {
        fs::write(dir.path().join("provider.pub"), &bad).unwrap();
        let certs = Certs::directory(dir.path(), HandClock::at(START + 1).clock());
        assert!(
            matches!(
                certs.err(),
                Some(CertsError::Directory(DirectoryError::BadProvider { .. }))
            ),
            "{bad:?}"
        );
    }
}

#[test]
fn while_the_provider_changes_its_key_clients_of_either_find_a_certificate_in_one_packet() {
    let dir = tempfile::tempdir().unwrap();
    write_series(&provider(), dir.path(), series(4)).unwrap();
    let hand = HandClock::at(START + HOUR);
    let mut certs = Certs::directory(dir.path(), hand.clock()).unwrap();
    let both = Series {
        start: series(1).start + 11 * 3600,
        ..series(4)
    };
    write_series(&next_provider(), dir.path(), both).unwrap();

    // 48 hours of the old key, 11 to 71 of the new one.
    for half_hour in 2..140 {
        let now = START + half_hour * HOUR / 2;
        hand.set(now);
        certs.refresh().unwrap();
        let ring = ring(&certs);
        for (key, from, until) in [
            (provider(), 0, 60 * HOUR),
            (next_provider(), 11 * HOUR, 71 * HOUR),
        ] {
            let times = START + from..=START + until;
            // Clients whose clocks are behind are served too, once anybody is.
            for clients_now in [now, now - 45 * 60] {
                let expected = times.contains(&now) && times.contains(&clients_now);
                let found = best(&ring, &key, now, clients_now);
                assert_eq!(found.is_some(), expected, "half hour {half_hour}");
            }
        }
        let records = ring.advertised(now);
        assert!(records.iter().map(|wire| wire.len() + 32).sum::<usize>() < 3_200);
    }
    assert_eq!(
        certs.provider_public(),
        next_provider().verifying_key().to_bytes()
    );
}

#[test]
fn a_third_key_of_the_provider_takes_the_place_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    for seed in [5, 7, 9] {
        write_series(&SigningKey::from_bytes(&[seed; 32]), dir.path(), series(1)).unwrap();
    }

    let text = fs::read_to_string(dir.path().join("provider.pub")).unwrap();

    let public = |seed| {
        super::provider::hex(
            &SigningKey::from_bytes(&[seed; 32])
                .verifying_key()
                .to_bytes(),
        )
    };
    assert_eq!(text, format!("{}\n{}\n", public(7), public(9)));
}

#[test]
fn gateways_with_the_same_directory_have_the_same_ticket_keys_at_every_hour_and_erase_them() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_series(&provider(), here.path(), series(4)).unwrap();
    for entry in fs::read_dir(here.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), there.path().join(entry.file_name())).unwrap();
    }
    let hand = HandClock::at(START);
    let start = |path| Certs::directory(path, hand.clock()).unwrap();
    let (mut first, mut second) = (start(here.path()), start(there.path()));

    for hour in 0..59 {
        hand.set(START + hour * HOUR + 1);
        first.refresh().unwrap();
        second.refresh().unwrap();
        let secrets = |certs: &Certs| ring(certs).tickets().unwrap().to_secret_bytes();
        assert_eq!(*secrets(&first), *secrets(&second), "hour {hour}");
        // One that issues, one that retires, one to come.
        assert!(secrets(&first).len() <= 3 * 48);
    }
    let left = ticket_files(here.path());
    assert!(left <= 2, "{left} ticket keys are left");
}

#[test]
fn a_second_series_continues_the_ticket_keys_and_a_directory_without_them_is_served_by_chance() {
    let dir = tempfile::tempdir().unwrap();
    write_series(&provider(), dir.path(), series(1)).unwrap();
    let before = ticket_files(dir.path());
    write_series(&next_provider(), dir.path(), series(1)).unwrap();
    let after = ticket_files(dir.path());
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "tickets")
        {
            fs::write(path, b"no key").unwrap();
        }
    }

    let certs = Certs::directory(dir.path(), HandClock::at(START + 1).clock()).unwrap();

    assert_eq!((before, after), (6, 6));
    assert_eq!(ring(&certs).tickets().unwrap().to_secret_bytes().len(), 48);
}

fn ticket_files(directory: &std::path::Path) -> usize {
    let names = fs::read_dir(directory).unwrap();
    let names = names.map(|entry| entry.unwrap().path());
    names
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "tickets")
        })
        .count()
}
