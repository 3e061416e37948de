//! Whether the target takes points, told once per change: readiness, and a log line that a
//! person must act on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use chassis::readiness::{Condition, Readiness};

use crate::target::answer::Answer;

/// The target's health as the lanes see it.
pub struct Health {
    condition: Condition,
    is_lost: AtomicBool,
    /// What is wrong, as last logged.
    wrong: Mutex<Option<&'static str>>,
    format: Condition,
}

impl Health {
    /// Not known to be well yet.
    pub fn new(readiness: &Readiness) -> Self {
        let condition = readiness.condition("target", "not reached yet");
        let format = readiness.condition("format", "nothing read yet");
        format.met();
        Self { condition, is_lost: AtomicBool::new(true), wrong: Mutex::new(None), format }
    }

    /// Whether the target takes no points, as far as is known.
    pub fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Relaxed)
    }

    /// So many partitions hold a record of a newer version.
    pub fn held(&self, partitions: i64) {
        match partitions > 0 {
            true => self.format.lost("records of a newer version wait for a newer writer"),
            false => self.format.met(),
        }
    }

    /// The target answered a ping, and no lane waits for it.
    pub fn reached(&self) {
        self.is_lost.store(false, Ordering::Relaxed);
        self.condition.met();
        let before = self.wrong.lock().unwrap_or_else(PoisonError::into_inner).take();
        if before.is_some() {
            tracing::info!("the target answers, and nothing waits for it");
        }
    }

    /// The target answered a write.
    pub fn answered(&self, partition: i32, answer: &Answer) {
        let wrong = match answer {
            Answer::Written => None,
            // Whether the points are wrong or the target is seen by what it says to a good one.
            Answer::Refused { .. } | Answer::TooLarge => return,
            Answer::RetentionPolicyMissing { .. } => Some("the retention policy does not exist"),
            Answer::Unauthorized => Some("the target refuses our login"),
            Answer::DatabaseMissing => Some("the database does not exist"),
            Answer::Busy { .. } => Some("the target has too much to do"),
            Answer::Failed { .. } => Some("the target fails"),
            Answer::Broken(_) => Some("the connection to the target broke"),
            Answer::Unreachable(_) => Some("the target cannot be reached"),
        };
        self.change(partition, wrong, answer);
    }

    /// The target refused a point that it should take: no point is given up for its answers.
    pub fn refuses_good_points(&self, partition: i32, answer: &Answer) {
        self.change(partition, Some("the target refuses points that it should take"), answer);
    }

    fn change(&self, partition: i32, wrong: Option<&'static str>, answer: &Answer) {
        self.is_lost.store(wrong.is_some(), Ordering::Relaxed);
        match wrong {
            None => self.condition.met(),
            Some(wrong) => self.condition.lost(wrong),
        }
        let mut logged = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if *logged == wrong {
            return;
        }
        *logged = wrong;
        let detail = detail(answer);
        match (wrong, answer) {
            (None, _) => tracing::info!(partition, "the target takes points again"),
            (
                Some(reason),
                Answer::Unauthorized
                | Answer::Refused { .. }
                | Answer::TooLarge
                | Answer::DatabaseMissing
                | Answer::RetentionPolicyMissing { .. },
            ) => tracing::error!(partition, reason, detail, "points wait until this is mended"),
            (Some(reason), _) => tracing::warn!(partition, reason, detail, "trying again"),
        }
    }
}

fn detail(answer: &Answer) -> &str {
    match answer {
        Answer::Failed { message, .. }
        | Answer::Refused { message, .. }
        | Answer::RetentionPolicyMissing { message, .. }
        | Answer::Broken(message)
        | Answer::Unreachable(message) => {
            &message[..message.floor_char_boundary(crate::journal::dead_letter::MESSAGE_BYTES_MAX)]
        }
        _ => "",
    }
}
