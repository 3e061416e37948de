//! What an HTTP connection manager takes from clients, where its chain limits or authorises.

use super::bootstrap::{Chain, EXT_AUTHZ};
use super::tree::{field, find, is_true, text};
use super::{Findings, Rule, Severity};
use crate::document::Node;

static NORMALIZE: Rule = Rule {
    name: "path-not-normalized",
    severity: Severity::Error,
    trap: "`/a/../b` reaches routes, authorization and limits as it was sent, and the upstream reads `/b`",
    cure: "set `normalize_path: true`",
};
static SLASHES: Rule = Rule {
    name: "slashes-not-merged",
    severity: Severity::Warning,
    trap: "`//a` is another path than `/a` to routes and limits, and often the same to the upstream",
    cure: "set `merge_slashes: true`",
};
static ESCAPED: Rule = Rule {
    name: "escaped-slashes-kept",
    severity: Severity::Warning,
    trap: "`/a%2fb` is one segment to routes and limits, and often two to the upstream",
    cure: "set `path_with_escaped_slashes_action: REJECT_REQUEST`",
};
static UNDERSCORES: Rule = Rule {
    name: "underscores-accepted",
    severity: Severity::Warning,
    trap: "an upstream that reads headers as CGI does takes a client's `x_tenant` for `x-tenant`",
    cure: "set `common_http_protocol_options.headers_with_underscores_action: REJECT_REQUEST`",
};
static REMOTE_ADDRESS: Rule = Rule {
    name: "remote-address-not-used",
    severity: Severity::Warning,
    trap: "the client's address is what the client says in X-Forwarded-For, and its x-envoy- headers are obeyed",
    cure: "set `use_remote_address: true`, and `xff_num_trusted_hops` to the proxies in front",
};
static HEADERS_TIMEOUT: Rule = Rule {
    name: "no-headers-timeout",
    severity: Severity::Warning,
    trap: "a client may take for ever to send its headers",
    cure: "set `request_headers_timeout`, 10 s say",
};
static STREAMS: Rule = Rule {
    name: "no-stream-limit",
    severity: Severity::Warning,
    trap: "one HTTP/2 connection may open more streams than an edge should let it",
    cure: "set `http2_protocol_options.max_concurrent_streams: 100`",
};
static WINDOWS: Rule = Rule {
    name: "large-http2-windows",
    severity: Severity::Warning,
    trap: "the default windows let one client fill much memory",
    cure: "set `initial_stream_window_size: 65536` and `initial_connection_window_size: 1048576`",
};
static BUFFERS: Rule = Rule {
    name: "large-buffers",
    severity: Severity::Warning,
    trap: "each connection of the listener may buffer 1 MiB",
    cure: "set `per_connection_buffer_limit_bytes: 32768` on the listener",
};

/// The rules of this group.
pub const RULES: &[&Rule] = &[
    &NORMALIZE,
    &SLASHES,
    &ESCAPED,
    &UNDERSCORES,
    &REMOTE_ADDRESS,
    &HEADERS_TIMEOUT,
    &STREAMS,
    &WINDOWS,
    &BUFFERS,
];

pub(super) fn check(chain: &Chain<'_>, found: &mut Findings) {
    if !chain.is_guarded() {
        return;
    }
    let manager = chain.manager;
    let subject = text(manager, "stat_prefix").unwrap_or_default();
    let underscores = text(manager, "common_http_protocol_options.headers_with_underscores_action");
    let escaped = text(manager, "path_with_escaped_slashes_action");
    let missing = |path: &str| find(manager, path).is_none();
    let checks = [
        // Without authorization a path decides nothing that a client could not have had anyway.
        (&NORMALIZE, chain.has(EXT_AUTHZ) && !is_true(manager, "normalize_path")),
        (&SLASHES, !is_true(manager, "merge_slashes")),
        (
            &ESCAPED,
            matches!(escaped, None | Some("KEEP_UNCHANGED" | "IMPLEMENTATION_SPECIFIC_DEFAULT")),
        ),
        (&UNDERSCORES, matches!(underscores, None | Some("ALLOW"))),
        (&REMOTE_ADDRESS, !is_true(manager, "use_remote_address")),
        (&HEADERS_TIMEOUT, missing("request_headers_timeout")),
        (&STREAMS, http2(manager) && missing("http2_protocol_options.max_concurrent_streams")),
        (
            &WINDOWS,
            http2(manager) && missing("http2_protocol_options.initial_connection_window_size"),
        ),
    ];
    for (rule, _) in checks.into_iter().filter(|(_, found)| *found) {
        found.add(rule, manager, subject);
    }
    if field(chain.listener, "per_connection_buffer_limit_bytes").is_none() {
        let name = text(chain.listener, "name").unwrap_or_default();
        found.add(&BUFFERS, chain.listener, format!("listener {name}"));
    }
}

/// Whether clients may speak HTTP/2 to it.
fn http2(manager: &Node) -> bool {
    !matches!(text(manager, "codec_type"), Some("HTTP1" | "HTTP3"))
}
