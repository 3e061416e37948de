//! REFERENCE.md names everything there is to set and to see.

use ratelimit_svc::config::variables::VARIABLES;

use crate::support::Service;

const REFERENCE: &str = include_str!("../../REFERENCE.md");

#[test]
fn every_variable_is_documented_with_its_default() {
    for variable in VARIABLES {
        let line =
            REFERENCE.lines().find(|line| line.starts_with(&format!("| `{}` |", variable.name)));
        let line = line.unwrap_or_else(|| panic!("{} is missing in REFERENCE.md", variable.name));
        let default = format!("`{}`", variable.default);
        assert!(variable.default.is_empty() || line.contains(&default), "{line}");
    }
}

#[tokio::test]
async fn every_metric_is_documented() {
    let service = Service::start(&[("a.yaml", "domain: d")]).await;
    let (_, text) = service.admin("/metrics").await;
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().expect("a name");
        assert!(REFERENCE.contains(&format!("`{name}")), "{name} is missing in REFERENCE.md");
    }
    service.stop().await;
}
