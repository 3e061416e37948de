//! The connections of a listener and what each of them is doing. Pure: time is an argument, and
//! closing is left to the caller.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// How many connections a listener holds, and how long each may stay in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections_max: usize,
    /// Connections at once that have not brought a request yet.
    pub silent_max: usize,
    /// Connections at once of one peer.
    pub peer_max: usize,
    /// From accepting a connection to the whole head of its first request.
    pub head: Duration,
    /// From the end of an answer to the next request.
    pub idle: Duration,
    /// From the head of a request to the end of its answer.
    pub request: Duration,
}

impl Limits {
    /// The usual times, and shares of `connections_max` that leave room for others.
    pub fn of(connections_max: usize) -> Self {
        Self {
            connections_max,
            silent_max: (connections_max / 4).max(1),
            peer_max: connections_max.div_ceil(2),
            head: Duration::from_secs(15),
            idle: Duration::from_secs(300),
            request: Duration::from_secs(300),
        }
    }
}

/// Who holds a connection: an address, or for IPv6 the network of 64 bits that one customer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// By address.
    Address(IpAddr),
    /// Processes of this machine on a unix socket.
    Local,
}

impl From<IpAddr> for Peer {
    fn from(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        })
    }
}

/// What a newcomer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// There is a slot; `evicted` is to be closed, and is not in the table any more.
    Admitted {
        /// The new connection.
        id: u64,
        /// The one that made room.
        evicted: Option<u64>,
    },
    /// All slots are busy; wait until one is released or idle.
    Full,
    /// All slots of this peer are busy; close the newcomer.
    PeerFull,
}

/// The connections of one listener.
#[derive(Debug)]
pub struct Table {
    limits: Limits,
    entries: HashMap<u64, Entry>,
    next_id: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    peer: Peer,
    open_requests: u32,
    has_spoken: bool,
    /// Since when the connection is in its state.
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Silent,
    Idle,
    Busy,
}

impl Entry {
    fn state(&self) -> State {
        match (self.open_requests, self.has_spoken) {
            (0, false) => State::Silent,
            (0, true) => State::Idle,
            _ => State::Busy,
        }
    }
}

impl Table {
    /// No connections.
    pub fn new(limits: Limits) -> Self {
        Self { limits, entries: HashMap::new(), next_id: 0 }
    }

    /// A connection of `peer` was accepted.
    pub fn admit(&mut self, peer: Peer, now: Instant) -> Admission {
        let of_peer = self.entries.values().filter(|entry| entry.peer == peer).count();
        let silent = self.entries.values().filter(|entry| entry.state() == State::Silent).count();
        let evicted = if of_peer >= self.limits.peer_max {
            let Some(id) = self.quietest(State::Idle, Some(peer)) else {
                return Admission::PeerFull;
            };
            Some(id)
        } else if self.entries.len() >= self.limits.connections_max {
            let Some(id) = self.quietest(State::Idle, None) else { return Admission::Full };
            Some(id)
        } else if silent >= self.limits.silent_max {
            self.quietest(State::Silent, None)
        } else {
            None
        };
        if let Some(id) = evicted {
            self.entries.remove(&id);
        }
        let id = self.next_id;
        self.next_id += 1;
        let entry = Entry { peer, open_requests: 0, has_spoken: false, since: now };
        self.entries.insert(id, entry);
        Admission::Admitted { id, evicted }
    }

    /// Takes out the connection that others can best do without, if there is one without an open
    /// request: for when the system has no more file descriptors.
    pub fn relieve(&mut self) -> Option<u64> {
        let id = self.quietest(State::Idle, None)?;
        self.entries.remove(&id);
        Some(id)
    }

    /// The head of a request has come.
    pub fn begun(&mut self, id: u64, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&id) {
            if entry.open_requests == 0 {
                entry.since = now;
            }
            entry.open_requests += 1;
            entry.has_spoken = true;
        }
    }

    /// An answer has ended; whether the connection is now idle.
    pub fn ended(&mut self, id: u64, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else { return false };
        entry.open_requests = entry.open_requests.saturating_sub(1);
        // With others still open the time starts anew: it bounds a connection on which nothing
        // ends any more.
        entry.since = now;
        entry.open_requests == 0
    }

    /// The connection is closed.
    pub fn released(&mut self, id: u64) {
        self.entries.remove(&id);
    }

    /// When the connection has been in its state for too long; `None` once it is not in the table.
    pub fn expires_at(&self, id: u64) -> Option<Instant> {
        let entry = self.entries.get(&id)?;
        let limit = match entry.state() {
            State::Silent => self.limits.head,
            State::Idle => self.limits.idle,
            State::Busy => self.limits.request,
        };
        Some(entry.since + limit)
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Of the peer that holds the most connections in states up to `most`, the one to close first:
    /// silent before idle, and then the longest in its state.
    fn quietest(&self, most: State, of: Option<Peer>) -> Option<u64> {
        let mut held: HashMap<Peer, usize> = HashMap::new();
        let candidates = || {
            let quiet = self.entries.iter().filter(move |(_, entry)| entry.state() <= most);
            quiet.filter(move |(_, entry)| of.is_none_or(|peer| entry.peer == peer))
        };
        for (_, entry) in candidates() {
            *held.entry(entry.peer).or_default() += 1;
        }
        let first = candidates().min_by_key(|(id, entry)| {
            (std::cmp::Reverse(held[&entry.peer]), entry.state(), entry.since, **id)
        });
        first.map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn peer(number: u8) -> Peer {
        Peer::from(IpAddr::from([10, 0, 0, number]))
    }

    fn limits(connections_max: usize, silent_max: usize, peer_max: usize) -> Limits {
        Limits { silent_max, peer_max, ..Limits::of(connections_max) }
    }

    #[test]
    fn a_silent_flood_takes_no_slot_from_others() {
        let start = Instant::now();
        let mut table = Table::new(limits(100, 10, 50));
        let Admission::Admitted { id: other, .. } = table.admit(peer(2), start) else {
            panic!("the first is admitted")
        };
        for number in 0..1000 {
            let Admission::Admitted { evicted, .. } = table.admit(peer(1), start + SECOND) else {
                panic!("connection {number} was not admitted")
            };
            assert_ne!(evicted, Some(other), "older, but not of the peer that holds the most");
        }
        assert_eq!(table.len(), 10);
        assert!(table.expires_at(other).is_some());
    }

    #[test]
    fn idle_ones_make_room_and_busy_ones_never_do() {
        let start = Instant::now();
        let mut table = Table::new(limits(3, 3, 3));
        let admit = |table: &mut Table, peer| match table.admit(peer, start) {
            Admission::Admitted { id, evicted } => (id, evicted),
            other => panic!("{other:?}"),
        };
        let ids = [1, 1, 2].map(|number| admit(&mut table, peer(number)).0);
        for id in ids {
            table.begun(id, start);
        }
        assert_eq!(table.admit(peer(3), start), Admission::Full);
        assert_eq!(table.relieve(), None);
        table.begun(ids[2], start);
        assert!(!table.ended(ids[2], start), "one of two is still open");
        assert_eq!(table.admit(peer(3), start), Admission::Full);
        assert!(table.ended(ids[2], start) && table.ended(ids[0], start + SECOND));
        assert_eq!(admit(&mut table, peer(3)).1, Some(ids[2]), "idle for longest");
        let silent = table.entries.iter().find(|(_, entry)| entry.state() == State::Silent);
        let silent = *silent.expect("the newcomer").0;
        assert_eq!(admit(&mut table, peer(3)).1, Some(silent), "silent ones go first");
        table.released(ids[1]);
        assert_eq!((admit(&mut table, peer(3)).1, table.len()), (None, 3));
    }

    #[test]
    fn a_peer_has_its_share() {
        let start = Instant::now();
        let mut table = Table::new(limits(10, 10, 2));
        for _ in 0..2 {
            let Admission::Admitted { id, .. } = table.admit(peer(1), start) else { panic!() };
            table.begun(id, start);
        }
        assert_eq!(table.admit(peer(1), start), Admission::PeerFull);
        assert!(matches!(table.admit(peer(2), start), Admission::Admitted { evicted: None, .. }));
    }

    #[test]
    fn every_state_has_its_time() {
        let start = Instant::now();
        let limits =
            Limits { head: SECOND, idle: SECOND * 2, request: SECOND * 3, ..Limits::of(4) };
        let mut table = Table::new(limits);
        let Admission::Admitted { id, .. } = table.admit(peer(1), start) else { panic!() };
        assert_eq!(table.expires_at(id), Some(start + SECOND));
        table.begun(id, start + SECOND);
        assert_eq!(table.expires_at(id), Some(start + SECOND * 4));
        table.begun(id, start + SECOND * 2);
        assert_eq!(table.expires_at(id), Some(start + SECOND * 4), "the first still waits");
        table.ended(id, start + SECOND * 3);
        table.ended(id, start + SECOND * 3);
        assert_eq!(table.expires_at(id), Some(start + SECOND * 5));
        table.released(id);
        assert!(table.expires_at(id).is_none() && table.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_peer() {
        let peer = |text: &str| Peer::from(text.parse::<IpAddr>().expect("an address"));
        assert_eq!(peer("2001:db8::1"), peer("2001:db8::2:1"));
        assert_ne!(peer("2001:db8::1"), peer("2001:db8:0:1::1"));
        assert_eq!(peer("::ffff:10.0.0.1"), peer("10.0.0.1"));
        assert_ne!(peer("10.0.0.1"), peer("10.0.0.2"));
    }
}
