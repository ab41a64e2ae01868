//! The codec against contracts written in WIT: what goes in, what comes out, what is refused and how.

use super::*;
use crate::fixture;
use crate::wit::Contract;

const ID: &str = "0190b0a0-7b1c-7def-8abc-0123456789ab";

/// Every kind of value in one record.
const EVERYTHING: &str = "
    enum colour { red, dark-blue }
    flags rights { can-read, can-write }
    record point { x: s32, y: option<s32> }
    variant form { none, circle(f64), polygon(list<point>), at(point) }
    record request {
      flag: option<bool>, a-u8: option<u8>, a-s8: option<s8>, a-u64: option<u64>, a-s64: option<s64>, an-f32: option<f32>, an-f64: option<f64>,
      letter: option<char>, name: option<string>, id: option<uuid>, at: option<timestamp>, phone: option<phone>, cursor: option<cursor>,
      extra: option<json>, blob: option<list<u8>>, colour: option<colour>, rights: option<rights>, pair: option<tuple<u8, string>>,
      point: option<point>, points: option<list<point>>, ids: option<list<uuid>>, form: option<form>,
    }
    go: func(request: request) -> result<request, error>;";

struct Everything {
    request: RequestCodec,
    reply: ReplyCodec,
}

fn everything() -> Everything {
    let contract = fixture::thing(EVERYTHING);
    let function = fixture::function(&contract, "api", "go");
    Everything { request: RequestCodec::compile(function, &[], Source::Body).unwrap(), reply: ReplyCodec::compile(function, None).unwrap() }
}

impl Everything {
    fn decode(&self, body: &[u8]) -> Result<Vec<Val>, DecodeError> {
        self.request.decode(&Input::Http { path: &[], query: None, body: Some(body) })
    }

    /// What a service would answer that gives the request back; fields that are null are left out here.
    fn echo(&self, body: &str) -> serde_json::Value {
        let request = self.decode(body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error:?}")).remove(0);
        let reply = Val::Result(Ok(Some(Box::new(request))));
        let Encoded::Ok { body: Some(bytes), status_flag: None } = self.reply.encode(&reply).unwrap() else { panic!() };
        let mut document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        document.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        document
    }
}

fn wrong(result: Result<Vec<Val>, DecodeError>) -> Vec<(String, String)> {
    match result {
        Err(DecodeError::Invalid(fields)) => fields.into_iter().map(|error| (error.field, error.code)).collect(),
        other => panic!("{other:?}"),
    }
}

fn pairs(expect: &[(&str, &str)]) -> Vec<(String, String)> {
    expect.iter().map(|(field, code)| ((*field).to_owned(), (*code).to_owned())).collect()
}

#[test]
fn values_of_every_kind_go_in_and_come_out() {
    let codec = everything();
    let check = |given: &str, expect: &str| {
        let expect: serde_json::Value = serde_json::from_str(expect).unwrap();
        assert_eq!(codec.echo(given), expect, "{given}");
    };
    let same = |given: &str| check(given, given);
    check("", "{}");
    check(" \n", "{}");
    check("{\"flag\":null,\"name\":null}", "{}");
    same("{\"flag\":true}");
    same("{\"a_u8\":255,\"a_s8\":-128,\"a_u64\":18446744073709551615,\"a_s64\":-9223372036854775808}");
    // Whole numbers, however they are written.
    check("{\"a_u64\":9007199254740993.0}", "{\"a_u64\":9007199254740993}");
    check("{\"a_u8\":1.0,\"a_s64\":-1e3,\"a_s8\":-0.0}", "{\"a_u8\":1,\"a_s64\":-1000,\"a_s8\":0}");
    same("{\"an_f64\":0.1,\"an_f32\":-1.5}");
    check("{\"an_f64\":1e300,\"an_f32\":1}", "{\"an_f64\":1e300,\"an_f32\":1.0}");
    same("{\"letter\":\"é\",\"name\":\"a\\u0001\\\"\\\\\\n😀\"}");
    check(&format!("{{\"id\":\"{}\"}}", ID.to_uppercase()), &format!("{{\"id\":\"{ID}\"}}"));
    check("{\"at\":\"2026-01-31T13:00:00+01:00\"}", "{\"at\":\"2026-01-31T12:00:00.000000Z\"}");
    same("{\"phone\":\"+14155552671\",\"cursor\":\"YWJj\"}");
    same("{\"extra\":{\"a\":[1,2,{\"b\":null}],\"c\":\"d\"}}");
    same("{\"extra\":\"text\",\"blob\":\"aGVsbG8=\"}");
    same("{\"colour\":\"dark_blue\",\"rights\":[\"can_write\",\"can_read\"]}");
    check("{\"rights\":[\"can_read\",\"can_read\"]}", "{\"rights\":[\"can_read\"]}");
    same("{\"pair\":[1,\"a\"],\"points\":[]}");
    check("{\"points\":[{\"x\":1,\"y\":2},{\"y\":null,\"x\":-3}]}", "{\"points\":[{\"x\":1,\"y\":2},{\"x\":-3,\"y\":null}]}");
    same("{\"form\":{\"type\":\"none\"}}");
    check("{\"form\":{\"value\":1,\"type\":\"circle\"}}", "{\"form\":{\"type\":\"circle\",\"value\":1.0}}");
    check("{\"form\":{\"x\":1,\"type\":\"at\"}}", "{\"form\":{\"type\":\"at\",\"x\":1,\"y\":null}}");
    same("{\"form\":{\"type\":\"polygon\",\"value\":[{\"x\":1,\"y\":1}]}}");
    check("{\"n\\u0061me\":\"a\"}", "{\"name\":\"a\"}");
}

#[test]
fn a_json_value_of_a_client_is_i_json() {
    let codec = everything();
    for (extra, code) in [
        ("{\"x\":1e400}", "out_of_range"),
        ("{\"k\":1,\"k\":2}", "duplicate_field"),
        ("{\"a\\u0000\":1}", "unreadable_text"),
        ("[\"\\ud800\"]", "unreadable_text"),
        ("9007199254740993", "out_of_range"),
        ("[[[{\"a\":[9007199254740993]}]]]", "out_of_range"),
    ] {
        let given = format!("{{\"extra\":{extra},\"a_u8\":1}}");
        assert_eq!(wrong(codec.decode(given.as_bytes())), pairs(&[("extra", code)]), "{given}");
    }
    // What a service answers is not judged again.
    let shape = Val::Result(Ok(Some(Box::new(codec.decode(b"{\"extra\":{\"k\":1}}").unwrap().remove(0)))));
    let Val::Result(Ok(Some(request))) = shape else { panic!() };
    let Val::Record(mut fields) = *request else { panic!() };
    let extra = fields.iter_mut().find(|(name, _)| name == "extra").unwrap();
    extra.1 = Val::Option(Some(Box::new(Val::String("{\"k\":1,\"k\":1e400}".to_owned()))));
    assert!(codec.reply.encode(&Val::Result(Ok(Some(Box::new(Val::Record(fields)))))).is_ok());
}

#[test]
fn no_text_of_a_client_has_nul_or_a_noncharacter() {
    let codec = everything();
    for text in ["a\\u0000b", "\\u0000", "\\uFFFE", "\\uD83F\\uDFFF", "\u{FDD0}"] {
        for field in ["name", "letter", "pair[1]"] {
            let given = match field {
                "pair[1]" => format!("{{\"pair\":[1,\"{text}\"]}}"),
                field => format!("{{\"{field}\":\"{text}\"}}"),
            };
            let found = wrong(codec.decode(given.as_bytes()));
            assert!(found.contains(&(field.to_owned(), "unreadable_text".to_owned())), "{given}: {found:?}");
        }
    }
    let contract =
        fixture::thing("record request { q: string } record reply { q: string } go: func(request: request) -> result<reply, error>;");
    let function = fixture::function(&contract, "api", "go");
    let codec = RequestCodec::compile(function, &[], Source::Query).unwrap();
    let decode = |query| codec.decode(&Input::Http { path: &[], query: Some(query), body: None });
    assert_eq!(wrong(decode("q=a%00b")), pairs(&[("q", "unreadable_text")]));
    assert!(decode("q=a%01b").is_ok());
}

#[test]
fn wrong_fields_are_named_with_their_path_and_all_at_once() {
    let codec = everything();
    let check = |given: &str, expect: &[(&str, &str)]| assert_eq!(wrong(codec.decode(given.as_bytes())), pairs(expect), "{given}");
    check("[]", &[("", "wrong_type")]);
    check("null", &[("", "wrong_type")]);
    check("{\"flag\":1,\"colours\":2,\"name\":[{}]}", &[("flag", "wrong_type"), ("colours", "unknown_field"), ("name", "wrong_type")]);
    check("{\"a_u8\":256,\"a_s8\":-129,\"a_u64\":-1}", &[("a_u8", "out_of_range"), ("a_s8", "out_of_range"), ("a_u64", "out_of_range")]);
    check("{\"a_u8\":1.5,\"a_s64\":1e-3,\"a_u64\":\"1\"}", &[("a_u8", "wrong_type"), ("a_s64", "wrong_type"), ("a_u64", "wrong_type")]);
    check("{\"a_u8\":256.0,\"a_s64\":1e16}", &[("a_u8", "out_of_range"), ("a_s64", "wrong_type")]);
    check("{\"an_f64\":1e999,\"an_f32\":1e39}", &[("an_f64", "out_of_range"), ("an_f32", "out_of_range")]);
    check(
        "{\"letter\":\"\",\"id\":\"1\",\"at\":\"today\"}",
        &[("letter", "invalid_char"), ("id", "invalid_uuid"), ("at", "invalid_timestamp")],
    );
    check(
        "{\"at\":5,\"phone\":\"555\",\"cursor\":\"?\"}",
        &[("at", "wrong_type"), ("phone", "invalid_phone"), ("cursor", "cursor_invalid")],
    );
    check("{\"blob\":\"a\",\"colour\":\"dark-blue\"}", &[("blob", "invalid_base64"), ("colour", "unknown_value")]);
    check("{\"rights\":[\"can_read\",\"fly\",1]}", &[("rights[1]", "unknown_value"), ("rights[2]", "wrong_type")]);
    check("{\"pair\":[1]}", &[("pair", "wrong_length")]);
    check("{\"pair\":[1,\"a\",null]}", &[("pair", "wrong_length")]);
    check("{\"point\":{\"y\":1,\"z\":2}}", &[("point.z", "unknown_field"), ("point.x", "required")]);
    check("{\"points\":[{\"x\":1},{\"x\":\"1\"},null]}", &[("points[1].x", "wrong_type"), ("points[2]", "wrong_type")]);
    check(&format!("{{\"ids\":[\"{ID}\",\"x\",null]}}"), &[("ids[1]", "invalid_uuid"), ("ids[2]", "wrong_type")]);
    check("{\"form\":{}}", &[("form.type", "required")]);
    check("{\"form\":{\"type\":1}}", &[("form.type", "wrong_type")]);
    check("{\"form\":{\"type\":\"square\",\"x\":1}}", &[("form.type", "unknown_value")]);
    check("{\"form\":{\"type\":\"none\",\"value\":1}}", &[("form.value", "unknown_field")]);
    check("{\"form\":{\"type\":\"circle\"}}", &[("form.value", "required")]);
    check("{\"form\":{\"type\":\"none\",\"type\":\"none\"}}", &[("form.type", "duplicate_field")]);
    check("{\"form\":{\"type\":\"at\",\"x\":null}}", &[("form.x", "wrong_type")]);
    check("{\"name\":\"a\",\"name\":\"b\"}", &[("name", "duplicate_field")]);
    check("{\"name\":null,\"name\":null}", &[("name", "duplicate_field")]);
}

#[test]
fn what_is_no_json_is_unreadable_and_says_where() {
    let codec = everything();
    let check = |given: &[u8], expect: &str| match codec.decode(given) {
        Err(DecodeError::Unreadable(message)) => assert!(message.contains(expect), "{message} does not say {expect}"),
        other => panic!("{other:?}"),
    };
    check(b"{", "byte 1");
    check(b"{\"flag\":tru}", "byte 8");
    check(b"{\"flag\":1,\"name\":}", "byte 17");
    check(b"{\"name\":\"\xff\"}", "byte 9");
    check(b"{\"name\":\"\\ud800\"}", "surrogate");
    check(b"{} x", "byte 3");
    check(b"{\"extra\":{\"a\":01}}", "byte 15");
    check(&[b'['; 1 << 20], "deeper than 32");
    check(&"{\"extra\":".bytes().chain(std::iter::repeat_n(b'[', 1 << 20)).collect::<Vec<_>>(), "deeper than 32");
    check(&"{\"points\":".repeat(100_000).into_bytes(), "deeper than 32");
}

#[test]
fn what_a_client_can_make_grow_is_bounded() {
    let codec = everything();
    let many_errors = format!("{{\"ids\":[{}]}}", vec!["1"; 5_000].join(","));
    assert_eq!(wrong(codec.decode(many_errors.as_bytes())).len(), limits::FIELD_ERRORS_MAX);
    let many_items = format!("{{\"points\":[{}]}}", vec!["{\"x\":1}"; limits::LIST_ITEMS_MAX + 1].join(","));
    assert_eq!(wrong(codec.decode(many_items.as_bytes())), pairs(&[("points", "too_many")]));
    let long_name = format!("{{\"{}\":1}}", "x".repeat(100_000));
    assert!(wrong(codec.decode(long_name.as_bytes()))[0].0.len() <= 64);
}

#[test]
fn fields_come_from_the_path_the_query_and_the_body() {
    let contract = fixture::thing(
        "enum colour { red, dark-blue }
         record request { id: uuid, seq: option<u64>, name: option<string>, ids: option<list<uuid>>, at: option<timestamp>, on: option<bool>,
                          colour: option<colour>, extra: option<json> }
         go: func(request: request) -> result<_, error>;",
    );
    let function = fixture::function(&contract, "api", "go");
    let query = RequestCodec::compile(function, &["id"], Source::Query).unwrap();
    let body = RequestCodec::compile(function, &["id"], Source::Body).unwrap();
    let decode = |codec: &RequestCodec, id: &str, query: &str, body: &str| {
        codec.decode(&Input::Http { path: &[("id", id)], query: Some(query), body: Some(body.as_bytes()) })
    };
    let field = |values: Vec<Val>, name: &str| {
        let Val::Record(fields) = &values[0] else { panic!() };
        fields.iter().find(|(field, _)| field == name).unwrap().1.clone()
    };
    let some = |val: Val| Val::Option(Some(Box::new(val)));

    assert_eq!(field(decode(&query, ID, "seq=7&name=a+b&on=true", "ignored").unwrap(), "seq"), some(Val::U64(7)));
    assert_eq!(field(decode(&query, ID, "name=a+b%26", "").unwrap(), "name"), some(Val::String("a b&".to_owned())));
    assert_eq!(field(decode(&query, ID, "", "").unwrap(), "id"), Val::String(ID.to_owned()));
    assert_eq!(field(decode(&query, ID, "colour=dark_blue", "").unwrap(), "colour"), some(Val::Enum("dark-blue".to_owned())));
    assert_eq!(field(decode(&query, ID, "extra=%5B1%5D", "").unwrap(), "extra"), some(Val::String("[1]".to_owned())));
    let ids = some(Val::List(vec![Val::String(ID.to_owned()); 2]));
    assert_eq!(field(decode(&query, ID, &format!("ids={ID}%2C{ID}"), "").unwrap(), "ids"), ids);
    assert_eq!(field(decode(&query, ID, &format!("ids={ID},{ID}"), "").unwrap(), "ids"), ids);
    assert_eq!(field(decode(&query, ID, "ids=", "").unwrap(), "ids"), some(Val::List(Vec::new())));
    assert_eq!(field(decode(&body, ID, "ignored=1", "{\"name\":\"a\"}").unwrap(), "name"), some(Val::String("a".to_owned())));

    let check = |codec: &RequestCodec, id: &str, query: &str, body: &str, expect: &[(&str, &str)]| {
        assert_eq!(wrong(decode(codec, id, query, body)), pairs(expect), "{id} {query} {body}");
    };
    check(
        &query,
        "1",
        "seq=x&on=yes&nme=1",
        "",
        &[("id", "invalid_uuid"), ("seq", "wrong_type"), ("on", "wrong_type"), ("nme", "unknown_field")],
    );
    check(&query, ID, "seq=", "", &[("seq", "wrong_type")]);
    check(&query, ID, "seq=-1&at=x&colour=blue", "", &[("seq", "out_of_range"), ("at", "invalid_timestamp"), ("colour", "unknown_value")]);
    check(&query, ID, &format!("seq=1&seq=2&id={ID}"), "", &[("seq", "duplicate_field"), ("id", "unknown_field")]);
    check(
        &query,
        ID,
        &format!("ids={ID},,x&extra=%7B"),
        "",
        &[("ids[1]", "invalid_uuid"), ("ids[2]", "invalid_uuid"), ("extra", "invalid_json")],
    );
    check(&body, ID, "", &format!("{{\"id\":\"{ID}\"}}"), &[("id", "unknown_field")]);
    assert!(matches!(decode(&query, ID, "name=%zz", ""), Err(DecodeError::Unreadable(_))));
    assert!(matches!(decode(&query, ID, "name=%ff", ""), Err(DecodeError::Unreadable(_))));
}

#[test]
fn a_function_without_parameters_takes_nothing() {
    let contract = fixture::contract("auth");
    let function = fixture::function(&contract, "api", "logout");
    let codec = RequestCodec::compile(function, &[], Source::Body).unwrap();
    for body in ["", "{}", " { } "] {
        assert_eq!(codec.decode(&Input::Json(body.as_bytes())), Ok(Vec::new()), "{body:?}");
    }
    assert_eq!(wrong(codec.decode(&Input::Json(b"{\"all\":true}"))), pairs(&[("all", "unknown_field")]));
    let query = RequestCodec::compile(function, &[], Source::Query).unwrap();
    let given = Input::Http { path: &[], query: Some("all=1"), body: None };
    assert_eq!(wrong(query.decode(&given)), pairs(&[("all", "unknown_field")]));
}

#[test]
fn every_function_of_the_repository_compiles() {
    let mut functions = 0;
    for world in fixture::WORLDS {
        let contract = fixture::contract(world);
        for interface in contract.exports() {
            for function in &interface.functions {
                functions += 1;
                match interface.name.as_str() {
                    "events" => drop(EventCodec::compile(function).unwrap()),
                    _ => {
                        RequestCodec::compile(function, &[], Source::Body).unwrap();
                        ReplyCodec::compile(function, None).unwrap();
                    }
                }
            }
        }
    }
    assert!(functions > 60, "{functions}");
}

#[test]
fn what_cannot_be_said_in_json_is_refused_when_compiled() {
    let check = |body: &str, variables: &[&str], source: Source, expect: &str| {
        let contract = fixture::thing(body);
        let function = fixture::function(&contract, "api", "go");
        let message = match RequestCodec::compile(function, variables, source).and_then(|_| ReplyCodec::compile(function, None)) {
            Ok(_) => panic!("{body} compiles"),
            Err(error) => error.to_string(),
        };
        assert!(message.contains(expect), "{message} does not say {expect}");
    };
    let record = "record request { id: uuid, point: option<tuple<u8>> }";
    let go = "go: func(request: request) -> result<_, error>;";
    check("go: func(a: u8) -> result<_, error>;", &[], Source::Body, "a record is wanted");
    check("record r { a: u8 } go: func(a: r, b: r) -> result<_, error>;", &[], Source::Body, "2 parameters");
    check("go: func() -> u8;", &[], Source::Body, "result<reply, error>");
    check("go: func() -> result<u8, string>;", &[], Source::Body, "result<reply, error>");
    check(
        "record request { a: result<u8> } go: func(request: request) -> result<_, error>;",
        &[],
        Source::Body,
        "field a of record request",
    );
    check("record request { a: option<option<u8>> } go: func(request: request) -> result<_, error>;", &[], Source::Body, "option");
    check("resource thing; go: func() -> result<thing, error>;", &[], Source::Body, "handle");
    check("record a { %type: u8 } variant v { x(a) } go: func() -> result<v, error>;", &[], Source::Body, "named type");
    check(&format!("{record} {go}"), &["user_id"], Source::Body, "{user_id}");
    check(&format!("{record} {go}"), &["id", "id"], Source::Body, "twice");
    check(&format!("{record} {go}"), &["point"], Source::Body, "{point}");
    check(&format!("{record} {go}"), &["id"], Source::Query, "point");
}

#[test]
fn the_status_flag_is_told_and_not_sent() {
    let contract =
        fixture::thing("record reply { a: u8, is-new: bool } go: func() -> result<reply, error>; stop: func() -> result<_, error>;");
    let go = fixture::function(&contract, "api", "go");
    let reply = |fields: Vec<(&str, Val)>| {
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Val::Result(Ok(Some(Box::new(Val::Record(fields)))))
    };
    let codec = ReplyCodec::compile(go, Some("is_new")).unwrap();
    match codec.encode(&reply(vec![("a", Val::U8(1)), ("is-new", Val::Bool(false))])).unwrap() {
        Encoded::Ok { body: Some(body), status_flag: Some(false) } => assert_eq!(body, b"{\"a\":1}"),
        other => panic!("{other:?}"),
    }
    assert!(ReplyCodec::compile(go, Some("a")).is_err());
    assert!(ReplyCodec::compile(go, Some("b")).is_err());
    let stop = fixture::function(&contract, "api", "stop");
    assert!(ReplyCodec::compile(stop, Some("a")).is_err());
    let codec = ReplyCodec::compile(stop, None).unwrap();
    assert!(matches!(codec.encode(&Val::Result(Ok(None))).unwrap(), Encoded::Ok { body: None, status_flag: None }));
    assert!(!codec.has_body());
}

#[test]
fn a_guests_wrong_values_never_leave() {
    let contract = fixture::thing(
        "enum colour { red } variant form { none }
         record reply { id: uuid, at: timestamp, extra: json, n: f64, names: list<string>, phone: phone, colour: colour, form: form }
         go: func() -> result<reply, error>;",
    );
    let codec = ReplyCodec::compile(fixture::function(&contract, "api", "go"), None).unwrap();
    let text = |text: &str| Val::String(text.to_owned());
    let good = || {
        vec![
            ("id", text(ID)),
            ("at", Val::U64(0)),
            ("extra", text(" [1] ")),
            ("n", Val::Float64(1.0)),
            ("names", Val::List(vec![text("a")])),
            ("phone", text("+14155552671")),
            ("colour", Val::Enum("red".to_owned())),
            ("form", Val::Variant("none".to_owned(), None)),
        ]
    };
    let encode = |fields: Vec<(&str, Val)>| {
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        codec.encode(&Val::Result(Ok(Some(Box::new(Val::Record(fields))))))
    };
    let Encoded::Ok { body: Some(body), .. } = encode(good()).unwrap() else { panic!() };
    let expect = format!(
        "{{\"id\":\"{ID}\",\"at\":\"1970-01-01T00:00:00.000000Z\",\"extra\":[1],\"n\":1.0,\"names\":[\"a\"],\"phone\":\"+14155552671\",\"colour\":\"red\",\"form\":{{\"type\":\"none\"}}}}"
    );
    assert_eq!(String::from_utf8(body).unwrap(), expect);

    let check = |name: &str, value: Val, expect: &str| {
        let mut fields = good();
        fields.iter_mut().find(|(field, _)| *field == name).unwrap().1 = value;
        let message = encode(fields).expect_err("refused").to_string();
        assert!(message.contains(expect), "{message} does not say {expect}");
    };
    check("id", text("1"), "id: no uuid");
    check("at", Val::U64(u64::MAX), "at: ");
    check("extra", text("[1,]"), "extra: no JSON");
    check("extra", text(""), "extra: no JSON");
    check("extra", text("1 2"), "extra: no JSON");
    check("extra", text(&"[".repeat(1 << 20)), "extra: no JSON");
    check("n", Val::Float64(f64::NAN), "n: no finite");
    check("n", Val::Float64(f64::INFINITY), "n: no finite");
    check("names", Val::List(vec![text(""); limits::LIST_ITEMS_MAX + 1]), "names: a list of more");
    check("names", Val::List(vec![text("a"), Val::U8(1)]), "names[1]: ");
    check("names", Val::List(vec![text(&"a".repeat(1 << 20)); 5]), "larger than");
    check("names", Val::List(vec![text(&"\u{1}".repeat(1 << 20))]), "larger than");
    check("phone", text("1"), "phone: ");
    check("colour", Val::Enum("blue".to_owned()), "colour: ");
    check("form", Val::Variant("none".to_owned(), Some(Box::new(Val::U8(1)))), "form: ");
    let mut swapped = good();
    swapped.swap(0, 1);
    assert!(encode(swapped).is_err());
    assert!(encode(Vec::new()).is_err());
    assert!(codec.encode(&Val::U8(1)).is_err());
    assert!(codec.encode(&Val::Result(Ok(None))).is_err());
}

#[test]
fn a_services_error_is_read() {
    let contract = fixture::contract("location");
    let codec = ReplyCodec::compile(fixture::function(&contract, "api", "lookup"), None).unwrap();
    let record = |fields: Vec<(&str, Val)>| Val::Record(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect());
    let text = |text: &str| Val::String(text.to_owned());
    let error = |kind: &str, retry: Option<u64>, count: usize| {
        let field = record(vec![("field", text("phone")), ("code", text("invalid_phone")), ("detail", text("no number"))]);
        let error = record(vec![
            ("kind", Val::Enum(kind.to_owned())),
            ("code", text("invalid_phone")),
            ("message", text("no telephone number")),
            ("fields", Val::List(vec![field; count])),
            ("retry-after-ms", Val::Option(retry.map(|milliseconds| Box::new(Val::U64(milliseconds))))),
        ]);
        codec.encode(&Val::Result(Err(Some(Box::new(error)))))
    };
    let Encoded::Declined(declined) = error("rate-limited", Some(1_500), 1_000).unwrap() else { panic!() };
    assert_eq!(declined.kind, ErrorKind::RateLimited);
    assert_eq!((declined.code.as_str(), declined.message.as_str()), ("invalid_phone", "no telephone number"));
    assert_eq!(declined.retry_after, Some(Duration::from_millis(1_500)));
    assert_eq!(declined.fields.len(), limits::FIELD_ERRORS_MAX);
    assert_eq!(declined.fields[0].field, "phone");
    assert!(matches!(
        error("not-found", None, 0).unwrap(),
        Encoded::Declined(ServiceError { kind: ErrorKind::NotFound, retry_after: None, .. })
    ));
    assert!(error("whatever", None, 0).is_err());
    assert!(codec.encode(&Val::Result(Err(None))).is_err());
}

#[test]
fn events_go_through_the_queue_and_come_back() {
    let contract = fixture::contract("notification");
    let codec = EventCodec::compile(fixture::function(&contract, "events", "sent")).unwrap();
    let json = format!(
        "{{\"items\":[{{\"message_id\":\"{ID}\",\"conversation_id\":\"{ID}\",\"seq\":3,\"sender_id\":\"{ID}\",\"recipient_ids\":[\"{ID}\"],\"muted_ids\":[],\"mentioned_ids\":null,\"withheld_ids\":[],\"type\":null,\"at\":\"2026-01-31T12:00:00.000001Z\"}}]}}"
    );
    let params = codec.decode("key", &json).unwrap();
    assert_eq!(params[0], Val::String("key".to_owned()));
    assert_eq!(codec.encode(&params).unwrap(), ("key".to_owned(), json.clone()));
    let newer = json.replace("\"seq\":3", "\"seq\":3,\"colour\":{\"a\":[1]}");
    assert_eq!(codec.decode("key", &newer).unwrap(), params, "a newer publisher's field is in the way");
    assert_eq!(wrong(codec.decode("key", "{\"items\":[{\"seq\":1}]}")).len(), 7);
    assert!(matches!(codec.decode("key", "{"), Err(DecodeError::Unreadable(_))));
    assert!(codec.encode(&params[..1]).is_err());
    let gathered = codec.gather([params.clone(), codec.decode("other", &json).unwrap()]).unwrap();
    let [Val::String(key), Val::Record(event)] = gathered.as_slice() else { panic!("{gathered:?}") };
    assert!(matches!(&event[0].1, Val::List(items) if items.len() == 2) && key == "key", "the first one's key, the items of both");
    let mut large = params.clone();
    let Val::Record(event) = &mut large[1] else { panic!() };
    let Val::List(items) = &mut event[0].1 else { panic!() };
    let Val::Record(fields) = &mut items[0] else { panic!() };
    fields.iter_mut().find(|(name, _)| name == "recipient-ids").unwrap().1 =
        Val::List(vec![Val::String(ID.to_owned()); limits::EVENT_BYTES_MAX / ID.len()]);
    assert_eq!(codec.encode(&large), Err(EncodeError::TooLarge(limits::EVENT_BYTES_MAX)));
}

#[test]
fn an_event_gathers_that_is_a_list_of_items_alone() {
    let gathers = |world, package: &str, name| {
        let contract = fixture::contract(world);
        let interface = contract.exports().iter().find(|interface| interface.package == package && interface.name == "events").unwrap();
        EventCodec::compile(interface.functions.iter().find(|function| function.name == name).unwrap()).unwrap().gathers()
    };
    assert!(gathers("notification", "message", "sent"));
    assert!(!gathers("notification", "notification", "sms-requested"));
    let contract = fixture::contract("notification");
    let exports = contract.exports().iter().filter(|interface| interface.name == "events");
    let function = exports.flat_map(|export| &export.functions).find(|function| function.name == "sms-requested").unwrap();
    let one = vec![Val::String("key".to_owned()), Val::Record(vec![("to".to_owned(), Val::String("+1".to_owned()))])];
    assert!(EventCodec::compile(function).unwrap().gather([one.clone(), one]).is_none());
}

/// Documents near good ones, thousands of them: never a panic, and what is taken for good comes out as what went in.
#[test]
fn mutated_documents_do_no_harm() {
    let codec = everything();
    let seeds = [
        format!("{{\"id\":\"{ID}\",\"at\":\"2026-01-31T12:00:00.5Z\",\"phone\":\"+14155552671\",\"ids\":[\"{ID}\"],\"cursor\":\"YWJj\"}}"),
        "{\"a_u8\":1,\"a_s64\":-12,\"an_f64\":1.5e3,\"flag\":true,\"name\":\"a\\u00e9\\ud83d\\ude00\\n\",\"letter\":\"x\",\"blob\":\"aGk=\"}".to_owned(),
        "{\"form\":{\"type\":\"polygon\",\"value\":[{\"x\":1},{\"x\":2,\"y\":null}]},\"pair\":[1,\"b\"],\"rights\":[\"can_read\"],\"extra\":{\"a\":[null]}}"
            .to_owned(),
    ];
    // A linear congruential generator: the same documents in every run.
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    const PIECES: [&[u8]; 16] = [
        b"\"",
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"-",
        b"1e9",
        b"\\ud800",
        b"\xff",
        b"\0",
        b"\"type\":",
        b"99999999999999999999",
    ];
    let (mut good, mut bad) = (0, 0);
    for round in 0..20_000 {
        let mut document = seeds[round % seeds.len()].clone().into_bytes();
        for _ in 0..=random(2) {
            let at = random(document.len());
            match random(4) {
                0 => drop(document.remove(at)),
                1 => document[at] = random(256) as u8,
                2 => drop(document.splice(at..at, PIECES[random(PIECES.len())].iter().copied())),
                _ => {
                    let end = at + random(document.len() - at).min(12);
                    let copy = document[at..end].to_vec();
                    drop(document.splice(at..at, copy));
                }
            }
            if document.is_empty() {
                break;
            }
        }
        let Ok(values) = codec.decode(&document) else {
            bad += 1;
            continue;
        };
        good += 1;
        let reply = Val::Result(Ok(Some(Box::new(values[0].clone()))));
        let Encoded::Ok { body: Some(body), .. } = codec.reply.encode(&reply).unwrap() else { panic!() };
        serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
        assert_eq!(codec.decode(&body).unwrap(), values, "{}", String::from_utf8_lossy(&document));
    }
    assert!(good > 250 && bad > 5_000, "{good} good, {bad} bad: the mutations are not near enough");
}

/// The contracts of a whole service, as the host meets them.
#[test]
fn a_login_goes_in() {
    let contract: Contract = fixture::contract("auth");
    let codec = RequestCodec::compile(fixture::function(&contract, "api", "login"), &[], Source::Body).unwrap();
    let body = b"{\"phone\":\"+919876543210\",\"password\":\"correct horse\",\"device\":{\"id\":\"d1\",\"app_version\":\"1.0\"}}";
    let values = codec.decode(&Input::Http { path: &[], query: None, body: Some(body) }).unwrap();
    let Val::Record(fields) = &values[0] else { panic!() };
    let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["phone", "password", "device", "totp"]);
    let missing = codec.decode(&Input::Http { path: &[], query: None, body: None });
    assert_eq!(wrong(missing), pairs(&[("phone", "required"), ("password", "required"), ("device", "required")]));
    let nested = codec.decode(&Input::Json(b"{\"phone\":\"+1\",\"password\":\"x\",\"device\":{\"idd\":\"a\"}}"));
    assert_eq!(wrong(nested), pairs(&[("phone", "invalid_phone"), ("device.idd", "unknown_field"), ("device.id", "required")]));
}

const BOUNDED: &str = "
    /// @length 2..=4
    type code = string;
    variant form {
      none,
      /// @range 1..
      circle(f64),
      /// @length ..=3
      named(string),
    }
    record inner {
      /// @range -90..=90
      latitude: f64,
    }
    record request {
      /// @length 1..=5
      /// @text content
      text: option<string>,
      /// Six digits. As they were sent.
      /// @pattern ^[0-9]{6}$
      /// @code invalid_otp
      otp: option<string>,
      /// @pattern ^a
      plain: option<string>,
      /// @items 1..=2
      codes: option<list<code>>,
      /// @range 1..=100
      limit: option<u32>,
      inner: option<inner>,
      form: option<form>,
      /// @length ..=9
      extra: option<json>,
      /// @length 2..=3
      blob: option<list<u8>>,
      /// @items ..=1
      /// @length ..=3
      names: option<list<string>>,
    }
    record reply {
      /// @length ..=3
      name: string,
    }
    record event {
      /// @items ..=1
      items: list<code>,
    }
    go: func(request: request) -> result<reply, error>;
    told: func(key: string, event: event) -> result<_, error>;";

#[test]
fn values_are_held_to_the_bounds_of_their_contract() {
    let contract = fixture::thing(BOUNDED);
    let function = fixture::function(&contract, "api", "go");
    let body = RequestCodec::compile(function, &[], Source::Body).unwrap();
    let decode = |given: &str| body.decode(&Input::Http { path: &[], query: None, body: Some(given.as_bytes()) });
    for good in [
        "{\"text\":\"ééééé\",\"otp\":\"012345\",\"plain\":\"ab\",\"codes\":[\"ab\",\"abcd\"],\"limit\":100,\"inner\":{\"latitude\":-90}}",
        "{\"text\":null,\"form\":{\"type\":\"circle\",\"value\":1},\"extra\":{\"a\":123},\"blob\":\"YWI=\",\"names\":[]}",
        "{\"text\":\"😀😀😀😀😀\",\"form\":{\"type\":\"named\",\"value\":\"abc\"}}",
    ] {
        decode(good).unwrap_or_else(|error| panic!("{good}: {error:?}"));
    }
    for (given, expect) in [
        ("{\"text\":\"\"}", [("text", "too_short")].as_slice()),
        ("{\"text\":\"😀😀😀😀😀😀\"}", &[("text", "too_long")]),
        ("{\"text\":\"a\\u0000b\"}", &[("text", "unreadable_text")]),
        ("{\"text\":\"a\\rb\"}", &[("text", "unreadable_text")]),
        ("{\"otp\":\"12345\"}", &[("otp", "invalid_otp")]),
        ("{\"plain\":\"b\"}", &[("plain", "invalid_format")]),
        ("{\"codes\":[]}", &[("codes", "too_few")]),
        ("{\"codes\":[\"ab\",\"a\",\"abcde\"]}", &[("codes[1]", "too_short"), ("codes[2]", "too_long"), ("codes", "too_many")]),
        ("{\"limit\":0,\"inner\":{\"latitude\":90.1}}", &[("limit", "out_of_range"), ("inner.latitude", "out_of_range")]),
        ("{\"limit\":-1}", &[("limit", "out_of_range")]),
        ("{\"limit\":\"x\"}", &[("limit", "wrong_type")]),
        ("{\"form\":{\"type\":\"circle\",\"value\":0.5}}", &[("form.value", "out_of_range")]),
        ("{\"form\":{\"type\":\"named\",\"value\":\"abcd\"}}", &[("form.value", "too_long")]),
        ("{\"extra\":{\"a\":1234}}", &[("extra", "too_long")]),
        ("{\"blob\":\"YQ==\"}", &[("blob", "too_short")]),
        ("{\"names\":[\"abcd\"]}", &[("names[0]", "too_long")]),
    ] {
        assert_eq!(wrong(decode(given)), pairs(expect), "{given}");
    }
    let Err(DecodeError::Invalid(errors)) = decode("{\"otp\":\"x\",\"limit\":0}") else { panic!() };
    assert_eq!((errors[0].detail.as_str(), errors[1].detail.as_str()), ("Six digits", "1 to 100"));
    // Also where the number's type ends before.
    for given in ["{\"limit\":-1}", "{\"limit\":99999999999}"] {
        let Err(DecodeError::Invalid(errors)) = decode(given) else { panic!("{given}") };
        assert_eq!((errors.len(), errors[0].detail.as_str()), (1, "1 to 100"), "{given}");
    }
}

#[test]
fn bounds_hold_in_a_query_too() {
    let contract = fixture::thing(
        "record request {
        /// @range 1..=100
        limit: option<u32>,
        /// @items ..=2
        ids: option<list<uuid>>,
        /// @length 2..
        q: string,
      } go: func(request: request) -> result<_, error>;",
    );
    let codec = RequestCodec::compile(fixture::function(&contract, "api", "go"), &[], Source::Query).unwrap();
    let decode = |query: &str| codec.decode(&Input::Http { path: &[], query: Some(query), body: None });
    decode(&format!("q=ab&limit=1&ids={ID},{ID}")).expect("within");
    let found = wrong(decode(&format!("q=a&limit=101&ids={ID},{ID},{ID}")));
    assert_eq!(found, pairs(&[("q", "too_short"), ("limit", "out_of_range"), ("ids", "too_many")]));
    let Err(DecodeError::Invalid(errors)) = decode("q=ab&limit=-1") else { panic!("below every page") };
    assert_eq!((errors[0].code.as_str(), errors[0].detail.as_str()), ("out_of_range", "1 to 100"));
}

#[test]
fn what_a_service_says_keeps_its_bounds_too() {
    let contract = fixture::thing(BOUNDED);
    let codec = ReplyCodec::compile(fixture::function(&contract, "api", "go"), None).unwrap();
    let reply = |name: &str| Val::Result(Ok(Some(Box::new(Val::Record(vec![("name".to_owned(), Val::String(name.to_owned()))])))));
    assert!(codec.encode(&reply("abc")).is_ok());
    let error = codec.encode(&reply("abcd")).expect_err("longer than it promised");
    assert_eq!(error, EncodeError::Invalid { field: "name".to_owned(), reason: "at most 3 characters".to_owned() });

    let codec = EventCodec::compile(fixture::function(&contract, "api", "told")).unwrap();
    assert!(codec.gathers(), "a bound makes a list no less one");
    let event = |codes: &[&str]| {
        let items = codes.iter().map(|code| Val::String((*code).to_owned())).collect();
        [Val::String("k".to_owned()), Val::Record(vec![("items".to_owned(), Val::List(items))])]
    };
    assert!(codec.encode(&event(&["ab"])).is_ok());
    assert!(codec.encode(&event(&["a"])).is_err() && codec.encode(&event(&["ab", "ab"])).is_err());
    // Who hears of it takes it as it is: the publisher may be of another version.
    assert!(codec.decode("k", "{\"items\":[\"a\"]}").is_ok());
}

#[test]
fn calls_between_services_are_held_to_the_bounds() {
    let contract = fixture::thing(BOUNDED);
    let bounds = ParamBounds::compile(fixture::function(&contract, "api", "go")).expect("there are some");
    let body =
        RequestCodec::compile(fixture::function(&fixture::thing(&BOUNDED.replace("@", "at ")), "api", "go"), &[], Source::Body).unwrap();
    let check = |given: &str| {
        let params = body.decode(&Input::Http { path: &[], query: None, body: Some(given.as_bytes()) }).expect("no bounds here");
        match bounds.check(&params) {
            Ok(()) => Vec::new(),
            Err(fields) => fields.into_iter().map(|field| (field.field, field.code)).collect(),
        }
    };
    assert_eq!(check("{\"text\":\"ab\",\"codes\":[\"ab\"],\"limit\":5}"), []);
    let given =
        "{\"text\":\"abcdef\",\"codes\":[\"ab\",\"a\",\"ab\"],\"inner\":{\"latitude\":91},\"form\":{\"type\":\"circle\",\"value\":0}}";
    let expect = [
        ("text", "too_long"),
        ("codes", "too_many"),
        ("codes[1]", "too_short"),
        ("inner.latitude", "out_of_range"),
        ("form.value", "out_of_range"),
    ];
    assert_eq!(check(given), pairs(&expect));
    assert!(ParamBounds::compile(fixture::function(&fixture::contract("location"), "api", "lookup")).is_some());
}
