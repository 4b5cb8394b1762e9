//! The second half of an exchange: a pre-shared key with each gateway of the lease that has just come, over the same
//! connection. The lease is not verified yet, which harms nobody: a key is kept under the id of the gateway whose
//! signature stands under its ML-KEM key, and used only if a verified lease names that gateway.

use std::net::SocketAddr;

use rand_core::OsRng;
use tracing::warn;
use trust::{
    GatewayRecord, KemStatement, KeyId, Lease, LeaseBundle, Pair, Proposal, PskOffer, SignedList,
    Verified, key_id,
};
use x25519_dalek::PublicKey;

use super::channel::Channel;
use super::{Applicant, ExchangeError, Refusal, STATUS_NOT_FOUND, ask};
use crate::psk::Agreement;

/// With whom keys are to be agreed.
#[derive(Debug)]
pub(crate) struct Wish {
    /// Gateways with which the tunnel key has one already.
    pub known: Vec<[u8; 32]>,
    /// By this router's clock.
    pub now: u64,
}

/// Asks for the gateways' ML-KEM keys and sends them offers. A gateway without a key that verifies is left out.
pub(super) async fn agree(
    channel: &mut Channel,
    server: SocketAddr,
    applicant: &Applicant,
    wish: &Wish,
    bundle: &LeaseBundle,
) -> Result<Vec<Agreement>, ExchangeError> {
    let statements = match ask(channel, server, "/v1/psk/keys", &[]).await {
        Ok(bytes) => SignedList::from_bytes(&bytes)?,
        // A server that knows nothing of pre-shared keys.
        Err(ExchangeError::Refused(Refusal::Status(STATUS_NOT_FOUND))) => SignedList::default(),
        Err(error) => return Err(error),
    };
    let (agreed, offers) = make_offers(applicant, wish, bundle, &statements)?;
    if !offers.items.is_empty() {
        ask(channel, server, "/v1/psk", &offers.to_bytes()).await?;
    }
    Ok(agreed)
}

fn make_offers(
    applicant: &Applicant,
    wish: &Wish,
    bundle: &LeaseBundle,
    statements: &SignedList,
) -> Result<(Vec<Agreement>, SignedList), ExchangeError> {
    let lease = Lease::from_bytes(&bundle.lease)?;
    let (mut agreed, mut offers) = (Vec::new(), SignedList::default());
    for activation in &bundle.gateways {
        let gateway = Proposal::from_bytes(&activation.proposal)
            .and_then(|proposal| GatewayRecord::from_bytes(&proposal.body))?;
        let id = gateway.id();
        if wish.known.contains(&id) || !lease.gateways.contains(&id) {
            continue;
        }
        let Some(statement) = statement_of(&id, statements, wish.now) else {
            continue;
        };
        let pair = Pair {
            devid_hash: key_id(applicant.device.verifying_key().as_bytes()),
            wg_pub: PublicKey::from(&applicant.tunnel.0).to_bytes(),
            gateway: id,
            gateway_wg_pub: gateway.wg_pub,
        };
        match PskOffer::make(&applicant.device, &pair, &statement, &mut OsRng) {
            Ok(made) => {
                agreed.push((id, made.psk));
                offers.items.push(made.offer);
            }
            Err(error) => warn!(gateway = gateway.name, %error, "no pre-shared key is agreed"),
        }
    }
    Ok((agreed, offers))
}

/// The key that this gateway itself has signed. What else the server hands out under its name is worth a line.
fn statement_of(
    id: &[u8; 32],
    statements: &SignedList,
    now: u64,
) -> Option<Verified<KemStatement>> {
    let mut refused = None;
    for signed in &statements.items {
        match KemStatement::verify(signed, id, now) {
            Ok(statement) => return Some(statement),
            Err(error) => refused = Some(error),
        }
    }
    if let Some(error) = refused {
        let gateway = KeyId::from(*id);
        warn!(%gateway, %error, "the ML-KEM key that provisioning hands out for a gateway is refused");
    }
    None
}
