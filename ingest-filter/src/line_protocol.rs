//! Line protocol as clients write it: lines into points, one verdict per line.
//!
//! A bad line never touches its neighbours. Where it ends is decided without understanding it:
//! at the first line feed outside of a quoted field value, or, when a quote is never closed, at
//! the first line feed of all.
//!
//! ```text
//! line      = spaces [ point | "#" comment ] end
//! point     = measurement { "," key "=" value } spaces field { "," field } [ spaces timestamp ]
//! field     = key "=" ( float | integer "i" | unsigned "u" | boolean | '"' string '"' )
//! end       = spaces ( "\n" | "\r\n" | end of body )
//! ```
//!
//! Pure, allocates only for text with escapes, and looks at every byte about twice. A line like an
//! earlier one, as nearly all lines of an agent are, is copied instead ([`Lines::next_known`]).

use crate::fault::Fault;
use crate::point::{KnownLine, Point, Shapes};

mod known;
mod number;
mod precision;
mod scan;
mod stops;
#[cfg(test)]
mod tests;

use known::Walk;
pub use precision::{Precision, UnknownPrecision};
use scan::{LineEnd, Scanner};

/// How a body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The unit of the timestamps.
    pub precision: Precision,
    /// Whether unsigned integers are accepted.
    pub unsigned: bool,
    /// The longest line that holds a point, bytes. A line is read into memory before it is
    /// known whether it may be stored; this bounds what that takes.
    pub line_bytes_max: usize,
}

/// What is wrong with one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineError {
    /// The line, counted from 1.
    pub line: u64,
    /// The byte of the line where the fault was seen, counted from 1.
    pub column: usize,
    /// The fault.
    pub fault: Fault,
    /// Where the line begins in the body.
    pub start: usize,
    /// Where it ends, without its line feed.
    pub end: usize,
}

/// Reads the points of a body one by one.
pub struct Lines<'a> {
    body: &'a [u8],
    dialect: Dialect,
    /// The part of the body that is known to be UTF-8, from `text_start` on.
    text: &'a str,
    text_start: usize,
    at: usize,
    /// Where the last line began that was read into a point.
    last: usize,
    line: u64,
    /// Whether a quote was found that is never closed in this text. Whatever opens a quote behind it
    /// and has it open at the end of its line has found the same, so no line there has to be looked
    /// at any further than to its first line feed.
    is_quote_open: bool,
    walk: Walk,
    /// How many bytes were looked at to find where bad lines end.
    #[cfg(test)]
    searched: usize,
}

impl<'a> Lines<'a> {
    /// Reads `body`, which may be any bytes.
    pub fn new(body: &'a [u8], dialect: Dialect) -> Self {
        Self {
            body,
            dialect,
            text: "",
            text_start: 0,
            at: 0,
            last: 0,
            line: 1,
            is_quote_open: false,
            walk: Walk::new(),
            #[cfg(test)]
            searched: 0,
        }
    }

    /// Reads the next line that holds a point into `point`, and returns its number. Blank lines
    /// and comments are passed over; after an error reading goes on behind the bad line, and
    /// `point` holds nothing of use.
    pub fn next(&mut self, point: &mut Point<'a>) -> Option<Result<u64, LineError>> {
        loop {
            if self.at == self.text.len() {
                if self.text_start + self.at == self.body.len() {
                    return None;
                }
                if let Some(error) = self.next_text() {
                    return Some(Err(error));
                }
                continue;
            }
            let start = self.at;
            let mut scanner = Scanner::new(self.text, start, self.dialect);
            point.clear();
            match scanner.line(point) {
                Ok(true) => {
                    let line = self.line;
                    self.last = start;
                    self.at = scanner.at;
                    self.line += 1 + scanner.inner_line_feeds;
                    return Some(Ok(line));
                }
                Ok(false) => {
                    self.at = scanner.at;
                    self.line += 1;
                }
                Err(fault) => {
                    let seen_at = scanner.at;
                    return Some(Err(self.pass_over(start, seen_at, fault)));
                }
            }
        }
    }

    /// The line that was just read into a point, without its end.
    pub fn last(&self) -> &'a [u8] {
        let line = self.text.as_bytes().get(self.last..self.at).unwrap_or_default();
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// Takes the next line if it has one of the shapes and may be copied; `None` says nothing of it
    /// but that it must be read by [`Lines::next`], if there is one.
    pub fn next_known(&mut self, shapes: &Shapes) -> Option<KnownLine<'_>> {
        self.next_known_if(shapes, |_| true)
    }

    /// As [`Lines::next_known`], and only if the line is wanted so.
    pub fn next_known_if(
        &mut self,
        shapes: &Shapes,
        is_wanted: impl FnOnce(&KnownLine<'_>) -> bool,
    ) -> Option<KnownLine<'_>> {
        let text = self.text.as_bytes();
        if self.at == text.len() {
            return None;
        }
        let walked = self.walk.line(text, self.at, self.dialect, shapes)?;
        let known = self.walk.parts(text, self.line, walked);
        if !is_wanted(&known) {
            return None;
        }
        self.at = (walked.end + 1).min(text.len());
        self.line += 1 + self.walk.line_feeds;
        Some(known)
    }

    /// Takes the longest stretch of whole lines that is UTF-8, or reports the line that is not.
    fn next_text(&mut self) -> Option<LineError> {
        self.text_start += self.at;
        self.at = 0;
        self.is_quote_open = false;
        self.walk.forget();
        let rest = &self.body[self.text_start..];
        let error = match std::str::from_utf8(rest) {
            Ok(text) => {
                self.text = text;
                return None;
            }
            Err(error) => error,
        };
        let bad = error.valid_up_to();
        let whole_lines =
            rest[..bad].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole_lines > 0 {
            self.text = std::str::from_utf8(&rest[..whole_lines])
                .expect("a prefix of valid UTF-8 that ends behind a line feed is valid");
            return None;
        }
        self.text = "";
        let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let start = self.text_start;
        let (line, column) = (self.line, bad + 1);
        self.text_start += (end + 1).min(rest.len());
        self.line += 1;
        let fault = Fault::InvalidUtf8;
        Some(LineError { line, column, fault, start, end: start + end })
    }

    fn pass_over(&mut self, start: usize, seen_at: usize, fault: Fault) -> LineError {
        let bytes = self.text.as_bytes();
        let end = match self.is_quote_open {
            true => scan::first_line_feed(bytes, start),
            false => {
                let LineEnd { at, seen_to } = scan::end_of_line(bytes, start);
                self.is_quote_open = seen_to > at;
                #[cfg(test)]
                {
                    self.searched += seen_to - start;
                }
                at
            }
        };
        let line = self.line;
        self.at = (end + 1).min(bytes.len());
        self.line += bytes[start..self.at].iter().filter(|byte| **byte == b'\n').count() as u64;
        let column = seen_at - start + 1;
        let (start, end) = (self.text_start + start, self.text_start + end);
        LineError { line, column, fault, start, end }
    }
}
