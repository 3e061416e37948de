//! The domain that is meant where none is named: the only one there is.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::limits::quotas::Quotas;

/// The largest page that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// The only domain of quota files.
///
/// # Errors
/// When there is none, or a choice.
pub fn of_quotas(quotas: &Quotas) -> Result<&str, String> {
    let domains = quotas.domains();
    match domains[..] {
        [domain] => Ok(&domain.name),
        _ => Err(choose(domains.iter().map(|domain| &*domain.name))),
    }
}

/// The only domain of a service, by its page `/config`.
///
/// # Errors
/// When it cannot be asked, has none, or a choice.
pub fn of_service(admin: &str, timeout: Duration) -> Result<String, String> {
    let page = get(admin, "/config", timeout)
        .map_err(|error| format!("give --domain, as {admin} cannot be asked for it: {error}"))?;
    let page: serde_json::Value = serde_json::from_str(&page)
        .map_err(|_| format!("give --domain, as {admin} does not show its configuration"))?;
    let domains = page["rules_by_domain"].as_object();
    let domains: Vec<&str> =
        domains.into_iter().flatten().map(|(domain, _)| domain.as_str()).collect();
    match domains[..] {
        [domain] => Ok(domain.to_owned()),
        _ => Err(choose(domains.into_iter())),
    }
}

fn choose<'a>(domains: impl Iterator<Item = &'a str>) -> String {
    let domains: Vec<&str> = domains.collect();
    match domains.is_empty() {
        true => "give --domain: there is none to take".to_owned(),
        false => format!("give --domain, one of {}", domains.join(", ")),
    }
}

/// The body of a page.
fn get(at: &str, path: &str, timeout: Duration) -> Result<String, std::io::Error> {
    let other = |problem: &str| std::io::Error::other(problem.to_owned());
    let address = at.to_socket_addrs()?.next().ok_or_else(|| other("no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    let head = format!("GET {path} HTTP/1.0\r\nhost: {at}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| other("no HTTP"))?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ => Err(other(head.lines().next().unwrap_or_default())),
    }
}
