//! The OpenAPI 3.1 document of all operations, generated from the contracts and their docs. Knows no router: its caller lists the operations and their paths.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

mod host_paths;

use super::bounds::Bounds;
use super::codec::shape::{key_of, snake_case};
use super::first_sentence;
use super::schema::{Schemas, Side, is_required, problem, with_default};
use super::wit::{Contract, Field, Function, Meaning, Record, Type};

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
    /// A body is a file, beside which the function's record goes.
    pub file: Option<File>,
}

/// How a file is sent or answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// In a form's field `file`.
    Form,
    /// The first step of a tus upload: headers alone.
    Begin {
        bytes_max: u64,
    },
    /// Bytes of a tus upload.
    Bytes,
    Answer,
}

impl File {
    /// In the place of the function's record.
    fn describe(self, operation: &mut Value) {
        let described =
            |name: &str, required: bool, schema: Value| json!({ "name": name, "in": "header", "required": required, "schema": schema });
        let header = |name: &str, required: bool| described(name, required, json!({ "type": "string" }));
        let version = || described("Tus-Resumable", true, json!({ "type": "string", "enum": ["1.0.0"] }));
        let headers = match self {
            File::Form => {
                let file = json!({ "type": "object", "required": ["file"], "additionalProperties": false,
                    "properties": { "file": { "type": "string", "format": "binary", "minLength": 1 } } });
                operation["requestBody"] = json!({ "required": true, "content": { "multipart/form-data": { "schema": file } } });
                return;
            }
            File::Begin { bytes_max } => {
                operation.as_object_mut().expect("an operation is an object").remove("requestBody");
                let length = json!({ "type": "integer", "minimum": 1, "maximum": bytes_max });
                vec![version(), described("Upload-Length", true, length), header("Upload-Metadata", false)]
            }
            File::Bytes => {
                operation["requestBody"] = json!({ "required": true, "content": { "application/offset+octet-stream": {} } });
                let problem = operation["responses"]["default"].take();
                operation["responses"] = json!({ "204": { "description": reason(204) }, "default": problem });
                vec![version(), described("Upload-Offset", true, json!({ "type": "integer", "minimum": 0 }))]
            }
            File::Answer => {
                let file = json!({ "*/*": {} });
                operation["responses"]["200"]["content"] = file.clone();
                operation["responses"]["206"] = json!({ "description": "Parts of it", "content": file });
                operation["responses"]["304"] = json!({ "description": "The client has it" });
                vec![header("Range", false), header("If-Range", false), header("If-None-Match", false)]
            }
        };
        match operation["parameters"].as_array_mut() {
            Some(parameters) => parameters.extend(headers),
            None => operation["parameters"] = headers.into(),
        }
    }
}

/// The whole document, with the host's own paths. Operations without a parameter record, reply or docs are described as far as they go.
pub fn document(title: &str, version: &str, operations: &[Operation<'_>]) -> Value {
    let mut schemas = Schemas::default();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    let mut tags: BTreeMap<&str, Option<String>> = BTreeMap::new();
    let ids = operation_ids(operations);
    for (operation, id) in operations.iter().zip(&ids) {
        tags.entry(operation.service).or_insert_with(|| {
            let api = operation.contract.exports().iter().find(|interface| interface.function(&operation.function.name).is_some());
            api.and_then(|interface| interface.docs.clone())
        });
        let links = links(operation, operations, &ids);
        let mut described = schemas.operation(operation, id, &links);
        if let Some(file) = operation.file {
            file.describe(&mut described);
        }
        paths.entry(operation.path.to_owned()).or_default().insert(operation.method.to_ascii_lowercase(), described);
    }
    host_paths::add(&mut paths);
    tags.insert(host_paths::TAG, Some("The host itself.".to_owned()));
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

/// The same function may serve several routes; an operationId may not.
fn operation_ids(operations: &[Operation<'_>]) -> Vec<String> {
    let mut counts = BTreeMap::new();
    let named = operations.iter().map(|operation| {
        let id = format!("{}_{}", snake_case(operation.service), snake_case(&operation.function.name));
        let count = counts.entry(id.clone()).and_modify(|count| *count += 1).or_insert(1);
        if *count == 1 { id } else { format!("{id}_{count}") }
    });
    named.collect()
}

/// From what makes a thing with an `id` to what takes it: the paths below it (`POST /talks`, `GET /talks/{id}`), and where it is named by its kind
/// (`talk_id` in a path or a query).
fn links(maker: &Operation<'_>, operations: &[Operation<'_>], ids: &[String]) -> Map<String, Value> {
    let makes_id = record_of_reply(maker.function)
        .is_some_and(|reply| reply.fields.iter().any(|field| key_of(field) == "id" && field.ty.meaning() == Some(Meaning::Uuid)));
    if maker.method != "POST" || maker.status != 201 || !makes_id {
        return Map::new();
    }
    let kind = maker.path.rsplit('/').next().unwrap_or_default();
    let by_kind = format!("{}_id", snake_case(kind.strip_suffix('s').unwrap_or(kind)));
    let below = format!("{}/{{id}}", maker.path);
    let taken_as = |taker: &Operation<'_>| {
        let fits = |rest: &str| rest.is_empty() || rest.starts_with('/');
        if taker.path.strip_prefix(&below).is_some_and(fits) {
            return Some("id".to_owned());
        }
        let Some(Type::Record(request)) = taker.function.params.first().map(|param| param.ty.structure()) else { return None };
        let is_parameter = matches!(taker.method, "GET" | "DELETE") || taker.path.contains(&format!("{{{by_kind}}}"));
        (is_parameter && request.fields.iter().any(|field| key_of(field) == by_kind)).then(|| by_kind.clone())
    };
    let link = |(taker, id): (&Operation<'_>, &String)| {
        let parameter = taken_as(taker)?;
        Some((id.clone(), json!({ "operationId": id, "parameters": { parameter: "$response.body#/id" } })))
    };
    operations.iter().zip(ids).filter_map(link).collect()
}

fn record_of_reply(function: &Function) -> Option<&Record> {
    let Some(Type::Result(result)) = function.result.as_ref().map(Type::structure) else { return None };
    match result.ok.as_ref().map(Type::structure) {
        Some(Type::Record(record)) => Some(record),
        _ => None,
    }
}

impl Schemas {
    fn operation(&mut self, operation: &Operation<'_>, id: &str, links: &Map<String, Value>) -> Value {
        let function = operation.function;
        let mut described = Map::new();
        described.insert("operationId".to_owned(), id.into());
        described.insert("tags".to_owned(), json!([operation.service]));
        if let Some(docs) = &function.docs {
            described.insert("summary".to_owned(), first_sentence(docs).into());
            described.insert("description".to_owned(), docs.clone().into());
        }
        let mut responses = self.replies(operation, links);
        responses.insert("default".to_owned(), json!({ "$ref": "#/components/responses/Problem" }));
        described.insert("responses".to_owned(), responses.into());
        if operation.public {
            described.insert("security".to_owned(), json!([]));
        } else {
            described.insert("security".to_owned(), json!([{ "bearer": operation.role.into_iter().collect::<Vec<_>>() }]));
        }
        let Some(Type::Record(request)) = function.params.first().map(|param| param.ty.structure()) else { return described.into() };

        let variables: Vec<_> = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        let given = |field: &&Field| variables.contains(&key_of(field).as_str());
        let mut parameters: Vec<_> = request.fields.iter().filter(given).map(|field| self.parameter(field, "path")).collect();
        let rest: Vec<_> = request.fields.iter().filter(|field| !given(field)).collect();
        if matches!(operation.method, "GET" | "DELETE") {
            parameters.extend(rest.into_iter().map(|field| self.parameter(field, "query")));
        } else if !rest.is_empty() {
            let schema = if rest.len() == request.fields.len() {
                self.record(request, Side::Request)
            } else {
                self.object(&rest, request.docs.as_deref(), Side::Request)
            };
            let required = rest.iter().any(|field| is_required(field));
            described
                .insert("requestBody".to_owned(), json!({ "required": required, "content": { "application/json": { "schema": schema } } }));
        }
        if !parameters.is_empty() {
            described.insert("parameters".to_owned(), parameters.into());
        }
        described.into()
    }

    fn replies(&mut self, operation: &Operation<'_>, links: &Map<String, Value>) -> Map<String, Value> {
        let reply = match operation.function.result.as_ref().map(Type::structure) {
            Some(Type::Result(result)) => result.ok.as_ref(),
            other => other,
        };
        let schema = match (reply.map(Type::structure), operation.status_unless) {
            (Some(Type::Record(record)), Some((omitted, _))) => {
                let sent: Vec<_> = record.fields.iter().filter(|field| snake_case(&field.name) != snake_case(omitted)).collect();
                Some(self.object(&sent, record.docs.as_deref(), Side::Reply))
            }
            _ => reply.map(|ty| self.schema(ty, &Bounds::default(), Side::Reply)),
        };
        let statuses = [Some(operation.status), operation.status_unless.map(|(_, status)| status)];
        let response = |status: u16| {
            let mut response = Map::new();
            response.insert("description".to_owned(), reason(status).into());
            if let Some(schema) = schema.as_ref().filter(|_| status != 204) {
                response.insert("content".to_owned(), json!({ "application/json": { "schema": schema } }));
            }
            if !links.is_empty() {
                response.insert("links".to_owned(), links.clone().into());
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
        parameter.insert("name".to_owned(), key_of(field).into());
        parameter.insert("in".to_owned(), place.into());
        parameter.insert("required".to_owned(), (place == "path" || (!optional && field.default.is_none())).into());
        parameter.insert("schema".to_owned(), with_default(self.schema(ty, &field.bounds, Side::Request), field, Side::Request));
        if let Some(docs) = &field.docs {
            parameter.insert("description".to_owned(), docs.clone().into());
        }
        if matches!(ty.structure(), Type::List(_) | Type::Flags(_)) {
            parameter.insert("style".to_owned(), "form".into());
            parameter.insert("explode".to_owned(), false.into());
        }
        parameter.into()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        201 => "Created",
        202 => "Accepted",
        204 => "Done",
        _ => "OK",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::fixture;

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
            file: None,
        }
    }

    #[test]
    fn files_are_described_as_they_are_sent() {
        let message = fixture::contract("message");
        let with = |method, path, function, file| Operation { file: Some(file), ..operation(&message, method, path, function) };
        let operations = [
            with("POST", "/form", "send", File::Form),
            with("POST", "/begin", "send", File::Begin { bytes_max: 1_000 }),
            with("PATCH", "/{id}", "edit-message", File::Bytes),
            with("GET", "/{id}", "delete-message", File::Answer),
        ];
        let document = document("Echo", "0.1.0", &operations);
        let at = |pointer: &str| document.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is not in {document:#}"));
        assert_eq!(at("/paths/~1form/post/requestBody/content/multipart~1form-data/schema/required/0"), "file");
        // A file without bytes is refused.
        assert_eq!(at("/paths/~1form/post/requestBody/content/multipart~1form-data/schema/properties/file/minLength"), 1);
        assert!(at("/paths/~1begin/post").get("requestBody").is_none());
        assert_eq!(at("/paths/~1form/post/requestBody/content/multipart~1form-data/schema/additionalProperties"), false);
        assert_eq!(at("/paths/~1begin/post/parameters/0/schema/enum/0"), "1.0.0");
        assert_eq!(at("/paths/~1begin/post/parameters/1/name"), "Upload-Length");
        assert_eq!(at("/paths/~1begin/post/parameters/1/schema/maximum"), 1_000);
        assert!(at("/paths/~1{id}/patch/responses").get("200").is_none());
        assert!(at("/paths/~1{id}/patch/requestBody/content").get("application/json").is_none());
        assert_eq!(at("/paths/~1{id}/patch/parameters/0/in"), "path");
        at("/paths/~1{id}/get/responses/206/content/*~1*");
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
        assert_eq!(
            at(&format!("{request}/properties/media_id")),
            &json!({
                "type": ["string", "null"],
                "format": "uuid",
                "description": "A file of the sender's own that has come whole, or one of a message that the sender sees."
            })
        );
        assert_eq!(at(&format!("{request}/additionalProperties")), false);
        let content = at(&format!("{request}/properties/content"));
        assert_eq!((&content["maxLength"], &content["type"]), (&json!(10_000), &json!(["string", "null"])));
        let place = at("/components/schemas/MessagePlaceInput/properties/latitude");
        assert_eq!((&place["minimum"], &place["maximum"]), (&json!(-90), &json!(90)));
        let reply = at("/components/schemas/MessageMessage");
        assert!(reply.get("additionalProperties").is_none() && reply["required"].as_array().unwrap().contains(&json!("content")));

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
        let below = at(&format!("{send}/responses/201/links"));
        assert_eq!(
            below["message_edit_message"],
            json!({ "operationId": "message_edit_message", "parameters": { "id": "$response.body#/id" } })
        );
        let links = at(&format!("{open}/responses/200/links"));
        let listed = json!({ "operationId": "message_list_messages", "parameters": { "conversation_id": "$response.body#/id" } });
        assert_eq!((&links["message_list_messages"], links.as_object().unwrap().len()), (&listed, 1));

        assert_eq!(at("/tags/1"), &json!({ "name": "message", "description": "Conversations and messages." }));
        for (path, access) in [("/health", json!([])), ("/ready", json!([])), ("/api/v1/sync", json!([{ "bearer": [] }]))] {
            let escaped = path.replace('/', "~1");
            assert_eq!(at(&format!("/paths/{escaped}/get/security")), &access, "{path}");
            at(&format!("/paths/{escaped}/get/responses/200/content/application~1json/schema/required/0"));
        }

        let mut found = HashSet::new();
        references(&document, &mut found);
        assert!(found.len() > 5, "{found:?}");
        for reference in found {
            at(&reference["#".len()..]);
        }
    }
}
