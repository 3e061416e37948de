//! What a tool has to say about a place in a file, in the form that its reader takes: people at a terminal,
//! GitHub's annotations, GitLab's code quality report, or a comment on a pull request.

use std::io::IsTerminal;

use serde_json::json;
use sha2::{Digest, Sha256};

/// How findings are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// Workflow commands that GitHub shows beside the lines they are about.
    Github,
    /// A code quality report for GitLab.
    Gitlab,
    /// A comment on a pull request.
    Markdown,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// It must be mended.
    Error,
    /// It should be looked at.
    Warning,
    /// It is good to know.
    Notice,
}

/// Something about a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// The file.
    pub path: String,
    /// Line and column, where known.
    pub at: Option<(u64, u64)>,
    /// One sentence.
    pub message: String,
    /// The line that it is about, for people.
    pub quoted: Option<String>,
    /// What may have been meant.
    pub meant: Option<String>,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }

    /// The same in a code quality report.
    fn severity(self) -> &'static str {
        match self {
            Self::Error => "critical",
            Self::Warning => "minor",
            Self::Notice => "info",
        }
    }
}

/// Whether a person reads what is printed on stderr, and has not said that colours are unwanted.
pub fn is_coloured() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    std::io::stderr().is_terminal() && !unwanted
}

/// The same of what is printed on stdout.
pub fn is_coloured_stdout() -> bool {
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    std::io::stdout().is_terminal() && !unwanted
}

/// All findings in one of the forms.
pub fn render(findings: &[Finding], format: Format, coloured: bool) -> String {
    match format {
        Format::Text => findings.iter().map(|finding| finding.text(coloured)).collect(),
        Format::Github => findings.iter().map(Finding::github).collect(),
        Format::Gitlab => {
            let all: Vec<_> = findings.iter().map(Finding::gitlab).collect();
            format!("{}\n", serde_json::Value::from(all))
        }
        Format::Markdown => {
            let mut text = "| | where | what |\n|---|---|---|\n".to_owned();
            text.extend(findings.iter().map(Finding::markdown));
            text
        }
    }
}

impl Finding {
    fn place(&self) -> String {
        match self.at {
            Some((line, column)) => format!("{}:{line}:{column}", self.path),
            None => self.path.clone(),
        }
    }

    fn sentence(&self) -> String {
        let meant = self.meant.as_ref().map(|meant| format!("; did you mean '{meant}'?"));
        format!("{}{}", self.message, meant.unwrap_or_default())
    }

    fn text(&self, coloured: bool) -> String {
        let paint = |code: &str, text: &str| match coloured {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_owned(),
        };
        let colour = match self.level {
            Level::Error => "1;31",
            Level::Warning => "1;33",
            Level::Notice => "1;36",
        };
        let name = paint(colour, &format!("{}:", self.level.name()));
        let mut text = format!("{name} {}: {}\n", self.place(), self.message);
        if let (Some(quoted), Some((line, column))) = (&self.quoted, self.at) {
            let number = line.to_string();
            let margin = " ".repeat(number.len());
            let bar = paint("2", "|");
            // As wide as what stands before, whatever a tab is here.
            let before = quoted.chars().take(column.saturating_sub(1) as usize);
            let before: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            text += &format!("  {number} {bar} {quoted}\n");
            text += &format!("  {margin} {bar} {before}{}\n", paint(colour, "^"));
        }
        if let Some(meant) = &self.meant {
            text += &format!("  did you mean {}?\n", paint("1;32", &format!("'{meant}'")));
        }
        text
    }

    fn github(&self) -> String {
        let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
        let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
        let mut place = format!("file={}", property(&self.path));
        if let Some((line, column)) = self.at {
            place += &format!(",line={line},col={column}");
        }
        format!("::{} {place}::{}\n", self.level.name(), data(&self.sentence()))
    }

    fn gitlab(&self) -> serde_json::Value {
        let digest = Sha256::digest(format!("{}\n{}", self.path, self.message));
        let fingerprint: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({
            "description": self.sentence(),
            "check_name": "ratelimit-svc",
            "fingerprint": fingerprint,
            "severity": self.level.severity(),
            "location": {"path": self.path, "lines": {"begin": self.at.map_or(1, |at| at.0)}},
        })
    }

    fn markdown(&self) -> String {
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let (place, sentence) = (cell(&self.place()), cell(&self.sentence()));
        format!("| {} | `{place}` | {sentence} |\n", self.level.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding() -> Finding {
        Finding {
            level: Level::Error,
            path: "a,b.yaml".to_owned(),
            at: Some((4, 9)),
            message: "100 % 'minut' | wrong".to_owned(),
            quoted: Some("  unit: minut".to_owned()),
            meant: Some("minute".to_owned()),
        }
    }

    #[test]
    fn each_reader_gets_its_form() {
        let check =
            |format, expected: &str| assert_eq!(render(&[finding()], format, false), expected);
        check(
            Format::Text,
            "error: a,b.yaml:4:9: 100 % 'minut' | wrong\n  4 |   unit: minut\n    |         ^\n  did you mean 'minute'?\n",
        );
        check(
            Format::Github,
            "::error file=a%2Cb.yaml,line=4,col=9::100 %25 'minut' | wrong; did you mean 'minute'?\n",
        );
        check(
            Format::Markdown,
            "| | where | what |\n|---|---|---|\n| error | `a,b.yaml:4:9` | 100 % 'minut' \\| wrong; did you mean 'minute'? |\n",
        );
        let report: serde_json::Value =
            serde_json::from_str(&render(&[finding()], Format::Gitlab, false)).expect("JSON");
        assert_eq!(report[0]["location"]["lines"]["begin"], 4);
        assert_eq!(report[0]["fingerprint"].as_str().map(str::len), Some(64));
        assert_eq!(render(&[], Format::Gitlab, false), "[]\n");
    }

    #[test]
    fn colours_are_for_people() {
        let text = render(&[finding()], Format::Text, true);
        assert!(text.contains("\x1b[1;31merror:\x1b[0m") && text.contains("\x1b[1;32m'minute'"));
        assert!(!render(&[finding()], Format::Github, true).contains('\x1b'));
    }
}
