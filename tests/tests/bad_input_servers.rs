//! What gateway, provisioning and culvert-dns say to wrong input and a poor machine.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use lab::{
    Answer, Device, Lab, Netns, Office, People, Pop, Programs, Zones, exit, mistakes_told, refused,
    wait_for, wait_until,
};

const SERVER: &str = "198.18.2.2:8443";

/// Runs a line in a shell that prepares something first; backtraces are asked for, so that one would show.
fn run_after(netns: &Netns, preparation: &str, line: &str) -> Output {
    netns
        .output(&[
            "sh",
            "-c",
            &format!("export RUST_BACKTRACE=1; {preparation}\nexec timeout 10 {line}"),
        ])
        .unwrap()
}

fn site() -> (Pop, Office, Lab) {
    let lab = Lab::for_test().unwrap();
    let programs = Programs::of_this_build().unwrap();
    let office = Office::init(&lab, &programs).unwrap();
    let zones = Zones::make(&lab.folder("zones").unwrap()).unwrap();
    let pop = Pop::install(&lab, &programs, &office, &zones).unwrap();
    (pop, office, lab)
}

#[test]
fn every_mistake_of_a_gateways_configuration_is_told_at_once() {
    let (pop, _office, lab) = site();
    pop.edit_config(|text| {
        text.replace("mtu = 1420", "mtu = 99999")
            .replace("mode = \"recurse\"", "mode = \"guess\"")
            .replace("shards = [1]", "shards = []")
            .replace("[nat]\ninterface", "[nat]\nintreface")
            .replace("\"0.0.0.0:51820\"", "\"everywhere\"")
    })
    .unwrap();

    let output = run_after(&lab.pop, "", &pop.run_line());

    mistakes_told(
        &output,
        &[
            "tunnel.mtu",
            "dns.mode",
            "provisioning.shards",
            "nat.intreface",
            "tunnel.listen",
        ],
    )
    .unwrap();
}

#[test]
fn a_gateway_without_root_or_a_tun_device_or_its_ports_says_so() {
    let (pop, _office, lab) = site();
    let line = pop.run_line();

    let unprivileged = format!("setpriv --reuid nobody --regid nogroup --clear-groups {line}");
    refused(
        &run_after(&lab.pop, "", &unprivileged),
        exit::PERMISSION,
        &["root"],
    )
    .unwrap();
    refused(
        &run_after(&lab.pop, "mount -t tmpfs none /dev/net", &line),
        exit::IO,
        &["/dev/net/tun"],
    )
    .unwrap();
    let taken = lab
        .pop
        .enter(|| Ok(std::net::UdpSocket::bind("0.0.0.0:51820")?))
        .unwrap();
    refused(&run_after(&lab.pop, "", &line), exit::IO, &["51820"]).unwrap();
    drop(taken);

    let left = lab.pop.run(&["ip", "-o", "link"]).unwrap();
    assert!(!left.contains("culvert0"), "{left}");
    let rules = lab.pop.run(&["nft", "list", "tables"]).unwrap();
    assert!(!rules.contains("culvert"), "{rules}");
    drop(pop.start().unwrap());
}

#[test]
fn a_gateway_with_a_full_disk_or_a_missing_key_says_so() {
    let (pop, _office, lab) = site();
    let state = pop.state_dir();
    let full = format!(
        "cp -a {0} {0}.copy; mount -t tmpfs -o size=32k none {0}; cp {0}.copy/* {0}; dd if=/dev/zero of={0}/x bs=1k 2>/dev/null",
        state.display()
    );

    refused(
        &run_after(&lab.pop, &full, &pop.run_line()),
        exit::CANNOT_WRITE,
        &["space"],
    )
    .unwrap();
    std::fs::remove_file(state.join("gateway.wg")).unwrap();
    let output = run_after(&lab.pop, "", &pop.run_line());
    refused(&output, exit::CONFIG, &["gateway.wg", "init"]).unwrap();
}

#[test]
fn status_of_a_gateway_that_does_not_run_says_so() {
    let (pop, _office, lab) = site();

    let line = pop.run_line().replace(" run ", " status ");

    refused(
        &run_after(&lab.pop, "", &line),
        exit::UNAVAILABLE,
        &["gateway.sock"],
    )
    .unwrap();
}

#[test]
fn every_mistake_of_provisionings_configuration_is_told_at_once() {
    let lab = Lab::for_test().unwrap();
    let office = Office::init(&lab, &Programs::of_this_build().unwrap()).unwrap();
    office
        .edit_config(|text| {
            text.replace("198.18.2.2:8443", "here")
                .replace("10.64.0.0/16", "10.64.0.0/99")
                .replace("shard = 1", "shard = \"one\"")
                + "\n[lease]\nlifetime-s = 1\n"
        })
        .unwrap();

    let output = run_after(&lab.office, "", &office.serve_line());

    mistakes_told(&output, &["listen", "v4", "shard", "lease.lifetime-s"]).unwrap();
}

#[test]
fn provisioning_names_a_busy_port_and_a_folder_that_init_did_not_make() {
    let lab = Lab::for_test().unwrap();
    let programs = Programs::of_this_build().unwrap();
    let office = Office::init(&lab, &programs).unwrap();
    let taken = lab
        .office
        .enter(|| Ok(std::net::TcpListener::bind(SERVER)?))
        .unwrap();

    refused(
        &run_after(&lab.office, "", &office.serve_line()),
        exit::IO,
        &[SERVER],
    )
    .unwrap();
    drop(taken);
    let genesis = office.genesis().to_string_lossy().into_owned();
    refused(
        &office
            .try_cli(&[
                "init",
                "--name",
                "lab",
                "--listen-url",
                "https://198.18.2.2:8443",
                "--genesis",
                &genesis,
            ])
            .unwrap(),
        exit::FAILED,
        &["not empty"],
    )
    .unwrap();
    let nowhere = lab
        .office
        .output(&[
            programs.provisioning().to_string_lossy().as_ref(),
            "--data-dir",
            "/nowhere",
            "claim",
            "list",
        ])
        .unwrap();
    refused(&nowhere, exit::CONFIG, &["/nowhere", "init"]).unwrap();
}

/// What a shell is to do to put a gateway on the books that nobody runs.
fn adding_a_gateway(people: &People, data: &Path) -> String {
    let record = format!(
        "--ed25519 {} --wg IiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiIiI= --endpoint 198.18.1.2:51820 \
         --pop pop1 --shard 1 --inner 10.64.0.1,fd64::1 --dns sdns://AQAAAAAAAAAADTEwLjY0LjAuMTo0NDMgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAcMi5kbnNjcnlwdC1jZXJ0LnBvcDEuZXhhbXBsZQ",
        "11".repeat(32)
    );
    people.adding_a_gateway(data, "g", &record.split_whitespace().collect::<Vec<_>>())
}

/// Tells the shell to fill the store's disk, and waits until it has.
fn fill_the_disk(codes: &Path) {
    std::fs::write(format!("{}.fill", codes.display()), "").unwrap();
    let full = format!("{}.full", codes.display());
    wait_for("the disk is full", Duration::from_secs(10), || {
        Path::new(&full).exists()
    })
    .unwrap();
}

#[test]
fn a_full_disk_of_provisioning_refuses_by_name_burns_no_code_and_heals() {
    let lab = Lab::for_test().unwrap();
    let programs = Programs::of_this_build().unwrap();
    // The store lives on a small disk that only the shell and its children see.
    let data = lab.work().join("small/provisioning");
    let program = programs.provisioning().to_string_lossy().into_owned();
    let cli = format!("{program} --data-dir {}", data.display());
    let config = lab.work().join("small.toml");
    let text = format!(
        "listen = [\"{SERVER}\"]\ndata-dir = \"{}\"\n[[pool]]\npop = \"pop1\"\nshard = 1\nv4 = \"10.64.0.0/16\"\nv6 = \"fd64::/48\"\n",
        data.display()
    );
    std::fs::write(&config, text).unwrap();
    let (small, filler, codes) = (
        lab.work().join("small"),
        lab.work().join("small/filler"),
        lab.work().join("code"),
    );
    let people = lab.work().join("people");
    let people = People::gather(&lab.office, &programs.provisioning(), &people).unwrap();
    let (gateway, genesis) = (adding_a_gateway(&people, &data), people.genesis());
    let script = format!(
        "mkdir {0}; mount -t tmpfs -o size=4m none {0}; {cli} init --name lab --listen-url https://{SERVER} --genesis {4} && {gateway} && \
         {cli} claim new --json > {1}; \
         (while [ ! -e {1}.fill ]; do sleep 0.1; done; dd if=/dev/zero of={2} bs=1k 2>/dev/null; echo full > {1}.full; \
         while [ ! -e {1}.space ]; do sleep 0.1; done; rm {2}) & exec {program} serve --config {3}",
        small.display(),
        codes.display(),
        filler.display(),
        config.display(),
        genesis.display()
    );
    let mut command = lab.office.command("sh");
    command.args(["-c", &script]);
    let mut server = lab
        .office
        .spawn_command("provisioning-small", command)
        .unwrap();
    let health = format!("https://{SERVER}/healthz");
    let started = server.wait_ready("answers", Duration::from_secs(10), || {
        Ok(lab
            .office
            .output(&["curl", "-sk", "-o", "/dev/null", &health])?
            .status
            .success()
            .then_some(()))
    });
    let code: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&codes).unwrap()).unwrap();
    let code = code["code"].as_str().unwrap();
    let (address, device) = (SERVER.parse().unwrap(), Device::default());
    let enrol = || lab.office.enter(|| device.enrol(address, Some(code)));

    started.unwrap();
    fill_the_disk(&codes);
    assert_eq!(
        enrol().unwrap(),
        Answer::Refused(503, "storage-full".into())
    );
    std::fs::write(format!("{}.space", codes.display()), "").unwrap();
    wait_until(
        "the same code enrols once there is space",
        Duration::from_secs(10),
        || match enrol()? {
            Answer::Leased(_) => Ok(Some(())),
            Answer::Refused(status, code) => {
                anyhow::bail!("refused: {status} {code}; {}", server.log_tail())
            }
        },
    )
    .unwrap();
}

#[test]
fn culvert_dns_says_what_is_wrong_with_a_stamp_a_server_and_a_port() {
    let lab = Lab::for_test().unwrap();
    let program = Programs::of_this_build()
        .unwrap()
        .dns()
        .to_string_lossy()
        .into_owned();
    let nobody = "sdns://AQAAAAAAAAAADTEwLjY0LjAuMTo0NDMgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAcMi5kbnNjcnlwdC1jZXJ0LnBvcDEuZXhhbXBsZQ";
    let run = |args: &[&str]| {
        lab.home
            .output(&[&[program.as_str()], args].concat())
            .unwrap()
    };

    let bad_stamp = run(&["check", "sdns://nonsense"]);
    let nobody_there = run(&["check", nobody]);
    let taken = lab
        .home
        .enter(|| Ok(std::net::UdpSocket::bind("127.0.0.1:5300")?))
        .unwrap();
    let busy = run(&["run", "--listen", "127.0.0.1:5300", "--stamp", nobody]);
    drop(taken);

    assert_eq!(
        bad_stamp.status.code(),
        Some(exit::USAGE),
        "{}",
        lab::said(&bad_stamp)
    );
    refused(&nobody_there, exit::UNAVAILABLE, &["10.64.0.1:443"]).unwrap();
    refused(&busy, exit::IO, &["127.0.0.1:5300"]).unwrap();
}
