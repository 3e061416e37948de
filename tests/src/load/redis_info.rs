//! How much work Redis was given, by its own count.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Commands that clients have sent since the start: a script is one, what it calls inside is none,
/// and neither are our own questions.
///
/// # Errors
/// When Redis does not answer.
pub fn commands(address: SocketAddr) -> Result<u64> {
    let info = ask(address, "INFO commandstats")?;
    Ok(sent(&info))
}

fn counts(name: &str) -> bool {
    !["info", "ping", "hello", "client", "auth", "flushall", "config"]
        .iter()
        .any(|ours| name == *ours || name.starts_with(&format!("{ours}|")))
}

/// What the script that leaves a sign of life calls, a number of times for each `ZADD`.
const OF_A_SIGN: [(&str, u64); 5] =
    [("zadd", 1), ("zremrangebyscore", 2), ("pexpire", 1), ("zcard", 1), ("time", 1)];

/// Redis counts what a script calls as commands of their own. What signs of life call is known; once
/// another script has run, the commands that scripts of counters call are taken to be theirs.
fn sent(info: &str) -> u64 {
    const CALLED: [&str; 5] = ["get", "mget", "set", "incrby", "expire"];
    let all = || info.lines().filter_map(calls).filter(|(name, _)| counts(name));
    let of = |names: &[&str]| -> u64 {
        all().filter(|(name, _)| names.contains(name)).map(|(_, calls)| calls).sum()
    };
    let signs = of(&["zadd"]);
    let scripts = of(&["evalsha", "eval", "fcall"]).saturating_sub(signs);
    let total: u64 = all()
        .filter(|(name, _)| scripts == 0 || !CALLED.contains(name))
        .map(|(_, calls)| calls)
        .sum();
    total.saturating_sub(OF_A_SIGN.iter().map(|(_, times)| times * signs).sum())
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

/// Removes every key and forgets the counts of commands.
///
/// # Errors
/// When Redis does not answer.
pub fn flush(address: SocketAddr) -> Result<()> {
    ask(address, "FLUSHALL SYNC")?;
    ask(address, "CONFIG RESETSTAT").map(drop)
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
        let plain = "cmdstat_incrby:calls=12,usec=1\ncmdstat_expire:calls=2,usec=1\n";
        assert_eq!(sent(plain), 14);
        let scripted = format!(
            "{plain}cmdstat_evalsha:calls=5,usec=1\ncmdstat_time:calls=2,usec=1\n\
             cmdstat_info:calls=9,x\n"
        );
        assert_eq!(sent(&scripted), 7);
        // A replica's sign of life is a script and says nothing of how hits are counted.
        let signs = "cmdstat_evalsha:calls=3,u\ncmdstat_zadd:calls=3,u\ncmdstat_zcard:calls=3,u\n\
                     cmdstat_zremrangebyscore:calls=6,u\ncmdstat_pexpire:calls=3,u\n\
                     cmdstat_time:calls=4,u\n";
        assert_eq!(sent(&format!("{plain}{signs}")), 14 + 3 + 1);
    }

    #[test]
    fn answers_are_read_whole() {
        assert_eq!(whole(b"+OK\r\n"), Some("+OK".to_owned()));
        assert_eq!(whole(b"$5\r\nab"), None);
        assert_eq!(whole(b"$2\r\nab\r\n"), Some("ab".to_owned()));
    }
}
