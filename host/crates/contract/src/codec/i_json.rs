//! I-JSON (RFC 7493), for values of the type `json`: unique names in an object, numbers that a double represents exactly as written, no lone surrogates and no
//! noncharacters; and no NUL, which ends a text in databases. Such a value is stored as text and parsed by others, so what parsers understand differently is
//! refused here. Clients may show it, so its strings follow the rules for the text of a message (no control characters but newline and tab) and its names
//! those for names (no bidirectional controls either).

use std::borrow::Cow;
use std::collections::HashSet;

use super::json::{Broken, Kind, Reader};
use super::text::{has_control, has_no_character};
use crate::UNREADABLE_TEXT;

/// The first thing in a value that readers may disagree about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    pub code: &'static str,
    pub detail: String,
}

/// The largest integer up to which a double holds every one.
const INTEGER_MAX: u64 = 1 << 53;
/// With more significant digits no decimal is the shortest form of a double.
const DIGITS_MAX: usize = 17;

/// Steps over one value, gives its text, and says what is wrong with it. Fails only on what is no JSON.
pub fn value<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, Option<Flaw>), Broken> {
    let mut flaw = None;
    let text = reader.reading_surrogates(|reader| walk(reader, &mut flaw))?;
    Ok((text, flaw))
}

fn walk(reader: &mut Reader<'_>, flaw: &mut Option<Flaw>) -> Result<(), Broken> {
    let mut first = true;
    match reader.peek()? {
        Kind::Null | Kind::Boolean => drop(reader.skip()?),
        Kind::Number => {
            if let Some(detail) = number_fault(reader.number()?) {
                note(flaw, "out_of_range", detail.to_owned());
            }
        }
        Kind::Text => {
            let content = reader.string()?;
            check_text(reader, &content, flaw);
            if has_control(&content) {
                note(flaw, UNREADABLE_TEXT, "no control characters but newline and tab in a string".to_owned());
            }
        }
        Kind::Array => {
            reader.open_array()?;
            while reader.next_item(&mut first)? {
                walk(reader, flaw)?;
            }
        }
        Kind::Object => {
            reader.open_object()?;
            let mut names: HashSet<Cow<'_, str>> = HashSet::new();
            while let Some(name) = reader.next_key(&mut first)? {
                check_text(reader, &name, flaw);
                if has_control(&name) || name.chars().any(|c| matches!(c, '\n' | '\t' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{206F}'))
                {
                    note(flaw, UNREADABLE_TEXT, "no control characters and no bidirectional ones in a name".to_owned());
                }
                if names.contains(&name) {
                    note(flaw, "duplicate_field", format!("the name {} stands twice in one object", shown(&name)));
                } else {
                    names.insert(name);
                }
                walk(reader, flaw)?;
            }
        }
    }
    Ok(())
}

fn check_text(reader: &mut Reader<'_>, content: &str, flaw: &mut Option<Flaw>) {
    if reader.took_lone_surrogate() {
        note(flaw, UNREADABLE_TEXT, "half of a surrogate pair in a string".to_owned());
    } else if has_no_character(content) {
        note(flaw, UNREADABLE_TEXT, "no NUL in it, and no code point that is no character".to_owned());
    }
}

fn note(flaw: &mut Option<Flaw>, code: &'static str, detail: String) {
    flaw.get_or_insert(Flaw { code, detail });
}

/// A client's name comes back in the answer; it must not be able to make that long.
fn shown(name: &str) -> String {
    const CHARS_MAX: usize = 64;
    format!("{:?}", name.chars().take(CHARS_MAX).collect::<String>())
}

/// Why this number, as it is written, would be another one in a double (RFC 7493 section 2.2).
fn number_fault(written: &str) -> Option<&'static str> {
    let unsigned = written.trim_start_matches('-');
    if unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        let fits = unsigned.parse::<u64>().is_ok_and(|number| number <= INTEGER_MAX);
        return (!fits).then_some("an integer beyond 2^53 is another one for some readers; give it as a string");
    }
    let value: f64 = unsigned.parse().ok()?;
    if !value.is_finite() {
        return Some("a number larger than a double holds");
    }
    let (digits, exponent) = decimal(unsigned);
    if digits.is_empty() {
        return None;
    }
    if value == 0.0 {
        return Some("a number smaller than a double holds");
    }
    let is_rounded = digits.len() > DIGITS_MAX || (value >= INTEGER_MAX as f64 && decimal(&format!("{value:e}")) != (digits, exponent));
    is_rounded.then_some("a number with more digits than a double holds; give it as a string")
}

/// The significant digits, and the power of ten of the last of them.
fn decimal(unsigned: &str) -> (String, i64) {
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let digits = all.trim_end_matches('0');
    let dropped = (all.len() - digits.len()) as i64 - fraction.len() as i64;
    (digits.trim_start_matches('0').to_owned(), exponent.parse::<i64>().unwrap_or(0).saturating_add(dropped))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flaw_of(text: &str) -> Option<&'static str> {
        let mut reader = Reader::of_text(text);
        let (read, flaw) = value(&mut reader).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(read, text);
        flaw.map(|flaw| flaw.code)
    }

    #[test]
    fn numbers_are_those_that_every_reader_holds() {
        for good in [
            "0",
            "-0",
            "0.0",
            "0e999999999999999999999",
            "9007199254740992",
            "-9007199254740992",
            "9007199254740992.0",
            "1e20",
            "1e300",
            "1.7976931348623157e308",
            "5e-324",
            "0.1",
            "0.30000000000000004",
            "52.520006599999998",
            "-1.5E+3",
            "100000000000000000000e-10",
            "0.000000000000000000000000000000000000000001",
        ] {
            assert_eq!(flaw_of(good), None, "{good}");
        }
        for bad in [
            "1e400",
            "-1e400",
            "1e-400",
            "9007199254740993",
            "-9007199254740993",
            "18446744073709551616",
            "123456789012345678901234567890",
            "9007199254740993.0",
            "9.007199254740993e15",
            "3.141592653589793238462643383279",
        ] {
            assert_eq!(flaw_of(bad), Some("out_of_range"), "{bad}");
            assert_eq!(flaw_of(&format!("[{{\"a\":{bad}}}]")), Some("out_of_range"), "{bad}");
        }
    }

    #[test]
    fn names_stand_once_at_any_depth() {
        for bad in [r#"{"k":1,"k":2}"#, r#"{"k":1,"\u006b":2}"#, r#"[{"a":{"b":[{"k":1,"k":1}]}}]"#, r#"{"":1,"":2}"#] {
            assert_eq!(flaw_of(bad), Some("duplicate_field"), "{bad}");
        }
        for good in [r#"{"k":1,"K":2}"#, r#"{"a":{"k":1},"b":{"k":1}}"#, r#"[{"k":1},{"k":1}]"#, r#"{"é":1,"e\u0301":2}"#] {
            assert_eq!(flaw_of(good), None, "{good}");
        }
    }

    #[test]
    fn texts_have_only_characters() {
        for bad in [
            r#""a\u0000b""#,
            r#"{"a\u0000":1}"#,
            r#""\ud800""#,
            r#""\udc00x""#,
            r#"{"\ud800\u0041":1}"#,
            r#"["\ufffe"]"#,
            r#""\u0001""#,
            r#"["a\u009bb"]"#,
            r#""a\rb""#,
            r#"{"a\u202eb":1}"#,
            r#"{"a\nb":1}"#,
            r#"{"a":{"\u2066":1}}"#,
        ] {
            assert_eq!(flaw_of(bad), Some("unreadable_text"), "{bad}");
        }
        for good in [r#""\ud83d\ude00""#, r#""\u202e\u200d""#, r#"{"a\u200db":"two\nlines\tand a tab"}"#, r#""\ufffd""#] {
            assert_eq!(flaw_of(good), None, "{good}");
        }
    }

    #[test]
    fn outside_a_json_value_half_a_pair_is_no_string() {
        let mut reader = Reader::of_text(r#"["\ud800","\ud800"]"#);
        reader.open_array().unwrap();
        assert!(reader.next_item(&mut true).unwrap());
        assert!(value(&mut reader).unwrap().1.is_some());
        assert!(reader.next_item(&mut false).unwrap());
        assert!(reader.string().is_err());
    }
}
