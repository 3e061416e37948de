//! Reading a password or a token from a file. Most editors and `kubectl` end a file with a new
//! line, which belongs to no secret.

use std::io;
use std::path::Path;

/// What the file holds, without the end of its last line.
///
/// # Errors
/// When it cannot be read or holds nothing; the file is named.
pub fn read(file: &Path) -> io::Result<String> {
    let named = |kind, what: String| io::Error::new(kind, format!("'{}' {what}", file.display()));
    let bytes = std::fs::read(file)
        .map_err(|error| named(error.kind(), format!("cannot be read: {error}")))?;
    of(&bytes).map_err(|problem| named(io::ErrorKind::InvalidData, problem.to_owned()))
}

/// The secret in what a file holds.
///
/// # Errors
/// What is wrong with it.
pub fn of(bytes: &[u8]) -> Result<String, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "cannot be read: it is no text")?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err("holds no secret"),
        secret => Ok(secret.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_line_belongs_to_no_secret() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("password");
        let check = |text: &str| {
            std::fs::write(&file, text).expect("written");
            read(&file).map_err(|error| error.to_string())
        };
        assert_eq!(check("pass word"), Ok("pass word".to_owned()));
        assert_eq!(check("pass\r\n"), Ok("pass".to_owned()));
        let error = check("\n").expect_err("empty");
        assert!(error.contains("password' holds no secret"), "{error}");
        std::fs::remove_file(&file).expect("removed");
        let error = read(&file).map_err(|error| error.to_string()).expect_err("gone");
        assert!(error.contains("password' cannot be read"), "{error}");
    }
}
