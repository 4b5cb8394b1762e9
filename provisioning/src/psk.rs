//! Carries what gateways and devices sign for each other about pre-shared keys. This server checks it only so that
//! nobody fills the store; what it would change or invent does not verify at the other end.

use sqlx::sqlite::SqliteConnection;
use trust::kem::{KemError, KemStatement};
use trust::{DecodeError, Lease, PskError, PskOffer, Signed, SignedList};

use crate::store::{Id, psk};

/// Something checked, to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel(Content);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// With which key a gateway takes offers.
    Statement {
        gateway: Id,
        statement: Vec<u8>,
        not_after: u64,
    },
    /// A device's offers to gateways of its lease.
    Offers {
        device: Id,
        shard: u32,
        offers: Vec<(Id, Vec<u8>)>,
    },
}

/// Why nothing is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCarried {
    /// It does not parse.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// The gateway's statement does not verify.
    #[error(transparent)]
    Statement(#[from] KemError),
    /// A device's offer does not verify.
    #[error(transparent)]
    Offer(#[from] PskError),
}

/// A gateway's statement, once it is known that this gateway sent it.
pub fn statement(bytes: &[u8], gateway: &Id, now: u64) -> Result<Parcel, NotCarried> {
    let signed = Signed::from_bytes(bytes)?;
    let verified = KemStatement::verify(&signed, gateway, now)?;
    Ok(Parcel(Content::Statement {
        gateway: *gateway,
        statement: bytes.to_vec(),
        not_after: verified.get().not_after,
    }))
}

/// Offers of the device that holds this lease.
pub fn offers(bytes: &[u8], lease: &Lease) -> Result<Parcel, NotCarried> {
    let mut offers = Vec::new();
    for signed in SignedList::from_bytes(bytes)?.items {
        let offer = PskOffer::verify(&signed)?.into_inner();
        let is_of_lease = offer.devid_hash() == lease.devid_hash
            && offer.wg_pub == lease.wg_pub
            && lease.gateways.contains(&offer.gateway);
        if !is_of_lease {
            return Err(PskError::OtherPair.into());
        }
        offers.push((offer.gateway, signed.to_bytes()));
    }
    Ok(Parcel(Content::Offers {
        device: lease.devid_hash,
        shard: lease.shard,
        offers,
    }))
}

/// Writes, inside the caller's transaction.
pub async fn carry(db: &mut SqliteConnection, parcel: &Parcel) -> anyhow::Result<()> {
    match &parcel.0 {
        Content::Statement {
            gateway,
            statement,
            not_after,
        } => psk::set_statement(db, gateway, statement, *not_after).await,
        Content::Offers {
            device,
            shard,
            offers,
        } => {
            for (gateway, offer) in offers {
                psk::set_offer(db, gateway, device, *shard, offer).await?;
            }
            Ok(())
        }
    }
}

/// The statements of a lease's gateways, those that hold now.
pub async fn statements(
    db: &mut SqliteConnection,
    lease: &Lease,
    now: u64,
) -> anyhow::Result<SignedList> {
    let mut items = Vec::new();
    for gateway in &lease.gateways {
        if let Some(bytes) = psk::statement(db, gateway, now).await? {
            items.push(Signed::from_bytes(&bytes)?);
        }
    }
    Ok(SignedList { items })
}
