//! What those see who take the relay for an ordinary web server: a page at `/`, and nothing anywhere else.

use bytes::Bytes;
use hyper::{Method, StatusCode};

const PAGE: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Welcome</title></head>\n<body><h1>Welcome</h1></body></html>\n";
const NOT_FOUND: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>404 Not Found</title></head>\n<body><h1>Not Found</h1></body></html>\n";
const NOT_ALLOWED: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>405 Method Not Allowed</title></head>\n<body><h1>Method Not Allowed</h1></body></html>\n";

const BUSY: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>503 Service Unavailable</title></head>\n<body><h1>Service Unavailable</h1></body></html>\n";

/// The pages.
#[derive(Debug, Clone)]
pub(super) struct Site {
    page: Bytes,
}

/// An answer, over whichever HTTP.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Site {
    pub(super) fn new(page: Option<Vec<u8>>) -> Self {
        Self {
            page: page.map_or(Bytes::from_static(PAGE.as_bytes()), Bytes::from),
        }
    }

    /// What a server says that has too much to do.
    pub(super) fn busy(&self) -> Page {
        Page {
            status: StatusCode::SERVICE_UNAVAILABLE,
            body: Bytes::from_static(BUSY.as_bytes()),
        }
    }

    pub(super) fn answer(&self, method: &Method, path: &str) -> Page {
        let fixed = |status, body: &'static str| Page {
            status,
            body: Bytes::from_static(body.as_bytes()),
        };
        match (method, path) {
            (&Method::GET | &Method::HEAD, "/" | "/index.html") => Page {
                status: StatusCode::OK,
                body: self.page.clone(),
            },
            (&Method::GET | &Method::HEAD, _) => fixed(StatusCode::NOT_FOUND, NOT_FOUND),
            _ => fixed(StatusCode::METHOD_NOT_ALLOWED, NOT_ALLOWED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_finds_a_page_at_the_root_and_nothing_anywhere_else() {
        let site = Site::new(Some(b"ours".to_vec()));

        let answer = |method, path| site.answer(&method, path).status.as_u16();

        assert_eq!(site.answer(&Method::GET, "/").body, "ours");
        assert_eq!(answer(Method::GET, "/.well-known/masque/udp/"), 404);
        assert_eq!(answer(Method::POST, "/"), 405);
    }
}
