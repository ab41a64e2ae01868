//! The library's types are what a host states in `/openapi.json` and `/asyncapi.json`: examples made of the documents are read and written again, and
//! nothing of them may be missing or new.

use std::fmt::Debug;

use echo_client::{
    ConnectionAck, Conversation, DeviceInput, Ephemeral, FeedPayload, Message, NewConversation, NewMessage, NotAdded, Page, Problem,
    Profile, ReadState, Registration, Tokens,
};
use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::app::TestApp;

/// So many values of an enumeration are tried.
const CASES: usize = 12;

#[tokio::test]
async fn the_librarys_types_are_what_the_host_states() {
    let app = TestApp::shared().await;
    let rest = app.get("/openapi.json").send().await.expect(StatusCode::OK);
    let sockets = app.get("/asyncapi.json").send().await.expect(StatusCode::OK);
    let named = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });

    check::<Registration>(&rest, &named("AuthRegistration"));
    check::<Tokens>(&rest, &named("AuthTokens"));
    check::<DeviceInput>(&rest, &named("AuthDeviceInput"));
    check::<Profile>(&rest, &named("UserProfile"));
    check::<NewConversation>(&rest, &named("MessageOpenConversationRequest"));
    check::<Conversation>(&rest, &named("MessageConversation"));
    let opened = &rest["paths"]["/api/v1/messages/conversations"]["post"]["responses"]["201"]["content"]["application/json"]["schema"];
    check::<Conversation>(&rest, opened);
    check::<NotAdded>(&rest, &named("MessageNotAdded"));
    check::<Page<Conversation>>(&rest, &named("MessageConversations"));
    check::<ReadState>(&rest, &named("MessageReadState"));
    check::<NewMessage>(&rest, &named("MessageSendRequest"));
    check::<Message>(&rest, &named("MessageMessage"));
    check::<Problem>(&rest, &named("Problem"));
    check::<Problem>(&sockets, &named("Problem"));

    for (key, message) in sockets["components"]["messages"].as_object().expect("messages") {
        let name = message["name"].as_str().expect("a name");
        let payload = &message["payload"]["properties"]["payload"];
        let keys = |expect: &[&str]| assert_eq!(keys_of(&sockets, payload), expect, "{key}");
        match key.as_str() {
            "client_ack" => keys(&["seq"]),
            "client_auth" => keys(&["access_token"]),
            "client_typing" => keys(&["conversation_id", "is_typing"]),
            "client_message" => check::<NewMessage>(&sockets, payload),
            "connection_ack" => check::<ConnectionAck>(&sockets, payload),
            "caught_up" | "resync_required" => keys(&["cursor"]),
            "goodbye" => keys(&["retry_after_ms"]),
            "error" => check::<Problem>(&sockets, payload),
            "pong" => {}
            other if other.starts_with("client_") || other.starts_with("reply_") => {}
            _ if message["payload"]["properties"].get("seq").is_some() => check_frame(&sockets, name, payload, |raw| {
                let read = FeedPayload::read(name, raw);
                (!matches!(read, FeedPayload::Other { .. })).then(|| serde_json::to_value(read).expect("JSON"))
            }),
            _ => check_frame(&sockets, name, payload, |raw| {
                let read = Ephemeral::read(name, raw);
                (!matches!(read, Ephemeral::Other { .. })).then(|| serde_json::to_value(read).expect("JSON"))
            }),
        }
    }
}

fn keys_of(document: &Value, schema: &Value) -> Vec<String> {
    let mut keys: Vec<String> = example(document, schema, Take::all(0)).as_object().expect("an object").keys().cloned().collect();
    keys.sort();
    keys
}

/// Everything that the schema allows can be read, and nothing is lost or added on the way.
fn check<T: DeserializeOwned + Serialize + Debug>(document: &Value, schema: &Value) {
    for take in takes() {
        let example = example(document, schema, take);
        let read: T = serde_json::from_value(example.clone()).unwrap_or_else(|error| panic!("{schema}: {error}: {example}"));
        assert_eq!(serde_json::to_value(&read).expect("JSON"), example, "{schema}");
    }
}

fn check_frame(document: &Value, name: &str, payload: &Value, read: impl Fn(&RawValue) -> Option<Value>) {
    let alternatives = payload["anyOf"].as_array().cloned().unwrap_or_else(|| vec![payload.clone()]);
    for schema in alternatives {
        for take in takes() {
            let example = example(document, &schema, take);
            let raw = serde_json::value::to_raw_value(&example).expect("JSON");
            assert_eq!(read(&raw), Some(example), "the library has no words for {name}");
        }
    }
}

/// Which of the values that a schema allows.
#[derive(Clone, Copy)]
struct Take {
    /// Optional fields too, and no null where something else may stand.
    all: bool,
    /// Of an enumeration.
    case: usize,
}

impl Take {
    fn all(case: usize) -> Self {
        Self { all: true, case }
    }
}

fn takes() -> impl Iterator<Item = Take> {
    (0..CASES).map(Take::all).chain([Take { all: false, case: 0 }])
}

fn example(document: &Value, schema: &Value, take: Take) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let named = document.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("no {reference}"));
        return if reference.ends_with("/Json") { json!({ "any": ["value"] }) } else { example(document, named, take) };
    }
    if let Some(alternatives) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let may_be_null = alternatives.iter().any(|schema| schema["type"] == "null");
        return if may_be_null && !take.all { Value::Null } else { example(document, &alternatives[0], take) };
    }
    if let Some(cases) = schema["enum"].as_array() {
        return cases[take.case % cases.len()].clone();
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().into_iter().collect(),
    };
    if types.contains(&"null") && !take.all {
        return Value::Null;
    }
    let of = |name: &str| types.contains(&name);
    if of("object") && of("array") {
        return json!({ "any": ["value"] });
    }
    if of("object") {
        let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let properties = schema["properties"].as_object().cloned().unwrap_or_default();
        let taken = properties.into_iter().filter(|(name, _)| take.all || required.contains(&name.as_str()));
        return Value::Object(taken.map(|(name, schema)| (name, example(document, &schema, take))).collect::<Map<_, _>>());
    }
    match types.first().copied() {
        Some("array") => json!([example(document, &schema["items"], take)]),
        Some("boolean") => true.into(),
        Some("integer") => 7.into(),
        Some("number") => 1.5.into(),
        Some("string") if schema["format"] == "uuid" => "0190b6f1-0000-7000-8000-000000000001".into(),
        Some("string") if schema["format"] == "date-time" => "2026-01-02T03:04:05.000006Z".into(),
        Some("string") => "text".into(),
        other => panic!("an example of {other:?}: {schema}"),
    }
}
