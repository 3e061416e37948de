//! Filters that shed load and know no priorities.

use super::bootstrap::{ADAPTIVE_CONCURRENCY, ADMISSION_CONTROL, Chain};
use super::{Findings, Rule, Severity};

static NO_PRIORITY: Rule = Rule {
    name: "shedding-without-priority",
    severity: Severity::Warning,
    trap: "this filter sheds critical requests like all others",
    cure: "wrap it in ExtensionWithMatcher, and skip it by the metadata that ext_authz writes for critical callers",
};

/// The rules of this group.
pub const RULES: &[&Rule] = &[&NO_PRIORITY];

pub(super) fn check(chain: &Chain<'_>, found: &mut Findings) {
    let sheds = [ADMISSION_CONTROL, ADAPTIVE_CONCURRENCY];
    for filter in chain.filters.iter().filter(|filter| sheds.contains(&filter.kind)) {
        if filter.wrapper.is_none() {
            found.add(&NO_PRIORITY, filter.config, filter.name);
        }
    }
}
