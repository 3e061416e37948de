//! How much work Redis was given, by its own count.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Commands that clients have sent since the start. A script is one command; Redis counts what it
/// calls as well, so the commands that only scripts call, `inside`, are left out. Our own questions
/// are too.
///
/// # Errors
/// When Redis does not answer.
pub fn commands(address: SocketAddr, inside: &[&str]) -> Result<u64> {
    Ok(sent(&ask(address, "INFO commandstats")?, inside))
}

fn sent(info: &str, inside: &[&str]) -> u64 {
    const OURS: [&str; 6] = ["info", "ping", "hello", "client", "auth", "flushall"];
    let counts = |name: &str| {
        let command = name.split('|').next().unwrap_or(name);
        !OURS.contains(&command) && !inside.contains(&command)
    };
    let calls = info.lines().filter_map(calls).filter(|(name, _)| counts(name));
    calls.map(|(_, calls)| calls).sum()
}

/// `cmdstat_get:calls=3,usec=…` as `("get", 3)`.
fn calls(line: &str) -> Option<(&str, u64)> {
    let (name, rest) = line.trim_end().strip_prefix("cmdstat_")?.split_once(":calls=")?;
    Some((name, rest.split(',').next()?.parse().ok()?))
}

/// Number of keys in the first database.
///
/// # Errors
/// When Redis does not answer.
pub fn keys(address: SocketAddr) -> Result<u64> {
    let info = ask(address, "INFO keyspace")?;
    let keys = info.lines().find_map(|line| line.strip_prefix("db0:keys="));
    Ok(keys.and_then(|keys| keys.split(',').next()?.parse().ok()).unwrap_or(0))
}

/// Removes every key.
///
/// # Errors
/// When Redis does not answer.
pub fn flush(address: SocketAddr) -> Result<()> {
    ask(address, "FLUSHALL SYNC").map(drop)
}

/// Sends one command and reads its whole answer, a bulk string or a line.
fn ask(address: SocketAddr, command: &str) -> Result<String> {
    let context = || format!("Redis at {address}");
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).with_context(context)?;
    stream.set_read_timeout(Some(TIMEOUT)).with_context(context)?;
    stream.write_all(format!("{command}\r\n").as_bytes()).with_context(context)?;
    let mut answer = Vec::new();
    let mut input = [0; 16 << 10];
    loop {
        let read = stream.read(&mut input).with_context(context)?;
        ensure!(read > 0, "Redis at {address} closed the connection");
        answer.extend(&input[..read]);
        if let Some(text) = whole(&answer) {
            ensure!(!text.starts_with('-'), "Redis at {address}: {text}");
            return Ok(text);
        }
    }
}

/// The text of an answer once all of it has come.
fn whole(answer: &[u8]) -> Option<String> {
    let end = answer.windows(2).position(|two| two == b"\r\n")?;
    let line = std::str::from_utf8(&answer[..end]).ok()?;
    let Some(length) = line.strip_prefix('$') else { return Some(line.to_owned()) };
    let length: usize = length.parse().ok()?;
    let text = answer.get(end + 2..end + 2 + length)?;
    (answer.len() >= end + 4 + length).then(|| String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scripts_call_is_not_what_clients_sent() {
        assert_eq!(calls("cmdstat_incrby:calls=12,usec=3\r"), Some(("incrby", 12)));
        assert_eq!(calls("# Commandstats"), None);
        let info = "cmdstat_incrby:calls=12,usec=1\ncmdstat_evalsha:calls=5,usec=1\n\
                    cmdstat_zadd:calls=5,usec=1\ncmdstat_client|setname:calls=9,x\n\
                    cmdstat_info:calls=9,x\n";
        assert_eq!(sent(info, &[]), 22);
        assert_eq!(sent(info, &["zadd"]), 17);
        assert_eq!(sent(info, &["zadd", "incrby"]), 5);
    }

    #[test]
    fn answers_are_read_whole() {
        assert_eq!(whole(b"+OK\r\n"), Some("+OK".to_owned()));
        assert_eq!(whole(b"$5\r\nab"), None);
        assert_eq!(whole(b"$2\r\nab\r\n"), Some("ab".to_owned()));
    }
}
