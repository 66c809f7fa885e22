//! Where a server is: `http://HOST:PORT`, with an optional path in front of its routes.

use std::fmt;

use hyper::Uri;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};

use crate::ClientError;

/// The address of a server.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    authority: Authority,
    /// Empty, or a path without a slash at its end, such as that of an ingress.
    prefix: String,
}

impl Address {
    /// Reads `http://HOST[:PORT][/PREFIX]`; the scheme may be left out, the port is `default_port` then.
    pub(crate) fn parse(url: &str, default_port: u16) -> Result<Address, ClientError> {
        let invalid =
            |reason: &str| ClientError::InvalidUrl { url: url.to_owned(), reason: reason.to_owned() };
        if url.starts_with("https://") || url.starts_with("grpcs://") {
            return Err(invalid("this client does not speak TLS"));
        }
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("grpc://")).unwrap_or(url);
        if let Some((scheme, _)) = rest.split_once("://") {
            return Err(invalid(&format!("its scheme is {scheme:?}, and this client speaks http alone")));
        }
        let (host, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if host.contains('@') {
            return Err(invalid("this client sends no user name or password"));
        }
        let authority: Authority = host.parse().map_err(|_| invalid("its host or port cannot be read"))?;
        let prefix = prefix.trim_end_matches('/');
        if !prefix.is_empty() && (prefix.contains('?') || prefix.parse::<PathAndQuery>().is_err()) {
            return Err(invalid("its path has a query or cannot be read"));
        }
        if authority.host().is_empty() {
            return Err(invalid("it names no host"));
        }
        let port = authority.as_str()[authority.host().len()..].strip_prefix(':');
        let port = port.map_or(Some(default_port), |port| port.parse().ok());
        let port = port.ok_or_else(|| invalid("its port is not a number below 65536"))?;
        let authority = format!("{}:{port}", authority.host());
        let authority = authority.parse().map_err(|_| invalid("its host cannot be read"))?;
        Ok(Address { authority, prefix: prefix.to_owned() })
    }

    /// `HOST:PORT`.
    pub(crate) fn authority(&self) -> &str {
        self.authority.as_str()
    }

    /// The address of `path`, which begins with a slash.
    pub(crate) fn uri(&self, path: &str) -> Result<Uri, ClientError> {
        let builder = Uri::builder().scheme(Scheme::HTTP).authority(self.authority.clone());
        builder.path_and_query(format!("{}{path}", self.prefix)).build().map_err(|error| {
            ClientError::InvalidRequest {
                reason: format!("the path {path:?} cannot be part of a URL: {error}"),
            }
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.prefix)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `text` as one segment of a path: everything but unreserved characters is percent-encoded.
pub(crate) fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_understood() {
        for (url, address) in [
            ("http://localhost:8000", "http://localhost:8000"),
            ("http://localhost:8000/", "http://localhost:8000"),
            ("localhost", "http://localhost:8000"),
            ("10.0.0.1:9", "http://10.0.0.1:9"),
            ("http://[::1]:9/", "http://[::1]:9"),
            ("http://[::1]", "http://[::1]:8000"),
            ("http://gateway/models/a/", "http://gateway:8000/models/a"),
        ] {
            assert_eq!(Address::parse(url, 8000).unwrap().to_string(), address, "{url}");
        }
        let address = Address::parse("http://gateway:80/models/a/", 8000).unwrap();
        assert_eq!(address.uri("/v2").unwrap(), "http://gateway:80/models/a/v2");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in [
            "",
            "http://",
            "https://h:1",
            "http://h:99999",
            "http://h:",
            "http://h:x",
            "h h",
            "http://u@h",
            "h/?a=b",
            "ftp://h",
            "http:///v2",
        ] {
            let error = Address::parse(url, 8000).unwrap_err().to_string();
            assert!(error.ends_with("write it as http://HOST:PORT"), "{url}: {error}");
        }
    }

    #[test]
    fn another_scheme_is_named() {
        let error = Address::parse("ftp://h", 8000).unwrap_err().to_string();
        assert!(error.contains("its scheme is \"ftp\", and this client speaks http alone"), "{error}");
    }

    #[test]
    fn a_name_is_one_segment_of_a_path() {
        assert_eq!(segment("a-b_c.1~"), "a-b_c.1~");
        assert_eq!(segment("my model/é"), "my%20model%2F%C3%A9");
    }
}
