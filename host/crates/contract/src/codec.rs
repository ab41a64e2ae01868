//! JSON to component values and back, compiled once per function. Knows no HTTP status, no routes and no instances.
//!
//! The path of a request: `Input` → `RequestCodec::decode` (`codec/read.rs`, over the reader of `codec/json.rs`) → values for the guest;
//! the guest's result → `ReplyCodec::encode` (`codec/write.rs`) → the document or the service's error. In between, cursors are opened and sealed
//! (`codec/seal.rs`).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::Val;

pub use self::check::ParamBounds;
use self::json::{Broken, Kind, Reader};
pub use self::push::PushCodec;
use self::read::{Decoder, Path, Problems, Slots, Unknown, from_text};
pub use self::seal::{CursorKey, CursorScope};
use self::shape::{FieldShape, RecordShape, Shape};
pub use self::write::EncodeError;
use self::write::{Encoder, mismatch};
use super::bounds::Bounds;
use super::wit::{ContractError, Function, Type};
use super::{ErrorKind, FieldError, Input, ServiceError};
use echo_base::limits;

mod check;
mod i_json;
pub(crate) mod json;
mod push;
mod query;
mod read;
mod seal;
pub mod shape;
mod text;
mod write;

/// Where the fields come from that the path does not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// GET, DELETE.
    Query,
    /// POST, PUT, PATCH.
    Body,
    /// One JSON document: a socket frame's payload.
    Json,
}

/// Why a request cannot be given to the service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No JSON at all, or nested too deep; says at which byte.
    #[error("{0}")]
    Unreadable(String),
    /// Every wrong field, `FIELD_ERRORS_MAX` at the most.
    #[error("the request is not valid")]
    Invalid(Vec<FieldError>),
}

/// A function's request: no parameter, or one record.
pub struct RequestCodec {
    record: Arc<RecordShape>,
    takes_request: bool,
    /// Path variables and the fields they fill.
    variables: Vec<(String, usize)>,
    source: Source,
    has_cursors: bool,
}

/// A function's reply: `result<reply, error>` or `result<_, error>`.
pub struct ReplyCodec {
    reply: Option<Shape>,
    /// The field of the reply that decides the status and is not sent.
    status_flag: Option<usize>,
    has_cursors: bool,
}

/// What a service answered.
#[derive(Debug)]
pub enum Encoded {
    Ok { body: Option<Vec<u8>>, status_flag: Option<bool> },
    Declined(ServiceError),
}

/// A function of an `events` interface: `func(key: string, event: record) -> result<_, error>`.
pub struct EventCodec {
    event: Arc<RecordShape>,
}

impl RequestCodec {
    /// `path_variables`: the names in braces, which are fields in snake_case.
    pub fn compile(function: &Function, path_variables: &[&str], source: Source) -> Result<Self, ContractError> {
        let refused = |reason: String| refused(function, reason);
        callable(function)?;
        let record = match function.params.as_slice() {
            [] => RecordShape { fields: Vec::new() },
            [param] => match param.ty.structure() {
                Type::Record(record) => RecordShape::compile(record).map_err(refused)?,
                other => return Err(refused(format!("its parameter is {}, a record is wanted", other.describe()))),
            },
            more => return Err(refused(format!("it has {} parameters, at most one record is wanted", more.len()))),
        };
        let mut variables = Vec::with_capacity(path_variables.len());
        for name in path_variables {
            let Some(index) = record.find(name, 0) else {
                return Err(refused(format!("the request has no field for {{{name}}} of the path")));
            };
            if !record.fields[index].shape.is_scalar() {
                return Err(refused(format!("{{{name}}} of the path cannot give a list or a record")));
            }
            if variables.iter().any(|(other, _)| other == name) {
                return Err(refused(format!("{{{name}}} stands twice in the path")));
            }
            variables.push(((*name).to_owned(), index));
        }
        if source == Source::Query {
            for (index, field) in record.fields.iter().enumerate() {
                if !field.shape.fits_query() && !variables.iter().any(|(_, given)| *given == index) {
                    return Err(refused(format!("a query cannot give {}, which is a record or a list of them", field.key)));
                }
            }
        }
        let has_cursors = record.fields.iter().any(|field| seal::has_cursor(&field.shape));
        Ok(Self { record: Arc::new(record), takes_request: !function.params.is_empty(), variables, source, has_cursors })
    }

    /// What a cursor of this request or its reply is good for.
    /// `caller`: the user's identifier; none for an anonymous caller. `params`: what `decode` gave.
    pub fn cursor_scope(&self, key: &CursorKey, service: &str, function: &str, caller: Option<&[u8; 16]>, params: &[Val]) -> CursorScope {
        key.scope(service, function, caller, &self.record, params)
    }

    pub fn has_cursors(&self) -> bool {
        self.has_cursors
    }

    /// The path of a field as clients write it, where the service names it in its own way (`device.id`, `items[3].size`).
    pub fn clients_path(&self, own: &str) -> String {
        let (mut record, mut written) = (Some(&*self.record), Vec::new());
        for part in own.split('.') {
            let (name, item) = part.split_at(part.find('[').unwrap_or(part.len()));
            let field = record.and_then(|record| record.fields.iter().find(|field| shape::snake_case(&field.name) == name));
            written.push(format!("{}{item}", field.map_or(name, |field| &field.key)));
            record = field.and_then(|field| field.shape.record());
        }
        written.join(".")
    }

    /// Puts the service's own cursors in the place of the sealed ones that a client gave.
    /// Errors: `cursor_invalid` with the field for one that was changed, or is of another list or another caller.
    pub fn open_cursors(&self, scope: &CursorScope, params: &mut [Val]) -> Result<(), DecodeError> {
        let mut problems = Problems::default();
        if let [request] = params {
            scope.open_all(&self.record, request, &mut problems);
        }
        if problems.0.is_empty() { Ok(()) } else { Err(DecodeError::Invalid(problems.0)) }
    }

    /// The values of the function's parameters; cursors are still sealed.
    pub fn decode(&self, input: &Input<'_>) -> Result<Vec<Val>, DecodeError> {
        let mut problems = Problems::default();
        let mut slots = Slots::new(&self.record);
        let (path, query, body) = match input {
            Input::Http { path, query, body } => (*path, *query, *body),
            Input::Json(document) => (&[][..], None, Some(*document)),
        };
        for (name, index) in &self.variables {
            if let Some((_, value)) = path.iter().find(|(given, _)| given == name) {
                let field = &self.record.fields[*index];
                let value = from_text(&field.shape, Cow::Borrowed(value), &Path::Field(&Path::Root, &field.key), &mut problems);
                slots.fill(*index, value);
            }
        }
        if self.source == Source::Query && matches!(input, Input::Http { .. }) {
            self.query(query.unwrap_or_default(), &mut slots, &mut problems)?;
        } else {
            read_object(&self.record, body.unwrap_or_default(), Unknown::Refuse, &mut slots, &mut problems)?;
        }
        let request = slots.finish(&self.record, &Path::Root, &mut problems);
        match problems.0 {
            problems if !problems.is_empty() => Err(DecodeError::Invalid(problems)),
            _ if self.takes_request => Ok(vec![request]),
            _ => Ok(Vec::new()),
        }
    }

    fn query(&self, query: &str, slots: &mut Slots, problems: &mut Problems) -> Result<(), DecodeError> {
        let given = slots.mask();
        let mut hint = 0;
        for pair in query::pairs(query) {
            let (name, value) = pair?;
            let Some(index) = self.record.find(&name, hint) else {
                problems.unknown_field(&Path::Root, &name, &self.record);
                continue;
            };
            hint = index + 1;
            let field = &self.record.fields[index];
            let path = Path::Field(&Path::Root, &field.key);
            if given.has(index) {
                problems.add(&path, "unknown_field", "the path gives it already");
            } else if slots.has(index) {
                problems.add(&path, "duplicate_field", "it is given twice");
            } else {
                slots.fill(index, from_text(&field.shape, value, &path, problems));
            }
        }
        Ok(())
    }
}

impl ReplyCodec {
    /// `status_flag`: a boolean field of the reply, in either spelling, that is returned beside the document instead of in it.
    pub fn compile(function: &Function, status_flag: Option<&str>) -> Result<Self, ContractError> {
        let refused = |reason: String| refused(function, reason);
        callable(function)?;
        let reply = declared_reply(function)?;
        let reply = reply.map(|ty| Shape::compile(ty, &Bounds::default())).transpose().map_err(refused)?;
        let status_flag = match (status_flag, &reply) {
            (None, _) => None,
            (Some(name), Some(Shape::Record(record))) => {
                let found = record.fields.iter().position(|field| field.key == shape::snake_case(name));
                match found.filter(|index| matches!(record.fields[*index].shape, Shape::Bool)) {
                    Some(index) => Some(index),
                    None => return Err(refused(format!("its reply has no boolean field {name}"))),
                }
            }
            (Some(name), _) => return Err(refused(format!("its reply has no field {name}"))),
        };
        let has_cursors = reply.as_ref().is_some_and(seal::has_cursor);
        Ok(Self { reply, status_flag, has_cursors })
    }

    pub fn has_cursors(&self) -> bool {
        self.has_cursors
    }

    /// Seals the cursors of a success before it is encoded for a client. `value`: the function's only result.
    pub fn seal_cursors(&self, scope: &CursorScope, value: &mut Val) {
        if let (Some(shape), Val::Result(Ok(Some(reply)))) = (&self.reply, value) {
            scope.seal_all(shape, reply);
        }
    }

    /// Whether a success has a document.
    pub fn has_body(&self) -> bool {
        self.reply.is_some()
    }

    /// `value`: the function's only result. Never writes what is no JSON; a guest's wrong value is an error.
    pub fn encode(&self, value: &Val) -> Result<Encoded, EncodeError> {
        match (value, &self.reply) {
            (Val::Result(Err(Some(error))), _) => Ok(Encoded::Declined(service_error(error)?)),
            (Val::Result(Ok(None)), None) => Ok(Encoded::Ok { body: None, status_flag: None }),
            (Val::Result(Ok(Some(reply))), Some(shape)) => {
                let mut encoder = Encoder { out: Vec::with_capacity(512), bytes_max: limits::REPLY_BYTES_MAX };
                let mut flag = None;
                match (shape, &**reply, self.status_flag) {
                    (Shape::Record(record), Val::Record(fields), Some(index)) => {
                        let Some((_, Val::Bool(value))) = fields.get(index) else { return mismatch(&Path::Root) };
                        flag = Some(*value);
                        encoder.out.push(b'{');
                        encoder.fields(record, fields, &Path::Root, Some(index))?;
                        encoder.out.push(b'}');
                    }
                    _ => encoder.value(shape, reply, &Path::Root)?,
                }
                Ok(Encoded::Ok { body: Some(encoder.out), status_flag: flag })
            }
            _ => mismatch(&Path::Root),
        }
    }
}

impl EventCodec {
    pub fn compile(function: &Function) -> Result<Self, ContractError> {
        callable(function)?;
        declared_reply(function)?;
        match function.params.as_slice() {
            [key, event] if matches!(key.ty.structure(), Type::String) => match event.ty.structure() {
                Type::Record(record) => {
                    let event = RecordShape::compile(record).map_err(|reason| refused(function, reason))?;
                    Ok(Self { event: Arc::new(event) })
                }
                other => Err(refused(function, format!("its event is {}, a record is wanted", other.describe()))),
            },
            _ => Err(refused(function, "an event is func(key: string, event: record)".to_owned())),
        }
    }

    /// Several events in one call: the first one's parameters with the items of all. None where they are no lists of items alone.
    pub fn gather(&self, events: impl IntoIterator<Item = Vec<Val>>) -> Option<Vec<Val>> {
        let mut events = events.into_iter();
        let mut first = events.next()?;
        let gathered = items_of(&mut first)?;
        for mut event in events {
            gathered.append(items_of(&mut event)?);
        }
        Some(first)
    }

    /// Whether the record is a list named `items` and nothing else: of two such events one can be made.
    pub fn gathers(&self) -> bool {
        matches!(self.event.fields.as_slice(), [FieldShape { key, shape, .. }] if key == "items" && matches!(shape.plain(), Shape::List(_)))
    }

    /// What a publisher's call says: the key, and the event as a document of at most `EVENT_BYTES_MAX`.
    pub fn encode(&self, params: &[Val]) -> Result<(String, String), EncodeError> {
        let [Val::String(key), Val::Record(fields)] = params else { return mismatch(&Path::Root) };
        let mut encoder = Encoder { out: Vec::with_capacity(256), bytes_max: limits::EVENT_BYTES_MAX };
        encoder.out.push(b'{');
        encoder.fields(&self.event, fields, &Path::Root, None)?;
        encoder.out.push(b'}');
        let document = String::from_utf8(encoder.out).expect("the encoder writes nothing but text");
        Ok((key.clone(), document))
    }

    /// A subscriber's parameters. Fields of a newer publisher are ignored, missing options are none.
    pub fn decode(&self, key: &str, json: &str) -> Result<Vec<Val>, DecodeError> {
        let mut problems = Problems::default();
        let mut slots = Slots::new(&self.event);
        read_object(&self.event, json.as_bytes(), Unknown::Ignore, &mut slots, &mut problems)?;
        let event = slots.finish(&self.event, &Path::Root, &mut problems);
        if problems.0.is_empty() { Ok(vec![Val::String(key.to_owned()), event]) } else { Err(DecodeError::Invalid(problems.0)) }
    }
}

/// The list of an event that is a list of items alone.
fn items_of(params: &mut [Val]) -> Option<&mut Vec<Val>> {
    match params {
        [_, Val::Record(fields)] => match fields.as_mut_slice() {
            [(_, Val::List(items))] => Some(items),
            _ => None,
        },
        _ => None,
    }
}

impl From<Broken> for DecodeError {
    fn from(broken: Broken) -> Self {
        DecodeError::Unreadable(broken.to_string())
    }
}

/// Reads a whole document into a record; no bytes at all are an empty object.
fn read_object(record: &RecordShape, document: &[u8], unknown: Unknown, slots: &mut Slots, problems: &mut Problems) -> Result<(), Broken> {
    let mut reader = Reader::new(document)?;
    if reader.is_at_end() {
        return Ok(());
    }
    let given = slots.mask();
    let mut decoder = Decoder { reader, problems, unknown };
    match decoder.reader.peek()? {
        Kind::Object => decoder.object(record, &Path::Root, slots, false, &given)?,
        found => {
            decoder.problems.add(&Path::Root, "wrong_type", format!("an object is wanted, this is {found}"));
            decoder.reader.skip()?;
        }
    }
    decoder.reader.finish()
}

fn refused(function: &Function, reason: String) -> ContractError {
    ContractError::Function { function: function.name.clone(), reason }
}

fn callable(function: &Function) -> Result<(), ContractError> {
    if function.is_async { Err(refused(function, "it is async; the host calls synchronous functions".to_owned())) } else { Ok(()) }
}

/// The reply's type, of a function that returns `result<reply, error>`.
fn declared_reply(function: &Function) -> Result<Option<&Type>, ContractError> {
    let wanted = || refused(function, "it must return result<reply, error> with the error of echo:types/types".to_owned());
    let Some(Type::Result(result)) = function.result.as_ref().map(Type::structure) else { return Err(wanted()) };
    let Some(Type::Record(error)) = result.err.as_ref().map(Type::structure) else { return Err(wanted()) };
    let fields: Vec<_> = error.fields.iter().map(|field| field.name.as_str()).collect();
    if fields != ["kind", "code", "message", "fields", "retry-after-ms"] {
        return Err(wanted());
    }
    Ok(result.ok.as_ref())
}

/// Reads `echo:types/types.error`.
fn service_error(value: &Val) -> Result<ServiceError, EncodeError> {
    let Val::Record(fields) = value else { return mismatch(&Path::Root) };
    let [(_, Val::Enum(kind)), (_, Val::String(code)), (_, Val::String(message)), (_, Val::List(wrong)), (_, Val::Option(retry))] =
        fields.as_slice()
    else {
        return mismatch(&Path::Root);
    };
    let kind = match kind.as_str() {
        "invalid" => ErrorKind::Invalid,
        "unauthenticated" => ErrorKind::Unauthenticated,
        "forbidden" => ErrorKind::Forbidden,
        "not-found" => ErrorKind::NotFound,
        "conflict" => ErrorKind::Conflict,
        "locked" => ErrorKind::Locked,
        "too-large" => ErrorKind::TooLarge,
        "rate-limited" => ErrorKind::RateLimited,
        "unavailable" => ErrorKind::Unavailable,
        "internal" => ErrorKind::Internal,
        _ => return mismatch(&Path::Field(&Path::Root, "kind")),
    };
    let mut size = code.len() + message.len();
    let mut errors = Vec::new();
    for error in wrong.iter().take(limits::FIELD_ERRORS_MAX) {
        let Val::Record(parts) = error else { return mismatch(&Path::Root) };
        let [(_, Val::String(field)), (_, Val::String(code)), (_, Val::String(detail))] = parts.as_slice() else {
            return mismatch(&Path::Root);
        };
        size += field.len() + code.len() + detail.len();
        errors.push(FieldError { field: field.clone(), code: code.clone(), detail: detail.clone() });
    }
    if size > limits::REPLY_BYTES_MAX {
        return Err(EncodeError::TooLarge(limits::REPLY_BYTES_MAX));
    }
    let retry_after = match retry.as_deref() {
        None => None,
        Some(Val::U64(milliseconds)) => Some(Duration::from_millis(*milliseconds)),
        Some(_) => return mismatch(&Path::Field(&Path::Root, "retry_after_ms")),
    };
    Ok(ServiceError { kind, code: code.clone(), message: message.clone(), fields: errors, retry_after })
}

#[cfg(test)]
mod tests;
