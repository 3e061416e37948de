//! From what a keys file says to records that cannot be wrong.

use std::collections::HashSet;
use std::path::Path;

use chassis::config::{ConfigError, Spanned};
use serde::Deserialize;

use super::map::Map;
use super::{
    COMMENT_BYTES_MAX, Entry, NETWORKS_MAX, PLAN_DEFAULT, Position, Rules, SCOPES_MAX, Tenant,
};
use crate::check::digest::{DIGEST_LEN, Digest};
use crate::check::key::KeyId;
use crate::check::network::Network;
use crate::check::record::{KeyRecord, Kind, Shared, Status};
use crate::names::{name_problem, scope_problem, tenant_problem};
use crate::timestamp::Timestamp;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    pub(super) count: Option<Spanned<u64>>,
    #[serde(default)]
    pub(super) tenants: Vec<Map<RawTenant>>,
    pub(super) keys: Spanned<Vec<Map<RawKey>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTenant {
    pub(super) name: Spanned<String>,
    #[serde(default)]
    pub(super) suspended: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKey {
    pub(super) id: Spanned<String>,
    pub(super) tenant: Spanned<String>,
    pub(super) priority: Spanned<String>,
    pub(super) plan: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) scopes: Vec<Spanned<String>>,
    pub(super) digest: Map<RawDigest>,
    pub(super) not_before: Option<Spanned<String>>,
    pub(super) expires_at: Option<Spanned<String>>,
    pub(super) revoked: Option<Spanned<bool>>,
    pub(super) suspended: Option<Spanned<bool>>,
    #[serde(default)]
    pub(super) networks: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) imported: bool,
    pub(super) comment: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDigest {
    pub(super) pepper: Spanned<u32>,
    pub(super) hmac_sha256: Spanned<String>,
}

/// Checks one thing after another, and says where what is wrong stands.
pub(super) struct Validator<'a> {
    pub(super) path: &'a Path,
    pub(super) rules: Rules<'a>,
    pub(super) shared: &'a mut Shared,
}

impl Validator<'_> {
    pub(super) fn tenants(&self, raw: Vec<Map<RawTenant>>) -> Result<Vec<Tenant>, ConfigError> {
        let mut tenants: Vec<Tenant> = Vec::with_capacity(raw.len());
        let mut names = HashSet::with_capacity(raw.len());
        for Map(raw) in raw {
            self.refuse(&raw.name, tenant_problem(&raw.name.value))?;
            if !names.insert(raw.name.value.clone()) {
                let message = format!("tenant '{}' comes twice", raw.name.value);
                return Err(self.bad(&raw.name, message));
            }
            tenants.push(Tenant { name: raw.name.value, is_suspended: raw.suspended });
        }
        Ok(tenants)
    }

    pub(super) fn entry(&mut self, raw: RawKey) -> Result<Entry, ConfigError> {
        let id = KeyId::parse(&raw.id.value)
            .ok_or_else(|| self.bad(&raw.id, "'id' must be 12 letters or digits"))?;
        self.refuse(&raw.tenant, tenant_problem(&raw.tenant.value))?;
        if let Some(plan) = &raw.plan {
            self.refuse(plan, name_problem("plan", &plan.value))?;
        }
        if let Some(comment) = &raw.comment
            && comment.value.len() > COMMENT_BYTES_MAX
        {
            let message = format!("'comment' is longer than {COMMENT_BYTES_MAX} bytes");
            return Err(self.bad(comment, message));
        }
        let not_before = self.moment("not_before", raw.not_before.as_ref())?;
        let expires_at = self.moment("expires_at", raw.expires_at.as_ref())?;
        if let (Some(start), Some(end), Some(span)) = (not_before, expires_at, &raw.expires_at)
            && start >= end
        {
            return Err(self.bad(span, "'expires_at' must be after 'not_before'"));
        }
        self.check_priority(&raw.priority)?;
        let plan = raw.plan.as_ref().map_or(PLAN_DEFAULT, |plan| &plan.value);
        let (scopes, networks) = (self.scopes(raw.scopes)?, self.networks(raw.networks)?);
        let is = |flag: &Option<Spanned<bool>>| flag.as_ref().is_some_and(|flag| flag.value);
        let status = match (is(&raw.revoked), is(&raw.suspended)) {
            (true, _) => Status::Revoked,
            (false, true) => Status::Suspended,
            (false, false) => Status::Active,
        };
        let record = KeyRecord {
            id,
            tenant: self.shared.tenant(&raw.tenant.value),
            digest: self.digest(&raw.digest.0)?,
            grant: self.shared.grant(&raw.priority.value, plan, &scopes, &networks),
            not_before,
            expires_at,
            status,
            kind: if raw.imported { Kind::Imported } else { Kind::Issued },
        };
        Ok(Entry {
            record,
            comment: raw.comment.map(|comment| comment.value),
            id_at: position(&raw.id),
            revoked_at: raw.revoked.as_ref().map(position),
            suspended_at: raw.suspended.as_ref().map(position),
            expires_at_at: raw.expires_at.as_ref().map(position),
        })
    }

    fn networks(&self, raw: Vec<Spanned<String>>) -> Result<Vec<Network>, ConfigError> {
        let mut networks = Vec::with_capacity(raw.len());
        for network in raw {
            if networks.len() == NETWORKS_MAX {
                return Err(self.bad(&network, format!("more than {NETWORKS_MAX} networks")));
            }
            let parsed = network.value.parse().map_err(|error| {
                self.bad(&network, format!("network {:?} {error}", network.value))
            })?;
            networks.push(parsed);
        }
        Ok(networks)
    }

    fn check_priority(&self, raw: &Spanned<String>) -> Result<(), ConfigError> {
        if self.rules.priority_classes.contains(&raw.value) {
            return Ok(());
        }
        let known = self.rules.priority_classes.join(", ");
        Err(self.bad(raw, format!("priority {:?} is none of the classes {known}", raw.value)))
    }

    fn scopes(&self, raw: Vec<Spanned<String>>) -> Result<Vec<String>, ConfigError> {
        let mut scopes: Vec<String> = Vec::with_capacity(raw.len());
        for scope in raw {
            self.refuse(&scope, scope_problem(&scope.value))?;
            if scopes.contains(&scope.value) {
                return Err(self.bad(&scope, format!("scope '{}' comes twice", scope.value)));
            }
            if scopes.len() == SCOPES_MAX {
                return Err(self.bad(&scope, format!("more than {SCOPES_MAX} scopes")));
            }
            scopes.push(scope.value);
        }
        Ok(scopes)
    }

    fn digest(&self, raw: &RawDigest) -> Result<Digest, ConfigError> {
        let pepper = raw.pepper.value;
        if !self.rules.peppers.has(pepper) {
            let message = format!("pepper {pepper} is not among 'pepper_files'");
            return Err(self.bad(&raw.pepper, message));
        }
        let hmac_sha256 = hex(&raw.hmac_sha256.value).ok_or_else(|| {
            self.bad(&raw.hmac_sha256, "'hmac_sha256' must be 64 lower-case hexadecimal digits")
        })?;
        Ok(Digest { pepper, hmac_sha256 })
    }

    fn moment(
        &self,
        key: &str,
        raw: Option<&Spanned<String>>,
    ) -> Result<Option<Timestamp>, ConfigError> {
        let Some(raw) = raw else { return Ok(None) };
        raw.value.parse().map(Some).map_err(|error| self.bad(raw, format!("'{key}' {error}")))
    }

    fn refuse<T>(&self, at: &Spanned<T>, problem: Option<String>) -> Result<(), ConfigError> {
        problem.map_or(Ok(()), |message| Err(self.bad(at, message)))
    }

    fn bad<T>(&self, at: &Spanned<T>, message: impl Into<String>) -> ConfigError {
        ConfigError::at(self.path, at, message)
    }
}

/// Where a value stands.
pub(super) fn position<T>(value: &Spanned<T>) -> Position {
    (value.referenced.line(), value.referenced.column())
}

/// What each byte is as a hexadecimal digit; more than 15 where it is none. Digits of digests are
/// random, so that the processor would mostly guess wrong which of two kinds comes next.
const HEX_DIGITS: [u8; 256] = {
    let mut digits = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

fn hex(text: &str) -> Option<[u8; DIGEST_LEN]> {
    let pairs: &[[u8; 2]; DIGEST_LEN] = match text.as_bytes().as_chunks() {
        (pairs, []) => pairs.try_into().ok()?,
        _ => return None,
    };
    let (mut bytes, mut all) = ([0; DIGEST_LEN], 0);
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| HEX_DIGITS[usize::from(digit)]);
        all |= high | low;
        *byte = high << 4 | low & 15;
    }
    (all <= 15).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_64_lower_case_hexadecimal_digits() {
        let text = "0123456789abcdef".repeat(4);
        let bytes = hex(&text).expect("digits");
        assert_eq!(bytes[..8], [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef]);
        assert_eq!(super::super::json::hex_text(&bytes), text);
        for byte in 0..=u8::MAX {
            let other = format!("{}{}", &text[..63], char::from(byte));
            assert_eq!(hex(&other).is_some(), text.as_bytes().contains(&byte), "{byte}");
        }
        assert!(hex(&text[..63]).is_none() && hex(&text[..62]).is_none());
        assert!(hex(&format!("{text}00")).is_none() && hex("").is_none());
    }
}
