//! A device that can only enrol: its tunnel key may then serve any WireGuard program, and it enrols in milliseconds.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use rand_core::{OsRng, RngCore};
use trust::{
    ChannelProof, ClaimCode, EnrolReq, Lease, LeaseBundle, ServerChallenge, ShardEntry, ShardPage,
};
use x25519_dalek::StaticSecret;

use crate::session::Session;

/// Keys of a device, made anew.
pub struct Device {
    identity: SigningKey,
    tunnel: StaticSecret,
}

/// How an enrolment was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// With a lease, here as the bytes that were logged.
    Leased(Vec<u8>),
    /// With a refusal: HTTP status and problem code.
    Refused(u16, String),
}

impl Default for Device {
    fn default() -> Self {
        let mut seed = [0; 32];
        OsRng.fill_bytes(&mut seed);
        Self {
            identity: SigningKey::from_bytes(&seed),
            tunnel: StaticSecret::random_from_rng(OsRng),
        }
    }
}

impl Device {
    /// The tunnel's private key in base64, as `wg` reads it.
    pub fn wireguard_private(&self) -> String {
        STANDARD.encode(self.tunnel.to_bytes())
    }

    /// The device's id in hex, as `provisioning device list` shows it.
    pub fn id(&self) -> String {
        trust::key_id(&self.identity.verifying_key().to_bytes())
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    }

    /// One enrolment over one connection; an error is a connection that did not hold.
    pub fn enrol(&self, server: SocketAddr, claim: Option<&str>) -> Result<Answer> {
        self.enrol_over(&mut Session::open(server)?, claim)
    }

    pub(crate) fn enrol_over(&self, session: &mut Session, claim: Option<&str>) -> Result<Answer> {
        let claim: Option<ClaimCode> = claim
            .map(str::parse)
            .transpose()
            .context("reading the claim code")?;
        let (status, body) = session.post("/v1/enrol/challenge", &[])?;
        if status != 200 {
            bail!("no challenge: {status} {}", String::from_utf8_lossy(&body));
        }
        let exporter = session.exporter()?;
        let challenge = ServerChallenge::from_bytes(&body).context("reading the challenge")?;
        let enrol = EnrolReq::build(
            &self.identity,
            &self.tunnel,
            claim.as_ref(),
            &challenge,
            &exporter,
            0,
        )
        .context("building the request")?;
        let (status, body) = session.post("/v1/enrol", &enrol.to_bytes())?;
        if status != 200 {
            let problem: serde_json::Value =
                serde_json::from_slice(&body).context("reading the problem")?;
            return Ok(Answer::Refused(
                status,
                problem["code"].as_str().unwrap_or_default().to_owned(),
            ));
        }
        let bundle = LeaseBundle::from_bytes(&body).context("reading the bundle")?;
        Ok(Answer::Leased(bundle.lease))
    }
}

/// Reads a lease's bytes.
pub fn read_lease(bytes: &[u8]) -> Result<Lease> {
    Lease::from_bytes(bytes).context("reading a lease")
}

/// A gateway that can only read its shard's stream.
pub struct StreamReader {
    key: SigningKey,
}

impl Default for StreamReader {
    fn default() -> Self {
        let mut seed = [0; 32];
        OsRng.fill_bytes(&mut seed);
        Self {
            key: SigningKey::from_bytes(&seed),
        }
    }
}

impl StreamReader {
    /// The gateway's public key in hex, as `provisioning gateway add` takes it.
    pub fn public(&self) -> String {
        self.key
            .verifying_key()
            .to_bytes()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    }

    pub(crate) fn proof(&self, session: &Session) -> Result<ChannelProof> {
        let exporter = session.exporter()?;
        Ok(ChannelProof::sign(&self.key, "gateway", &exporter))
    }

    /// The leases on the first page of a shard.
    pub fn leases(&self, server: SocketAddr, shard: u32) -> Result<Vec<Lease>> {
        let mut session = Session::open(server)?;
        // The handshake ends with the first answer; only then is there something to sign.
        session.get("/healthz", "")?;
        let proof = self.proof(&session)?;
        let (status, body) = session.get(
            &format!("/v1/shard/{shard}?from=0"),
            &format!("Authorization: {proof}\r\n"),
        )?;
        ensure!(
            status == 200,
            "no page of the shard: {status} {}",
            String::from_utf8_lossy(&body)
        );
        let page = ShardPage::from_bytes(&body).context("reading a page")?;
        page.entries
            .iter()
            .filter_map(|entry| match entry {
                ShardEntry::Lease { lease, .. } => Some(read_lease(lease)),
                ShardEntry::Revocation { .. } | ShardEntry::Psk { .. } => None,
            })
            .collect()
    }
}
