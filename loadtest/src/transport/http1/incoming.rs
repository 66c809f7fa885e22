//! What comes over a connection: the buffer that it is read into, and the parts of an answer as they end.
//!
//! Nothing here grows with what a server sends, but for a body that is kept, which has a limit.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::head::{self, Head, Length};
use super::{Failure, broken, cause};

/// What a read asks for; an answer of a small model fits.
const BUFFER: usize = 16 * 1024;
/// Longer heads and lines are no answer of an inference server.
const MAX_LINE: usize = 64 * 1024;
/// What is kept of the body of an error, for its words.
const MAX_REFUSAL: usize = 64 * 1024;

/// What becomes of the bytes of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Nothing,
    /// The beginning, up to so many bytes.
    First(usize),
    /// All, which are an error when they are more.
    All(usize),
}

/// The answers of one connection.
#[derive(Debug)]
pub(super) struct Incoming {
    buffer: Vec<u8>,
    /// How much of the buffer came from the connection.
    filled: usize,
    /// Where in the buffer the next byte to look at is.
    at: usize,
    /// Whether a byte of the current answer has come.
    began: bool,
    body: Vec<u8>,
}

/// How an answer did not come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The connection ended before the first byte of it.
    Unanswered,
    Failure(Failure),
}

impl From<Failure> for Lost {
    fn from(failure: Failure) -> Lost {
        Lost::Failure(failure)
    }
}

impl Incoming {
    pub(super) fn new() -> Incoming {
        Incoming { buffer: vec![0; BUFFER], filled: 0, at: 0, began: false, body: Vec::new() }
    }

    /// What was kept of the last answer's body.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Reads a whole answer; keeps its body, of at most `limit` bytes, when there is one.
    pub(super) async fn answer(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        limit: Option<usize>,
    ) -> Result<Head, Lost> {
        (self.filled, self.at, self.began) = (0, 0, false);
        self.body.clear();
        let mut head = self.head(stream).await?;
        let keep = match (limit, head.status) {
            (_, 300..) => Keep::First(MAX_REFUSAL),
            (Some(limit), _) => Keep::All(limit),
            (None, _) => Keep::Nothing,
        };
        match head.length {
            Length::Known(length) => self.take(stream, length, keep).await?,
            Length::Chunked => self.chunks(stream, keep).await?,
            Length::UntilClose => {
                head.close = true;
                while self.at < self.filled || self.more(stream).await? {
                    self.consume(usize::MAX, keep)?;
                }
            }
        }
        // Bytes that nobody asked for make what follows unreadable.
        head.close |= self.at < self.filled;
        Ok(head)
    }

    /// Reads the head of the answer, and passes over interim ones.
    async fn head(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<Head, Lost> {
        loop {
            let parsed = head::parse(&self.buffer[self.at..self.filled]).map_err(broken)?;
            if let Some(head) = parsed {
                self.at += head.bytes;
                if head.status >= 200 {
                    return Ok(head);
                }
                continue;
            }
            // Only the end of a line can complete it: it is not parsed again for every byte that comes.
            loop {
                let seen = self.filled - self.at;
                if !self.more(stream).await? {
                    let middle = || broken("the connection was closed in the middle of an answer");
                    return Err(if self.began { middle().into() } else { Lost::Unanswered });
                }
                if seen == 0 || self.buffer[self.at + seen..self.filled].contains(&b'\n') {
                    break;
                }
            }
        }
    }

    /// Takes `length` bytes of the body.
    async fn take(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        length: u64,
        keep: Keep,
    ) -> Result<(), Failure> {
        let mut left = length;
        loop {
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            left -= self.consume(most, keep)? as u64;
            if left == 0 {
                return Ok(());
            }
            self.some(stream).await?;
        }
    }

    async fn chunks(&mut self, stream: &mut (impl AsyncRead + Unpin), keep: Keep) -> Result<(), Failure> {
        loop {
            let line = self.line(stream).await?;
            let parsed = httparse::parse_chunk_size(&self.buffer[self.at..self.at + line]);
            let Ok(httparse::Status::Complete((_, size))) = parsed else {
                return Err(broken("the answer has a chunk without a size"));
            };
            self.at += line;
            if size == 0 {
                return self.trailers(stream).await;
            }
            self.take(stream, size, keep).await?;
            // The line break after the chunk is none of the body.
            self.take(stream, 2, Keep::Nothing).await?;
        }
    }

    /// Passes over what may follow the last chunk: lines up to an empty one.
    async fn trailers(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<(), Failure> {
        let mut passed = 0;
        loop {
            let line = self.line(stream).await?;
            let last = matches!(&self.buffer[self.at..self.at + line], b"\r\n" | b"\n");
            self.at += line;
            if last {
                return Ok(());
            }
            passed += line;
            if passed > MAX_LINE {
                return Err(broken("the trailers of the answer have more than 64 KiB"));
            }
        }
    }

    /// Bytes of the line that comes next, with its end; it is whole in the buffer then.
    async fn line(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<usize, Failure> {
        let mut looked_at = 0;
        loop {
            let rest = &self.buffer[self.at..self.filled];
            if let Some(end) = rest[looked_at..].iter().position(|byte| *byte == b'\n') {
                return Ok(looked_at + end + 1);
            }
            looked_at = rest.len();
            self.some(stream).await?;
        }
    }

    /// Takes at most `most` bytes of a body that are in the buffer.
    fn consume(&mut self, most: usize, keep: Keep) -> Result<usize, Failure> {
        let length = most.min(self.filled - self.at);
        let kept = match keep {
            Keep::Nothing => 0,
            Keep::First(limit) => length.min(limit.saturating_sub(self.body.len())),
            Keep::All(limit) if self.body.len() + length > limit => {
                let limit = limit >> 20;
                return Err(broken(format!("the answer has more than {limit} MiB, too many to compare")));
            }
            Keep::All(_) => length,
        };
        if kept > 0 {
            self.body.extend_from_slice(&self.buffer[self.at..self.at + kept]);
        }
        self.at += length;
        Ok(length)
    }

    /// Reads what comes next; a connection that ends here is broken.
    async fn some(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<(), Failure> {
        if self.more(stream).await? {
            return Ok(());
        }
        Err(broken("the connection was closed in the middle of an answer"))
    }

    /// Reads what comes next; false when nothing does. What was not looked at yet stays from `at` on.
    async fn more(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<bool, Failure> {
        if self.at == self.filled {
            (self.at, self.filled) = (0, 0);
        } else if self.filled == self.buffer.len() {
            self.make_room()?;
        }
        match stream.read(&mut self.buffer[self.filled..]).await {
            Ok(read) => {
                self.filled += read;
                self.began |= read > 0;
                Ok(read > 0)
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !self.began => Ok(false),
            Err(error) => Err(broken(format!("the connection broke: {}", cause(&error)))),
        }
    }

    /// Lets go of what was looked at; only a line that fills the buffer alone makes it grow.
    #[cold]
    fn make_room(&mut self) -> Result<(), Failure> {
        if self.at > 0 {
            self.buffer.copy_within(self.at..self.filled, 0);
            (self.at, self.filled) = (0, self.filled - self.at);
            return Ok(());
        }
        if self.buffer.len() >= MAX_LINE {
            return Err(broken("the head of the answer, or a line of it, has more than 64 KiB"));
        }
        self.buffer.resize(self.buffer.len() * 2, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
