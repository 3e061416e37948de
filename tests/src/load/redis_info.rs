//! How much work Redis was given, by its own count.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

const TIMEOUT: Duration = Duration::from_secs(5);

/// How often each command was called since the start, by clients and by scripts alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls(BTreeMap<String, u64>);

/// Reads how often each command was called.
///
/// # Errors
/// When Redis does not answer.
pub fn calls(address: SocketAddr) -> Result<Calls> {
    Ok(parse(&ask(address, "INFO commandstats")?))
}

impl Calls {
    /// What was called between two readings.
    pub fn since(&self, before: &Self) -> Self {
        let more =
            |(name, calls): (&String, &u64)| (name.clone(), calls.saturating_sub(before.of(name)));
        Self(self.0.iter().map(more).collect())
    }

    fn of(&self, command: &str) -> u64 {
        self.0.get(command).copied().unwrap_or(0)
    }

    /// How many of these calls ratelimit-svc has sent. Redis counts a script, and what the script
    /// calls as well, which nobody has sent. The set of replicas is only touched by the script that
    /// counts them, and with it goes one that tells data apart; counters are touched either by
    /// scripts or by commands, for one workload.
    ///
    /// ```text
    /// sign of life    EVALSHA  ( TIME ZADD ZREMRANGEBYSCORE 2x PEXPIRE ZCARD )
    /// which data      EVALSHA  ( TIME GET )
    /// probe           SET TIME
    /// look            TIME     over the connection of each thread
    /// decision        EVALSHA  ( MGET GET INCRBY SET SETRANGE EXPIRE )    or  INCRBY EXPIRE GET
    /// ```
    pub fn sent(&self) -> u64 {
        const OURS: [&str; 5] = ["info", "ping", "hello", "client", "auth"];
        const OF_SIGNS: [&str; 4] = ["zadd", "zremrangebyscore", "pexpire", "zcard"];
        const OF_DECISIONS: [&str; 6] = ["mget", "get", "incrby", "set", "setrange", "expire"];
        // A few signs more or less than readings of the data are in a stretch, and a GET of each
        // connection that was made in it.
        const FEW: u64 = 16;
        let signs = self.of("zcard");
        let scripts = (self.of("evalsha") + self.of("eval")).saturating_sub(signs);
        let by_script = self.of("mget") > 0 || self.of("get") > 3 * signs + FEW;
        let readings = if by_script { signs.min(scripts) } else { scripts };
        let sent = |(name, calls): (&String, &u64)| match name.as_str() {
            ours if OURS.contains(&ours) || OF_SIGNS.contains(&ours) => 0,
            "time" => calls.saturating_sub(signs + readings),
            "set" if by_script => signs.min(*calls),
            inside if by_script && OF_DECISIONS.contains(&inside) => 0,
            "get" => calls.saturating_sub(readings),
            _ => *calls,
        };
        self.0.iter().map(sent).sum()
    }
}

/// Reads lines as `cmdstat_get:calls=3,usec=…`; of `client|setname` the first word counts.
fn parse(info: &str) -> Calls {
    let mut calls = BTreeMap::new();
    for line in info.lines() {
        let Some((name, rest)) =
            line.strip_prefix("cmdstat_").and_then(|line| line.split_once(":calls="))
        else {
            continue;
        };
        let command = name.split('|').next().unwrap_or(name);
        let count: Option<u64> = rest.split(',').next().and_then(|count| count.parse().ok());
        *calls.entry(command.to_owned()).or_default() += count.unwrap_or(0);
    }
    Calls(calls)
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

    fn of(pairs: &[(&str, u64)]) -> Calls {
        Calls(pairs.iter().map(|(name, calls)| ((*name).to_owned(), *calls)).collect())
    }

    #[test]
    fn readings_are_parsed_and_differenced() {
        let info = "# Commandstats\r\ncmdstat_incrby:calls=12,usec=3\r\n\
                    cmdstat_client|setname:calls=2,usec=1\r\ncmdstat_client|id:calls=1,usec=1\r\n";
        let calls = parse(info);
        assert_eq!(calls, of(&[("incrby", 12), ("client", 3)]));
        assert_eq!(calls.since(&of(&[("incrby", 5)])), of(&[("incrby", 7), ("client", 3)]));
        assert_eq!(calls.sent(), 12);
    }

    /// Five seconds of one replica with two threads.
    #[test]
    fn what_scripts_call_is_not_what_was_sent() {
        let signs = [
            ("evalsha", 10),
            ("get", 5),
            ("pexpire", 5),
            ("set", 5),
            ("time", 25),
            ("zadd", 5),
            ("zcard", 5),
            ("zremrangebyscore", 10),
        ];
        let with = |more: &[(&str, u64)]| {
            let mut calls = of(&signs);
            for (name, count) in more {
                *calls.0.entry((*name).to_owned()).or_default() += count;
            }
            calls.sent()
        };
        // Five times: a sign of life, which data, a probe of two commands, two looks.
        let idle = 5 * (1 + 1 + 2 + 2);
        assert_eq!(with(&[("info", 1)]), idle);
        let plain = [("incrby", 46), ("expire", 6), ("get", 3), ("info", 1)];
        assert_eq!(with(&plain), idle + 46 + 6 + 3, "claims of a counter of one class");
        let scripts =
            [("evalsha", 587), ("incrby", 334), ("mget", 587), ("set", 58), ("setrange", 336)];
        assert_eq!(with(&scripts), idle + 587, "claims of a counter of four classes");
        let exact = [("evalsha", 9000), ("get", 9000), ("incrby", 8000), ("expire", 5)];
        assert_eq!(with(&exact), idle + 9000, "one hit counted exactly");
    }

    #[test]
    fn answers_are_read_whole() {
        assert_eq!(whole(b"+OK\r\n"), Some("+OK".to_owned()));
        assert_eq!(whole(b"$5\r\nab"), None);
        assert_eq!(whole(b"$2\r\nab\r\n"), Some("ab".to_owned()));
    }
}
