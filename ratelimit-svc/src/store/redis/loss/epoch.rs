//! A Redis that lost its data: how that is found out. What that means is `lease::loss`, how counters are
//! restored `restore`.
//!
//! One key of each server holds a random number that the first replica to find none has set. It dies
//! with the data and is read once a second, and before a server that was out of reach is used again.
//! In a cluster it is a key of one of the server's slots: it goes with its slot to another server,
//! and a replica that becomes the primary has it.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Script;
use redis::aio::ConnectionLike;

use crate::lease::loss::{DataState, Finding, HOLD, Whose};
use crate::store::error::StoreError;
use crate::store::redis::connection::connector::PROBE_TIMEOUT;
use crate::store::redis::connection::refusal::classify;
use crate::store::redis::topology::slots::slot_of;

const EPOCH: &str = include_str!("epoch.lua");
/// Numbers that Lua, a double and a count can hold.
const EPOCH_BITS: u32 = 52;
/// The first number in a server that runs for less than this is no sign that there was none before.
pub const SERVER_YOUNG: Duration = Duration::from_secs(60);
/// The most findings that wait to be taken in; one more, and all data count as lost.
pub const FINDINGS_MAX: usize = 256;
/// How many names are tried for a key in one of a server's slots.
const NAMES_MAX: u32 = 20_000;

/// Which data the servers hold.
pub struct Epochs {
    /// By key, the number last read.
    known: Mutex<HashMap<String, u64>>,
    findings: Mutex<Vec<Finding>>,
    has_findings: AtomicBool,
    script: Script,
}

/// Where it is found out which data the servers of a cluster hold.
#[derive(Default)]
pub struct Marks {
    /// What is known.
    pub epochs: Arc<Epochs>,
    /// In front of every key.
    pub key_prefix: String,
}

impl Default for Epochs {
    fn default() -> Self {
        let script = Script::new(EPOCH);
        let (known, findings) = (Mutex::default(), Mutex::default());
        Self { known, findings, has_findings: AtomicBool::new(false), script }
    }
}

impl Epochs {
    /// The key of the server that has the slots `owns` says; the same for all replicas that see the
    /// same slots. None for a server that has hardly any.
    pub fn key(key_prefix: &str, owns: impl Fn(u16) -> bool) -> Option<String> {
        let names = (0..NAMES_MAX).map(|n| format!("{key_prefix}epoch{{{n}}}"));
        names.into_iter().find(|name| owns(slot_of(name.as_bytes())))
    }

    /// Reads which data a server holds, and marks them where nobody has.
    ///
    /// # Errors
    /// As the server answers, or does not.
    pub async fn read(
        &self,
        connection: &mut (impl ConnectionLike + Send),
        key: String,
        whose: Whose,
    ) -> Result<(), StoreError> {
        let random = RandomState::new().hash_one(0) >> (64 - EPOCH_BITS) | 1;
        let before = lock(&self.known).get(&key).copied();
        // A server just found knows no script; to find that out takes two round trips more.
        let mut pipe = redis::pipe();
        pipe.cmd("SCRIPT").arg("LOAD").arg(EPOCH).ignore();
        pipe.cmd("EVALSHA").arg(self.script.get_hash()).arg(1).arg(&key);
        pipe.arg(random).arg(before.unwrap_or(0));
        pipe.arg(HOLD.as_millis() as u64).arg(SERVER_YOUNG.as_secs());
        let asked = pipe.query_async::<((u64, u64),)>(connection);
        let answer = tokio::time::timeout(PROBE_TIMEOUT, asked).await;
        let ((number, doubt),) = answer.map_err(|_| StoreError::TimedOut)?.map_err(classify)?;
        // Another task may have read it meanwhile: who puts a number first reports it.
        let mut known = lock(&self.known);
        let state = match known.insert(key, number) {
            Some(last) if last == number => None,
            Some(_) => Some(DataState::Lost),
            None if doubt > 0 => Some(DataState::Young(Duration::from_millis(doubt))),
            None => None,
        };
        if let Some(state) = state {
            self.found(Finding { whose, state });
        }
        Ok(())
    }

    /// Forgets the numbers of keys that no server has.
    pub fn retain(&self, is_used: impl Fn(&str) -> bool) {
        lock(&self.known).retain(|key, _| is_used(key));
    }

    fn found(&self, finding: Finding) {
        let mut findings = lock(&self.findings);
        if findings.len() >= FINDINGS_MAX {
            findings.clear();
            findings.push(Finding { whose: Whose::all(), state: DataState::Lost });
        } else {
            findings.push(finding);
        }
        self.has_findings.store(true, Ordering::Release);
    }

    /// Hands over what was found. Whoever asks meanwhile waits until it is taken in.
    pub fn take(&self, take_in: &mut dyn FnMut(Finding)) {
        if !self.has_findings.load(Ordering::Acquire) {
            return;
        }
        let mut findings = lock(&self.findings);
        findings.drain(..).for_each(take_in);
        self.has_findings.store(false, Ordering::Release);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_a_slot_of_its_server() {
        for server in 0..100u16 {
            let owns = |slot: u16| slot / 164 == server;
            let key = Epochs::key("p:", owns).expect("it has slots");
            assert!(owns(slot_of(key.as_bytes())), "{key}");
        }
        assert_eq!(Epochs::key("", |_| true).as_deref(), Some("epoch{0}"));
        assert_eq!(Epochs::key("", |_| false), None);
        // Braces in front keep all there is in one slot.
        assert!(Epochs::key("{a}:", |slot| slot == slot_of(b"{a}")).is_some());
    }

    #[test]
    fn findings_are_bounded() {
        let epochs = Epochs::default();
        for _ in 0..=FINDINGS_MAX {
            let state = DataState::Young(HOLD);
            epochs.found(Finding { whose: Whose::new(|_| false), state });
        }
        let mut found = Vec::new();
        epochs.take(&mut |finding| found.push(finding.state));
        assert_eq!(found, [DataState::Lost]);
        epochs.take(&mut |finding| found.push(finding.state));
        assert_eq!(found.len(), 1, "reported once");
    }
}
