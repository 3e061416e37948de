//! Something that each tenant has of its own, made when it is first asked for and forgotten when
//! nobody holds it any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// From so many tenants on, those that nobody holds are forgotten.
pub const KEPT_MAX: usize = 1024;

/// What each tenant has, by its name.
#[derive(Debug)]
pub struct Tenants<T> {
    known: Mutex<HashMap<String, Arc<T>>>,
}

impl<T> Default for Tenants<T> {
    fn default() -> Self {
        Self { known: Mutex::default() }
    }
}

impl<T> Tenants<T> {
    /// That of a tenant, or a new one. Whoever uses it holds it, so it is not forgotten meanwhile.
    pub fn get(&self, name: &str, new: impl FnOnce() -> T) -> Arc<T> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(one) = known.get(name) {
            return one.clone();
        }
        if known.len() >= KEPT_MAX {
            known.retain(|_, one| Arc::strong_count(one) > 1);
        }
        known.entry(name.to_owned()).or_insert_with(|| Arc::new(new())).clone()
    }

    /// How many are kept.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.known.lock().expect("no panic").len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_nobody_holds_are_forgotten_and_no_others() {
        let tenants = Tenants::default();
        let held = tenants.get("held", || 1);
        tenants.get("left", || 1);
        for number in 0..2 * KEPT_MAX {
            tenants.get(&number.to_string(), || 0);
        }
        assert!(tenants.count() <= KEPT_MAX, "{}", tenants.count());
        assert!(Arc::ptr_eq(&held, &tenants.get("held", || 2)), "the same for all");
        assert_eq!(*tenants.get("left", || 2), 2, "made anew");
    }
}
