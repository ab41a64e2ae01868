//! Every function of a service's store has tests of its own: a module of its name in the tests beside it, which call it.
//!
//! `store.rs` has its tests in `store/tests.rs`, `store/codes.rs` in `store/codes/tests.rs`. See plugins/testing/README.md.

use std::path::PathBuf;

use super::{folders, name_of, read_path, root, rust_files, shown};

#[test]
fn every_function_of_a_store_has_tests_of_its_own() {
    let (mut wrong, mut functions) = (Vec::new(), 0);
    for store in stores() {
        let tests = store.with_extension("").join("tests.rs");
        let names = public_functions(&read_path(store.clone()));
        if names.is_empty() {
            continue;
        }
        functions += names.len();
        if !tests.exists() {
            wrong.push(format!("{}: no tests in {}", shown(&store), shown(&tests)));
            continue;
        }
        let text = read_path(tests.clone());
        wrong.extend(
            names
                .iter()
                .filter(|name| !is_tested(name, &text))
                .map(|name| format!("{}: {name} has no test in a module of its name in {}", shown(&store), shown(&tests))),
        );
    }
    assert!(functions > 150, "only {functions} functions of stores were found");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_function_without_a_test_is_found() {
    let store =
        "pub fn one(a: u32) {}\npub fn two<T>(a: T) {}\nfn three() {}\nimpl A {\n    pub fn four() {}\n}\npub(crate) fn five() {}\n";
    assert_eq!(public_functions(store), ["one", "two", "five"]);
    let tests = "mod one {\n    #[test]\n    fn holds() {\n        one(1);\n    }\n}\n\nmod two {\n    fn helper() {\n        two(1);\n    }\n}\n\
        mod five {\n    #[test]\n    fn holds() {\n        one(5);\n    }\n}\n";
    assert_eq!(["one", "two", "five", "six"].map(|name| is_tested(name, tests)), [true, false, false, false]);
}

/// `store.rs` of each service with tables, and what lies in its folder `store`, without tests.
fn stores() -> Vec<PathBuf> {
    let of = |service: PathBuf| {
        let mut files = rust_files(&service.join("src/store"));
        files.retain(|file| !file.ends_with("tests.rs") && !file.ends_with("fixtures.rs"));
        files.extend(Some(service.join("src/store.rs")).filter(|file| file.exists()));
        files
    };
    let has_tables = |service: &PathBuf| root().join("migrations").join(name_of(service)).exists();
    folders("plugins").into_iter().filter(has_tables).flat_map(of).collect()
}

/// Those at the margin, as rustfmt leaves them.
fn public_functions(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let rest = line.strip_prefix("pub fn ").or_else(|| line.strip_prefix("pub(crate) fn "))?;
        rest.split(['(', '<']).next().map(str::to_owned)
    };
    text.lines().filter_map(name).collect()
}

/// Whether a module of this name has a test, and the function is called, there or by a helper of the file.
fn is_tested(name: &str, tests: &str) -> bool {
    let Some((_, rest)) = tests.split_once(&format!("mod {name} {{\n")) else { return false };
    let module = rest.split_once("\n}\n").map_or(rest, |(module, _)| module);
    let is_a_call = |before: &str| !before.ends_with(|c: char| c.is_alphanumeric() || c == '_') && !before.ends_with("fn ");
    module.contains("#[test]") && tests.match_indices(&format!("{name}(")).any(|(at, _)| is_a_call(&tests[..at]))
}
