//! Which file imports which: no circles, no arrow upward, and what is pure stands on what is pure.
//!
//! Arrows are read from paths that begin with `crate`, `super` or `self`, outside of tests. A module
//! and its own children may know each other: they are one part in several files.

use std::collections::{BTreeMap, BTreeSet};

use crate::{File, PURE, code, files, impure_words, is_test, report, rust};

/// A module of a crate, by its path from the crate's root.
type Module = Vec<String>;

/// The modules of one crate and what each imports.
struct Crate {
    name: String,
    imports: BTreeMap<Module, BTreeSet<Module>>,
}

/// Circles that stand, to be mended by whoever changes these files next. None may be added.
const KNOWN_CIRCLES: &[&str] = &[];

/// The floors of ratelimit-svc, lowest first. A file imports from its own part and from parts below.
const FLOORS: &[&[&str]] = &[
    &["clock", "document", "html", "keyed_hash", "struct_json"],
    &["limits"],
    &["decide", "diff", "lint"],
    &["explain", "lease", "live", "record"],
    &["store"],
    &["metrics"],
    &["outage"],
    &["import", "limiter", "simulate"],
    &["reload"],
    &["xds"],
    &["console", "grpc", "json", "reflection", "tenant_page"],
    &["config"],
    &["server"],
    &["cli"],
];

/// What pure modules reach and is not, to be mended by whoever changes these files next.
const KNOWN_REACHES: &[&str] = &["ext-authz/src/timestamp names `SystemTime::now`"];

fn module_of(path: &str) -> Module {
    let mut module: Module = path.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

/// All paths that `use` trees and expressions name, flattened.
fn paths(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    for head in ["crate::", "super::", "self::"] {
        let mut from = 0;
        while let Some(at) = text[from..].find(head).map(|at| from + at) {
            from = at + head.len();
            if !text[..at].ends_with(|c: char| is_word(c) || c == ':') {
                tree(&text[at..], Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Reads one tree of a path and returns what follows it.
fn tree<'a>(text: &'a str, mut path: Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let mut rest = text.trim_start();
    loop {
        if let Some(inner) = rest.strip_prefix('{') {
            rest = inner.trim_start();
            while !rest.is_empty() && !rest.starts_with('}') {
                rest = tree(rest, path.clone(), found).trim_start();
                rest = rest.find([',', '}']).map_or("", |end| &rest[end..]);
                rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
            }
            return rest.strip_prefix('}').unwrap_or(rest);
        }
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end > 0 {
            path.push(rest[..end].to_owned());
        }
        rest = &rest[end..];
        match rest.strip_prefix("::") {
            Some(more) if end > 0 => rest = more,
            _ => {
                found.push(path);
                return rest;
            }
        }
    }
}

fn crates(files: &[File]) -> Vec<Crate> {
    let mut crates: BTreeMap<&str, BTreeMap<Module, &File>> = BTreeMap::new();
    for file in rust(files) {
        let Some((name, path)) = file.path.split_once("/src/") else { continue };
        if !name.contains('/') && !is_test(&format!("/{path}")) {
            crates.entry(name).or_default().insert(module_of(path), file);
        }
    }
    let imports = |modules: &BTreeMap<Module, &File>| {
        let of =
            |(module, file): (&Module, &&File)| (module.clone(), imports_of(module, file, modules));
        modules.iter().map(of).collect()
    };
    let of_crate = |(name, modules): (&&str, &BTreeMap<Module, &File>)| Crate {
        name: (*name).to_owned(),
        imports: imports(modules),
    };
    crates.iter().map(of_crate).collect()
}

/// The modules that a file imports, without its ancestors and descendants.
fn imports_of(module: &Module, file: &File, modules: &BTreeMap<Module, &File>) -> BTreeSet<Module> {
    let lines = code(file).lines().map(|line| line.split("//").next().unwrap_or_default());
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let resolve = |path: Vec<String>| {
        let mut steps = path.iter().map(String::as_str).peekable();
        let mut at = match steps.next() {
            Some("crate") => Vec::new(),
            Some("super") => module[..module.len().saturating_sub(1)].to_vec(),
            _ => module.clone(),
        };
        while steps.next_if_eq(&"super").is_some() {
            at.pop();
        }
        at.extend(steps.map(str::to_owned));
        while !at.is_empty() && !modules.contains_key(&at) {
            at.pop();
        }
        at
    };
    let targets = paths(&text).into_iter().map(resolve);
    targets
        .filter(|to| !to.is_empty() && !to.starts_with(module) && !module.starts_with(to))
        .collect()
}

/// The groups of modules of which each reaches each other.
fn circles(imports: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<Vec<String>> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> =
        imports.keys().map(|from| (from, reach(from, imports))).collect();
    let mut circles = BTreeSet::new();
    for (from, reaches) in &reached {
        let circle =
            reaches.iter().filter(|to| reached.get(**to).is_some_and(|back| back.contains(*from)));
        let names: Vec<String> = circle.map(|module| module.join("/")).collect();
        if names.len() > 1 {
            circles.insert(names);
        }
    }
    circles
}

fn reach<'a>(
    from: &Module,
    imports: &'a BTreeMap<Module, BTreeSet<Module>>,
) -> BTreeSet<&'a Module> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Module> = imports.get(from).into_iter().flatten().collect();
    while let Some(module) = open.pop() {
        if reached.insert(module) {
            open.extend(imports.get(module).into_iter().flatten());
        }
    }
    reached
}

#[test]
fn no_files_import_each_other() {
    let mut found = BTreeSet::new();
    for of in crates(&files()) {
        found.extend(
            circles(&of.imports).iter().map(|names| format!("{}: {}", of.name, names.join(", "))),
        );
    }
    let known: BTreeSet<String> = KNOWN_CIRCLES.iter().map(|circle| (*circle).to_owned()).collect();
    let new = found.difference(&known).map(|circle| {
        format!(
            "{circle}: these files import each other in a circle: move what they share below both"
        )
    });
    report(new.collect());
    let gone = known.difference(&found);
    report(gone.map(|circle| format!("{circle}: mended: take it out of KNOWN_CIRCLES")).collect());
}

#[test]
fn arrows_between_parts_point_downward() {
    let floor_of = |part: &str| FLOORS.iter().position(|floor| floor.contains(&part));
    let mut problems = Vec::new();
    let all = crates(&files());
    let of = all.iter().find(|of| of.name == "ratelimit-svc").expect("the crate");
    for (from, targets) in &of.imports {
        let Some(part) = from.first() else { continue };
        let Some(floor) = floor_of(part) else {
            problems.push(format!("{part}: give it a floor in FLOORS of tidy/arrows.rs"));
            continue;
        };
        for to in targets.iter().filter(|to| to.first() != Some(part)) {
            if floor_of(&to[0]).is_none_or(|below| below >= floor) {
                problems.push(format!(
                    "ratelimit-svc/src/{} imports {}: arrows point downward, see FLOORS",
                    from.join("/"),
                    to.join("/")
                ));
            }
        }
    }
    let parts: BTreeSet<&str> =
        of.imports.keys().filter_map(|module| Some(module.first()?.as_str())).collect();
    let gone = FLOORS.iter().copied().flatten().filter(|part| !parts.contains(**part));
    problems.extend(gone.map(|part| format!("{part} exists: keep FLOORS true to the tree")));
    report(problems);
}

#[test]
fn what_is_pure_reaches_only_what_is_pure() {
    let files = files();
    let is_pure = |path: &str| {
        let within = |pure: &str| {
            path.strip_prefix(pure).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        PURE.iter().any(|pure| within(pure))
    };
    let impure: BTreeMap<String, &str> = rust(&files)
        .filter_map(|file| {
            let (name, path) = file.path.split_once("/src/")?;
            let word = impure_words(file).next()?.1;
            Some((format!("{name}/src/{}", module_of(path).join("/")), word))
        })
        .collect();
    let (mut problems, mut count) = (BTreeMap::new(), 0);
    for of in crates(&files) {
        let path = |module: &Module| format!("{}/src/{}", of.name, module.join("/"));
        for from in of.imports.keys().filter(|from| is_pure(&path(from))) {
            let reached = reach(from, &of.imports);
            count += reached.len();
            for (to, word) in
                reached.into_iter().filter_map(|to| Some((to, impure.get(&path(to))?)))
            {
                let problem = format!("{} names `{word}`", path(to));
                problems.entry(problem).or_insert_with(|| path(from));
            }
        }
    }
    assert!(count > 50, "imports were found");
    let new = problems.iter().filter(|(problem, _)| !KNOWN_REACHES.contains(&problem.as_str()));
    report(new.map(|(problem, from)| format!("{from} is pure and reaches {problem}")).collect());
    let gone = KNOWN_REACHES.iter().filter(|known| !problems.contains_key(**known));
    report(gone.map(|known| format!("{known}: mended: take it out of KNOWN_REACHES")).collect());
}

#[test]
fn paths_are_read_from_trees_and_expressions() {
    let text =
        "use crate::a::{self, b::{C, D as E}, f};\nlet x = super::g::h(self::i);\nmy_crate::z";
    let found: BTreeSet<String> = paths(text).iter().map(|path| path.join("::")).collect();
    let expected = [
        "crate::a::self",
        "crate::a::b::C",
        "crate::a::b::D",
        "crate::a::f",
        "super::g::h",
        "self::i",
    ];
    assert_eq!(found, expected.map(str::to_owned).into());
}

#[test]
fn a_circle_is_found_and_a_chain_is_none() {
    let module = |name: &str| vec![name.to_owned()];
    let imports = |pairs: &[(&str, &[&str])]| {
        let targets = |to: &[&str]| to.iter().map(|to| module(to)).collect();
        pairs.iter().map(|(from, to)| (module(from), targets(to))).collect()
    };
    assert_eq!(circles(&imports(&[("a", &["b"]), ("b", &["c"]), ("c", &[])])), BTreeSet::new());
    let found = circles(&imports(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"]), ("d", &["a"])]));
    assert_eq!(found, [vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]].into());
}
