//! `keys list`: what there is, without any secret.

use serde_json::Value;

use super::{Output, Shared, describe, print};
use crate::store::Noted;
use crate::timestamp::Timestamp;

/// Lists all records.
pub fn run(shared: &Shared) -> anyhow::Result<()> {
    let config = shared.load_config()?;
    let (all, now) = (shared.store(&config)?.all()?, Timestamp::now());
    if shared.output == Output::Json {
        let describe = |(record, comment): &Noted| describe(record, comment.as_deref(), now);
        let all: Vec<Value> = all.iter().map(describe).collect();
        return print(&format!("{}\n", Value::from(all)));
    }
    let mut text = String::new();
    let mut row = |cells: [&str; 8]| {
        let [id, tenant, priority, plan, state, expires, scopes, comment] = cells;
        let line = format!(
            "{id:12}  {tenant:16}  {priority:20}  {plan:10}  {state:13}  {expires:20}  {scopes:20}  {comment}"
        );
        text.push_str(line.trim_end());
        text.push('\n');
    };
    row(["ID", "TENANT", "PRIORITY", "PLAN", "STATE", "EXPIRES", "SCOPES", "COMMENT"]);
    for (record, comment) in &all {
        let expires = record.expires_at.map_or("never".to_owned(), |moment| moment.to_string());
        // A comment may hold anything, and a terminal should see none of it.
        let comment = comment.as_deref().unwrap_or("").escape_debug().to_string();
        row([
            record.id.as_str(),
            &record.tenant,
            &record.grant.priority,
            &record.grant.plan,
            record.validity(now).as_str(),
            &expires,
            &record.grant.scopes.join(","),
            &comment,
        ]);
    }
    print(&text)
}
