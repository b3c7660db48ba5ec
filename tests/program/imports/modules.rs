//! The modules of a crate, and what their paths lead to.

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

type Names = Vec<String>;

/// Most steps from a path to what it leads to.
const LONGEST: usize = 24;

#[derive(Default)]
struct Module {
    file: PathBuf,
    /// Where the files of its children are.
    folder: PathBuf,
    parent: Option<usize>,
    children: HashMap<String, usize>,
    items: HashSet<String>,
    /// Each name that `use` brings into scope, and its path. `*` for a glob.
    imports: Vec<(String, Names)>,
    /// The modules that globs name.
    globs: Vec<usize>,
    /// Each path that is used, and its line.
    mentions: Vec<(Names, usize)>,
}

/// What a path leads to.
#[derive(Clone, Copy)]
enum Target {
    Module(usize),
    /// An item of this module.
    Item(usize),
}

/// All modules of some crates.
#[derive(Default)]
pub(super) struct Modules(Vec<Module>);

fn is(token: Option<&TokenTree>, text: &str) -> bool {
    token.is_some_and(|token| match token {
        TokenTree::Ident(ident) => ident == text,
        TokenTree::Punct(punct) => text.chars().eq([punct.as_char()]),
        _ => false,
    })
}

fn ident(token: Option<&TokenTree>) -> Option<String> {
    if let Some(TokenTree::Ident(ident)) = token { Some(ident.to_string()) } else { None }
}

/// Adds each name that the tree of a `use` brings into scope, and its path.
fn use_tree(tokens: &[TokenTree], prefix: &[String], imports: &mut Vec<(String, Names)>) {
    for part in tokens.split(|token| is(Some(token), ",")).filter(|part| !part.is_empty()) {
        let mut path = prefix.to_vec();
        let (mut alias, mut tree) = (None, false);
        for (index, token) in part.iter().enumerate() {
            match token {
                TokenTree::Group(group) => {
                    use_tree(&Vec::from_iter(group.stream()), &path, imports);
                    tree = true;
                }
                TokenTree::Ident(_) if is(Some(token), "as") => {
                    alias = ident(part.get(index + 1));
                    break;
                }
                TokenTree::Ident(name) => path.push(name.to_string()),
                token if is(Some(token), "*") => alias = Some("*".to_owned()),
                _ => {}
            }
        }
        path.pop_if(|last| last == "self" && !prefix.is_empty());
        if !tree {
            imports.push((alias.unwrap_or_else(|| path.last().unwrap().clone()), path));
        }
    }
}

impl Modules {
    /// Reads the crates with these roots.
    pub(super) fn of(roots: Vec<PathBuf>) -> Self {
        let mut modules = Self::default();
        for root in roots {
            let folder = root.parent().unwrap().to_owned();
            modules.file(root, folder, None);
        }
        modules.link();
        modules
    }

    /// Adds the module of `file`, whose children are in `folder`, and all modules under it.
    fn file(&mut self, file: PathBuf, folder: PathBuf, parent: Option<usize>) -> usize {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let tokens = text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.add(Module { file, folder, parent, ..Module::default() }, tokens)
    }

    fn add(&mut self, module: Module, tokens: TokenStream) -> usize {
        self.0.push(module);
        let id = self.0.len() - 1;
        self.read(id, tokens, true);
        id
    }

    /// Adds a child of module `parent`, and all modules under it. It has a file of its own unless
    /// `braces` hold its text.
    fn child(&mut self, parent: usize, name: &str, braces: Option<TokenStream>) -> usize {
        let Module { file, folder, .. } = &self.0[parent];
        let folder = folder.join(name);
        match braces {
            Some(braces) => {
                let file = if name == "tests" { file.join(name) } else { file.clone() };
                self.add(Module { file, folder, parent: Some(parent), ..Module::default() }, braces)
            }
            None => {
                let inside = folder.join("mod.rs");
                let file = if inside.exists() { inside } else { folder.with_extension("rs") };
                self.file(file, folder, Some(parent))
            }
        }
    }

    /// Takes down what the text of module `id` holds. `outermost`: outside all braces, where items
    /// are the module's own.
    fn read(&mut self, id: usize, tokens: TokenStream, outermost: bool) {
        // A macro's `$name` counts as the name.
        let tokens = Vec::from_iter(tokens.into_iter().filter(|token| !is(Some(token), "$")));
        let before = |at: usize, back: usize| at.checked_sub(back).and_then(|at| tokens.get(at));
        let mut at = 0;
        let mut public = false;
        while let Some(token) = tokens.get(at) {
            let start = at;
            at += 1;
            let line = token.span().start().line;
            let word = match token {
                TokenTree::Group(group) => {
                    self.read(id, group.stream(), false);
                    public &= group.delimiter() == Delimiter::Parenthesis;
                    continue;
                }
                TokenTree::Ident(word) => word.to_string(),
                _ => continue,
            };
            let is_public = std::mem::replace(&mut public, word == "pub");
            match word.as_str() {
                "mod" if let Some(name) = ident(tokens.get(at)) => {
                    let braces = match tokens.get(at + 1) {
                        Some(TokenTree::Group(braces)) => Some(braces.stream()),
                        _ => None,
                    };
                    at += 1 + usize::from(braces.is_some());
                    let child = self.child(id, &name, braces);
                    self.0[id].children.insert(name, child);
                }
                "use" if !is(tokens.get(at), "<") => {
                    let length = tokens[at..].iter().position(|token| is(Some(token), ";")).unwrap();
                    let mut imports = Vec::new();
                    use_tree(&tokens[at..at + length], &[], &mut imports);
                    at += length;
                    let module = &mut self.0[id];
                    if !is_public {
                        module.mentions.extend(imports.iter().map(|(_, path)| (path.clone(), line)));
                    }
                    module.imports.extend(imports);
                }
                "struct" | "enum" | "union" | "trait" | "type" | "fn" | "const" | "static" => {
                    if outermost && let Some(name) = ident(tokens.get(at)) {
                        self.0[id].items.insert(name);
                    }
                }
                // A field or a method.
                _ if is(before(start, 1), ".") && !is(before(start, 2), ".") => {}
                _ => {
                    let mut path = vec![word];
                    while is(tokens.get(at), ":")
                        && is(tokens.get(at + 1), ":")
                        && let Some(name) = ident(tokens.get(at + 2))
                    {
                        path.push(name);
                        at += 3;
                    }
                    self.0[id].mentions.push((path, line));
                }
            }
        }
    }

    /// Resolves all globs, by paths that need no glob themselves.
    fn link(&mut self) {
        for at in 0..self.0.len() {
            self.0[at].globs = self
                .named(at, "*", LONGEST)
                .filter_map(|target| if let Target::Module(module) = target { Some(module) } else { None })
                .collect();
        }
    }

    /// Returns what the imports of `name` in module `at` lead to.
    fn named(&self, at: usize, name: &str, depth: usize) -> impl Iterator<Item = Target> {
        let imports = self.0[at].imports.iter().filter(move |import| import.0 == name);
        imports.flat_map(move |(_, path)| self.find(at, path, false, depth))
    }

    /// Returns what `path` leads to, as module `at` would write it: several targets if they depend
    /// on a `cfg`. A name that is not found is an item if it must be this module's (`own`), else
    /// another crate's.
    fn find(&self, at: usize, path: &[String], own: bool, depth: usize) -> Vec<Target> {
        let module = &self.0[at];
        let Some((first, rest)) = path.split_first() else { return vec![Target::Module(at)] };
        let Some(depth) = depth.checked_sub(1) else { return Vec::new() };
        match (first.as_str(), module.parent) {
            ("self", _) | ("crate", None) => return self.find(at, rest, true, depth),
            ("super", Some(parent)) => return self.find(parent, rest, true, depth),
            ("crate", Some(parent)) => return self.find(parent, path, true, depth),
            _ => {}
        }
        let is_item = module.items.contains(first);
        if let Some(&child) = module.children.get(first).filter(|_| !is_item || !rest.is_empty()) {
            return self.find(child, rest, true, depth);
        }
        if is_item {
            return vec![Target::Item(at)];
        }
        if module.imports.iter().any(|(name, _)| name == first) {
            let follow = |target| match target {
                Target::Module(module) => self.find(module, rest, true, depth),
                item => vec![item],
            };
            return self.named(at, first, depth).flat_map(follow).collect();
        }
        let mut globs = module.globs.iter().map(|&module| self.find(module, path, false, depth));
        let found = globs.find(|found| !found.is_empty());
        found.unwrap_or_else(|| own.then_some(Target::Item(at)).into_iter().collect())
    }

    /// Returns each mention of an item: the file, its line, and the file that defines the item.
    pub(super) fn mentions(&self) -> Vec<(&Path, usize, &Path)> {
        let mut all = Vec::new();
        for (at, module) in self.0.iter().enumerate() {
            for (path, line) in &module.mentions {
                for target in self.find(at, path, false, LONGEST) {
                    if let Target::Item(other) = target {
                        all.push((module.file.as_path(), *line, self.0[other].file.as_path()));
                    }
                }
            }
        }
        all
    }
}
