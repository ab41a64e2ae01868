//! A type compiled for the codec: JSON and WIT names, the meaning of each string (uuid, phone …), aliases resolved. Compiled once per function.

use std::sync::Arc;

use wasmtime::component::Val;

use super::check::{self, BoundedShape};
use crate::bounds::Bounds;
use crate::wit::{Enumeration, Field, Meaning, Record, Type};
use echo_base::limits;

pub enum Shape {
    Bool,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F32,
    F64,
    Char,
    Text(Text),
    Timestamp,
    /// `list<u8>`: base64.
    Bytes,
    List(Box<Shape>),
    Option(Box<Shape>),
    Tuple(Vec<Shape>),
    Record(Arc<RecordShape>),
    Variant(VariantShape),
    Enum(Names),
    Flags(Names),
    /// A text, bytes, a number or a list, and what it keeps besides; never an option.
    Bounded(Box<BoundedShape>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    Plain,
    Uuid,
    Phone,
    Cursor,
    /// One JSON value; it stands in the document as itself.
    Json,
}

pub struct RecordShape {
    pub fields: Vec<FieldShape>,
}

pub struct FieldShape {
    /// kebab-case, as the component has it.
    pub name: String,
    /// As JSON has it: snake_case, or the operator's name.
    pub key: String,
    /// `"key":`
    pub prefix: Vec<u8>,
    pub shape: Shape,
    /// Stands for it where it is missing.
    pub default: Option<DefaultValue>,
}

/// One value, inside and outside.
pub struct DefaultValue {
    pub value: Val,
    pub json: Vec<u8>,
}

/// `{"type": "...", ...}`: a record's fields stand beside the type, any other value under `value`.
pub struct VariantShape {
    pub cases: Vec<CaseShape>,
}

pub struct CaseShape {
    pub name: String,
    pub key: String,
    /// What may stand beside the type.
    pub fields: Arc<RecordShape>,
    pub payload: Payload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    None,
    Record,
    /// The only field is `value`.
    Value,
}

pub struct Names {
    names: Vec<Name>,
}

struct Name {
    inside: String,
    outside: String,
}

impl Shape {
    /// Refuses, with a reason, what JSON cannot say. `bounds`: those that stand where the type is used.
    pub fn compile(ty: &Type, bounds: &Bounds) -> Result<Self, String> {
        let fixed = match ty.meaning() {
            Some(Meaning::Uuid) => Some(Shape::Text(Text::Uuid)),
            Some(Meaning::Phone) => Some(Shape::Text(Text::Phone)),
            Some(Meaning::Cursor) => Some(Shape::Text(Text::Cursor)),
            Some(Meaning::Json) => Some(Shape::Text(Text::Json)),
            Some(Meaning::Timestamp) => Some(Shape::Timestamp),
            None => None,
        };
        let (structure, bounds) = ty.bounded(bounds);
        if let Some(shape) = fixed {
            return shape.keeping(bounds);
        }
        let shape = match structure {
            Type::Bool => Shape::Bool,
            Type::U8 => Shape::U8,
            Type::U16 => Shape::U16,
            Type::U32 => Shape::U32,
            Type::U64 => Shape::U64,
            Type::S8 => Shape::S8,
            Type::S16 => Shape::S16,
            Type::S32 => Shape::S32,
            Type::S64 => Shape::S64,
            Type::F32 => Shape::F32,
            Type::F64 => Shape::F64,
            Type::Char => Shape::Char,
            Type::String => Shape::Text(Text::Plain),
            Type::List(item) if matches!(item.structure(), Type::U8) => Shape::Bytes,
            Type::List(item) => {
                let list = Shape::List(Box::new(Shape::compile(item, &bounds.of_items())?));
                return Ok(list.keeping_alone(bounds));
            }
            Type::Option(inner) if matches!(inner.structure(), Type::Option(_)) => return Err("an option within an option".to_owned()),
            Type::Option(inner) => return Ok(Shape::Option(Box::new(Shape::compile(inner, &bounds)?))),
            Type::Tuple(items) => {
                let items = items.iter().map(|item| Shape::compile(item, &Bounds::default()));
                return Ok(Shape::Tuple(items.collect::<Result<_, _>>()?));
            }
            Type::Record(record) => return Ok(Shape::Record(Arc::new(RecordShape::compile(record)?))),
            Type::Variant(variant) => {
                bounded(&variant.name, variant.cases.len())?;
                let cases = variant.cases.iter().map(|case| {
                    let (fields, payload) = match &case.ty {
                        None => (RecordShape { fields: Vec::new() }, Payload::None),
                        Some(ty) => match ty.structure() {
                            Type::Record(record) => {
                                if record.fields.iter().any(|field| field.name == TAG) {
                                    return Err(format!("case {} of variant {} has a field named type", case.name, variant.name));
                                }
                                (RecordShape::compile(record)?, Payload::Record)
                            }
                            _ => {
                                let shape = Shape::compile(ty, &case.bounds)?;
                                let value = FieldShape::new("value", "value".to_owned(), shape, None);
                                (RecordShape { fields: vec![value] }, Payload::Value)
                            }
                        },
                    };
                    Ok(CaseShape { name: case.name.clone(), key: snake_case(&case.name), fields: Arc::new(fields), payload })
                });
                return Ok(Shape::Variant(VariantShape { cases: cases.collect::<Result<_, String>>()? }));
            }
            Type::Enum(cases) => Shape::Enum(Names::new(cases)?),
            Type::Flags(cases) => Shape::Flags(Names::new(cases)?),
            Type::Result(_) => return Err("a result within a value".to_owned()),
            Type::Opaque(what) => return Err(format!("{what} is no plain value")),
            Type::Alias(_) => return Err("an alias of itself".to_owned()),
        };
        shape.keeping(bounds)
    }

    /// Errors: an example that does not.
    fn keeping(self, bounds: Bounds) -> Result<Self, String> {
        let examples = bounds.examples.clone();
        let shape = self.keeping_alone(Bounds { items: None, ..bounds });
        examples.iter().try_for_each(|example| check::example(&shape, example))?;
        Ok(shape)
    }

    fn keeping_alone(self, bounds: Bounds) -> Self {
        let bounds = if matches!(self, Shape::List(_)) { bounds.of_list() } else { bounds };
        if bounds.holds_values() { Shape::Bounded(Box::new(BoundedShape { shape: self, bounds })) } else { self }
    }

    /// Without what it keeps besides.
    pub fn plain(&self) -> &Shape {
        match self {
            Shape::Bounded(bounded) => &bounded.shape,
            other => other,
        }
    }

    /// The record that it is, or that its items are.
    pub fn record(&self) -> Option<&RecordShape> {
        match self.plain() {
            Shape::Record(record) => Some(record),
            Shape::Option(inner) | Shape::List(inner) => inner.record(),
            _ => None,
        }
    }

    pub fn is_option(&self) -> bool {
        matches!(self, Shape::Option(_))
    }

    /// Whether one piece of text can say it: a path variable, an item of a query.
    pub fn is_scalar(&self) -> bool {
        match self {
            Shape::List(_) | Shape::Tuple(_) | Shape::Record(_) | Shape::Variant(_) | Shape::Flags(_) => false,
            Shape::Option(inner) => inner.is_scalar(),
            Shape::Bounded(bounded) => bounded.shape.is_scalar(),
            _ => true,
        }
    }

    /// Whether a query parameter can say it: a scalar, or several divided by commas.
    pub fn fits_query(&self) -> bool {
        match self {
            Shape::Option(inner) => inner.fits_query(),
            Shape::Bounded(bounded) => bounded.shape.fits_query(),
            Shape::List(item) => item.is_scalar() && !item.is_option(),
            Shape::Flags(_) => true,
            other => other.is_scalar(),
        }
    }
}

impl RecordShape {
    pub fn compile(record: &Record) -> Result<Self, String> {
        bounded(&record.name, record.fields.len())?;
        let fields = record
            .fields
            .iter()
            .map(|field| FieldShape::compile(field).map_err(|reason| format!("field {} of record {}: {reason}", field.name, record.name)));
        Ok(Self { fields: fields.collect::<Result<_, _>>()? })
    }

    /// The field of that JSON name. `hint`: where it is likely to be, since most documents keep the order of the contract.
    pub fn find(&self, key: &str, hint: usize) -> Option<usize> {
        match self.fields.get(hint) {
            Some(field) if field.key == key => Some(hint),
            _ => self.fields.iter().position(|field| field.key == key),
        }
    }
}

impl FieldShape {
    fn compile(field: &Field) -> Result<Self, String> {
        let shape = Shape::compile(&field.ty, &field.bounds)?;
        let default = field.default.as_ref().map(|json| check::default(&shape, json)).transpose()?;
        Ok(Self::new(&field.name, key_of(field), shape, default))
    }

    fn new(name: &str, key: String, shape: Shape, default: Option<DefaultValue>) -> Self {
        Self { name: name.to_owned(), prefix: format!("\"{key}\":").into_bytes(), key, shape, default }
    }
}

impl Names {
    fn new(cases: &Enumeration) -> Result<Self, String> {
        bounded(&cases.name, cases.cases.len())?;
        let names = cases.cases.iter().map(|case| Name { inside: case.name.clone(), outside: snake_case(&case.name) });
        Ok(Self { names: names.collect() })
    }

    /// From JSON's name to the component's.
    pub fn inside(&self, outside: &str) -> Option<&str> {
        self.names.iter().find(|name| name.outside == outside).map(|name| name.inside.as_str())
    }

    /// From the component's name to JSON's.
    pub fn outside(&self, inside: &str) -> Option<&str> {
        self.names.iter().find(|name| name.inside == inside).map(|name| name.outside.as_str())
    }

    /// For people: `one of a, b, c`.
    pub fn describe(&self) -> String {
        one_of(self.names.iter().map(|name| name.outside.as_str()))
    }
}

/// The field of a variant that says which case it is.
pub const TAG: &str = "type";

pub fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 16;
    let mut names: Vec<_> = names.take(SHOWN + 1).collect();
    if names.len() > SHOWN {
        names[SHOWN] = "…";
    }
    format!("one of {}", names.join(", "))
}

/// The name of a field in JSON.
pub fn key_of(field: &Field) -> String {
    field.alias.clone().unwrap_or_else(|| snake_case(&field.name))
}

/// The contract's names are kebab-case, JSON's are snake_case.
pub fn snake_case(name: &str) -> String {
    name.replace('-', "_")
}

fn bounded(name: &str, count: usize) -> Result<(), String> {
    if count > limits::TYPE_FIELDS_MAX { Err(format!("{name} has more than {} fields or cases", limits::TYPE_FIELDS_MAX)) } else { Ok(()) }
}
