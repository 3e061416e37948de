//! Why a batch waits for its target. Pure: a name for people and for metrics, no decision.

/// Why a write is tried again; a closed set, used as a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Not allowed: a person must act.
    Unauthorized,
    /// No such database: a person must act, unless we may create it.
    DatabaseMissing,
    /// The target asked us to wait.
    Busy,
    /// The target failed.
    Failed,
    /// The target refuses even a point that it should take: a person must act.
    Refusing,
    /// The retention policy does not exist: a person must act.
    RetentionPolicyMissing,
    /// The connection broke.
    Broken,
    /// The target cannot be reached.
    Unreachable,
}

impl Class {
    /// The name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unauthorized => "unauthorized",
            Self::DatabaseMissing => "database_missing",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::Refusing => "refusing",
            Self::RetentionPolicyMissing => "retention_policy_missing",
            Self::Broken => "broken",
            Self::Unreachable => "unreachable",
        }
    }
}
