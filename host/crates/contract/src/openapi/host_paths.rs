//! The paths that the host answers itself, as far as programs call them. Their handlers are in the gateway and the hub, which do not know this module:
//! `cargo xtask fuzz` compares what they answer with what stands here.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use echo_base::limits;

pub const TAG: &str = "host";

/// For the document's `paths`.
pub fn add(paths: &mut BTreeMap<String, Map<String, Value>>) {
    for (path, operation) in [("/health", health()), ("/ready", ready()), ("/.well-known/jwks.json", jwks()), ("/api/v1/sync", sync())] {
        paths.entry(path.to_owned()).or_default().insert("get".to_owned(), operation);
    }
}

fn operation(id: &str, summary: &str, is_public: bool, answers: &[(&str, &str, &str, Value)]) -> Value {
    let mut responses: Map<String, Value> = answers
        .iter()
        .map(|(status, description, media_type, schema)| {
            ((*status).to_owned(), json!({ "description": description, "content": { *media_type: { "schema": schema } } }))
        })
        .collect();
    responses.insert("default".to_owned(), json!({ "$ref": "#/components/responses/Problem" }));
    let security = if is_public { json!([]) } else { json!([{ "bearer": [] }]) };
    json!({ "operationId": format!("host_{id}"), "tags": [TAG], "summary": summary, "security": security, "responses": responses })
}

fn health() -> Value {
    let schema = json!({ "type": "object", "required": ["status"], "properties": { "status": { "const": "up" } } });
    operation("health", "Answers while the process lives", true, &[("200", "OK", "application/json", schema)])
}

fn ready() -> Value {
    let status = json!({ "type": "string", "enum": ["up", "degraded", "down"] });
    let served = json!({ "type": "object", "required": ["status"], "properties": { "status": status } });
    let check = json!({ "type": "object", "required": ["status", "essential", "duration_ms"], "properties": {
        "status": status,
        "essential": { "type": "boolean", "description": "Whether the host is down without it." },
        "duration_ms": { "type": "number", "minimum": 0 },
    } });
    let served_by_name = json!({ "type": "object", "additionalProperties": served });
    let report = json!({ "type": "object", "required": ["status", "timestamp", "checks"], "properties": {
        "status": status,
        "timestamp": { "type": "string", "format": "date-time" },
        "draining": { "type": "boolean" },
        "checks": { "type": "object", "required": ["plugins"], "additionalProperties": check, "properties": {
            "plugins": served_by_name,
            "outside": served_by_name,
        } },
    } });
    let answers = [("200", "Up, or degraded", "application/json", report.clone()), ("503", "Down", "application/json", report)];
    operation("ready", "Whether the host takes requests, and the state of what it needs", true, &answers)
}

fn jwks() -> Value {
    let key = json!({ "type": "object", "required": ["kty"], "properties": { "kty": { "type": "string" }, "kid": { "type": "string" } } });
    let schema = json!({ "type": "object", "required": ["keys"], "properties": { "keys": { "type": "array", "items": key } } });
    operation("jwks", "The public keys of access tokens (RFC 7517)", true, &[("200", "OK", "application/jwk-set+json", schema)])
}

fn sync() -> Value {
    let item = json!({ "type": "object", "required": ["type", "seq", "at", "payload"], "properties": {
        "type": { "type": "string" },
        "seq": { "type": "integer", "minimum": 1 },
        "at": { "type": "string", "format": "date-time" },
        "payload": { "type": "object", "description": "As `/asyncapi.json` has it, by the type." },
    } });
    let page = json!({ "type": "object", "required": ["items", "next_cursor"], "properties": {
        "items": { "type": "array", "items": item },
        "next_cursor": { "type": ["integer", "null"], "minimum": 0, "description": "Where the next page begins; null at the feed's end." },
    } });
    let mut sync = operation("sync", "The feed of `/ws`, for clients without a socket", false, &[("200", "OK", "application/json", page)]);
    let parameter = |name: &str, description: String, schema: Value| json!({ "name": name, "in": "query", "required": false, "description": description, "schema": schema });
    sync["description"] = "The caller's durable events after a cursor, in order. 410 `resync_required`: the feed does not go back to it, or not as far; the answer's \
        `cursor` is where to go on once the state is loaded anew."
        .into();
    sync["parameters"] = json!([
        parameter(
            "since",
            "The `seq` of the last event that this device has; 0 is the beginning.".to_owned(),
            json!({ "type": "integer", "minimum": 0, "maximum": i64::MAX - 1 }),
        ),
        parameter(
            "limit",
            format!("Events of a page; {} where it is missing.", limits::SYNC_PAGE_DEFAULT),
            json!({ "type": "integer", "minimum": 1, "maximum": limits::FEED_PAGE_MAX }),
        ),
    ]);
    sync
}
