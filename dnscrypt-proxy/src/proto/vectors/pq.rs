//! The post-quantum vectors of the draft, every value made from its counter inputs.

use zeroize::Zeroizing;

use super::{certificate, counter};
use crate::proto::cert::{Certificate, System};
use crate::proto::xwing::XWingSecret;

pub(in crate::proto) const PQ_MAGIC: [u8; 8] = [0xa1, 0xb2, 0xc3, 0xd4, 0xe5, 0xf6, 0x07, 0x18];

pub(in crate::proto) fn xwing_secret() -> XWingSecret {
    XWingSecret::from_seed(Zeroizing::new(counter(0x20)))
}

pub(in crate::proto) fn pq_certificate() -> Certificate {
    Certificate {
        system: System::XWing,
        resolver_key: xwing_secret().public().to_vec(),
        magic: PQ_MAGIC,
        ..certificate()
    }
}
