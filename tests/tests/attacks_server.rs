//! One provisioning server in the wrong hands, or one that was put back to an old copy: what a router does with leases that are not its own, old,
//! changed or of another history, and what an honest server says of a copy of itself.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::fs;
use std::time::Duration;

use lab::{
    Image, Lab, Marker, Office, Programs, Router, Running, Searched, StreamReader, Witness, exit,
    refused, said, wait_until,
};
use trust::{ClaimCode, Lease};

const PATIENCE: Duration = Duration::from_secs(20);
const REFUSED: &str = "the provisioning server's answer is refused: ";

/// An office that leases a gateway which nobody runs, and its running server.
struct Scene {
    server: Option<Running>,
    office: Office,
    programs: Programs,
    lab: Lab,
}

impl Scene {
    fn new() -> Self {
        let (lab, programs) = (Lab::for_test().unwrap(), Programs::of_this_build().unwrap());
        let office = Office::init(&lab, &programs).unwrap();
        Self::of(lab, programs, office)
    }

    fn of(lab: Lab, programs: Programs, office: Office) -> Self {
        let server = Some(office.start().unwrap());
        let gateway = StreamReader::default().public();
        office.add_silent_gateway(&gateway).unwrap();
        Self {
            server,
            office,
            programs,
            lab,
        }
    }

    fn router(&self, name: &str) -> Router {
        self.router_of(&self.office, name)
    }

    /// With the image of our office, at another's address.
    fn router_of(&self, office: &Office, name: &str) -> Router {
        let image = Image {
            url: Some(office.url()),
            ..Image::default()
        };
        Router::flash_as(&self.lab, &self.programs, &self.office, name, &image).unwrap()
    }

    /// A router that has a lease, and its device's id.
    fn leased(&self, name: &str) -> (Router, String) {
        let router = self.router(name);
        takes(&self.office, &router);
        let newest = "SELECT hex(devid_hash) FROM lease ORDER BY leaf DESC LIMIT 1";
        (router, self.office.sql(newest).unwrap())
    }

    /// Changes the store; what guards it there is who has it to take away.
    fn tamper(&self, sql: &str) {
        let guards = ["lease_stays", "log_head_grows", "log_next_grows"];
        let guards = guards.map(|name| format!("DROP TRIGGER IF EXISTS {name};"));
        self.office
            .sql(&format!("{}{sql}", guards.concat()))
            .unwrap();
    }

    fn restart_with(&mut self, store: &std::path::Path) {
        self.server.take().unwrap().terminate().unwrap();
        self.office.replace_store(store).unwrap();
        self.server = Some(self.office.start().unwrap());
    }
}

#[track_caller]
fn takes(office: &Office, router: &Router) {
    let enrolled = router.try_enrol(&office.claim().unwrap()).unwrap();
    assert!(enrolled.status.success(), "{}", said(&enrolled));
}

#[track_caller]
fn takes_nothing(office: &Office, router: &Router, words: &str) {
    let tried = router.try_enrol(&office.claim().unwrap()).unwrap();
    refused(&tried, exit::UNAVAILABLE, &[words]).unwrap();
}

/// The agent that runs says why it takes nothing new, and keeps the lease of this epoch.
#[track_caller]
fn goes_on(office: &Office, router: &Router, epoch: u64, words: &str) {
    let agent = router.start().unwrap();
    let _asks = router.keep_asking(&office.claim().unwrap()).unwrap();
    let words = format!("{REFUSED}{words}");
    let status = wait_until("the agent says why", PATIENCE, || {
        let status = router.status()?;
        let reason = status["reason"].as_str().unwrap_or_default();
        Ok(reason.contains(&words).then_some(status))
    });
    assert_eq!(status.unwrap()["lease"]["epoch"], epoch);
    agent.terminate().unwrap();
}

#[test]
fn a_stolen_store_holds_no_code_and_no_private_key_of_a_router() {
    let scene = Scene::new();
    let router = scene.router("router");
    let code = scene.office.claim().unwrap();
    let enrolled = router.try_enrol(&code).unwrap();
    assert!(enrolled.status.success(), "{}", said(&enrolled));
    let store = scene.lab.work().join("stolen.db");
    scene.office.copy_store(&store).unwrap();

    let claim: ClaimCode = code.parse().unwrap();
    let mut secrets = vec![
        Marker::text(&code),
        Marker::text(&code.replace('-', "")),
        Marker::key("the code's key", &claim.signing_key().to_bytes()),
    ];
    for file in ["identity", "keys"] {
        let bytes = fs::read(router.state_dir().join(file)).unwrap();
        assert!(bytes.len() > 32);
        let pieces = bytes.windows(32).map(|piece| piece.try_into().unwrap());
        secrets.extend(pieces.map(|piece| Marker::key(file, piece)));
    }
    let search = |markers: &[Marker]| {
        let mut searched = Searched::default();
        searched.files(&store, markers).unwrap();
        searched.findings
    };
    assert_eq!(search(&secrets), []);
    let public = claim.signing_key().verifying_key().to_bytes();
    assert_eq!(search(&[Marker::key("its public half", &public)]).len(), 1);
}

#[test]
fn a_router_takes_no_lease_of_another_router_and_goes_on_with_its_own() {
    let scene = Scene::new();
    let (router, mine) = scene.leased("mine");
    let (_, other) = scene.leased("other");
    let honest = scene.lab.work().join("honest");
    scene.office.copy_store(&honest).unwrap();

    let theirs =
        format!("SELECT statement, salt, leaf - 1000 FROM lease WHERE devid_hash = x'{other}'");
    scene.tamper(&format!(
        "UPDATE lease SET leaf = leaf + 1000 WHERE devid_hash = x'{other}';
         UPDATE lease SET (statement, salt, leaf) = ({theirs}) WHERE devid_hash = x'{mine}';"
    ));

    let words = "the lease is for another device or another tunnel key";
    takes_nothing(&scene.office, &router, words);
    goes_on(&scene.office, &router, 1, words);
    takes_nothing(&scene.office, &router, words);
    let mut scene = scene;
    scene.restart_with(&honest);
    takes(&scene.office, &router);
}

#[test]
fn a_router_takes_no_lease_that_it_had_before_a_newer_one_and_goes_on_with_the_newer() {
    let scene = Scene::new();
    let (router, id) = scene.leased("router");
    let limit = ["device", "limit", &id.to_lowercase(), "--down", "50M"];
    scene.office.cli(&limit).unwrap();
    let newer = scene
        .office
        .cli_json(&["claim", "new", "--down", "50M"])
        .unwrap();
    let enrolled = router.try_enrol(newer["code"].as_str().unwrap()).unwrap();
    assert!(enrolled.status.success(), "{}", said(&enrolled));
    let terms = |epoch: u64, limit: &str| {
        scene.tamper(&format!(
            "UPDATE device SET epoch = {epoch}, limit_down = {limit}"
        ));
    };

    terms(1, "NULL");
    let words = "the lease has epoch 1, but 2 was accepted before";
    takes_nothing(&scene.office, &router, words);
    goes_on(&scene.office, &router, 2, words);

    terms(2, "NULL");
    takes(&scene.office, &router);
}

#[test]
fn a_router_takes_no_lease_whose_bytes_are_not_the_logged_ones() {
    let scene = Scene::new();
    let (router, id) = scene.leased("router");
    let logged = scene
        .office
        .sql("SELECT hex(statement) FROM lease")
        .unwrap();
    let lease = Lease::from_bytes(&bytes(&logged)).unwrap();
    let put = |hex: &str| {
        let sql = format!("UPDATE lease SET statement = x'{hex}' WHERE devid_hash = x'{id}'");
        scene.tamper(&sql);
    };
    let longer = Lease {
        not_after: lease.not_after + 1,
        epoch: 2,
        ..lease.clone()
    };
    let elsewhere = Lease {
        addresses: vec!["10.64.0.77/32".parse().unwrap()],
        epoch: 2,
        ..lease.clone()
    };
    let resolver = Lease {
        dns: vec!["sdns://AQ".to_owned()],
        epoch: 2,
        ..lease
    };

    for forged in [longer, elsewhere, resolver] {
        let hex: String = forged
            .to_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        put(&hex);
        let words = "the lease is not in the fleet log: the entry is not in the checkpoint's tree";
        takes_nothing(&scene.office, &router, words);
    }
    put(&logged);
    takes(&scene.office, &router);
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = (0..hex.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn a_router_takes_nothing_of_a_log_that_was_put_back_or_goes_on_otherwise() {
    let mut scene = Scene::new();
    let (router, _) = scene.leased("router");
    let [before, after] = ["before", "after"].map(|name| scene.lab.work().join(name));
    scene.office.copy_store(&before).unwrap();
    scene.leased("second");
    takes(&scene.office, &router);
    scene.office.copy_store(&after).unwrap();

    scene.restart_with(&before);
    let shorter = "the fleet log has 1 entries, but 2 were seen before";
    takes_nothing(&scene.office, &router, shorter);
    goes_on(&scene.office, &router, 1, shorter);
    // Who is new cannot tell: that is for witnesses.
    for (name, size) in [("third", "2"), ("fourth", "3")] {
        scene.leased(name);
        let entries = scene
            .office
            .sql("SELECT count(*) FROM log_entry WHERE log = 0");
        assert_eq!(entries.unwrap(), size);
        let words = "the fleet log does not continue the one that was seen before";
        takes_nothing(&scene.office, &router, words);
    }

    scene.restart_with(&after);
    takes(&scene.office, &router);
}

#[test]
fn who_has_a_servers_tls_key_and_not_those_of_its_logs_leases_nothing() {
    let scene = Scene::new();
    let thief = Office::init_in(&scene.lab, &scene.programs, "thief").unwrap();
    let thief = thief.stolen(&scene.lab, "thief2", 8444).unwrap();
    let gateway = StreamReader::default().public();
    let router = scene.router_of(&thief, "router");
    let server = thief.start().unwrap();
    let words = "is not the provisioning server of this router's image";
    takes_nothing(&thief, &router, words);
    server.terminate().unwrap();

    thief.take_tls_key(&scene.office).unwrap();
    let _server = thief.start().unwrap();
    thief.add_silent_gateway(&gateway).unwrap();
    let words = "the lease is not in the fleet log: the checkpoint has no signature of its log";
    takes_nothing(&thief, &router, words);

    let honest = scene.router("honest");
    takes(&scene.office, &honest);
}

/// An office whose logs it and one witness have to cosign.
fn witnessed() -> (Scene, Witness, Running) {
    let (lab, programs) = (Lab::for_test().unwrap(), Programs::of_this_build().unwrap());
    let witness = Witness::init(&lab, &programs, ("w1", 8601)).unwrap();
    let lines = format!("{}group both all lab w1\nquorum both\n", witness.line());
    let office = Office::init_witnessed(&lab, &programs, &lines).unwrap();
    witness.learn(&office).unwrap();
    let running = witness.start().unwrap();
    (Scene::of(lab, programs, office), witness, running)
}

const NOT_COSIGNED: &str = "too few witnesses have cosigned the provider's log yet";

#[test]
fn of_two_servers_with_the_same_keys_one_leases_and_the_other_says_that_there_are_two() {
    let (scene, witness, _running) = witnessed();
    let thief = scene.office.stolen(&scene.lab, "thief", 8444).unwrap();
    let (router, _) = scene.leased("router");

    let copy = thief.start().unwrap();
    let victim = scene.router_of(&thief, "victim");
    takes_nothing(&thief, &victim, NOT_COSIGNED);
    let told = thief.cli(&["status"]).unwrap();
    assert!(told.contains("HAS COSIGNED ANOTHER HISTORY"), "{told}");
    takes(&scene.office, &scene.router("second"));
    copy.terminate().unwrap();

    // This copy is the first to go on, and so the honest server is the one that cannot.
    let thief = scene.office.stolen(&scene.lab, "later", 8445).unwrap();
    let _copy = thief.start().unwrap();
    takes(&thief, &scene.router_of(&thief, "theirs"));
    takes_nothing(&scene.office, &scene.router("third"), NOT_COSIGNED);
    let told = scene.office.cli(&["status"]).unwrap();
    assert!(told.contains("HAS COSIGNED ANOTHER HISTORY"), "{told}");
    let log = scene.server.as_ref().unwrap().log();
    assert!(log.contains("or a copy of them runs elsewhere"), "{log}");
    let forks = fs::read_dir(witness.dir().join("forks")).unwrap();
    assert_eq!(forks.count(), 1);
    takes(&scene.office, &router);
}

#[test]
fn a_server_that_was_put_back_leases_nothing_and_says_what_to_do() {
    let (mut scene, _witness, _running) = witnessed();
    let (router, _) = scene.leased("router");
    let [before, after] = ["before", "after"].map(|name| scene.lab.work().join(name));
    scene.office.copy_store(&before).unwrap();
    for name in ["second", "another"] {
        scene.leased(name);
    }
    scene.office.copy_store(&after).unwrap();

    scene.restart_with(&before);
    let third = scene.router("third");
    takes_nothing(&scene.office, &third, NOT_COSIGNED);
    let told = scene.office.cli(&["status"]).unwrap();
    assert!(told.contains("HAS COSIGNED 3 ENTRIES"), "{told}");
    let log = scene.server.as_ref().unwrap().log();
    assert!(log.contains("restore the latest copy"), "{log}");
    takes(&scene.office, &router);

    scene.restart_with(&after);
    takes(&scene.office, &third);
}

#[test]
fn a_server_with_its_clock_behind_does_not_start_and_one_that_is_made_to_leases_nothing() {
    let (mut scene, _witness, _running) = witnessed();
    let (router, _) = scene.leased("router");
    scene.server.take().unwrap().terminate().unwrap();
    let told = scene.office.start_at("-30d").unwrap_err();
    assert!(format!("{told:#}").contains("set the clock"), "{told:#}");

    let stamps = "UPDATE log_head SET stamp = 0; UPDATE log_next SET stamp = 0";
    scene.tamper(stamps);
    let behind = scene.office.start_at("-30d").unwrap();
    let new = scene.router("new");
    takes_nothing(&scene.office, &new, "the lease ended at");
    behind.terminate().unwrap();

    scene.server = Some(scene.office.start().unwrap());
    takes(&scene.office, &new);
    takes(&scene.office, &router);
}

#[test]
fn a_server_with_its_clock_ahead_leases_nothing_and_is_told_to_mend_it() {
    let (mut scene, _witness, _running) = witnessed();
    let (router, _) = scene.leased("router");
    scene.server.take().unwrap().terminate().unwrap();
    let ahead = scene.office.start_at("+2d").unwrap();
    let new = scene.router("new");
    for router in [&new, &router] {
        takes_nothing(&scene.office, router, "the lease begins at");
    }
    goes_on(&scene.office, &router, 1, "the lease begins at");
    ahead.terminate().unwrap();

    let told = scene.office.start().unwrap_err();
    assert!(format!("{told:#}").contains("set the clock"), "{told:#}");
    scene.tamper("UPDATE log_head SET stamp = 0; UPDATE log_next SET stamp = 0");
    scene.server = Some(scene.office.start().unwrap());
    takes(&scene.office, &new);
    takes(&scene.office, &router);
}
