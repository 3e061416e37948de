//! How many points gateways say that the journal has confirmed to them, by tenant and hour.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Deserialize;

use crate::command::admin_page;

/// The page `/confirmed` of a gateway.
#[derive(Debug, Deserialize)]
struct Page {
    left_out: u64,
    hours: Vec<Hour>,
}

#[derive(Debug, Deserialize)]
struct Hour {
    hour_ms: i64,
    points: BTreeMap<String, u64>,
}

/// Since each gateway started.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Confirmed {
    /// By tenant and hour of admission in milliseconds since 1970.
    pub rows: BTreeMap<(String, i64), u64>,
    /// All together, what is in no row included.
    pub points: u64,
}

impl Confirmed {
    /// Of all these gateways together.
    ///
    /// # Errors
    /// When one does not say.
    pub fn by_gateways(gateways: &[String]) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for gateway in gateways {
            let page = admin_page::get(gateway, "/confirmed");
            let page = page.and_then(|page| Ok(serde_json::from_str(&page)?));
            all.add(page.with_context(|| format!("gateway {gateway} does not say"))?);
        }
        Ok(all)
    }

    fn add(&mut self, page: Page) {
        self.points += page.left_out;
        for hour in page.hours {
            for (tenant, points) in hour.points {
                self.points += points;
                *self.rows.entry((tenant, hour.hour_ms)).or_default() += points;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_count_together() {
        let mut all = Confirmed::default();
        for page in [
            r#"{"complete_from_ms":0,"left_out":2,"hours":[{"hour_ms":0,"points":{"a":5,"b":1}}]}"#,
            r#"{"complete_from_ms":0,"left_out":0,"hours":[{"hour_ms":0,"points":{"a":1}},{"hour_ms":3600000,"points":{"a":9}}]}"#,
        ] {
            all.add(serde_json::from_str(page).expect("a page"));
        }
        let row = |tenant: &str, hour_ms| (tenant.to_owned(), hour_ms);
        let expected =
            BTreeMap::from([(row("a", 0), 6), (row("b", 0), 1), (row("a", 3_600_000), 9)]);
        assert_eq!(all, Confirmed { rows: expected, points: 18 });
    }
}
