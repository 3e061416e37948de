//! Where a key id stands in a keys file: for the message about a file whose keys were compared only
//! after all of them had been read.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::{FILE_BYTES_MAX, Position};
use crate::check::key::{KEY_ID_LEN, KeyId};

/// An id and the quotes around it, as many bytes as are compared at a time.
const QUOTED_LEN: usize = KEY_ID_LEN + 2;

/// The last place of an id in a file; none when it cannot be read or does not have it.
pub(super) fn in_file(path: &Path, id: &KeyId) -> Option<Position> {
    last(BufReader::new(File::open(path).ok()?).take(FILE_BYTES_MAX), id)
}

/// The last place of an id in double quotes.
fn last(text: impl BufRead, id: &KeyId) -> Option<Position> {
    const MASK: u128 = (1 << (8 * QUOTED_LEN)) - 1;
    let append = |seen: u128, byte: u8| ((seen << 8) | u128::from(byte)) & MASK;
    let wanted = format!("\"{id}\"").bytes().fold(0, append);
    let (mut seen, mut line, mut column, mut found) = (0, 1, 0_u64, None);
    for byte in text.bytes() {
        let byte = byte.ok()?;
        column += 1;
        seen = append(seen, byte);
        if seen == wanted {
            found = Some((line, column + 1 - QUOTED_LEN as u64));
        }
        if byte == b'\n' {
            (line, column) = (line + 1, 0);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_is_named() {
        let id = KeyId::parse("0aB9xK2mQ7rT").expect("an id");
        let text = "{\"keys\": [\n{\"id\": \"0aB9xK2mQ7rT\"},\n {\"id\": \"0aB9xK2mQ7rT\"}, \
                    {\"id\": \"0aB9xK2mQ7rU\"}\n]}";
        assert_eq!(last(text.as_bytes(), &id), Some((3, 9)));
        assert_eq!(last(&text.as_bytes()[..40], &id), Some((2, 8)));
        assert_eq!(last("0aB9xK2mQ7rT".as_bytes(), &id), None);
        assert_eq!(in_file(Path::new("/no such file"), &id), None);
    }
}
