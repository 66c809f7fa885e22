//! Messages of gRPC as they come out of the pieces that HTTP/2 carries.

use bytes::{Bytes, BytesMut};
use h2::RecvStream;

use super::grpc::Fault;
use super::http1::broken;
use super::{Failure, MAX_ANSWER};

/// Bytes in front of each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Pieces that came, and are not a message yet.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// The usual case: the piece that holds a whole message, uncopied.
    piece: Bytes,
    /// Pieces put together.
    joined: BytesMut,
}

impl Messages {
    /// Takes what comes next; false when nothing does.
    pub(super) async fn more(&mut self, incoming: &mut RecvStream) -> Result<bool, Fault> {
        let Some(piece) = next(incoming).await? else { return Ok(false) };
        if self.piece.is_empty() && self.joined.is_empty() {
            self.piece = piece;
        } else {
            self.joined.extend_from_slice(&std::mem::take(&mut self.piece));
            self.joined.extend_from_slice(&piece);
        }
        Ok(true)
    }

    /// Whether something came that was not taken.
    pub(super) fn rest(&self) -> bool {
        !self.come().is_empty()
    }

    /// The next message, as soon as all of it has come; `None` when the call ends before.
    pub(super) async fn following(&mut self, incoming: &mut RecvStream) -> Result<Option<Bytes>, Fault> {
        loop {
            if let Some(message) = self.next()? {
                return Ok(Some(message));
            }
            if !self.more(incoming).await? {
                return Ok(None);
            }
        }
    }

    /// Passes over the next message, whatever its size; false when the call ends before its end.
    pub(super) async fn pass(&mut self, incoming: &mut RecvStream) -> Result<bool, Fault> {
        let mut left = loop {
            if let Some(length) = self.length()? {
                break PREFIX + length;
            }
            if !self.more(incoming).await? {
                return Ok(false);
            }
        };
        loop {
            left -= self.drop_first(left);
            if left == 0 {
                return Ok(true);
            }
            if !self.more(incoming).await? {
                return Ok(false);
            }
        }
    }

    /// The next message, if all of it has come.
    fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(length) = self.length()? else { return Ok(None) };
        if length > MAX_ANSWER {
            return Err(broken(format!(
                "the answer has more than {} MiB, too many to keep",
                MAX_ANSWER >> 20
            )));
        }
        let end = PREFIX + length;
        if self.come().len() < end {
            return Ok(None);
        }
        let mut message = if self.joined.is_empty() {
            self.piece.split_to(end)
        } else {
            self.joined.split_to(end).freeze()
        };
        Ok(Some(message.split_off(PREFIX)))
    }

    /// Bytes of the next message, as soon as that is known.
    fn length(&self) -> Result<Option<usize>, Failure> {
        match self.come().first_chunk::<PREFIX>() {
            None => Ok(None),
            Some([0, length @ ..]) => Ok(Some(u32::from_be_bytes(*length) as usize)),
            Some(_) => Err(broken("the answer is compressed, which was not asked for")),
        }
    }

    fn come(&self) -> &[u8] {
        if self.joined.is_empty() { &self.piece } else { &self.joined }
    }

    /// Drops at most `most` bytes that came; gives how many.
    fn drop_first(&mut self, most: usize) -> usize {
        let count = most.min(self.come().len());
        if self.joined.is_empty() {
            drop(self.piece.split_to(count));
        } else {
            drop(self.joined.split_to(count));
        }
        count
    }
}

/// What comes next, and room for as much again.
async fn next(incoming: &mut RecvStream) -> Result<Option<Bytes>, Fault> {
    let Some(piece) = incoming.data().await else { return Ok(None) };
    let piece = piece?;
    // Takes no more than there is, so it cannot fail.
    let _ = incoming.flow_control().release_capacity(piece.len());
    Ok(Some(piece))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_they_were_cut() {
        let framed = b"\0\0\0\0\x03abc\0\0\0\0\x01d";
        for cut in 0..framed.len() {
            let (first, second) = framed.split_at(cut);
            let mut messages = Messages { piece: Bytes::from_static(first), joined: BytesMut::new() };
            let mut got = Vec::new();
            while let Some(message) = messages.next().unwrap() {
                got.push(message);
            }
            messages.joined.extend_from_slice(&std::mem::take(&mut messages.piece));
            messages.joined.extend_from_slice(second);
            while let Some(message) = messages.next().unwrap() {
                got.push(message);
            }
            assert_eq!(got, ["abc", "d"], "cut at {cut}");
        }
        let length = u32::try_from(MAX_ANSWER + 1).unwrap().to_be_bytes();
        let large = Bytes::from([&[0], &length[..]].concat());
        let mut large = Messages { piece: large, ..Messages::default() };
        assert!(large.next().is_err(), "refused before it comes");
        let mut compressed = Messages { piece: Bytes::from_static(b"\x01\0\0\0\0"), ..Messages::default() };
        assert!(compressed.next().is_err());
    }
}
