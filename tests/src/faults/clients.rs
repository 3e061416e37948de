//! Clients that number their points, send each write again until it is acknowledged, and keep what
//! they were told meanwhile.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Plan;
use crate::http::{Http, Reply};
use crate::wait::wait_for;

/// The measurement of all points.
pub const MEASUREMENT: &str = "numbered";
/// When the first point of a tenant happened; the others follow by a microsecond each.
pub const FIRST_NS: u64 = 1_790_000_000_000_000_000;
/// From one point to the next.
pub const STEP_NS: u64 = 1_000;
/// How many series a tenant has.
const SERIES: u64 = 16;
/// How long a client waits after a refusal, whatever the answer asks for.
const PAUSE_MAX: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Without a single acknowledgement for so long the edge does not recover.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// The clients of all tenants.
pub struct Clients {
    tenants: Vec<Tenant>,
    of_each: u64,
    write_points: u64,
    clients: usize,
    /// Between two writes of one client.
    interval: Option<Duration>,
    acknowledged: AtomicU64,
    /// Writes that a client has begun and that are not acknowledged.
    under_way: AtomicU64,
    resting: watch::Sender<bool>,
    /// Who was killed last.
    killed: Mutex<Option<&'static str>>,
}

struct Tenant {
    name: String,
    /// The first number that no client has taken.
    next: AtomicU64,
    state: Mutex<Heard>,
}

/// What the clients of a tenant were told.
struct Heard {
    last_acknowledged: Instant,
    noticed: Noticed,
}

/// What clients noticed.
#[derive(Clone, Debug, Default)]
pub struct Noticed {
    /// Points that were answered 204; each counts once.
    pub acknowledged: u64,
    /// Writes that were answered otherwise, by status and words, or not at all.
    pub refused: BTreeMap<String, u64>,
    /// The longest time in which a tenant had no acknowledgement although it had sent something.
    pub longest_silence: Duration,
    /// The same by who had been killed last when it ended.
    pub silence_after: BTreeMap<&'static str, Duration>,
}

impl Noticed {
    fn merge(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        for (reason, count) in &other.refused {
            *self.refused.entry(reason.clone()).or_default() += count;
        }
        self.longest_silence = self.longest_silence.max(other.longest_silence);
        for (killed, silence) in &other.silence_after {
            self.was_silent(Some(killed), *silence);
        }
    }

    fn was_silent(&mut self, killed: Option<&'static str>, silence: Duration) {
        self.longest_silence = self.longest_silence.max(silence);
        if let Some(killed) = killed {
            let longest = self.silence_after.entry(killed).or_default();
            *longest = (*longest).max(silence);
        }
    }
}

impl Clients {
    /// Of these tenants; none sends yet.
    pub fn new(plan: &Plan, tenants: impl Iterator<Item = String>) -> Self {
        let tenant = |name| Tenant {
            name,
            next: AtomicU64::new(0),
            state: Mutex::new(Heard {
                last_acknowledged: Instant::now(),
                noticed: Noticed::default(),
            }),
        };
        let tenants: Vec<Tenant> = tenants.map(tenant).collect();
        let at_once = (tenants.len() * plan.clients) as u64 * plan.write_points.max(1);
        let interval = plan
            .per_second
            .map(|rate| Duration::from_secs_f64(at_once as f64 / rate.max(1) as f64));
        Self {
            tenants,
            interval,
            of_each: plan.of_each_tenant(),
            write_points: plan.write_points.max(1),
            clients: plan.clients,
            acknowledged: AtomicU64::new(0),
            under_way: AtomicU64::new(0),
            resting: watch::Sender::new(false),
            killed: Mutex::new(None),
        }
    }

    /// Lets them send until every point is acknowledged.
    pub fn start(self: &Arc<Self>, url: &str, keys: &[(String, String)]) -> JoinSet<()> {
        let mut sending = JoinSet::new();
        for (tenant, (key, _)) in keys.iter().enumerate() {
            for _ in 0..self.clients {
                let (clients, url) = (Arc::clone(self), url.to_owned());
                let token = format!("Token {key}");
                sending.spawn(async move { clients.send(tenant, &url, &token).await });
            }
        }
        sending
    }

    /// The names of the tenants.
    pub fn tenants(&self) -> impl Iterator<Item = &str> {
        self.tenants.iter().map(|tenant| tenant.name.as_str())
    }

    /// Points of one tenant.
    pub fn of_each_tenant(&self) -> u64 {
        self.of_each
    }

    /// Points acknowledged so far.
    pub fn count(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Whether nothing is left to be acknowledged.
    pub fn are_done(&self) -> bool {
        self.count() >= self.of_each * self.tenants.len() as u64
    }

    /// Waits until so many more points are acknowledged, or all are.
    ///
    /// # Errors
    /// When there is none for a long time.
    pub async fn acknowledged(
        &self,
        more: u64,
        progress: &dyn Fn(&str, u64),
        what: &str,
    ) -> Result<()> {
        let goal = self.count() + more;
        let (mut last, mut since) = (self.count(), Instant::now());
        while last < goal && !self.are_done() {
            tokio::time::sleep(Duration::from_millis(25)).await;
            progress(what, last);
            match self.count() {
                now if now > last => (last, since) = (now, Instant::now()),
                _ if since.elapsed() > SILENCE_MAX => {
                    bail!("{what}: no point was acknowledged for {} s", SILENCE_MAX.as_secs())
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Lets nobody begin a write, and waits for those under way. Gives the points acknowledged.
    ///
    /// # Errors
    /// When one does not end.
    pub async fn rest(&self) -> Result<u64> {
        self.resting.send_replace(true);
        wait_for("the writes under way", SILENCE_MAX, async || {
            (self.under_way.load(Ordering::SeqCst) == 0).then_some(())
        })
        .await?;
        Ok(self.count())
    }

    /// After a rest, which is no silence.
    pub fn go_on(&self) {
        for tenant in &self.tenants {
            tenant.heard().last_acknowledged = Instant::now();
        }
        self.resting.send_replace(false);
    }

    /// Silences that end from now on are put down to this one.
    pub fn somebody_dies(&self, name: &'static str) {
        *self.killed.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
    }

    /// What all of them noticed.
    pub fn noticed(&self) -> Noticed {
        let mut all = Noticed::default();
        for tenant in &self.tenants {
            all.merge(&tenant.heard().noticed);
        }
        all
    }

    async fn send(&self, tenant: usize, url: &str, token: &str) {
        let tenant = &self.tenants[tenant];
        let http = Http::new();
        // Late writes follow at once: what waited for an outage is sent when it is over.
        let mut ticks = self.interval.map(tokio::time::interval);
        let mut resting = self.resting.subscribe();
        loop {
            if let Some(ticks) = &mut ticks {
                ticks.tick().await;
            }
            self.under_way.fetch_add(1, Ordering::SeqCst);
            if *resting.borrow() {
                self.under_way.fetch_sub(1, Ordering::SeqCst);
                // The sender lives as long as the clients.
                let _ = resting.wait_for(|resting| !resting).await;
                continue;
            }
            let first = tenant.next.fetch_add(self.write_points, Ordering::Relaxed);
            if first >= self.of_each {
                self.under_way.fetch_sub(1, Ordering::SeqCst);
                return;
            }
            let body = points(first, self.write_points);
            while let Err(pause) = self.write(tenant, &http, url, token, &body).await {
                tokio::time::sleep(pause).await;
            }
            self.under_way.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Writes once; `Err` is how long to wait for the next try.
    async fn write(
        &self,
        tenant: &Tenant,
        http: &Http,
        url: &str,
        token: &str,
        body: &str,
    ) -> Result<(), Duration> {
        let reply = http.post(url, &[("authorization", token)], body.to_owned()).await;
        let mut heard = tenant.heard();
        if reply.as_ref().is_ok_and(|reply| reply.status == 204) {
            let now = Instant::now();
            let silence = now.duration_since(heard.last_acknowledged);
            heard.last_acknowledged = now;
            let killed = *self.killed.lock().unwrap_or_else(PoisonError::into_inner);
            heard.noticed.was_silent(killed, silence);
            heard.noticed.acknowledged += self.write_points;
            self.acknowledged.fetch_add(self.write_points, Ordering::Relaxed);
            return Ok(());
        }
        let (reason, pause) = match &reply {
            Ok(reply) => (reason(reply), pause(reply)),
            Err(_) => ("no answer, or none that was whole".to_owned(), PAUSE_MIN),
        };
        *heard.noticed.refused.entry(reason).or_default() += 1;
        Err(pause)
    }
}

impl Tenant {
    fn heard(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Line protocol of some points, each with its number as its value.
fn points(first: u64, count: u64) -> String {
    let mut lines = String::with_capacity(count as usize * 64);
    for number in first..first + count {
        let (series, time) = (number % SERIES, FIRST_NS + number * STEP_NS);
        // Writing into a String cannot fail.
        let _ = writeln!(lines, "{MEASUREMENT},series=s{series:02} n={number}i {time}");
    }
    lines
}

/// Status and words of a refusal, without what differs from one to the next.
fn reason(reply: &Reply) -> String {
    let text = reply.text();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let words = json["message"].as_str().or(json["error"].as_str()).unwrap_or(text.trim());
    let words: String = words.chars().filter(|char| !char.is_ascii_digit()).take(70).collect();
    format!("{} {}", reply.status.as_u16(), words.trim())
}

fn pause(reply: &Reply) -> Duration {
    let asked = reply.header("retry-after").and_then(|seconds| seconds.parse().ok());
    asked.map_or(PAUSE_MIN, Duration::from_secs).clamp(PAUSE_MIN, PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_says_its_number() {
        let lines = points(16, 2);
        assert_eq!(
            lines,
            "numbered,series=s00 n=16i 1790000000000016000\n\
             numbered,series=s01 n=17i 1790000000000017000\n"
        );
    }
}
