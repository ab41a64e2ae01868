//! `[[gateway.routes]]`, `[[gateway.prefixes]]` and `services_off` of a settings' file, each entry with the line where it stands.

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use echo_base::limits;
use echo_runtime::route_settings::{AddedPrefix, RouteOverride, RouteSettings, ServiceOff};

/// The keys of `[gateway]` that are read here.
pub const KEYS: [&str; 3] = ["routes", "prefixes", "services_off"];

/// Reads all of them. `name`: the file's. And every entry that is wrong, with its line; it is left out.
pub fn read(name: &str, text: &str) -> (RouteSettings, Vec<String>) {
    let mut problems = Vec::new();
    let mut entries = |key| entries(name, text, key, &mut problems);
    let (routes, prefixes, off) = (entries(KEYS[0]), entries(KEYS[1]), entries(KEYS[2]));
    let overrides = typed(name, text, KEYS[0], routes, &mut problems, |entry: &mut RouteOverride, origin| entry.origin = origin);
    let prefixes = typed(name, text, KEYS[1], prefixes, &mut problems, |entry: &mut AddedPrefix, origin| entry.origin = origin);
    let services_off = typed(name, text, KEYS[2], off, &mut problems, |off: &mut ServiceOff, origin| off.origin = origin);
    (RouteSettings { overrides, prefixes, services_off }, problems)
}

fn entries<'t>(name: &str, text: &'t str, key: &str, problems: &mut Vec<String>) -> Vec<Spanned<DeValue<'t>>> {
    // A file that cannot be read is reported where all of it is read.
    let Ok(file) = DeTable::parse(text) else { return Vec::new() };
    let Some(DeValue::Table(gateway)) = member(file.into_inner(), "gateway").map(Spanned::into_inner) else { return Vec::new() };
    let Some(value) = member(gateway, key) else { return Vec::new() };
    let line = line_at(text, value.span().start);
    match value.into_inner() {
        DeValue::Array(entries) if entries.len() <= limits::ROUTE_SETTINGS_MAX => entries.into_iter().collect(),
        DeValue::Array(_) => {
            problems.push(format!("{name}, line {line}: gateway.{key}: at most {} entries", limits::ROUTE_SETTINGS_MAX));
            Vec::new()
        }
        _ => {
            problems.push(format!("{name}, line {line}: gateway.{key} is a list: write [[gateway.{key}]] above each entry"));
            Vec::new()
        }
    }
}

fn member<'t>(table: DeTable<'t>, key: &str) -> Option<Spanned<DeValue<'t>>> {
    table.into_iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
}

fn typed<T: DeserializeOwned>(
    name: &str,
    text: &str,
    key: &str,
    entries: Vec<Spanned<DeValue<'_>>>,
    problems: &mut Vec<String>,
    write_origin: impl Fn(&mut T, String),
) -> Vec<T> {
    let mut read = Vec::new();
    for entry in entries {
        let begin = entry.span().start;
        match T::deserialize(ValueDeserializer::from(entry)) {
            Ok(mut typed) => {
                write_origin(&mut typed, format!("{name}, line {}", line_at(text, begin)));
                read.push(typed);
            }
            Err(error) => {
                let line = line_at(text, error.span().map_or(begin, |span| span.start));
                problems.push(format!("{name}, line {line}: gateway.{key}: {}", error.message()));
            }
        }
    }
    read
}

/// Counted from 1.
fn line_at(text: &str, position: usize) -> usize {
    1 + text.as_bytes()[..position.min(text.len())].iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: &str = r#"rate = { per = "user", strategy = "token-bucket", limit = 5, window = "1m" }"#;

    #[test]
    fn entries_know_their_lines() {
        let text = format!(
            "[gateway]\nrate_scale = 2\n\n[[gateway.routes]]\nmatch = \"GET /a\"\n{RATE}\n\n[[gateway.routes]]\nmatch = \"GET /b\"\ntimeout = \"2s\"\n\
             [[gateway.prefixes]]\nprefix = \"/v2\"\nservice = \"user\"\n"
        );
        let (read, problems) = read("echo.toml", &text);
        assert_eq!(problems, Vec::<String>::new());
        let origins: Vec<_> = read.overrides.iter().map(|entry| entry.origin.as_str()).collect();
        assert_eq!(origins, ["echo.toml, line 4", "echo.toml, line 8"]);
        assert_eq!(read.prefixes[0].origin, "echo.toml, line 11");
        assert_eq!(read.overrides[0].rate.unwrap().limit, 5);
    }

    #[test]
    fn services_that_are_off_are_named() {
        let (settings, problems) = read("echo.toml", "[gateway]\nservices_off = [\"media\",\n  \"user\", 1]\n");
        let off: Vec<_> = settings.services_off.iter().map(|off| (off.name.as_str(), off.origin.as_str())).collect();
        assert_eq!(off, [("media", "echo.toml, line 2"), ("user", "echo.toml, line 3")]);
        assert!(problems.len() == 1 && problems[0].starts_with("echo.toml, line 3: gateway.services_off: "), "{problems:?}");
    }

    #[test]
    fn every_mistake_is_said_with_its_line() {
        let text = "[[gateway.routes]]\nmatch = \"GET /a\"\nacess = \"user\"\n[[gateway.routes]]\nmatch = \"GET /b\"\naccess = \"everyone\"\n\
                    [[gateway.routes]]\ntimeout = \"2s\"\n[[gateway.prefixes]]\nprefix = 3\nservice = \"user\"\n";
        let (left, problems) = read("echo.toml", text);
        assert_eq!(left, RouteSettings::default());
        let expect = ["line 3: gateway.routes: unknown field `acess`", "line 6: gateway.routes: access \"everyone\"", "line 7", "line 10"];
        assert_eq!(problems.len(), expect.len(), "{problems:?}");
        for (problem, expect) in problems.iter().zip(expect) {
            assert!(problem.starts_with("echo.toml, ") && problem.contains(expect), "{problem:?} does not say {expect:?}");
        }
        assert!(read("echo.toml", "[gateway]\nroutes = \"GET /a\"\n").1[0].contains("[[gateway.routes]]"));
        assert_eq!(read("echo.toml", "[gateway]\nroutes = []\n"), (RouteSettings::default(), Vec::new()));
    }
}
