//! Whether records are taken at all: nobody waits for what is known to fail. Which partitions are
//! held while others go on is [`super::progress`].
//!
//! ```text
//! all ── every partition is held ──► what is under way ── no broker answers ──► nothing
//!  ▲                                        │ an answer                          │ an answer
//!  └────────────────────────────────────────┴────────────────────────────────────┘
//! ```
//!
//! What is under way may have been stored, so it is given up later than what comes anew is refused.

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;

/// What is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taking {
    /// Every record.
    All,
    /// Those under way only: brokers say of every partition that it confirms nothing, for this reason.
    UnderWay(String),
    /// None, for this reason.
    Nothing(String),
}

/// What is taken now, and who follows it.
pub(super) struct Intake {
    taking: watch::Sender<Taking>,
    is_open: Gauge,
}

impl Intake {
    /// Everything is taken, once that is set.
    pub fn new(is_open: Gauge) -> Self {
        Self { taking: watch::channel(Taking::All).0, is_open }
    }

    /// Takes this from now on; gives what was taken before.
    pub fn set(&self, taking: Taking) -> Taking {
        self.is_open.set(i64::from(taking == Taking::All));
        self.taking.send_replace(taking)
    }

    /// Why a record that comes now is not taken.
    pub fn refuses(&self) -> Option<String> {
        match &*self.taking.borrow() {
            Taking::All => None,
            Taking::UnderWay(reason) | Taking::Nothing(reason) => Some(reason.clone()),
        }
    }

    /// Waits until what is under way is given up, and says why.
    pub async fn given_up(&self) -> String {
        let mut taking = self.taking.subscribe();
        let nothing = taking.wait_for(|taking| matches!(taking, Taking::Nothing(_))).await;
        match nothing.as_deref() {
            Ok(Taking::Nothing(reason)) => reason.clone(),
            _ => "the journal is closed".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn what_comes_anew_is_refused_before_what_is_under_way_is_given_up() {
        let gauge = Gauge::default();
        let intake = Intake::new(gauge.clone());
        assert_eq!((intake.set(Taking::All), gauge.get()), (Taking::All, 1));
        let mut under_way = Box::pin(intake.given_up());
        assert_eq!((intake.refuses(), gauge.get()), (None, 1));
        assert_eq!(intake.set(Taking::UnderWay("silent".to_owned())), Taking::All);
        assert_eq!((intake.refuses().as_deref(), gauge.get()), (Some("silent"), 0));
        assert_eq!(under_way.as_mut().now_or_never(), None);
        intake.set(Taking::Nothing("away".to_owned()));
        assert_eq!(under_way.now_or_never().as_deref(), Some("away"));
        assert_eq!(intake.refuses().as_deref(), Some("away"));
        assert_eq!(intake.set(Taking::All), Taking::Nothing("away".to_owned()));
        assert_eq!((intake.refuses(), gauge.get()), (None, 1));
    }
}
