//! Server-sent events as they come: bytes in, frames out. It knows no connection.

use crate::ClientError;

/// A frame of more bytes is no event of a repository.
const LONGEST: usize = 1 << 20;

/// One frame: what stands between two blank lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Frame {
    /// What kind of event it is; empty when it does not say.
    pub(super) event: String,
    /// Its number, where it has one.
    pub(super) id: Option<String>,
    /// Its lines of data.
    pub(super) data: String,
}

/// Puts frames together.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// What came and is no whole line yet.
    rest: Vec<u8>,
    /// Where in it a line's end is looked for next, so that a long line is looked at once.
    looked_at: usize,
    frame: Frame,
    /// Whether a field of the frame has come.
    begun: bool,
}

impl Frames {
    /// Takes what came.
    ///
    /// # Errors
    /// When a frame becomes too long to be one.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.rest.extend_from_slice(bytes);
        let held = self.rest.len() - bytes.len() + self.frame.data.len();
        if held > LONGEST {
            return Err(ClientError::protocol(format!("an event has more than {LONGEST} bytes")));
        }
        Ok(())
    }

    /// The next whole frame, if it has come.
    pub(super) fn next(&mut self) -> Option<Frame> {
        while let Some(line) = self.line() {
            if !line.is_empty() {
                self.field(&line);
            } else if std::mem::take(&mut self.begun) {
                return Some(std::mem::take(&mut self.frame));
            }
        }
        None
    }

    fn line(&mut self) -> Option<String> {
        let Some(length) = self.rest[self.looked_at..].iter().position(|byte| *byte == b'\n') else {
            self.looked_at = self.rest.len();
            return None;
        };
        let line: Vec<u8> = self.rest.drain(..=self.looked_at + length).collect();
        self.looked_at = 0;
        let line = String::from_utf8_lossy(&line);
        Some(line.trim_end_matches(['\n', '\r']).to_owned())
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.frame.event),
            "id" => self.frame.id = Some(value.to_owned()),
            "data" => {
                if !self.frame.data.is_empty() {
                    self.frame.data.push('\n');
                }
                self.frame.data.push_str(value);
            }
            _ => return, // a comment, or when to come back
        }
        self.begun = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(frames: &mut Frames) -> Vec<Frame> {
        std::iter::from_fn(|| frames.next()).collect()
    }

    fn frame(event: &str, id: Option<&str>, data: &str) -> Frame {
        Frame { event: event.to_owned(), id: id.map(str::to_owned), data: data.to_owned() }
    }

    const TEXT: &str = "retry: 1000\nid: 6\n\n:\n\nid: 7\nevent: version\ndata: {\"a\":\ndata: 1}\n\n\
                        event:missed\r\ndata: \r\n\r\ndata: é\n\nid: 8\n";

    fn expected() -> [Frame; 4] {
        [
            frame("", Some("6"), ""),
            frame("version", Some("7"), "{\"a\":\n1}"),
            frame("missed", None, ""),
            frame("", None, "é"),
        ]
    }

    #[test]
    fn what_is_not_whole_is_held_until_it_is() {
        let mut frames = Frames::default();
        frames.push(TEXT.as_bytes()).unwrap();
        assert_eq!(all(&mut frames), expected());
        frames.push(b"data: x\n\n").unwrap();
        assert_eq!(all(&mut frames), [frame("", Some("8"), "x")]);
    }

    #[test]
    fn a_frame_without_end_is_refused() {
        let mut frames = Frames::default();
        let piece = [b'x'; 1 << 16];
        let refused = (0..100).position(|_| {
            let pushed = frames.push(&piece);
            assert_eq!(frames.next(), None);
            pushed.is_err()
        });
        assert_eq!(refused, Some(LONGEST / piece.len() + 1));
        let mut frames = Frames::default();
        let line = [b"data: ", &piece[..], b"\n"].concat();
        assert!((0..100).any(|_| {
            let pushed = frames.push(&line);
            assert_eq!(frames.next(), None);
            pushed.is_err()
        }));
    }

    proptest! {
        #[test]
        fn where_it_is_cut_changes_nothing(cuts in prop::collection::vec(0..TEXT.len(), 0..8)) {
            let mut cuts = cuts;
            cuts.extend([0, TEXT.len()]);
            cuts.sort_unstable();
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            for ends in cuts.windows(2) {
                frames.push(&TEXT.as_bytes()[ends[0]..ends[1]]).unwrap();
                got.extend(all(&mut frames));
            }
            prop_assert_eq!(got, expected());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut frames = Frames::default();
            frames.push(&bytes).unwrap();
            all(&mut frames);
        }
    }
}
