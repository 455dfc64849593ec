//! The head of an HTTP/1 request, from bytes. Pure.
//!
//! The syntax is [`httparse`]'s, which hyper uses: no dependencies, no allocation, fuzzed for years. What of
//! it the endpoint takes is decided here.

use super::MOST_REQUEST_BYTES;
use super::response::Status;

/// Headers of a request that are taken.
const MOST_HEADERS: usize = 64;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// `/metrics`
    Metrics,
    /// `/healthz`
    Health,
}

/// A request that is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// What is asked for, or the status with which it is refused.
    pub resource: Result<Resource, Status>,
    /// HEAD: the same without a body.
    pub head_only: bool,
}

/// What the bytes received so far are.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The beginning of a request.
    Incomplete,
    /// A whole one, or what can't become one; what may follow is of no interest.
    Whole(Request),
}

/// Reads a request's line and headers.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let resource = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length <= MOST_REQUEST_BYTES => resource(&request),
        Ok(httparse::Status::Partial) if bytes.len() < MOST_REQUEST_BYTES => return Parsed::Incomplete,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => Err(Status::HeadersTooLarge),
        Err(_) => Err(Status::BadRequest),
    };
    Parsed::Whole(Request { resource, head_only: request.method == Some("HEAD") })
}

fn resource(request: &httparse::Request<'_, '_>) -> Result<Resource, Status> {
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return Err(Status::BadRequest);
    };
    // RFC 9112 section 3.2: a request of HTTP/1.1 has one Host header.
    let hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host")).count();
    if hosts > 1 || version == 1 && hosts == 0 {
        return Err(Status::BadRequest);
    }
    let resource = match path(target) {
        "/metrics" => Resource::Metrics,
        "/healthz" => Resource::Health,
        _ => return Err(Status::NotFound),
    };
    if matches!(method, "GET" | "HEAD") { Ok(resource) } else { Err(Status::MethodNotAllowed) }
}

/// The path of a request target, without a query, in either form that a server must take: `/path` and
/// `http://host/path` (RFC 9112 section 3.2.2).
fn path(target: &str) -> &str {
    let origin =
        target.strip_prefix("http://").map_or(target, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
    origin.split(['?', '#']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const METRICS: Request = Request { resource: Ok(Resource::Metrics), head_only: false };
    const HEALTH: Request = Request { resource: Ok(Resource::Health), head_only: false };

    fn refused(status: Status) -> Parsed {
        Parsed::Whole(Request { resource: Err(status), head_only: false })
    }

    fn parsed(text: &str) -> Parsed {
        parse(text.as_bytes())
    }

    #[test]
    fn requests_as_clients_send_them() {
        for (text, request) in [
            ("GET /metrics HTTP/1.1\r\nHost: h:9100\r\nAccept: */*\r\n\r\n", METRICS),
            ("GET /metrics?name=x HTTP/1.1\r\nhost: h\r\n\r\n", METRICS),
            ("GET http://h:9100/metrics HTTP/1.1\r\nHost: h\r\n\r\n", METRICS),
            ("GET /healthz HTTP/1.0\r\n\r\n", HEALTH),
            ("\r\nGET /healthz HTTP/1.0\n\n", HEALTH),
            ("HEAD /healthz HTTP/1.1\r\nHost:\r\n\r\n", Request { head_only: true, ..HEALTH }),
            ("GET /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc", METRICS),
        ] {
            assert_eq!(parsed(text), Parsed::Whole(request), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_answered_is_refused_with_its_status() {
        for (text, status) in [
            ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", Status::NotFound),
            ("GET /metrics/ HTTP/1.1\r\nHost: h\r\n\r\n", Status::NotFound),
            ("GET http://h HTTP/1.1\r\nHost: h\r\n\r\n", Status::NotFound),
            ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", Status::NotFound),
            ("POST /metrics HTTP/1.1\r\nHost: h\r\n\r\n", Status::MethodNotAllowed),
            ("get /metrics HTTP/1.1\r\nHost: h\r\n\r\n", Status::MethodNotAllowed),
            ("GET /metrics HTTP/1.1\r\n\r\n", Status::BadRequest),
            ("GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", Status::BadRequest),
            ("GET /metrics HTTP/1.1\r\nno colon\r\n\r\n", Status::BadRequest),
            ("GET /metrics HTTP/2.0\r\n\r\n", Status::BadRequest),
            ("GET /metrics\r\n\r\n", Status::BadRequest),
            ("\x16\x03\x01\x02", Status::BadRequest), // TLS
        ] {
            assert_eq!(parsed(text), refused(status), "{text:?}");
        }
    }

    #[test]
    fn a_refusal_of_head_has_no_body_either() {
        let expected = Request { resource: Err(Status::NotFound), head_only: true };
        assert_eq!(parsed("HEAD / HTTP/1.0\r\n\r\n"), Parsed::Whole(expected));
    }

    #[test]
    fn line_and_headers_are_bounded() {
        let headers = "A: b\r\n".repeat(MOST_HEADERS);
        let many = format!("GET /metrics HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        assert_eq!(parsed(&many), refused(Status::HeadersTooLarge));
        let endless = format!("GET /{}", "a".repeat(MOST_REQUEST_BYTES));
        assert_eq!(parsed(&endless[..MOST_REQUEST_BYTES - 1]), Parsed::Incomplete);
        assert_eq!(parsed(&endless[..MOST_REQUEST_BYTES]), refused(Status::HeadersTooLarge));
        let long = format!("GET /metrics HTTP/1.0\r\nA: {}\r\n\r\n", "a".repeat(MOST_REQUEST_BYTES));
        assert_eq!(parsed(&long), refused(Status::HeadersTooLarge));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..10_000)) {
            let parsed = parse(&bytes);
            prop_assert!(bytes.len() < MOST_REQUEST_BYTES || parsed != Parsed::Incomplete);
        }

        /// Near to a request there is more to go wrong than in noise.
        #[test]
        fn no_damage_makes_it_panic(
            start in "(GET|HEAD|POST) (http://h)?/(metrics|healthz)?(\\?x)? HTTP/1\\.[01]\r\n(Host: h\r\n\
                      ){0,2}(A:b\r\n){0,70}\r\n",
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut bytes = start.into_bytes();
            for (at, byte) in damage {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = parse(&bytes);
        }

        /// However a request comes in pieces, it is whole at its last byte and not before.
        #[test]
        fn a_beginning_of_a_request_is_incomplete(name in "[A-Za-z-]{1,20}", value in "[ -~]{0,40}") {
            prop_assume!(!name.eq_ignore_ascii_case("host"));
            let text = format!("GET /metrics HTTP/1.1\r\nHost: h\r\n{name}: {value}\r\n\r\n");
            for end in 0..text.len() {
                prop_assert_eq!(parsed(&text[..end]), Parsed::Incomplete);
            }
            prop_assert_eq!(parsed(&text), Parsed::Whole(METRICS));
        }
    }
}
