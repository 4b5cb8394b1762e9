//! Whom a machine of Culvert believes, and why: statements, log proofs, leases; parsed and verified.
//!
//! Pure: no I/O, no clock (`now` is an argument, unix seconds), no randomness but what the caller
//! hands in. Agent, gateway and provisioning run this same code over the same vectors, on routers
//! of both byte orders too. `vectors/make.py` says the same formats once more, in another language.
#![forbid(unsafe_code)]

// The two ends of an enrolment, and the statements that come out of it.
pub mod bundle;
pub mod channel;
pub mod claim;
pub mod enrol;
pub mod gateway;
pub mod kem;
pub mod lease;
mod limits;
pub mod psk;
pub mod signed;
pub mod sshsig;
pub mod statement;
// The people's judge.
pub mod authority;
// The acting machine's judge.
pub mod anchors;
pub mod stored;
pub mod verified;
pub mod verify;
// The judge of those who keep logs honest.
pub mod witness;
// What the judge stands on.
pub mod cbor;
pub mod checkpoint;
pub mod keys;
mod lines;
pub mod merkle;
pub mod note;
mod parties;
pub mod policy;
pub mod proof;
pub mod tiles;
pub mod tree;
pub mod vkey;

pub use anchors::{Anchors, AnchorsError};
pub use authority::{Authority, AuthorityError, Effect, Refused, Standing, Tally};
pub use bundle::{LeaseBundle, ShardEntry, ShardPage};
pub use cbor::{DecodeError, VERSION};
pub use channel::{ChannelError, ChannelProof, sign_channel, verify_channel};
pub use checkpoint::{Checkpoint, CheckpointError, Cosigner, LogSigner, SignedCheckpoint};
pub use claim::{ClaimCode, ClaimCodeError};
pub use enrol::{Auth, EnrolError, EnrolFacts, EnrolReq, ServerChallenge};
pub use gateway::{GatewayRecord, RelayRecord};
pub use kem::{KemError, KemKey, KemStatement};
pub use keys::{KeyId, key_id};
pub use lease::{Lease, Revocation};
pub use limits::{BitRate, Limits, NotARate};
pub use merkle::{MerkleError, leaf_hash, node_hash, verify_consistency, verify_inclusion};
pub use note::{Note, NoteError, NoteSignature};
pub use parties::{Decider, PartyProblem};
pub use policy::{Policy, PolicyError, Witness};
pub use proof::{LoggedAt, Proof, ProofError, Sworn};
pub use psk::{Agreed, Pair, Psk, PskError, PskOffer};
pub use signed::{Signed, SignedList};
pub use sshsig::{SshKey, SshSig, SshSigError};
pub use statement::{Activation, Approval, Kind, Proposal, Verdict};
pub use stored::Stored;
pub use tiles::{Tile, TileError, TileKind};
pub use tree::{Tree, append_nodes, consistency_path, inclusion_path, root_of};
pub use verified::Verified;
pub use verify::{
    Bundle, BundleError, ChangeError, DeviceFacts, EntryError, GatewayError, ShardChange,
    ShardJudge,
};
pub use vkey::{Vkey, VkeyError};
pub use witness::{AddCheckpoint, AddCheckpointError, NotCosigned};
