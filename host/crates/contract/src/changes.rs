//! What an operator changes of the JSON that clients see: other names for fields, and values for what is missing. Of a function it makes the function that
//! clients see, of which the codecs and the documents are compiled; a document of an outside service, whose types nobody knows, is rewritten as text. Knows no
//! routes.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::codec::json::{Broken, Kind, Reader};
use super::codec::shape::{key_of, snake_case};
use super::schema::{Side, is_option};
use super::wit::{Alias, Function, Record, ResultType, Type};
use echo_base::json_text::write_string;
use echo_base::limits;

/// In the order of what happens: first names, then defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FieldChanges {
    /// From a field as it comes to its name as it goes on, in the same place: `user_id = "id"`, or `items.user_id` within the objects of a list.
    pub rename: BTreeMap<String, String>,
    /// What a field is where it is missing, or null where it may be; by its name as it goes on.
    pub default: BTreeMap<String, Value>,
}

impl FieldChanges {
    pub fn is_empty(&self) -> bool {
        self.rename.is_empty() && self.default.is_empty()
    }

    /// What is wrong whatever the documents are.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.rename.len() + self.default.len() > limits::FIELD_CHANGES_MAX {
            problems.push(format!("at most {} fields", limits::FIELD_CHANGES_MAX));
        }
        let paths = self.rename.keys().map(|path| ("rename", path)).chain(self.default.keys().map(|path| ("default", path)));
        for (what, path) in paths {
            let depth = path.split('.').count();
            if !path.split('.').all(is_name) || depth > limits::FIELD_CHANGE_DEPTH_MAX {
                let most = limits::FIELD_CHANGE_DEPTH_MAX;
                problems.push(format!("{what}: {path:?} is no field: write names divided by dots, {most} at the most"));
            }
        }
        let mut taken = HashSet::new();
        for (path, to) in &self.rename {
            let (place, from) = path.rsplit_once('.').unwrap_or(("", path));
            if !is_name(to) {
                problems.push(format!("rename: {to:?} is no name: a field stays where it is, and gets another name there"));
            } else if from == to {
                problems.push(format!("rename: {path} has this name already"));
            } else if !taken.insert((place, to)) {
                problems.push(format!("rename: two fields would be named {}", within(place, to)));
            }
        }
        for (path, value) in &self.default {
            // What TOML's own times look like, which JSON has not.
            if value.as_object().is_some_and(|object| object.keys().any(|key| key.starts_with("$__toml"))) {
                problems.push(format!("default: {path}: write a time in quotes"));
            }
        }
        problems
    }

    /// The function as clients call it. `in_path`: the fields that the path gives, snake_case.
    pub fn of_request(&self, function: &Function, in_path: &[&str]) -> Result<Function, Vec<String>> {
        let mut changing = Changing { side: Side::Request, fixed: in_path, problems: Vec::new() };
        let mut changed = function.clone();
        let (renames, defaults) = (Tree::of(&self.rename), Tree::of(&self.default));
        match changed.params.first_mut() {
            Some(param) => match changing.ty(&param.ty, "", Some(&renames), Some(&defaults)) {
                Some(ty) => param.ty = ty,
                None => changing.problems.push("the route takes no fields".to_owned()),
            },
            None => changing.problems.push("the route takes no fields".to_owned()),
        }
        changing.done(changed)
    }

    /// The function as clients are answered. `omitted`: a field of the reply that is not sent.
    pub fn of_reply(&self, function: &Function, omitted: Option<&str>) -> Result<Function, Vec<String>> {
        let omitted = omitted.map(snake_case);
        let fixed: Vec<&str> = omitted.as_deref().into_iter().collect();
        let mut changing = Changing { side: Side::Reply, fixed: &fixed, problems: Vec::new() };
        let mut changed = function.clone();
        let (renames, defaults) = (Tree::of(&self.rename), Tree::of(&self.default));
        let reply = match function.result.as_ref().map(Type::structure) {
            Some(Type::Result(result)) => {
                let ok = result.ok.as_ref().and_then(|ok| changing.ty(ok, "", Some(&renames), Some(&defaults)));
                ok.map(|ok| Type::Result(Arc::new(ResultType { ok: Some(ok), err: result.err.clone() })))
            }
            _ => None,
        };
        match reply {
            Some(reply) => changed.result = Some(reply),
            None => changing.problems.push("the route answers with no fields".to_owned()),
        }
        changing.done(changed)
    }
}

/// One to 64 printable characters without a dot, a quote and a backslash.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'.' | b'"' | b'\\'))
}

fn within(place: &str, name: &str) -> String {
    if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") }
}

/// Entries by the parts of their paths.
#[derive(Debug)]
struct Tree<T>(BTreeMap<String, Branch<T>>);

#[derive(Debug)]
struct Branch<T> {
    here: Option<T>,
    below: Tree<T>,
}

impl<T: Clone> Tree<T> {
    fn of(entries: &BTreeMap<String, T>) -> Self {
        let mut tree = Self(BTreeMap::new());
        for (path, entry) in entries {
            let (mut place, mut parts) = (&mut tree, path.split('.').peekable());
            while let Some(part) = parts.next() {
                let branch = place.0.entry(part.to_owned()).or_insert_with(|| Branch { here: None, below: Self(BTreeMap::new()) });
                if parts.peek().is_none() {
                    branch.here = Some(entry.clone());
                }
                place = &mut branch.below;
            }
        }
        tree
    }
}

impl<T> Branch<T> {
    fn below(&self) -> Option<&Tree<T>> {
        (!self.below.0.is_empty()).then_some(&self.below)
    }
}

/// A contract's types on their way to those that clients see.
struct Changing<'a> {
    side: Side,
    /// Fields at the top that stay as they are.
    fixed: &'a [&'a str],
    problems: Vec<String>,
}

type Renames<'t> = Option<&'t Tree<String>>;
type Defaults<'t> = Option<&'t Tree<Value>>;

impl Changing<'_> {
    fn done(self, changed: Function) -> Result<Function, Vec<String>> {
        if self.problems.is_empty() { Ok(changed) } else { Err(self.problems) }
    }

    /// None where there are no fields.
    fn ty(&mut self, ty: &Type, place: &str, renames: Renames<'_>, defaults: Defaults<'_>) -> Option<Type> {
        Some(match ty {
            Type::Option(inner) => Type::Option(Arc::new(self.ty(inner, place, renames, defaults)?)),
            Type::List(item) => Type::List(Arc::new(self.ty(item, place, renames, defaults)?)),
            Type::Record(record) => Type::Record(Arc::new(self.record(record, place, renames, defaults))),
            Type::Alias(alias) => {
                let target = self.ty(&alias.target, place, renames, defaults)?;
                Type::Alias(Arc::new(Alias { target, ..(**alias).clone() }))
            }
            _ => return None,
        })
    }

    fn record(&mut self, record: &Record, place: &str, renames: Renames<'_>, defaults: Defaults<'_>) -> Record {
        let mut changed = record.clone();
        let mut below: BTreeMap<usize, (Renames<'_>, Defaults<'_>)> = BTreeMap::new();
        for (name, branch) in renames.into_iter().flat_map(|tree| &tree.0) {
            let (own, seen) = match (self.side, &branch.here) {
                (Side::Request, Some(to)) => (to, name),
                (Side::Reply, Some(to)) => (name, to),
                (_, None) => (name, name),
            };
            let Some(index) = self.find(record, place, own, "rename") else { continue };
            if branch.here.is_some() && self.may_change(place, own, "rename") {
                changed.fields[index].alias = Some(seen.clone());
            }
            if let Some(tree) = branch.below() {
                below.entry(index).or_default().0 = Some(tree);
            }
        }
        for (name, branch) in defaults.into_iter().flat_map(|tree| &tree.0) {
            let renamed = changed.fields.iter().find(|field| self.side == Side::Reply && field.alias.as_ref() == Some(name));
            let own = renamed.map_or_else(|| name.clone(), |field| snake_case(&field.name));
            let Some(index) = self.find(record, place, &own, "default") else { continue };
            if let Some(value) = branch.here.as_ref().filter(|_| self.may_change(place, &own, "default")) {
                if self.side == Side::Reply && !is_option(&changed.fields[index].ty) {
                    self.problems.push(format!("default: {} is never null", within(place, name)));
                }
                changed.fields[index].default = Some(value.to_string());
            }
            if let Some(tree) = branch.below() {
                below.entry(index).or_default().1 = Some(tree);
            }
        }
        for (index, (renames, defaults)) in below {
            let field = &mut changed.fields[index];
            let path = within(place, &snake_case(&field.name));
            match self.ty(&field.ty, &path, renames, defaults) {
                Some(ty) => field.ty = ty,
                None => self.problems.push(format!("{path} has no fields of its own that could be changed")),
            }
        }
        let mut seen = HashSet::new();
        for key in changed.fields.iter().map(key_of) {
            if !seen.insert(key.clone()) {
                self.problems.push(format!("rename: two fields would be named {}", within(place, &key)));
            }
        }
        changed
    }

    fn find(&mut self, record: &Record, place: &str, own: &str, what: &str) -> Option<usize> {
        let index = record.fields.iter().position(|field| snake_case(&field.name) == own);
        if index.is_none() {
            let likeness = |known: &str| strsim::normalized_damerau_levenshtein(known, own);
            let known = record.fields.iter().map(|field| snake_case(&field.name)).map(|known| (likeness(&known), known));
            let nearest = known.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(likeness, _)| *likeness > 0.5);
            let nearest = nearest.map(|(_, known)| format!("; did you mean {}?", within(place, &known))).unwrap_or_default();
            self.problems.push(format!("{what}: the service has no field {}{nearest}", within(place, own)));
        }
        index
    }

    fn may_change(&mut self, place: &str, own: &str, what: &str) -> bool {
        let is_fixed = place.is_empty() && self.fixed.contains(&own);
        if is_fixed {
            let why = if self.side == Side::Request { "is in the path" } else { "decides the status and is not sent" };
            self.problems.push(format!("{what}: {own} {why}"));
        }
        !is_fixed
    }
}

/// The same for documents whose types are not known: all else in them stays byte for byte. What is no object, nor a list of them, has no fields.
#[derive(Debug)]
pub struct BodyChanges {
    renames: Tree<String>,
    defaults: Tree<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("it is no JSON: {0}")]
    Unreadable(String),
    #[error("it has both the field {0} and another that is renamed to it")]
    Twice(String),
}

impl From<Broken> for BodyError {
    fn from(broken: Broken) -> Self {
        Self::Unreadable(broken.to_string())
    }
}

impl BodyChanges {
    /// None where nothing is changed.
    pub fn new(changes: &FieldChanges) -> Option<Self> {
        (!changes.is_empty()).then(|| Self { renames: Tree::of(&changes.rename), defaults: Tree::of(&changes.default) })
    }

    pub fn apply(&self, document: &[u8]) -> Result<Vec<u8>, BodyError> {
        let mut rewriting = Rewriting { reader: Reader::new(document)?, out: Vec::with_capacity(document.len() + 256) };
        rewriting.value(Some(&self.renames), Some(&self.defaults))?;
        rewriting.reader.finish()?;
        Ok(rewriting.out)
    }
}

struct Rewriting<'a> {
    reader: Reader<'a>,
    out: Vec<u8>,
}

impl Rewriting<'_> {
    fn value(&mut self, renames: Renames<'_>, defaults: Defaults<'_>) -> Result<(), BodyError> {
        if renames.is_none() && defaults.is_none() {
            self.out.extend_from_slice(self.reader.skip()?.as_bytes());
            return Ok(());
        }
        match self.reader.peek()? {
            Kind::Object => self.object(renames, defaults),
            Kind::Array => {
                self.reader.open_array()?;
                self.out.push(b'[');
                let mut first = true;
                let mut separate = false;
                while self.reader.next_item(&mut first)? {
                    if std::mem::replace(&mut separate, true) {
                        self.out.push(b',');
                    }
                    self.value(renames, defaults)?;
                }
                self.out.push(b']');
                Ok(())
            }
            _ => self.value(None, None),
        }
    }

    fn object(&mut self, renames: Renames<'_>, defaults: Defaults<'_>) -> Result<(), BodyError> {
        self.reader.open_object()?;
        self.out.push(b'{');
        // Of the names that something is renamed to, or that have a default: the ones that are written, and whether they came so.
        let mut written: Vec<(&str, bool)> = Vec::new();
        let (mut first, mut separate) = (true, false);
        while let Some(key) = self.reader.next_key(&mut first)? {
            let branch = renames.and_then(|tree| tree.0.get(&*key));
            let renamed = branch.and_then(|branch| branch.here.as_deref());
            let name = renamed.unwrap_or(&key);
            let default = defaults.and_then(|tree| tree.0.get_key_value(name));
            let targets = renames.into_iter().flat_map(|tree| tree.0.values());
            if let Some(known) = targets.filter_map(|branch| branch.here.as_deref()).find(|target| *target == name) {
                if written.iter().any(|(other, is_renamed)| *other == known && (*is_renamed || renamed.is_some())) {
                    return Err(BodyError::Twice(name.to_owned()));
                }
                written.push((known, renamed.is_some()));
            } else if let Some((known, _)) = default
                && !written.iter().any(|(other, _)| *other == known)
            {
                written.push((known.as_str(), false));
            }
            self.name(name, &mut separate);
            let here = default.and_then(|(_, branch)| branch.here.as_ref());
            match here.filter(|_| matches!(self.reader.peek(), Ok(Kind::Null))) {
                Some(value) => {
                    self.reader.null()?;
                    self.out.extend_from_slice(value.to_string().as_bytes());
                }
                None => self.value(branch.and_then(Branch::below), default.and_then(|(_, branch)| branch.below()))?,
            }
        }
        for (name, branch) in defaults.into_iter().flat_map(|tree| &tree.0) {
            if let Some(value) = branch.here.as_ref().filter(|_| !written.iter().any(|(other, _)| other == name)) {
                self.name(name, &mut separate);
                self.out.extend_from_slice(value.to_string().as_bytes());
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    fn name(&mut self, name: &str, separate: &mut bool) {
        if std::mem::replace(separate, true) {
            self.out.push(b',');
        }
        write_string(&mut self.out, name);
        self.out.push(b':');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::codec::{DecodeError, Encoded, ReplyCodec, RequestCodec, Source};
    use crate::fixture;
    use crate::{Input, openapi};
    use wasmtime::component::Val;

    fn changes(text: Value) -> FieldChanges {
        serde_json::from_value(text).unwrap()
    }

    fn contract() -> crate::wit::Contract {
        fixture::thing(
            "record inner { size: u32, unit: option<string> }
             record request { id: uuid, display-name: option<string>, inner: option<inner>, count: u16 }
             record reply { id: uuid, items: list<inner>, created: bool, note: option<string> }
             go: func(request: request) -> result<reply, error>;
             stop: func() -> result<_, error>;",
        )
    }

    const ID: &str = "0190b1c5-0000-7000-8000-000000000001";

    #[test]
    fn a_request_is_read_by_the_names_that_clients_use_and_its_faults_name_them() {
        let contract = contract();
        let function = fixture::function(&contract, "api", "go");
        let changed = changes(json!({ "rename": { "nick": "display_name", "box": "inner", "box.length": "size" },
            "default": { "count": 7, "inner.unit": "cm" } }));
        let changed = changed.of_request(function, &["id"]).unwrap();
        let codec = RequestCodec::compile(&changed, &["id"], Source::Body).unwrap();
        let decode = |body: &str| codec.decode(&Input::Http { path: &[("id", ID)], query: None, body: Some(body.as_bytes()) });
        let decoded = decode(r#"{"nick":"Ada","box":{"length":3,"unit":null}}"#).unwrap();
        let [Val::Record(fields)] = &decoded[..] else { panic!() };
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["id", "display-name", "inner", "count"], "the service's own");
        assert_eq!(fields[1].1, Val::Option(Some(Box::new(Val::String("Ada".to_owned())))));
        assert_eq!(fields[3].1, Val::U16(7));
        let Val::Option(Some(inner)) = &fields[2].1 else { panic!() };
        let Val::Record(inner) = &**inner else { panic!() };
        assert_eq!(inner[1].1, Val::Option(Some(Box::new(Val::String("cm".to_owned())))));
        let Err(DecodeError::Invalid(wrong)) = decode(r#"{"display_name":"Ada","box":{},"count":99999}"#) else { panic!() };
        let fields: Vec<&str> = wrong.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["display_name", "box.length", "count"]);
        for (own, expect) in
            [("display_name", "nick"), ("inner.size", "box.length"), ("inner[3].size", "box[3].length"), ("other.x", "other.x")]
        {
            assert_eq!(codec.clients_path(own), expect);
        }
    }

    #[test]
    fn a_reply_has_the_names_and_the_values_that_clients_are_given() {
        let contract = contract();
        let function = fixture::function(&contract, "api", "go");
        let changed = changes(
            json!({ "rename": { "id": "thing_id", "items.unit": "measure" }, "default": { "note": "none", "items.measure": "m" } }),
        );
        let changed = changed.of_reply(function, Some("created")).unwrap();
        let codec = ReplyCodec::compile(&changed, Some("created")).unwrap();
        let item = Val::Record(vec![("size".to_owned(), Val::U32(1)), ("unit".to_owned(), Val::Option(None))]);
        let reply = Val::Record(vec![
            ("id".to_owned(), Val::String(ID.to_owned())),
            ("items".to_owned(), Val::List(vec![item])),
            ("created".to_owned(), Val::Bool(true)),
            ("note".to_owned(), Val::Option(None)),
        ]);
        let Ok(Encoded::Ok { body: Some(body), status_flag: Some(true) }) = codec.encode(&Val::Result(Ok(Some(Box::new(reply))))) else {
            panic!()
        };
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body, json!({ "thing_id": ID, "items": [{ "size": 1, "measure": "m" }], "note": "none" }));
    }

    #[test]
    fn the_document_says_what_clients_see() {
        let contract = contract();
        let function = fixture::function(&contract, "api", "go");
        let request = changes(json!({ "rename": { "nick": "display_name" }, "default": { "count": 7 } }));
        let reply = changes(json!({ "rename": { "items.unit": "measure" }, "default": { "items.measure": "m" } }));
        let changed = reply.of_reply(&request.of_request(function, &["id"]).unwrap(), None).unwrap();
        let operation = |function, path| openapi::Operation {
            service: "thing",
            contract: &contract,
            function,
            method: "POST",
            path,
            public: true,
            role: None,
            status: 200,
            status_unless: None,
            file: None,
        };
        let document = openapi::document("Echo", "1", &[operation(function, "/plain/{id}"), operation(&changed, "/changed/{id}")]);
        let body = |path: &str| document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"].clone();
        assert_eq!(body("/changed/{id}")["properties"]["count"]["default"], 7);
        assert!(body("/changed/{id}")["properties"]["nick"].is_object() && body("/changed/{id}")["properties"]["display_name"].is_null());
        assert!(body("/changed/{id}")["required"].is_null() && body("/plain/{id}")["required"] == json!(["count"]));
        let item = |path: &str| {
            let at = |schema: &Value| document.pointer(schema["$ref"].as_str().unwrap().trim_start_matches('#')).unwrap().clone();
            let reply = at(&document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"]);
            at(&reply["properties"]["items"]["items"])
        };
        assert_eq!(item("/plain/{id}")["properties"]["unit"]["type"], json!(["string", "null"]));
        assert_eq!(item("/changed/{id}")["properties"]["measure"]["type"], "string");
    }

    #[test]
    fn what_does_not_fit_the_contract_is_refused_with_the_nearest_name() {
        let contract = contract();
        let (go, stop) = (fixture::function(&contract, "api", "go"), fixture::function(&contract, "api", "stop"));
        let refused = |answer: Result<Function, Vec<String>>, expect: &str| {
            let said = answer.map(|_| ()).unwrap_err().join("; ");
            assert!(said.contains(expect), "{said:?} does not say {expect:?}");
        };
        let request = |text| changes(text).of_request(go, &["id"]);
        let reply = |text| changes(text).of_reply(go, Some("created"));
        refused(request(json!({ "rename": { "nick": "display_nam" } })), "no field display_nam; did you mean display_name?");
        refused(request(json!({ "rename": { "inner.length": "siz" } })), "no field inner.siz; did you mean inner.size?");
        refused(request(json!({ "rename": { "count": "display_name" } })), "two fields would be named count");
        refused(request(json!({ "rename": { "thing": "id" } })), "id is in the path");
        refused(request(json!({ "default": { "id": ID } })), "id is in the path");
        refused(request(json!({ "default": { "count.x": 1 } })), "count has no fields");
        refused(reply(json!({ "rename": { "not": "x" } })), "no field not; did you mean note?");
        refused(reply(json!({ "rename": { "created": "made" } })), "created decides the status");
        refused(reply(json!({ "default": { "id": ID } })), "id is never null");
        refused(reply(json!({ "rename": { "id": "note" } })), "two fields would be named note");
        refused(changes(json!({ "default": { "x": 1 } })).of_request(stop, &[]), "takes no fields");
        refused(changes(json!({ "default": { "x": 1 } })).of_reply(stop, None), "answers with no fields");
        let wrong = request(json!({ "default": { "count": "many" } })).unwrap();
        let said = RequestCodec::compile(&wrong, &["id"], Source::Body).err().unwrap().to_string();
        assert!(said.contains("count") && said.contains("default"), "{said}");
        request(json!({ "rename": { "display_name": "count", "count": "display_name" } })).unwrap();
        for (text, expect) in [
            (json!({ "rename": { "a": "c", "b": "c" } }), "two fields would be named c"),
            (json!({ "rename": { "a": "a" } }), "this name already"),
            (json!({ "rename": { "a": "b.c" } }), "no name"),
            (json!({ "rename": { "a..b": "c" } }), "no field"),
            (json!({ "default": { "a b": 1 } }), "no field"),
        ] {
            let said = changes(text).problems().join("; ");
            assert!(said.contains(expect), "{said:?} does not say {expect:?}");
        }
        assert_eq!(changes(json!({ "rename": { "a.x": "c", "b.x": "c" } })).problems(), Vec::<String>::new());
    }

    #[test]
    fn a_document_is_rewritten_and_all_else_of_it_stays() {
        let rewritten = |text: Value, document: &str| {
            let rewritten = BodyChanges::new(&changes(text)).unwrap().apply(document.as_bytes());
            rewritten.map(|bytes| String::from_utf8(bytes).unwrap())
        };
        let check = |text, document: &str, expect: &str| assert_eq!(rewritten(text, document).as_deref(), Ok(expect));
        let swap = || json!({ "rename": { "a": "b", "b": "a" } });
        check(swap(), r#"{"a": 1.50, "b" :1e400,"c": "\u00e9"}"#, r#"{"b":1.50,"a":1e400,"c":"\u00e9"}"#);
        check(
            json!({ "rename": { "items.id": "key" } }),
            r#"{"id":1,"items":[{"id":2},{"id":[3]}, 4]}"#,
            r#"{"id":1,"items":[{"key":2},{"key":[3]},4]}"#,
        );
        check(json!({ "rename": { "a": "b" } }), r#"[{"a":1},{"a":2}]"#, r#"[{"b":1},{"b":2}]"#);
        check(json!({ "default": { "n": "x", "o.p": 1 } }), r#"{"n":null,"o":{}}"#, r#"{"n":"x","o":{"p":1}}"#);
        check(json!({ "rename": { "a": "b" }, "default": { "b": 0 } }), r#"{"a":5}"#, r#"{"b":5}"#);
        check(json!({ "rename": { "a": "b" }, "default": { "b": 0 } }), "{}", r#"{"b":0}"#);
        check(swap(), "\"a\"", "\"a\"");
        assert_eq!(rewritten(json!({ "rename": { "a": "b" } }), r#"{"b":1,"a":2}"#), Err(BodyError::Twice("b".to_owned())));
        assert_eq!(rewritten(json!({ "rename": { "a": "b" } }), r#"{"a":1,"b":2}"#), Err(BodyError::Twice("b".to_owned())));
        assert!(matches!(rewritten(swap(), r#"{"a":1"#), Err(BodyError::Unreadable(_))));
        assert!(matches!(rewritten(swap(), "{} x"), Err(BodyError::Unreadable(_))));
        assert!(matches!(rewritten(swap(), &"[".repeat(10_000)), Err(BodyError::Unreadable(_))));
    }
}
