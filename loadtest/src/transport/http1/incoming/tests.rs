//! Answers in pieces: what is read of them, and what is refused.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::ReadBuf;

use super::*;

/// A connection that brings `head`, then `again` without end, in pieces of at most `piece` bytes.
struct Endless {
    head: &'static [u8],
    again: &'static [u8],
    at: usize,
    piece: usize,
}

impl AsyncRead for Endless {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        for _ in 0..self.piece.min(buf.remaining()) {
            let past = self.at.checked_sub(self.head.len());
            let byte = past.map_or_else(|| self.head[self.at], |past| self.again[past % self.again.len()]);
            buf.put_slice(&[byte]);
            self.at += 1;
        }
        Poll::Ready(Ok(()))
    }
}

async fn endless(head: &'static [u8], again: &'static [u8], piece: usize) -> (Lost, Incoming) {
    let mut incoming = Incoming::new();
    let mut stream = Endless { head, again, at: 0, piece };
    let lost = incoming.answer(&mut stream, Some(1 << 20)).await.unwrap_err();
    (lost, incoming)
}

#[tokio::test]
async fn whatever_never_ends_is_refused_in_little_memory() {
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    const LAST: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n";
    for (head, again, words) in [
        (b"HTTP/1.1 200 OK\r\nx: ".as_slice(), b"y".as_slice(), "64 KiB"),
        (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n", "not HTTP"),
        (CHUNKED, b"1;ext", "64 KiB"),
        (LAST, b"x", "64 KiB"),
        (LAST, b"x: y\r\n", "64 KiB"),
        (CHUNKED, b"4\r\nabcd\r\n", "more than 1 MiB"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x", "more than 1 MiB"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\n", b"x", "more than 1 MiB"),
    ] {
        for piece in [7, 5000, 1 << 20] {
            let (lost, incoming) = endless(head, again, piece).await;
            let Lost::Failure(Failure::Broken(text)) = lost else { panic!("{lost:?}") };
            assert!(text.contains(words), "{text}");
            assert!(incoming.buffer.capacity() <= MAX_LINE && incoming.body.capacity() <= 2 << 20);
        }
    }
}

/// What came before a partial line is let go of, so that the buffer does not grow for it.
#[tokio::test]
async fn a_partial_line_at_the_end_of_the_buffer_does_not_make_it_grow() {
    let mut text = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..20_000 {
        text.extend_from_slice(b"3;x=1\r\nabc\r\n");
    }
    text.extend_from_slice(b"0\r\n\r\n");
    let mut incoming = Incoming::new();
    incoming.answer(&mut &text[..], Some(1 << 20)).await.unwrap();
    assert_eq!((incoming.buffer.len(), incoming.body()), (BUFFER, &b"abc".repeat(20_000)[..]));
}

#[tokio::test]
async fn an_answer_is_the_same_however_it_is_cut() {
    let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
        2\r\nab\r\n3;x\r\ncde\r\n0\r\nt: 1\r\n\r\n";
    for piece in 1..text.len() {
        let mut incoming = Incoming::new();
        let (mut writer, mut reader) = tokio::io::duplex(piece);
        let write = tokio::io::AsyncWriteExt::write_all(&mut writer, text);
        let (written, head) = tokio::join!(write, incoming.answer(&mut reader, Some(100)));
        written.unwrap();
        assert_eq!((head.unwrap().status, incoming.body()), (200, b"abcde".as_slice()), "{piece}");
    }
}

#[tokio::test]
async fn the_end_before_an_answer_is_told_from_one_in_its_middle() {
    let answer = |text: &'static [u8]| async move { Incoming::new().answer(&mut &text[..], None).await };
    assert_eq!(answer(b"").await, Err(Lost::Unanswered));
    let middle = Lost::Failure(broken("the connection was closed in the middle of an answer"));
    assert_eq!(answer(b"HTTP/1.1 2").await, Err(middle));
}
