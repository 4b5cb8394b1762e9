//! Enrolment as the server keeps it: cut anywhere, repeated, by another device, with a bad code.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::HashSet;
use std::net::SocketAddr;

use lab::{
    Answer, Cutter, Device, Direction, Image, Lab, Office, Programs, Router, read_lease, said,
};

const SERVER: &str = "198.18.2.2:8443";

/// An office with one gateway on its books, so that there is something to lease.
fn office(lab: &Lab) -> Office {
    let office = Office::init(lab, &Programs::of_this_build().unwrap()).unwrap();
    office.add_silent_gateway(&"11".repeat(32)).unwrap();
    office
}

fn leased(answer: Answer) -> Vec<u8> {
    match answer {
        Answer::Leased(lease) => lease,
        Answer::Refused(status, code) => panic!("refused: {status} {code}"),
    }
}

#[test]
fn an_enrolment_cut_at_any_byte_and_retried_gives_one_device_and_one_lease_and_burns_no_code() {
    let lab = Lab::for_test().unwrap();
    let office = office(&lab);
    let _server = office.start().unwrap();
    let cutter = Cutter::start(
        &lab.office,
        "127.0.0.1:9443".parse().unwrap(),
        SERVER.parse().unwrap(),
    )
    .unwrap();
    let through = cutter.address();

    let whole = lab.office.enter(|| {
        let code = office.claim()?;
        leased(Device::default().enrol(through, Some(&code))?);
        Ok([Direction::ToServer, Direction::ToClient].map(|way| (way, cutter.passed(way))))
    });
    let mut devices = 1;
    for (way, bytes) in whole.unwrap() {
        assert!(
            bytes > 500,
            "{way:?}: only {bytes} bytes in a whole exchange"
        );
        // TLS varies by a few bytes from one exchange to the next.
        for cut in 0..bytes + 4 {
            let code = office.claim().unwrap();
            let device = Device::default();
            lab.office
                .enter(|| {
                    cutter.cut_after(way, cut);
                    let first = device.enrol(through, Some(&code));
                    cutter.pass();
                    let lease = leased(device.enrol(through, Some(&code))?);
                    assert_eq!(read_lease(&lease)?.epoch, 1, "{way:?} cut after {cut}");
                    if let Ok(answer) = first {
                        assert_eq!(leased(answer), lease, "{way:?} cut after {cut}");
                    }
                    Ok(())
                })
                .unwrap();
            devices += 1;
        }
    }

    let listed = office.devices().unwrap();
    let unique: HashSet<_> = listed
        .iter()
        .map(|device| device["device"].to_string())
        .collect();
    assert_eq!((listed.len(), unique.len()), (devices, devices));
    assert!(listed.iter().all(|device| device["epoch"] == 1));
    assert!(
        office
            .claims()
            .unwrap()
            .iter()
            .all(|claim| claim["device"].is_string())
    );
    assert_eq!(
        office.cli_json(&["log", "verify"]).unwrap()["leases"],
        devices
    );
    assert_eq!(
        office.cli_json(&["alerts", "list"]).unwrap(),
        serde_json::json!([])
    );
}

#[test]
fn a_second_device_with_a_spent_code_is_refused_and_leaves_an_alert() {
    let lab = Lab::for_test().unwrap();
    let office = office(&lab);
    let server = office.start().unwrap();
    let address: SocketAddr = SERVER.parse().unwrap();
    let code = office.claim().unwrap();
    let (first, second) = (Device::default(), Device::default());

    let (lease, again, other) = lab
        .office
        .enter(|| {
            let lease = leased(first.enrol(address, Some(&code))?);
            let other = second.enrol(address, Some(&code))?;
            Ok((lease, leased(first.enrol(address, Some(&code))?), other))
        })
        .unwrap();

    assert_eq!(other, Answer::Refused(403, "claim-spent".into()));
    assert_eq!(lease, again);
    let alerts = office.cli_json(&["alerts", "list"]).unwrap();
    assert_eq!(alerts[0]["device"], second.id());
    assert!(server.log().contains("a second device"), "{}", server.log());
    assert!(!server.log().contains(&code), "the code stands in a log");
    assert_eq!(office.devices().unwrap().len(), 1);
}

#[test]
fn a_code_that_was_never_given_out_and_a_device_without_one_are_refused_by_name() {
    let lab = Lab::for_test().unwrap();
    let office = office(&lab);
    let _server = office.start().unwrap();
    let address: SocketAddr = SERVER.parse().unwrap();
    let stranger = Office::init_in(&lab, &Programs::of_this_build().unwrap(), "another").unwrap();
    let foreign_code = stranger.claim().unwrap();

    let (unknown_code, unknown_device) = lab
        .office
        .enter(|| {
            let device = Device::default();
            Ok((
                device.enrol(address, Some(&foreign_code))?,
                device.enrol(address, None)?,
            ))
        })
        .unwrap();

    assert_eq!(unknown_code, Answer::Refused(403, "claim-unknown".into()));
    assert_eq!(
        unknown_device,
        Answer::Refused(403, "device-unknown".into())
    );
    assert!(office.devices().unwrap().is_empty());
}

#[test]
fn the_routers_agent_retries_after_a_cut_with_the_code_it_was_given_once() {
    let lab = Lab::for_test().unwrap();
    let programs = Programs::of_this_build().unwrap();
    let office = office(&lab);
    let _server = office.start().unwrap();
    let cutter = Cutter::start(
        &lab.office,
        "198.18.2.2:9443".parse().unwrap(),
        SERVER.parse().unwrap(),
    )
    .unwrap();
    let image = Image {
        url: Some("https://198.18.2.2:9443".into()),
        ..Image::default()
    };
    let mut devices = 0;

    for way in [Direction::ToServer, Direction::ToClient] {
        // The test above cuts at every byte; here a prime step meets each phase of the exchange a few times.
        for cut in (0..2600).step_by(131) {
            devices += 1;
            let router = Router::flash_as(
                &lab,
                &programs,
                &office,
                &format!("router{devices}"),
                &image,
            )
            .unwrap();
            let code = office.claim().unwrap();
            cutter.cut_after(way, cut);
            router.try_enrol(&code).unwrap();
            cutter.pass();

            let enrolled = router.try_enrol(&code).unwrap();

            assert!(
                enrolled.status.success(),
                "{way:?} cut after {cut}: {}",
                said(&enrolled)
            );
        }
    }
    let listed = office.devices().unwrap();
    assert_eq!(listed.len(), devices);
    assert!(
        listed.iter().all(|device| device["epoch"] == 1),
        "{listed:?}"
    );
}
