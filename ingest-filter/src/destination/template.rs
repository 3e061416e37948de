//! The template of a database's name: text, `{tenant}` and `{database}`. Pure.

use super::name::encoded;

/// A part that differs from tenant to tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `{tenant}`.
    Tenant,
    /// `{database}`: the client's.
    Database,
}

/// What the names of a tenant's databases have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Common {
    /// There is one, of this name.
    Whole(String),
    /// All begin so, up to a `__`, and no other tenant's do.
    Begin(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Part(Part),
}

/// A template that tells every two databases apart that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// With what is wrong, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, behind) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
            if !literal.is_empty() {
                pieces.push(Piece::Text(plain(literal)?.to_owned()));
            }
            rest = behind;
            for (mark, part) in [("{tenant}", Part::Tenant), ("{database}", Part::Database)] {
                if let Some(behind) = rest.strip_prefix(mark) {
                    pieces.push(Piece::Part(part));
                    rest = behind;
                    break;
                }
            }
            if rest.starts_with('{') && rest.len() == behind.len() {
                return Err("may hold {tenant} and {database}, and no other braces");
            }
        }
        let template = Self { pieces };
        template.check(text)?;
        Ok(template)
    }

    fn check(&self, text: &str) -> Result<(), &'static str> {
        if text.is_empty() {
            return Err("is empty");
        }
        let count = |part| self.pieces.iter().filter(|piece| **piece == Piece::Part(part)).count();
        if count(Part::Tenant) > 1 || count(Part::Database) > 1 {
            return Err("names the tenant or the database twice");
        }
        if count(Part::Tenant) < count(Part::Database) {
            return Err("names the database without the tenant, so tenants would share it");
        }
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '{') {
            return Err("must begin with a letter, a digit or a placeholder");
        }
        let between = self.pieces.iter().skip_while(|piece| matches!(piece, Piece::Text(_)));
        let parts_meet = match between.skip(1).collect::<Vec<_>>()[..] {
            [Piece::Part(_), ..] => true,
            [Piece::Text(text), Piece::Part(_), ..] => !text.contains("__"),
            _ => false,
        };
        match parts_meet {
            true => Err("must have '__' between {tenant} and {database}, which no name holds"),
            false => Ok(()),
        }
    }

    /// The name for a tenant's database.
    pub fn render(&self, tenant: &str, database: &str) -> String {
        let mut name = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => name.push_str(text),
                Piece::Part(Part::Tenant) => name.push_str(&encoded(tenant)),
                Piece::Part(Part::Database) => name.push_str(&encoded(database)),
            }
        }
        name
    }

    /// What the names of a tenant's databases have in common, up to the client's database; `None`
    /// when the client's database comes first, or there is no tenant in them.
    pub fn common(&self, tenant: &str) -> Option<Common> {
        let mut begin = String::new();
        let mut named = false;
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => begin.push_str(text),
                Piece::Part(Part::Tenant) => {
                    begin.push_str(&encoded(tenant));
                    named = true;
                }
                Piece::Part(Part::Database) => return named.then_some(Common::Begin(begin)),
            }
        }
        named.then_some(Common::Whole(begin))
    }

    /// Whether the name tells this part.
    pub fn has(&self, part: Part) -> bool {
        self.pieces.contains(&Piece::Part(part))
    }
}

impl serde::Serialize for Template {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(text) => f.write_str(text),
            Piece::Part(Part::Tenant) => f.write_str("{tenant}"),
            Piece::Part(Part::Database) => f.write_str("{database}"),
        })
    }
}

fn plain(literal: &str) -> Result<&str, &'static str> {
    let sign = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !literal.bytes().all(sign) {
        return Err("may hold letters, digits, '-' and '_' beside its placeholders");
    }
    match literal.contains("--") {
        true => Err("may not hold '--', which begins an escape in a name"),
        false => Ok(literal),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_that_could_mix_databases_are_refused() {
        for good in
            ["{tenant}__{database}", "t_{database}__{tenant}_x", "{tenant}", "x", "{tenant}-a"]
        {
            assert_eq!(Template::parse(good).map(|t| t.to_string()), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("", "is empty"),
            ("{tenant}{database}", "must have '__'"),
            ("{tenant}-{database}", "must have '__'"),
            ("{tenant}_{database}", "must have '__'"),
            ("{database}", "names the database without"),
            ("{tenant}__{tenant}", "twice"),
            ("_{tenant}", "must begin"),
            ("{tenant}--{database}", "may not hold '--'"),
            ("{org}", "no other braces"),
            ("a{", "no other braces"),
            ("a}", "may hold letters"),
            ("a/{tenant}", "may hold letters"),
        ] {
            let error = Template::parse(bad).expect_err(bad);
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
