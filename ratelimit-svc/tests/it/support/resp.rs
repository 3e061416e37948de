//! As much of the Redis protocol as a proxy needs: where a frame ends, and the words of a command.

/// The length of the first frame in `bytes`, if all of it is there.
pub fn frame_len(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let number = || std::str::from_utf8(&bytes[1..line - 2]).ok()?.parse::<i64>().ok();
    match bytes[0] {
        b'$' | b'!' | b'=' => {
            let Ok(len) = usize::try_from(number()?) else { return Some(line) };
            let end = line + len + 2;
            (bytes.len() >= end).then_some(end)
        }
        kind @ (b'*' | b'~' | b'>' | b'%') => {
            let items = number()?.max(0) * if kind == b'%' { 2 } else { 1 };
            let mut end = line;
            for _ in 0..items {
                end += frame_len(bytes.get(end..).filter(|rest| !rest.is_empty())?)?;
            }
            Some(end)
        }
        _ => Some(line),
    }
}

/// The name of a command, in upper case.
pub fn command_name(frame: &[u8]) -> String {
    // *2 $3 GET $1 k: the name is the third line.
    let mut lines = frame.split(|&byte| byte == b'\n');
    let name = lines.nth(2).unwrap_or_default();
    String::from_utf8_lossy(name).trim_end().to_uppercase()
}

#[test]
fn frames_end_where_they_end() {
    let check = |text: &str, expected: Option<usize>| {
        assert_eq!(frame_len(text.as_bytes()), expected, "{text:?}");
    };
    check("+OK\r\n:1\r\n", Some(5));
    check("-ERR no\r\n", Some(9));
    check("$3\r\nabc\r\n", Some(9));
    check("$3\r\nabc", None);
    check("$-1\r\n", Some(5));
    check("*-1\r\n", Some(5));
    check("*2\r\n$3\r\nGET\r\n$1\r\nk\r\nx", Some(20));
    check("*2\r\n$3\r\nGET\r\n", None);
    check("%1\r\n+a\r\n*1\r\n:1\r\n", Some(16));
    check("*0\r\n", Some(4));
    check("", None);
    assert_eq!(command_name(b"*2\r\n$3\r\nget\r\n$1\r\nk\r\n"), "GET");
}
