//! As much of HTTP/1.1 as two small questions to one server of ours need (RFC 9112).
//!
//! By hand, since a general client costs 190 KB of a router's flash. Answers without a length are refused, and so is
//! anything after an answer.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The server's headers are a few hundred bytes.
const MAX_HEAD_BYTES: usize = 8 * 1024;
/// A bundle is a few kilobytes; this is `trust`'s own limit.
const MAX_BODY_BYTES: usize = 256 * 1024;
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    /// The connection failed, or ended too early.
    #[error(transparent)]
    Cut(#[from] io::Error),
    /// More than is ever answered.
    #[error("the answer is too long")]
    TooLong,
    /// Not an answer of HTTP/1.1 with a length.
    #[error("the answer is not HTTP with a length")]
    Malformed,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Asks for a document and waits for the whole answer.
pub(super) async fn get<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    server: SocketAddr,
    path: &str,
) -> Result<Answer, HttpError> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: {server}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    read_answer(stream).await
}

/// Posts CBOR and waits for the whole answer.
pub(super) async fn post<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    server: SocketAddr,
    path: &str,
    body: &[u8],
) -> Result<Answer, HttpError> {
    let length = body.len();
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: {server}\r\ncontent-type: application/cbor\r\ncontent-length: {length}\r\n\r\n"
    )
    .into_bytes();
    request.extend(body);
    stream.write_all(&request).await?;
    stream.flush().await?;
    read_answer(stream).await
}

async fn read_answer<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Answer, HttpError> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read
            .windows(HEAD_END.len())
            .position(|window| window == HEAD_END)
        {
            break end;
        }
        if read.len() > MAX_HEAD_BYTES {
            return Err(HttpError::TooLong);
        }
        read_some(stream, &mut read).await?;
    };
    let head = parse_head(read.get(..end).unwrap_or_default())?;
    let mut body = read.split_off(end + HEAD_END.len());
    while body.len() < head.length {
        read_some(stream, &mut body).await?;
    }
    if body.len() > head.length {
        return Err(HttpError::Malformed);
    }
    Ok(Answer {
        status: head.status,
        body,
    })
}

async fn read_some<S: AsyncRead + Unpin>(
    stream: &mut S,
    into: &mut Vec<u8>,
) -> Result<(), HttpError> {
    let mut piece = [0; 2048];
    match stream.read(&mut piece).await? {
        0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        length => {
            into.extend(piece.iter().take(length));
            Ok(())
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: usize,
}

fn parse_head(head: &[u8]) -> Result<Head, HttpError> {
    let head = std::str::from_utf8(head).map_err(|_| HttpError::Malformed)?;
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(parse_status)
        .ok_or(HttpError::Malformed)?;
    let mut length = None;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(HttpError::Malformed)?;
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(HttpError::Malformed);
        }
        if name.eq_ignore_ascii_case("content-length") {
            let value =
                parse_decimal(value.trim_matches([' ', '\t'])).ok_or(HttpError::Malformed)?;
            if length.replace(value).is_some() {
                return Err(HttpError::Malformed);
            }
        }
    }
    match length {
        Some(length) if length <= MAX_BODY_BYTES => Ok(Head { status, length }),
        Some(_) => Err(HttpError::TooLong),
        None => Err(HttpError::Malformed),
    }
}

/// `HTTP/1.1 200 OK`; the words after the number mean nothing.
fn parse_status(line: &str) -> Option<u16> {
    let (number, _words) = line.strip_prefix("HTTP/1.1 ")?.split_at_checked(3)?;
    // Below 200 it is not the answer yet, which nothing of ours asks for.
    parse_decimal(number)
        .and_then(|number| u16::try_from(number).ok())
        .filter(|status| (200..600).contains(status))
}

/// Digits only: `parse` alone would take a sign.
fn parse_decimal(text: &str) -> Option<usize> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(mut bytes: &[u8]) -> Result<Answer, HttpError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(read_answer(&mut bytes))
    }

    #[test]
    fn an_answer_cut_at_any_byte_is_cut() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nx: y\r\n\r\nabc";

        for cut in 0..whole.len() {
            assert!(
                matches!(answer(&whole[..cut]), Err(HttpError::Cut(_))),
                "cut at {cut}"
            );
        }
        assert_eq!(
            answer(whole).unwrap(),
            Answer {
                status: 200,
                body: b"abc".to_vec()
            }
        );
    }

    #[test]
    fn lengths_that_are_missing_doubled_signed_or_not_decimal_are_refused() {
        for header in [
            "",
            "content-length: 3\r\ncontent-length: 3\r\n",
            "content-length: +3\r\n",
            "content-length: 0x3\r\n",
            "content-length: \r\n",
            "content-length: 99999999999999999999999\r\n",
            "transfer-encoding: chunked\r\n",
            "content-length: 3\r\ntransfer-encoding: chunked\r\n",
            "no colon\r\n",
        ] {
            let bytes = format!("HTTP/1.1 200 OK\r\n{header}\r\nabc");
            assert!(
                matches!(answer(bytes.as_bytes()), Err(HttpError::Malformed)),
                "{header:?}"
            );
        }
    }

    #[test]
    fn other_versions_and_statuses_that_are_no_answer_are_refused() {
        for line in [
            "HTTP/1.0 200 OK",
            "HTTP/2 200",
            "HTTP/1.1 100 Continue",
            "HTTP/1.1 20",
            "HTTP/1.1  20",
            "ICY 200 OK",
        ] {
            let bytes = format!("{line}\r\ncontent-length: 0\r\n\r\n");
            assert!(
                matches!(answer(bytes.as_bytes()), Err(HttpError::Malformed)),
                "{line}"
            );
        }
    }

    #[test]
    fn what_is_longer_than_said_or_than_allowed_is_refused() {
        let endless_head = [
            b"HTTP/1.1 200 OK\r\nx: ".as_slice(),
            &vec![b'x'; 2 * MAX_HEAD_BYTES],
        ]
        .concat();
        let large = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            MAX_BODY_BYTES + 1
        );

        assert!(matches!(answer(&endless_head), Err(HttpError::TooLong)));
        assert!(matches!(answer(large.as_bytes()), Err(HttpError::TooLong)));
        assert!(matches!(
            answer(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab"),
            Err(HttpError::Malformed)
        ));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_answer_more_than_they_hold(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let framed = [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n".as_slice(), &bytes].concat();
            for bytes in [&bytes, &framed] {
                if let Ok(answer) = answer(bytes) {
                    prop_assert!(answer.body.len() < bytes.len());
                }
            }
        }
    }
}
