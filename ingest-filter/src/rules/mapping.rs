//! What the database and the organization that a client names become within its tenant: a
//! database by template, tags, or nothing. They never choose the tenant.

use serde::{Serialize, Serializer};

/// The longest database that a template makes, bytes.
pub const DATABASE_BYTES_MAX: usize = 128;

/// What a client named; empty where it named nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// `db` and `rp`, or `bucket`.
    pub database: String,
    /// `org`, or the organization of the header.
    pub organization: String,
}

/// The rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Mapping {
    /// The database.
    pub database: DatabaseTemplate,
    /// The tag that the client's database becomes.
    pub database_tag: Option<String>,
    /// The tag that the client's organization becomes.
    pub organization_tag: Option<String>,
}

/// The database within the tenant: text, `{database}` and `{organization}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseTemplate(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Database,
    Organization,
}

impl Default for DatabaseTemplate {
    fn default() -> Self {
        Self(vec![Piece::Database])
    }
}

impl Mapping {
    /// The tags that a point gets.
    pub fn tags(&self, named: &Named) -> Vec<(String, String)> {
        let both =
            [(&self.database_tag, &named.database), (&self.organization_tag, &named.organization)];
        let given = |(tag, value): (&Option<String>, &String)| {
            let tag = tag.as_ref().filter(|_| !value.is_empty())?;
            Some((tag.clone(), value.clone()))
        };
        both.into_iter().filter_map(given).collect()
    }
}

impl DatabaseTemplate {
    /// Reads a template; an empty one is the tenant's default database.
    ///
    /// # Errors
    /// With what is wrong, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, behind) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
            if literal.contains(|c: char| c.is_control() || matches!(c, '\\' | '}')) {
                return Err("has a control character, a backslash or a bracket of its own");
            }
            if !literal.is_empty() {
                pieces.push(Piece::Text(literal.to_owned()));
            }
            rest = behind;
            for (mark, piece) in
                [("{database}", Piece::Database), ("{organization}", Piece::Organization)]
            {
                if let Some(behind) = rest.strip_prefix(mark) {
                    pieces.push(piece);
                    rest = behind;
                    break;
                }
            }
            if rest.starts_with('{') && rest.len() == behind.len() {
                return Err("has a bracket that is neither {database} nor {organization}");
            }
        }
        match pieces.len() {
            0..=8 => Ok(Self(pieces)),
            _ => Err("has more than 8 parts"),
        }
    }

    /// The database for what a client named; empty is the tenant's default one. `None` when it
    /// would be too long.
    pub fn render(&self, named: &Named) -> Option<String> {
        // What names nothing is nobody's database, whatever text stands around it.
        let names = |piece: &Piece| match piece {
            Piece::Text(_) => false,
            Piece::Database => !named.database.is_empty(),
            Piece::Organization => !named.organization.is_empty(),
        };
        let is_fixed = self.0.iter().all(|piece| matches!(piece, Piece::Text(_)));
        if !is_fixed && !self.0.iter().any(names) {
            return Some(String::new());
        }
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Database => &named.database,
            Piece::Organization => &named.organization,
        });
        let database: String = pieces.collect();
        (database.len() <= DATABASE_BYTES_MAX).then_some(database)
    }
}

impl Serialize for DatabaseTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Database => "{database}",
            Piece::Organization => "{organization}",
        });
        serializer.serialize_str(&text.collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(database: &str, organization: &str) -> Named {
        Named { database: database.to_owned(), organization: organization.to_owned() }
    }

    #[track_caller]
    fn check(template: &str, database: &str, organization: &str, expected: &str) {
        let template = DatabaseTemplate::parse(template).expect("a template");
        assert_eq!(template.render(&named(database, organization)).as_deref(), Some(expected));
    }

    #[test]
    fn a_database_by_template_or_none() {
        check("{database}", "app", "o", "app");
        check("{organization}-{database}", "app", "o", "o-app");
        check("{organization}-{database}", "", "o", "o-");
        check("{organization}-{database}", "", "", "");
        check("", "app", "o", "");
        check("all", "", "", "all");
        let long = DatabaseTemplate::default().render(&named(&"x".repeat(129), ""));
        assert_eq!(long, None);
        for bad in ["{tenant}", "a{", "}", "a\\b", "a\nb", &"{database}".repeat(9)] {
            assert!(DatabaseTemplate::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_for_what_was_named() {
        let mapping = Mapping {
            database_tag: Some("db".to_owned()),
            organization_tag: Some("org".to_owned()),
            ..Mapping::default()
        };
        let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(mapping.tags(&named("a", "b")), [tag("db", "a"), tag("org", "b")]);
        assert_eq!(mapping.tags(&named("", "b")), [tag("org", "b")]);
        assert_eq!(Mapping::default().tags(&named("a", "b")), []);
    }
}
