//! Reading the tree of a file as protobuf's JSON: fields in either spelling, durations, numbers, and
//! messages that say their type. Knows nothing of Envoy's own fields.

use crate::document::{Node, Value};

const TYPED_STRUCTS: [&str; 2] = ["xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"];

/// Where a node is written, line and column; of an alias, where its anchor stands.
pub fn place(node: &Node) -> (u64, u64) {
    (node.defined.line(), node.defined.column())
}

/// A field of a message, by its name in the proto; `lowerCamelCase` is found as well. A field of
/// `null` is absent.
pub fn field<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    let Value::Map(pairs) = &node.value else { return None };
    let found =
        pairs.iter().find(|(key, _)| key.value.as_text().is_some_and(|key| same(key, name)));
    found.map(|(_, value)| value).filter(|value| value.value != Value::Null)
}

/// Whether `key` is `name`, in `snake_case` or in `lowerCamelCase`.
fn same(key: &str, name: &str) -> bool {
    if key == name {
        return true;
    }
    let mut key = key.chars();
    let mut upper = false;
    for c in name.chars() {
        if c == '_' {
            upper = true;
            continue;
        }
        let wanted = if upper { c.to_ascii_uppercase() } else { c };
        upper = false;
        if key.next() != Some(wanted) {
            return false;
        }
    }
    key.next().is_none()
}

/// A field of a field, as `grpc_service.envoy_grpc.cluster_name`.
pub fn find<'a>(node: &'a Node, path: &str) -> Option<&'a Node> {
    path.split('.').try_fold(node, field)
}

/// The items of a repeated field; none where it is absent or no list.
pub fn items<'a>(node: &'a Node, path: &str) -> &'a [Node] {
    match find(node, path).map(|node| &node.value) {
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

/// The text of a field.
pub fn text<'a>(node: &'a Node, path: &str) -> Option<&'a str> {
    find(node, path)?.value.as_text()
}

/// Whether a field is there and true.
pub fn is_true(node: &Node, path: &str) -> bool {
    find(node, path).is_some_and(|node| node.value == Value::Bool(true))
}

/// The number of a node; protobuf's JSON allows quotes around it.
pub fn number(node: &Node) -> Option<f64> {
    match &node.value {
        Value::Integer(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    }
}

/// The seconds of a duration such as `0.25s`.
pub fn seconds(node: &Node) -> Option<f64> {
    node.value.as_text()?.strip_suffix('s')?.parse().ok()
}

/// The full name of a message's type and its fields: of an `Any`, or of a `TypedStruct` within one.
pub fn message(node: &Node) -> Option<(&str, &Node)> {
    let kind = name(text(node, "@type")?);
    if TYPED_STRUCTS.contains(&kind) {
        return Some((name(text(node, "type_url")?), field(node, "value")?));
    }
    Some((kind, node))
}

fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// Shows `visit` a node and everything below it, outermost first.
pub fn walk<'a>(node: &'a Node, visit: &mut impl FnMut(&'a Node)) {
    visit(node);
    match &node.value {
        Value::List(items) => items.iter().for_each(|item| walk(item, visit)),
        Value::Map(pairs) => pairs.iter().for_each(|(_, value)| walk(value, visit)),
        _ => {}
    }
}

/// All messages of a type in a tree.
pub fn messages<'a>(node: &'a Node, kind: &str) -> Vec<&'a Node> {
    let mut found = Vec::new();
    walk(node, &mut |node| {
        if let Some((of, fields)) = message(node)
            && of == kind
        {
            found.push(fields);
        }
    });
    found
}
