//! The pushes of a service to devices: functions of a `pushes` interface, `func(users: list<uuid>, push: record) -> result<_, error>`. Without `users` they
//! replace what was pushed before.

use std::sync::Arc;

use wasmtime::component::Val;

use super::read::Path;
use super::shape::{RecordShape, Shape, Text, snake_case};
use super::write::{EncodeError, Encoder, mismatch};
use super::{callable, declared_reply, refused};
use crate::wit::{ContractError, Function, Type};
use echo_base::limits;

pub struct PushCodec {
    record: Arc<RecordShape>,
    has_users: bool,
}

/// A push as its function was called.
#[derive(Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Empty where the function takes none.
    pub users: Vec<String>,
    pub payload: String,
}

impl PushCodec {
    pub fn compile(function: &Function) -> Result<Self, ContractError> {
        let wanted =
            || refused(function, "a push is func(users: list<uuid>, push: record) -> result<_, error>, or without the users".to_owned());
        callable(function)?;
        if declared_reply(function)?.is_some() {
            return Err(wanted());
        }
        let (has_users, push) = match function.params.as_slice() {
            [users, push] if is_list_of_strings(&users.ty) => (true, push),
            [push] => (false, push),
            _ => return Err(wanted()),
        };
        let Type::Record(record) = push.ty.structure() else { return Err(wanted()) };
        let record = RecordShape::compile(record).map_err(|reason| refused(function, reason))?;
        Ok(Self { record: Arc::new(record), has_users })
    }

    pub fn has_users(&self) -> bool {
        self.has_users
    }

    /// The field by which a manifest names a key, in either spelling. Errors: there is none, or it is no text.
    pub fn key_field(&self, name: &str) -> Result<usize, String> {
        let index = self.record.find(&snake_case(name), 0).ok_or_else(|| format!("the push has no field {name}"))?;
        let shape = &self.record.fields[index].shape;
        let shape = if let Shape::Option(inner) = shape { inner } else { shape };
        match shape.plain() {
            Shape::Text(Text::Plain | Text::Uuid) | Shape::Enum(_) => Ok(index),
            _ => Err(format!("field {name} of the push is no text and can be no key")),
        }
    }

    /// Errors: what is no JSON, out of its bounds, or longer than `PUSH_PAYLOAD_BYTES_MAX`.
    pub fn encode(&self, params: &[Val]) -> Result<Encoded, EncodeError> {
        let (users, fields) = match params {
            [Val::List(users), Val::Record(fields)] if self.has_users => (users.as_slice(), fields),
            [Val::Record(fields)] if !self.has_users => (&[][..], fields),
            _ => return mismatch(&Path::Root),
        };
        let users = users.iter().map(|user| match user {
            Val::String(user) => Ok(user.clone()),
            _ => mismatch(&Path::Root),
        });
        let users = users.collect::<Result<_, _>>()?;
        let mut encoder = Encoder { out: Vec::with_capacity(512), bytes_max: limits::PUSH_PAYLOAD_BYTES_MAX };
        encoder.out.push(b'{');
        encoder.fields(&self.record, fields, &Path::Root, None)?;
        encoder.out.push(b'}');
        let payload = String::from_utf8(encoder.out).expect("the encoder writes nothing but text");
        Ok(Encoded { users, payload })
    }

    /// The text of a `key_field`; none where it is an option without a value.
    pub fn key(&self, params: &[Val], index: usize) -> Option<String> {
        let Some(Val::Record(fields)) = params.last() else { return None };
        let value = match &fields.get(index)?.1 {
            Val::Option(value) => value.as_deref()?,
            value => value,
        };
        match value {
            Val::String(text) | Val::Enum(text) => Some(text.clone()),
            _ => None,
        }
    }
}

fn is_list_of_strings(ty: &Type) -> bool {
    matches!(ty.structure(), Type::List(item) if matches!(item.structure(), Type::String))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    const PUSHES: &str = "
        enum colour { red, dark-blue }
        record thing { id: uuid, colour: colour, at: timestamp, note: option<string>,
          /// @length ..=3
          name: string }
        told: func(users: list<uuid>, push: thing) -> result<_, error>;
        replaced: func(push: thing) -> result<_, error>;
        odd: func(user: string, push: thing) -> result<_, error>;
        bare: func(users: list<uuid>, push: string) -> result<_, error>;
        answers: func(users: list<uuid>, push: thing) -> result<thing, error>;";
    const ID: &str = "0190b0a0-7b1c-7def-8abc-0123456789ab";

    fn thing(name: &str, note: Option<&str>) -> Val {
        let text = |text: &str| Val::String(text.to_owned());
        let fields = [
            ("id", text(ID)),
            ("colour", Val::Enum("dark-blue".to_owned())),
            ("at", Val::U64(0)),
            ("note", Val::Option(note.map(|note| Box::new(text(note))))),
            ("name", text(name)),
        ];
        Val::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    #[test]
    fn a_push_is_written_as_replies_are() {
        let contract = fixture::thing(PUSHES);
        let codec = PushCodec::compile(fixture::function(&contract, "api", "told")).expect("compiles");
        let users = Val::List(vec![Val::String(ID.to_owned())]);
        let params = [users.clone(), thing("abc", None)];
        let expect = format!(r#"{{"id":"{ID}","colour":"dark_blue","at":"1970-01-01T00:00:00.000000Z","note":null,"name":"abc"}}"#);
        assert_eq!(codec.encode(&params).expect("encodes"), Encoded { users: vec![ID.to_owned()], payload: expect.clone() });
        let key = |name: &str, params: &[Val]| codec.key(params, codec.key_field(name).expect("a key"));
        assert_eq!(
            (key("id", &params).as_deref(), key("colour", &params).as_deref(), key("note", &params)),
            (Some(ID), Some("dark-blue"), None)
        );
        assert_eq!(key("note", &[users.clone(), thing("a", Some("b"))]).as_deref(), Some("b"));
        assert!(codec.key_field("at").is_err() && codec.key_field("nothing").is_err());
        assert!(codec.encode(&[users, thing("abcd", None)]).is_err(), "out of its bounds");

        let codec = PushCodec::compile(fixture::function(&contract, "api", "replaced")).expect("compiles");
        assert_eq!(codec.encode(&[thing("abc", None)]).expect("encodes"), Encoded { users: Vec::new(), payload: expect });
        for odd in ["odd", "bare", "answers"] {
            assert!(PushCodec::compile(fixture::function(&contract, "api", odd)).is_err(), "{odd}");
        }
    }
}
