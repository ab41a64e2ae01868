//! Encodes component values as JSON along the shape. A guest's values are validated as a client's are: an invalid uuid, timestamp or JSON never leaves the
//! host.

use std::borrow::Cow;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use wasmtime::component::Val;

use super::json::Reader;
use super::read::{Path, Problems};
use super::shape::{Payload, RecordShape, Shape, TAG, Text, VariantShape};
use super::text;
use crate::FieldError;
use echo_base::json_text::write_string;
use echo_base::limits;

/// Why a value cannot be said in JSON; the service is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    #[error("{field}: {reason}")]
    Invalid { field: String, reason: String },
}

/// The document being written, at most `bytes_max` of it.
pub struct Encoder {
    pub out: Vec<u8>,
    pub bytes_max: usize,
}

impl Encoder {
    pub fn value(&mut self, shape: &Shape, value: &Val, path: &Path<'_>) -> Result<(), EncodeError> {
        match (shape, value) {
            (Shape::Bool, Val::Bool(value)) => self.out.extend_from_slice(if *value { b"true" } else { b"false" }),
            (Shape::U8, Val::U8(value)) => self.display(value),
            (Shape::U16, Val::U16(value)) => self.display(value),
            (Shape::U32, Val::U32(value)) => self.display(value),
            (Shape::U64, Val::U64(value)) => self.display(value),
            (Shape::S8, Val::S8(value)) => self.display(value),
            (Shape::S16, Val::S16(value)) => self.display(value),
            (Shape::S32, Val::S32(value)) => self.display(value),
            (Shape::S64, Val::S64(value)) => self.display(value),
            // Rust's debug form of a finite float is a JSON number, and the shortest one that reads back as the same.
            (Shape::F32, Val::Float32(value)) if value.is_finite() => self.display(&format_args!("{value:?}")),
            (Shape::F64, Val::Float64(value)) if value.is_finite() => self.display(&format_args!("{value:?}")),
            (Shape::F32, Val::Float32(_)) | (Shape::F64, Val::Float64(_)) => return invalid(path, "no finite number"),
            (Shape::Char, Val::Char(value)) => write_string(&mut self.out, value.encode_utf8(&mut [0; 4])),
            (Shape::Text(kind), Val::String(value)) => return self.text(*kind, value, path),
            (Shape::Timestamp, Val::U64(value)) => {
                if !text::write_timestamp(&mut self.out, *value) {
                    return invalid(path, "a time after the year 9999");
                }
            }
            (Shape::Bytes, Val::List(items)) => return self.bytes(items, path),
            (Shape::List(item), Val::List(items)) => {
                if items.len() > limits::LIST_ITEMS_MAX {
                    return invalid(path, &format!("a list of more than {} items", limits::LIST_ITEMS_MAX));
                }
                return self.sequence(items.iter().map(|value| (&**item, value)), path);
            }
            (Shape::Bounded(bounded), value) => {
                let mut problems = Problems::default();
                bounded.check(value, path, &mut problems);
                if let Some(FieldError { field, detail, .. }) = problems.0.pop() {
                    return Err(EncodeError::Invalid { field, reason: detail });
                }
                return self.value(&bounded.shape, value, path);
            }
            (Shape::Option(_), Val::Option(None)) => self.out.extend_from_slice(b"null"),
            (Shape::Option(inner), Val::Option(Some(value))) => return self.value(inner, value, path),
            (Shape::Tuple(shapes), Val::Tuple(items)) if shapes.len() == items.len() => {
                return self.sequence(shapes.iter().zip(items), path);
            }
            (Shape::Record(record), Val::Record(fields)) => {
                self.out.push(b'{');
                self.fields(record, fields, path, None)?;
                self.out.push(b'}');
            }
            (Shape::Variant(variant), Val::Variant(name, payload)) => return self.variant(variant, name, payload.as_deref(), path),
            (Shape::Enum(names), Val::Enum(name)) => {
                let Some(name) = names.outside(name) else { return invalid(path, "an unknown value") };
                write_string(&mut self.out, name);
            }
            (Shape::Flags(names), Val::Flags(flags)) => {
                self.out.push(b'[');
                for (index, flag) in flags.iter().enumerate() {
                    let Some(name) = names.outside(flag) else { return invalid(path, "an unknown flag") };
                    if index > 0 {
                        self.out.push(b',');
                    }
                    write_string(&mut self.out, name);
                }
                self.out.push(b']');
            }
            _ => return mismatch(path),
        }
        self.within_bounds()
    }

    /// `[…]`.
    fn sequence<'v>(&mut self, items: impl Iterator<Item = (&'v Shape, &'v Val)>, path: &Path<'_>) -> Result<(), EncodeError> {
        self.out.push(b'[');
        for (index, (shape, value)) in items.enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            self.value(shape, value, &Path::Item(path, index))?;
        }
        self.out.push(b']');
        self.within_bounds()
    }

    /// `{"type": "…", …}`.
    fn variant(&mut self, variant: &VariantShape, name: &str, payload: Option<&Val>, path: &Path<'_>) -> Result<(), EncodeError> {
        let Some(case) = variant.cases.iter().find(|case| case.name == *name) else { return invalid(path, "an unknown case") };
        write!(self.out, "{{\"{TAG}\":\"{}\"", case.key).expect("a Vec takes all bytes");
        match (case.payload, payload) {
            (Payload::None, None) => {}
            (Payload::Record, Some(Val::Record(fields))) => {
                if !fields.is_empty() {
                    self.out.push(b',');
                }
                self.fields(&case.fields, fields, path, None)?;
            }
            (Payload::Value, Some(value)) => {
                let field = &case.fields.fields[0];
                self.out.push(b',');
                self.out.extend_from_slice(&field.prefix);
                self.value(&field.shape, value, &Path::Field(path, &field.key))?;
            }
            _ => return mismatch(path),
        }
        self.out.push(b'}');
        self.within_bounds()
    }

    /// The fields without the braces; the one at `omitted` is left out.
    pub fn fields(
        &mut self,
        record: &RecordShape,
        fields: &[(String, Val)],
        path: &Path<'_>,
        omitted: Option<usize>,
    ) -> Result<(), EncodeError> {
        if fields.len() != record.fields.len() {
            return mismatch(path);
        }
        let mut separate = false;
        for (index, (field, (name, value))) in record.fields.iter().zip(fields).enumerate() {
            if field.name != *name {
                return mismatch(path);
            }
            if omitted == Some(index) {
                continue;
            }
            if std::mem::replace(&mut separate, true) {
                self.out.push(b',');
            }
            self.out.extend_from_slice(&field.prefix);
            match (&field.default, value) {
                (Some(default), Val::Option(None)) => self.out.extend_from_slice(&default.json),
                _ => self.value(&field.shape, value, &Path::Field(path, &field.key))?,
            }
        }
        Ok(())
    }

    fn text(&mut self, kind: Text, value: &str, path: &Path<'_>) -> Result<(), EncodeError> {
        if self.out.len() + value.len() > self.bytes_max {
            return Err(EncodeError::TooLarge(self.bytes_max));
        }
        match kind {
            Text::Plain => write_string(&mut self.out, value),
            Text::Uuid => match text::uuid(Cow::Borrowed(value)) {
                Some(uuid) => write_string(&mut self.out, &uuid),
                None => return invalid(path, "no uuid"),
            },
            Text::Phone if text::is_phone(value) => write_string(&mut self.out, value),
            Text::Phone => return invalid(path, "no telephone number"),
            Text::Cursor if text::is_cursor(value) => write_string(&mut self.out, value),
            Text::Cursor => return invalid(path, "no cursor"),
            Text::Json => {
                let mut reader = Reader::of_text(value);
                match reader.skip().and_then(|document| reader.finish().map(|()| document)) {
                    Ok(document) => self.out.extend_from_slice(document.as_bytes()),
                    Err(broken) => return invalid(path, &format!("no JSON: {broken}")),
                }
            }
        }
        self.within_bounds()
    }

    fn bytes(&mut self, items: &[Val], path: &Path<'_>) -> Result<(), EncodeError> {
        if self.out.len() + items.len() > self.bytes_max {
            return Err(EncodeError::TooLarge(self.bytes_max));
        }
        let mut bytes = Vec::with_capacity(items.len());
        for item in items {
            let Val::U8(byte) = item else { return mismatch(path) };
            bytes.push(*byte);
        }
        write_string(&mut self.out, &STANDARD.encode(&bytes));
        self.within_bounds()
    }

    fn display(&mut self, value: &impl std::fmt::Display) {
        write!(self.out, "{value}").expect("a Vec takes all bytes");
    }

    fn within_bounds(&self) -> Result<(), EncodeError> {
        if self.out.len() > self.bytes_max { Err(EncodeError::TooLarge(self.bytes_max)) } else { Ok(()) }
    }
}

pub fn invalid<T>(path: &Path<'_>, reason: &str) -> Result<T, EncodeError> {
    let field = match path {
        Path::Root => "the reply".to_owned(),
        path => path.to_string(),
    };
    Err(EncodeError::Invalid { field, reason: reason.to_owned() })
}

pub fn mismatch<T>(path: &Path<'_>) -> Result<T, EncodeError> {
    invalid(path, "a value of another type than the contract says")
}
