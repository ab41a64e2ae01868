//! The JSON Schema (2020-12) of a contract's types, as the codec decodes and encodes them, for the OpenAPI and AsyncAPI documents. Knows no
//! routes and no frames.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::bounds::{Bounds, Number, Span};
use super::codec::shape::{TAG, key_of, snake_case};
use super::readable::{Readable, names_pattern, plain_pattern};
use super::wit::{Enumeration, Field, Meaning, Record, Type, Variant};
use echo_base::limits;

/// The component of every value of the type `json`.
const ANY_JSON: &str = "Json";

/// What `codec/i_json.rs` lets pass, as far as a schema can say it.
fn any_json() -> Value {
    let reference = json!({ "$ref": format!("#/components/schemas/{ANY_JSON}") });
    json!({
        "description": "I-JSON (RFC 7493): names once in an object, numbers as a double holds them; text that people can read.",
        "type": ["null", "boolean", "number", "string", "array", "object"],
        "pattern": Readable::Content.pattern(),
        "propertyNames": { "pattern": names_pattern() },
        "additionalProperties": reference.clone(),
        "items": reference,
    })
}

/// Component schemas by name.
#[derive(Default)]
pub struct Schemas(pub BTreeMap<String, Value>);

impl Schemas {
    /// `bounds`: those that stand where the type is used.
    pub fn schema(&mut self, ty: &Type, bounds: &Bounds, side: Side) -> Value {
        let meaning = ty.meaning();
        let (structure, bounds) = ty.bounded(bounds);
        let mut schema = match meaning {
            Some(Meaning::Uuid) => json!({ "type": "string", "format": "uuid" }),
            // Nothing before 1970 can be said.
            Some(Meaning::Timestamp) => json!({ "type": "string", "format": "date-time", "pattern": "^(?:19[7-9]|[2-9][0-9][0-9])[0-9]-" }),
            Some(Meaning::Phone) => json!({ "type": "string", "pattern": "^\\+[1-9][0-9]{6,14}$" }),
            Some(Meaning::Cursor) => {
                let length_max = limits::CURSOR_BYTES_MAX + limits::CURSOR_SEAL_CHARS;
                json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]+={0,2}$", "maxLength": length_max })
            }
            Some(Meaning::Json) => {
                let length = bounds.length.and_then(|length| length.max).map_or(String::new(), |max| format!(" of at most {max} bytes"));
                self.0.entry(ANY_JSON.to_owned()).or_insert_with(any_json);
                documented(any_json(), Some(&format!("Any JSON value{length}.")))
            }
            None => self.structure(structure, &bounds, side),
        };
        if !bounds.examples.is_empty()
            && let Some(object) = schema.as_object_mut()
            && !object.contains_key("items")
        {
            let is_text = object.get("type").is_some_and(|ty| *ty == "string");
            let value = |text: &String| match serde_json::from_str::<Value>(text) {
                Ok(value) if !is_text => value,
                _ => text.as_str().into(),
            };
            object.insert("examples".to_owned(), bounds.examples.iter().map(value).collect::<Vec<_>>().into());
        }
        schema
    }

    fn structure(&mut self, ty: &Type, bounds: &Bounds, side: Side) -> Value {
        let whole = |minimum: i128, maximum: u64| {
            let range = bounds.range.unwrap_or(Span { min: None, max: None });
            json!({ "type": "integer", "minimum": number(range.min.unwrap_or(Number::Whole(minimum))),
                "maximum": number(range.max.unwrap_or(Number::Whole(maximum.into()))) })
        };
        let real = |format: &str| {
            let mut schema = json!({ "type": "number", "format": format });
            for (key, end) in
                bounds.range.map_or([("minimum", None), ("maximum", None)], |range| [("minimum", range.min), ("maximum", range.max)])
            {
                if let Some(end) = end {
                    schema[key] = number(end);
                }
            }
            schema
        };
        match ty {
            Type::Bool => json!({ "type": "boolean" }),
            Type::U8 => whole(0, u8::MAX.into()),
            Type::U16 => whole(0, u16::MAX.into()),
            Type::U32 => whole(0, u32::MAX.into()),
            Type::U64 => whole(0, u64::MAX),
            Type::S8 => whole(i8::MIN.into(), i8::MAX as u64),
            Type::S16 => whole(i16::MIN.into(), i16::MAX as u64),
            Type::S32 => whole(i32::MIN.into(), i32::MAX as u64),
            Type::S64 => whole(i64::MIN.into(), i64::MAX as u64),
            Type::F32 => real("float"),
            Type::F64 => real("double"),
            Type::Char => json!({ "type": "string", "minLength": 1, "maxLength": 1 }),
            Type::String => text(bounds, side),
            Type::List(item) if matches!(item.structure(), Type::U8) => {
                // Base64: four characters for each three bytes begun.
                let of_bytes = |count: u64| count.div_ceil(3).saturating_mul(4);
                let length = bounds.length.map(|span| Span { min: span.min.map(of_bytes), max: span.max.map(of_bytes) });
                ends(json!({ "type": "string", "contentEncoding": "base64" }), length, ["minLength", "maxLength"])
            }
            Type::List(item) => {
                let items = bounds.items.unwrap_or(Span { min: None, max: None });
                let items = Span { max: items.max.or(Some(limits::LIST_ITEMS_MAX as u64)), ..items };
                ends(
                    json!({ "type": "array", "items": self.schema(item, &bounds.of_items(), side) }),
                    Some(items),
                    ["minItems", "maxItems"],
                )
            }
            Type::Option(inner) => nullable(self.schema(inner, bounds, side)),
            Type::Tuple(items) => {
                let schemas: Vec<_> = items.iter().map(|item| self.schema(item, &Bounds::default(), side)).collect();
                json!({ "type": "array", "prefixItems": schemas, "minItems": items.len(), "maxItems": items.len() })
            }
            Type::Record(record) => self.record(record, side),
            Type::Variant(variant) => self.variant(variant, side),
            Type::Enum(cases) => enumeration(cases),
            Type::Flags(cases) => json!({ "type": "array", "uniqueItems": true, "items": enumeration(cases) }),
            // The codec compiles none of these; a contract that has them is served without.
            Type::Result(_) | Type::Opaque(_) | Type::Alias(_) => json!({}),
        }
    }

    /// A reference to the record's schema, which is made at the first meeting.
    pub fn record(&mut self, record: &Record, side: Side) -> Value {
        let mut wanted = schema_name(&record.interface, &record.name);
        // A client may leave options out and must name no others; a reply has all fields, and may have more some day.
        if side == Side::Request && !record.name.ends_with("-request") {
            wanted.push_str("Input");
        }
        let fields: Vec<_> = record.fields.iter().collect();
        let schema = self.object(&fields, record.docs.as_deref(), side);
        // The same name with another content: another version of the package.
        let mut name = wanted.clone();
        let mut number = 2;
        while self.0.get(&name).is_some_and(|there| *there != schema) {
            name = format!("{wanted}{number}");
            number += 1;
        }
        let reference = json!({ "$ref": format!("#/components/schemas/{name}") });
        self.0.insert(name, schema);
        reference
    }

    pub fn object(&mut self, fields: &[&Field], docs: Option<&str>, side: Side) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in fields {
            let key = key_of(field);
            let ty = match field.ty.structure() {
                // A value stands where there would be null.
                Type::Option(inner) if side == Side::Reply && field.default.is_some() => inner,
                _ => &field.ty,
            };
            let schema = self.schema(ty, &field.bounds, side);
            properties.insert(key.clone(), with_default(documented(schema, field.docs.as_deref()), field, side));
            if side == Side::Reply || is_required(field) {
                required.push(key);
            }
        }
        let mut object = Map::new();
        object.insert("type".to_owned(), "object".into());
        object.insert("properties".to_owned(), properties.into());
        if !required.is_empty() {
            object.insert("required".to_owned(), required.into());
        }
        if side == Side::Request {
            object.insert("additionalProperties".to_owned(), false.into());
        }
        if let Some(docs) = docs {
            object.insert("description".to_owned(), docs.into());
        }
        object.into()
    }

    fn variant(&mut self, variant: &Variant, side: Side) -> Value {
        let cases: Vec<_> = variant
            .cases
            .iter()
            .map(|case| {
                let mut object = match case.ty.as_ref().map(|ty| (ty, ty.structure())) {
                    None => self.object(&[], case.docs.as_deref(), side),
                    Some((_, Type::Record(record))) => self.object(&record.fields.iter().collect::<Vec<_>>(), case.docs.as_deref(), side),
                    Some((ty, _)) => {
                        let (name, bounds, ty) = ("value".to_owned(), case.bounds.clone(), ty.clone());
                        let value = Field { name, alias: None, default: None, docs: None, bounds, ty };
                        self.object(&[&value], case.docs.as_deref(), side)
                    }
                };
                object["properties"][TAG] = json!({ "const": snake_case(&case.name) });
                match object.get_mut("required").and_then(Value::as_array_mut) {
                    Some(required) => required.push(TAG.into()),
                    None => object["required"] = json!([TAG]),
                }
                object
            })
            .collect();
        documented(json!({ "oneOf": cases }), variant.docs.as_deref())
    }
}

/// Which way a schema is read: a reply has all its fields, a request may leave the options out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Request,
    Reply,
}

/// A string that is no more than that. What a service says is bound by its own tags alone, and so are clients, but for what no text may hold.
fn text(bounds: &Bounds, side: Side) -> Value {
    let mut schema = ends(json!({ "type": "string" }), bounds.length, ["minLength", "maxLength"]);
    let mut patterns: Vec<_> = bounds.patterns.iter().map(|pattern| pattern.source().to_owned()).collect();
    match bounds.text {
        Some(rule) => patterns.push(rule.pattern()),
        None if patterns.is_empty() && side == Side::Request => patterns.push(plain_pattern()),
        None => {}
    }
    match patterns.as_slice() {
        [] => {}
        [pattern] => schema["pattern"] = pattern.as_str().into(),
        several => schema["allOf"] = several.iter().map(|pattern| json!({ "pattern": pattern })).collect(),
    }
    schema
}

/// Both ends of a span of counts, where they are.
fn ends(mut schema: Value, span: Option<Span<u64>>, [min, max]: [&str; 2]) -> Value {
    let ends = span.map_or([(min, None), (max, None)], |span| [(min, span.min.filter(|end| *end > 0)), (max, span.max)]);
    for (key, end) in ends {
        if let Some(end) = end {
            schema[key] = end.into();
        }
    }
    schema
}

/// What a 64-bit integer holds stays one.
fn number(number: Number) -> Value {
    match number {
        Number::Whole(whole) => match (i64::try_from(whole), u64::try_from(whole)) {
            (Ok(small), _) => small.into(),
            (_, Ok(large)) => large.into(),
            _ => number.as_f64().into(),
        },
        Number::Real(real) => real.into(),
    }
}

/// Whether a client has to give it.
pub fn is_required(field: &Field) -> bool {
    !is_option(&field.ty) && field.default.is_none()
}

pub fn with_default(mut schema: Value, field: &Field, side: Side) -> Value {
    let default = field.default.as_ref().filter(|_| side == Side::Request);
    if let (Some(default), Some(object)) = (default.and_then(|text| serde_json::from_str::<Value>(text).ok()), schema.as_object_mut()) {
        object.insert("default".to_owned(), default);
    }
    schema
}

pub fn is_option(ty: &Type) -> bool {
    matches!(ty.structure(), Type::Option(_))
}

fn enumeration(cases: &Enumeration) -> Value {
    let names: Vec<_> = cases.cases.iter().map(|case| snake_case(&case.name)).collect();
    let lines = cases.cases.iter().filter_map(|case| Some(format!("- `{}`: {}", snake_case(&case.name), case.docs.as_ref()?)));
    let docs: Vec<_> = cases.docs.clone().into_iter().chain(lines).collect();
    let docs = (!docs.is_empty()).then(|| docs.join("\n"));
    documented(json!({ "type": "string", "enum": names }), docs.as_deref())
}

fn nullable(mut schema: Value) -> Value {
    match schema.get("type").and_then(Value::as_str).map(str::to_owned) {
        Some(ty) if schema.get("enum").is_none() => {
            schema["type"] = json!([ty, "null"]);
            schema
        }
        // Any value: null is one of them.
        None if schema.get("$ref").is_none() && schema.get("oneOf").is_none() => schema,
        _ => json!({ "oneOf": [schema, { "type": "null" }] }),
    }
}

pub fn documented(mut schema: Value, docs: Option<&str>) -> Value {
    if let (Some(docs), Some(object)) = (docs, schema.as_object_mut()) {
        object.insert("description".to_owned(), docs.into());
    }
    schema
}

/// `MessageSendRequest` for `send-request` of `echo:message/api`; other interfaces than `api` and `model` are in the name too.
fn schema_name(interface: &str, name: &str) -> String {
    let path = interface.split_once(':').map_or(interface, |(_, path)| path);
    let path = path.split_once('@').map_or(path, |(path, _)| path);
    let words = path.split('/').filter(|part| !matches!(*part, "api" | "model")).chain([name]).flat_map(|part| part.split('-'));
    let mut named = String::new();
    for word in words {
        let mut letters = word.chars();
        named.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        named.push_str(letters.as_str());
    }
    named
}

/// A failure's document.
pub fn problem() -> Value {
    json!({
        "type": "object",
        "description": "Why it was not done (RFC 9457).",
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "code": { "type": "string", "description": "Stable, for programs, e.g. `phone_taken`." },
            "detail": { "type": "string", "description": "For people." },
            "request_id": { "type": "string" },
            "errors": {
                "type": "array",
                "description": "Every wrong field.",
                "items": {
                    "type": "object",
                    "properties": {
                        "field": { "type": "string", "description": "The field's path, e.g. `device.id` or `participant_ids[3]`." },
                        "code": { "type": "string" },
                        "detail": { "type": "string" },
                    },
                    "required": ["field", "code", "detail"],
                },
            },
        },
        "required": ["type", "title", "status", "code"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::readable::Readable;

    #[test]
    fn every_kind_of_value_has_a_schema() {
        let tagged = |tags: &str, ty: &str, expect: Value| {
            let contract = fixture::thing(&format!(
                "enum colour {{ red, dark-blue }} flags rights {{ can-read }} record point {{ x: s32 }} variant form {{ none, at(point), many(list<u16>) }}
                 record request {{
                 {tags}
                 a: {ty} }} go: func(request: request) -> result<_, error>;"
            ));
            let function = fixture::function(&contract, "api", "go");
            let Type::Record(request) = &function.params[0].ty else { panic!() };
            let field = &request.fields[0];
            assert_eq!(Schemas::default().schema(&field.ty, &field.bounds, Side::Request), expect, "{ty}");
        };
        let check = |ty: &str, expect: Value| tagged("", ty, expect);
        check("bool", json!({ "type": "boolean" }));
        check("u64", json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX }));
        check("timestamp", json!({ "type": "string", "format": "date-time", "pattern": "^(?:19[7-9]|[2-9][0-9][0-9])[0-9]-" }));
        check("list<u8>", json!({ "type": "string", "contentEncoding": "base64" }));
        check("option<json>", documented(any_json(), Some("Any JSON value.")));
        check("colour", json!({ "type": "string", "enum": ["red", "dark_blue"] }));
        check("option<colour>", json!({ "oneOf": [{ "type": "string", "enum": ["red", "dark_blue"] }, { "type": "null" }] }));
        check("rights", json!({ "type": "array", "uniqueItems": true, "items": { "type": "string", "enum": ["can_read"] } }));
        check("point", json!({ "$ref": "#/components/schemas/ThingPointInput" }));
        check("option<point>", json!({ "oneOf": [{ "$ref": "#/components/schemas/ThingPointInput" }, { "type": "null" }] }));
        check(
            "tuple<bool, string>",
            json!({ "type": "array", "prefixItems": [{ "type": "boolean" }, { "type": "string", "pattern": plain_pattern() }], "minItems": 2, "maxItems": 2 }),
        );
        let many =
            json!({ "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 65_535 }, "maxItems": limits::LIST_ITEMS_MAX });
        check(
            "form",
            json!({ "oneOf": [
                { "type": "object", "properties": { "type": { "const": "none" } }, "required": ["type"], "additionalProperties": false },
                { "type": "object", "properties": { "x": { "type": "integer", "minimum": i32::MIN, "maximum": i32::MAX }, "type": { "const": "at" } },
                  "required": ["x", "type"], "additionalProperties": false },
                { "type": "object", "properties": { "value": many, "type": { "const": "many" } }, "required": ["value", "type"], "additionalProperties": false },
            ] }),
        );
        tagged(
            "/// @length 1..=9\n/// @text content\n/// @example hi",
            "option<string>",
            json!({ "type": ["string", "null"], "minLength": 1, "maxLength": 9, "pattern": Readable::Content.pattern(), "examples": ["hi"] }),
        );
        tagged(
            "/// @pattern ^a\n/// @text name",
            "string",
            json!({ "type": "string", "allOf": [{ "pattern": "^a" }, { "pattern": Readable::Name.pattern() }] }),
        );
        tagged("/// @range 1..\n/// @example 5", "u8", json!({ "type": "integer", "minimum": 1, "maximum": 255, "examples": [5] }));
        tagged("/// @range ..=0.5", "f64", json!({ "type": "number", "format": "double", "maximum": 0.5 }));
        tagged("/// @length 1..=4", "list<u8>", json!({ "type": "string", "contentEncoding": "base64", "minLength": 4, "maxLength": 8 }));
        tagged("/// @length ..=9", "json", documented(any_json(), Some("Any JSON value of at most 9 bytes.")));
        tagged(
            "/// @items 1..=2\n/// @range ..=7",
            "list<u16>",
            json!({ "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 7 }, "minItems": 1, "maxItems": 2 }),
        );
    }
}
