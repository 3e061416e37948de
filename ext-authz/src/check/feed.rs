//! Following the changes of a source that numbers them: what to do with what it says of itself.
//!
//! ```text
//! epoch e1 │ 1 │ 2 │ 3 │ … │ 41 │ 42 │        one change a generation, in a stream that is trimmed
//!                          known ┘    └ told
//! epoch e2 │ 43 │                             the whole set was put in anew
//! ```

/// Up to where a source was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Which set it was; a new one begins when all keys are put in anew.
    pub epoch: String,
    /// The number of the last change.
    pub generation: u64,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the changes after the position.
    Follow,
    /// Read all keys anew.
    LoadAll,
}

/// Why what a source says cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Nobody ever put anything in.
    #[error("holds no keys yet: 'keys issue' or 'keys load' puts the first in")]
    Empty,
    /// It had keys.
    #[error("lost its keys: 'keys load' puts them in again")]
    Lost,
    /// It forgot the last changes, which may have been revocations.
    #[error(
        "went back from generation {known} to {told}, so changes are lost: 'keys load' of a set \
         that is right makes it believed again"
    )]
    WentBack {
        /// The generation that was read.
        known: u64,
        /// The generation that it has now.
        told: u64,
    },
}

/// What to do when a source, last read up to `known`, says that it is at `told`.
///
/// # Errors
/// When it has less than it had.
pub fn next(known: Option<&Position>, told: Option<&Position>) -> Result<Step, Distrust> {
    match (known, told) {
        (None, None) => Err(Distrust::Empty),
        (Some(_), None) => Err(Distrust::Lost),
        (Some(known), Some(told)) if known.epoch == told.epoch => {
            let (known, told) = (known.generation, told.generation);
            if told < known { Err(Distrust::WentBack { known, told }) } else { Ok(Step::Follow) }
        }
        (_, Some(_)) => Ok(Step::LoadAll),
    }
}

/// Whether changes, read after `known`, are all there are after it. Those before it say nothing new.
pub fn is_gapless(known: u64, read: impl IntoIterator<Item = u64>) -> bool {
    read.into_iter().zip(known + 1..).all(|(read, expected)| read == expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_source_says_of_itself() {
        let at = |epoch: &str, generation| Some(Position { epoch: epoch.into(), generation });
        for (known, told, expected) in [
            (None, None, Err(Distrust::Empty)),
            (at("a", 7), None, Err(Distrust::Lost)),
            (None, at("a", 7), Ok(Step::LoadAll)),
            (at("a", 7), at("a", 7), Ok(Step::Follow)),
            (at("a", 7), at("a", 9), Ok(Step::Follow)),
            (at("a", 7), at("a", 6), Err(Distrust::WentBack { known: 7, told: 6 })),
            (at("a", 7), at("b", 1), Ok(Step::LoadAll)),
            (at("a", 7), at("b", 70), Ok(Step::LoadAll)),
        ] {
            assert_eq!(next(known.as_ref(), told.as_ref()), expected, "{known:?} {told:?}");
        }
    }

    #[test]
    fn a_stream_that_was_trimmed_has_a_gap() {
        assert!(is_gapless(7, []) && is_gapless(7, [8]) && is_gapless(7, [8, 9, 10]));
        assert!(!is_gapless(7, [9]) && !is_gapless(7, [8, 10]) && !is_gapless(7, [7, 8]));
    }
}
