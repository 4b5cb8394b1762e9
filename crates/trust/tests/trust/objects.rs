//! Objects of CBOR: one case for each way in which bytes are not canonical.

use trust::{
    Activation, Approval, Auth, DecodeError, EnrolReq, GatewayRecord, Lease, LeaseBundle, Proposal,
    RelayRecord, Revocation, ShardEntry, ShardPage, Stored, VERSION, Verdict,
};

use crate::world::{T0, World, gateway_record, revocation};

#[test]
fn an_object_cut_at_any_byte_is_refused() {
    let world = World::new();
    let bytes = world.lease(1).to_bytes();

    for end in 0..bytes.len() {
        assert!(Lease::from_bytes(&bytes[..end]).is_err(), "{end}");
    }
}

#[test]
fn bytes_after_the_object_are_refused() {
    let mut bytes = World::new().lease(1).to_bytes();
    bytes.push(0);

    assert_eq!(Lease::from_bytes(&bytes), Err(DecodeError::Trailing));
}

#[test]
fn an_object_beyond_its_size_is_refused_before_it_is_read() {
    let bytes = vec![0xAB; 9000];

    assert_eq!(
        Lease::from_bytes(&bytes),
        Err(DecodeError::TooBig {
            got: 9000,
            max: 8192
        })
    );
}

#[test]
fn a_number_that_is_not_shortest_is_refused() {
    let bytes = small_revocation();
    let head = bytes.len() - 1;
    let mut long = bytes[..head].to_vec();
    long.extend([0x18, bytes[head]]);

    assert_eq!(
        Revocation::from_bytes(&long),
        Err(DecodeError::NotCanonical)
    );
    assert!(Revocation::from_bytes(&bytes).is_ok());
}

#[test]
fn a_length_that_is_not_shortest_is_refused() {
    let bytes = small_revocation();
    // After the map's head, the version and the key of field 1 stands the head of 32 bytes: 58 20.
    assert_eq!(bytes[..6], [0xA5, 0x00, 0x01, 0x01, 0x58, 0x20]);
    let mut long = bytes[..4].to_vec();
    long.extend([0x59, 0x00, 0x20]);
    long.extend(&bytes[6..]);

    assert_eq!(
        Revocation::from_bytes(&long),
        Err(DecodeError::NotCanonical)
    );
}

#[test]
fn an_indefinite_length_is_refused() {
    let mut bytes = small_revocation();
    bytes[0] = 0xBF;
    bytes.push(0xFF);

    assert_eq!(
        Revocation::from_bytes(&bytes),
        Err(DecodeError::NotAMap { fields: 5 })
    );
}

#[test]
fn keys_that_are_unknown_doubled_or_out_of_order_are_refused() {
    let bytes = small_revocation();
    let tail = bytes.len() - 6;
    assert_eq!(bytes[tail..], [0x02, 0x04, 0x03, 0x01, 0x04, 0x05]);

    for (fields, field) in [
        ([0x03, 0x01, 0x02, 0x04, 0x04, 0x05], 2),
        ([0x02, 0x04, 0x02, 0x04, 0x04, 0x05], 3),
        ([0x02, 0x04, 0x03, 0x01, 0x09, 0x05], 4),
        ([0x02, 0x04, 0x03, 0x01, 0x20, 0x05], 4),
    ] {
        let wrong = [&bytes[..tail], &fields].concat();
        assert_eq!(
            Revocation::from_bytes(&wrong),
            Err(DecodeError::Field { field })
        );
    }
    let mut more = bytes.clone();
    more[0] = 0xA6;
    more.extend([0x05, 0x00]);
    assert_eq!(
        Revocation::from_bytes(&more),
        Err(DecodeError::NotAMap { fields: 5 })
    );
}

#[test]
fn tags_floats_and_other_types_are_refused() {
    let bytes = small_revocation();
    let head = bytes.len() - 1;

    for value in [
        &[0xC1, 0x05][..],
        &[0xF9, 0x45, 0x00],
        &[0x24],
        &[0x41, 0x05],
        &[0x61, 0x35],
        &[0xF6],
    ] {
        let wrong = [&bytes[..head], value].concat();
        assert_eq!(
            Revocation::from_bytes(&wrong),
            Err(DecodeError::Field { field: 4 })
        );
    }
}

#[test]
fn another_version_is_refused() {
    let mut bytes = small_revocation();
    bytes[2] = 2;

    assert_eq!(
        Revocation::from_bytes(&bytes),
        Err(DecodeError::UnknownVersion(2))
    );
}

#[test]
fn a_list_that_claims_to_be_endless_costs_nothing() {
    let mut bytes = vec![0xA5, 0x00, 0x01, 0x01, 0x01, 0x02, 0x00, 0x03, 0x00, 0x04];
    bytes.extend([0x9B, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);

    assert_eq!(
        ShardPage::from_bytes(&bytes),
        Err(DecodeError::Field { field: 4 })
    );
}

#[test]
fn a_gateway_record_with_a_field_that_it_does_not_have_is_refused() {
    let plain = gateway_record().to_bytes();
    let mut claimed = plain.clone();
    claimed[0] += 1;
    let mut beyond = claimed.clone();
    beyond.extend([0x18, 0x63, 0x00]);
    let mut short = plain.clone();
    short[0] -= 1;

    assert_eq!(
        GatewayRecord::from_bytes(&claimed),
        Err(DecodeError::NotCanonical)
    );
    assert_eq!(
        GatewayRecord::from_bytes(&beyond),
        Err(DecodeError::Trailing)
    );
    assert_eq!(
        GatewayRecord::from_bytes(&short),
        Err(DecodeError::NotAMap { fields: 9 })
    );
}

#[test]
fn a_gateways_relay_is_kept_and_one_without_is_written_as_ever() {
    let plain = gateway_record();
    let mut relayed = plain.clone();
    relayed.relay = Some(RelayRecord {
        endpoints: vec!["198.18.1.2:443".parse().unwrap()],
        server_name: "www.pop1.example".to_owned(),
        spki_sha256: vec![[0xE7; 32]],
    });

    assert_eq!(plain.to_bytes()[0], 0xA9);
    assert_eq!(relayed.to_bytes()[0], 0xAA);
    assert_eq!(GatewayRecord::from_bytes(&relayed.to_bytes()), Ok(relayed));
}

#[test]
fn text_that_is_not_utf8_is_refused() {
    let mut bytes = gateway_record().to_bytes();
    assert_eq!(bytes[4..8], [0x63, b'g', b'w', b'1']);
    bytes[5] = 0xFF;

    assert_eq!(
        GatewayRecord::from_bytes(&bytes),
        Err(DecodeError::Field { field: 1 })
    );
}

#[test]
fn an_address_with_bits_beyond_its_prefix_is_refused() {
    let mut lease = World::new().lease(1);
    lease.addresses = vec!["10.64.0.2/16".parse().unwrap()];

    assert_eq!(
        Lease::from_bytes(&lease.to_bytes()),
        Err(DecodeError::Field { field: 7 })
    );
}

#[test]
fn a_limit_of_nearly_nothing_or_of_more_than_there_is_is_refused() {
    let lease = World::new().lease(1);
    let plain = lease.to_bytes();
    for (key, rate) in [(12, 63_999_u64), (13, 0), (13, 100_000_000_001)] {
        let mut bytes = plain.clone();
        bytes[0] += 1;
        bytes.push(key);
        let mut number = minicbor::Encoder::new(&mut bytes);
        number.u64(rate).unwrap();

        assert_eq!(
            Lease::from_bytes(&bytes),
            Err(DecodeError::Field { field: key })
        );
    }
}

#[test]
fn a_limit_that_is_not_counted_in_the_map_or_stands_in_another_order_is_refused() {
    let rate = trust::BitRate::new(50_000_000);
    let mut lease = World::new().lease(1);
    lease.limits.down = rate;
    let one = lease.to_bytes();
    lease.limits.up = rate;
    let two = lease.to_bytes();
    let tail = one.len() - World::new().lease(1).to_bytes().len();
    let mut swapped = two.clone();
    let down_at = two.len() - 2 * tail;
    swapped[down_at] = 13;
    swapped[down_at + tail] = 12;
    let mut uncounted = two.clone();
    uncounted[0] -= 1;

    assert_eq!(Lease::from_bytes(&swapped), Err(DecodeError::Trailing));
    assert_eq!(
        Lease::from_bytes(&uncounted),
        Err(DecodeError::NotCanonical)
    );
    assert_eq!(Lease::from_bytes(&two), Ok(lease));
}

#[test]
fn a_lease_without_limits_is_written_as_before_there_were_any() {
    let lease = World::new().lease(1);
    let bytes = lease.to_bytes();

    assert_eq!(bytes[0], 0xab, "a map of eleven");
    assert_eq!(
        Lease::from_bytes(&bytes).unwrap().limits,
        trust::Limits::default()
    );
}

#[test]
fn names_and_lists_beyond_their_bounds_are_refused() {
    let lease = World::new().lease(1);
    for (field, wrong) in [
        (
            4,
            Lease {
                pop: "x".repeat(65),
                ..lease.clone()
            },
        ),
        (
            6,
            Lease {
                gateways: vec![[0; 32]; 9],
                ..lease.clone()
            },
        ),
        (
            7,
            Lease {
                addresses: vec![lease.addresses[0]; 17],
                ..lease.clone()
            },
        ),
        (
            8,
            Lease {
                dns: vec![String::new(); 9],
                ..lease.clone()
            },
        ),
        (
            8,
            Lease {
                dns: vec!["x".repeat(513)],
                ..lease.clone()
            },
        ),
    ] {
        assert_eq!(
            Lease::from_bytes(&wrong.to_bytes()),
            Err(DecodeError::Field { field })
        );
    }
}

#[test]
fn a_page_with_more_entries_than_numbers_is_refused() {
    let mut world = World::new();
    let made = revocation(&world);
    let entries = vec![world.revocation_entry(&made); 2];
    let page = |next| ShardPage {
        shard: 1,
        from: 10,
        next,
        entries: entries.clone(),
    };

    for next in [0, 9, 10, 11] {
        let refused = ShardPage::from_bytes(&page(next).to_bytes());
        assert_eq!(refused, Err(DecodeError::Field { field: 3 }));
    }
    assert_eq!(ShardPage::from_bytes(&page(12).to_bytes()), Ok(page(12)));
}

#[test]
fn a_stored_size_without_its_root_is_refused() {
    let stored = Stored {
        fleet: Some((5, [1; 32])),
        ..Stored::default()
    };
    let mut bytes = stored.to_bytes();
    let root = bytes
        .windows(2)
        .position(|pair| pair == [0x58, 0x20])
        .unwrap();
    bytes.splice(root..root + 34, [0xF6]);

    assert_eq!(Stored::from_bytes(&bytes), Err(DecodeError::NotCanonical));
}

#[test]
fn a_right_that_is_reserved_is_refused() {
    let world = World::new();
    let request = EnrolReq {
        v: VERSION,
        devid_pub: world.me.devid_hash,
        wg_pub: [1; 32],
        nonce: [2; 32],
        fleet_size: 0,
        auth: Auth::Known,
        devid_sig: [3; 64],
        wg_mac: [4; 32],
    };
    let mut bytes = request.to_bytes();
    let auth = bytes
        .windows(4)
        .position(|four| four == [0x05, 0xA1, 0x00, 0x00])
        .unwrap();
    bytes[auth + 3] = 2;

    assert_eq!(
        EnrolReq::from_bytes(&bytes).unwrap_err(),
        DecodeError::Field { field: 0 }
    );
}

#[test]
fn every_object_reads_what_it_wrote() {
    let mut world = World::new();
    let lease = world.lease(9);
    let bundle = world.bundle(&lease);
    let entry = world.lease_entry(&lease);
    let proposal = world.proposal();
    let approval = Approval {
        proposal_id: Proposal::id(&proposal.to_bytes()),
        verdict: Verdict::Reject,
        person: "dan".to_owned(),
        sshsig: vec![1; 80],
    };
    let mut activation = world.activate(&proposal);
    activation.approvals.push(approval.clone());

    assert_eq!(Lease::from_bytes(&lease.to_bytes()), Ok(lease));
    assert_eq!(LeaseBundle::from_bytes(&bundle.to_bytes()), Ok(bundle));
    assert_eq!(ShardEntry::from_bytes(&entry.to_bytes()), Ok(entry));
    assert_eq!(Proposal::from_bytes(&proposal.to_bytes()), Ok(proposal));
    assert_eq!(Approval::from_bytes(&approval.to_bytes()), Ok(approval));
    assert_eq!(
        Activation::from_bytes(&activation.to_bytes()),
        Ok(activation)
    );
    let stored = Stored {
        clock_floor: T0,
        ..Stored::default()
    };
    assert_eq!(Stored::from_bytes(&stored.to_bytes()), Ok(stored));
}

/// Fields of one byte each after the device: 2 = 4, 3 = 1, 4 = 5.
fn small_revocation() -> Vec<u8> {
    Revocation {
        v: VERSION,
        devid_hash: [0x11; 32],
        epoch: 4,
        reason: 1,
        at: 5,
    }
    .to_bytes()
}
