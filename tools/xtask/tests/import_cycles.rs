//! The product's files import each other in one direction.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, ItemImpl, ItemMod, ItemUse, UseTree,
    visit::{self, Visit},
};

const CRATES: [&str; 4] = ["env_file", "fechatter_core", "fechatter_server", "notify_server"];

/// A module's path in its crate; empty for the crate's root.
type Module = Vec<String>;

/// The modules of a crate that have files, and the modules that each of them imports.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

#[test]
fn no_file_imports_a_file_that_imports_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for name in CRATES {
        let imports = imports(&root.join(name).join("src"));
        assert!(!imports.is_empty(), "{name} has no files");
        let cycles: Vec<_> =
            imports.keys().filter(|module| reaches(&imports, module, module)).collect();
        assert!(cycles.is_empty(), "{name}: these files import themselves indirectly: {cycles:?}");
    }
}

/// A module of the models counts as one, with all files in its folder.
#[test]
fn no_module_of_the_models_depends_on_one_that_depends_on_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fechatter_server/src");
    let model = |module: Module| {
        let is_model = module.len() > 1 && module[0] == "models";
        is_model.then(|| module[..2].to_vec())
    };
    let mut models = Imports::new();
    for (module, imports) in imports(&root) {
        if let Some(from) = model(module) {
            let imports = imports.into_iter().filter_map(model).filter(|to| *to != from);
            models.entry(from.clone()).or_default().extend(imports);
        }
    }
    assert!(models.len() > 4, "{models:?}");
    let cycles: Vec<_> = models.keys().filter(|model| reaches(&models, model, model)).collect();
    assert!(cycles.is_empty(), "{cycles:?}");
}

#[test]
fn an_indirect_cycle_is_found() {
    let mut imports: Imports = [("a", "b"), ("b", "c"), ("d", "a")]
        .map(|(from, to)| (module_of(from), BTreeSet::from([module_of(to)])))
        .into();
    assert!(!reaches(&imports, &module_of("a"), &module_of("a")));
    imports.insert(module_of("c"), BTreeSet::from([module_of("a")]));
    assert!(reaches(&imports, &module_of("a"), &module_of("a")));
    assert!(!reaches(&imports, &module_of("d"), &module_of("d")));
}

#[test]
fn all_forms_of_an_import_are_found() {
    let known = ["", "a", "a::b", "c", "d"].map(module_of);
    let source = "
        use crate::{c::Thing, d};
        mod b;
        fn f() -> b::Kind { super::a::b::g() }
        #[cfg(test)] mod tests { use crate::missing; }
    ";
    let found = imports_of(&syn::parse_file(source).unwrap(), &module_of("a"), &known.into());
    assert_eq!(found, ["a::b", "c", "d"].map(module_of).into());
}

fn module_of(path: &str) -> Module {
    path.split("::").filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect()
}

/// Returns true if imports lead from one module to another.
fn reaches(imports: &Imports, from: &Module, to: &Module) -> bool {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        for next in imports.get(module).into_iter().flatten() {
            if next == to {
                return true;
            }
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
    false
}

fn imports(source: &Path) -> Imports {
    let files = files(source);
    let known: BTreeSet<_> = files.iter().map(|file| module(source, file)).collect();
    files
        .iter()
        .map(|file| {
            let module = module(source, file);
            let parsed = syn::parse_file(&fs::read_to_string(file).unwrap()).unwrap();
            let imports = imports_of(&parsed, &module, &known);
            (module, imports)
        })
        .collect()
}

/// The crate's files, except those of its program and its tests.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|kind| kind == "rs")
            && !["main", "tests"].contains(&&*name)
        {
            files.push(path);
        }
    }
    files
}

fn module(source: &Path, file: &Path) -> Module {
    let path = file.strip_prefix(source).unwrap().with_extension("");
    let mut names: Module =
        path.components().map(|name| name.as_os_str().to_str().unwrap().to_owned()).collect();
    if ["lib", "mod"].contains(&names[names.len() - 1].as_str()) {
        names.pop();
    }
    names
}

fn imports_of(file: &syn::File, module: &Module, known: &BTreeSet<Module>) -> BTreeSet<Module> {
    let mut paths = Paths::default();
    paths.visit_file(file);
    let resolved = paths.0.iter().filter_map(|path| resolve(path, module, known));
    resolved.filter(|target| target != module).collect()
}

/// The module that has a file and that a path leads into.
fn resolve(path: &[String], module: &Module, known: &BTreeSet<Module>) -> Option<Module> {
    let mut names = path.iter().peekable();
    let mut base = match names.peek()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => module.clone(),
        child => {
            let child = [&module[..], &[child.to_owned()]].concat();
            known.contains(&child).then(|| module.clone())?
        }
    };
    while let Some(name) = names.next_if(|name| ["crate", "self", "super"].contains(&name.as_str()))
    {
        if name == "super" {
            base.pop();
        }
    }
    base.extend(names.cloned());
    while !known.contains(&base) {
        base.pop()?;
    }
    Some(base)
}

/// Collects all paths of a file, except those of its tests.
#[derive(Default)]
struct Paths(Vec<Vec<String>>);

impl Visit<'_> for Paths {
    fn visit_item_mod(&mut self, item: &ItemMod) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &ItemImpl) {
        if !is_for_tests(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.add(&item.tree, &mut Vec::new());
        }
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if names.len() > 1 {
            self.0.push(names);
        }
        visit::visit_path(self, path);
    }
}

impl Paths {
    fn add(&mut self, tree: &UseTree, before: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.add(&path.tree, before);
                before.pop();
            }
            UseTree::Name(name) => self.0.push([&before[..], &[name.ident.to_string()]].concat()),
            UseTree::Rename(name) => self.0.push([&before[..], &[name.ident.to_string()]].concat()),
            UseTree::Glob(_) => self.0.push(before.clone()),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add(tree, before)),
        }
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}
