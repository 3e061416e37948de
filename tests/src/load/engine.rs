//! The generator: one thread, non-blocking sockets and `poll`. It sends what is due, takes what has
//! come, and tells a tally. A server that is away, leaves, stalls or answers with an error ends the
//! run with an error: such a run has no figures.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU64;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::cpu;
use super::schedule::{Amount, Pace, Schedule};
use super::tally::{Exchange, Tally};
use super::traffic::Traffic;
use super::wire::{Answer, Connection};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// No answer for this long, with requests open, ends a run unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 64 << 10;

/// Where a load goes, and over how many connections.
#[derive(Clone, Debug)]
pub struct Target {
    /// Servers; connections are spread over them in turn.
    pub addresses: Vec<SocketAddr>,
    /// Connections in all.
    pub connections: usize,
    /// Requests in flight on each.
    pub streams: usize,
}

struct Flight {
    request: usize,
    intended: Duration,
    sent: Duration,
}

struct Link {
    address: SocketAddr,
    server: usize,
    socket: TcpStream,
    connection: Box<dyn Connection + Send>,
    out: Vec<u8>,
    flights: Vec<Option<Flight>>,
    free: Vec<u32>,
}

/// Connections and the traffic for them.
pub struct Engine {
    links: Vec<Link>,
    traffic: Traffic,
    turn: usize,
    input: Vec<u8>,
    answers: Vec<Answer>,
    patience: Duration,
}

impl Engine {
    /// Connects. `speak` makes the protocol of one connection out of its authority.
    ///
    /// # Errors
    /// When a server is not there.
    pub fn connect(
        target: &Target,
        traffic: Traffic,
        speak: impl Fn(&str) -> Box<dyn Connection + Send>,
    ) -> Result<Self> {
        let addresses = target.addresses.iter().enumerate().cycle().take(target.connections);
        let links = addresses.map(|(server, address)| {
            let context = || format!("cannot connect to {address}");
            let socket =
                TcpStream::connect_timeout(address, CONNECT_TIMEOUT).with_context(context)?;
            socket.set_nodelay(true).with_context(context)?;
            socket.set_nonblocking(true).with_context(context)?;
            let mut connection = speak(&address.to_string());
            let mut out = Vec::new();
            connection.greet(&mut out);
            let flights = std::iter::repeat_with(|| None).take(target.streams).collect();
            let free = (0..target.streams as u32).rev().collect();
            Ok(Link { address: *address, server, socket, connection, out, flights, free })
        });
        let links: Vec<Link> = links.collect::<Result<_>>()?;
        if links.is_empty() || target.streams == 0 {
            bail!("a load needs an address, a connection and a stream");
        }
        let (input, answers) = (vec![0; READ_BYTES], Vec::new());
        Ok(Self { links, traffic, turn: 0, input, answers, patience: PATIENCE })
    }

    /// How long the servers may be silent, with requests open, before the run has failed.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sends a load and waits for all of its answers.
    ///
    /// # Errors
    /// When anything but a verdict comes back, or nothing does.
    pub fn run(&mut self, pace: Pace, amount: Amount) -> Result<Tally> {
        // Sleeps end within a microsecond of their time instead of fifty; without the right to
        // that they end later, which late sends tell.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1_000));
        let mut schedule = Schedule::new(pace, amount);
        let own_cpu = cpu::this_thread()?;
        let (began, wall) = both_clocks();
        let mut tally = Tally::new(self.traffic.classes(), self.traffic.counters(), wall);
        let mut heard = began;
        loop {
            let due = self.send_due(&mut schedule, began);
            self.flush()?;
            if due.is_none() && self.in_flight() == 0 {
                break;
            }
            if self.in_flight() == 0 {
                heard = Instant::now();
            }
            let until_stall = self.patience.saturating_sub(heard.elapsed());
            if until_stall.is_zero() {
                let patience = self.patience.as_secs_f64();
                bail!("no answer from {} for {patience} s", self.silent());
            }
            let until_due = match due {
                Some(at) => at.saturating_sub(began.elapsed()).min(until_stall),
                None => until_stall,
            };
            if self.take_answers(until_due, began, &mut tally)? {
                heard = Instant::now();
            }
        }
        tally.elapsed = began.elapsed();
        tally.own_cpu = cpu::this_thread()?.saturating_sub(own_cpu);
        Ok(tally)
    }

    fn in_flight(&self) -> usize {
        self.links.iter().map(|link| link.flights.len() - link.free.len()).sum()
    }

    fn silent(&self) -> SocketAddr {
        let waits = |link: &&Link| link.free.len() < link.flights.len();
        self.links.iter().find(waits).map_or(self.links[0].address, |link| link.address)
    }

    /// Sends everything that is due and fits. Returns when the next is due, `None` after the last;
    /// a time that has passed means that every stream is taken and answers must come first.
    fn send_due(&mut self, schedule: &mut Schedule, began: Instant) -> Option<Duration> {
        let mut now = began.elapsed();
        loop {
            let intended = schedule.next(now)?;
            if intended > now {
                now = began.elapsed();
                if intended > now {
                    return Some(intended);
                }
            }
            let request = self.traffic.next();
            let message = &self.traffic.request(request).message;
            let links = self.links.len();
            let fits = |at: &usize| {
                let link = &self.links[*at];
                !link.free.is_empty() && link.connection.can_send(message)
            };
            let Some(at) = (0..links).map(|step| (self.turn + step) % links).find(fits) else {
                return Some(now + self.patience);
            };
            self.turn = at + 1;
            let link = &mut self.links[at];
            let Some(tag) = link.free.pop() else { return Some(now + self.patience) };
            link.connection.send(tag, message, &mut link.out);
            link.flights[tag as usize] = Some(Flight { request, intended, sent: now });
            self.traffic.advance();
            schedule.advance();
        }
    }

    fn flush(&mut self) -> Result<()> {
        for link in &mut self.links {
            while !link.out.is_empty() {
                match link.socket.write(&link.out) {
                    Ok(0) => bail!("{} closed the connection", link.address),
                    Ok(written) => drop(link.out.drain(..written)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(lost(link.address, error)),
                }
            }
        }
        Ok(())
    }

    /// Waits up to `timeout` and takes what has come. Whether anything was answered.
    fn take_answers(
        &mut self,
        timeout: Duration,
        began: Instant,
        tally: &mut Tally,
    ) -> Result<bool> {
        let mut polled: Vec<PollFd<'_>> = Vec::with_capacity(self.links.len());
        for link in &self.links {
            let mut events = PollFlags::IN;
            if !link.out.is_empty() {
                events |= PollFlags::OUT;
            }
            polled.push(PollFd::new(&link.socket, events));
        }
        let timeout = Timespec {
            tv_sec: timeout.as_secs() as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        match poll(&mut polled, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(error).context("poll"),
        }
        let ready: Vec<bool> =
            polled.iter().map(|fd| fd.revents().intersects(!PollFlags::OUT)).collect();
        let mut any = false;
        for (link, _) in self.links.iter_mut().zip(ready).filter(|(_, ready)| *ready) {
            link.receive(&mut self.input, &mut self.answers)?;
            let answered = began.elapsed();
            for answer in self.answers.drain(..) {
                any = true;
                link.settle(answer, answered, &self.traffic, tally)?;
            }
        }
        Ok(any)
    }
}

impl Link {
    fn receive(&mut self, input: &mut [u8], answers: &mut Vec<Answer>) -> Result<()> {
        let read = match self.socket.read(input) {
            Ok(0) => bail!("{} closed the connection during the run", self.address),
            Ok(read) => read,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                return Ok(());
            }
            Err(error) => return Err(lost(self.address, error)),
        };
        self.connection
            .receive(&input[..read], &mut self.out, answers)
            .with_context(|| format!("{}", self.address))
    }

    fn settle(
        &mut self,
        answer: Answer,
        answered: Duration,
        traffic: &Traffic,
        tally: &mut Tally,
    ) -> Result<()> {
        let flight = self.flights.get_mut(answer.tag as usize).and_then(Option::take);
        let flight = flight.context("an answer to a request that was not sent")?;
        self.free.push(answer.tag);
        let verdict = answer.verdict.map_err(|fault| {
            let good = tally.total().sent;
            anyhow!(fault).context(format!(
                "{} answered with an error after {good} good answers",
                self.address
            ))
        })?;
        let request = traffic.request(flight.request);
        tally.record(Exchange {
            class: request.class,
            counter: request.counter,
            server: self.server,
            intended: flight.intended,
            sent: flight.sent,
            answered,
            verdict,
        });
        Ok(())
    }
}

/// One moment on both clocks. A pause between two readings would shift every window by as much, so
/// the closest pair of several counts.
fn both_clocks() -> (Instant, SystemTime) {
    let read = || {
        let (before, wall) = (Instant::now(), SystemTime::now());
        (before.elapsed(), before, wall)
    };
    let closest = (0..8).map(|_| read()).min_by_key(|(apart, ..)| *apart);
    let (_, began, wall) = closest.expect("eight readings");
    (began, wall)
}

fn lost(address: SocketAddr, error: std::io::Error) -> anyhow::Error {
    anyhow!(error).context(format!("lost the connection to {address} during the run"))
}
