//! How many points gateways say that the journal has confirmed to them.

use anyhow::Context;

use crate::command::admin_page;

/// The gateway's counter, one for each protocol.
const COUNTER: &str = "ingest_gateway_points_stored_total{";

/// Since each of them started, all together.
///
/// # Errors
/// When one does not say.
pub(super) fn by_gateways(gateways: &[String]) -> anyhow::Result<u64> {
    let of = |gateway: &String| {
        let page = admin_page::get(gateway, "/metrics");
        page.map(|page| counted(&page)).with_context(|| format!("gateway {gateway} does not say"))
    };
    gateways.iter().map(of).sum()
}

fn counted(metrics: &str) -> u64 {
    let counters = metrics.lines().filter(|line| line.starts_with(COUNTER));
    counters.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_protocols_count() {
        let page = "# TYPE ingest_gateway_points_stored counter\n\
                    ingest_gateway_points_stored_total{protocol=\"influx\"} 40\n\
                    ingest_gateway_points_stored_total{protocol=\"otlp\"} 2\n\
                    ingest_gateway_points_rejected_total{protocol=\"otlp\",reason=\"x\"} 9\n";
        assert_eq!(counted(page), 42);
        assert_eq!(counted(""), 0);
    }
}
