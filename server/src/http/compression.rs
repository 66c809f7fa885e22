//! Which form of compression a client wants for its answer, and compressing it.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue};
use smallvec::SmallVec;
use tracing::error;

use super::answer::{Answer, Chunks};
use super::body::Encoding;
use crate::blocking;

/// The encoding of highest weight among those listed in `Accept-Encoding`, the first listed when several
/// are equal; `None` is identity.
pub(super) fn wanted(headers: &HeaderMap) -> Option<Encoding> {
    let listed = headers.get(ACCEPT_ENCODING)?.to_str().ok()?;
    let (mut best, mut best_weight) = (None, 0.0);
    for item in listed.split(',') {
        let mut parts = item.split(';').map(str::trim);
        let encoding = match parts.next().unwrap_or_default() {
            name if name.eq_ignore_ascii_case("gzip") => Some(Encoding::Gzip),
            name if name.eq_ignore_ascii_case("deflate") => Some(Encoding::Deflate),
            name if name.eq_ignore_ascii_case("identity") => None,
            _ => continue,
        };
        let weight =
            parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |weight| weight.parse().ok());
        let weight: f32 = weight.unwrap_or(0.0);
        if weight > best_weight {
            (best, best_weight) = (encoding, weight);
        }
    }
    best
}

/// Larger bodies are compressed on a thread of their own.
const INLINE: u64 = 64 << 10;

/// `answer` with its body compressed; as it is when that fails.
pub(super) async fn compress(answer: Answer, encoding: Encoding) -> Answer {
    let deflated = if answer.body().len() > INLINE {
        let pieces = answer.body().pieces().to_vec();
        blocking::run("compressing an answer", move || deflate(&pieces, encoding)).await
    } else {
        Ok(deflate(answer.body().pieces(), encoding))
    };
    match deflated {
        Ok(Ok(deflated)) => with_body(answer, encoding, deflated),
        Ok(Err(error)) => uncompressed(answer, &error),
        Err(error) => uncompressed(answer, &error),
    }
}

fn with_body(answer: Answer, encoding: Encoding, deflated: Vec<u8>) -> Answer {
    let mut answer = answer.map(|_| Chunks::new(SmallVec::from_iter([Bytes::from(deflated)])));
    let name = match encoding {
        Encoding::Gzip => "gzip",
        Encoding::Deflate => "deflate",
    };
    let headers = answer.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    headers.remove(CONTENT_LENGTH);
    answer
}

/// The client asked for less to be sent, not for nothing.
fn uncompressed(answer: Answer, error: &dyn std::error::Error) -> Answer {
    error!(%error, "an answer is sent uncompressed");
    answer
}

fn deflate(pieces: &[Bytes], encoding: Encoding) -> io::Result<Vec<u8>> {
    match encoding {
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            pieces.iter().try_for_each(|piece| encoder.write_all(piece)).and_then(|()| encoder.finish())
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            pieces.iter().try_for_each(|piece| encoder.write_all(piece)).and_then(|()| encoder.finish())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::MultiGzDecoder;

    use super::*;

    #[tokio::test]
    async fn a_large_answer_is_compressed_whole() {
        let text: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let (half, rest) = text.split_at(100_000);
        let chunks = [half, rest].map(Bytes::copy_from_slice);
        let answer = Answer::new(Chunks::new(SmallVec::from_iter(chunks)));
        let answer = compress(answer, Encoding::Gzip).await;
        assert_eq!(answer.headers()[CONTENT_ENCODING], "gzip");
        let mut read = Vec::new();
        MultiGzDecoder::new(&*answer.body().pieces()[0]).read_to_end(&mut read).unwrap();
        assert!(read == text, "{} bytes came back of {}", read.len(), text.len());
    }

    #[test]
    fn an_answer_that_cannot_be_compressed_is_sent_as_it_is() {
        let answer = Answer::new(Chunks::new(SmallVec::from_iter([Bytes::from("whole")])));
        let fault = model::InferError::ServerFault { what: "compressing an answer" };
        let answer = uncompressed(answer, &fault);
        assert_eq!(answer.body().pieces(), ["whole"]);
        assert_eq!(answer.headers().get(CONTENT_ENCODING), None);
    }

    #[track_caller]
    fn check(header: &str, expected: Option<Encoding>) {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT_ENCODING, header.parse().unwrap());
        assert_eq!(wanted(&headers), expected, "{header:?}");
    }

    #[test]
    fn the_highest_weight_wins_and_the_first_of_equals() {
        check("gzip, deflate", Some(Encoding::Gzip));
        check("deflate, gzip", Some(Encoding::Deflate));
        check("gzip;q=0.5, deflate;q=0.8", Some(Encoding::Deflate));
        check("identity, gzip", None);
        check("identity;q=0.5, GZIP ; q=0.9", Some(Encoding::Gzip));
        check("gzip;q=0", None);
        check("br, zstd", None);
        check("gzip;q=high", None);
        check("", None);
        assert_eq!(wanted(&HeaderMap::new()), None);
    }
}
