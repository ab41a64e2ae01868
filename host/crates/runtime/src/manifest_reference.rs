//! The reference of `plugin.toml`, generated from the types that parse it: a JSON schema for editors and a page for people. Knows the manifest's types alone.

use std::fmt::Write;

use serde_json::Value;

use super::manifest::Manifest;

/// JSON Schema 2020-12 of a manifest, as TOML reads it.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Manifest);
    schema.insert("title".to_owned(), "plugin.toml of an Echo service".into());
    schema.to_value()
}

/// Every key with its form, its default and what it means, in Markdown.
pub fn page() -> String {
    let schema = schema();
    let mut page = String::from(
        "# plugin.toml\n\nHow a service's functions are bound to the world outside, and what it may use. Made by `echod plugin schema --markdown` from the types \
         that read it; `plugin.schema.json` is the same for editors.\n",
    );
    let mut tables = vec![(String::new(), &schema)];
    while !tables.is_empty() {
        let (name, table) = tables.remove(0);
        let heading = if name.is_empty() { "The file".to_owned() } else { format!("`{name}`") };
        write!(page, "\n## {heading}\n\n").expect("a string takes all");
        if let Some(words) = description(table).filter(|_| !name.is_empty()) {
            write!(page, "{words}\n\n").expect("a string takes all");
        }
        page.push_str("| key | form | default | meaning |\n| --- | --- | --- | --- |\n");
        let required: Vec<&str> = table["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (key, property) in table["properties"].as_object().into_iter().flatten() {
            let resolved = resolve(&schema, property);
            let default = match property.get("default") {
                _ if required.contains(&key.as_str()) => "required".to_owned(),
                Some(Value::Null) | None => "–".to_owned(),
                Some(Value::Array(items)) if items.is_empty() => "–".to_owned(),
                Some(Value::Object(_)) => "see there".to_owned(),
                Some(value) => format!("`{value}`"),
            };
            let meaning = description(property).or_else(|| description(resolved)).unwrap_or_default();
            writeln!(page, "| `{key}` | {} | {default} | {meaning} |", form(&schema, property)).expect("a string takes all");
            let (inner, opening, closing) = match resolved.get("items") {
                Some(items) => (resolve(&schema, items), "[[", "]]"),
                None => (resolved, "[", "]"),
            };
            if inner.get("properties").is_some() {
                let below = if name.is_empty() { key.clone() } else { format!("{}.{key}", name.trim_matches(['[', ']'])) };
                tables.push((format!("{opening}{below}{closing}"), inner));
            }
        }
    }
    page
}

fn description(schema: &Value) -> Option<String> {
    schema["description"].as_str().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|"))
}

/// The type itself, behind references and "or nothing".
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(name) = schema["$ref"].as_str() {
        return resolve(root, root.pointer(name.trim_start_matches('#')).unwrap_or(&Value::Null));
    }
    match schema["anyOf"].as_array() {
        Some(cases) if cases.len() == 2 && cases[1]["type"] == "null" => resolve(root, &cases[0]),
        _ => schema,
    }
}

fn form(root: &Value, schema: &Value) -> String {
    let schema = resolve(root, schema);
    if let Some(cases) = schema["enum"].as_array() {
        return cases.iter().filter_map(Value::as_str).map(|case| format!("`{case}`")).collect::<Vec<_>>().join(", ");
    }
    if let Some(cases) = schema["oneOf"].as_array() {
        return cases.iter().map(|case| format!("`{}`", case["const"].as_str().unwrap_or_default())).collect::<Vec<_>>().join(", ");
    }
    if let Some(format) = schema["format"].as_str().filter(|format| ["duration", "size", "access"].contains(format)) {
        return format.to_owned();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds[0].as_str().unwrap_or_default(),
        kind => kind.as_str().unwrap_or("any value"),
    };
    match kind {
        "array" => format!("list of {}", form(root, &schema["items"])),
        "object" => "table".to_owned(),
        "boolean" => "`true`, `false`".to_owned(),
        kind => kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With UPDATE_REFERENCE=1 in the environment the files are written instead.
    #[test]
    fn the_sdk_carries_the_reference_of_this_host() {
        for (name, text) in [("plugin.schema.json", format!("{:#}\n", schema())), ("MANIFEST.md", page())] {
            let path = format!("{}/../../../plugins/sdk/{name}", env!("CARGO_MANIFEST_DIR"));
            if std::env::var_os("UPDATE_REFERENCE").is_some() {
                std::fs::write(&path, &text).expect("a file of the repository");
            }
            let kept = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(kept == text, "plugins/sdk/{name} is old: run this test with UPDATE_REFERENCE=1");
        }
    }

    #[test]
    fn every_key_is_explained() {
        let page = page();
        for line in page.lines().filter(|line| line.starts_with("| `")) {
            assert!(!line.ends_with("|  |"), "without a meaning: {line}");
        }
        for heading in ["`[[route]]`", "`[route.rate]`", "`[[socket]]`", "`[limits]`", "`[grants]`"] {
            assert!(page.contains(&format!("## {heading}")), "{heading}\n{page}");
        }
    }
}
