//! A proposal in a folder: `proposal` holds the bytes that are signed, each `*.sig` a signature as `ssh-keygen -Y sign` writes it, `proof`
//! what shows that the bytes stand in the log. Who signed, and what for, is in the signatures; names of files say nothing.

use std::fs;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};
use trust::authority::namespace;
use trust::{Approval, Authority, Kind, Proposal, SshSig, SshSigError, Verdict};

use crate::failure::{Blame, Failure};
use crate::files::write_new;

/// The bytes that are signed.
pub const PROPOSAL: &str = "proposal";
/// Shows that they stand in the log (<https://c2sp.org/tlog-proof>).
pub const PROOF: &str = "proof";
const SIGNATURE: &str = "sig";
/// Nothing in it is secret.
pub const SHARED: u32 = 0o644;
/// Far more than an activation takes.
const MAX_SIGNATURES: usize = 64;
/// No file that is read here is as long.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// What was in a folder when it was read.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// What is signed, byte for byte.
    pub proposal: Vec<u8>,
    /// In the order of their files' names.
    pub signatures: Vec<SignatureFile>,
}

/// One signature that nobody has judged.
#[derive(Debug)]
pub struct SignatureFile {
    /// The file's name in its folder.
    pub name: String,
    /// The signature and its bytes.
    pub read: Result<(SshSig, Vec<u8>), SshSigError>,
}

/// An approval as the judge takes it, and which file it came from.
#[derive(Debug)]
pub struct Claim {
    /// Its place in [`Folder::signatures`].
    pub file: usize,
    /// What the file's signature claims to be.
    pub approval: Approval,
}

impl Folder {
    /// Names a folder around a proposal, which is not there yet, and does not make it.
    pub fn unwritten(path: &Path, proposal: &[u8]) -> anyhow::Result<Self> {
        if path.exists() {
            let sentence = format!("{} is there already; choose another name", path.display());
            return Err(Failure::new(Blame::Failed, sentence).into());
        }
        Ok(Self {
            path: path.to_owned(),
            proposal: proposal.to_vec(),
            signatures: Vec::new(),
        })
    }

    /// Makes the folder, with the proposal.
    pub fn write(&self) -> anyhow::Result<()> {
        let made = fs::DirBuilder::new().mode(0o755).create(&self.path);
        made.with_context(|| format!("cannot make {}", self.path.display()))?;
        write_new(&self.path.join(PROPOSAL), SHARED, &self.proposal)
    }

    /// Reads a folder that somebody made.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let proposal = read_bounded(&path.join(PROPOSAL))?;
        let entries =
            fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut files = Vec::new();
        for entry in entries {
            let file = entry?.path();
            if file.extension().is_some_and(|end| end == SIGNATURE) {
                files.push(file);
            }
        }
        files.sort();
        if files.len() > MAX_SIGNATURES {
            let many = files.len();
            let sentence = format!(
                "{many} signatures in {}; {MAX_SIGNATURES} is the most",
                path.display()
            );
            return Err(Failure::new(Blame::Failed, sentence).into());
        }
        let signatures = files.iter().map(|file| SignatureFile::read(file));
        Ok(Self {
            path: path.to_owned(),
            proposal,
            signatures: signatures.collect::<Result<_, _>>()?,
        })
    }

    /// What the signatures claim, for the judge: each person is whoever the state that holds, or the state that is proposed, knows by
    /// that key; a key that is nobody's stands in its person's place.
    #[must_use]
    pub fn claims(&self, read: &Proposal, holds: Option<&Authority>) -> Vec<Claim> {
        let proposed = proposed_state(read);
        let states = [holds, proposed.as_ref()];
        let mut claims = Vec::new();
        for (file, signature) in self.signatures.iter().enumerate() {
            let Ok((signature, bytes)) = &signature.read else {
                continue;
            };
            let known = states.iter().flatten();
            let known = known.filter_map(|state| state.person_with(signature.key()));
            let mut people: Vec<String> = known.map(str::to_owned).collect();
            people.dedup();
            if people.is_empty() {
                people.push(signature.key().fingerprint());
            }
            claims.extend(people.into_iter().map(|person| Claim {
                file,
                approval: Approval {
                    proposal_id: Proposal::id(&self.proposal),
                    verdict: verdict(signature, read.kind).unwrap_or(Verdict::Approve),
                    person,
                    sshsig: bytes.clone(),
                },
            }));
        }
        claims
    }

    /// Takes a signature in, without writing it down.
    pub fn add(&mut self, armor: &str) -> anyhow::Result<()> {
        let bytes = SshSig::dearmor(armor)?;
        let signature = SshSig::from_bytes(&bytes)?;
        let purpose = signature.namespace().split('-').next().unwrap_or_default();
        let purpose = match purpose {
            "approve" | "reject" | "propose" => purpose,
            _ => "other",
        };
        let digest = hex::encode(Sha256::digest(&bytes));
        let name = format!("{purpose}-{}.{SIGNATURE}", &digest[..12]);
        let read = Ok((signature, bytes));
        self.signatures.push(SignatureFile { name, read });
        Ok(())
    }

    /// Writes down the signature that was taken in last.
    pub fn keep_last(&self, armor: &str) -> anyhow::Result<PathBuf> {
        let last = self.signatures.last().context("no signature")?;
        let path = self.path.join(&last.name);
        write_new(&path, SHARED, armor.as_bytes())?;
        Ok(path)
    }

    /// What shows that the proposal stands in the log, if that is in the folder.
    pub fn proof(&self) -> anyhow::Result<Option<String>> {
        let path = self.path.join(PROOF);
        if !path.exists() {
            return Ok(None);
        }
        let proof = String::from_utf8(read_bounded(&path)?);
        Ok(Some(proof.with_context(|| {
            format!("{} is no text", path.display())
        })?))
    }

    /// Writes down what shows that the proposal stands in the log.
    pub fn keep_proof(&self, proof: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(PROOF);
        match self.proof()? {
            Some(known) if known == proof => {}
            Some(_) => {
                let sentence = format!("{} is another proof; take it away", path.display());
                return Err(Failure::new(Blame::Failed, sentence).into());
            }
            None => write_new(&path, SHARED, proof.as_bytes())?,
        }
        Ok(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl SignatureFile {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.file_name().unwrap_or_default();
        let text = String::from_utf8(read_bounded(path)?).map_err(|_| SshSigError::Armor);
        let read = text.and_then(|text| {
            let bytes = SshSig::dearmor(&text)?;
            Ok((SshSig::from_bytes(&bytes)?, bytes))
        });
        Ok(Self {
            name: name.to_string_lossy().into_owned(),
            read,
        })
    }
}

/// The state that a proposal is about, where it is about one that can be read.
#[must_use]
pub fn proposed_state(read: &Proposal) -> Option<Authority> {
    if read.kind != Kind::Authority {
        return None;
    }
    Authority::parse(std::str::from_utf8(&read.body).ok()?).ok()
}

/// What a signature says of a proposal of this kind, if it is for one.
#[must_use]
pub fn verdict(signature: &SshSig, kind: Kind) -> Option<Verdict> {
    let all = [Verdict::Approve, Verdict::Reject, Verdict::Propose];
    all.into_iter()
        .find(|verdict| namespace(*verdict, kind) == signature.namespace())
}

/// Reads a whole file that cannot be long.
pub fn read_bounded(path: &Path) -> anyhow::Result<Vec<u8>> {
    let reading = || format!("cannot read {}", path.display());
    let file = fs::File::open(path).with_context(reading)?;
    let mut bytes = Vec::new();
    let mut bounded = file.take(MAX_FILE_BYTES + 1);
    bounded.read_to_end(&mut bytes).with_context(reading)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let sentence = format!("{} is longer than any file of this sort", path.display());
        return Err(Failure::new(Blame::Failed, sentence).into());
    }
    Ok(bytes)
}
