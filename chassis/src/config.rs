//! Loading YAML: one way of reading a file and one way of saying what is wrong with it.
//!
//! Every error names file, line and column. Durations and sizes carry their unit.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{self, DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
pub use serde_saphyr::Spanned;

/// What is wrong with a configuration file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as it was named by the user.
    pub path: PathBuf,
    /// 1-based line and column, where known.
    pub at: Option<(u64, u64)>,
    /// One sentence without a full stop, naming the key.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    /// An error about the whole file.
    pub fn file(path: &Path, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), at: None, message: message.into() }
    }

    /// An error about one value of the file.
    pub fn at<T>(path: &Path, value: &Spanned<T>, message: impl Into<String>) -> Self {
        let at = (value.referenced.line(), value.referenced.column());
        Self { path: path.to_owned(), at: (at.0 > 0).then_some(at), message: message.into() }
    }
}

/// Where a file is that the configuration file `path` names: relative paths are relative to that.
pub fn relative_to(path: &Path, file: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(file)
}

/// The most keys, values, maps and lists in a file, unless its reader says otherwise.
pub const NODES_MAX: usize = 250_000;

/// Reads and parses a YAML file.
///
/// # Errors
/// When the file cannot be read, is not YAML, or does not have `T`'s shape.
pub fn load_yaml<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let bytes = std::fs::read(path)
        .map_err(|error| ConfigError::file(path, format!("cannot be read: {error}")))?;
    parse_yaml(path, &bytes)
}

/// Parses YAML that was read from `path`, which only serves error messages.
///
/// # Errors
/// When the bytes are not YAML or do not have `T`'s shape.
pub fn parse_yaml<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, ConfigError> {
    parse_yaml_within(path, bytes, NODES_MAX)
}

/// Parses YAML as [`parse_yaml`] does, with a bound of the caller's on keys, values, maps and
/// lists together. What an alias stands for counts each time.
///
/// # Errors
/// The same, and when there are more than `nodes_max`.
pub fn parse_yaml_within<T: DeserializeOwned>(
    path: &Path,
    bytes: &[u8],
    nodes_max: usize,
) -> Result<T, ConfigError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| ConfigError::file(path, format!("is not UTF-8: {error}")))?;
    let options = serde_saphyr::options! {
        with_snippet: false,
        // A map or a list is one node and two events, an alias an event of its own.
        budget: serde_saphyr::budget! {
            max_nodes: nodes_max,
            max_events: nodes_max.saturating_mul(4),
        },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let at = error.location().map(|at| (at.line(), at.column())).filter(|at| at.0 > 0);
        let mut message = error.to_string();
        // The position is told once, in front.
        if let Some(cut) = message.find(" at line ") {
            message.truncate(cut);
        }
        ConfigError { path: path.to_owned(), at, message: message.replace('\n', " ") }
    })
}

/// A duration written with its unit: `250us`, `250ms`, `1.5s`, `2m`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DurationText(pub Duration);

/// A number of bytes written with its unit: `512B`, `64KiB`, `1MiB`, `2GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl std::str::FromStr for DurationText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, seconds_per_unit) = split_unit(
            text,
            &[("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0)],
        )
        .ok_or_else(|| format!("'{text}' is not a duration such as 250ms, 30s, 5m or 1h"))?;
        Duration::try_from_secs_f64(number * seconds_per_unit)
            .map(DurationText)
            .map_err(|error| format!("'{text}' is not a usable duration: {error}"))
    }
}

impl std::str::FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("KiB", 1024.0), ("MiB", 1048576.0), ("GiB", 1073741824.0), ("B", 1.0)];
        let (number, bytes_per_unit) = split_unit(text, &units)
            .ok_or_else(|| format!("'{text}' is not a size such as 64KiB, 1MiB or 2GiB"))?;
        let bytes = number * bytes_per_unit;
        if bytes > 9.0e15 {
            return Err(format!("'{text}' is too large a size"));
        }
        Ok(ByteSize(bytes as u64))
    }
}

fn split_unit(text: &str, units: &[(&str, f64)]) -> Option<(f64, f64)> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    Some((number.parse().ok()?, *factor))
}

macro_rules! deserialize_from_str {
    ($type:ty, $expecting:literal) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}
deserialize_from_str!(DurationText, "a duration such as 250ms, 30s, 5m or 1h");
deserialize_from_str!(ByteSize, "a size such as 64KiB, 1MiB or 2GiB");

impl Serialize for DurationText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{}s", self.0.as_secs_f64()))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{}B", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        wait: DurationText,
        #[serde(default)]
        size: Option<Spanned<ByteSize>>,
    }

    fn parse(text: &str) -> Result<Sample, String> {
        parse_yaml(Path::new("a.yaml"), text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn durations_and_sizes_carry_units() {
        let sample = parse("wait: 250ms\nsize: 1MiB\n").expect("valid");
        assert_eq!(sample.wait.0, Duration::from_millis(250));
        let size = sample.size.expect("given");
        assert_eq!((size.value.0, size.referenced.line()), (1 << 20, 2));
        for bad in ["5", "ms", "-1s", "1 s", "1e3s", "99999999999999999999d"] {
            assert!(bad.parse::<DurationText>().is_err(), "{bad}");
        }
        assert!("12".parse::<ByteSize>().is_err());
        assert_eq!("1.5KiB".parse(), Ok(ByteSize(1536)));
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let error = parse("wait: 1s\nwiat: 2s\n").expect_err("unknown key");
        assert!(error.starts_with("a.yaml:2:1: ") && error.contains("wiat"), "{error}");
        let error = parse("wait: soon\n").expect_err("bad duration");
        assert!(error.starts_with("a.yaml:1:7: 'soon' is not a duration"), "{error}");
        let error = parse("wait: [\n").expect_err("not yaml");
        assert!(error.starts_with("a.yaml:"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn a_document_has_as_many_nodes_as_its_reader_says() {
        let parse = |text: &str| {
            let parsed: Result<Vec<Vec<u8>>, _> =
                parse_yaml_within(Path::new("a"), text.as_bytes(), 10);
            parsed.map(|lists| lists.len()).map_err(|error| error.to_string())
        };
        assert_eq!(parse("[[1, 2, 3], [1, 2], [1]]"), Ok(3));
        let error = parse("[[1, 2, 3], [1, 2], [1, 2]]").expect_err("eleven");
        assert!(error.starts_with("a:1:") && error.contains("11"), "{error}");
        // An alias brings all that it stands for.
        assert_eq!(parse("[&a [1, 2], *a, [1, 2]]"), Ok(3));
        assert!(parse("[&a [1, 2], *a, *a, *a]").is_err());
    }
}
