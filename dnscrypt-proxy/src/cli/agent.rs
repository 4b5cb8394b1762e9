//! The provider's key where no file has it: behind an ssh agent, which signs with a token or with what `ssh-add` gave it.
//!
//! PINs, touches and questions are between the agent and its owner. What comes back is bounded in bytes and in time, and
//! a signature is used only when the provider's public key verifies it.

mod wire;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use ed25519_dalek::{Signature, VerifyingKey};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::AgentArgs;
use super::exit::{Failure, PERMISSION, UNAVAILABLE, USAGE};
use super::query::runtime;
use crate::certs::hex;
use wire::{BadAnswer, Identity, MAX_ANSWER};

/// OpenSSH's variable for the socket of the agent in use.
const SOCKET: &str = "SSH_AUTH_SOCK";
/// A key without a touch or a question has signed by then; with one, its owner is told what is waited for.
const AT_ONCE: Duration = Duration::from_secs(1);
/// As many other keys are named where the wanted one is missing.
const NAMED: usize = 4;

/// Why an agent did not sign.
#[derive(Debug, Error)]
pub(super) enum AgentError {
    #[error(
        "no ssh agent is named: start one (`eval $(ssh-agent)`), or name its socket with --agent-socket"
    )]
    NotNamed,
    #[error("no ssh agent answers at {path}: {error}")]
    Nobody { path: String, error: io::Error },
    #[error("the agent at {path} went away: {error}")]
    Gone { path: String, error: io::Error },
    #[error(
        "the agent at {path} said nothing for {} seconds: is the token there, was it touched, is a question open? --agent-wait-s waits longer",
        .wait.as_secs()
    )]
    Silent { path: String, wait: Duration },
    #[error("the agent at {path} announces an answer of {len} bytes, and none has that many")]
    TooLong { path: String, len: u32 },
    #[error(
        "the agent at {path} refused to sign {len} bytes with key {key}: was the token taken out, not touched in time, or the PIN wrong? Some tokens sign nothing as long as that (`culvert-dns provider-key agent --help`)"
    )]
    Refused {
        path: String,
        key: String,
        len: usize,
    },
    #[error("the agent at {path} cannot be used: {why}")]
    Unusable { path: String, why: BadAnswer },
    #[error(
        "the agent at {path} has no key {key}: {there}. `ssh-add -l` shows what it has; is the token plugged in, the agent unlocked?"
    )]
    NoSuchKey {
        path: String,
        key: String,
        there: String,
    },
    #[error(
        "the agent at {path} gave a signature that is not of key {key}: nothing of it was used"
    )]
    WrongSignature { path: String, key: String },
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        let code = match &error {
            AgentError::NotNamed => USAGE,
            AgentError::Nobody { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                PERMISSION
            }
            AgentError::Nobody { .. }
            | AgentError::Gone { .. }
            | AgentError::Silent { .. }
            | AgentError::TooLong { .. }
            | AgentError::Refused { .. }
            | AgentError::Unusable { .. }
            | AgentError::NoSuchKey { .. }
            | AgentError::WrongSignature { .. } => UNAVAILABLE,
        };
        Self::new(code, error.to_string())
    }
}

/// A connection to an agent.
pub(super) struct Agent {
    path: String,
    wait: Duration,
    runtime: Runtime,
    stream: UnixStream,
}

impl Agent {
    pub(super) fn connect(args: &AgentArgs) -> Result<Self, Failure> {
        let named = std::env::var_os(SOCKET).filter(|socket| !socket.is_empty());
        let socket = args.agent_socket.clone().or(named.map(PathBuf::from));
        let socket = socket.ok_or(AgentError::NotNamed)?;
        let path = socket.display().to_string();
        let runtime = runtime()?;
        // A socket whose queue is full says so; it does not make us wait.
        let stream = runtime
            .block_on(UnixStream::connect(&socket))
            .map_err(|error| AgentError::Nobody {
                path: path.clone(),
                error,
            })?;
        Ok(Self {
            path,
            wait: Duration::from_secs(args.agent_wait_s.into()),
            runtime,
            stream,
        })
    }

    /// The Ed25519 keys that it has.
    pub(super) fn identities(&mut self) -> Result<Vec<Identity>, AgentError> {
        let answer = self.ask(&wire::request_identities(), "its keys")?;
        wire::identities(&answer).map_err(|why| self.unusable(why))
    }

    /// Looks whether it has a key, so that a missing one is told before anybody is asked to touch something.
    pub(super) fn must_have(&mut self, key: &VerifyingKey) -> Result<(), AgentError> {
        let there = self.identities()?;
        if there.iter().any(|identity| identity.key == *key.as_bytes()) {
            return Ok(());
        }
        let named = there.iter().take(NAMED).map(|other| hex(&other.key));
        let more = there.len().saturating_sub(NAMED);
        let there = match (there.is_empty(), more) {
            (true, _) => "it has no Ed25519 key at all".to_owned(),
            (false, 0) => format!("it has {}", named.collect::<Vec<_>>().join(", ")),
            (false, _) => format!(
                "it has {} and {more} more",
                named.collect::<Vec<_>>().join(", ")
            ),
        };
        Err(AgentError::NoSuchKey {
            path: self.path.clone(),
            key: hex(key.as_bytes()),
            there,
        })
    }

    /// A signature of the key over the message. `what` is said to whoever has to touch something for it.
    pub(super) fn sign(
        &mut self,
        key: &VerifyingKey,
        message: &[u8],
        what: &str,
    ) -> Result<[u8; 64], AgentError> {
        let answer = self.ask(&wire::sign_request(key, message), what)?;
        let signature = wire::signature(&answer).map_err(|why| match why {
            BadAnswer::Refused => AgentError::Refused {
                path: self.path.clone(),
                key: hex(key.as_bytes()),
                len: message.len(),
            },
            BadAnswer::Malformed | BadAnswer::OtherAlgorithm => self.unusable(why),
        })?;
        let is_good = key.verify_strict(message, &Signature::from_bytes(&signature));
        is_good.map_err(|_| AgentError::WrongSignature {
            path: self.path.clone(),
            key: hex(key.as_bytes()),
        })?;
        Ok(signature)
    }

    /// One request and its answer, within the time that one may take.
    fn ask(&mut self, request: &[u8], what: &str) -> Result<Vec<u8>, AgentError> {
        let Self {
            path,
            wait,
            runtime,
            stream,
        } = self;
        let answer = runtime.block_on(async {
            let mut talk = Box::pin(talk(stream, request));
            if let Ok(answer) = timeout(AT_ONCE, &mut talk).await {
                return Some(answer);
            }
            // Whoever closed stderr wants no words.
            let _ = writeln!(
                io::stderr(),
                "waiting for {what} (at most {} s): touch the token if it blinks, or answer the agent's question",
                wait.as_secs()
            );
            timeout(wait.saturating_sub(AT_ONCE), talk).await.ok()
        });
        let path = || path.clone();
        match answer {
            Some(Ok(Answer::Whole(answer))) => Ok(answer),
            Some(Ok(Answer::TooLong(len))) => Err(AgentError::TooLong { path: path(), len }),
            Some(Err(error)) => Err(AgentError::Gone {
                path: path(),
                error,
            }),
            None => Err(AgentError::Silent {
                path: path(),
                wait: *wait,
            }),
        }
    }

    fn unusable(&self, why: BadAnswer) -> AgentError {
        AgentError::Unusable {
            path: self.path.clone(),
            why,
        }
    }
}

enum Answer {
    Whole(Vec<u8>),
    TooLong(u32),
}

async fn talk(stream: &mut UnixStream, request: &[u8]) -> io::Result<Answer> {
    stream.write_all(request).await?;
    let len = stream.read_u32().await?;
    if len > MAX_ANSWER {
        return Ok(Answer::TooLong(len));
    }
    let mut answer = Vec::new();
    stream.take(len.into()).read_to_end(&mut answer).await?;
    // A short one is no message: the parser would only say that less well.
    if answer.len() < usize::try_from(len).unwrap_or(usize::MAX) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Answer::Whole(answer))
}
