//! The metrics to a statsd or dogstatsd server, under the names of the reference.
//!
//! Nothing is sent where a request is decided: every `STATS_FLUSH_INTERVAL` what was counted since
//! the last time goes out over one TCP connection or in a few datagrams. A server that is away costs a count of errors and
//! one warning, and what was counted meanwhile.

use std::collections::HashMap;
use std::fmt::Write;
use std::io::{BufWriter, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use cadence::{BufferedUdpMetricSink, MetricSink};

use crate::limits::stats::KINDS;
use crate::metrics::Metrics;
use crate::metrics::latency::SAMPLES_MAX;
use crate::metrics::mogrifier::{Mogrifier, mogrify};
use crate::metrics::reference::sanitized;
use crate::metrics::rules::RULES_MAX;

/// The most bytes of a datagram, and of a line over TCP: what fits an Ethernet frame.
pub const DATAGRAM_BYTES_MAX: usize = 1432;

/// How long a full socket may hold up one datagram, or one write to a connection.
const SEND_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Where metrics are sent, and how they are written.
#[derive(Clone, Debug, PartialEq)]
pub struct StatsdSettings {
    /// `STATSD_HOST`
    pub host: String,
    /// `STATSD_PORT`
    pub port: u16,
    /// `STATSD_PROTOCOL`
    pub protocol: Protocol,
    /// Statsd or dogstatsd.
    pub dialect: Dialect,
    /// `EXTRA_TAGS`, sorted.
    pub extra_tags: Vec<(String, String)>,
    /// `STATS_FLUSH_INTERVAL`
    pub interval: Duration,
}

/// What metrics travel over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// One connection for each flush: what cannot be sent is noticed.
    Tcp,
    /// Datagrams: a server that is away is not noticed.
    Udp,
}

/// How a metric is written.
#[derive(Clone, Debug, PartialEq)]
pub enum Dialect {
    /// Tags are part of the name: `name.__key=value:1|c`.
    Statsd,
    /// Tags have their own place, `name:1|c|#key:value`, and some come from the name.
    DogStatsd(Vec<Mogrifier>),
}

/// One metric as of a flush.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// As the reference names it.
    pub name: String,
    /// What it says.
    pub value: Value,
}

/// What a metric says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// So many more.
    Counter(u64),
    /// A duration in microseconds, one of so many.
    Timer {
        /// How long.
        micros: u32,
        /// The share of all durations that are sent.
        rate: f64,
    },
}

/// What was reported already.
#[derive(Debug, Default)]
pub struct Reported {
    counters: HashMap<String, u64>,
    observed: u64,
}

impl Reported {
    /// What is new since the last call.
    pub fn samples(&mut self, metrics: &Metrics) -> Vec<Sample> {
        let mut samples = Vec::new();
        for (name, count) in counters(metrics) {
            self.counter(&name, count, &mut samples);
        }
        let new = metrics.duration.observed() - self.observed;
        self.observed += new;
        let newest = metrics.duration.newest(new);
        let rate = newest.len() as f64 / new.max(1) as f64;
        let timer = |micros| Sample {
            name: RESPONSE_TIME.to_owned(),
            value: Value::Timer { micros, rate },
        };
        samples.extend(newest.into_iter().map(timer));
        samples
    }

    fn counter(&mut self, name: &str, count: u64, samples: &mut Vec<Sample>) {
        let reported = self.counters.get(name).copied().unwrap_or(0);
        if count > reported {
            self.counters.insert(name.to_owned(), count);
            samples.push(Sample { name: name.to_owned(), value: Value::Counter(count - reported) });
        }
    }
}

/// The name of what is sent of durations.
pub const RESPONSE_TIME: &str = "ratelimit_server.ShouldRateLimit.response_time";

/// What was counted since the start, by the names of the reference: the totals, and of rules what is
/// not zero.
pub fn counters(metrics: &Metrics) -> Vec<(String, u64)> {
    let totals = metrics.totals();
    let mut counters: Vec<(String, u64)> = [
        ("ratelimit_server.ShouldRateLimit.total_requests", totals.requests),
        ("ratelimit.service.config_load_success", totals.config_load_success),
        ("ratelimit.service.config_load_error", totals.config_load_error),
        ("ratelimit.service.global_shadow_mode", totals.global_shadow_mode),
        ("ratelimit.service.call.should_rate_limit.redis_error", totals.store_errors),
        ("ratelimit.service.call.should_rate_limit.service_error", totals.service_errors),
        ("ratelimit.service.rate_limit.unknown.domain_not_found", totals.domain_not_found),
    ]
    .map(|(name, count)| (name.to_owned(), count))
    .into();
    // Two rules may have one name when it is written for the wire.
    let mut sums: HashMap<String, u64> = HashMap::new();
    for counts in metrics.rules.all() {
        let (domain, rule) = (sanitized(&counts.domain), sanitized(&counts.rule));
        for ((_, kind), hits) in KINDS.iter().zip(counts.hits()).filter(|(_, n)| *n > 0) {
            let name = format!("ratelimit.service.rate_limit.{domain}.{rule}.{kind}");
            *sums.entry(name).or_default() += hits;
        }
    }
    counters.extend(sums);
    counters
}

/// The most samples of one flush.
pub const SAMPLES_OF_A_FLUSH_MAX: usize = (RULES_MAX + 1) * KINDS.len() + 7 + SAMPLES_MAX;

impl Dialect {
    /// The sample as a line of the wire.
    pub fn line(&self, sample: &Sample, extra_tags: &[(String, String)]) -> String {
        let mut line = String::new();
        let mut tags = Vec::new();
        match self {
            Dialect::Statsd => {
                line += &sample.name;
                for (key, value) in extra_tags {
                    line += &format!(".__{key}={value}");
                }
            }
            Dialect::DogStatsd(mogrifiers) => {
                let (name, own) = mogrify(mogrifiers, &sample.name);
                line += &name;
                tags = [extra_tags, &own].concat();
            }
        }
        let written = match sample.value {
            Value::Counter(count) => write!(line, ":{count}|c"),
            Value::Timer { micros, rate } => {
                let millis = f64::from(micros) / 1e3;
                let sampled = if rate < 1.0 { format!("|@{rate}") } else { String::new() };
                write!(line, ":{millis}|ms{sampled}")
            }
        };
        written.expect("writing to memory does not fail");
        for (at, (key, value)) in tags.iter().enumerate() {
            line += if at == 0 { "|#" } else { "," };
            line += &format!("{key}:{value}");
        }
        line
    }
}

/// Sends what is counted.
pub struct Exporter {
    metrics: Arc<Metrics>,
    settings: StatsdSettings,
    reported: Reported,
    failing: bool,
}

impl Exporter {
    /// Sends `metrics` by `settings`.
    pub fn new(metrics: Arc<Metrics>, settings: StatsdSettings) -> Self {
        Self { metrics, settings, reported: Reported::default(), failing: false }
    }

    /// How often to call [`Exporter::flush`].
    pub fn interval(&self) -> Duration {
        self.settings.interval
    }

    /// Sends what is new. Blocks for the name of the host and for the socket; never fails.
    pub fn flush(&mut self) {
        let samples = self.reported.samples(&self.metrics);
        let sent = if samples.is_empty() { Ok(()) } else { self.send(&samples) };
        if let Err(error) = &sent {
            self.metrics.statsd_errors.inc();
            if !self.failing {
                let StatsdSettings { host, port, .. } = &self.settings;
                tracing::warn!(%error, host, port, "metrics cannot be sent to statsd");
            }
        }
        self.failing = sent.is_err();
    }

    fn send(&self, samples: &[Sample]) -> std::io::Result<()> {
        // Looked up anew each time: a host may come late, and move.
        let mut found = (self.settings.host.as_str(), self.settings.port).to_socket_addrs()?;
        match self.settings.protocol {
            Protocol::Tcp => self.send_stream(connect(found)?, samples),
            Protocol::Udp => self.send_datagrams(found.next().ok_or_else(no_address)?, samples),
        }
    }

    fn send_stream(&self, stream: TcpStream, samples: &[Sample]) -> std::io::Result<()> {
        stream.set_write_timeout(Some(SEND_TIMEOUT))?;
        let mut stream = BufWriter::new(stream);
        for line in self.lines(samples) {
            writeln!(stream, "{line}")?;
        }
        stream.flush()
    }

    fn send_datagrams(&self, host: SocketAddr, samples: &[Sample]) -> std::io::Result<()> {
        let any: SocketAddr = match host {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0; 16], 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        let sink = BufferedUdpMetricSink::with_capacity(host, socket, DATAGRAM_BYTES_MAX)
            .map_err(std::io::Error::other)?;
        for line in self.lines(samples) {
            sink.emit(&line)?;
        }
        sink.flush()
    }

    /// A line beyond the bound would be cut on the way, so it is left out.
    fn lines<'a>(&'a self, samples: &'a [Sample]) -> impl Iterator<Item = String> + 'a {
        let StatsdSettings { dialect, extra_tags, .. } = &self.settings;
        let lines = samples.iter().map(|sample| dialect.line(sample, extra_tags));
        lines.filter(|line| line.len() < DATAGRAM_BYTES_MAX)
    }
}

/// A connection to the first address that accepts one.
fn connect(addresses: impl Iterator<Item = SocketAddr>) -> std::io::Result<TcpStream> {
    let mut refused = no_address();
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn no_address() -> std::io::Error {
    std::io::Error::other("the host has no address")
}

#[cfg(test)]
mod tests;
