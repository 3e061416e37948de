//! Where the points of a tenant's database go: the name of a database or bucket of the target,
//! made from a template, and the tags for whatever the template leaves out. Pure.
//!
//! ```text
//! tenant acme, ?db=telegraf ─► {tenant}__{database} ─► acme__telegraf
//! tenant acme, no database  ─►          "           ─► acme__default
//! tenant acme, ?db=a.b      ─►          "           ─► acme__a--2eb
//! tenant acme, ?db=telegraf ─► {tenant}             ─► acme, with the tag tidegate_db=telegraf
//! ```
//!
//! Two tenants, or two databases of one tenant, never get the same name ([`name`] says why), so
//! that no tenant can name the database of another.

pub mod config;
pub mod name;
mod template;

use config::DestinationsConfig;
use template::{Common, Part, Template};

/// The tag that names the tenant where the template does not.
pub const TENANT_TAG: &str = "tidegate_tenant";
/// The tag that names the client's database where the template does not.
pub const DATABASE_TAG: &str = "tidegate_db";
/// What the tags that are ours begin with; no client may send one.
pub const RESERVED_PREFIX: &str = "tidegate_";

/// Where some points go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Destination {
    /// The database, or the bucket; letters, digits, `-` and `_`, the first no sign.
    pub name: String,
    /// What is put behind the measurement of every point: nothing, or `,tidegate_tenant=acme`.
    pub tags: String,
}

/// How tenants and their databases become destinations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destinations {
    template: Template,
    default_database: String,
    name_bytes_max: usize,
}

impl Destinations {
    /// As configured.
    pub fn new(config: &DestinationsConfig) -> Self {
        Self {
            template: config.template.clone(),
            default_database: config.default_database.clone(),
            name_bytes_max: config.name_bytes_max,
        }
    }

    /// The destination of a tenant's database; an empty `database` is the default one.
    pub fn resolve(&self, tenant: &str, database: &str) -> Destination {
        let database = self.named(database);
        let name = self.template.render(tenant, database);
        let name = match name.len() > self.name_bytes_max {
            true => name::shortened(&name, tenant, database, self.name_bytes_max),
            false => name,
        };
        let mut tags = String::new();
        for (part, tag, value) in
            [(Part::Database, DATABASE_TAG, database), (Part::Tenant, TENANT_TAG, tenant)]
        {
            if !self.template.has(part) {
                tags.push(',');
                tags.push_str(tag);
                tags.push('=');
                tags.push_str(&tag_value(value));
            }
        }
        Destination { name, tags }
    }

    /// Which names of databases are a tenant's and nobody else's; `None` when the template does
    /// not say so, or the tenant's name is too long for it.
    pub fn of_tenant(&self, tenant: &str) -> Option<OfTenant> {
        let common = self.template.common(tenant)?;
        let fits = match &common {
            Common::Whole(name) => name.len() <= self.name_bytes_max,
            // A name that is cut must still show it.
            Common::Begin(begin) => begin.len() < name::kept_bytes(self.name_bytes_max),
        };
        fits.then_some(OfTenant(common))
    }

    /// The client's database, or the default where it named none.
    pub fn named<'a>(&'a self, database: &'a str) -> &'a str {
        if database.is_empty() { &self.default_database } else { database }
    }

    /// How many tags of ours a point gets.
    pub fn tags_added(&self) -> usize {
        [Part::Tenant, Part::Database].iter().filter(|part| !self.template.has(**part)).count()
    }
}

/// Tells a tenant's databases by their names.
#[derive(Clone, Debug)]
pub struct OfTenant(Common);

impl OfTenant {
    /// Whether the database of this name is the tenant's.
    pub fn has(&self, name: &str) -> bool {
        match &self.0 {
            Common::Whole(whole) => name == whole,
            Common::Begin(begin) => name.starts_with(begin.as_str()),
        }
    }
}

/// `value` as line protocol has it. The gateway lets no control character and no backslash in.
fn tag_value(value: &str) -> String {
    if value.contains(|c: char| c.is_ascii_control() || c == '\\') {
        return name::encoded(value);
    }
    value.replace(',', "\\,").replace('=', "\\=").replace(' ', "\\ ")
}

impl Default for Destinations {
    fn default() -> Self {
        Self::new(&DestinationsConfig::default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn of(template: &str, name_bytes_max: usize) -> Destinations {
        let template = Template::parse(template).expect("a template");
        Destinations::new(&DestinationsConfig {
            template,
            name_bytes_max,
            ..DestinationsConfig::default()
        })
    }

    #[test]
    fn names_are_plain_where_they_can_be() {
        let cases = [
            ("{tenant}__{database}", "demo", "demo", "demo__demo", ""),
            ("{tenant}__{database}", "demo", "", "demo__default", ""),
            ("{tenant}__{database}", "a-b", "my_app", "a-b__my_app", ""),
            ("{tenant}__{database}", "a", "b/weekly", "a__b--2fweekly", ""),
            ("{tenant}__{database}", "a_", "_b", "a--5f__0---5fb", ""),
            ("x-{tenant}", "a", "b", "x-a", ",tidegate_db=b"),
            ("{tenant}", "a", "b c,d=e", "a", ",tidegate_db=b\\ c\\,d\\=e"),
            ("all", "a.b", "", "all", ",tidegate_db=default,tidegate_tenant=a.b"),
        ];
        for (template, tenant, database, name, tags) in cases {
            let expected = Destination { name: name.to_owned(), tags: tags.to_owned() };
            assert_eq!(of(template, 64).resolve(tenant, database), expected);
        }
        assert_eq!(of("all", 64).tags_added(), 2);
        assert_eq!(of("{tenant}", 64).tags_added(), 1);
        assert_eq!(Destinations::default().tags_added(), 0);
    }

    #[test]
    fn databases_that_names_do_not_tell_are_nobodys() {
        assert!(of("all", 64).of_tenant("a").is_none());
        assert!(of("{database}__{tenant}", 64).of_tenant("a").is_none());
        assert!(of("{tenant}__{database}", 64).of_tenant(&"a".repeat(40)).is_none());
        assert!(of("{tenant}", 64).of_tenant(&"a".repeat(65)).is_none());
    }

    #[test]
    fn a_name_at_the_bound_is_kept_and_a_longer_one_is_shortened() {
        let destinations = of("{tenant}__{database}", 64);
        let at = destinations.resolve("t", &"d".repeat(61)).name;
        assert_eq!(at, format!("t__{}", "d".repeat(61)));
        let beyond = destinations.resolve("t", &"d".repeat(62)).name;
        assert_eq!(beyond.len(), 64);
        assert!(beyond.starts_with("t__ddddd") && beyond.contains("--h"), "{beyond}");
        assert_ne!(beyond, destinations.resolve("t", &"d".repeat(63)).name);
    }

    /// Short names of the signs that matter, so that they meet often.
    fn names() -> impl Strategy<Value = (String, String)> {
        ("[a0_.-]{1,5}", "[a0_./ é\u{7f}h2-]{1,6}")
    }

    proptest! {
        #[test]
        fn no_two_databases_share_a_name(
            all in proptest::collection::vec(names(), 2..60), short: bool,
        ) {
            for template in ["{tenant}__{database}", "a_{database}-__-{tenant}-h"] {
                let destinations = of(template, if short { 48 } else { 200 });
                let mut seen = HashMap::new();
                for (tenant, database) in &all {
                    let Destination { name, .. } = destinations.resolve(tenant, database);
                    let other = seen.insert(name.clone(), (tenant, database));
                    if let Some(other) = other {
                        prop_assert_eq!(other, (tenant, database), "{}", name);
                    }
                }
            }
        }

        /// What is deleted with a tenant is all of its databases and none of another.
        #[test]
        fn a_tenants_databases_are_told_by_their_names(
            all in proptest::collection::vec(names(), 2..60), short: bool,
        ) {
            for template in ["{tenant}__{database}", "t-{tenant}_x__{database}", "{tenant}-a", "{tenant}"] {
                let destinations = of(template, if short { 48 } else { 200 });
                let (wanted, _) = &all[0];
                let Some(of_tenant) = destinations.of_tenant(wanted) else {
                    prop_assert!(short);
                    continue;
                };
                for (tenant, database) in &all {
                    let name = destinations.resolve(tenant, database).name;
                    prop_assert_eq!(of_tenant.has(&name), tenant == wanted, "{}", name);
                }
            }
        }

        #[test]
        fn every_database_of_influxdb_takes_the_name(
            tenant in "[A-Za-z0-9._-]{1,128}", database in "\\PC{0,40}",
        ) {
            let Destination { name, .. } = Destinations::default().resolve(&tenant, &database);
            let sign = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            prop_assert!((1..=64).contains(&name.len()));
            prop_assert!(name.bytes().all(sign) && name.as_bytes()[0].is_ascii_alphanumeric());
        }
    }
}
