//! DNS over HTTPS (RFC 8484) without the HTTP: what a request asks, and what its answer says.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use dnscrypt_proxy::proto::MAX_QUERY;
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::front::{Door, Front, Refused};

/// Where questions go; `designation` tells devices so.
pub(crate) const PATH: &str = "/dns-query";
const MESSAGE: &str = "application/dns-message";
const PARAMETER: &str = "dns=";

/// What a request is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// This question.
    Question(Vec<u8>),
    /// The question that is its body.
    Body,
    /// None.
    Nothing(StatusCode),
}

/// Reads what stands in front of a request's body.
pub(super) fn read(head: &Parts) -> Asked {
    if head.uri.path() != PATH {
        return Asked::Nothing(StatusCode::NOT_FOUND);
    }
    match head.method {
        Method::GET => from_parameter(head.uri.query().unwrap_or_default()),
        Method::POST => {
            let kind = head.headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes());
            if kind.is_some_and(|kind| kind.eq_ignore_ascii_case(MESSAGE.as_bytes())) {
                Asked::Body
            } else {
                Asked::Nothing(StatusCode::UNSUPPORTED_MEDIA_TYPE)
            }
        }
        _ => Asked::Nothing(StatusCode::METHOD_NOT_ALLOWED),
    }
}

fn from_parameter(parameters: &str) -> Asked {
    let mut parameters = parameters.split('&');
    let Some(text) = parameters.find_map(|one| one.strip_prefix(PARAMETER)) else {
        return Asked::Nothing(StatusCode::BAD_REQUEST);
    };
    match URL_SAFE_NO_PAD.decode(text) {
        Ok(message) if message.len() > MAX_QUERY => Asked::Nothing(StatusCode::URI_TOO_LONG),
        Ok(message) => Asked::Question(message),
        Err(_) => Asked::Nothing(StatusCode::BAD_REQUEST),
    }
}

/// A head, and the body behind it.
pub(super) type Page = (Response<()>, Bytes);

/// Asks a question and puts the answer into a page.
pub(super) async fn answer(front: &Front, message: &[u8], from: IpAddr, door: Door) -> Page {
    match front.ask(message, from, door).await {
        Ok(answer) => {
            let age = format!("max-age={}", answer.lifetime_s);
            let head = Response::builder()
                .header(CONTENT_TYPE, MESSAGE)
                .header(CACHE_CONTROL, age);
            page(head, Bytes::from(answer.message))
        }
        Err(Refused::Malformed) => nothing(StatusCode::BAD_REQUEST),
        Err(Refused::OverRate) => nothing(StatusCode::TOO_MANY_REQUESTS),
    }
}

/// A page that says nothing else.
pub(super) fn nothing(status: StatusCode) -> Page {
    page(Response::builder().status(status), Bytes::new())
}

fn page(head: hyper::http::response::Builder, body: Bytes) -> Page {
    let head = head.header(CONTENT_LENGTH, body.len()).body(());
    // Every part of it was made here.
    (head.unwrap_or_default(), body)
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn asked(method: &str, uri: &str, kind: &str) -> Asked {
        let request = Request::builder().method(method).uri(uri);
        let request = request.header(CONTENT_TYPE, kind).body(()).unwrap();
        read(&request.into_parts().0)
    }

    #[test]
    fn what_is_no_question_has_the_status_that_says_why() {
        let long = format!("/dns-query?dns={}", "A".repeat(5_500));
        for (method, uri, kind, status) in [
            ("GET", "/", "", 404),
            ("GET", "/dns-query", "", 400),
            ("GET", "/dns-query?name=example.com", "", 400),
            ("GET", "/dns-query?dns=AA*A", "", 400),
            ("GET", "/dns-query?dns=AAAA==", "", 400),
            ("GET", &long, "", 414),
            ("PUT", "/dns-query", MESSAGE, 405),
            ("POST", "/dns-query", "application/json", 415),
        ] {
            let expected = Asked::Nothing(StatusCode::from_u16(status).unwrap());
            assert_eq!(asked(method, uri, kind), expected, "{method} {uri} {kind}");
        }
    }

    #[test]
    fn questions_are_found_in_the_parameter_and_in_the_body() {
        let get = asked("GET", "/dns-query?a=b&dns=AAEC_w", "");

        assert_eq!(get, Asked::Question(vec![0, 1, 2, 255]));
        assert_eq!(
            asked("POST", "/dns-query", "Application/DNS-message"),
            Asked::Body
        );
    }
}
