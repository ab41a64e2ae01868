//! The OpenAPI 3.1 document of all operations, made from the contracts and their docs. Knows no router: it is told what is served where.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::codec::shape::{TAG, snake_case};
use super::wit::{Contract, Enumeration, Field, Function, Meaning, Record, Type, Variant};
use crate::limits;

/// One route.
#[derive(Clone, Copy)]
pub struct Operation<'a> {
    /// Becomes the tag.
    pub service: &'a str,
    pub contract: &'a Contract,
    pub function: &'a Function,
    /// `GET`, `POST`, …
    pub method: &'a str,
    /// The whole path with `{variables}`, which are fields of the request.
    pub path: &'a str,
    /// Needs no token.
    pub public: bool,
    /// The role that the caller must have.
    pub role: Option<&'a str>,
    pub status: u16,
    /// A boolean field of the reply that is not sent, and the status where it is false.
    pub status_unless: Option<(&'a str, u16)>,
}

/// The whole document. Operations without a parameter record, reply or docs are described as far as they go.
pub fn document(title: &str, version: &str, operations: &[Operation<'_>]) -> Value {
    let mut schemas = Schemas::default();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut tags: BTreeMap<&str, Option<String>> = BTreeMap::new();
    let mut ids = BTreeMap::new();
    for operation in operations {
        tags.entry(operation.service).or_insert_with(|| {
            let api = operation.contract.exports().iter().find(|interface| interface.function(&operation.function.name).is_some());
            api.and_then(|interface| interface.docs.clone())
        });
        // The same function may serve several routes; an operationId may not.
        let id = format!("{}_{}", snake_case(operation.service), snake_case(&operation.function.name));
        let count = ids.entry(id.clone()).and_modify(|count| *count += 1).or_insert(1);
        let id = if *count == 1 { id } else { format!("{id}_{count}") };
        let described = schemas.operation(operation, &id);
        paths.entry(operation.path.to_owned()).or_default().insert(operation.method.to_ascii_lowercase(), described);
    }
    let tags: Vec<_> = tags
        .into_iter()
        .map(|(name, docs)| match docs {
            Some(docs) => json!({ "name": name, "description": docs }),
            None => json!({ "name": name }),
        })
        .collect();
    schemas.0.insert("Problem".to_owned(), problem());
    json!({
        "openapi": "3.1.0",
        "info": { "title": title, "version": version },
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas.0,
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
            "responses": {
                "Problem": {
                    "description": "Why it was not done (RFC 9457).",
                    "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
                },
            },
        },
    })
}

/// Component schemas by name.
#[derive(Default)]
struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    fn operation(&mut self, operation: &Operation<'_>, id: &str) -> Value {
        let function = operation.function;
        let mut described = Map::new();
        described.insert("operationId".to_owned(), id.into());
        described.insert("tags".to_owned(), json!([operation.service]));
        if let Some(docs) = &function.docs {
            described.insert("summary".to_owned(), first_sentence(docs).into());
            described.insert("description".to_owned(), docs.clone().into());
        }
        let mut responses = self.replies(operation);
        responses.insert("default".to_owned(), json!({ "$ref": "#/components/responses/Problem" }));
        described.insert("responses".to_owned(), responses.into());
        if operation.public {
            described.insert("security".to_owned(), json!([]));
        } else {
            described.insert("security".to_owned(), json!([{ "bearer": operation.role.into_iter().collect::<Vec<_>>() }]));
        }
        let Some(Type::Record(request)) = function.params.first().map(|param| param.ty.structure()) else { return described.into() };

        let variables: Vec<_> = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let given = |field: &&Field| variables.contains(&snake_case(&field.name).as_str());
        let mut parameters: Vec<_> = request.fields.iter().filter(given).map(|field| self.parameter(field, "path")).collect();
        let rest: Vec<_> = request.fields.iter().filter(|field| !given(field)).collect();
        if matches!(operation.method, "GET" | "DELETE") {
            parameters.extend(rest.into_iter().map(|field| self.parameter(field, "query")));
        } else if !rest.is_empty() {
            let schema = if rest.len() == request.fields.len() {
                self.record(request)
            } else {
                self.object(&rest, request.docs.as_deref(), Side::Request)
            };
            let required = rest.iter().any(|field| !is_option(&field.ty));
            described
                .insert("requestBody".to_owned(), json!({ "required": required, "content": { "application/json": { "schema": schema } } }));
        }
        if !parameters.is_empty() {
            described.insert("parameters".to_owned(), parameters.into());
        }
        described.into()
    }

    fn replies(&mut self, operation: &Operation<'_>) -> Map<String, Value> {
        let reply = match operation.function.result.as_ref().map(Type::structure) {
            Some(Type::Result(result)) => result.ok.as_ref(),
            other => other,
        };
        let schema = match (reply.map(Type::structure), operation.status_unless) {
            (Some(Type::Record(record)), Some((omitted, _))) => {
                let sent: Vec<_> = record.fields.iter().filter(|field| snake_case(&field.name) != snake_case(omitted)).collect();
                Some(self.object(&sent, record.docs.as_deref(), Side::Reply))
            }
            _ => reply.map(|ty| self.schema(ty, Side::Reply)),
        };
        let statuses = [Some(operation.status), operation.status_unless.map(|(_, status)| status)];
        let response = |status: u16| {
            let mut response = Map::new();
            response.insert("description".to_owned(), reason(status).into());
            if let Some(schema) = schema.as_ref().filter(|_| status != 204) {
                response.insert("content".to_owned(), json!({ "application/json": { "schema": schema } }));
            }
            (status.to_string(), Value::Object(response))
        };
        statuses.into_iter().flatten().map(response).collect()
    }

    fn parameter(&mut self, field: &Field, place: &str) -> Value {
        // Null cannot be written in an address: an option is a parameter that may be missing.
        let (ty, optional) = match field.ty.structure() {
            Type::Option(inner) => (&**inner, true),
            _ => (&field.ty, false),
        };
        let mut parameter = Map::new();
        parameter.insert("name".to_owned(), snake_case(&field.name).into());
        parameter.insert("in".to_owned(), place.into());
        parameter.insert("required".to_owned(), (place == "path" || !optional).into());
        parameter.insert("schema".to_owned(), self.schema(ty, Side::Request));
        if let Some(docs) = &field.docs {
            parameter.insert("description".to_owned(), docs.clone().into());
        }
        if matches!(ty.structure(), Type::List(_) | Type::Flags(_)) {
            parameter.insert("style".to_owned(), "form".into());
            parameter.insert("explode".to_owned(), false.into());
        }
        parameter.into()
    }

    fn schema(&mut self, ty: &Type, side: Side) -> Value {
        match ty.meaning() {
            Some(Meaning::Uuid) => return json!({ "type": "string", "format": "uuid" }),
            Some(Meaning::Timestamp) => return json!({ "type": "string", "format": "date-time" }),
            Some(Meaning::Phone) => return json!({ "type": "string", "pattern": "^\\+[1-9][0-9]{6,14}$" }),
            Some(Meaning::Cursor) => {
                return json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]+=*$", "maxLength": limits::CURSOR_BYTES_MAX + limits::CURSOR_SEAL_CHARS });
            }
            Some(Meaning::Json) => return json!({ "description": "Any JSON value." }),
            None => {}
        }
        let whole = |minimum: i64, maximum: u64| json!({ "type": "integer", "minimum": minimum, "maximum": maximum });
        match ty.structure() {
            Type::Bool => json!({ "type": "boolean" }),
            Type::U8 => whole(0, u8::MAX.into()),
            Type::U16 => whole(0, u16::MAX.into()),
            Type::U32 => whole(0, u32::MAX.into()),
            Type::U64 => whole(0, u64::MAX),
            Type::S8 => whole(i8::MIN.into(), i8::MAX as u64),
            Type::S16 => whole(i16::MIN.into(), i16::MAX as u64),
            Type::S32 => json!({ "type": "integer", "format": "int32" }),
            Type::S64 => json!({ "type": "integer", "format": "int64" }),
            Type::F32 => json!({ "type": "number", "format": "float" }),
            Type::F64 => json!({ "type": "number", "format": "double" }),
            Type::Char => json!({ "type": "string", "minLength": 1, "maxLength": 1 }),
            Type::String => json!({ "type": "string" }),
            Type::List(item) if matches!(item.structure(), Type::U8) => json!({ "type": "string", "contentEncoding": "base64" }),
            Type::List(item) => json!({ "type": "array", "items": self.schema(item, side), "maxItems": limits::LIST_ITEMS_MAX }),
            Type::Option(inner) => nullable(self.schema(inner, side)),
            Type::Tuple(items) => {
                let schemas: Vec<_> = items.iter().map(|item| self.schema(item, side)).collect();
                json!({ "type": "array", "prefixItems": schemas, "minItems": items.len(), "maxItems": items.len() })
            }
            Type::Record(record) => self.record(record),
            Type::Variant(variant) => self.variant(variant, side),
            Type::Enum(cases) => enumeration(cases),
            Type::Flags(cases) => json!({ "type": "array", "uniqueItems": true, "items": enumeration(cases) }),
            // The codec compiles none of these; a contract that has them is served without.
            Type::Result(_) | Type::Opaque(_) | Type::Alias(_) => json!({}),
        }
    }

    /// A reference to the record's schema, which is made at the first meeting.
    fn record(&mut self, record: &Record) -> Value {
        let wanted = schema_name(&record.interface, &record.name);
        let fields: Vec<_> = record.fields.iter().collect();
        // One schema serves requests and replies: options may be left out by a client, and are null in a reply.
        let schema = self.object(&fields, record.docs.as_deref(), Side::Both);
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

    fn object(&mut self, fields: &[&Field], docs: Option<&str>, side: Side) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in fields {
            let key = snake_case(&field.name);
            let schema = self.schema(&field.ty, side);
            properties.insert(key.clone(), documented(schema, field.docs.as_deref()));
            if side == Side::Reply || !is_option(&field.ty) {
                required.push(key);
            }
        }
        let mut object = Map::new();
        object.insert("type".to_owned(), "object".into());
        object.insert("properties".to_owned(), properties.into());
        if !required.is_empty() {
            object.insert("required".to_owned(), required.into());
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
                        let value = Field { name: "value".to_owned(), docs: None, ty: ty.clone() };
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
enum Side {
    Request,
    Reply,
    Both,
}

fn is_option(ty: &Type) -> bool {
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

fn documented(mut schema: Value, docs: Option<&str>) -> Value {
    if let (Some(docs), Some(object)) = (docs, schema.as_object_mut()) {
        object.insert("description".to_owned(), docs.into());
    }
    schema
}

/// `MessageSendRequest` for `send-request` of `echo:message/api`; other interfaces than `api` are in the name too.
fn schema_name(interface: &str, name: &str) -> String {
    let path = interface.split_once(':').map_or(interface, |(_, path)| path);
    let path = path.split_once('@').map_or(path, |(path, _)| path);
    let words = path.split('/').filter(|part| *part != "api").chain([name]).flat_map(|part| part.split('-'));
    let mut named = String::new();
    for word in words {
        let mut letters = word.chars();
        named.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        named.push_str(letters.as_str());
    }
    named
}

fn first_sentence(docs: &str) -> &str {
    let line = docs.lines().next().unwrap_or_default();
    line.find(". ").map_or(line, |end| &line[..=end]).trim_end_matches('.')
}

fn reason(status: u16) -> &'static str {
    match status {
        201 => "Created",
        202 => "Accepted",
        204 => "Done",
        _ => "OK",
    }
}

fn problem() -> Value {
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
    use std::collections::HashSet;

    use super::*;
    use crate::contract::fixture;

    fn operation<'a>(contract: &'a Contract, method: &'a str, path: &'a str, function: &str) -> Operation<'a> {
        Operation {
            service: "message",
            contract,
            function: fixture::function(contract, "api", function),
            method,
            path,
            public: false,
            role: None,
            status: 200,
            status_unless: None,
        }
    }

    /// Every `$ref` leads somewhere.
    fn references(value: &Value, found: &mut HashSet<String>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn a_service_is_described() {
        let message = fixture::contract("message");
        let operations = [
            Operation { status: 201, ..operation(&message, "POST", "/api/v1/messages", "send") },
            operation(&message, "GET", "/api/v1/messages", "list-messages"),
            Operation { status: 204, ..operation(&message, "DELETE", "/api/v1/messages/{id}", "delete-message") },
            operation(&message, "PATCH", "/api/v1/messages/{id}", "edit-message"),
            Operation {
                status: 201,
                status_unless: Some(("created", 200)),
                role: Some("admin"),
                ..operation(&message, "POST", "/api/v1/messages/conversations", "open-conversation")
            },
            Operation { public: true, ..operation(&message, "GET", "/again/{id}", "delete-message") },
        ];
        let document = document("Echo", "0.1.0", &operations);
        let at = |pointer: &str| document.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not in {document:#}"));

        let send = "/paths/~1api~1v1~1messages/post";
        assert_eq!(at(&format!("{send}/operationId")), "message_send");
        assert_eq!(at(&format!("{send}/summary")), "Sends a message");
        assert_eq!(at(&format!("{send}/security/0/bearer")), &json!([]));
        assert_eq!(at(&format!("{send}/requestBody/content/application~1json/schema/$ref")), "#/components/schemas/MessageSendRequest");
        assert_eq!(at(&format!("{send}/responses/201/content/application~1json/schema/$ref")), "#/components/schemas/MessageMessage");
        assert_eq!(at(&format!("{send}/responses/default/$ref")), "#/components/responses/Problem");
        let request = "/components/schemas/MessageSendRequest";
        assert_eq!(at(&format!("{request}/required")), &json!(["conversation_id", "client_message_id", "type"]));
        assert_eq!(at(&format!("{request}/properties/type/enum/0")), "text");
        assert_eq!(at(&format!("{request}/properties/media_id")), &json!({ "type": ["string", "null"], "format": "uuid" }));
        assert_eq!(at(&format!("{request}/properties/metadata/description")), "At most 8 KiB of JSON.");

        let list = "/paths/~1api~1v1~1messages/get/parameters";
        assert_eq!(at(&format!("{list}/0/name")), "conversation_id");
        assert_eq!((at(&format!("{list}/0/in")), at(&format!("{list}/0/required"))), (&json!("query"), &json!(true)));
        assert_eq!(at(&format!("{list}/1/required")), &json!(false));

        let one = "/paths/~1api~1v1~1messages~1{id}";
        assert_eq!(at(&format!("{one}/delete/parameters/0/in")), "path");
        assert!(at(&format!("{one}/delete/responses/204")).get("content").is_none());
        assert!(at(&format!("{one}/patch/requestBody/content/application~1json/schema/properties")).get("id").is_none());
        assert_eq!(at("/paths/~1again~1{id}/get/operationId"), "message_delete_message_2");
        assert_eq!(at("/paths/~1again~1{id}/get/security"), &json!([]));

        let open = "/paths/~1api~1v1~1messages~1conversations/post";
        assert_eq!(at(&format!("{open}/security/0/bearer")), &json!(["admin"]));
        for status in ["200", "201"] {
            let properties = at(&format!("{open}/responses/{status}/content/application~1json/schema/properties"));
            assert!(properties.get("created").is_none() && properties.get("id").is_some());
        }
        assert_eq!(at("/tags/0"), &json!({ "name": "message", "description": "Conversations and messages." }));

        let mut found = HashSet::new();
        references(&document, &mut found);
        assert!(found.len() > 5, "{found:?}");
        for reference in found {
            at(&reference["#".len()..]);
        }
    }

    #[test]
    fn every_kind_of_value_has_a_schema() {
        let check = |ty: &str, expect: Value| {
            let contract = fixture::thing(&format!(
                "enum colour {{ red, dark-blue }} flags rights {{ can-read }} record point {{ x: s32 }} variant form {{ none, at(point), many(list<u16>) }}
                 record request {{ a: {ty} }} go: func(request: request) -> result<_, error>;"
            ));
            let function = fixture::function(&contract, "api", "go");
            let Type::Record(request) = &function.params[0].ty else { panic!() };
            assert_eq!(Schemas::default().schema(&request.fields[0].ty, Side::Request), expect, "{ty}");
        };
        check("bool", json!({ "type": "boolean" }));
        check("u64", json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX }));
        check("timestamp", json!({ "type": "string", "format": "date-time" }));
        check("list<u8>", json!({ "type": "string", "contentEncoding": "base64" }));
        check("option<json>", json!({ "description": "Any JSON value." }));
        check("colour", json!({ "type": "string", "enum": ["red", "dark_blue"] }));
        check("option<colour>", json!({ "oneOf": [{ "type": "string", "enum": ["red", "dark_blue"] }, { "type": "null" }] }));
        check("rights", json!({ "type": "array", "uniqueItems": true, "items": { "type": "string", "enum": ["can_read"] } }));
        check("point", json!({ "$ref": "#/components/schemas/ThingPoint" }));
        check("option<point>", json!({ "oneOf": [{ "$ref": "#/components/schemas/ThingPoint" }, { "type": "null" }] }));
        check(
            "tuple<bool, string>",
            json!({ "type": "array", "prefixItems": [{ "type": "boolean" }, { "type": "string" }], "minItems": 2, "maxItems": 2 }),
        );
        let many =
            json!({ "type": "array", "items": { "type": "integer", "minimum": 0, "maximum": 65_535 }, "maxItems": limits::LIST_ITEMS_MAX });
        check(
            "form",
            json!({ "oneOf": [
                { "type": "object", "properties": { "type": { "const": "none" } }, "required": ["type"] },
                { "type": "object", "properties": { "x": { "type": "integer", "format": "int32" }, "type": { "const": "at" } }, "required": ["x", "type"] },
                { "type": "object", "properties": { "value": many, "type": { "const": "many" } }, "required": ["value", "type"] },
            ] }),
        );
    }
}
