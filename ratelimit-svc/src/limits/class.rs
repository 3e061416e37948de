//! Priority classes: the ladder of who matters more, and what each gets in an outage.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

/// The descriptor entry that carries the class.
pub const PRIORITY_KEY: &str = "priority";

/// The most classes a configuration may have.
pub const CLASSES_MAX: usize = 16;

/// Something for each class, highest first. As many classes as ship take no allocation.
pub type PerClass<T> = SmallVec<[T; 4]>;

/// What a class is answered while the store is out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutagePolicy {
    /// Everything passes.
    Bypass,
    /// This replica's share of the limit, counted in its own memory.
    Local,
    /// Everything limited is refused.
    Deny,
}

impl OutagePolicy {
    /// The policy called `name` in a file.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Bypass, Self::Local, Self::Deny].into_iter().find(|policy| policy.name() == name)
    }

    /// The name in files and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Local => "local",
            Self::Deny => "deny",
        }
    }
}

/// One step of the ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// As a request names it.
    pub name: String,
    /// Higher is more important; unique.
    pub rank: u32,
    /// The answer in an outage.
    pub outage: OutagePolicy,
}

/// The classes of the service, highest rank first, and the one for requests that name none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classes {
    ladder: Vec<Arc<Class>>,
    default: usize,
}

/// Why a set of classes cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClassesError {
    /// There is no class at all.
    #[error("priority_classes must not be empty")]
    Empty,
    /// More than [`CLASSES_MAX`].
    #[error("priority_classes has more than {CLASSES_MAX} classes")]
    TooMany,
    /// Two classes of one rank have no order.
    #[error("priority classes '{0}' and '{1}' have the same rank")]
    SameRank(String, String),
    /// No class, or more than one, is the default.
    #[error("exactly one priority class must be the default, found {0}")]
    Defaults(usize),
}

impl Classes {
    /// A ladder of classes, each with whether it is the default.
    ///
    /// # Errors
    /// For no classes, too many, equal ranks, or not exactly one default.
    pub fn try_new(mut classes: Vec<(Class, bool)>) -> Result<Self, ClassesError> {
        if classes.is_empty() {
            return Err(ClassesError::Empty);
        }
        if classes.len() > CLASSES_MAX {
            return Err(ClassesError::TooMany);
        }
        classes.sort_by_key(|(class, _)| std::cmp::Reverse(class.rank));
        for pair in classes.windows(2) {
            if pair[0].0.rank == pair[1].0.rank {
                let name = |at: usize| pair[at].0.name.clone();
                return Err(ClassesError::SameRank(name(0), name(1)));
            }
        }
        let defaults = classes.iter().filter(|(_, default)| *default).count();
        match classes.iter().position(|(_, default)| *default) {
            Some(default) if defaults == 1 => {
                let ladder = classes.into_iter().map(|(class, _)| Arc::new(class)).collect();
                Ok(Self { ladder, default })
            }
            _ => Err(ClassesError::Defaults(defaults)),
        }
    }

    /// The class called `name`.
    pub fn named(&self, name: &str) -> Option<&Class> {
        // A ladder has a handful of steps: a scan beats a hash.
        self.ladder.iter().map(|class| &**class).find(|class| class.name == name)
    }

    /// How many classes rank above the one called `name`.
    pub fn rank(&self, name: &str) -> Option<usize> {
        self.ladder.iter().position(|class| class.name == name)
    }

    /// The class of requests that name none, or one that does not exist.
    pub fn default_class(&self) -> &Class {
        &self.ladder[self.default]
    }

    /// How many classes rank above the default class.
    pub fn default_rank(&self) -> usize {
        self.default
    }

    /// All classes, highest rank first.
    pub fn ladder(&self) -> &[Arc<Class>] {
        &self.ladder
    }
}

impl Default for Classes {
    fn default() -> Self {
        use OutagePolicy::{Bypass, Deny, Local};
        let class =
            |name: &str, rank, outage| Arc::new(Class { name: name.to_owned(), rank, outage });
        Self {
            ladder: vec![
                class("system-node-critical", 10_000, Bypass),
                class("platform-core", 9000, Local),
                class("ingest", 5000, Local),
                class("background", 1000, Deny),
            ],
            default: 2,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (rank {}, outage {})", self.name, self.rank, self.outage.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(name: &str, rank: u32) -> Class {
        Class { name: name.to_owned(), rank, outage: OutagePolicy::Local }
    }

    #[test]
    fn a_ladder_has_one_order_and_one_default() {
        let classes =
            Classes::try_new(vec![(class("low", 1), true), (class("high", 9), false)]).expect("ok");
        assert_eq!(classes.ladder()[0].name, "high");
        assert_eq!(classes.default_class().name, "low");
        assert!(classes.named("none").is_none());
        assert_eq!(Classes::try_new(vec![]), Err(ClassesError::Empty));
        let same = Classes::try_new(vec![(class("a", 1), true), (class("b", 1), false)]);
        assert_eq!(same, Err(ClassesError::SameRank("a".to_owned(), "b".to_owned())));
        let none = Classes::try_new(vec![(class("a", 1), false)]);
        assert_eq!(none, Err(ClassesError::Defaults(0)));
        let many = (0..17).map(|n| (class(&n.to_string(), n), n == 0)).collect();
        assert_eq!(Classes::try_new(many), Err(ClassesError::TooMany));
    }

    #[test]
    fn four_classes_ship() {
        let shipped = Classes::default();
        let again =
            shipped.ladder().iter().map(|class| (Class::clone(class), class.name == "ingest"));
        assert_eq!(Classes::try_new(again.collect()), Ok(shipped));
    }
}
