//! Checks values against the bounds of their contract (`contract/bounds.rs`): a client's before the service sees them, a service's replies, and the values of
//! calls between services.

use wasmtime::component::Val;

use super::json::Reader;
use super::read::{Decoder, OUT_OF_RANGE, Path, Problems, Unknown, from_text};
use super::shape::{DefaultValue, RecordShape, Shape, Text};
use crate::bounds::{Bounds, Number, Span};
use crate::wit::Function;
use crate::{FieldError, UNREADABLE_TEXT};

/// A text, bytes, a number or a list with what it keeps besides.
pub struct BoundedShape {
    pub shape: Shape,
    pub bounds: Bounds,
}

/// The bounds of a function's parameters, for calls between services: their types are the component model's to check.
pub struct ParamBounds(Vec<(String, Shape)>);

impl ParamBounds {
    /// None where there is nothing to check, or a parameter is no plain value.
    pub fn compile(function: &Function) -> Option<Self> {
        let shapes = function.params.iter().map(|param| Some((param.name.clone(), Shape::compile(&param.ty, &Bounds::default()).ok()?)));
        let shapes = shapes.collect::<Option<Vec<_>>>()?;
        shapes.iter().any(|(_, shape)| has_bounds(shape)).then_some(Self(shapes))
    }

    /// Errors: every value out of its bounds, with its path as a client would write it.
    pub fn check(&self, params: &[Val]) -> Result<(), Vec<FieldError>> {
        let mut problems = Problems::default();
        for ((name, shape), value) in self.0.iter().zip(params) {
            match shape {
                Shape::Record(record) => check_fields(record, value, &Path::Root, &mut problems),
                other => check_value(other, value, &Path::Field(&Path::Root, name), &mut problems),
            }
        }
        if problems.0.is_empty() { Ok(()) } else { Err(problems.0) }
    }
}

impl BoundedShape {
    /// `before`: how many problems there were before it was read. A text that is wrong already is named once; a list's items are not the list.
    pub fn check_unless_refused(&self, before: usize, value: &Val, path: &Path<'_>, problems: &mut Problems) {
        if problems.0.len() == before || matches!(self.shape, Shape::List(_)) {
            self.check(value, path, problems);
        } else if let (Some(range), Some(refused)) = (self.bounds.range, problems.0.last_mut())
            && refused.code == OUT_OF_RANGE
        {
            // A number that its type cannot hold: of its type's bounds the client knows nothing.
            refused.detail = wanted(range);
            if let Some(code) = &self.bounds.code {
                refused.code.clone_from(code);
            }
        }
    }

    /// A value of another shape was refused before and is passed over.
    pub fn check(&self, value: &Val, path: &Path<'_>, problems: &mut Problems) {
        let bounds = &self.bounds;
        match (&self.shape, value) {
            (Shape::Text(Text::Json), Val::String(document)) => {
                self.span(bounds.length, document.len() as u64, &BYTES, path, problems);
            }
            (Shape::Text(_), Val::String(text)) => self.text(text, path, problems),
            (Shape::Bytes, Val::List(bytes)) => self.span(bounds.length, bytes.len() as u64, &BYTES, path, problems),
            (Shape::List(_), Val::List(items)) => self.span(bounds.items, items.len() as u64, &ITEMS, path, problems),
            (_, value) => {
                if let (Some(range), Some(number)) = (bounds.range, number_of(value))
                    && !range.contains(number)
                {
                    self.refuse(path, OUT_OF_RANGE, wanted(range), problems);
                }
            }
        }
    }

    fn text(&self, text: &str, path: &Path<'_>, problems: &mut Problems) {
        let bounds = &self.bounds;
        if let Some(wanted) = bounds.text.and_then(|rule| rule.fault(text)) {
            return problems.add(path, UNREADABLE_TEXT, wanted);
        }
        if let Some(length) = bounds.length {
            // Most texts are neither near the one end nor the other, and need not be counted.
            let (fewest, most) = (text.len().div_ceil(4) as u64, text.len() as u64);
            if !(length.contains(fewest) && length.contains(most)) {
                let before = problems.0.len();
                self.span(bounds.length, text.chars().count() as u64, &CHARACTERS, path, problems);
                if problems.0.len() > before {
                    return;
                }
            }
        }
        if let Some(pattern) = bounds.patterns.iter().find(|pattern| !pattern.fits(text)) {
            let detail = bounds.wanted.clone().unwrap_or_else(|| format!("a text that fits {} is wanted", pattern.source()));
            self.refuse(path, "invalid_format", detail, problems);
        }
    }

    fn span(&self, span: Option<Span<u64>>, count: u64, of: &Counted, path: &Path<'_>, problems: &mut Problems) {
        let Some(span) = span else { return };
        match (span.min, span.max) {
            (Some(min), _) if count < min => self.refuse(path, of.few_code, format!("at least {min} {}", of.unit), problems),
            (_, Some(max)) if count > max => self.refuse(path, of.many_code, format!("at most {max} {}", of.unit), problems),
            _ => {}
        }
    }

    fn refuse(&self, path: &Path<'_>, code: &str, detail: String, problems: &mut Problems) {
        problems.add_once(path, self.bounds.code.as_deref().unwrap_or(code), detail);
    }
}

fn wanted(range: Span<Number>) -> String {
    match (range.min, range.max) {
        (Some(min), Some(max)) => format!("{min} to {max}"),
        (Some(min), None) => format!("at least {min}"),
        (None, Some(max)) => format!("at most {max}"),
        (None, None) => String::new(),
    }
}

/// What is said of a count out of its span.
struct Counted {
    few_code: &'static str,
    many_code: &'static str,
    unit: &'static str,
}

const CHARACTERS: Counted = Counted { few_code: "too_short", many_code: "too_long", unit: "characters" };
const BYTES: Counted = Counted { unit: "bytes", ..CHARACTERS };
const ITEMS: Counted = Counted { few_code: "too_few", many_code: "too_many", unit: "items" };

/// Errors: what is wrong with an example of the contract.
pub fn example(shape: &Shape, text: &str) -> Result<(), String> {
    let mut problems = Problems::default();
    from_text(shape, text.into(), &Path::Root, &mut problems);
    match problems.0.first() {
        Some(problem) => Err(format!("@example {text}: {}", problem.detail)),
        None => Ok(()),
    }
}

/// What stands for a missing field. Errors: the text is no value of this shape.
pub fn default(shape: &Shape, json: &str) -> Result<DefaultValue, String> {
    let mut problems = Problems::default();
    let mut decoder = Decoder { reader: Reader::of_text(json), problems: &mut problems, unknown: Unknown::Refuse };
    let read = decoder.value(shape, &Path::Root).and_then(|value| decoder.reader.finish().map(|()| value));
    let value = read.map_err(|broken| format!("the default {json}: {broken}"))?;
    match problems.0.first() {
        Some(problem) => Err(format!("the default {json}: {}", problem.detail)),
        None => Ok(DefaultValue { value, json: json.as_bytes().to_vec() }),
    }
}

fn number_of(value: &Val) -> Option<Number> {
    Some(match value {
        Val::U8(number) => Number::Whole((*number).into()),
        Val::U16(number) => Number::Whole((*number).into()),
        Val::U32(number) => Number::Whole((*number).into()),
        Val::U64(number) => Number::Whole((*number).into()),
        Val::S8(number) => Number::Whole((*number).into()),
        Val::S16(number) => Number::Whole((*number).into()),
        Val::S32(number) => Number::Whole((*number).into()),
        Val::S64(number) => Number::Whole((*number).into()),
        Val::Float32(number) => Number::Real((*number).into()),
        Val::Float64(number) => Number::Real(*number),
        _ => return None,
    })
}

fn has_bounds(shape: &Shape) -> bool {
    match shape {
        Shape::Bounded(_) => true,
        Shape::List(inner) | Shape::Option(inner) => has_bounds(inner),
        Shape::Tuple(items) => items.iter().any(has_bounds),
        Shape::Record(record) => record.fields.iter().any(|field| has_bounds(&field.shape)),
        Shape::Variant(variant) => variant.cases.iter().any(|case| case.fields.fields.iter().any(|field| has_bounds(&field.shape))),
        _ => false,
    }
}

/// Values of another shape are passed over.
fn check_value(shape: &Shape, value: &Val, path: &Path<'_>, problems: &mut Problems) {
    if !has_bounds(shape) {
        return;
    }
    match (shape, value) {
        (Shape::Bounded(bounded), value) => {
            bounded.check(value, path, problems);
            check_value(&bounded.shape, value, path, problems);
        }
        (Shape::Option(inner), Val::Option(Some(value))) => check_value(inner, value, path, problems),
        (Shape::List(inner), Val::List(items)) => {
            for (index, item) in items.iter().enumerate() {
                check_value(inner, item, &Path::Item(path, index), problems);
            }
        }
        (Shape::Tuple(shapes), Val::Tuple(items)) => {
            for (index, (shape, item)) in shapes.iter().zip(items).enumerate() {
                check_value(shape, item, &Path::Item(path, index), problems);
            }
        }
        (Shape::Record(record), value) => check_fields(record, value, path, problems),
        (Shape::Variant(variant), Val::Variant(name, Some(payload))) => {
            let Some(case) = variant.cases.iter().find(|case| case.name == *name) else { return };
            match (&**payload, case.fields.fields.as_slice()) {
                (value @ Val::Record(_), _) => check_fields(&case.fields, value, path, problems),
                (value, [field]) => check_value(&field.shape, value, &Path::Field(path, &field.key), problems),
                _ => {}
            }
        }
        _ => {}
    }
}

fn check_fields(record: &RecordShape, value: &Val, path: &Path<'_>, problems: &mut Problems) {
    let Val::Record(fields) = value else { return };
    for (field, (_, value)) in record.fields.iter().zip(fields) {
        check_value(&field.shape, value, &Path::Field(path, &field.key), problems);
    }
}
