use super::*;

fn source(n: u8) -> IpAddr {
    [127, 0, n, 1].into()
}

#[tokio::test]
async fn a_house_full_of_others_connections_is_open_to_one_that_has_none_and_their_oldest_is_closed()
 {
    let rig = rig(None);
    let mut theirs = Vec::new();
    for n in [1, 1, 1, 2, 2, 3, 3, 3] {
        let stream = within(rig.connect_from(source(n), rig.tls, b"dot")).await;
        theirs.push(stream.unwrap());
    }
    assert!(
        within(rig.connect_from(source(1), rig.tls, b"dot"))
            .await
            .is_err()
    );
    assert!(
        within(rig.connect_from(source(2), rig.tls, b"dot"))
            .await
            .is_err()
    );

    let mut new = within(rig.connect_from(source(4), rig.tls, b"dot"))
        .await
        .unwrap();
    new.write_all(&framed(&query(7))).await.unwrap();

    assert!(is_answer(&within(read(&mut new)).await, 7));
    let mut rest = Vec::new();
    let _ended = within(theirs[5].read_to_end(&mut rest)).await;
    assert_eq!(rest, b"");
    let mut ids = 0..;
    for (n, stream) in theirs.iter_mut().enumerate().filter(|(n, _)| *n != 5) {
        let id = ids.next().unwrap();
        stream.write_all(&framed(&query(id))).await.unwrap();
        assert!(is_answer(&within(read(stream)).await, id), "{n}");
    }
    assert_eq!(rig.turned_away("connections"), 3);
}

#[tokio::test]
async fn over_quic_a_house_full_of_others_connections_is_open_too() {
    let rig = rig(None);
    let mut theirs = Vec::new();
    for n in [1, 1, 1, 2, 2, 3, 3, 3] {
        theirs.push(within(rig.over_udp_from(source(n), rig.quic, b"doq")).await);
    }

    let (_endpoint, new) = within(rig.over_udp_from(source(4), rig.quic, b"doq")).await;

    let answer = within(exchange(&new, &framed(&query(0)))).await;
    assert!(answer.is_some());
    within(theirs[5].1.closed()).await;
    let open = theirs
        .iter()
        .filter(|(_, one)| one.close_reason().is_none());
    assert_eq!(open.count(), 7);
}
