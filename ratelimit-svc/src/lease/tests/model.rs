//! Every schedule of a small world: few replicas with real slots, few requests, a counter, and
//! messages that arrive in any order, late or never. Replicas crash, drain, lose their store, and
//! have clocks of their own. What is restored holds in each state that can be reached.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use stateright::{Checker, Model, Property};

use super::hit;
use crate::lease::LeaseTerms;
use crate::lease::claim::{Claim, Grant, grant};
use crate::lease::loss::{Restoration, merged};
use crate::lease::slot::{Slot, Taken};

const WINDOWS: usize = 2;
const START_SECONDS: u64 = 1000;

/// The world and its bounds.
#[derive(Clone)]
struct World {
    replicas: usize,
    limit: u32,
    /// Requests that are admitted or refused.
    requests: u8,
    /// Claims on their way for requests that found too little, or early.
    claims: u8,
    faults: u8,
    /// Half windows a clock may show.
    halves: u8,
    /// Up to where each class is granted, highest first; one class is granted without a condition.
    caps: Vec<u64>,
    free_ppm: u32,
    /// Times the counters lose what they counted.
    losses: u8,
}

#[derive(Clone, Debug, PartialEq)]
struct State {
    replicas: Vec<Replica>,
    messages: Vec<Message>,
    counts: [u64; WINDOWS],
    /// What processes told counters that lost data.
    told: [BTreeMap<(usize, u8), u64>; WINDOWS],
    losses: u8,
    /// Whether one of them was of all data.
    forgot: bool,
    /// Counted once, and gone with the data while whoever was granted it lives on.
    lapsed: [u64; WINDOWS],
    /// Granted to processes that are no more.
    died: [u64; WINDOWS],
    admitted: [[u64; 2]; WINDOWS],
    returned: [bool; WINDOWS],
    requests: u8,
    claims: u8,
    faults: u8,
    /// Refused although the counter would have granted.
    wrongly_refused: bool,
    claimed_ahead: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Replica {
    slot: Option<Slot>,
    /// The first window this process has free tokens in.
    free_from: u64,
    half: u8,
    life: u8,
    /// Whether it knows of the last loss of all data; before that it has no connection.
    noticed: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Message {
    Claim { replica: usize, life: u8, claim: Claim },
    Answer { replica: usize, life: u8, claim: Claim, grant: Grant },
    Return { window: usize, amount: u64 },
    Assert { replica: usize, life: u8, restoration: Restoration },
    Asserted { replica: usize, life: u8, restoration: Restoration, count: u64 },
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    /// Asks for a hit; `is_cut_off` when the store cannot be reached.
    Request {
        replica: usize,
        class: usize,
        is_cut_off: bool,
    },
    /// Takes a hit that another counter of the request refuses.
    Undo {
        replica: usize,
    },
    Deliver(usize),
    Lose(usize),
    Crash(usize),
    Drain(usize),
    Tick(usize),
    /// The store comes back empty.
    Forget,
    /// The store goes on from an earlier state.
    Lapse,
    /// A replica is connected again.
    Notice(usize),
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for replica in &self.replicas {
            (replica.half, replica.life, replica.free_from, replica.noticed).hash(state);
            replica.slot.hash(state);
        }
        for message in &self.messages {
            message.order().hash(state);
        }
        (self.counts, self.admitted, self.requests, self.claims, self.faults).hash(state);
        (self.returned, self.wrongly_refused, self.claimed_ahead).hash(state);
        (&self.told, self.losses, self.forgot, self.lapsed, self.died).hash(state);
    }
}

impl Message {
    /// Tells messages apart, and sorts them: in which order they were sent does not matter.
    fn order(&self) -> (u8, usize, u8, u64, u64, u64, usize) {
        match self {
            Self::Claim { replica, life, claim } => {
                let (start, amount) = (claim.hit.window.start, claim.hit.amount);
                (0, *replica, *life, start, amount, 0, claim.class)
            }
            Self::Answer { replica, life, claim, grant } => {
                let (start, amount) = (claim.hit.window.start, claim.hit.amount);
                (1, *replica, *life, start, amount << 32 | grant.granted, grant.taken, claim.class)
            }
            Self::Return { window, amount } => (2, *window, 0, *amount, 0, 0, 0),
            Self::Assert { replica, life, restoration } => {
                let Restoration { hit, taken, .. } = restoration;
                (3, *replica, *life, hit.window.start, hit.amount, *taken, 0)
            }
            Self::Asserted { replica, life, restoration, count } => {
                let Restoration { hit, taken, .. } = restoration;
                (4, *replica, *life, hit.window.start, hit.amount << 32 | *count, *taken, 0)
            }
        }
    }
}

fn window_of(start: u64) -> usize {
    (start - START_SECONDS) as usize
}

impl World {
    fn terms(&self) -> LeaseTerms {
        let replicas = self.replicas as u32;
        LeaseTerms { replicas, free_ppm: self.free_ppm, free_replicas: replicas }
    }

    /// The clock of a replica: the first or the last instant of a window.
    fn now_micros(half: u8) -> u64 {
        START_SECONDS * 1_000_000 + u64::from(half / 2) * 1_000_000 + u64::from(half % 2) * 999_000
    }

    fn answer(&self, claim: &Claim, count: &mut u64) -> Grant {
        if self.caps.len() == 1 {
            *count += claim.hit.amount;
            return grant(claim.pool, claim.hit.amount, *count);
        }
        // What a class is refused must stay for the others.
        let room = self.caps[claim.class].saturating_sub(*count);
        let granted = claim.hit.amount.min(room);
        *count += granted;
        Grant { granted, taken: *count, room: room - granted }
    }

    /// A request on a replica; whether anything came of it.
    fn request(
        &self,
        state: &mut State,
        at: usize,
        class: usize,
        is_cut_off: bool,
        undo: bool,
    ) -> bool {
        let (terms, half) = (self.terms(), state.replicas[at].half);
        let now = Self::now_micros(half);
        let asked = hit("a", 1, self.limit, 1, now / 1_000_000);
        let free_from = state.replicas[at].free_from;
        let is_held = state.is_held();
        let slot = state.replicas[at]
            .slot
            .get_or_insert_with(|| Slot::new(&asked, free_from, at as u64, &terms));
        let taken = slot.take(&asked, class, false, now, &terms);
        let label = window_of(slot.window().start);
        match taken {
            Taken::Spent { source, .. } if undo => slot.give_back(class, 1, source, true),
            Taken::Spent { .. } => state.admitted[label][class] += 1,
            Taken::Over => {
                let room = self.caps[0].min(terms.pool(self.limit)) > state.counts[label];
                state.wrongly_refused |= room && !state.returned[label];
            }
            Taken::Reserved { .. } | Taken::Short => {}
        }
        state.requests += u8::from(taken != Taken::Short);
        let due = slot.due(class, taken == Taken::Short, now, &terms);
        let stem: Arc<[u8]> = Arc::from(&b"a|1s"[..]);
        let mut made = Vec::new();
        for (is_due, is_ahead) in [(due.refill, false), (due.ahead, true)] {
            if is_due {
                made.extend(slot.claim(&stem, class, is_ahead, now, &terms));
            }
        }
        let (life, comes_of_it) =
            (state.replicas[at].life, taken != Taken::Short || !made.is_empty());
        for claim in made {
            state.claimed_ahead |= claim.is_ahead;
            let in_bounds =
                window_of(claim.hit.window.start) < WINDOWS && state.claims < self.claims;
            if is_cut_off || is_held || !in_bounds {
                let slot = state.replicas[at].slot.as_mut().expect("just used");
                slot.failed(&claim);
            } else {
                state.claims += 1;
                state.messages.push(Message::Claim { replica: at, life, claim });
            }
        }
        comes_of_it
    }

    /// A message arrives.
    fn deliver(&self, state: &mut State, at: usize) {
        match state.messages.remove(at) {
            Message::Claim { replica, life, claim } => {
                let count = &mut state.counts[window_of(claim.hit.window.start)];
                let grant = self.answer(&claim, count);
                state.messages.push(Message::Answer { replica, life, claim, grant });
            }
            Message::Answer { replica, life, claim, grant } => {
                let now = Self::now_micros(state.replicas[replica].half);
                let asker = &mut state.replicas[replica];
                if asker.life == life
                    && let Some(slot) = &mut asker.slot
                    && slot.granted(&claim, grant, now)
                {
                    state.restore(replica);
                }
            }
            Message::Assert { replica, life, restoration } => {
                let window = window_of(restoration.hit.window.start);
                state.told[window].insert((replica, life), restoration.hit.amount);
                let told = state.told[window].values().copied();
                let count = merged(state.counts[window], told, restoration.taken);
                state.counts[window] = count;
                state.messages.push(Message::Asserted { replica, life, restoration, count });
            }
            Message::Asserted { replica, life, restoration, count } => {
                state.restored(replica, life, &restoration, Some(count));
            }
            Message::Return { window, amount } => {
                // As Redis: not below zero.
                state.counts[window] = state.counts[window].saturating_sub(amount);
                state.returned[window] = true;
            }
        }
    }

    fn sort(&self, state: &mut State) {
        state.messages.sort_by_key(Message::order);
    }
}

impl State {
    /// Whether somebody has yet to tell the counters what was counted: until then nobody claims.
    fn is_held(&self) -> bool {
        self.forgot
            && self.replicas.iter().any(|replica| {
                !replica.noticed || replica.slot.as_ref().is_some_and(Slot::is_restoring)
            })
    }

    fn forget(&mut self) {
        self.losses += 1;
        self.forgot = true;
        (self.counts, self.told) = ([0; WINDOWS], Default::default());
        self.returned = [true; WINDOWS];
        // The connections are gone, and all that had not arrived.
        let messages = std::mem::take(&mut self.messages);
        for message in messages {
            match message {
                Message::Claim { replica, life, claim } => {
                    if self.replicas[replica].life == life
                        && let Some(slot) = &mut self.replicas[replica].slot
                    {
                        slot.failed(&claim);
                    }
                }
                Message::Assert { replica, life, restoration } => {
                    self.restored(replica, life, &restoration, None);
                }
                Message::Return { .. } => {}
                arrived => self.messages.push(arrived),
            }
        }
        for replica in &mut self.replicas {
            replica.noticed = replica.slot.is_none();
        }
    }

    fn lapse(&mut self) {
        self.losses += 1;
        self.returned = [true; WINDOWS];
        for (count, lapsed) in self.counts.iter_mut().zip(&mut self.lapsed) {
            let kept = *count / 2;
            *lapsed += *count - kept;
            *count = kept;
        }
    }

    fn notice(&mut self, at: usize) {
        self.replicas[at].noticed = true;
        let now = World::now_micros(self.replicas[at].half);
        if self.replicas[at].slot.as_mut().is_some_and(|slot| slot.lost(now)) {
            self.restore(at);
        }
    }

    fn restore(&mut self, replica: usize) {
        let life = self.replicas[replica].life;
        let stem: Arc<[u8]> = Arc::from(&b"a|1s"[..]);
        let slot = self.replicas[replica].slot.as_mut();
        if let Some(restoration) = slot.and_then(|slot| slot.restoration(&stem)) {
            self.messages.push(Message::Assert { replica, life, restoration });
        }
    }

    fn restored(
        &mut self,
        replica: usize,
        life: u8,
        restoration: &Restoration,
        count: Option<u64>,
    ) {
        if self.replicas[replica].life == life
            && let Some(slot) = &mut self.replicas[replica].slot
            && slot.restored(restoration, count)
        {
            self.restore(replica);
        }
    }

    /// A process ends, and with it what it knows.
    fn bury(&mut self, replica: usize) {
        if let Some(slot) = &self.replicas[replica].slot {
            for (window, granted) in slot.granted_by_window() {
                if let Some(died) = self.died.get_mut(window_of(window.start)) {
                    *died += granted;
                }
            }
        }
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let replica =
            Replica { slot: None, free_from: START_SECONDS, half: 0, life: 0, noticed: true };
        vec![State {
            replicas: vec![replica; self.replicas],
            messages: Vec::new(),
            counts: [0; WINDOWS],
            told: Default::default(),
            losses: 0,
            forgot: false,
            lapsed: [0; WINDOWS],
            died: [0; WINDOWS],
            admitted: [[0; 2]; WINDOWS],
            returned: [false; WINDOWS],
            requests: 0,
            claims: 0,
            faults: 0,
            wrongly_refused: false,
            claimed_ahead: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let may_fail = state.faults < self.faults;
        for replica in 0..self.replicas {
            if state.requests < self.requests {
                for class in 0..self.caps.len() {
                    actions.push(Action::Request { replica, class, is_cut_off: false });
                }
                if may_fail {
                    actions.push(Action::Request { replica, class: 0, is_cut_off: true });
                    actions.push(Action::Undo { replica });
                }
            }
            let lowest = state.replicas.iter().map(|other| other.half).min().unwrap_or(0);
            let half = state.replicas[replica].half;
            // Clocks differ by up to a window.
            if half < self.halves - 1 && half < lowest + 2 {
                actions.push(Action::Tick(replica));
            }
            if !state.replicas[replica].noticed {
                actions.push(Action::Notice(replica));
            }
            if may_fail && state.replicas[replica].slot.is_some() {
                actions.push(Action::Crash(replica));
                actions.push(Action::Drain(replica));
            }
        }
        if state.losses < self.losses && state.counts != [0; WINDOWS] {
            actions.extend([Action::Forget, Action::Lapse]);
        }
        for message in 0..state.messages.len() {
            actions.push(Action::Deliver(message));
            if may_fail {
                actions.push(Action::Lose(message));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Request { replica, class, is_cut_off } => {
                state.faults += u8::from(is_cut_off);
                if !self.request(&mut state, replica, class, is_cut_off, false) {
                    return None;
                }
            }
            Action::Undo { replica } => {
                state.faults += 1;
                if !self.request(&mut state, replica, 0, false, true) {
                    return None;
                }
            }
            Action::Tick(replica) => state.replicas[replica].half += 1,
            Action::Forget => state.forget(),
            Action::Lapse => state.lapse(),
            Action::Notice(at) => state.notice(at),
            Action::Crash(replica) | Action::Drain(replica) => {
                state.faults += 1;
                state.bury(replica);
                let replica = &mut state.replicas[replica];
                let mut slot = replica.slot.take()?;
                replica.noticed = true;
                replica.life += 1;
                replica.free_from = Self::now_micros(replica.half) / 1_000_000 + 1;
                if matches!(action, Action::Drain(_)) {
                    for hit in slot.surrender() {
                        let window = window_of(hit.window.start);
                        state.messages.push(Message::Return { window, amount: hit.amount });
                    }
                }
            }
            Action::Lose(at) => {
                state.faults += 1;
                let message = state.messages.remove(at);
                if let Message::Claim { replica, life, claim }
                | Message::Answer { replica, life, claim, .. } = &message
                    && state.replicas[*replica].life == *life
                    && let Some(slot) = &mut state.replicas[*replica].slot
                {
                    slot.failed(claim);
                }
                if let Message::Assert { replica, life, restoration }
                | Message::Asserted { replica, life, restoration, .. } = message
                {
                    state.restored(replica, life, &restoration, None);
                }
            }
            Action::Deliver(at) => self.deliver(&mut state, at),
        }
        self.sort(&mut state);
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "no window admits more than the limit",
                |world: &World, state: &State| {
                    (0..WINDOWS).all(|at| {
                        let unknown = if state.losses > 0 { state.died[at] } else { 0 };
                        let most = u64::from(world.limit) + unknown + state.lapsed[at];
                        state.admitted[at].iter().sum::<u64>() <= most
                    })
                },
            ),
            Property::always("no class passes its cap", |world: &World, state: &State| {
                let cap = world.caps.last().copied().unwrap_or(0);
                world.caps.len() == 1
                    || state.losses > 0
                    || state.admitted.iter().all(|by| by[1] <= cap)
            }),
            Property::always("a refusal is certain", |_, state: &State| !state.wrongly_refused),
            Property::sometimes("a limit is used up", |world: &World, state: &State| {
                state.admitted.iter().any(|by| by[0] + by[1] == u64::from(world.limit))
            }),
            Property::sometimes("a window is claimed ahead", |_, state: &State| {
                state.claimed_ahead
            }),
            Property::sometimes("a fault loses tokens", |_, state: &State| {
                state.faults > 0 && state.counts.iter().sum::<u64>() > 0
            }),
        ]
    }
}

fn check(name: &str, world: World) {
    let checker = world.checker().threads(2).spawn_bfs().join();
    println!("{name}: {} states", checker.unique_state_count());
    checker.assert_properties();
}

/// `LEASE_MODEL_DEPTH` adds so many requests and claims to each world.
fn world(replicas: usize, limit: u32, requests: u8, claims: u8, faults: u8) -> World {
    let depth = std::env::var("LEASE_MODEL_DEPTH").ok().and_then(|text| text.parse().ok());
    let (requests, claims) = (requests + depth.unwrap_or(0), claims + depth.unwrap_or(0));
    let caps = vec![limit.into()];
    World { replicas, limit, requests, claims, faults, halves: 3, caps, free_ppm: 0, losses: 0 }
}

#[test]
fn two_replicas_share_a_limit() {
    check("2 replicas, limit 2, 2 faults", world(2, 2, 3, 2, 2));
}

#[test]
fn three_replicas_share_a_limit() {
    let world = World { halves: 2, ..world(3, 2, 2, 2, 1) };
    check("3 replicas, limit 2, 1 fault", world);
}

#[test]
fn two_classes_share_a_limit() {
    let world = World { halves: 2, caps: vec![2, 1], ..world(2, 2, 3, 2, 1) };
    check("2 replicas, 2 classes, limit 2, 1 fault", world);
}

#[test]
fn free_tokens_stay_within_the_limit() {
    let world = World { free_ppm: 700_000, ..world(2, 3, 4, 3, 1) };
    assert_eq!((world.terms().free(3), world.terms().pool(3)), (1, 1));
    check("2 replicas, limit 3, a free token each, 1 fault", world);
}

#[test]
fn counters_that_lost_data_are_told() {
    let world = World { halves: 2, losses: 1, ..world(2, 2, 3, 2, 1) };
    check("2 replicas, limit 2, data lost once, 1 fault", world);
}
