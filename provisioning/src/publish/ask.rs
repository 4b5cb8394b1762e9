//! One question to one witness (<https://c2sp.org/tlog-witness#add-checkpoint>), and what its answer means.

use std::time::Duration;

use anyhow::{Context, ensure};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::aws_lc_rs;
use trust::AddCheckpoint;

/// From the name's lookup to the end of the answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Some lines of signatures.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// The body is the size at which the witness is.
const SIZE_TYPE: &str = "text/x.tlog.size";

/// What came of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Lines of signatures, not yet verified.
    Lines(String),
    /// It has cosigned a head of this size.
    At(u64),
    /// It does not cosign: the status says why.
    Refused(StatusCode),
    /// It could not be asked.
    Unreachable(String),
}

/// Asks.
#[derive(Clone, Debug)]
pub(super) struct Asker(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Asker {
    /// By the machine's own certificate authorities: what a witness says is believed for its signature alone.
    pub(super) fn new() -> anyhow::Result<Self> {
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(aws_lc_rs::default_provider())
            .context("cannot read the system's certificate authorities")?
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self(Client::builder(TokioExecutor::new()).build(https)))
    }

    pub(super) async fn ask(&self, url: &Uri, question: &AddCheckpoint) -> Answer {
        let answer = tokio::time::timeout(ANSWER_TIME, self.exchange(url, question)).await;
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Answer::Unreachable(crate::failure::sentence(&error)),
            Err(_) => Answer::Unreachable("it did not answer in time".to_owned()),
        }
    }

    async fn exchange(&self, url: &Uri, question: &AddCheckpoint) -> anyhow::Result<Answer> {
        let body = Full::new(Bytes::from(question.to_string()));
        let request = Request::post(url.clone()).body(body)?;
        let response = self.0.request(request).await?;
        let status = response.status();
        let content_type = response.headers().get(CONTENT_TYPE);
        let is_size = content_type.is_some_and(|value| value == SIZE_TYPE);
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
        let body = body.collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("its answer broke off: {error}"))?;
        let text = String::from_utf8(body.to_bytes().to_vec());
        Ok(match (status, text) {
            (StatusCode::OK, Ok(text)) => Answer::Lines(text),
            (StatusCode::CONFLICT, Ok(text)) if is_size => {
                let size = text.strip_suffix('\n').and_then(|size| size.parse().ok());
                size.map_or(Answer::Refused(status), Answer::At)
            }
            (status, _) if status.is_server_error() => {
                Answer::Unreachable(format!("it answers {status}"))
            }
            (status, _) => Answer::Refused(status),
        })
    }
}

/// Where a witness takes heads, by its submission prefix.
pub(super) fn address(prefix: &str) -> anyhow::Result<Uri> {
    let url = format!("{}/add-checkpoint", prefix.trim_end_matches('/'));
    let url: Uri = url.parse().context("not a URL")?;
    let is_web = matches!(url.scheme_str(), Some("http" | "https"));
    ensure!(
        is_web && url.host().is_some(),
        "accepted: http://… or https://…"
    );
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn a_witness_is_asked_below_its_prefix_over_http_or_https() {
        for wrong in [
            "",
            "witness.example",
            "ftp://witness.example",
            "https://",
            "https:///x",
        ] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
        for prefix in ["https://witness.example/w1", "https://witness.example/w1/"] {
            let url = address(prefix).unwrap().to_string();
            assert_eq!(url, "https://witness.example/w1/add-checkpoint");
        }
    }
}
