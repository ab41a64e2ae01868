//! Decodes JSON, path variables and queries into component values along the shape, without a tree in between. A wrong field is noted with its path and
//! decoding goes on, so that one answer names all wrong fields; malformed JSON ends it at once.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use wasmtime::component::Val;

use super::i_json::{self, Flaw};
use super::json::{Broken, Kind, Reader};
use super::shape::{CaseShape, Names, Payload, RecordShape, Shape, TAG, Text, VariantShape, one_of};
use super::text;
use crate::{CURSOR_INVALID, FieldError, UNREADABLE_TEXT};
use echo_base::limits;

/// Where a value stands; the text of it is made only when something is wrong there.
pub enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p str),
    Item(&'p Path<'p>, usize),
}

/// The wrong fields found so far, `FIELD_ERRORS_MAX` of them at the most.
#[derive(Default)]
pub struct Problems(pub Vec<FieldError>);

/// What to do with fields that the contract does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// A client's document: its mistakes are reported by field.
    Refuse,
    /// An event may come from a newer publisher.
    Ignore,
}

/// A record being filled, in the order of its fields.
pub struct Slots {
    fields: Vec<(String, Val)>,
    filled: [u64; limits::TYPE_FIELDS_MAX.div_ceil(64)],
}

/// Stands where a value was wrong; never leaves the codec, because then there are problems.
const WRONG: Val = Val::Bool(false);

pub struct Decoder<'a> {
    pub reader: Reader<'a>,
    pub problems: &'a mut Problems,
    pub unknown: Unknown,
}

impl Decoder<'_> {
    /// Reads one object into the slots. `tagged`: it has a variant's `type` beside the fields. `given`: fields that the path gave already.
    pub fn object(&mut self, record: &RecordShape, path: &Path<'_>, slots: &mut Slots, tagged: bool, given: &Slots) -> Result<(), Broken> {
        self.reader.open_object()?;
        let (mut first, mut tag_seen, mut hint) = (true, false, 0);
        while let Some(key) = self.reader.next_key(&mut first)? {
            if tagged && key == TAG {
                if std::mem::replace(&mut tag_seen, true) {
                    self.problems.add(&Path::Field(path, TAG), "duplicate_field", "it is given twice");
                }
                self.reader.skip()?;
                continue;
            }
            let Some(index) = record.find(&key, hint) else {
                if self.unknown == Unknown::Refuse {
                    self.problems.unknown_field(path, &key, record);
                }
                self.reader.skip()?;
                continue;
            };
            hint = index + 1;
            let field = &record.fields[index];
            let field_path = Path::Field(path, &field.key);
            if given.has(index) {
                self.problems.add(&field_path, "unknown_field", "the path gives it already");
                self.reader.skip()?;
            } else if slots.has(index) {
                self.problems.add(&field_path, "duplicate_field", "it is given twice");
                self.reader.skip()?;
            } else {
                let value = self.value(&field.shape, &field_path)?;
                slots.fill(index, value);
            }
        }
        Ok(())
    }

    /// Reads one value. Notes what is wrong; fails only on broken JSON.
    pub fn value(&mut self, shape: &Shape, path: &Path<'_>) -> Result<Val, Broken> {
        let kind = self.reader.peek()?;
        match shape {
            Shape::Option(_) if kind == Kind::Null => {
                self.reader.null()?;
                Ok(Val::Option(None))
            }
            Shape::Option(inner) => Ok(Val::Option(Some(Box::new(self.value(inner, path)?)))),
            Shape::Bounded(bounded) => {
                let before = self.problems.0.len();
                let value = self.value(&bounded.shape, path)?;
                if self.unknown == Unknown::Refuse {
                    bounded.check_unless_refused(before, &value, path, self.problems);
                }
                Ok(value)
            }
            Shape::Text(Text::Json) if self.unknown == Unknown::Ignore => Ok(Val::String(self.reader.skip()?.to_owned())),
            Shape::Text(Text::Json) => {
                let (document, flaw) = i_json::value(&mut self.reader)?;
                Ok(self.problems.json(document, flaw, path))
            }
            Shape::Bool if kind == Kind::Boolean => Ok(Val::Bool(self.reader.boolean()?)),
            Shape::Text(_) | Shape::Timestamp | Shape::Char | Shape::Bytes | Shape::Enum(_) if kind == Kind::Text => {
                let content = self.reader.string()?;
                if self.unknown == Unknown::Refuse {
                    self.problems.check_characters(shape, &content, path);
                }
                Ok(string(shape, content, path, self.problems))
            }
            Shape::U8
            | Shape::U16
            | Shape::U32
            | Shape::U64
            | Shape::S8
            | Shape::S16
            | Shape::S32
            | Shape::S64
            | Shape::F32
            | Shape::F64
                if kind == Kind::Number =>
            {
                let written = self.reader.number()?;
                Ok(number(shape, written, path, self.problems))
            }
            Shape::Record(record) if kind == Kind::Object => {
                let mut slots = Slots::new(record);
                self.object(record, path, &mut slots, false, &Slots::NONE)?;
                Ok(slots.finish(record, path, self.problems))
            }
            Shape::List(item) if kind == Kind::Array => self.list(item, path),
            Shape::Tuple(items) if kind == Kind::Array => self.tuple(items, path),
            Shape::Flags(names) if kind == Kind::Array => self.flags(names, path),
            Shape::Variant(variant) if kind == Kind::Object => self.variant(variant, path),
            _ => {
                self.problems.wrong_type(path, shape, kind);
                self.reader.skip()?;
                Ok(WRONG)
            }
        }
    }

    fn list(&mut self, shape: &Shape, path: &Path<'_>) -> Result<Val, Broken> {
        self.reader.open_array()?;
        let (mut items, mut first, mut too_many) = (Vec::new(), true, false);
        while self.reader.next_item(&mut first)? {
            if items.len() == limits::LIST_ITEMS_MAX {
                too_many = true;
                self.reader.skip()?;
                continue;
            }
            let item = self.value(shape, &Path::Item(path, items.len()))?;
            items.push(item);
        }
        if too_many {
            self.problems.too_many(path);
        }
        Ok(Val::List(items))
    }

    fn tuple(&mut self, shapes: &[Shape], path: &Path<'_>) -> Result<Val, Broken> {
        self.reader.open_array()?;
        let (mut items, mut first, mut count) = (Vec::with_capacity(shapes.len()), true, 0);
        while self.reader.next_item(&mut first)? {
            match shapes.get(count) {
                Some(shape) => items.push(self.value(shape, &Path::Item(path, count))?),
                None => drop(self.reader.skip()?),
            }
            count += 1;
        }
        if count != shapes.len() {
            self.problems.add(path, "wrong_length", format!("{} items are wanted, these are {count}", shapes.len()));
        }
        Ok(Val::Tuple(items))
    }

    fn flags(&mut self, names: &Names, path: &Path<'_>) -> Result<Val, Broken> {
        self.reader.open_array()?;
        let (mut flags, mut first, mut index) = (Vec::new(), true, 0);
        while self.reader.next_item(&mut first)? {
            let item_path = Path::Item(path, index);
            index += 1;
            let kind = self.reader.peek()?;
            if kind == Kind::Text {
                let flag = self.reader.string()?;
                raise(names, &flag, &mut flags, &item_path, self.problems);
            } else {
                self.problems.add(&item_path, "wrong_type", format!("a string is wanted, this is {kind}"));
                self.reader.skip()?;
            }
        }
        Ok(Val::Flags(flags))
    }

    /// The type may stand anywhere in the object, so the object is first searched for it and then read from its beginning.
    fn variant(&mut self, variant: &VariantShape, path: &Path<'_>) -> Result<Val, Broken> {
        let beginning = self.reader;
        let tag_path = Path::Field(path, TAG);
        self.reader.open_object()?;
        let mut first = true;
        while let Some(key) = self.reader.next_key(&mut first)? {
            if key != TAG {
                self.reader.skip()?;
                continue;
            }
            let kind = self.reader.peek()?;
            let tag = if kind == Kind::Text { Some(self.reader.string()?) } else { None };
            self.reader = beginning;
            let Some(tag) = tag else {
                self.problems.add(&tag_path, "wrong_type", format!("a string is wanted, this is {kind}"));
                self.reader.skip()?;
                return Ok(WRONG);
            };
            let Some(case) = variant.cases.iter().find(|case| case.key == *tag) else {
                self.problems.unknown_value(&tag_path, one_of(variant.cases.iter().map(|case| case.key.as_str())));
                self.reader.skip()?;
                return Ok(WRONG);
            };
            return self.case(case, path);
        }
        self.problems.required(&tag_path);
        Ok(WRONG)
    }

    fn case(&mut self, case: &CaseShape, path: &Path<'_>) -> Result<Val, Broken> {
        let mut slots = Slots::new(&case.fields);
        self.object(&case.fields, path, &mut slots, true, &Slots::NONE)?;
        let fields = slots.finish(&case.fields, path, self.problems);
        let payload = match (case.payload, fields) {
            (Payload::None, _) => None,
            (Payload::Record, record) => Some(Box::new(record)),
            (Payload::Value, Val::Record(mut fields)) => fields.pop().map(|(_, value)| Box::new(value)),
            (Payload::Value, other) => Some(Box::new(other)),
        };
        Ok(Val::Variant(case.name.clone(), payload))
    }
}

/// Reads a value out of one piece of text: a path variable or a query parameter.
pub fn from_text(shape: &Shape, given: Cow<'_, str>, path: &Path<'_>, problems: &mut Problems) -> Val {
    match shape {
        Shape::Option(inner) => Val::Option(Some(Box::new(from_text(inner, given, path, problems)))),
        Shape::Bounded(bounded) => {
            let before = problems.0.len();
            let value = from_text(&bounded.shape, given, path, problems);
            bounded.check_unless_refused(before, &value, path, problems);
            value
        }
        Shape::Bool => match &*given {
            "true" => Val::Bool(true),
            "false" => Val::Bool(false),
            _ => wrong(problems, path, "wrong_type", "true or false is wanted"),
        },
        Shape::Text(Text::Json) => {
            let mut reader = Reader::of_text(&given);
            match i_json::value(&mut reader).and_then(|(_, flaw)| reader.finish().map(|()| flaw)) {
                Ok(flaw) => problems.json(&given, flaw, path),
                Err(broken) => wrong(problems, path, "invalid_json", broken.to_string()),
            }
        }
        Shape::Text(_) | Shape::Timestamp | Shape::Char | Shape::Bytes | Shape::Enum(_) => {
            problems.check_characters(shape, &given, path);
            string(shape, given, path, problems)
        }
        Shape::List(item) => {
            let mut items = Vec::new();
            for part in given.split(',').filter(|_| !given.is_empty()) {
                if items.len() == limits::LIST_ITEMS_MAX {
                    problems.too_many(path);
                    break;
                }
                items.push(from_text(item, Cow::Borrowed(part), &Path::Item(path, items.len()), problems));
            }
            Val::List(items)
        }
        Shape::Flags(names) => {
            let mut flags = Vec::new();
            for (index, part) in given.split(',').filter(|_| !given.is_empty()).enumerate() {
                raise(names, part, &mut flags, &Path::Item(path, index), problems);
            }
            Val::Flags(flags)
        }
        // Compiling refuses a record, a tuple or a variant outside JSON.
        Shape::Record(_) | Shape::Tuple(_) | Shape::Variant(_) => wrong(problems, path, "wrong_type", wanted(shape)),
        _ => {
            let mut reader = Reader::of_text(&given);
            match reader.number() {
                Ok(written) if written.len() == given.len() => number(shape, written, path, problems),
                _ => wrong(problems, path, "wrong_type", format!("{} is wanted", wanted(shape))),
            }
        }
    }
}

impl Slots {
    /// No fields at all; nothing is given.
    pub const NONE: Slots = Slots { fields: Vec::new(), filled: [0; limits::TYPE_FIELDS_MAX.div_ceil(64)] };

    pub fn new(record: &RecordShape) -> Self {
        let mut fields = Vec::with_capacity(record.fields.len());
        fields.resize_with(record.fields.len(), || (String::new(), WRONG));
        Self { fields, ..Self::NONE }
    }

    pub fn has(&self, index: usize) -> bool {
        self.filled[index / 64] & (1 << (index % 64)) != 0
    }

    /// Which fields are filled, without their values.
    pub fn mask(&self) -> Self {
        Self { fields: Vec::new(), filled: self.filled }
    }

    pub fn fill(&mut self, index: usize, value: Val) {
        self.filled[index / 64] |= 1 << (index % 64);
        self.fields[index].1 = value;
    }

    /// What is missing becomes its default, missing options become none; anything else that is missing is a problem.
    pub fn finish(mut self, record: &RecordShape, path: &Path<'_>, problems: &mut Problems) -> Val {
        for (index, field) in record.fields.iter().enumerate() {
            if let Some(default) = &field.default {
                if !self.has(index) || matches!(self.fields[index].1, Val::Option(None)) {
                    self.fields[index].1 = default.value.clone();
                }
            } else if !self.has(index) {
                if field.shape.is_option() {
                    self.fields[index].1 = Val::Option(None);
                } else {
                    problems.required(&Path::Field(path, &field.key));
                }
            }
            self.fields[index].0.push_str(&field.name);
        }
        Val::Record(self.fields)
    }
}

impl Problems {
    pub fn add(&mut self, path: &Path<'_>, code: &str, detail: impl Into<String>) {
        if self.0.len() < limits::FIELD_ERRORS_MAX {
            self.0.push(FieldError { field: path.to_string(), code: code.to_owned(), detail: detail.into() });
        }
    }

    /// What was said last of the same place is not said again.
    pub fn add_once(&mut self, path: &Path<'_>, code: &str, detail: String) {
        let path_text = path.to_string();
        if self.0.last().is_none_or(|last| last.code != code || last.field != path_text) {
            self.add(path, code, detail);
        }
    }

    pub fn unknown_field(&mut self, path: &Path<'_>, key: &str, record: &RecordShape) {
        if self.0.len() == limits::FIELD_ERRORS_MAX {
            return;
        }
        // The name comes back in the answer; a client must not be able to make that long.
        const SHOWN: usize = 64;
        let shown: String = key.chars().take(SHOWN).collect();
        let near = record.fields.iter().map(|field| (strsim::damerau_levenshtein(&field.key, &shown), &field.key)).min();
        let detail = match near {
            Some((distance, near)) if distance <= 2 && distance < near.len() => format!("there is no such field; did you mean {near}?"),
            _ => "there is no such field".to_owned(),
        };
        self.add(&Path::Field(path, &shown), "unknown_field", detail);
    }

    /// What no client's text may have, whatever it is for. What a service wrote (an event) is taken as it is.
    fn check_characters(&mut self, shape: &Shape, content: &str, path: &Path<'_>) {
        if matches!(shape, Shape::Text(Text::Plain) | Shape::Char) && text::has_no_character(content) {
            self.add(path, UNREADABLE_TEXT, "no NUL, and no code point that is no character");
        }
    }

    /// A JSON value as text, unless readers may disagree about it.
    fn json(&mut self, document: &str, flaw: Option<Flaw>, path: &Path<'_>) -> Val {
        match flaw {
            None => Val::String(document.to_owned()),
            Some(flaw) => wrong(self, path, flaw.code, flaw.detail),
        }
    }

    fn required(&mut self, path: &Path<'_>) {
        self.add(path, "required", "it is missing");
    }

    fn too_many(&mut self, path: &Path<'_>) {
        self.add(path, "too_many", format!("at most {} items", limits::LIST_ITEMS_MAX));
    }

    fn unknown_value(&mut self, path: &Path<'_>, wanted: String) {
        self.add(path, "unknown_value", format!("{wanted} is wanted"));
    }

    fn wrong_type(&mut self, path: &Path<'_>, shape: &Shape, found: Kind) {
        self.add(path, "wrong_type", format!("{} is wanted, this is {found}", wanted(shape)));
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Null => "null",
            Kind::Boolean => "a boolean",
            Kind::Number => "a number",
            Kind::Text => "a string",
            Kind::Array => "an array",
            Kind::Object => "an object",
        })
    }
}

fn wrong(problems: &mut Problems, path: &Path<'_>, code: &str, detail: impl Into<String>) -> Val {
    problems.add(path, code, detail);
    WRONG
}

fn wanted(shape: &Shape) -> &'static str {
    match shape {
        Shape::Bool => "a boolean",
        Shape::U8 | Shape::U16 | Shape::U32 | Shape::U64 | Shape::S8 | Shape::S16 | Shape::S32 | Shape::S64 => "a whole number",
        Shape::F32 | Shape::F64 => "a number",
        Shape::Char | Shape::Text(_) | Shape::Timestamp | Shape::Bytes | Shape::Enum(_) => "a string",
        Shape::List(_) | Shape::Tuple(_) | Shape::Flags(_) => "an array",
        Shape::Record(_) | Shape::Variant(_) => "an object",
        Shape::Option(inner) => wanted(inner),
        Shape::Bounded(bounded) => wanted(&bounded.shape),
    }
}

fn string(shape: &Shape, given: Cow<'_, str>, path: &Path<'_>, problems: &mut Problems) -> Val {
    match shape {
        Shape::Text(Text::Uuid) => match text::uuid(given) {
            Some(uuid) => Val::String(uuid),
            None => wrong(problems, path, "invalid_uuid", "a UUID of 36 characters is wanted"),
        },
        Shape::Text(Text::Phone) if !text::is_phone(&given) => {
            wrong(problems, path, "invalid_phone", "a number in E.164 form is wanted: a plus, then 7 to 15 digits, the first not 0")
        }
        Shape::Text(Text::Cursor) if !text::is_cursor(&given) => wrong(problems, path, CURSOR_INVALID, "not a cursor that this list gave"),
        Shape::Timestamp => match text::timestamp(&given) {
            Some(microseconds) => Val::U64(microseconds),
            None => wrong(problems, path, "invalid_timestamp", "a time in RFC 3339 form is wanted, e.g. 2026-01-31T12:00:00Z"),
        },
        Shape::Char => {
            let mut chars = given.chars();
            match (chars.next(), chars.next()) {
                (Some(char), None) => Val::Char(char),
                _ => wrong(problems, path, "invalid_char", "exactly one character is wanted"),
            }
        }
        Shape::Bytes => match STANDARD.decode(given.as_bytes()) {
            Ok(bytes) => Val::List(bytes.into_iter().map(Val::U8).collect()),
            Err(_) => wrong(problems, path, "invalid_base64", "base64 in the standard alphabet, padded, is wanted"),
        },
        Shape::Enum(names) => match names.inside(&given) {
            Some(name) => Val::Enum(name.to_owned()),
            None => {
                problems.unknown_value(path, names.describe());
                WRONG
            }
        },
        _ => Val::String(given.into_owned()),
    }
}

/// The code of a number beyond its type or its bounds.
pub const OUT_OF_RANGE: &str = "out_of_range";

/// The largest number up to which a double holds every whole one (RFC 7493 section 2.2).
const WHOLE_MAX: f64 = 9_007_199_254_740_991.0;

fn number(shape: &Shape, written: &str, path: &Path<'_>, problems: &mut Problems) -> Val {
    fn whole<T>(written: &str, bounds: (T, T), path: &Path<'_>, problems: &mut Problems, val: fn(T) -> Val) -> Val
    where
        T: std::str::FromStr + fmt::Display,
    {
        // 5.0 and 5e0 are whole numbers too, in JSON Schema and in what some languages write.
        let written = match written.contains(['.', 'e', 'E']).then(|| written.parse::<f64>()) {
            Some(Ok(real)) if real.fract() == 0.0 && real.abs() <= WHOLE_MAX => Cow::Owned(format!("{:.0}", real + 0.0)),
            // Beyond what a double holds, the digits as they are written.
            Some(_) => match written.split_once('.').filter(|(_, zeros)| zeros.bytes().all(|digit| digit == b'0')) {
                Some((digits, _)) => Cow::Borrowed(digits),
                None => return wrong(problems, path, "wrong_type", "a whole number is wanted"),
            },
            None => Cow::Borrowed(written),
        };
        match written.parse() {
            Ok(number) => val(number),
            Err(_) => wrong(problems, path, OUT_OF_RANGE, format!("between {} and {}", bounds.0, bounds.1)),
        }
    }
    macro_rules! whole {
        ($type:ty, $val:expr) => {
            whole::<$type>(written, (<$type>::MIN, <$type>::MAX), path, problems, $val)
        };
    }
    match shape {
        Shape::U8 => whole!(u8, Val::U8),
        Shape::U16 => whole!(u16, Val::U16),
        Shape::U32 => whole!(u32, Val::U32),
        Shape::U64 => whole!(u64, Val::U64),
        Shape::S8 => whole!(i8, Val::S8),
        Shape::S16 => whole!(i16, Val::S16),
        Shape::S32 => whole!(i32, Val::S32),
        Shape::S64 => whole!(i64, Val::S64),
        Shape::F32 => match written.parse::<f32>() {
            Ok(number) if number.is_finite() => Val::Float32(number),
            _ => wrong(problems, path, OUT_OF_RANGE, "it is too large"),
        },
        _ => match written.parse::<f64>() {
            Ok(number) if number.is_finite() => Val::Float64(number),
            _ => wrong(problems, path, OUT_OF_RANGE, "it is too large"),
        },
    }
}

fn raise(names: &Names, flag: &str, flags: &mut Vec<String>, path: &Path<'_>, problems: &mut Problems) {
    match names.inside(flag) {
        Some(name) if flags.iter().any(|raised| raised == name) => {}
        Some(name) => flags.push(name.to_owned()),
        None => problems.unknown_value(path, names.describe()),
    }
}
