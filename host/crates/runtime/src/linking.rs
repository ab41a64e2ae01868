//! Connects a component's imports: the capabilities, an empty WASI, the other services' `api`, and topics to publish to. The list of
//! capabilities that can be granted comes first.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Val};

use super::call::{self, as_service_error, error_value};
use super::catalogue::Fit;
use super::frames::FrameBinding;
use super::instance::InstanceState;
use super::manifest::PushClass;
use super::{CallError, ErrorKind, FieldError, ServiceError};
use echo_base::clock::now_us;
use echo_base::limits;
use echo_base::names::ServiceName;
use echo_capabilities::events::Event;
use echo_capabilities::guest::Guest;
use echo_capabilities::hub::host::PushError;
use echo_capabilities::sql::Effect;
use echo_capabilities::{blob, cache, config, context, http as outgoing_http, hub, log, passwords, sql, tokens};
use echo_contract::codec::EventCodec;
use echo_contract::wit::{Contract, Interface};

type Link = fn(&mut Linker<InstanceState>, fn(&mut InstanceState) -> &mut Guest) -> wasmtime::Result<()>;

/// The capabilities: interface (without its version) and what connects it.
const CAPABILITIES: [(&str, Link); 10] = [
    ("echo:blob/blob", blob::host::add_to_linker),
    ("echo:cache/cache", cache::host::add_to_linker),
    ("echo:config/config", config::host::add_to_linker),
    ("echo:context/context", context::host::add_to_linker),
    ("echo:http/http", outgoing_http::host::add_to_linker),
    ("echo:hub/hub", hub::host::add_to_linker),
    ("echo:log/log", log::host::add_to_linker),
    ("echo:passwords/passwords", passwords::host::add_to_linker),
    ("echo:sql/sql", sql::host::add_to_linker),
    ("echo:tokens/tokens", tokens::host::add_to_linker),
];

/// WASI 0.2 packages for components of other languages: clocks and random work, the rest is empty.
const WASI_PACKAGES: [&str; 6] = ["wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:io/", "wasi:random/", "wasi:sockets/"];

/// What an imported or exported interface is to the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Capability,
    /// Synchronous calls to a service.
    ServiceApi,
    /// Topics of a service.
    ServiceEvents,
    /// Frames that a service sends to devices.
    ServicePushes,
    /// Types alone, nothing to connect.
    Types,
    Wasi,
    Unknown,
}

pub fn role_of(interface: &Interface) -> Role {
    if CAPABILITIES.iter().any(|(name, _)| *name == without_version(&interface.id)) {
        return Role::Capability;
    }
    match (interface.namespace.as_str(), interface.name.as_str()) {
        ("echo", "api") => Role::ServiceApi,
        ("echo", "events") => Role::ServiceEvents,
        ("echo", "pushes") => Role::ServicePushes,
        ("echo", _) if interface.functions.is_empty() => Role::Types,
        ("wasi", _) if WASI_PACKAGES.iter().any(|package| interface.id.starts_with(package)) => Role::Wasi,
        _ => Role::Unknown,
    }
}

pub fn without_version(id: &str) -> &str {
    id.split_once('@').map_or(id, |(name, _)| name)
}

/// Connects just what the component imports. The gate has checked that all of it is known and granted.
pub fn linker(
    engine: &wasmtime::Engine,
    service: &ServiceName,
    contract: &Contract,
    frames: &HashMap<(String, String), Arc<FrameBinding>>,
) -> wasmtime::Result<Linker<InstanceState>> {
    let mut linker = Linker::new(engine);
    for (name, link) in CAPABILITIES {
        if contract.imports().iter().any(|import| without_version(&import.id) == name) {
            link(&mut linker, |state| &mut state.guest)?;
        }
    }
    if contract.imports().iter().any(|import| role_of(import) == Role::Wasi) {
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    }
    for import in contract.imports() {
        match role_of(import) {
            Role::ServiceApi => forward_to_service(&mut linker, import)?,
            Role::ServiceEvents => publish_to_topics(&mut linker, import)?,
            Role::ServicePushes => push_frames(&mut linker, import, frames)?,
            Role::Types => {
                linker.instance(&import.id)?;
            }
            Role::Capability | Role::Wasi | Role::Unknown => {}
        }
    }
    tracing::debug!(%service, imports = contract.imports().len(), "linked");
    Ok(linker)
}

/// Calls from service to service, resolved at call time in the pinned snapshot.
fn forward_to_service(linker: &mut Linker<InstanceState>, import: &Interface) -> wasmtime::Result<()> {
    let Ok(callee) = ServiceName::parse(&import.package) else {
        return Err(wasmtime::Error::msg(format!("{} names no service", import.id)));
    };
    let mut instance = linker.instance(&import.id)?;
    for function in &import.functions {
        let (callee, name): (ServiceName, Arc<str>) = (callee.clone(), function.name.as_str().into());
        let adapter_key: Arc<str> = format!("{callee}.{name}").into();
        instance.func_new_async(&function.name, move |store, _, params, results| {
            let (callee, name, adapter_key) = (callee.clone(), name.clone(), adapter_key.clone());
            Box::new(async move {
                results[0] = match forward(store, &callee, &name, &adapter_key, params).await {
                    Ok(reply) => reply,
                    Err(error) => error_value(&as_service_error(error)),
                };
                Ok(())
            })
        })?;
    }
    Ok(())
}

async fn forward(
    store: StoreContextMut<'_, InstanceState>,
    callee: &ServiceName,
    function: &str,
    adapter_key: &str,
    params: &[Val],
) -> Result<Val, CallError> {
    let state = store.data();
    let frame = state.frame.as_ref().ok_or_else(|| CallError::Failed("a call to another service outside a call".to_owned()))?;
    let generation =
        frame.catalogue.generation(callee.as_str()).ok_or_else(|| CallError::Unavailable(format!("no service {callee}")))?.clone();
    if frame.catalogue.is_off(callee.as_str()) {
        return Err(CallError::SwitchedOff(callee.clone()));
    }
    let export = *generation.api.get(function).ok_or_else(|| CallError::Unavailable(format!("{callee} has no function {function}")))?;
    let callee_frame = frame.call(callee).map_err(CallError::Failed)?;
    let context = state.guest.shared_context();
    let within_bounds = |params: &[Val]| match &generation.exports[export].bounds {
        Some(bounds) => bounds.check(params).map_err(|fields| CallError::Declined(out_of_bounds(callee, function, fields))),
        None => Ok(()),
    };
    match frame.catalogue.fit_of(&state.guest.service, adapter_key) {
        None => {
            within_bounds(params)?;
            call::run(&generation, export, params, callee_frame, context).await
        }
        Some(Fit::Unfit) => {
            Err(CallError::Unavailable(format!("{callee} {} has another {function} than this version was built for", generation.version)))
        }
        Some(Fit::Adapted(adapter)) => {
            let params = adapter.adapt_params(params.to_vec());
            within_bounds(&params)?;
            let reply = call::run(&generation, export, &params, callee_frame, context).await?;
            Ok(adapter.adapt_result(reply))
        }
    }
}

/// As the service itself would decline it.
fn out_of_bounds(callee: &ServiceName, function: &str, fields: Vec<FieldError>) -> ServiceError {
    let code = if let [only] = fields.as_slice() { only.code.clone() } else { "invalid".to_owned() };
    let message = format!("{callee} {function}: the request is out of the contract's bounds");
    ServiceError { kind: ErrorKind::Invalid, code, message, fields, retry_after: None }
}

/// Publishing: the event goes to the outbox, inside the open transaction where there is one.
fn publish_to_topics(linker: &mut Linker<InstanceState>, import: &Interface) -> wasmtime::Result<()> {
    let mut instance = linker.instance(&import.id)?;
    for function in &import.functions {
        let codec = EventCodec::compile(function).map_err(|error| wasmtime::Error::msg(error.to_string()))?;
        let (codec, topic): (Arc<EventCodec>, Arc<str>) = (Arc::new(codec), format!("{}.{}", import.package, function.name).into());
        instance.func_new_async(&function.name, move |store, _, params, results| {
            let (codec, topic) = (codec.clone(), topic.clone());
            Box::new(async move {
                results[0] = match publish(store, &codec, &topic, params).await {
                    Ok(()) => Val::Result(Ok(None)),
                    Err(error) => error_value(&error),
                };
                Ok(())
            })
        })?;
    }
    Ok(())
}

/// Frames for devices, encoded as replies are: into the outbox inside the open transaction, else at once.
fn push_frames(
    linker: &mut Linker<InstanceState>,
    import: &Interface,
    frames: &HashMap<(String, String), Arc<FrameBinding>>,
) -> wasmtime::Result<()> {
    let mut instance = linker.instance(&import.id)?;
    for function in &import.functions {
        let Some(frame) = frames.get(&(import.id.clone(), function.name.clone())) else {
            return Err(wasmtime::Error::msg(format!("{} {} has no [[push]]", import.id, function.name)));
        };
        let frame = frame.clone();
        instance.func_new_async(&function.name, move |mut store, _, params, results| {
            let frame = frame.clone();
            Box::new(async move {
                results[0] = match push(&mut store.data_mut().guest, &frame, params).await {
                    Ok(()) => Val::Result(Ok(None)),
                    Err(error) => error_value(&error),
                };
                Ok(())
            })
        })?;
    }
    Ok(())
}

async fn push(guest: &mut Guest, frame: &FrameBinding, params: &[Val]) -> Result<(), ServiceError> {
    let refused = |kind, code: &str, message: String, retry_after| ServiceError {
        kind,
        code: code.to_owned(),
        message,
        fields: Vec::new(),
        retry_after,
    };
    let encoded =
        frame.codec.encode(params).map_err(|error| refused(ErrorKind::Internal, "service_failed", format!("a push: {error}"), None))?;
    let key = |index: Option<usize>| index.and_then(|index| frame.codec.key(params, index));
    let sent = match frame.replaces {
        Some(index) => {
            let subject = frame.codec.key(params, index).unwrap_or_default();
            guest.replace(hub::Replacement { subject, event: frame.event.clone(), payload: encoded.payload }).await
        }
        None => {
            let class = match frame.class {
                PushClass::Durable => hub::Class::Durable,
                PushClass::Ephemeral => hub::Class::Ephemeral,
            };
            let state: Option<Vec<String>> = frame.state.iter().map(|index| frame.codec.key(params, *index)).collect();
            let state = state.filter(|keys| !keys.is_empty()).map(|keys| keys.join(" "));
            let event = frame.event.clone().unwrap_or_default();
            let (receipt, subject, users) = (key(frame.receipt), key(frame.subject), Vec::new());
            guest.push(&encoded.users, hub::Push { users, event, payload: encoded.payload, class, receipt, subject, state }).await
        }
    };
    sent.map_err(|error| match error {
        PushError::Unavailable => refused(ErrorKind::Unavailable, "unavailable", error.to_string(), Some(UNAVAILABLE_RETRY)),
        PushError::TooLarge | PushError::Invalid => refused(ErrorKind::Internal, "service_failed", error.to_string(), None),
        PushError::RateLimited => refused(
            ErrorKind::RateLimited,
            "too_many_events",
            "you have sent more to one of these people than they can be sent".to_owned(),
            Some(FEED_RETRY),
        ),
    })
}

/// After how long another try is worth it.
const UNAVAILABLE_RETRY: Duration = Duration::from_millis(500);
/// After how long there is room for one more event of a person in another's feed.
const FEED_RETRY: Duration = Duration::from_secs(24 * 60 * 60 / limits::FEED_SENDER_EVENTS_PER_DAY + 1);

async fn publish(
    mut store: StoreContextMut<'_, InstanceState>,
    codec: &EventCodec,
    topic: &str,
    params: &[Val],
) -> Result<(), ServiceError> {
    let refused =
        |kind, code: &str, message: String| ServiceError { kind, code: code.to_owned(), message, fields: Vec::new(), retry_after: None };
    let (key, payload) = codec.encode(params).map_err(|error| refused(ErrorKind::Invalid, "invalid_event", error.to_string()))?;
    if payload.len() > limits::EVENT_BYTES_MAX {
        return Err(refused(ErrorKind::TooLarge, "event_too_large", format!("an event has at most {} bytes", limits::EVENT_BYTES_MAX)));
    }
    let guest = &mut store.data_mut().guest;
    let event = Event {
        id: Uuid::now_v7(),
        topic: topic.to_owned(),
        key,
        payload,
        at_us: now_us(),
        correlation_id: guest.context().correlation_id.to_string(),
    };
    guest.emit(Effect::Event(event)).await.map_err(|error| ServiceError {
        retry_after: Some(Duration::from_millis(echo_base::limits::OUTBOX_EVENTS_RETRY_MS)),
        ..refused(ErrorKind::Unavailable, "outbox_unavailable", error.to_string())
    })
}
