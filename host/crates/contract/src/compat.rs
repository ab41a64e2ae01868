//! Compatibility: whether one contract may replace another. Within a major and minor version of a package only additions are allowed: functions,
//! option fields of requests, fields of replies; bounds of requests may widen and those of replies narrow. Knows nothing of versions being live, and changes no values (that is `adapt.rs`).

use std::fmt;

use super::bounds::Bounds;
use super::wit::{Contract, Enumeration, Function, Interface, Record, Type};

/// One reason why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incompatible {
    /// `echo:auth/api@0.1.0`.
    pub interface: String,
    /// Empty when the whole interface is meant.
    pub function: String,
    /// Names the field.
    pub reason: String,
}

/// Whether `new` may replace `old` for its clients.
pub fn check_exports(old: &Contract, new: &Contract) -> Vec<Incompatible> {
    let mut reasons = Vec::new();
    for old_interface in old.exports().iter().filter(|interface| interface.namespace == "echo") {
        match new.exports().iter().find(|interface| interface.same_track(old_interface)) {
            Some(new_interface) => compare(old_interface, new_interface, CallerKind::Outside, true, &mut reasons),
            // Another major or minor version is another contract; services that depend on the old one are checked by `check_dependent`.
            None if new.exports().iter().any(|interface| interface.same_name(old_interface)) => {}
            None => reasons.push(whole(old_interface, "it is not exported any more")),
        }
    }
    // Clients receive what the service pushes: to them it is a reply.
    for pushed in old.imports().iter().filter(|interface| interface.namespace == "echo" && interface.name == "pushes") {
        let Some(newer) = new.imports().iter().find(|interface| interface.same_track(pushed)) else { continue };
        for function in &pushed.functions {
            let (Some(old), Some(new)) = (function.params.last(), newer.function(&function.name).and_then(|newer| newer.params.last()))
            else {
                continue;
            };
            let mut found = Reasons { interface: &pushed.id, function: &function.name, with_bounds: true, found: &mut reasons };
            compare_types(&mut found, "push", (&old.ty, &NONE), (&new.ty, &NONE), Direction::Reply);
        }
    }
    reasons
}

/// Whether the calls of `importer` can be answered by `exporter`. Interfaces that the exporter does not have belong to other services.
pub fn check_dependent(importer: &Contract, exporter: &Contract) -> Vec<Incompatible> {
    let mut reasons = Vec::new();
    for imported in importer.imports().iter().filter(|interface| interface.namespace == "echo") {
        match exporter.exports().iter().find(|interface| interface.same_track(imported)) {
            Some(exported) => compare(imported, exported, CallerKind::Service, importer.is_documented(), &mut reasons),
            None => {
                if let Some(other) = exporter.exports().iter().find(|interface| interface.same_name(imported)) {
                    reasons.push(whole(imported, &format!("{} is exported instead", other.id)));
                }
            }
        }
    }
    reasons
}

/// Whether the values of a call made for `importer` can be those of `exporter`. Bounds are left out: the host holds each call to its receiver's.
pub fn check_function(interface: &str, importer: &Function, exporter: &Function) -> Vec<Incompatible> {
    let mut reasons = Vec::new();
    let mut found = Reasons { interface, function: &importer.name, with_bounds: false, found: &mut reasons };
    compare_function(&mut found, importer, exporter, CallerKind::Service, false);
    reasons
}

impl fmt::Display for Incompatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.function.is_empty() {
            write!(f, "{}: {}", self.interface, self.reason)
        } else {
            write!(f, "{}, {}: {}", self.interface, self.function, self.reason)
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CallerKind {
    /// Clients, through JSON: they know the old contract.
    Outside,
    /// Another service, through values: it was built against the old contract.
    Service,
}

/// Which way the values go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// From the old side, the caller, to the new side.
    Request,
    /// As a request, but what the receiver does not know is dropped on the way.
    Event,
    /// From the new side to the old one.
    Reply,
}

struct Reasons<'a> {
    interface: &'a str,
    function: &'a str,
    with_bounds: bool,
    found: &'a mut Vec<Incompatible>,
}

impl Reasons<'_> {
    fn add(&mut self, reason: String) {
        self.found.push(Incompatible { interface: self.interface.to_owned(), function: self.function.to_owned(), reason });
    }
}

fn whole(interface: &Interface, reason: &str) -> Incompatible {
    Incompatible { interface: interface.id.clone(), function: String::new(), reason: reason.to_owned() }
}

fn compare(old: &Interface, new: &Interface, caller: CallerKind, with_bounds: bool, found: &mut Vec<Incompatible>) {
    for function in &old.functions {
        let mut reasons = Reasons { interface: &old.id, function: &function.name, with_bounds, found };
        match new.function(&function.name) {
            Some(newer) => compare_function(&mut reasons, function, newer, caller, old.name == "events"),
            None => reasons.add("it is not there any more".to_owned()),
        }
    }
}

fn compare_function(reasons: &mut Reasons<'_>, old: &Function, new: &Function, caller: CallerKind, is_event: bool) {
    if old.is_async != new.is_async {
        return reasons.add("one of them is async".to_owned());
    }
    if old.params.len() != new.params.len() {
        return reasons.add(format!("it had {} parameters and has {}", old.params.len(), new.params.len()));
    }
    // A subscriber reads events from JSON and passes over what it does not know.
    let direction = if is_event && caller == CallerKind::Service { Direction::Event } else { Direction::Request };
    for (old, new) in old.params.iter().zip(&new.params) {
        compare_types(reasons, &old.name, (&old.ty, &NONE), (&new.ty, &NONE), direction);
    }
    match (&old.result, &new.result) {
        (None, None) => {}
        (Some(old), Some(new)) => compare_types(reasons, "reply", (old, &NONE), (new, &NONE), Direction::Reply),
        _ => reasons.add("one of them gives a result and the other does not".to_owned()),
    }
}

const NONE: Bounds =
    Bounds { length: None, items: None, range: None, text: None, patterns: Vec::new(), code: None, examples: Vec::new(), wanted: None };

/// Each type with the bounds that stand where it is used.
fn compare_types(reasons: &mut Reasons<'_>, path: &str, old: (&Type, &Bounds), new: (&Type, &Bounds), direction: Direction) {
    let ((old, old_bounds), (new, new_bounds)) = (old, new);
    let changed = |reasons: &mut Reasons<'_>| reasons.add(format!("{path} was {} and is {}", old.describe(), new.describe()));
    if old.meaning() != new.meaning() {
        return changed(reasons);
    }
    let ((old_structure, old_bounds), (new_structure, new_bounds)) = (old.bounded(old_bounds), new.bounded(new_bounds));
    match (old_structure, new_structure) {
        (Type::List(old), Type::List(new)) => {
            compare_bounds(reasons, path, &old_bounds.of_list(), &new_bounds.of_list(), direction);
            let (old_bounds, new_bounds) = (old_bounds.of_items(), new_bounds.of_items());
            compare_types(reasons, &format!("{path}[]"), (old, &old_bounds), (new, &new_bounds), direction);
        }
        (Type::Option(old), Type::Option(new)) => compare_types(reasons, path, (old, &old_bounds), (new, &new_bounds), direction),
        (Type::Tuple(olds), Type::Tuple(news)) if olds.len() == news.len() => {
            for (index, (old, new)) in olds.iter().zip(news.iter()).enumerate() {
                compare_types(reasons, &format!("{path}[{index}]"), (old, &NONE), (new, &NONE), direction);
            }
        }
        (Type::Result(olds), Type::Result(news)) => {
            for (side, old, new) in [("", &olds.ok, &news.ok), (" error", &olds.err, &news.err)] {
                match (old, new) {
                    (None, None) => {}
                    (Some(old), Some(new)) => {
                        compare_types(reasons, &format!("{path}{side}"), (old, &NONE), (new, &NONE), direction);
                    }
                    _ => return changed(reasons),
                }
            }
        }
        (Type::Record(old), Type::Record(new)) => compare_records(reasons, path, old, new, direction),
        (Type::Variant(olds), Type::Variant(news)) => {
            let (old_names, new_names) = (olds.cases.iter().map(|case| &case.name), news.cases.iter().map(|case| &case.name));
            if !old_names.eq(new_names) {
                return reasons.add(format!("{path}: the cases of variant {} changed", olds.name));
            }
            for (old, new) in olds.cases.iter().zip(&news.cases) {
                match (&old.ty, &new.ty) {
                    (None, None) => {}
                    (Some(old_ty), Some(new_ty)) => {
                        let (old_ty, new_ty) = ((old_ty, &old.bounds), (new_ty, &new.bounds));
                        compare_types(reasons, &format!("{path}.{}", old.name), old_ty, new_ty, direction);
                    }
                    _ => reasons.add(format!("{path}: case {} of variant {} changed", old.name, olds.name)),
                }
            }
        }
        (Type::Enum(old), Type::Enum(new)) => compare_names(reasons, path, "enum", old, new),
        (Type::Flags(old), Type::Flags(new)) => compare_names(reasons, path, "flags", old, new),
        // Handles cannot be compared, and no call between services has one.
        (Type::Opaque(old), Type::Opaque(new)) if old == new => {}
        (old_structure, new_structure) => {
            let simple = !matches!(old_structure, Type::Tuple(_) | Type::Opaque(_));
            if !simple || std::mem::discriminant(old_structure) != std::mem::discriminant(new_structure) {
                changed(reasons);
            } else {
                compare_bounds(reasons, path, &old_bounds, &new_bounds, direction);
            }
        }
    }
}

/// What is received must be taken as widely as before, what is given away kept as narrowly.
fn compare_bounds(reasons: &mut Reasons<'_>, path: &str, old: &Bounds, new: &Bounds, direction: Direction) {
    if !reasons.with_bounds {
        return;
    }
    match direction {
        Direction::Request | Direction::Event => {
            new.narrower_than(old).into_iter().for_each(|reason| reasons.add(format!("{path} takes less: its {reason}")));
        }
        Direction::Reply => {
            old.narrower_than(new)
                .into_iter()
                .for_each(|reason| reasons.add(format!("{path} may be more than was promised: its {reason}")));
        }
    }
}

fn compare_records(reasons: &mut Reasons<'_>, path: &str, old: &Record, new: &Record, direction: Direction) {
    let find = |record: &Record, name: &str| record.fields.iter().position(|field| field.name == name);
    for field in &old.fields {
        match find(new, &field.name) {
            Some(index) => {
                let newer = &new.fields[index];
                compare_types(
                    reasons,
                    &format!("{path}.{}", field.name),
                    (&field.ty, &field.bounds),
                    (&newer.ty, &newer.bounds),
                    direction,
                );
            }
            None if direction == Direction::Event => {}
            None => reasons.add(format!("{path}.{} of record {} is not there any more", field.name, old.name)),
        }
    }
    if direction == Direction::Reply {
        return;
    }
    for field in new.fields.iter().filter(|field| find(old, &field.name).is_none()) {
        if !matches!(field.ty.structure(), Type::Option(_)) {
            reasons.add(format!("{path}.{} of record {} is new and not an option", field.name, new.name));
        }
    }
}

fn compare_names(reasons: &mut Reasons<'_>, path: &str, kind: &str, old: &Enumeration, new: &Enumeration) {
    let names = |cases: &Enumeration| cases.cases.iter().map(|case| case.name.clone()).collect::<Vec<_>>();
    let (olds, news) = (names(old), names(new));
    if olds == news {
        return;
    }
    let gone: Vec<_> = olds.iter().filter(|name| !news.contains(name)).map(|name| format!("-{name}")).collect();
    let added: Vec<_> = news.iter().filter(|name| !olds.contains(name)).map(|name| format!("+{name}")).collect();
    let what = if gone.is_empty() && added.is_empty() { "their order".to_owned() } else { [gone, added].concat().join(" ") };
    reasons.add(format!("{path}: {kind} {} changed ({what})", old.name));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    const BASE: &str = "
        enum colour { red, blue }
        record inner { a: u8 }
        record request { id: uuid, name: option<string>, inners: option<list<inner>> }
        record reply { id: uuid, colour: colour, inner: inner }
        go: func(request: request) -> result<reply, error>;
        stop: func() -> result<_, error>;";

    fn check(change: &[(&str, &str)], expect: &[&str]) {
        let mut body = BASE.to_owned();
        for (from, to) in change {
            assert!(body.contains(from), "{from}");
            body = body.replace(from, to);
        }
        let found = check_exports(&fixture::thing(BASE), &fixture::thing(&body));
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expect.len(), "{change:?}: {found:?}");
        for (found, expect) in found.iter().zip(expect) {
            assert!(found.contains(expect), "{found} does not say {expect}");
        }
    }

    #[test]
    fn additions_are_allowed() {
        check(&[], &[]);
        check(&[("name: option<string>", "name: option<string>, more: option<u8>")], &[]);
        check(&[("colour: colour,", "colour: colour, more: u8,")], &[]);
        check(&[("stop:", "more: func() -> result<_, error>; stop:")], &[]);
        check(&[("record inner", "type thing-id = uuid; record inner"), ("record reply { id: uuid", "record reply { id: thing-id")], &[]);
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        check(&[("stop: func() -> result<_, error>;", "")], &["echo:thing/api@0.1.0, stop: it is not there"]);
        check(&[("name: option<string>", "name: option<string>, more: u8")], &["request.more of record request is new and not an option"]);
        check(&[("name: option<string>", "name: string")], &["request.name was option<string> and is string"]);
        check(&[("name: option<string>, ", "")], &["request.name of record request is not there"]);
        check(&[("request { id: uuid", "request { id: string")], &["request.id was uuid and is string"]);
        check(&[("reply { id: uuid", "reply { id: u64")], &["reply.id was uuid and is u64"]);
        check(&[("colour: colour, ", "")], &["reply.colour of record reply is not there"]);
        check(&[("red, blue", "red, blue, green")], &["reply.colour: enum colour changed (+green)"]);
        check(&[("red, blue", "blue, red")], &["enum colour changed (their order)"]);
        check(&[("inner { a: u8", "inner { a: u16")], &["request.inners[].a was u8 and is u16", "reply.inner.a was u8 and is u16"]);
        check(&[("inner { a: u8", "inner { a: u8, b: u8")], &["request.inners[].b of record inner is new"]);
        check(&[("stop: func()", "stop: func(request: request)")], &["it had 0 parameters and has 1"]);
        check(&[("result<_, error>", "result<inner, error>")], &["stop: reply was result<_, record error>"]);
        check(&[("-> result<reply, error>", "")], &["gives a result"]);
    }

    #[test]
    fn bounds_of_requests_may_widen_and_those_of_replies_narrow() {
        const TAGGED: &str = "
            /// @length 1..=10
            type name = string;
            record inner {
              /// @range 1..=9
              a: u8,
            }
            record request {
              /// @items ..=5
              names: option<list<name>>,
              inner: inner,
              /// @pattern ^a
              code: string,
            }
            record reply { name: name, inner: option<inner> }
            go: func(request: request) -> result<reply, error>;";
        let check = |change: &[(&str, &str)], expect: &[&str]| {
            let changed = change.iter().fold(TAGGED.to_owned(), |body, (from, to)| {
                assert!(body.contains(from), "{from}");
                body.replace(from, to)
            });
            let found = check_exports(&fixture::thing(TAGGED), &fixture::thing(&changed));
            let found: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert_eq!(found.len(), expect.len(), "{change:?}: {found:?}");
            for (found, expect) in found.iter().zip(expect) {
                assert!(found.contains(expect), "{found} does not say {expect}");
            }
        };
        check(&[], &[]);
        check(&[("@items ..=5", "@items ..=6")], &[]);
        check(&[("@items ..=5", "@items ..=4")], &["request.names takes less: its items was ..=5 and is ..=4"]);
        check(&[("@items ..=5", "@items ..=5\n/// @length 2..")], &["request.names[] takes less: its length was 1..=10 and is 2..=10"]);
        check(&[("@pattern ^a", "@pattern ^b")], &["request.code takes less: its pattern ^b is new"]);
        check(&[("/// @pattern ^a", "")], &[]);
        check(&[("@length 1..=10", "@length 1..=9")], &["request.names[] takes less: its length was 1..=10 and is 1..=9"]);
        check(&[("@length 1..=10", "@length 1..=11")], &["reply.name may be more than was promised: its length was 1..=11 and is 1..=10"]);
        check(&[("/// @length 1..=10", "")], &["reply.name may be more than was promised"]);
        check(&[("@range 1..=9", "@range 2..=8")], &["request.inner.a takes less: its range was 1..=9 and is 2..=8"]);
        check(&[("record reply { name: name", "record reply { /// @length ..=5\n name: name")], &[]);
    }

    #[test]
    fn what_is_pushed_goes_on_saying_what_it_said() {
        let world = |fields: &str| {
            fixture::contract_of(
                &format!(
                    "package echo:services@0.1.0; world t {{ import echo:thing/pushes@0.1.0; }}
                     package echo:thing@0.1.0 {{ interface pushes {{ record telling {{ {fields} }} told: func(users: list<string>, push: telling); }} }}"
                ),
                "t",
            )
        };
        let old = world("a: u8, b: string");
        assert_eq!(check_exports(&old, &world("a: u8, b: string, c: u8")), []);
        assert!(check_exports(&old, &world("a: u8"))[0].to_string().contains("told: push.b of record telling is not there any more"));
        assert!(check_exports(&old, &world("a: u16, b: string"))[0].to_string().contains("push.a was u8 and is u16"));
    }

    #[test]
    fn an_importer_is_held_to_the_bounds_it_knows() {
        let world = |verb: &str, tag: &str| {
            format!(
                "package echo:services@0.1.0; world t {{ {verb} echo:thing/api@0.1.0; }}
                 package echo:thing@0.1.0 {{ interface api {{ record request {{ {tag}
                 a: string }} go: func(request: request); }} }}"
            )
        };
        let tagged = |verb: &str| world(verb, "/// @length ..=5\n");
        let check = |importer: &str, exporter: &str| {
            check_dependent(&fixture::contract_of(importer, "t"), &fixture::contract_of(exporter, "t")).len()
        };
        assert_eq!(check(&tagged("import"), &tagged("export")), 0);
        assert_eq!(check(&world("import", ""), &tagged("export")), 1, "it would send more");
        assert_eq!(check(&tagged("import"), &world("export", "")), 0);
        let unwritten = fixture::undocumented_contract_of(&world("import", ""), "t");
        assert_eq!(check_dependent(&unwritten, &fixture::contract_of(&tagged("export"), "t")), [], "it says nothing of its bounds");
    }

    #[test]
    fn another_minor_version_is_another_contract() {
        let world = |version: &str, body: &str| {
            fixture::contract_of(
                &format!(
                    "package echo:services@0.1.0; world t {{ export echo:thing/api@{version}; }}
                     package echo:thing@{version} {{ interface api {{ {body} }} }}"
                ),
                "t",
            )
        };
        let old = world("0.1.0", "go: func();");
        assert!(check_exports(&old, &world("0.1.7", "go: func(); more: func();")).is_empty());
        assert_eq!(check_exports(&old, &world("0.1.7", "more: func();")).len(), 1);
        assert!(check_exports(&old, &world("0.2.0", "more: func();")).is_empty());
        assert_eq!(check_exports(&old, &fixture::contract("location"))[0].reason, "it is not exported any more");
    }

    #[test]
    fn dependents_are_held_to_what_they_import() {
        let importer = |body: &str| {
            fixture::contract_of(
                &format!(
                    "package echo:services@0.1.0; world t {{ import echo:thing/api@0.1.0; }}
                     package echo:thing@0.1.0 {{ interface api {{ {body} }} }}"
                ),
                "t",
            )
        };
        let exporter = |version: &str, body: &str| {
            fixture::contract_of(
                &format!(
                    "package echo:services@0.1.0; world t {{ export echo:thing/api@{version}; }}
                     package echo:thing@{version} {{ interface api {{ {body} }} }}"
                ),
                "t",
            )
        };
        let check = |exporter: Contract, expect: &[&str]| {
            let calls = importer("record request { a: u8 } record reply { b: u8 } go: func(request: request) -> reply;");
            let found: Vec<_> = check_dependent(&calls, &exporter).iter().map(ToString::to_string).collect();
            assert_eq!(found.len(), expect.len(), "{found:?}");
            for (found, expect) in found.iter().zip(expect) {
                assert!(found.contains(expect), "{found} does not say {expect}");
            }
        };
        let larger =
            "record request { z: option<u8>, a: u8 } record reply { b: u8, c: u8 } go: func(request: request) -> reply; more: func();";
        check(exporter("0.1.3", larger), &[]);
        check(exporter("0.2.0", larger), &["echo:thing/api@0.2.0 is exported instead"]);
        check(exporter("0.1.0", "more: func();"), &["go: it is not there"]);
        check(
            exporter("0.1.0", "record request { c: option<u8> } record reply { b: u8 } go: func(request: request) -> reply;"),
            &["request.a"],
        );
        check(fixture::contract("location"), &[]);
        for (importer, exporter) in [
            ("auth", "location"),
            ("user", "auth"),
            ("message", "user"),
            ("auth", "user"),
            ("message", "notification"),
            ("presence", "user"),
        ] {
            assert_eq!(check_dependent(&fixture::contract(importer), &fixture::contract(exporter)), [], "{importer} {exporter}");
        }
    }

    #[test]
    fn a_subscriber_may_know_less_of_an_event_than_its_publisher() {
        let world = |verb: &str, fields: &str| {
            fixture::contract_of(
                &format!(
                    "package echo:services@0.1.0; world t {{ {verb} echo:thing/events@0.1.0; }}
                     package echo:thing@0.1.0 {{ interface events {{ record happened {{ {fields} }} done: func(key: string, event: happened); }} }}"
                ),
                "t",
            )
        };
        let publisher = world("import", "a: u8, b: u8");
        assert_eq!(check_dependent(&publisher, &world("export", "b: u8")), []);
        assert_eq!(check_dependent(&publisher, &world("export", "b: u8, c: option<u8>")), []);
        assert_eq!(check_dependent(&publisher, &world("export", "c: u8")).len(), 1);
    }
}
