//! What the log says of an outage: that it began, that a person must act, and that it is over;
//! each once, however many calls fail and however often the store comes and goes meanwhile.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::store::error::StoreError;

const NOTHING: u8 = 0;
const OUT_OF_REACH: u8 = 1;
const REFUSED: u8 = 2;

/// What is reported, and what is not yet.
#[derive(Default)]
pub(super) struct Journal {
    reported: AtomicU8,
    noted: Mutex<Option<StoreError>>,
}

impl Journal {
    /// Keeps the error that opened the breaker, for [`Journal::report_noted`].
    pub(super) fn note(&self, error: StoreError) {
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// Reports the error that was noted, if one was.
    pub(super) fn report_noted(&self, replicas: u32) {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(error) = noted {
            self.report(&error, replicas);
        }
    }

    /// Says that the store is out of reach, or that a person must act.
    pub(super) fn report(&self, error: &StoreError, replicas: u32) {
        let cause = chassis::telemetry::error_chain(error);
        let news = match error {
            StoreError::Configuration(_) => REFUSED,
            _ => OUT_OF_REACH,
        };
        match (self.reported.fetch_max(news, Ordering::Relaxed), news) {
            (reported, news) if reported >= news => {
                tracing::debug!(cause, "store still out of reach")
            }
            (_, REFUSED) => {
                tracing::error!(cause, replicas, "store refuses us, answering by outage policy");
            }
            _ => tracing::error!(cause, replicas, "store out of reach, answering by outage policy"),
        }
    }

    /// Says that it is over.
    pub(super) fn over(&self, replicas: u32) {
        self.reported.store(NOTHING, Ordering::Relaxed);
        tracing::warn!(replicas, "store in reach");
    }
}
