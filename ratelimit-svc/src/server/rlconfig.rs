//! `/rlconfig`: the rules in force, as the reference lists them.

use std::sync::Arc;

use axum::extract::State;

use crate::limiter::Limiter;

/// All rules in force, one a line.
pub(super) async fn rlconfig(State(limiter): State<Arc<Limiter>>) -> String {
    let quotas = limiter.quotas.load();
    let Some(quotas) = quotas.as_ref() else { return String::new() };
    let mut text = String::new();
    for domain in quotas.domains() {
        for rule in domain.root.rules() {
            let limit = rule.listing();
            text += &format!(
                "{}.{}: {limit}, shadow_mode: {}, quota_mode: {} ({})\n",
                domain.name, rule.id, rule.shadow_mode, rule.quota_mode, rule.origin
            );
        }
    }
    text
}
