//! Contracts read back from components, and tags that are refused.

use super::*;
use crate::fixture;

#[test]
fn the_worlds_of_the_repository_are_read_back_from_a_component() {
    let contract = fixture::contract("auth");
    let api = contract.export("auth", "api").expect("exported");
    assert_eq!(api.id, "echo:auth/api@0.1.0");
    assert_eq!(api.version.as_deref(), Some("0.1.0"));
    assert_eq!(api.docs.as_deref(), Some("Accounts, one-time codes, sessions and tokens."));
    let login = api.function("login").expect("declared");
    assert!(login.docs.as_deref().unwrap().starts_with("Signs a device in."));
    let Type::Record(request) = &login.params[0].ty else { panic!("{:?}", login.params) };
    assert_eq!(request.name, "login-request");
    assert_eq!(request.fields[0].ty.meaning(), Some(Meaning::Phone));
    assert_eq!(request.fields[0].ty.describe(), "phone");
    let Type::Record(device) = &request.fields[2].ty else { panic!("{:?}", request.fields) };
    assert!(device.fields[0].docs.as_deref().unwrap().starts_with("Chosen by the client"));
    let ids: Vec<_> = contract.imports().iter().map(|import| import.id.as_str()).collect();
    for id in ["echo:location/api@0.1.0", "wasi:clocks/wall-clock@0.2.6", "echo:user/events@0.1.0", "echo:sql/sql@0.1.0"] {
        assert!(ids.contains(&id), "{id} is not among {ids:?}");
    }
    let clock = contract.imports().iter().find(|import| import.namespace == "wasi").unwrap();
    assert!(clock.functions.is_empty());
}

#[test]
fn every_world_parses_and_its_docs_travel() {
    for world in fixture::WORLDS {
        let text = wit_text(&fixture::wit_dir(), world).expect(world);
        assert_eq!(text, wit_text(&fixture::wit_dir(), world).unwrap(), "the text differs from one time to the next");
        let contract = fixture::contract(world);
        assert!(!contract.exports().is_empty(), "{world} exports nothing");
        let documented = contract.exports().iter().filter(|interface| interface.docs.is_some()).count();
        assert_eq!(documented, contract.exports().len(), "{world} lost its docs");
    }
}

#[test]
fn aliases_keep_their_names_through_uses() {
    let contract = fixture::contract_of(
        "package echo:services@0.1.0;
         world t { export echo:thing/api@0.1.0; }
         package echo:types@0.1.0 { interface types { type uuid = string; type timestamp = u64; record error { code: string } } }
         package echo:other@0.1.0 { interface names { use echo:types/types@0.1.0.{uuid}; type user-id = uuid; type uuid2 = string; } }
         package echo:thing@0.1.0 {
           interface api {
             use echo:other/names@0.1.0.{user-id, uuid2 as second};
             use echo:types/types@0.1.0.{uuid as id, timestamp, error};
             record request { a: id, b: user-id, c: second, d: timestamp, e: string, f: option<id> }
             go: func(request: request) -> result<_, error>;
           }
         }",
        "t",
    );
    let Type::Record(request) = &contract.export("thing", "api").unwrap().functions[0].params[0].ty else { panic!() };
    let meanings: Vec<_> = request.fields.iter().map(|field| field.ty.meaning()).collect();
    assert_eq!(meanings, [Some(Meaning::Uuid), Some(Meaning::Uuid), None, Some(Meaning::Timestamp), None, None]);
    assert_eq!(request.fields[2].ty.describe(), "uuid2");
    assert_eq!(request.fields[5].ty.describe(), "option<uuid>");
}

#[test]
fn a_tag_that_is_none_or_says_nothing_of_its_place_is_refused_by_name() {
    for (body, expect) in [
        ("record r {\n/// @lenght ..=5\n a: string }", "echo:thing/api@0.1.0 r.a: @lenght is no tag"),
        ("record r {\n/// @length ..5\n a: string }", "r.a: @length \"..5\" is malformed"),
        ("record r {\n/// @length ..=5\n a: u8 }", "r.a: @length is for texts and bytes, and this is u8"),
        ("record r {\n/// @items ..=5\n a: string }", "r.a: @items is for lists"),
        ("record r {\n/// @items ..=5\n a: list<u8> }", "r.a: @items is for lists"),
        ("record r {\n/// @range ..=5\n a: string }", "r.a: @range is for numbers"),
        ("record r {\n/// @range ..=256\n a: u8 }", "r.a: @range 256 is no u8"),
        ("record r {\n/// @range 0.5..\n a: u8 }", "r.a: @range 0.5 is no u8"),
        ("record r {\n/// @pattern ^a\n a: uuid }", "r.a: @pattern is for texts"),
        ("record r {\n/// @text name\n a: list<u32> }", "r.a: @text is for texts"),
        ("record r {\n/// @code odd\n a: string }", "r.a: @code is for"),
        ("record r {\n/// @example a\n a: list<string> }", "r.a: @example is for"),
        ("/// @items ..=5\n record r { a: u8 }", "api@0.1.0 r: tags stand on fields"),
        ("record r { a: u8 }\n /// @length ..=5\n go: func(r: r);", "api@0.1.0 go: tags stand on fields"),
        ("variant v {\n/// @length ..=5\n a, b(u8) } record r { v: v }", "v.a: @length is for"),
        ("/// @range ..=5\n type t = string; record r { t: t }", "api@0.1.0 t: @range is for numbers"),
        ("/// @items ..=5\n type t = tuple<u8, u8>; record r { t: t }", "api@0.1.0 t: @items is for lists"),
    ] {
        let body = if body.contains("func") { body.to_owned() } else { format!("{body} go: func(r: r);") };
        let refused = fixture::try_thing(&body).expect_err(&body).to_string();
        assert!(refused.contains(expect), "{body}: {refused}");
    }
}

#[test]
fn bounds_stand_on_named_types_and_reach_through_uses() {
    let contract = fixture::thing(
        "
        /// A name. Of one line.
        /// @length 1..=9
        type name = string;
        /// @length 2..
        type surname = name;
        /// @items ..=3
        type names = list<name>;
        record request { surname: surname, names: option<names>,
          /// @length ..=5
          nick: option<name> }
        go: func(request: request);",
    );
    let Type::Record(request) = &contract.export("thing", "api").unwrap().functions[0].params[0].ty else { panic!() };
    let of = |index: usize| {
        let field: &Field = &request.fields[index];
        field.ty.bounded(&field.bounds)
    };
    let (ty, bounds) = of(0);
    assert!(matches!(ty, Type::String));
    assert_eq!(bounds.length.unwrap().to_string(), "2..=9");
    let (Type::Option(inner), bounds) = of(1) else { panic!() };
    let (Type::List(item), bounds) = inner.bounded(&bounds) else { panic!() };
    assert_eq!((bounds.items.unwrap().to_string(), bounds.length), ("..=3".to_owned(), None));
    assert_eq!(item.bounded(&bounds.of_items()).1.length.unwrap().to_string(), "1..=9");
    let (Type::Option(inner), bounds) = of(2) else { panic!() };
    assert_eq!(inner.bounded(&bounds).1.length.unwrap().to_string(), "1..=5");
    assert_eq!(request.fields[0].ty.describe(), "name");
}

#[test]
fn what_is_no_component_is_refused() {
    let refused = |bytes: &[u8]| Contract::decode(bytes, None).expect_err("refused").to_string();
    assert!(refused(b"not wasm at all").contains("no component"));
    assert!(refused(b"\0asm\x01\0\0\0").contains("no component"));
    let component = fixture::component("location");
    // A component has no length of its own: cut between two sections it is a smaller one, cut within one it is broken.
    assert!(refused(&component[..component.len() - 1]).contains("no component"));
    assert!(matches!(Contract::decode(&component, Some("package oops")), Err(ContractError::Text(_))));
}
