//! The scripts that touch several keys of Redis in one step.

use std::sync::LazyLock;

use redis::Script;

/// How many changes the stream keeps, at least. Who was away for longer reads all keys anew.
pub const CHANGES_MAX: usize = 100_000;
/// How many audit events are kept, at least.
pub const AUDIT_MAX: usize = 1_000_000;

/// Applies one change with its audit event.
pub static CHANGE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("change.lua")));
/// Puts whole sets in place of those in use.
pub static LOAD: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("load.lua")));
/// Says what a replica has in force.
pub static ACKNOWLEDGE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("acknowledge.lua")));
