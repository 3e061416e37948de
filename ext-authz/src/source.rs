//! Where keys come from: files, Redis, or both.

pub mod file;
pub mod redis;

use std::path::PathBuf;
use std::sync::Arc;

use self::redis::settings::RedisSettings;
use crate::check::digest::Peppers;
use crate::peppers::PepperSource;

/// Where keys come from and what they are checked against.
#[derive(Clone, Debug)]
pub struct KeySource {
    /// The keys file, or the directory of the keys files.
    pub path: Option<PathBuf>,
    /// The Redis that holds keys.
    pub redis: Option<RedisSettings>,
    /// Where the peppers are.
    pub pepper_source: PepperSource,
    /// The peppers as they were at the start, for commands.
    pub peppers: Arc<Peppers>,
    /// The priority classes there are.
    pub priority_classes: Vec<String>,
    /// The classes whose keys pass on the last known records.
    pub bypass_classes: Arc<[String]>,
}
