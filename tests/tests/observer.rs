//! The observer itself: a check that never sees a leak proves nothing.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use lab::{
    Internet, Lab, NAME_MARKER, Observer, PAGE_MARKER, PAGE_NAME, WEB, ZONE_SERVER,
    allowed_in_the_lab,
};

#[test]
fn a_home_without_an_agent_is_seen_in_clear() {
    let lab = Lab::for_test().unwrap();
    let _internet = Internet::start(&lab).unwrap();
    let observer = Observer::start(&lab).unwrap();
    let other = Observer::start_as(&lab, "other").unwrap();

    lab.home
        .run(&[
            "dig",
            "+time=2",
            "+tries=1",
            &format!("@{ZONE_SERVER}"),
            PAGE_NAME,
            "A",
        ])
        .unwrap();
    lab.home
        .run(&["curl", "-sf", "--max-time", "5", &format!("http://{WEB}/")])
        .unwrap();
    let findings = observer
        .finish(
            &lab,
            &allowed_in_the_lab().unwrap(),
            &[NAME_MARKER, PAGE_MARKER],
        )
        .unwrap();

    assert!(findings.clear > 10, "{findings:?}");
    assert_eq!(findings.markers, [NAME_MARKER, PAGE_MARKER]);
    let claim = other.saw_nothing_in_clear(&lab, &[]);
    assert!(claim.unwrap_err().to_string().contains("in clear"));
}
