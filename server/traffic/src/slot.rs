//! From who asks to one of ten thousand slots, without state: the same on every replica and after every restart.

use std::fmt;

use md5::{Digest, Md5};
use smol_str::SmolStr;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Slots that all callers of a model are divided among: a slot is a hundredth of a percent of them.
pub const SLOTS: u16 = 10_000;

/// One of [`SLOTS`], counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

impl Slot {
    /// The slot `number`; `None` from [`SLOTS`] on.
    pub const fn new(number: u16) -> Option<Slot> {
        if number < SLOTS { Some(Slot(number)) } else { None }
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The slot that a number falls into: a hash, or one that was drawn for somebody of whom nothing is known.
    pub const fn of(number: u64) -> Slot {
        #[expect(clippy::cast_possible_truncation, reason = "there are fewer slots than 16 bits count")]
        let slot = (number % SLOTS as u64) as u16;
        Slot(slot)
    }
}

/// How a key becomes a slot. Frozen: a change would send callers elsewhere in the middle of a rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hash {
    /// `xxh3_64(key, seed = xxh3_64(salt)) % 10000`.
    #[default]
    Xxh3,
    /// `md5("{key}:{salt}") % 100`, as hundreds of slots: the `get_variant` that experiments are often divided by.
    Md5Percent,
}

impl Hash {
    /// The name by which configurations ask for it.
    pub const fn name(self) -> &'static str {
        match self {
            Hash::Xxh3 => "xxh3",
            Hash::Md5Percent => "md5-100",
        }
    }

    /// The hash of that name.
    pub fn parse(name: &str) -> Option<Hash> {
        [Hash::Xxh3, Hash::Md5Percent].into_iter().find(|hash| hash.name() == name)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A hash with what sets one division of callers apart from another: the same callers have other slots under another
/// salt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salt {
    hash: Hash,
    text: SmolStr,
    seed: u64,
}

impl Salt {
    /// `hash` with the salt `text`.
    pub fn new(hash: Hash, text: &str) -> Salt {
        Salt { hash, text: text.into(), seed: xxh3_64(text.as_bytes()) }
    }

    /// The slot of `key`.
    pub fn slot(&self, key: &str) -> Slot {
        match self.hash {
            Hash::Xxh3 => Slot::of(xxh3_64_with_seed(key.as_bytes(), self.seed)),
            Hash::Md5Percent => {
                let mut digest = Md5::new();
                digest.update(key.as_bytes());
                digest.update(b":");
                digest.update(self.text.as_bytes());
                let percent = u128::from_be_bytes(digest.finalize().into()) % 100;
                Slot(percent as u16 * (SLOTS / 100))
            }
        }
    }

    /// Which hash it is.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// The salt's text.
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by the packages `xxhash` 3 and `hashlib` of Python. A change here sends callers elsewhere.
    #[test]
    fn slots_are_frozen() {
        let long = "x".repeat(300);
        for (key, salt, slot, percent) in [
            ("", "fraud/2", 597, 25),
            ("user_42", "fraud/2", 4188, 0),
            ("user_43", "fraud/2", 4887, 41),
            ("user_42", "fraud/3", 851, 34),
            ("a", "salt", 5959, 29),
            ("Grüße 😀", "digits/17", 6024, 12),
            (&long, "digits/2", 5154, 35),
            ("8f14e45f-ceea-467a-9b7e-3d1c0f3b2a10", "digits/2", 6553, 59),
            ("0", "0", 3270, 50),
            ("user_1", "", 6255, 58),
        ] {
            assert_eq!(Salt::new(Hash::Xxh3, salt).slot(key).number(), slot, "{key} {salt}");
            assert_eq!(Salt::new(Hash::Md5Percent, salt).slot(key).number(), percent * 100, "{key} {salt}");
        }
    }

    #[test]
    fn slots_are_taken_evenly() {
        let salt = Salt::new(Hash::Xxh3, "digits/2");
        let (mut counts, callers) = ([0_u32; 100], 100_000);
        for user in 0..callers {
            counts[usize::from(salt.slot(&format!("user_{user}")).number() / 100)] += 1;
        }
        // Chi-squared of 99 degrees of freedom: 1 in 10,000 is above 160.
        let expected = f64::from(callers) / 100.0;
        let chi_squared: f64 =
            counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum();
        assert!(chi_squared < 160.0, "{chi_squared}");
    }

    #[test]
    fn a_slot_is_below_their_number() {
        assert_eq!(Slot::new(SLOTS), None);
        assert_eq!(Slot::new(SLOTS - 1).map(Slot::number), Some(9_999));
        assert_eq!(Slot::of(u64::MAX).number(), (u64::MAX % 10_000) as u16);
        for hash in [Hash::Xxh3, Hash::Md5Percent] {
            assert_eq!(Hash::parse(hash.name()), Some(hash));
        }
        assert_eq!(Hash::parse("md5"), None);
    }
}
