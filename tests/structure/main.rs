//! The structure of the code: which part may know which, no circles, and one meaning for each type's name.

mod source;

use std::collections::{BTreeMap, BTreeSet};

use source::{ModulePath, SourceTree};

/// What each part of the crate may import, besides itself. The engine (`imap`, `sync`) knows nothing of Kubernetes,
/// manifests or terminals; what runs in a cluster and what runs without one don't know each other.
const WALLS: &[(&str, &[&str])] =
    &[("error", &[]), ("yaml", &["error"]), ("imap", &["error"]), ("sync", &["error", "imap"])];

fn shown(module: &ModulePath) -> String {
    module.join("::")
}

#[test]
fn each_part_knows_only_the_parts_below_it() {
    let tree = SourceTree::read();
    let mut seen: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for module in tree.0.keys() {
        for import in tree.imports(module) {
            if let (Some(from), Some(to)) = (module.first(), import.first())
                && from != to
            {
                seen.entry(from).or_default().insert(to);
            }
        }
    }
    panic!("{seen:#?}");
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
    let tree = SourceTree::read();
    let mut lines = String::new();
    for circle in circles(&tree) {
        lines += "a circle:\n";
        for module in &circle {
            for import in tree.imports(module).into_iter().filter(|import| circle.contains(import)) {
                lines += &format!("  {} -> {}\n", shown(module), shown(import));
            }
        }
    }
    assert!(lines.is_empty(), "{lines}");
}

#[test]
fn no_type_name_means_two_things() {
    let tree = SourceTree::read();
    let mut homes: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (module, file) in &tree.0 {
        for name in &file.types {
            homes.entry(name).or_default().push(shown(module));
        }
    }
    homes.retain(|_, homes| homes.len() > 1);
    assert!(homes.is_empty(), "{} names: {homes:#?}", homes.len());
}
