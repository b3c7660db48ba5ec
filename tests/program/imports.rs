//! No file imports a file that imports it, directly or round a corner.
//!
//! Every path in the text counts, in macros and under any `cfg` too, and leads to the file that
//! defines the item. `mod x;`, the import of a module and a re-export count only once an item is
//! used. A `mod tests` in braces counts as a file of its own, as `tests.rs` would. Crates of a
//! single file are not read.
//!
//! Nothing is seen that no path names: a call of a method, even if its `impl` is in another file
//! than its type, and macros that are in scope by their place in the text.

mod modules;

use modules::Modules;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// The lines by which each file imports each other one.
type Edges<'a> = BTreeMap<&'a Path, BTreeMap<&'a Path, BTreeSet<usize>>>;

fn edges(modules: &Modules) -> Edges<'_> {
    let mut edges = Edges::new();
    for (from, line, to) in modules.mentions().into_iter().filter(|(from, _, to)| from != to) {
        edges.entry(from).or_default().entry(to).or_default().insert(line);
    }
    edges
}

/// Returns the files that `file` imports, directly or round a corner.
fn reach<'a>(edges: &Edges<'a>, file: &'a Path) -> BTreeSet<&'a Path> {
    let mut reached = BTreeSet::new();
    let mut open = vec![file];
    while let Some(file) = open.pop() {
        open.extend(edges.get(file).into_iter().flat_map(BTreeMap::keys).filter(|to| reached.insert(**to)));
    }
    reached
}

/// Returns the files that `file` imports and that import it, directly or round a corner.
fn circle<'a>(edges: &Edges<'a>, file: &'a Path) -> BTreeSet<&'a Path> {
    let mut circle = reach(edges, file);
    circle.retain(|other| reach(edges, other).contains(file));
    circle
}

/// Returns each set of files that all import one another, with the lines that do.
fn circles(edges: &Edges<'_>) -> String {
    let circles: BTreeSet<_> = edges.keys().map(|file| circle(edges, file)).collect();
    let mut text = String::new();
    for circle in circles.iter().filter(|circle| !circle.is_empty()) {
        text += "These files import one another:\n";
        for from in circle {
            for (to, lines) in edges[from].iter().filter(|(to, _)| circle.contains(*to)) {
                writeln!(text, "  {} imports {}, lines {lines:?}", from.display(), to.display()).unwrap();
            }
        }
    }
    text
}

/// Adds the root of each crate under `folder`: every `lib.rs` and `main.rs`.
fn add_roots(folder: &Path, roots: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            add_roots(&path, roots);
        } else if path.ends_with("lib.rs") || path.ends_with("main.rs") {
            roots.push(path);
        }
    }
}

#[test]
fn no_file_imports_a_file_that_imports_it() {
    let mut roots = Vec::new();
    for folder in ["dataplane", "pipelines", "tests"] {
        add_roots(Path::new(folder), &mut roots);
    }
    let circles = circles(&edges(&Modules::of(roots)));
    assert!(circles.is_empty(), "{circles}");
}

#[test]
fn a_circle_is_found() {
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in [
        ("lib.rs", "mod a;\nmod b;\nmod c;\nmod d;\npub use b::B;\n"),
        ("a.rs", "use crate::{B, d};\npub struct A(B);\n"),
        ("b.rs", "pub struct B;\n\nfn f() {\n    assert!(crate::c::is());\n}\n"),
        ("c.rs", "use super::{a, d::D};\npub fn is() -> bool {\n    a::A::is()\n}\n"),
        ("d.rs", "pub struct D;\nmod tests {\n    use crate::a::A;\n}\n"),
    ] {
        fs::write(folder.path().join(file), text).unwrap();
    }
    let found = circles(&edges(&Modules::of(vec![folder.path().join("lib.rs")])));
    let found = found.replace(&format!("{}/", folder.path().display()), "");
    let expected = "These files import one another:\n  a.rs imports b.rs, lines {1, 2}\n  \
                    b.rs imports c.rs, lines {4}\n  c.rs imports a.rs, lines {3}\n";
    assert_eq!(found, expected);
}
