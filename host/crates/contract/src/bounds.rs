//! The bounds of a contract: lines of its documentation that begin with `@`, on fields, cases and named types. Parsed here, merged where a field's type has
//! bounds of its own, and compared from one version to the next. Knows no JSON and no values; `codec/check.rs`
//! holds values to them, `openapi.rs` shows them.
//!
//! | tag | on | means |
//! | --- | --- | --- |
//! | `@length 1..=100` | string, `json`, `list<u8>` | Unicode scalar values of a text (as JSON Schema's `maxLength` counts), bytes of the other two |
//! | `@items ..=100` | list | how many |
//! | `@range -90..=90` | number | both ends included |
//! | `@pattern ^[a-z]+$` | string | a regular expression in what ECMA-262 and Rust's `regex` have in common; found anywhere unless it says `^` and `$` |
//! | `@text name` | string | what people read: `name` of one line, `prose` of several, `content` of a message (see `readable.rs`) |
//! | `@code invalid_url` | with a bound | the code of a value that keeps none of the bounds above, in place of `too_long` and its like |
//! | `@example text` | scalars | for the documents; must keep the bounds |
//!
//! A tag reaches through `option<…>` and `list<…>` to what it can hold for; `@items` means the outermost list. Either end of a span may be left
//! out: `1..`, `..=9`.

use std::fmt;

pub use self::pattern::Pattern;
use super::readable::Readable;
use super::wit::Type;

mod pattern;

/// What a value keeps besides its type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bounds {
    pub length: Option<Span<u64>>,
    pub items: Option<Span<u64>>,
    pub range: Option<Span<Number>>,
    pub text: Option<Readable>,
    /// All of them: a field may add one to its type's.
    pub patterns: Vec<Pattern>,
    /// Of a value out of these bounds; none for the code that each bound has.
    pub code: Option<String>,
    pub examples: Vec<String>,
    /// The first sentence of the documentation: the message for a value that does not match a pattern.
    pub wanted: Option<String>,
}

/// From `min` to `max`, both included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span<T> {
    pub min: Option<T>,
    pub max: Option<T>,
}

#[derive(Clone, Copy, Debug)]
pub enum Number {
    Whole(i128),
    Real(f64),
}

/// What a type has for tags to hold for.
enum Leaf {
    Text,
    /// `json` and `list<u8>`: bytes are counted.
    Bytes,
    Whole {
        min: i128,
        max: i128,
    },
    Real,
    /// A form of its own (`uuid`, `phone`), a boolean or one of several names.
    Fixed,
    Compound,
}

/// The documentation without its tags, and what they say. Errors: a line that is no tag, or one twice.
pub fn split(docs: &str) -> Result<(Option<String>, Bounds), String> {
    let mut bounds = Bounds::default();
    let mut text = Vec::new();
    for line in docs.lines() {
        match tag(line) {
            Some((name, value)) => bounds.read(name, value)?,
            None => text.push(line),
        }
    }
    let text = Some(text.join("\n").trim().to_owned()).filter(|text| !text.is_empty());
    if !bounds.is_empty() {
        bounds.wanted = text.as_deref().map(|text| super::first_sentence(text).to_owned());
    }
    Ok((text, bounds))
}

/// Whether there is a line that begins as a tag.
pub fn has_tag(docs: &str) -> bool {
    docs.lines().any(|line| tag(line).is_some())
}

fn tag(line: &str) -> Option<(&str, &str)> {
    let rest = line.trim().strip_prefix('@').filter(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic()))?;
    let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    Some((name, value.trim()))
}

impl Bounds {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a value can be out of them.
    pub fn holds_values(&self) -> bool {
        self.length.is_some() || self.items.is_some() || self.range.is_some() || self.text.is_some() || !self.patterns.is_empty()
    }

    fn read(&mut self, name: &str, value: &str) -> Result<(), String> {
        let twice = || format!("@{name} is there twice");
        let malformed = |wanted: &str| format!("@{name} {value:?} is malformed: {wanted}");
        match name {
            "length" | "items" => {
                let slot = if name == "length" { &mut self.length } else { &mut self.items };
                let span = Span::parse(value, |text| text.parse().ok()).ok_or_else(|| malformed("1..=100, ..=100 or 1.. is wanted"))?;
                if slot.replace(span).is_some() { Err(twice()) } else { Ok(()) }
            }
            "range" => {
                let span = Span::parse(value, Number::parse).ok_or_else(|| malformed("-90..=90, ..=100 or 1.. is wanted"))?;
                if self.range.replace(span).is_some() { Err(twice()) } else { Ok(()) }
            }
            "text" => {
                let text = Readable::parse(value).ok_or_else(|| malformed("name, prose or content is wanted"))?;
                if self.text.replace(text).is_some() { Err(twice()) } else { Ok(()) }
            }
            "pattern" if !self.patterns.is_empty() => Err(twice()),
            "pattern" => {
                self.patterns.push(Pattern::parse(value).map_err(|reason| malformed(&reason))?);
                Ok(())
            }
            "code" => {
                let is_code = value.starts_with(|c: char| c.is_ascii_lowercase())
                    && value.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
                if !is_code {
                    return Err(malformed("a snake_case name is wanted"));
                }
                if self.code.replace(value.to_owned()).is_some() { Err(twice()) } else { Ok(()) }
            }
            "example" if value.is_empty() => Err(malformed("a value is wanted")),
            "example" => {
                self.examples.push(value.to_owned());
                Ok(())
            }
            _ => Err(format!("@{name} is no tag; there are @length, @items, @range, @pattern, @text, @code and @example")),
        }
    }

    /// These and those of the type beneath, which may be narrower.
    pub fn and(&self, inner: &Bounds) -> Bounds {
        if inner.is_empty() {
            return self.clone();
        }
        Bounds {
            length: Span::both(self.length, inner.length),
            items: Span::both(self.items, inner.items),
            range: Span::both(self.range, inner.range),
            text: self.text.max(inner.text),
            patterns: self.patterns.iter().chain(&inner.patterns).cloned().collect(),
            code: self.code.clone().or_else(|| inner.code.clone()),
            examples: if self.examples.is_empty() { inner.examples.clone() } else { self.examples.clone() },
            wanted: self.wanted.clone().or_else(|| inner.wanted.clone()),
        }
    }

    /// What holds for a list that has these, and not for its items.
    pub fn of_list(&self) -> Bounds {
        Bounds { items: self.items, code: self.code.clone(), wanted: self.wanted.clone(), ..Self::default() }
    }

    /// What holds for the items of a list that has these.
    pub fn of_items(&self) -> Bounds {
        Bounds { items: None, ..self.clone() }
    }

    /// Whether each of these can hold for a value of the type. Errors: the first that cannot.
    pub fn check_type(&self, ty: &Type) -> Result<(), String> {
        let (has_list, leaf) = leaf_of(ty);
        let refuse = |tag: &str, on: &str| Err(format!("@{tag} is for {on}, and this is {}", ty.describe()));
        if self.length.is_some() && !matches!(leaf, Leaf::Text | Leaf::Bytes) {
            return refuse("length", "texts and bytes");
        }
        if self.items.is_some() && !has_list {
            return refuse("items", "lists");
        }
        if let Some(range) = &self.range {
            let ends = [range.min, range.max].into_iter().flatten();
            match leaf {
                Leaf::Whole { min, max } => {
                    for end in ends {
                        if !matches!(end, Number::Whole(number) if (min..=max).contains(&number)) {
                            return Err(format!("@range {end} is no {}", ty.describe()));
                        }
                    }
                }
                Leaf::Real => {}
                _ => return refuse("range", "numbers"),
            }
        }
        if (self.text.is_some() || !self.patterns.is_empty()) && !matches!(leaf, Leaf::Text) {
            return refuse(if self.text.is_some() { "text" } else { "pattern" }, "texts");
        }
        if self.code.is_some() && !self.holds_values() {
            return Err("@code is for a value that keeps no bound, and there is none".to_owned());
        }
        if !self.examples.is_empty() && (has_list || matches!(leaf, Leaf::Bytes | Leaf::Compound)) {
            return refuse("example", "texts, numbers, booleans and names");
        }
        Ok(())
    }

    /// Why what kept the `old` bounds may not keep these: each bound that is narrower.
    pub fn narrower_than(&self, old: &Bounds) -> Vec<String> {
        let mut found = Vec::new();
        narrower(&mut found, "length", self.length, old.length);
        narrower(&mut found, "items", self.items, old.items);
        narrower(&mut found, "range", self.range, old.range);
        if self.text > old.text {
            let name = |text: Option<Readable>| text.map_or("any", Readable::name);
            found.push(format!("text was {} and is {}", name(old.text), name(self.text)));
        }
        for pattern in self.patterns.iter().filter(|pattern| !old.patterns.contains(pattern)) {
            found.push(format!("pattern {} is new", pattern.source()));
        }
        found
    }
}

/// The list on the way to what a value is made of, and that.
fn leaf_of(ty: &Type) -> (bool, Leaf) {
    use super::wit::Meaning;
    match ty.meaning() {
        Some(Meaning::Json) => return (false, Leaf::Bytes),
        Some(Meaning::Uuid | Meaning::Timestamp | Meaning::Phone | Meaning::Cursor) => return (false, Leaf::Fixed),
        None => {}
    }
    let whole = |min: i128, max: i128| (false, Leaf::Whole { min, max });
    match ty.structure() {
        Type::String => (false, Leaf::Text),
        Type::U8 => whole(0, u8::MAX.into()),
        Type::U16 => whole(0, u16::MAX.into()),
        Type::U32 => whole(0, u32::MAX.into()),
        Type::U64 => whole(0, u64::MAX.into()),
        Type::S8 => whole(i8::MIN.into(), i8::MAX.into()),
        Type::S16 => whole(i16::MIN.into(), i16::MAX.into()),
        Type::S32 => whole(i32::MIN.into(), i32::MAX.into()),
        Type::S64 => whole(i64::MIN.into(), i64::MAX.into()),
        Type::F32 | Type::F64 => (false, Leaf::Real),
        Type::Bool | Type::Char | Type::Enum(_) => (false, Leaf::Fixed),
        Type::Option(inner) => leaf_of(inner),
        Type::List(item) if matches!(item.structure(), Type::U8) => (false, Leaf::Bytes),
        Type::List(item) => (true, leaf_of(item).1),
        _ => (false, Leaf::Compound),
    }
}

fn narrower<T: PartialOrd + Copy + fmt::Display>(found: &mut Vec<String>, name: &str, new: Option<Span<T>>, old: Option<Span<T>>) {
    let Some(new) = new else { return };
    let old = old.unwrap_or(Span { min: None, max: None });
    let less = |new: Option<T>, old: Option<T>, is_less: fn(&T, &T) -> bool| match (new, old) {
        (Some(new), Some(old)) => is_less(&new, &old),
        (Some(_), None) => true,
        (None, _) => false,
    };
    if less(new.max, old.max, T::lt) || less(new.min, old.min, T::gt) {
        found.push(format!("{name} was {old} and is {new}"));
    }
}

impl<T: PartialOrd + Copy> Span<T> {
    fn parse(text: &str, number: impl Fn(&str) -> Option<T>) -> Option<Self> {
        let number = |text: &str| if text.is_empty() { Some(None) } else { number(&text.replace('_', "")).map(Some) };
        let (min, max) = match text.split_once("..=") {
            Some((min, max)) if !max.is_empty() => (number(min)?, number(max)?),
            Some(_) => return None,
            None => (number(text.strip_suffix("..")?)?, None),
        };
        let is_something = min.is_some() || max.is_some();
        let is_empty = matches!((min, max), (Some(min), Some(max)) if min > max);
        (is_something && !is_empty).then_some(Self { min, max })
    }

    pub fn contains(&self, value: T) -> bool {
        self.min.is_none_or(|min| value >= min) && self.max.is_none_or(|max| value <= max)
    }

    fn both(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        let (Some(one), Some(other)) = (one, other) else { return one.or(other) };
        let closer = |a: Option<T>, b: Option<T>, wins: fn(&T, &T) -> bool| match (a, b) {
            (Some(a), Some(b)) => Some(if wins(&a, &b) { a } else { b }),
            (a, b) => a.or(b),
        };
        Some(Self { min: closer(one.min, other.min, T::gt), max: closer(one.max, other.max, T::lt) })
    }
}

impl<T: fmt::Display> fmt::Display for Span<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.min, &self.max) {
            (Some(min), Some(max)) => write!(f, "{min}..={max}"),
            (Some(min), None) => write!(f, "{min}.."),
            (None, Some(max)) => write!(f, "..={max}"),
            (None, None) => f.write_str("without bound"),
        }
    }
}

impl Number {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(whole) = text.parse() {
            return Some(Number::Whole(whole));
        }
        let looks_like_one = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'e' | b'E'));
        text.parse().ok().filter(|real: &f64| looks_like_one && real.is_finite()).map(Number::Real)
    }

    pub fn as_f64(self) -> f64 {
        match self {
            Number::Whole(whole) => whole as f64,
            Number::Real(real) => real,
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(std::cmp::Ordering::Equal)
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Number::Whole(a), Number::Whole(b)) => a.partial_cmp(b),
            (a, b) => a.as_f64().partial_cmp(&b.as_f64()),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Whole(whole) => whole.fmt(f),
            Number::Real(real) => real.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(docs: &str) -> Bounds {
        split(docs).unwrap_or_else(|reason| panic!("{docs}: {reason}")).1
    }

    #[test]
    fn tags_are_told_from_the_text_around_them() {
        let (text, bounds) =
            split("The name. It is shown.\n@length 1..=1_000\n@text name\n@example Ada\nmail@example.org\n  @ home").unwrap();
        assert_eq!(text.as_deref(), Some("The name. It is shown.\nmail@example.org\n  @ home"));
        assert_eq!(bounds.length, Some(Span { min: Some(1), max: Some(1_000) }));
        assert_eq!((bounds.text, bounds.examples), (Some(Readable::Name), vec!["Ada".to_owned()]));
        assert_eq!(bounds.wanted.as_deref(), Some("The name"));
        assert!(!has_tag("mail@example.org\n @ home") && has_tag("a\n  @length 1.."));
    }

    #[test]
    fn unknown_and_malformed_tags_are_refused() {
        for (docs, expect) in [
            ("@lenght 1..=2", "@lenght is no tag"),
            ("@length", "malformed"),
            ("@length 1..2", "malformed"),
            ("@length 3..=2", "malformed"),
            ("@length -1..=2", "malformed"),
            ("@length ..", "malformed"),
            ("@length 1..=", "malformed"),
            ("@length ten", "malformed"),
            ("@length 1..=2\n@length 1..=3", "twice"),
            ("@items 1.5..", "malformed"),
            ("@range 1..=inf", "malformed"),
            ("@range NaN..", "malformed"),
            ("@text poem", "malformed"),
            ("@pattern (", "malformed"),
            ("@pattern a\n@pattern b", "twice"),
            ("@code Not-One", "malformed"),
            ("@example", "malformed"),
        ] {
            let reason = split(docs).expect_err(docs);
            assert!(reason.contains(expect), "{docs}: {reason}");
        }
    }

    #[test]
    fn a_field_adds_to_the_bounds_of_its_type() {
        let joined = bounds("@length 2..=50\n@pattern ^a").and(&bounds("@length 1..=10\n@pattern b$\n@text prose\n@code odd"));
        assert_eq!(joined.length, Some(Span { min: Some(2), max: Some(10) }));
        assert_eq!(joined.patterns.iter().map(Pattern::source).collect::<Vec<_>>(), ["^a", "b$"]);
        assert_eq!((joined.text, joined.code.as_deref()), (Some(Readable::Prose), Some("odd")));
    }

    #[test]
    fn what_is_narrower_is_named() {
        for (old, new, expect) in [
            ("@length ..=10", "@length ..=20", ""),
            ("@length ..=10", "", ""),
            ("@length 1..=10", "@length 1..=9", "length was 1..=10 and is 1..=9"),
            ("@length 1..=10", "@length 2..=10", "length was 1..=10 and is 2..=10"),
            ("", "@items ..=9", "items was without bound and is ..=9"),
            ("@range -1.5..", "@range -1..", "range was -1.5.. and is -1.."),
            ("@range -1.5..", "@range -2..", ""),
            ("@text content", "@text name", "text was content and is name"),
            ("@text name", "@text prose", ""),
            ("@pattern a", "@pattern b", "pattern b is new"),
            ("@pattern a", "@pattern a\n@example a\n@code x", ""),
        ] {
            assert_eq!(bounds(new).narrower_than(&bounds(old)).join("; "), expect, "{old} {new}");
        }
    }
}
