//! Errors counted by what happened: each status with the texts that came with it, in bounded room.
//!
//! A server may say anything, such as the number of the request it refuses: then texts differ without end, and what
//! counts is the status before them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What texts begin with, up to the first colon, that is told apart.
const MAX_STATUSES: usize = 50;
/// Texts of a status that are told apart while they are counted, the first that come.
const MAX_TEXTS: usize = 100;
/// Bytes of a text.
const MAX_TEXT: usize = 1024;
/// A status with more texts than this is told by those that have at least a tenth of its errors, and one example of
/// the others.
const FEW_TEXTS: usize = 4;
/// Kinds that are told; the rarest are told together.
const MAX_KINDS: usize = 20;
const OTHERS: &str = "other errors";

/// Counts of errors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Errors {
    statuses: BTreeMap<String, Texts>,
}

/// The texts of one status.
#[derive(Clone, Debug, Default)]
struct Texts {
    counts: BTreeMap<String, u64>,
    /// Errors with texts beyond those that are told apart.
    more: u64,
}

impl Errors {
    /// Counts one error with `text`: a status, a colon, and what was said.
    pub(crate) fn count(&mut self, mut text: String) {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        self.add(text, 1);
    }

    /// Counts those of `other`, too.
    pub(crate) fn merge(&mut self, other: &Errors) {
        for (status, texts) in &other.statuses {
            texts.counts.iter().for_each(|(text, count)| self.add(text.clone(), *count));
            if texts.more > 0 {
                self.texts(status).more += texts.more;
            }
        }
    }

    fn add(&mut self, text: String, count: u64) {
        let texts = self.texts(status(&text));
        if texts.counts.len() < MAX_TEXTS || texts.counts.contains_key(&text) {
            *texts.counts.entry(text).or_default() += count;
        } else {
            texts.more += count;
        }
    }

    fn texts(&mut self, status: &str) -> &mut Texts {
        let known = self.statuses.len() < MAX_STATUSES || self.statuses.contains_key(status);
        self.statuses.entry(if known { status } else { OTHERS }.to_owned()).or_default()
    }

    /// The kinds of errors as people read them, with their counts, at most 20.
    pub(crate) fn told(&self) -> BTreeMap<String, u64> {
        let mut kinds: Vec<(String, u64)> =
            self.statuses.iter().flat_map(|(status, texts)| texts.told(status)).collect();
        kinds.sort_by_key(|(_, count)| Reverse(*count));
        let rest =
            kinds.split_off(kinds.len().min(if kinds.len() > MAX_KINDS { MAX_KINDS - 1 } else { MAX_KINDS }));
        let mut told: BTreeMap<String, u64> = BTreeMap::new();
        let rest = rest.into_iter().map(|(_, count)| (OTHERS.to_owned(), count));
        kinds.into_iter().chain(rest).for_each(|(kind, count)| *told.entry(kind).or_default() += count);
        told
    }
}

impl Texts {
    fn told(&self, status: &str) -> Vec<(String, u64)> {
        let mut texts: Vec<(&String, u64)> = self.counts.iter().map(|(text, count)| (text, *count)).collect();
        texts.sort_by_key(|(_, count)| Reverse(*count));
        let few = texts.len() <= FEW_TEXTS && self.more == 0;
        let all = self.more + texts.iter().map(|(_, count)| count).sum::<u64>();
        let apart = if few { texts.len() } else { texts.partition_point(|(_, count)| 10 * count >= all) };
        let others = texts.split_off(apart);
        let mut told: Vec<(String, u64)> =
            texts.into_iter().map(|(text, count)| (text.clone(), count)).collect();
        if let Some((example, _)) = others.first() {
            let said = example.strip_prefix(status).unwrap_or(example).trim_start_matches([':', ' ']);
            let count = self.more + others.iter().map(|(_, count)| count).sum::<u64>();
            told.push((format!("{status}, texts that differ, such as: {said}"), count));
        } else if self.more > 0 {
            told.push((format!("{status}, other texts"), self.more));
        }
        told
    }
}

/// What `text` begins with, up to its first colon: `status 503`, `status UNAVAILABLE`, `timeout`.
fn status(text: &str) -> &str {
    text.split(':').next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(texts: impl IntoIterator<Item = String>) -> Errors {
        let mut errors = Errors::default();
        texts.into_iter().for_each(|text| errors.count(text));
        errors
    }

    fn told(errors: &Errors) -> Vec<(String, u64)> {
        errors.told().into_iter().collect()
    }

    fn of_request(number: u64) -> String {
        format!("status 503: request {number} was refused")
    }

    #[test]
    fn few_texts_of_a_status_are_told_apart() {
        let texts = ["status 503: full", "status 503: loading", "timeout", "status 503: full"];
        let expected = [("status 503: full", 2), ("status 503: loading", 1), ("timeout", 1)];
        let expected = expected.map(|(text, count)| (text.to_owned(), count));
        assert_eq!(told(&errors(texts.map(str::to_owned))), expected);
    }

    /// Each refusal names its request, and one has no text of that kind.
    #[test]
    fn texts_without_end_are_one_kind() {
        let texts = (0..5_000).map(of_request).chain(["status 500: broke".to_owned()]);
        assert_eq!(
            told(&errors(texts)),
            [
                ("status 500: broke".to_owned(), 1),
                ("status 503, texts that differ, such as: request 0 was refused".to_owned(), 5_000)
            ]
        );
    }

    #[test]
    fn what_is_frequent_among_them_stays_apart() {
        let texts = (0..100).map(|_| "status 503: full".to_owned()).chain((0..900).map(of_request));
        assert_eq!(
            told(&errors(texts)),
            [
                ("status 503, texts that differ, such as: request 0 was refused".to_owned(), 900),
                ("status 503: full".to_owned(), 100)
            ]
        );
    }

    #[test]
    fn threads_are_put_together_and_nothing_is_lost() {
        let mut sum = errors((0..300).map(of_request));
        sum.merge(&errors((200..1_000).map(of_request)));
        sum.merge(&errors(["timeout".to_owned()]));
        let told = sum.told();
        assert_eq!((told.len(), told.values().sum::<u64>(), told["timeout"]), (2, 1_101, 1));
    }

    #[test]
    fn statuses_and_kinds_are_bounded() {
        let many = errors((0..2 * MAX_STATUSES).map(|kind| format!("kind {kind:04}")));
        assert_eq!(many.statuses.len(), MAX_STATUSES + 1);
        let told = many.told();
        assert_eq!((told.len(), told.values().sum::<u64>()), (MAX_KINDS, 2 * MAX_STATUSES as u64));
        assert_eq!(errors((0..30).map(|kind| format!("kind {kind:02}"))).told()[OTHERS], 11);
    }

    #[test]
    fn what_a_server_says_is_cut() {
        let text = "é".repeat(MAX_TEXT);
        assert_eq!(told(&errors([text])), [("é".repeat(MAX_TEXT / 2), 1)]);
    }
}
