//! Where the instructions of one decision go: two callgrind files of one program, differenced and
//! summed by the part of the program that they were spent in. Pure.

use std::collections::BTreeMap;

/// Instructions by function, without what the functions called.
pub type Profile = BTreeMap<String, u64>;

/// Parts of a service by how the names of their functions begin, or what is in them. The first
/// that fits counts, so the narrow ones come first.
const PARTS: [(&str, &[&str]); 17] = [
    ("match: rules of a domain", &["ratelimit_svc::limits"]),
    ("decide: classes, reserve, windows", &["ratelimit_svc::decide"]),
    ("store: counters, leases", &["ratelimit_svc::store", "ratelimit_svc::lease"]),
    ("metrics", &["ratelimit_svc::metrics", "prometheus_client::"]),
    ("ratelimit-svc: wire and the rest", &["ratelimit_svc::", "chassis::"]),
    (
        "allocator",
        &["malloc", "free", "mi_", "_mi_", "realloc", "calloc", "__rust_alloc", "__rust_dealloc"],
    ),
    ("copying and comparing memory", &["memcpy", "memmove", "memset", "memcmp", "bcmp"]),
    ("protobuf: prost", &["prost::", "envoy_types::", "<envoy_types"]),
    ("HTTP/2: h2", &["h2::", "slab::", "indexmap::"]),
    ("HTTP: hyper", &["hyper"]),
    ("headers: http", &["http::", "http_body"]),
    ("gRPC: tonic, tower, axum", &["tonic", "tower", "axum", "matchit"]),
    ("runtime: tokio", &["tokio", "mio::"]),
    ("buffers: bytes", &["bytes::"]),
    ("hashing", &["hash"]),
    ("system calls: libc", &["writev", "readv", "recv", "send", "epoll", "syscall"]),
    ("clock", &["clock_gettime", "Instant", "SystemTime", "unix::time"]),
];

/// Parts of the standard library, for whoever uses them: looked for last, because its names occur
/// in everybody's.
const STANDARD: [(&str, &[&str]); 2] = [
    ("standard library: text", &["core::fmt", "core::str", "std::io", "Display"]),
    ("standard library: vectors, iterators", &["core::", "alloc::", "std::"]),
];

/// Reads the self cost of every function of a callgrind file.
///
/// ```text
/// fn=(12) name      the costs that follow belong to `name`; later only fn=(12)
/// 0 34              position, instructions
/// calls=1 0         the next line is what a callee took, and not counted here
/// 0 999
/// ```
pub fn read(text: &str) -> Profile {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let mut profile = Profile::new();
    let (mut function, mut of_callee) = ("", false);
    for line in text.lines() {
        if let Some(named) = line.strip_prefix("fn=").or_else(|| line.strip_prefix("cfn=")) {
            let (id, name) = named.split_once(' ').unwrap_or((named, ""));
            if !name.is_empty() {
                names.insert(id, name);
            }
            if line.starts_with("fn=") {
                function = names.get(id).copied().unwrap_or("");
            }
        } else if line.starts_with("calls=") {
            of_callee = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            if std::mem::take(&mut of_callee) {
                continue;
            }
            let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok());
            *profile.entry(function.to_owned()).or_default() += cost.unwrap_or(0);
        }
    }
    profile
}

/// Instructions of each part for one of `requests`, most first.
pub fn parts(short: &Profile, long: &Profile, requests: u64) -> Vec<(&'static str, f64)> {
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    for (function, cost) in long {
        let more = cost.saturating_sub(short.get(function).copied().unwrap_or(0));
        *sums.entry(part(function)).or_default() += more as f64 / requests as f64;
    }
    // Less than one instruction is the start of the process, not a decision.
    let mut parts: Vec<_> = sums.into_iter().filter(|(_, cost)| *cost >= 1.0).collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    parts
}

fn part(function: &str) -> &'static str {
    // `<h2::a::B as core::C>::d` and `core::ptr::drop_in_place<h2::a::B>` belong to h2.
    let name = function.strip_prefix("core::ptr::drop_in_place<").unwrap_or(function);
    let name = name.trim_start_matches(['<', '&', '(']);
    let begins = |words: &&[&str]| words.iter().any(|word| name.starts_with(word));
    let holds = |words: &&[&str]| words.iter().any(|word| name.contains(word));
    let begun = PARTS.iter().find(|(_, words)| begins(words));
    let held = || PARTS.iter().chain(&STANDARD).find(|(_, words)| holds(words));
    begun.or_else(held).map_or("the rest", |part| part.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "events: Ir\nfn=(1) h2::proto::poll\n0 10\n+3 5\ncfn=(2) _int_malloc\n\
                        calls=2 0\n0 999\n* 1\n\nfn=(2)\n0 7\n";

    #[test]
    fn what_callees_took_is_not_counted_twice() {
        let expected = [("_int_malloc".to_owned(), 7), ("h2::proto::poll".to_owned(), 16)];
        assert_eq!(read(TEXT), Profile::from(expected));
    }

    #[test]
    fn functions_belong_to_parts() {
        let table = [
            ("ratelimit_svc::decide::plan::plan", "decide: classes, reserve, windows"),
            ("<ratelimit_svc::store::memory::Memory>::count", "store: counters, leases"),
            ("ratelimit_svc::rls::answer", "ratelimit-svc: wire and the rest"),
            ("<h2::share::RecvStream as core::ops::drop::Drop>::drop", "HTTP/2: h2"),
            ("core::ptr::drop_in_place<http::header::map::HeaderMap>", "headers: http"),
            ("<core::hash::sip::Hasher<S> as core::hash::Hasher>::write", "hashing"),
            ("__memcpy_avx_unaligned_erms", "copying and comparing memory"),
            ("_int_malloc", "allocator"),
            ("core::fmt::write", "standard library: text"),
            ("alloc::raw_vec::RawVecInner<A>::finish_grow", "standard library: vectors, iterators"),
            ("__popcountdi2", "the rest"),
        ];
        for (function, expected) in table {
            assert_eq!(part(function), expected, "{function}");
        }
    }

    #[test]
    fn parts_are_per_request() {
        let short = read(TEXT);
        let long = short.iter().map(|(name, cost)| (name.clone(), cost * 3)).collect();
        let parts = parts(&short, &long, 2);
        assert_eq!(parts, [("HTTP/2: h2", 16.0), ("allocator", 7.0)]);
    }
}
