//! The structure of the code: which part may know which, no circles, and one meaning for each type's name; and whether
//! the pages for developers show it as it is.

#![allow(clippy::unwrap_used, reason = "a test's helpers end it where it fails")]

mod pages;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::LazyLock,
};

use self::source::{ModulePath, SourceTree};

/// What each part of the crate may import, besides itself; a file directly in `src` is a part too. The engine (`imap`,
/// `sync`) knows nothing of Kubernetes, manifests or terminals. What runs in a cluster (`controller`, `worker`) and what
/// runs without one (`local`) don't know each other.
const WALLS: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("error", &[]),
    ("host_name", &[]),
    ("http_client", &["error"]),
    ("start_limits", &[]),
    ("terminal_text", &[]),
    ("yaml", &["error"]),
    ("forecast", &["api"]),
    ("sync_times", &["api", "error"]),
    ("imap", &["error"]),
    ("sync", &["error", "imap"]),
    ("api", &["error", "host_name", "yaml"]),
    ("oauth", &["clock", "error", "host_name", "http_client"]),
    ("resolve", &["api", "error", "imap", "oauth", "sync"]),
    ("telemetry", &["api", "error", "terminal_text"]),
    ("worker", &["api", "clock", "error", "host_name", "imap", "resolve", "sync", "terminal_text"]),
    (
        "controller",
        &[
            "api",
            "clock",
            "error",
            "forecast",
            "host_name",
            "imap",
            "oauth",
            "resolve",
            "start_limits",
            "sync_times",
            "telemetry",
            "terminal_text",
            "yaml",
        ],
    ),
    (
        "local",
        &[
            "api",
            "error",
            "forecast",
            "host_name",
            "http_client",
            "imap",
            "oauth",
            "resolve",
            "start_limits",
            "sync",
            "sync_times",
            "terminal_text",
            "yaml",
        ],
    ),
    ("import", &["api", "error", "host_name", "terminal_text", "yaml"]),
    ("kubectl", &["api", "error", "terminal_text"]),
    ("fuzz", &["api", "imap", "import", "sync", "yaml"]),
    (
        "commands",
        &[
            "api",
            "controller",
            "error",
            "forecast",
            "imap",
            "import",
            "kubectl",
            "local",
            "oauth",
            "resolve",
            "sync",
            "telemetry",
            "terminal_text",
            "worker",
            "yaml",
        ],
    ),
    ("command_line", &["commands", "error", "local", "telemetry", "terminal_text"]),
];

/// Read once: it takes seconds.
static TREE: LazyLock<SourceTree> = LazyLock::new(SourceTree::read);

fn shown(module: &ModulePath) -> String {
    module.join("::")
}

#[test]
fn each_part_knows_only_the_parts_that_it_may() {
    let walls: BTreeMap<&str, &[&str]> = WALLS.iter().copied().collect();
    let parts: BTreeSet<&str> = TREE.0.keys().filter_map(|module| module.first()).map(String::as_str).collect();
    assert_eq!(parts, walls.keys().copied().collect(), "the parts of the crate, and those that walls are named for");
    let mut breaches = String::new();
    for module in TREE.0.keys() {
        for import in TREE.imports(module) {
            if let (Some(from), Some(to)) = (module.first(), import.first())
                && from != to
                && !walls[from.as_str()].contains(&to.as_str())
            {
                writeln!(breaches, "{} -> {}", shown(module), shown(import)).unwrap();
            }
        }
    }
    assert!(breaches.is_empty(), "imports across a wall:\n{breaches}");
}

/// Groups of modules that import each other, by Tarjan's algorithm.
fn circles(tree: &SourceTree) -> Vec<Vec<&ModulePath>> {
    struct Search<'a> {
        tree: &'a SourceTree,
        index: BTreeMap<&'a ModulePath, (usize, usize)>,
        stack: Vec<&'a ModulePath>,
        found: Vec<Vec<&'a ModulePath>>,
    }
    impl<'a> Search<'a> {
        fn enter(&mut self, module: &'a ModulePath) -> usize {
            let own = self.index.len();
            self.index.insert(module, (own, own));
            self.stack.push(module);
            let mut low = own;
            for import in self.tree.imports(module) {
                match self.index.get(import) {
                    None => low = low.min(self.enter(import)),
                    Some((index, _)) if self.stack.contains(&import) => low = low.min(*index),
                    Some(_) => {}
                }
            }
            if low == own {
                let start = self.stack.iter().position(|on| *on == module).unwrap();
                let group = self.stack.split_off(start);
                if group.len() > 1 {
                    self.found.push(group);
                }
            }
            low
        }
    }
    let mut search = Search { tree, index: BTreeMap::new(), stack: Vec::new(), found: Vec::new() };
    for module in tree.0.keys() {
        if !search.index.contains_key(module) {
            search.enter(module);
        }
    }
    search.found
}

#[test]
fn no_modules_import_each_other_in_a_circle() {
    let tree = &*TREE;
    let mut lines = String::new();
    for circle in circles(tree) {
        lines += "a circle:\n";
        for module in &circle {
            for import in tree.imports(module).into_iter().filter(|import| circle.contains(import)) {
                writeln!(lines, "  {} -> {}", shown(module), shown(import)).unwrap();
            }
        }
    }
    assert!(lines.is_empty(), "{lines}");
}

#[test]
fn no_type_name_means_two_things() {
    let tree = &*TREE;
    let mut homes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (module, file) in &tree.0 {
        for name in &file.types {
            homes.entry(name).or_default().push(shown(module));
        }
    }
    homes.retain(|_, homes| homes.len() > 1);
    assert!(homes.is_empty(), "{} names: {homes:#?}", homes.len());
}
