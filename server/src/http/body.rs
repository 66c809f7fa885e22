//! Reads the body of a request: within a limit, within a time, and where tensors can be used in place.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use futures_util::FutureExt;
use http_body::Body;
use http_body_util::BodyExt;
use model::InferError;

use crate::blocking;
use crate::request_memory::Held;
use crate::size_limit::{PROGRESS, SizeLimit};

/// What a body may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimits {
    /// Bytes, as sent and decompressed.
    pub(super) size: SizeLimit,
    /// How long the body may take; every [`PROGRESS`] bytes earn as much again.
    pub(super) time: Duration,
}

/// Tensors start at multiples of this, so that ONNX Runtime can use them where they are.
const ALIGNMENT: usize = 64;

/// Room that is made for a body before it comes; beyond, it grows with what has come. Larger blocks of memory
/// begin at aligned addresses, too.
const AHEAD: usize = 1 << 20;

/// Reads `body` whole. `header_length` is the length of the JSON that binary tensors follow: the first of
/// them is placed at an aligned address. `held` counts what it takes.
pub(super) async fn read<B>(
    mut body: B,
    header_length: Option<usize>,
    limits: BodyLimits,
    held: &Held,
) -> Result<Bytes, InferError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let announced = body.size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if let Some(length) = announced.filter(|length| *length > limits.size.bytes) {
        return Err(limits.size.exceeded(format!("a request body of {length} bytes")));
    }
    let started = Instant::now();
    let mut whole: Vec<u8> = Vec::new();
    let mut padding = 0;
    while let Some(data) = next_data(&mut body, started, whole.len() - padding, limits).await? {
        held.grow(data.len())?;
        if whole.is_empty() {
            if announced == Some(data.len()) || body.is_end_stream() {
                return within(data, limits.size);
            }
            let expected = announced.unwrap_or(data.len() * 2).min(AHEAD);
            whole.reserve_exact(expected + ALIGNMENT);
            let tensors = whole.as_ptr().addr() + header_length.unwrap_or(0);
            padding = tensors.next_multiple_of(ALIGNMENT) - tensors;
            whole.resize(padding, 0);
        }
        whole.extend_from_slice(&data);
        if whole.len() - padding > limits.size.bytes {
            return Err(limits.size.exceeded("the request body"));
        }
    }
    Ok(Bytes::from(whole).slice(padding..))
}

fn within(data: Bytes, limit: SizeLimit) -> Result<Bytes, InferError> {
    if data.len() > limit.bytes {
        return Err(limit.exceeded(format!("a request body of {} bytes", data.len())));
    }
    Ok(data)
}

async fn next_data<B>(
    body: &mut B,
    started: Instant,
    received: usize,
    limits: BodyLimits,
) -> Result<Option<Bytes>, InferError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    loop {
        let frame = match body.frame().now_or_never() {
            Some(frame) => frame,
            None => {
                let earned = u32::try_from(received / PROGRESS).unwrap_or(u32::MAX).saturating_add(1);
                let deadline = started + limits.time.saturating_mul(earned);
                let late = |_| InferError::BodyTimeout { waited: limits.time, received };
                tokio::time::timeout_at(deadline.into(), body.frame()).await.map_err(late)?
            }
        };
        match frame {
            None => return Ok(None),
            Some(Err(error)) => {
                return Err(InferError::invalid(format!(
                    "the request body broke off after {received} bytes: {error}"
                )));
            }
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// Reads `body` and forgets it; tells whether it came to its end within the limits. Nothing is earned by what has
/// come: each [`PROGRESS`] bytes may take the time, so that whoever stops sending is answered soon.
pub(super) async fn discard<B>(mut body: B, limits: BodyLimits) -> bool
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let (mut started, mut since, mut received) = (Instant::now(), 0, 0);
    while received <= limits.size.bytes {
        match next_data(&mut body, started, since, limits).await {
            Ok(Some(data)) => (since, received) = (since + data.len(), received + data.len()),
            Ok(None) => return true,
            Err(_) => return false,
        }
        if since >= PROGRESS {
            (started, since) = (Instant::now(), 0);
        }
    }
    false
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, as the name "deflate" means in HTTP; RFC 1951 without its wrapper is taken, too.
    Deflate,
}

/// More compressed bytes than this are decompressed on a thread of their own.
const INLINE: usize = 4 << 10;

/// Decompresses `body`, which may not become larger than the limit.
pub(super) async fn decompress(
    body: Bytes,
    encoding: Encoding,
    limits: BodyLimits,
    held: &Held,
) -> Result<Bytes, InferError> {
    let inflated = if body.len() <= INLINE {
        inflate(&body, encoding, limits.size)?
    } else {
        blocking::run("decompressing the request", move || inflate(&body, encoding, limits.size)).await??
    };
    held.grow(inflated.len())?;
    Ok(inflated)
}

fn inflate(body: &[u8], encoding: Encoding, limit: SizeLimit) -> Result<Bytes, InferError> {
    // One byte more than allowed, to tell a full body from one that goes on.
    let most = limit.bytes.saturating_add(1);
    let inflated = match encoding {
        Encoding::Gzip => read_up_to(most, MultiGzDecoder::new(body)),
        Encoding::Deflate if has_zlib_header(body) => read_up_to(most, ZlibDecoder::new(body)),
        Encoding::Deflate => read_up_to(most, DeflateDecoder::new(body)),
    };
    match inflated {
        Err(error) => {
            Err(InferError::invalid(format!("the request body is not valid {encoding:?} data: {error}")))
        }
        Ok(inflated) if inflated.len() > limit.bytes => Err(limit.exceeded("the decompressed request body")),
        Ok(inflated) => Ok(inflated.into()),
    }
}

/// Reads at most `most` bytes. The buffer doubles as it fills, but never beyond `most`, so that a body just
/// over its limit does not take twice as much.
fn read_up_to(most: usize, mut reader: impl Read) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    loop {
        let room = read.len().max(INLINE).min(most - read.len());
        read.reserve_exact(room);
        let got = reader.by_ref().take(room as u64).read_to_end(&mut read)?;
        if got < room || read.len() == most {
            return Ok(read);
        }
    }
}

/// RFC 1950 §2.2: the method is 8, and the first two bytes are a multiple of 31.
fn has_zlib_header(body: &[u8]) -> bool {
    matches!(body, [first, second, ..] if first & 0x0f == 8 && (u16::from(*first) << 8 | u16::from(*second)) % 31 == 0)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::io::Write;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http_body::{Frame, SizeHint};

    use super::*;
    use crate::request_memory::RequestMemory;

    const LIMITS: BodyLimits = BodyLimits { size: size(1000), time: Duration::from_secs(5) };

    fn held() -> Held {
        RequestMemory::new(1 << 30).hold()
    }

    const fn size(bytes: usize) -> SizeLimit {
        SizeLimit::of_inference(bytes)
    }

    /// Gives its parts one by one, then ends or stalls.
    struct Parts {
        parts: VecDeque<Vec<u8>>,
        length: Option<u64>,
        stalls: bool,
    }

    impl Body for Parts {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.parts.pop_front() {
                Some(part) => Poll::Ready(Some(Ok(Frame::data(part.into())))),
                None if self.stalls => Poll::Pending,
                None => Poll::Ready(None),
            }
        }

        fn size_hint(&self) -> SizeHint {
            self.length.map(SizeHint::with_exact).unwrap_or_default()
        }
    }

    fn parts(parts: &[&[u8]], length: Option<u64>) -> Parts {
        Parts { parts: parts.iter().map(|part| part.to_vec()).collect(), length, stalls: false }
    }

    #[tokio::test]
    async fn parts_become_one_with_tensors_aligned() {
        let body =
            read(parts(&[b"{js", b"on}ten", b"sor"], Some(12)), Some(6), LIMITS, &held()).await.unwrap();
        assert_eq!(&body[..], b"{json}tensor");
        assert_eq!(body[6..].as_ptr().addr() % ALIGNMENT, 0);
        assert_eq!(read(parts(&[], Some(0)), None, LIMITS, &held()).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_announced_or_not() {
        let announced = read(parts(&[], Some(1001)), None, LIMITS, &held()).await.unwrap_err();
        assert!(announced.to_string().contains("1001 bytes exceeds the maximum allowed input size of 1000"));
        let chunks = [&[0_u8; 600][..], &[0; 600]];
        assert!(matches!(
            read(parts(&chunks, None), None, LIMITS, &held()).await,
            Err(InferError::TooLarge { .. })
        ));
        assert!(matches!(
            read(parts(&[&[0; 1001]], None), None, LIMITS, &held()).await,
            Err(InferError::TooLarge { .. })
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_sending_is_told_what_came() {
        let body = Parts { parts: [vec![0; 10]].into(), length: Some(20), stalls: true };
        let error = read(body, None, LIMITS, &held()).await.unwrap_err();
        assert_eq!(error, InferError::BodyTimeout { waited: LIMITS.time, received: 10 });
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_sending_what_is_forgotten_is_not_waited_for_because_much_has_come() {
        let body = |stalls| Parts { parts: vec![vec![0; PROGRESS]; 100].into(), length: None, stalls };
        let limits = BodyLimits { size: size(1 << 30), ..LIMITS };
        assert!(discard(body(false), limits).await);
        let begun = tokio::time::Instant::now();
        assert!(!discard(body(true), limits).await);
        assert!(begun.elapsed() <= limits.time + Duration::from_secs(1), "{:?}", begun.elapsed());
    }

    #[test]
    fn every_form_of_compression_is_undone() {
        let text = b"compressible compressible compressible".as_slice();
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(text).unwrap();
        zlib.write_all(text).unwrap();
        raw.write_all(text).unwrap();
        assert_eq!(inflate(&gzip.finish().unwrap(), Encoding::Gzip, size(1000)).unwrap(), text);
        assert_eq!(inflate(&zlib.finish().unwrap(), Encoding::Deflate, size(1000)).unwrap(), text);
        assert_eq!(inflate(&raw.finish().unwrap(), Encoding::Deflate, size(1000)).unwrap(), text);
    }

    #[test]
    fn a_bomb_is_defused_and_garbage_is_named() {
        let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
        bomb.write_all(&vec![0; 10 << 20]).unwrap();
        let bomb = bomb.finish().unwrap();
        assert!(matches!(inflate(&bomb, Encoding::Gzip, size(1 << 20)), Err(InferError::TooLarge { .. })));
        assert!(inflate(&bomb, Encoding::Gzip, size(10 << 20)).is_ok(), "exactly the limit is allowed");
        let garbage = inflate(b"garbage", Encoding::Gzip, size(1000)).unwrap_err();
        assert!(garbage.to_string().contains("not valid Gzip data"), "{garbage}");
    }
}
