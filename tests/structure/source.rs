//! What the source says of itself: modules, what each imports from others, and the types it defines.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use syn::{
    Attribute, File, Item, ItemEnum, ItemFn, ItemImpl, ItemMod, ItemStruct, ItemTrait, ItemType, ItemUse, Macro,
    UseTree, Visibility,
    visit::{self, Visit},
};

/// The path of a module within the crate: `sync::copy` is `["sync", "copy"]`; the crate's root is empty.
pub type ModulePath = Vec<String>;

/// One file of the crate that is no test.
pub struct SourceFile {
    /// Every path that the code names, from its root on: `crate::sync::copy::How`.
    named: BTreeSet<Vec<String>>,
    /// What it hands on under its own path: a name, and the path behind it.
    reexports: BTreeMap<String, Vec<String>>,
    /// The types that it defines.
    pub types: Vec<String>,
}

/// All files of the crate.
pub struct SourceTree(pub BTreeMap<ModulePath, SourceFile>);

impl SourceTree {
    /// Reads every file below `src` that is compiled without `cfg(test)`.
    pub fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut tree = BTreeMap::new();
        let mut waiting = vec![(ModulePath::new(), root.join("lib.rs"), root)];
        while let Some((module, path, folder)) = waiting.pop() {
            let parsed: File = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap();
            let mut reader = Reader { module: module.clone(), ..Reader::default() };
            reader.visit_file(&parsed);
            for child in reader.children {
                let mut below = module.clone();
                below.push(child.clone());
                let (file, directory) = (folder.join(format!("{child}.rs")), folder.join(&child));
                let file = if file.exists() { file } else { directory.join("mod.rs") };
                waiting.push((below, file, directory));
            }
            tree.insert(module, SourceFile { named: reader.named, reexports: reader.reexports, types: reader.types });
        }
        Self(tree)
    }

    /// The modules that `module` takes names from, itself left out. A name that another module only hands on counts as
    /// taken from where it is defined.
    pub fn imports(&self, module: &ModulePath) -> BTreeSet<&ModulePath> {
        let named = &self.0[module].named;
        named.iter().filter_map(|path| self.home(path, 0)).filter(|home| *home != module).collect()
    }

    /// The module that defines what `path` names; none for other crates.
    fn home(&self, path: &[String], depth: usize) -> Option<&ModulePath> {
        let (module, rest) = (0..=path.len()).rev().find_map(|length| {
            let (module, rest) = path.split_at(length);
            self.0.get_key_value(module).map(|(key, _)| (key, rest))
        })?;
        let Some(name) = rest.first() else {
            return Some(module);
        };
        if depth < 8
            && let Some(behind) = self.0[module].reexports.get(name)
        {
            return self.home(behind, depth + 1);
        }
        Some(module)
    }
}

#[derive(Default)]
struct Reader {
    module: ModulePath,
    children: Vec<String>,
    named: BTreeSet<Vec<String>>,
    reexports: BTreeMap<String, Vec<String>>,
    types: Vec<String>,
}

impl Reader {
    /// The path from the crate's root; none for what belongs to another crate, or to no crate.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let mut base = self.module.clone();
        let mut rest = path;
        match path.first()?.as_str() {
            "crate" => {
                base.clear();
                rest = &path[1..];
            }
            "self" => rest = &path[1..],
            "super" => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            child if self.children.iter().any(|known| known == child) => {}
            _ => return None,
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    fn leaves(tree: &UseTree, above: &mut Vec<String>, found: &mut Vec<(String, Vec<String>)>) {
        match tree {
            UseTree::Path(path) => {
                above.push(path.ident.to_string());
                Self::leaves(&path.tree, above, found);
                above.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| Self::leaves(tree, above, found)),
            UseTree::Glob(_) => found.push(("*".to_owned(), above.clone())),
            UseTree::Name(name) => {
                let (mut path, own) = (above.clone(), name.ident.to_string());
                if own != "self" {
                    path.push(own);
                }
                found.push((path.last().cloned().unwrap_or_default(), path));
            }
            UseTree::Rename(rename) => {
                let mut path = above.clone();
                path.push(rename.ident.to_string());
                found.push((rename.rename.to_string(), path));
            }
        }
    }
}

fn only_in_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Ident>().is_ok_and(|only| only == "test")
    })
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_file(&mut self, file: &'ast File) {
        let is_module = |item: &'ast Item| match item {
            Item::Mod(module) if module.content.is_none() && !only_in_tests(&module.attrs) => {
                Some(module.ident.to_string())
            }
            _ => None,
        };
        self.children = file.items.iter().filter_map(is_module).collect();
        visit::visit_file(self, file);
    }

    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !only_in_tests(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if only_in_tests(&item.attrs) {
            return;
        }
        let mut found = Vec::new();
        Self::leaves(&item.tree, &mut Vec::new(), &mut found);
        for (name, path) in found {
            let Some(path) = self.absolute(&path) else { continue };
            if matches!(item.vis, Visibility::Inherited) {
                self.named.insert(path);
            } else {
                self.reexports.insert(name, path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if segments.len() > 1 {
            self.named.extend(self.absolute(&segments));
        }
        visit::visit_path(self, path);
    }

    // Tokens of macros (`format!`, `select!`) are not parsed: paths in them are read one by one.
    fn visit_macro(&mut self, invocation: &'ast Macro) {
        let text = invocation.tokens.to_string().replace(" :: ", "::");
        for word in text.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':') {
            let segments: Vec<String> = word.split("::").map(str::to_owned).collect();
            if segments.len() > 1 {
                self.named.extend(self.absolute(&segments));
            }
        }
        visit::visit_macro(self, invocation);
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        if !only_in_tests(&item.attrs) {
            self.types.push(item.ident.to_string());
            visit::visit_item_struct(self, item);
        }
    }

    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        if !only_in_tests(&item.attrs) {
            self.types.push(item.ident.to_string());
            visit::visit_item_enum(self, item);
        }
    }

    fn visit_item_trait(&mut self, item: &'ast ItemTrait) {
        self.types.push(item.ident.to_string());
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast ItemType) {
        self.types.push(item.ident.to_string());
        visit::visit_item_type(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if !only_in_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if !only_in_tests(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }
}
