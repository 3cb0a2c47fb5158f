//! Refuses oversized requests, and requests that a proxy in front of the server could interpret
//! differently.

use std::net::Ipv6Addr;

use axum::extract::Request;
use axum::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, TRANSFER_ENCODING,
};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, Version};

use super::error::ApiError;

/// Headers that are read here and must have one value: two readers could choose different ones of
/// two values.
const SINGLE: [HeaderName; 6] =
    [HOST, AUTHORIZATION, CONTENT_TYPE, ORIGIN, TRANSFER_ENCODING, CONTENT_LENGTH];

const MAX_URI: usize = 8 * 1024;
const MAX_HEADERS: usize = 16 * 1024;

/// Refuses a request if its address or headers are too long, if it
/// lacks the one valid `Host` that HTTP/1.1 requires (RFC 9112, section 3.2), or if it has two
/// values for a single-valued header.
pub(super) fn check(request: &Request) -> Result<(), ApiError> {
    check_size(request.uri(), request.headers())?;
    check_headers(request.version(), request.headers())
}

fn check_size(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let uri = uri.path_and_query().map_or(0, |uri| uri.as_str().len());
    let headers: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if uri > MAX_URI {
        Err(ApiError::from_status(StatusCode::URI_TOO_LONG))
    } else if headers > MAX_HEADERS {
        Err(ApiError::from_status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE))
    } else {
        Ok(())
    }
}

fn check_headers(version: Version, headers: &HeaderMap) -> Result<(), ApiError> {
    if let Some(name) = SINGLE.iter().find(|name| headers.get_all(*name).iter().nth(1).is_some()) {
        return Err(ApiError::invalid_input(format!("there may be one {name} header only")));
    }
    // The server would treat a body in another encoding as the body itself.
    if headers.get(TRANSFER_ENCODING).is_some_and(|coding| !is_chunked(coding.as_bytes())) {
        return Err(ApiError::invalid_input("the only transfer-encoding here is chunked"));
    }
    match headers.get(HOST) {
        Some(host) if !is_host(host.as_bytes()) => {
            Err(ApiError::invalid_input("the host header is not valid"))
        }
        None if version == Version::HTTP_11 => {
            Err(ApiError::invalid_input("the host header is missing"))
        }
        _ => Ok(()),
    }
}

fn is_chunked(coding: &[u8]) -> bool {
    coding.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// `uri-host [":" port]` of RFC 9110, whose `http` addresses have a host that is not empty.
fn is_host(value: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(value) else { return false };
    let (is_host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        (address.parse::<Ipv6Addr>().is_ok(), port)
    } else {
        let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        (is_name(name.as_bytes()), port)
    };
    is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// `reg-name` of RFC 3986, which an IPv4 address is too.
fn is_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let Some((first, others)) = rest.split_first() {
        rest = match (first, others) {
            (b'%', [high, low, others @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                others
            }
            (first, others)
                if first.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(first) =>
            {
                others
            }
            _ => return false,
        };
    }
    !name.is_empty()
}

fn is_port(port: &str) -> bool {
    port.is_empty() || port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for host in [
            "chat.example",
            "CHAT.example.",
            "localhost:6688",
            "localhost:",
            "192.0.2.1",
            "192.0.2.1:80",
            "[::1]",
            "[2001:db8::1]:6688",
            "xn--bcher-kva.example",
            "a_b.internal",
            "caf%C3%A9.example",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn anything_else_is_no_host() {
        for host in [
            "",
            ":80",
            "a b",
            "a/b",
            "http://a",
            "user@a",
            "a?b",
            "a#b",
            "a\\b",
            "a:80:80",
            "a:x",
            "a:+80",
            "a:65536",
            "a%",
            "a%zz",
            "::1",
            "[::1",
            "[::1]80",
            "[::1]:x",
            "[a]",
            "[]",
            "[fe80::1%25eth0]",
            "b\u{fc}cher.example",
            "a\tb",
        ] {
            assert!(!is_host(host.as_bytes()), "{host}");
        }
        assert!(!is_host(b"a\xff"));
    }

    #[test]
    fn http_1_0_may_leave_the_host_out() {
        assert!(check_headers(Version::HTTP_10, &HeaderMap::new()).is_ok());
        assert!(check_headers(Version::HTTP_11, &HeaderMap::new()).is_err());
    }
}
