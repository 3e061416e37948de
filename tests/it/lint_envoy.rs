//! `ratelimit-svc lint-envoy` on the bootstrap that this very repository runs.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ratelimit_svc::document::Node;
use ratelimit_svc::lint::{Load, Severity, lint};

use crate::stage::Stage;

/// The rules of a severity that speak about a file.
fn rules_of(file: &Path, bytes: &[u8], severity: Severity) -> Result<BTreeSet<String>> {
    let root: Node = chassis::config::parse_yaml(file, bytes)?;
    let lint = lint(&root, Load { in_flight_max: 100_000 });
    ensure!(lint.managers > 0, "{} has no listener", file.display());
    let findings = lint.findings.iter().filter(|finding| finding.rule.severity == severity);
    Ok(findings.map(|finding| format!("{} {}", finding.rule.name, finding.subject)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bootstrap_of_this_repository_has_no_trap() -> Result<()> {
    let stage = Stage::embedded().await?;
    let file = stage.edge.keys_file().with_file_name("envoy.yaml");
    let bytes = std::fs::read(&file).with_context(|| format!("{} is there", file.display()))?;
    assert_eq!(rules_of(&file, &bytes, Severity::Error)?, BTreeSet::new());
    // What the running Envoy says of itself reads the same.
    let url = format!("http://{}/config_dump", stage.edge.at.envoy_admin);
    let dump = stage.http.get(&url).await?;
    let name = Path::new("config_dump");
    assert_eq!(rules_of(name, dump.text().as_bytes(), Severity::Error)?, BTreeSet::new());
    let warnings = rules_of(&file, &bytes, Severity::Warning)?;
    assert_eq!(rules_of(name, dump.text().as_bytes(), Severity::Warning)?, warnings);
    Ok(())
}
