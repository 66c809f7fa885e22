//! Which form of compression a client wants for its answer, and compressing it.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderValue};
use smallvec::SmallVec;

use super::answer::{Answer, Chunks};
use super::body::Encoding;

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

/// `answer` with its body compressed.
pub(super) async fn compress(answer: Answer, encoding: Encoding) -> Answer {
    let (mut parts, chunks) = answer.into_parts();
    let large = chunks.len() > INLINE;
    let deflated = if large {
        tokio::task::spawn_blocking(move || deflate(&chunks, encoding)).await.unwrap_or_default()
    } else {
        deflate(&chunks, encoding)
    };
    let name = match encoding {
        Encoding::Gzip => "gzip",
        Encoding::Deflate => "deflate",
    };
    parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    parts.headers.remove(CONTENT_LENGTH);
    Answer::from_parts(parts, Chunks::new(SmallVec::from_iter([Bytes::from(deflated)])))
}

fn deflate(chunks: &Chunks, encoding: Encoding) -> Vec<u8> {
    let pieces = chunks.pieces();
    let deflated = match encoding {
        Encoding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            pieces.iter().try_for_each(|piece| encoder.write_all(piece)).and_then(|()| encoder.finish())
        }
        Encoding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            pieces.iter().try_for_each(|piece| encoder.write_all(piece)).and_then(|()| encoder.finish())
        }
    };
    deflated.expect("writing to memory does not fail")
}

#[cfg(test)]
mod tests {
    use super::*;

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
