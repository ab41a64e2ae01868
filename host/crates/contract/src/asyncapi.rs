//! The AsyncAPI 3.0 document of the socket: the frames that devices send and receive, generated from the contracts and their docs. The services' frames are
//! given by the caller; the host's own are listed here.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::bounds::Bounds;
use super::first_sentence;
use super::schema::{Schemas, Side, problem};
use super::wit::{Function, Record, Type};
use echo_base::limits;

/// A type of frames that a client sends, bound to a function of a service's `api`.
#[derive(Clone, Copy)]
pub struct ClientFrame<'a> {
    pub event: &'a str,
    pub function: &'a Function,
}

/// A function by which a service sends frames of a type.
#[derive(Clone)]
pub struct PushedFrame<'a> {
    pub event: String,
    /// Kept in the feed and numbered.
    pub durable: bool,
    pub function: &'a Function,
}

/// The whole document. `pushed`: several functions may send frames of one type.
pub fn document(title: &str, version: &str, client: &[ClientFrame<'_>], pushed: &[PushedFrame<'_>]) -> Value {
    let mut document = Document::default();
    for (event, summary, payload, reply) in hosts_client_frames() {
        document.receive(event, summary, payload, reply);
    }
    for frame in client {
        let summary = frame.function.docs.as_deref().unwrap_or(frame.event);
        let request = record_of(frame.function).map(|record| document.schemas.record(record, Side::Request));
        let reply = document.schemas.reply(frame.function).unwrap_or_else(|| json!({ "type": "null" }));
        document.receive(frame.event, summary, request.unwrap_or_else(empty), reply);
    }
    for (event, summary, payload) in hosts_server_frames() {
        document.send(event, summary, &[], payload);
    }
    let mut by_event: BTreeMap<&str, Vec<&PushedFrame<'_>>> = BTreeMap::new();
    pushed.iter().for_each(|frame| by_event.entry(&frame.event).or_default().push(frame));
    for (event, frames) in by_event {
        let payloads: Vec<_> = frames
            .iter()
            .filter_map(|frame| record_of(frame.function).map(|record| document.schemas.record(record, Side::Reply)))
            .collect();
        let payloads =
            payloads.iter().enumerate().filter(|(at, schema)| !payloads[..*at].contains(schema)).map(|(_, schema)| schema.clone());
        let payloads: Vec<Value> = payloads.collect();
        let payload = if let [only] = payloads.as_slice() { only.clone() } else { json!({ "anyOf": payloads }) };
        let docs: Vec<&str> = frames.iter().filter_map(|frame| frame.function.docs.as_deref()).collect();
        let extra = if frames.iter().any(|frame| frame.durable) { &FEED_FIELDS[..] } else { &[] };
        document.send(event, &docs.join("\n"), extra, payload);
    }
    document.finish(title, version)
}

/// What a durable frame has besides.
const FEED_FIELDS: [(&str, &str); 2] = [("seq", "integer"), ("at", "string")];

#[derive(Default)]
struct Document {
    schemas: Schemas,
    messages: Map<String, Value>,
    operations: Map<String, Value>,
}

impl Document {
    /// A frame from the client, with the answers to one that has an `id`.
    fn receive(&mut self, event: &str, docs: &str, payload: Value, reply: Value) {
        let name = format!("client_{event}");
        let mut frame = json!({
            "type": "object",
            "properties": { "type": { "const": event }, "id": frame_id(), "payload": payload },
            "required": ["type"],
            "additionalProperties": false,
        });
        if requires_something(&frame["properties"]["payload"], &self.schemas) {
            frame["required"] = json!(["type", "payload"]);
        }
        self.message(&name, event, docs, frame);
        let mut operation = json!({
            "action": "receive",
            "channel": { "$ref": "#/channels/socket" },
            "summary": first_sentence(docs),
            "messages": [on_the_channel(&name)],
        });
        let reply_name = format!("reply_{event}");
        let frame = json!({
            "type": "object",
            "properties": { "type": { "const": "reply" }, "id": frame_id(), "payload": reply },
            "required": ["type", "id", "payload"],
        });
        self.message(&reply_name, "reply", &format!("The answer to a frame of type {event} with an id."), frame);
        operation["reply"] = json!({
            "channel": { "$ref": "#/channels/socket" },
            "messages": [on_the_channel(&reply_name), on_the_channel("error")],
        });
        self.operations.insert(format!("receive_{event}"), operation);
    }

    fn send(&mut self, event: &str, docs: &str, extra: &[(&str, &str)], payload: Value) {
        let mut frame = json!({
            "type": "object",
            "properties": { "type": { "const": event }, "payload": payload },
            "required": ["type", "payload"],
        });
        for (field, ty) in extra {
            frame["properties"][*field] = json!({ "type": ty });
            frame["required"].as_array_mut().expect("an array").push((*field).into());
        }
        if event == "error" {
            frame["properties"]["id"] = frame_id();
        }
        self.message(event, event, docs, frame);
        let operation = json!({
            "action": "send",
            "channel": { "$ref": "#/channels/socket" },
            "summary": first_sentence(docs),
            "messages": [on_the_channel(event)],
        });
        self.operations.insert(format!("send_{event}"), operation);
    }

    fn message(&mut self, key: &str, name: &str, docs: &str, payload: Value) {
        self.messages
            .insert(key.to_owned(), json!({ "name": name, "summary": first_sentence(docs), "description": docs, "payload": payload }));
    }

    fn finish(mut self, title: &str, version: &str) -> Value {
        self.schemas.0.insert("Problem".to_owned(), problem());
        let on_channel: Map<String, Value> =
            self.messages.keys().map(|name| (name.clone(), json!({ "$ref": format!("#/components/messages/{name}") }))).collect();
        json!({
            "asyncapi": "3.0.0",
            "info": { "title": title, "version": version },
            "defaultContentType": "application/json",
            "channels": {
                "socket": {
                    "address": "/ws",
                    "title": "The socket of a device",
                    "description": "A WebSocket (RFC 6455); one JSON text frame is one message. Opened with an access token in `Authorization`, with a ticket, or with the subprotocols `echo.v1, bearer.<token>`.",
                    "messages": on_channel,
                    "bindings": {
                        "ws": {
                            "method": "GET",
                            "query": {
                                "type": "object",
                                "properties": {
                                    "ticket": { "type": "string", "description": "In place of a header, once." },
                                    "since": { "type": "integer", "minimum": 0, "description": "The `seq` of the last durable frame that this device has; what came after it follows." },
                                },
                            },
                        },
                    },
                },
            },
            "operations": self.operations,
            "components": {
                "messages": self.messages,
                "schemas": self.schemas.0,
                "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
            },
        })
    }
}

fn on_the_channel(name: &str) -> Value {
    json!({ "$ref": format!("#/channels/socket/messages/{name}") })
}

fn empty() -> Value {
    json!({ "type": "object", "properties": {}, "additionalProperties": false })
}

fn frame_id() -> Value {
    json!({
        "description": "Chosen by the client: its answer has the same.",
        "oneOf": [{ "type": "string", "maxLength": limits::FRAME_ID_BYTES_MAX - 2 }, { "type": "number" }],
    })
}

/// The record of a function's last parameter.
fn record_of(function: &Function) -> Option<&Record> {
    match function.params.last().map(|param| param.ty.structure()) {
        Some(Type::Record(record)) => Some(record),
        _ => None,
    }
}

fn requires_something(payload: &Value, schemas: &Schemas) -> bool {
    let named = payload.get("$ref").and_then(Value::as_str).and_then(|reference| schemas.0.get(reference.rsplit('/').next()?));
    named.unwrap_or(payload).get("required").is_some()
}

impl Schemas {
    /// A success of the function; none where there is no document.
    fn reply(&mut self, function: &Function) -> Option<Value> {
        let Some(Type::Result(result)) = function.result.as_ref().map(Type::structure) else { return None };
        result.ok.as_ref().map(|ok| self.schema(ok, &Bounds::default(), Side::Reply))
    }
}

fn one(field: &str, schema: Value) -> Value {
    json!({ "type": "object", "properties": { field: schema }, "required": [field], "additionalProperties": false })
}

/// What the host itself takes, and how it answers a frame with an id.
fn hosts_client_frames() -> [(&'static str, &'static str, Value, Value); 3] {
    let seq = json!({ "type": "integer", "minimum": 0, "maximum": u64::MAX });
    let expires_at = json!({ "type": "string", "format": "date-time" });
    let renewed = json!({ "type": "object", "properties": { "expires_at": expires_at }, "required": ["expires_at"] });
    let done = || json!({ "type": "object" });
    [
        ("ack", "Every durable frame up to there has reached this device.", one("seq", seq), done()),
        (
            "auth",
            "Another access token of the same session: the socket lives on with it.",
            one("access_token", json!({ "type": "string" })),
            renewed,
        ),
        ("ping", "Is answered with `pong`; with an id, by a reply too.", done(), done()),
    ]
}

/// What the host itself says.
fn hosts_server_frames() -> [(&'static str, &'static str, Value); 6] {
    let whole = || json!({ "type": "integer", "minimum": 0 });
    let object = |fields: &[(&str, Value)]| {
        let properties: Map<String, Value> = fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
        let required: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
        json!({ "type": "object", "properties": properties, "required": required })
    };
    let uuid = || json!({ "type": "string", "format": "uuid" });
    [
        (
            "connection_ack",
            "The first frame.",
            object(&[
                ("connection_id", uuid()),
                ("user_id", uuid()),
                ("device_id", json!({ "type": "string" })),
                ("heartbeat_interval", whole()),
                ("idle_timeout", whole()),
                ("cursor", whole()),
            ]),
        ),
        ("caught_up", "All that was missed has been sent.", object(&[("cursor", whole())])),
        (
            "resync_required",
            "The feed no longer reaches back to the cursor: load the state anew and go on from this one.",
            object(&[("cursor", whole())]),
        ),
        ("pong", "The answer to `ping`.", json!({ "type": "object" })),
        ("goodbye", "The host ends; come back after this pause.", object(&[("retry_after_ms", whole())])),
        (
            "error",
            "Why a frame was not taken (RFC 9457); with the frame's id where it has one.",
            json!({ "$ref": "#/components/schemas/Problem" }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    /// What AsyncAPI 3.0 wants of each object that is used here, and that every reference leads somewhere.
    fn check_structure(document: &Value) {
        assert_eq!(document["asyncapi"], "3.0.0");
        assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
        let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
        let known = |value: &Value, names: &[&str]| {
            let unknown: Vec<_> = keys(value).into_iter().filter(|key| !names.contains(&key.as_str())).collect();
            assert!(unknown.is_empty(), "{unknown:?} in {value}");
        };
        known(document, &["asyncapi", "info", "defaultContentType", "channels", "operations", "components"]);
        for channel in document["channels"].as_object().unwrap().values() {
            known(channel, &["address", "title", "description", "messages", "bindings"]);
            known(&channel["bindings"]["ws"], &["method", "query", "headers", "bindingVersion"]);
        }
        for operation in document["operations"].as_object().unwrap().values() {
            known(operation, &["action", "channel", "summary", "messages", "reply"]);
            assert!(operation["action"] == "send" || operation["action"] == "receive");
            assert_eq!(keys(&operation["channel"]), ["$ref"]);
            for message in operation["messages"].as_array().unwrap() {
                assert!(message["$ref"].as_str().unwrap().starts_with("#/channels/socket/messages/"), "{message}");
            }
        }
        for message in document["components"]["messages"].as_object().unwrap().values() {
            known(message, &["name", "summary", "description", "payload"]);
        }
        let mut todo = vec![document];
        while let Some(value) = todo.pop() {
            if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
                assert!(document.pointer(&reference["#".len()..]).is_some(), "{reference} leads nowhere");
            }
            match value {
                Value::Object(fields) => todo.extend(fields.values()),
                Value::Array(items) => todo.extend(items),
                _ => {}
            }
        }
    }

    #[test]
    fn the_socket_of_a_service_is_described() {
        let contract = fixture::contract("message");
        let pushes = contract.imports().iter().find(|import| import.name == "pushes").expect("it pushes");
        let pushed = |event: &str, durable: bool, name: &str| PushedFrame {
            event: event.to_owned(),
            durable,
            function: pushes.function(name).unwrap(),
        };
        let frames = [
            pushed("message", true, "message"),
            pushed("conversation", true, "conversation"),
            pushed("conversation", true, "conversation-left"),
            pushed("typing", false, "typing"),
        ];
        let client = [
            ClientFrame { event: "message", function: fixture::function(&contract, "api", "send") },
            ClientFrame { event: "typing", function: fixture::function(&contract, "api", "typing") },
        ];
        let document = document("Echo", "0.1.0", &client, &frames);
        check_structure(&document);
        let message = |name: &str| &document["components"]["messages"][name]["payload"];
        assert_eq!(message("client_message")["properties"]["payload"]["$ref"], "#/components/schemas/MessageSendRequest");
        assert_eq!(document["components"]["schemas"]["MessageSendRequest"]["properties"]["content"]["maxLength"], 10_000);
        assert_eq!(message("client_message")["required"], json!(["type", "payload"]));
        assert_eq!(message("client_message")["additionalProperties"], false);
        assert_eq!(message("reply_message")["properties"]["payload"], message("message")["properties"]["payload"]);
        assert_eq!(message("message")["required"], json!(["type", "payload", "seq", "at"]));
        assert_eq!(message("typing")["required"], json!(["type", "payload"]));
        assert_eq!(message("conversation")["properties"]["payload"]["anyOf"].as_array().unwrap().len(), 2);
        assert_eq!(message("error")["properties"]["payload"]["$ref"], "#/components/schemas/Problem");
        assert_eq!(message("client_ping")["required"], json!(["type"]));
        // The host answers its own frames as services answer theirs.
        for event in ["ack", "auth", "ping"] {
            let reply = &document["operations"][format!("receive_{event}")]["reply"]["messages"][0]["$ref"];
            assert_eq!(reply, &json!(format!("#/channels/socket/messages/reply_{event}")));
        }
        // A function without a reply is answered by null.
        assert_eq!(message("reply_typing")["properties"]["payload"], json!({ "type": "null" }));
        assert_eq!(message("reply_auth")["properties"]["payload"]["required"], json!(["expires_at"]));
        assert_eq!(document["operations"]["receive_typing"]["reply"]["messages"][1]["$ref"], "#/channels/socket/messages/error");
        assert_eq!(document["operations"]["send_typing"]["summary"], "Somebody types, or has stopped");
    }
}
