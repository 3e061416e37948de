//! The stages of the benchmarks: their names, their order, and about how long each takes. Pure.

use std::time::Duration;

use clap::ValueEnum;

/// One part of the benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// CPU for a decision by workload and store, beside the yardstick
    Cost,
    /// The same by number of rules
    Rules,
    /// Redis commands and over-admission by number of keys, with one and three replicas
    Keys,
    /// Three classes at three times a limit for a minute
    Overload,
    /// Redis stopped under load
    Outage,
    /// Classes against a limit that is too small for them
    Priority,
    /// ext-authz by number of keys
    Authz,
    /// A limit on trial, a recording, and a day simulated
    Safety,
    /// Line protocol, parsed and written anew
    Parser,
    /// OTLP and remote write, read from the wire, beside prost
    Decode,
    /// Points through Kafka into InfluxDB
    Ingest,
    /// Handshakes with each service, and what requests notice meanwhile
    Tls,
    /// A request through the whole edge, and replicas that stop, die or hang
    Path,
    /// Where the instructions of one decision go
    Profile,
}

impl Stage {
    /// All of them, in the order in which they run.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Its name, as on the command line and in front of its figures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cost => "cost",
            Self::Rules => "rules",
            Self::Keys => "keys",
            Self::Overload => "overload",
            Self::Outage => "outage",
            Self::Priority => "priority",
            Self::Authz => "authz",
            Self::Safety => "safety",
            Self::Parser => "parser",
            Self::Decode => "decode",
            Self::Ingest => "ingest",
            Self::Tls => "tls",
            Self::Path => "path",
            Self::Profile => "profile",
        }
    }

    /// The stage of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().iter().copied().find(|stage| stage.name() == name)
    }

    /// About how long it takes on two processors that do nothing else, where it has not run before.
    pub fn about(self, quick: bool) -> Duration {
        let (full, short) = match self {
            Self::Cost => (75, 32),
            Self::Rules => (20, 5),
            Self::Keys => (110, 35),
            Self::Overload => (96, 26),
            Self::Outage => (76, 28),
            Self::Priority => (115, 22),
            Self::Authz => (45, 6),
            Self::Safety => (85, 9),
            Self::Parser => (12, 2),
            Self::Decode => (5, 1),
            Self::Ingest => (60, 45),
            Self::Tls => (18, 5),
            Self::Path => (120, 60),
            Self::Profile => (20, 0),
        };
        Duration::from_secs(if quick { short } else { full })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_called_as_on_the_command_line() {
        for stage in Stage::all() {
            let value = stage.to_possible_value().expect("none is hidden");
            assert_eq!(value.get_name(), stage.name());
            assert_eq!(Stage::named(stage.name()), Some(*stage));
        }
        assert_eq!(Stage::named("nothing"), None);
    }
}
