//! Every error code that a client, an operator or a service can meet is a row of host/docs/ERRORS.md, and every row is a code of the sources.
//!
//! The sources are read as text: where an error is made, its code is written out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{code_of, read, read_path, root, rust_files, shown};

/// Functions that make an error. The last of their arguments that has the form of a code is one.
const MAKERS: &[&str] = &[
    "Problem::new(",
    "Problem::invalid(",
    "Problem::unauthenticated(",
    "Problem::unavailable(",
    "Self::new(StatusCode",
    "Self::unauthenticated(",
    "Error::new(",
    "Error::invalid(",
    "Error::invalid_field(",
    "Error::unauthenticated(",
    "Error::forbidden(",
    "Error::conflict(",
    "Error::locked(",
    "Error::too_large(",
    "Error::rate_limited(",
    "Self::new(ErrorKind",
    ".require(",
    ".add(",
    "wrong(",
    "note(",
    "bad_frame(",
    "refused(",
    ".refuse(",
];

/// What else stands right before a code.
const BEFORE_A_CODE: &[&str] = &["code: \"", "Err((\"", "const CURSOR_INVALID: &str = \"", "const UNREADABLE_TEXT: &str = \""];

const CONSTANTS: &[&str] = &["CURSOR_INVALID", "UNREADABLE_TEXT"];

/// What stands before a code with a name between them: `(StatusCode::NOT_FOUND, "`, `TokenError::Invalid => "`.
const BEFORE_A_NAME: &[&str] = &["StatusCode::", "ErrorKind::", "TokenError::"];

#[test]
fn every_error_code_is_explained() {
    let page = read("host/docs/ERRORS.md");
    let mut explained = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with('|')) {
        let codes = row.split('|').nth(2).unwrap_or_default();
        explained.extend(codes.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    let made = codes_of_the_sources();
    assert!(made.len() > 90, "only {} codes were found", made.len());
    let unexplained: Vec<_> = made.iter().filter(|(code, _)| !explained.contains(*code)).collect();
    let unknown: Vec<_> = explained.iter().filter(|code| !made.contains_key(*code)).collect();
    assert!(unexplained.is_empty(), "host/docs/ERRORS.md has no row for {unexplained:#?}");
    assert!(unknown.is_empty(), "host/docs/ERRORS.md explains codes that nothing has: {unknown:?}");
}

#[test]
fn codes_are_found_where_errors_are_made() {
    let found = |code: &str| codes_in(code).into_iter().collect::<Vec<_>>();
    assert_eq!(found(r#"Problem::new(StatusCode::GONE, "resync_required", format!("from {a} (or {b}) on"))"#), ["resync_required"]);
    assert_eq!(found(r#"checks.require(given(&url, is_url), "avatar_url", "invalid_url", "an address")"#), ["invalid_url"]);
    assert_eq!(found(r#"SwapError::Overtaken(_) => (StatusCode::CONFLICT, "overtaken"),"#), ["overtaken"]);
    assert_eq!(found(r#"TokenError::Expired => "token_expired","#), ["token_expired"]);
    assert_eq!(found(r#"FieldError { field, code: "refused".to_owned() }"#), ["refused"]);
    assert_eq!(found(r#"Problem::internal(), log("not_a_code")"#), [""; 0]);
}

/// With one place of each.
fn codes_of_the_sources() -> BTreeMap<String, String> {
    let mut codes = BTreeMap::new();
    for folder in ["host/src", "host/crates", "plugins"] {
        for path in rust_files(&root().join(folder)) {
            let shown = shown(&path);
            if shown.ends_with("/tests.rs") || shown.ends_with("/fakes.rs") || shown.ends_with("/suite.rs") {
                continue;
            }
            for code in codes_in(&code_of(&read_path(path))) {
                codes.entry(code).or_insert_with(|| shown.clone());
            }
        }
    }
    // What a contract says of a value out of its bounds.
    for path in wit_files(&root().join("wit/deps")) {
        let shown = shown(&path);
        let text = read_path(path);
        let tags = text.lines().filter_map(|line| line.trim().strip_prefix("/// @code ")).map(|code| code.trim().to_owned());
        codes.extend(tags.map(|code| (code, shown.clone())));
    }
    codes
}

fn wit_files(folder: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>();
    entries(folder).iter().flat_map(|package| entries(package)).collect()
}

fn codes_in(source: &str) -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for maker in MAKERS {
        for (at, _) in source.match_indices(maker) {
            let is_another_name =
                maker.starts_with(char::is_lowercase) && source[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
            let opening = at + maker.find('(').expect("a call");
            let arguments = arguments(&source[opening..]);
            // The SDK's `wrong` for a row's columns says first what is wanted of it.
            let is_another_name = is_another_name || *maker == "wrong(" && arguments.starts_with("(\"");
            // With a constant for its code, which is found where it is defined, the last literal is a field's name.
            if !is_another_name && !CONSTANTS.iter().any(|constant| arguments.contains(constant)) {
                codes.extend(literals(arguments).into_iter().rfind(|text| is_code(text)));
            }
        }
    }
    for before in BEFORE_A_CODE {
        codes
            .extend(source.split(before).skip(1).filter_map(|rest| rest.split('"').next()).filter(|text| is_code(text)).map(str::to_owned));
    }
    for before in BEFORE_A_NAME {
        for rest in source.split(before).skip(1) {
            let rest = rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
            let code = rest.strip_prefix(", \"").or_else(|| rest.strip_prefix(" => \""));
            codes.extend(code.and_then(|rest| rest.split('"').next()).filter(|text| is_code(text)).map(str::to_owned));
        }
    }
    codes
}

/// `text` begins with a parenthesis: up to the one that closes it.
fn arguments(text: &str) -> &str {
    let (mut depth, mut is_quoted, mut is_escaped) = (0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '(' if !is_quoted => depth += 1,
            ')' if !is_quoted => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

fn literals(text: &str) -> Vec<String> {
    let (mut literals, mut literal, mut is_escaped) = (Vec::new(), None::<String>, false);
    for c in text.chars() {
        match (&mut literal, c) {
            (Some(_), _) if is_escaped => is_escaped = false,
            (Some(_), '\\') => is_escaped = true,
            (Some(_), '"') => literals.extend(literal.take()),
            (Some(literal), c) => literal.push(c),
            (None, '"') => literal = Some(String::new()),
            (None, _) => {}
        }
    }
    literals
}

fn is_code(text: &str) -> bool {
    text.len() > 2
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}
