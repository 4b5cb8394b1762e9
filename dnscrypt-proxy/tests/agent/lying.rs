//! An agent that has the key and answers as it is told to: the truth, or one of many lies.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signer as _, SigningKey};

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_RESPONSE: u8 = 14;

/// What it does with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    Truth,
    Refusal,
    ByAnotherKey,
    OfOtherBytes,
    AnotherAlgorithm,
    Garbage,
    TooShort,
    HugeLength,
    HugeInside,
    Cut,
    Nothing,
    Silence,
    HalfThenSilence,
}

/// It serves one client, and ends when that hangs up.
pub(crate) struct LyingAgent {
    socket: PathBuf,
}

impl LyingAgent {
    /// Tells its key truly, and answers one request to sign with each of the replies.
    pub(crate) fn start(socket: &Path, key: &SigningKey, replies: Vec<Reply>) -> Self {
        Self::serving(socket, key, Reply::Truth, replies)
    }

    /// Lies when it is asked for its keys.
    pub(crate) fn about_keys(socket: &Path, key: &SigningKey, lie: Reply) -> Self {
        Self::serving(socket, key, lie, Vec::new())
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    fn serving(socket: &Path, key: &SigningKey, of_keys: Reply, replies: Vec<Reply>) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let key = key.clone();
        std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut replies = replies.into_iter();
            // It ends when the client does not want to hear more.
            while let Ok(request) = read(&mut client) {
                let (truth, reply) = if request[0] == REQUEST_IDENTITIES {
                    (identities(&key), of_keys)
                } else {
                    let message = message(&request);
                    let reply = replies.next().unwrap();
                    (signature(&key, message, reply), reply)
                };
                if answer(&mut client, &truth, reply).is_err() {
                    return;
                }
            }
        });
        Self {
            socket: socket.to_owned(),
        }
    }
}

fn answer(client: &mut UnixStream, truth: &[u8], reply: Reply) -> io::Result<()> {
    let whole = string(truth);
    let gone = || Err(io::ErrorKind::BrokenPipe.into());
    match reply {
        Reply::Truth | Reply::ByAnotherKey | Reply::OfOtherBytes | Reply::AnotherAlgorithm => {
            client.write_all(&whole)
        }
        Reply::Refusal => client.write_all(&string(&[FAILURE])),
        Reply::Garbage => client.write_all(&string(b"HTTP/1.1 400 Bad Request")),
        Reply::TooShort => client.write_all(&string(&truth[..truth.len() - 1])),
        Reply::HugeLength => client.write_all(&[0xff; 4]),
        Reply::HugeInside => client.write_all(&string(&[SIGN_RESPONSE, 0xff, 0xff, 0xff, 0xff])),
        Reply::Cut => {
            client.write_all(&whole[..whole.len() - 1])?;
            gone()
        }
        Reply::Nothing => gone(),
        Reply::Silence => Ok(()),
        Reply::HalfThenSilence => client.write_all(&whole[..whole.len() / 2]),
    }
}

fn identities(key: &SigningKey) -> Vec<u8> {
    let blob = [
        string(b"ssh-ed25519"),
        string(key.verifying_key().as_bytes()),
    ];
    let parts = [
        1u32.to_be_bytes().to_vec(),
        string(&blob.concat()),
        string(b"token"),
    ];
    [vec![IDENTITIES_ANSWER], parts.concat()].concat()
}

fn signature(key: &SigningKey, message: &[u8], reply: Reply) -> Vec<u8> {
    let other = SigningKey::from_bytes(&[2; 32]);
    let signature = if matches!(reply, Reply::ByAnotherKey) {
        other.sign(message)
    } else if matches!(reply, Reply::OfOtherBytes) {
        key.sign(b"other bytes")
    } else {
        key.sign(message)
    };
    let is_other = matches!(reply, Reply::AnotherAlgorithm);
    let algorithm = if is_other {
        "rsa-sha2-512"
    } else {
        "ssh-ed25519"
    };
    let blob = [string(algorithm.as_bytes()), string(&signature.to_bytes())];
    [vec![SIGN_RESPONSE], string(&blob.concat())].concat()
}

/// Of a request to sign: type, key of 51 bytes, message, flags of zero.
fn message(request: &[u8]) -> &[u8] {
    let (message, flags) = request[1 + 4 + 51 + 4..].split_at(request.len() - 64);
    assert_eq!(flags, [0; 4], "no flags are wanted");
    message
}

fn read(client: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    client.read_exact(&mut len)?;
    let mut request = vec![0; u32::from_be_bytes(len).try_into().unwrap()];
    client.read_exact(&mut request)?;
    Ok(request)
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap();
    [&len.to_be_bytes(), bytes].concat()
}
