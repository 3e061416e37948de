//! What kind of telemetry a record carries, which kinds share a stream of the journal, and a name
//! for one lane among all streams. Pure.

use std::fmt;

/// A kind of telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Signal {
    /// Points of every protocol, and data points of OTLP.
    Metrics,
    /// Log records.
    Logs,
    /// Spans.
    Traces,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Metrics, Self::Logs, Self::Traces];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
            Self::Traces => "traces",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The signals of one stream, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signals(u8);

impl Signals {
    /// All of them together.
    pub const ALL: Self = Self(0b111);

    /// One alone.
    pub fn only(signal: Signal) -> Self {
        Self(signal.bit())
    }

    /// With one more.
    pub fn with(self, signal: Signal) -> Self {
        Self(self.0 | signal.bit())
    }

    /// Whether it is among them.
    pub fn has(self, signal: Signal) -> bool {
        self.0 & signal.bit() != 0
    }

    /// The first of them: what stands for all of them in a short name.
    pub fn first(self) -> Signal {
        Signal::ALL.into_iter().find(|signal| self.has(*signal)).unwrap_or(Signal::Metrics)
    }

    /// A name for labels and people; a closed set of seven.
    pub fn name(self) -> &'static str {
        let has = Signal::ALL.map(|signal| self.has(signal));
        match has {
            [true, false, false] => "metrics",
            [false, true, false] => "logs",
            [false, false, true] => "traces",
            [true, true, false] => "metrics+logs",
            [true, false, true] => "metrics+traces",
            [false, true, true] => "logs+traces",
            _ => "all",
        }
    }
}

/// A lane among all streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId {
    /// What its stream carries.
    pub signals: Signals,
    /// Its partition there.
    pub partition: i32,
}

/// Puts in front of the name of something in a stream which stream it is: nothing where metrics
/// are, `logs/` or `traces/` elsewhere.
pub fn qualified(signals: Signals, name: impl fmt::Display) -> String {
    match signals.first() {
        Signal::Metrics => name.to_string(),
        other => format!("{}/{name}", other.name()),
    }
}

/// The signal that a name is of, and the name within its stream.
pub fn unqualified(name: &str) -> (Signal, &str) {
    let named = Signal::ALL
        .into_iter()
        .find_map(|signal| Some((signal, name.strip_prefix(signal.name())?.strip_prefix('/')?)));
    named.unwrap_or((Signal::Metrics, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_signals_have_names_of_their_own() {
        let mut names = std::collections::BTreeSet::new();
        for bits in 1..8_u8 {
            let signals = Signals(bits);
            names.insert(signals.name());
            let again = Signal::ALL.into_iter().filter(|signal| signals.has(*signal));
            let again = again.fold(Signals::only(signals.first()), Signals::with);
            assert_eq!(again, signals);
        }
        assert_eq!(names.len(), 7, "{names:?}");
        assert_eq!(Signals::only(Signal::Logs).with(Signal::Traces).first(), Signal::Logs);
        assert_eq!(Signals::ALL.name(), "all");
    }

    #[test]
    fn a_name_says_which_stream_it_is_of() {
        let logs = Signals::only(Signal::Logs);
        for signals in [Signals::ALL, logs, logs.with(Signal::Traces)] {
            let name = qualified(signals, "3:17");
            assert_eq!(unqualified(&name), (signals.first(), "3:17"), "{name}");
        }
        assert_eq!(qualified(Signals::ALL, "3:17"), "3:17");
        assert_eq!(qualified(logs, "3:17"), "logs/3:17");
        assert_eq!(unqualified("metrics/0:1"), (Signal::Metrics, "0:1"));
        assert_eq!(unqualified("other/0:1"), (Signal::Metrics, "other/0:1"));
    }
}
