//! `ratelimit.config.ratelimit.v3.RateLimitConfig` as a quota file. JSON is YAML, so a resource
//! becomes the text of a file and takes the way of every file: there is one set of rules for what
//! is valid.

use std::path::PathBuf;

use prost::Message;
use proto::pb::google::protobuf::Any;
use proto::pb::ratelimit::config::ratelimit::v3::{
    RateLimitConfig, RateLimitDescriptor, RateLimitPolicy, RateLimitUnit,
};
use serde_json::{Map, Value as Json, json};

use crate::limits::quotas::Contents;
use crate::struct_json::from_struct;
use crate::xds::TYPE_URL;

/// The resources of one response as quota files by their names.
///
/// # Errors
/// When one cannot be read, or two have the same name.
pub fn contents(resources: &[Any]) -> Result<Contents, String> {
    let mut contents = Contents::new();
    for resource in resources {
        if resource.type_url != TYPE_URL {
            return Err(format!("unexpected type URL '{}'", resource.type_url));
        }
        let config = RateLimitConfig::decode(resource.value.as_slice())
            .map_err(|error| format!("error loading config file: {error}"))?;
        let name = if config.name.is_empty() { &config.domain } else { &config.name };
        let path = PathBuf::from(name);
        let text = file(&config).to_string().into_bytes();
        if contents.insert(path, Ok(text)).is_some() {
            return Err(format!("duplicate resource '{name}'"));
        }
    }
    Ok(contents)
}

fn file(config: &RateLimitConfig) -> Json {
    let descriptors: Vec<Json> = config.descriptors.iter().map(descriptor).collect();
    json!({"domain": config.domain, "descriptors": descriptors})
}

fn descriptor(wire: &RateLimitDescriptor) -> Json {
    let mut fields = Map::new();
    fields.insert("key".to_owned(), wire.key.as_str().into());
    fields.insert("value".to_owned(), wire.value.as_str().into());
    for (name, set) in [
        ("shadow_mode", wire.shadow_mode),
        ("detailed_metric", wire.detailed_metric),
        ("quota_mode", wire.quota_mode),
    ] {
        fields.insert(name.to_owned(), set.into());
    }
    if let Some(limit) = &wire.rate_limit {
        fields.insert("rate_limit".to_owned(), policy(limit));
    }
    if let Some(metadata) = &wire.metadata {
        fields.insert("metadata".to_owned(), from_struct(metadata));
    }
    let below: Vec<Json> = wire.descriptors.iter().map(descriptor).collect();
    fields.insert("descriptors".to_owned(), below.into());
    Json::Object(fields)
}

fn policy(wire: &RateLimitPolicy) -> Json {
    let unit = match RateLimitUnit::try_from(wire.unit) {
        // What protobuf sends for a unit that is not set.
        Ok(RateLimitUnit::Unknown) if wire.unlimited => String::new(),
        Ok(unit) => unit.as_str_name().to_owned(),
        Err(_) => wire.unit.to_string(),
    };
    let replaces: Vec<Json> = wire.replaces.iter().map(|by| json!({"name": by.name})).collect();
    json!({
        "unit": unit,
        "requests_per_unit": wire.requests_per_unit,
        "unlimited": wire.unlimited,
        "name": wire.name,
        "replaces": replaces,
    })
}

#[cfg(test)]
mod tests {
    use proto::pb::google::protobuf::{Struct, Value, value::Kind};
    use proto::pb::ratelimit::config::ratelimit::v3::RateLimitReplace;

    use super::*;
    use crate::diff::diff;
    use crate::limits::quotas::{Library, Update};

    fn any(config: &RateLimitConfig) -> Any {
        Any { type_url: TYPE_URL.to_owned(), value: config.encode_to_vec() }
    }

    fn load(contents: &Contents) -> Update {
        Library::new(false).update(contents)
    }

    /// A resource with everything in it.
    fn everything() -> RateLimitConfig {
        let limit = |unit: RateLimitUnit, requests_per_unit| RateLimitPolicy {
            unit: unit.into(),
            requests_per_unit,
            ..RateLimitPolicy::default()
        };
        let number = Value { kind: Some(Kind::NumberValue(3.0)) };
        RateLimitConfig {
            name: "a".to_owned(),
            domain: "edge".to_owned(),
            descriptors: vec![
                RateLimitDescriptor {
                    key: "tenant".to_owned(),
                    value: "ä\"\\\u{2028}*".to_owned(),
                    rate_limit: Some(RateLimitPolicy {
                        name: "per-tenant".to_owned(),
                        ..limit(RateLimitUnit::Week, u32::MAX)
                    }),
                    shadow_mode: true,
                    detailed_metric: true,
                    metadata: Some(Struct { fields: [("a".to_owned(), number)].into() }),
                    descriptors: vec![RateLimitDescriptor {
                        key: "007".to_owned(),
                        quota_mode: true,
                        rate_limit: Some(limit(RateLimitUnit::Second, 0)),
                        ..RateLimitDescriptor::default()
                    }],
                    ..RateLimitDescriptor::default()
                },
                RateLimitDescriptor {
                    key: "free".to_owned(),
                    rate_limit: Some(RateLimitPolicy {
                        unlimited: true,
                        replaces: vec![RateLimitReplace { name: "per-tenant".to_owned() }],
                        ..RateLimitPolicy::default()
                    }),
                    ..RateLimitDescriptor::default()
                },
            ],
        }
    }

    #[test]
    fn a_resource_says_what_a_file_says() {
        let yaml = r#"
domain: edge
descriptors:
  - key: tenant
    value: "ä\"\\\u2028*"
    shadow_mode: true
    detailed_metric: true
    metadata: {a: 3}
    rate_limit: {unit: week, requests_per_unit: 4294967295, name: per-tenant}
    descriptors:
      - key: "007"
        quota_mode: true
        rate_limit: {unit: second}
  - key: free
    rate_limit: {unlimited: true, replaces: [{name: per-tenant}]}
"#;
        let file = load(&[("a".into(), Ok(yaml.as_bytes().to_vec()))].into());
        let wire = load(&contents(&[any(&everything())]).expect("readable"));
        assert!(file.errors.is_empty() && wire.errors.is_empty() && wire.warnings.is_empty());
        assert_eq!(wire.quotas.domains()[0].root.rules().len(), 3);
        assert_eq!(diff(&file.quotas, &wire.quotas), []);
    }

    #[test]
    fn what_is_wrong_is_told_as_for_a_file() {
        let check = |break_it: fn(&mut RateLimitConfig), expected: &str| {
            let mut config = everything();
            break_it(&mut config);
            let update = load(&contents(&[any(&config)]).expect("readable"));
            let messages: Vec<&str> = update.errors.iter().map(|e| e.message.as_str()).collect();
            assert_eq!(messages, [expected]);
        };
        check(|config| config.domain.clear(), "config file cannot have empty domain");
        check(|config| config.descriptors[1].key.clear(), "descriptor has empty key");
        let limit = |config: &mut RateLimitConfig, unit| {
            config.descriptors[0].rate_limit.as_mut().expect("there").unit = unit;
        };
        check(
            |config| config.descriptors.push(config.descriptors[1].clone()),
            "duplicate descriptor composite key 'edge.free'",
        );
        let mut config = everything();
        for (unit, expected) in [(0, "UNKNOWN"), (99, "99")] {
            limit(&mut config, unit);
            let update = load(&contents(&[any(&config)]).expect("readable"));
            let expected = format!("invalid rate limit unit '{expected}'");
            assert_eq!(update.errors[0].message, expected);
        }
    }

    #[test]
    fn what_is_no_resource_is_refused() {
        let good = any(&everything());
        let other = Any { type_url: "type.googleapis.com/other".to_owned(), ..good.clone() };
        let expected = "unexpected type URL 'type.googleapis.com/other'";
        assert_eq!(contents(&[other]), Err(expected.to_owned()));
        assert_eq!(contents(&[good.clone(), good.clone()]), Err("duplicate resource 'a'".into()));
        let broken = Any { value: vec![0xff], ..good };
        let error = contents(&[broken]).expect_err("not a message");
        assert!(error.starts_with("error loading config file: "), "{error}");
    }
}
