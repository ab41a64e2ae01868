//! Sealed cursors: what a client gets is a service's cursor with a MAC of the host before it (HMAC-SHA-256, RFC 2104, its first 16 bytes), so a client can
//! only hand back a cursor that it was given. A MAC holds for one list: the function, the caller, and the fields that
//! every request for it has (a conversation, a search's words); optional fields only narrow a list and may be left out or changed.
//!
//! Only the edges seal and open. A service sees, returns and passes to other services plain cursors, so if it returns another service's cursor, that is sealed
//! as its own.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasmtime::component::Val;

use super::read::{Path, Problems};
use super::shape::{RecordShape, Shape, Text};
use crate::CURSOR_INVALID;
use echo_base::limits::CURSOR_SEAL_CHARS;

const MAC_BYTES: usize = 16;
/// Of base64url without padding.
const _: () = assert!(CURSOR_SEAL_CHARS == (MAC_BYTES * 8).div_ceil(6));

/// The host's secret that all cursors are sealed with.
pub struct CursorKey(Hmac<Sha256>);

/// One list of one caller: what a cursor is good for.
pub struct CursorScope(Hmac<Sha256>);

impl CursorKey {
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes a key of any length"))
    }

    /// A list of the host's own. `reader`: who is given its cursors.
    pub fn list(&self, list: &str, reader: &str) -> CursorScope {
        let mut mac = self.0.clone();
        for part in ["host", list, reader] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        CursorScope(mac)
    }

    /// `caller`: the user's identifier; none for an anonymous caller. `params`: what the function is called with.
    pub(super) fn scope(
        &self,
        service: &str,
        function: &str,
        caller: Option<&[u8; 16]>,
        request: &RecordShape,
        params: &[Val],
    ) -> CursorScope {
        let mut mac = self.0.clone();
        let mut part = |bytes: &[u8]| {
            // Each part goes with its length, so that no two lists run together into the same bytes.
            mac.update(&(bytes.len() as u64).to_be_bytes());
            mac.update(bytes);
        };
        part(service.as_bytes());
        part(function.as_bytes());
        part(caller.map_or(&[], |id| id.as_slice()));
        if let [Val::Record(fields)] = params {
            for (shape, (name, value)) in request.fields.iter().zip(fields) {
                if !shape.shape.is_option() && !has_cursor(&shape.shape) {
                    part(name.as_bytes());
                    // The debug form of a value says all of it; lists that are paged are named by a few short fields.
                    part(format!("{value:?}").as_bytes());
                }
            }
        }
        CursorScope(mac)
    }
}

impl CursorScope {
    /// `cursor`: letters, digits, hyphens and underscores.
    pub fn seal(&self, cursor: &str) -> String {
        let mut mac = self.0.clone();
        mac.update(cursor.as_bytes());
        let mut sealed = String::with_capacity(CURSOR_SEAL_CHARS + cursor.len());
        URL_SAFE_NO_PAD.encode_string(&mac.finalize().into_bytes()[..MAC_BYTES], &mut sealed);
        sealed.push_str(cursor);
        sealed
    }

    /// None for what was not sealed for this list.
    pub fn open<'a>(&self, sealed: &'a str) -> Option<&'a str> {
        let (tag, cursor) = sealed.split_at_checked(CURSOR_SEAL_CHARS)?;
        // The decoder takes one form of each MAC alone, so that no two texts are the same cursor.
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        let mut mac = self.0.clone();
        mac.update(cursor.as_bytes());
        mac.verify_truncated_left(&tag).ok()?;
        Some(cursor)
    }

    /// Opens every cursor of a request; one that is not of this list becomes a problem.
    pub(super) fn open_all(&self, request: &RecordShape, value: &mut Val, problems: &mut Problems) {
        let Val::Record(fields) = value else { return };
        each_cursor_of(request, fields, &Path::Root, &mut |cursor, path| match self.open(cursor).map(str::to_owned) {
            Some(opened) => *cursor = opened,
            None => problems.add(path, CURSOR_INVALID, "not a cursor that this list gave"),
        });
    }

    /// Seals every cursor of a reply.
    pub(super) fn seal_all(&self, shape: &Shape, value: &mut Val) {
        each_cursor(shape, value, &Path::Root, &mut |cursor, _| *cursor = self.seal(cursor));
    }
}

/// Whether a value of this shape may have a cursor in it.
pub fn has_cursor(shape: &Shape) -> bool {
    match shape {
        Shape::Text(kind) => *kind == Text::Cursor,
        Shape::List(inner) | Shape::Option(inner) => has_cursor(inner),
        Shape::Bounded(bounded) => has_cursor(&bounded.shape),
        Shape::Tuple(items) => items.iter().any(has_cursor),
        Shape::Record(record) => record.fields.iter().any(|field| has_cursor(&field.shape)),
        Shape::Variant(variant) => variant.cases.iter().any(|case| case.fields.fields.iter().any(|field| has_cursor(&field.shape))),
        _ => false,
    }
}

type Visit<'v> = dyn FnMut(&mut String, &Path<'_>) + 'v;

/// Values of another shape are passed over: the encoder refuses them afterwards.
fn each_cursor(shape: &Shape, value: &mut Val, path: &Path<'_>, visit: &mut Visit<'_>) {
    if !has_cursor(shape) {
        return;
    }
    match (shape, value) {
        (Shape::Text(Text::Cursor), Val::String(cursor)) => visit(cursor, path),
        (Shape::Option(inner), Val::Option(Some(value))) => each_cursor(inner, value, path, visit),
        (Shape::Bounded(bounded), value) => each_cursor(&bounded.shape, value, path, visit),
        (Shape::List(inner), Val::List(items)) => {
            for (index, item) in items.iter_mut().enumerate() {
                each_cursor(inner, item, &Path::Item(path, index), visit);
            }
        }
        (Shape::Tuple(shapes), Val::Tuple(items)) => {
            for (index, (shape, item)) in shapes.iter().zip(items).enumerate() {
                each_cursor(shape, item, &Path::Item(path, index), visit);
            }
        }
        (Shape::Record(record), Val::Record(fields)) => each_cursor_of(record, fields, path, visit),
        (Shape::Variant(variant), Val::Variant(name, Some(payload))) => {
            let Some(case) = variant.cases.iter().find(|case| case.name == *name) else { return };
            match &mut **payload {
                Val::Record(fields) => each_cursor_of(&case.fields, fields, path, visit),
                value => {
                    if let [field] = case.fields.fields.as_slice() {
                        each_cursor(&field.shape, value, &Path::Field(path, &field.key), visit);
                    }
                }
            }
        }
        _ => {}
    }
}

fn each_cursor_of(record: &RecordShape, fields: &mut [(String, Val)], path: &Path<'_>, visit: &mut Visit<'_>) {
    for (field, (_, value)) in record.fields.iter().zip(fields) {
        each_cursor(&field.shape, value, &Path::Field(path, &field.key), visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{DecodeError, Encoded, ReplyCodec, RequestCodec, Source};
    use crate::{Input, fixture};

    const ADA: [u8; 16] = [1; 16];
    const BALA: [u8; 16] = [2; 16];
    const LISTS: &str = "
        record page { limit: option<u32>, cursor: option<cursor> }
        record request { %list: string, since: option<u64>, cursor: option<cursor>, page: option<page> }
        record reply { items: list<cursor>, next-cursor: option<cursor>, more: page }
        all: func(request: request) -> result<reply, error>;
        some: func(request: request) -> result<reply, error>;";

    struct List {
        key: CursorKey,
        request: RequestCodec,
        reply: ReplyCodec,
    }

    impl List {
        fn new(secret: u8) -> Self {
            let contract = fixture::thing(LISTS);
            let function = fixture::function(&contract, "api", "all");
            Self {
                key: CursorKey::new(&[secret; 32]),
                request: RequestCodec::compile(function, &[], Source::Body).unwrap(),
                reply: ReplyCodec::compile(function, None).unwrap(),
            }
        }

        fn scope(&self, service: &str, function: &str, caller: Option<&[u8; 16]>, body: &str) -> (CursorScope, Vec<Val>) {
            let params = self.request.decode(&Input::Http { path: &[], query: None, body: Some(body.as_bytes()) }).unwrap();
            (self.request.cursor_scope(&self.key, service, function, caller, &params), params)
        }

        /// The field that is wrong, or what the service gets as `cursor`.
        fn given(&self, function: &str, caller: Option<&[u8; 16]>, body: &str) -> Result<String, String> {
            let (scope, mut params) = self.scope("thing", function, caller, body);
            match self.request.open_cursors(&scope, &mut params) {
                Ok(()) => Ok(format!("{params:?}")),
                Err(DecodeError::Invalid(errors)) => {
                    assert!(errors.iter().all(|error| error.code == CURSOR_INVALID));
                    Err(errors.into_iter().map(|error| error.field).collect::<Vec<_>>().join(" "))
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn option(value: Option<&str>) -> Val {
        Val::Option(value.map(|text| Box::new(Val::String(text.to_owned()))))
    }

    #[test]
    fn a_cursor_is_good_for_its_list_and_its_caller_alone() {
        let list = List::new(7);
        assert!(list.request.has_cursors() && list.reply.has_cursors());
        let (scope, _) = list.scope("thing", "all", Some(&ADA), r#"{"list":"a"}"#);
        let sealed = scope.seal("YWJj");
        assert_eq!(sealed.len(), CURSOR_SEAL_CHARS + 4);
        let body = |list: &str, cursor: &str| format!(r#"{{"list":"{list}","cursor":"{cursor}"}}"#);
        let opened = list.given("all", Some(&ADA), &body("a", &sealed)).expect("its own");
        assert!(opened.contains("\"YWJj\"") && !opened.contains(&sealed), "{opened}");
        // What only narrows the list may change from page to page.
        let narrowed = format!(r#"{{"list":"a","since":5,"cursor":"{sealed}","page":{{"limit":3}}}}"#);
        assert!(list.given("all", Some(&ADA), &narrowed).is_ok());
        // Another host with the same secret, and this one after a restart.
        assert!(List::new(7).given("all", Some(&ADA), &body("a", &sealed)).is_ok());

        for (what, found) in [
            ("another function", list.given("some", Some(&ADA), &body("a", &sealed))),
            ("another caller", list.given("all", Some(&BALA), &body("a", &sealed))),
            ("nobody", list.given("all", None, &body("a", &sealed))),
            ("another list", list.given("all", Some(&ADA), &body("b", &sealed))),
            ("another host", List::new(8).given("all", Some(&ADA), &body("a", &sealed))),
            ("not sealed", list.given("all", Some(&ADA), &body("a", "YWJj"))),
            ("the seal alone", list.given("all", Some(&ADA), &body("a", &sealed[..CURSOR_SEAL_CHARS]))),
        ] {
            assert_eq!(found, Err("cursor".to_owned()), "{what}");
        }
        let (other, _) = list.scope("other", "all", Some(&ADA), r#"{"list":"a"}"#);
        assert_eq!(other.open(&sealed), None, "another service");
        let within = format!(r#"{{"list":"a","cursor":"x","page":{{"cursor":"{sealed}x"}}}}"#);
        assert_eq!(list.given("all", Some(&ADA), &within), Err("cursor page.cursor".to_owned()));
    }

    #[test]
    fn one_changed_letter_is_refused() {
        let list = List::new(7);
        let (scope, _) = list.scope("thing", "all", None, r#"{"list":"a"}"#);
        let sealed = scope.seal("AAXl-_zYWJj");
        assert_eq!(scope.open(&sealed), Some("AAXl-_zYWJj"));
        for at in 0..sealed.len() {
            for letter in (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(*b"-_=") {
                let mut changed = sealed.clone().into_bytes();
                if std::mem::replace(&mut changed[at], letter) != letter {
                    let changed = String::from_utf8(changed).unwrap();
                    assert_eq!(scope.open(&changed), None, "{changed}");
                }
            }
        }
        assert_eq!(scope.open("é".repeat(30).as_str()), None);
        assert_eq!(scope.open(""), None);
    }

    #[test]
    fn every_cursor_of_a_reply_is_sealed_and_no_other_text() {
        let list = List::new(7);
        let (scope, _) = list.scope("thing", "all", Some(&ADA), r#"{"list":"a"}"#);
        let reply = |next: Option<&str>, item: &str| {
            let page = Val::Record(vec![("limit".into(), Val::Option(None)), ("cursor".into(), option(Some("bW9yZQ")))]);
            let items = Val::List(vec![Val::String(item.to_owned())]);
            Val::Result(Ok(Some(Box::new(Val::Record(vec![
                ("items".into(), items),
                ("next-cursor".into(), option(next)),
                ("more".into(), page),
            ])))))
        };
        let mut value = reply(Some("bmV4dA"), "aXRlbQ");
        list.reply.seal_cursors(&scope, &mut value);
        let Encoded::Ok { body: Some(body), .. } = list.reply.encode(&value).unwrap() else { panic!() };
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        for (found, inner) in
            [(&document["items"][0], "aXRlbQ"), (&document["next_cursor"], "bmV4dA"), (&document["more"]["cursor"], "bW9yZQ")]
        {
            assert_eq!(found.as_str().and_then(|sealed| scope.open(sealed)), Some(inner));
        }
        // A service's fault stays one.
        let mut value = reply(None, "no cursor");
        list.reply.seal_cursors(&scope, &mut value);
        assert!(list.reply.encode(&value).is_err());
    }
}
