//! What a machine remembers between two bundles, so that nobody can take it back in time.

use crate::cbor::{self, DecodeError, Object, Reader, Writer};

/// Memory against rollback. The default is that of a machine that has seen nothing yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// Epoch of the last lease that was accepted; 0 for none.
    pub lease_epoch: u64,
    /// SHA-256 of that lease: its epoch is accepted again only for the same bytes.
    pub lease: Option<[u8; 32]>,
    /// Size and root of the last fleet checkpoint that was accepted.
    pub fleet: Option<(u64, [u8; 32])>,
    /// A time that a quorum has sworn is past.
    pub clock_floor: u64,
}

impl Stored {
    /// The tree size to send with an enrolment request; 0 for none.
    pub fn fleet_size(&self) -> u64 {
        self.fleet.map_or(0, |(size, _)| size)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        cbor::decode(bytes)
    }
}

impl Object for Stored {
    const MAX_BYTES: usize = 256;

    fn write(&self, w: &mut Writer) {
        w.open(6, cbor::VERSION);
        w.uint(1, self.lease_epoch);
        w.optional_bytes(2, self.lease.as_ref());
        w.uint(3, self.fleet_size());
        w.optional_bytes(4, self.fleet.as_ref().map(|(_, root)| root));
        w.uint(5, self.clock_floor);
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.open(6)?;
        let lease_epoch = r.uint(1)?;
        let lease = r.optional_array(2)?;
        let size = r.uint(3)?;
        // A size without a root does not survive the comparison with the canonical bytes.
        let fleet = r.optional_array(4)?.map(|root| (size, root));
        Ok(Self {
            lease_epoch,
            lease,
            fleet,
            clock_floor: r.uint(5)?,
        })
    }
}
