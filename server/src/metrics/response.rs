//! Responses as bytes. Pure.

/// What a response says in its first line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 200
    Ok,
    /// 400
    BadRequest,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 431
    HeadersTooLarge,
    /// 503
    Unavailable,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::HeadersTooLarge => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

/// Of `/metrics`: OpenMetrics 1.0.
pub(super) const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Of everything else.
pub(super) const PLAIN: &str = "text/plain; charset=utf-8";

/// A response after which the connection is closed.
pub(super) fn response(status: Status, content_type: &str, body: &str, head_only: bool) -> Vec<u8> {
    let allow = if status == Status::MethodNotAllowed { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         {allow}Cache-Control: no-store\r\n\
         Connection: close\r\n\r\n",
        status.line(),
        body.len(),
    );
    let body = if head_only { "" } else { body };
    [head.as_bytes(), body.as_bytes()].concat()
}

/// A response that says why a request is refused.
pub(super) fn refusal(status: Status, head_only: bool) -> Vec<u8> {
    let hint = match status {
        Status::NotFound => ": there are /metrics and /healthz",
        Status::MethodNotAllowed => ": only GET and HEAD",
        _ => "",
    };
    response(status, PLAIN, &format!("{}{hint}\n", status.line()), head_only)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_response_to_head_says_how_long_the_body_would_be() {
        let whole = String::from_utf8(response(Status::Ok, PLAIN, "ok\n", false)).unwrap();
        let head = String::from_utf8(response(Status::Ok, PLAIN, "ok\n", true)).unwrap();
        assert_eq!(whole, format!("{head}ok\n"));
        assert!(head.contains("\r\nContent-Length: 3\r\n") && head.ends_with("\r\n\r\n"), "{head}");
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        let text = String::from_utf8(refusal(Status::MethodNotAllowed, false)).unwrap();
        assert!(text.starts_with("HTTP/1.1 405 ") && text.contains("\r\nAllow: GET, HEAD\r\n"), "{text}");
    }
}
