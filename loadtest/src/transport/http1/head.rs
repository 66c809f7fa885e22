//! The head of an HTTP/1.1 answer: its status, and how the end of its body is found.

use std::mem::MaybeUninit;

/// Headers in one answer, which servers behind proxies come near to.
const MAX_HEADERS: usize = 96;

/// What the head of an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    /// Bytes of the head itself.
    pub(super) bytes: usize,
    pub(super) length: Length,
    /// Whether the server closes the connection after it.
    pub(super) close: bool,
    /// Length of the JSON part when binary tensors follow it.
    pub(super) json_length: Option<usize>,
}

/// How long a body is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Length {
    Known(u64),
    Chunked,
    UntilClose,
}

/// Reads the head at the start of `bytes`; `None` when there is not all of it yet.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Head>, &'static str> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        bytes,
        &mut headers,
    );
    let length = match parsed.map_err(|_| "the answer is not HTTP")? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(length) => length,
    };
    let status = response.code.ok_or("the answer has no status")?;
    let keeps = response.version == Some(1);
    let mut head =
        Head { status, bytes: length, length: Length::UntilClose, close: !keeps, json_length: None };
    for header in response.headers.iter() {
        head.read(header)?;
    }
    if status < 200 || matches!(status, 204 | 304) {
        head.length = Length::Known(0);
    }
    Ok(Some(head))
}

impl Head {
    /// Takes note of `header`. Names differ in length, which tells most of them apart at once.
    fn read(&mut self, header: &httparse::Header<'_>) -> Result<(), &'static str> {
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        match header.name.len() {
            14 if is("content-length") && self.length != Length::Chunked => {
                self.length = Length::Known(number(header.value).ok_or("its content-length is no number")?);
            }
            17 if is("transfer-encoding") => {
                if !header.value.eq_ignore_ascii_case(b"chunked") {
                    return Err("its transfer-encoding is not chunked");
                }
                self.length = Length::Chunked;
            }
            10 if is("connection") => {
                let mut options = header.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                self.close = if self.close {
                    !options.any(|option| option.eq_ignore_ascii_case(b"keep-alive"))
                } else {
                    options.any(|option| option.eq_ignore_ascii_case(b"close"))
                };
            }
            31 if is("inference-header-content-length") => {
                let length = number(header.value).and_then(|length| usize::try_from(length).ok());
                self.json_length = Some(length.ok_or("its inference-header-content-length is no number")?);
            }
            _ => {}
        }
        Ok(())
    }
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn head(text: &str) -> Head {
        parse(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn the_end_of_a_body_is_found_as_the_head_says() {
        let known = head("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nbody");
        assert_eq!(
            (known.status, known.length, known.close, known.bytes),
            (200, Length::Known(12), false, 39)
        );
        let chunked = head("HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n");
        assert_eq!((chunked.status, chunked.length), (503, Length::Chunked));
        assert_eq!(head("HTTP/1.1 200 OK\r\n\r\n").length, Length::UntilClose);
        assert_eq!(head("HTTP/1.1 204 No\r\n\r\n").length, Length::Known(0));
        assert_eq!(head("HTTP/1.1 100 Continue\r\n\r\n").status, 100);
    }

    #[test]
    fn a_connection_is_kept_as_the_versions_of_http_say() {
        assert!(head("HTTP/1.1 200 OK\r\nConnection: foo, Close\r\n\r\n").close);
        assert!(head("HTTP/1.0 200 OK\r\n\r\n").close);
        assert!(!head("HTTP/1.0 200 OK\r\nconnection: Keep-Alive\r\n\r\n").close);
    }

    #[test]
    fn the_json_part_has_its_length() {
        let head =
            head("HTTP/1.1 200 OK\r\ninference-header-content-length: 77\r\ncontent-length: 99\r\n\r\n");
        assert_eq!(head.json_length, Some(77));
    }

    #[test]
    fn what_is_not_http_is_said() {
        assert!(parse(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n").is_err());
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\ncontent-len"), Ok(None));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
            let _ = parse(&[b"HTTP/1.1 200 OK\r\n".as_slice(), &bytes, b"\r\n\r\n"].concat());
        }
    }
}
