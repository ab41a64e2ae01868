//! Adapts the values of calls between services that were built against different patch versions of one contract: adds missing option fields, and drops fields
//! of a reply that the caller does not know. Compiled once per pair of functions; for equal types it does nothing.

use wasmtime::component::Val;

use super::compat::{Incompatible, check_function};
use super::wit::{Function, Record, Type};

/// From the importing function's values to the exporting one's, and back.
#[derive(Debug)]
pub struct Adapter {
    params: Vec<Plan>,
    result: Plan,
}

#[derive(Debug)]
enum Plan {
    Same,
    /// The receiver's fields, in its order.
    Record(Vec<FieldPlan>),
    List(Box<Plan>),
    Option(Box<Plan>),
    Tuple(Vec<Plan>),
    /// By case; cases that need nothing are not there.
    Variant(Vec<(String, Plan)>),
    Result(Box<Plan>, Box<Plan>),
}

#[derive(Debug)]
enum FieldPlan {
    /// The sender's field of that index.
    Take(usize, Plan),
    None(String),
}

impl Adapter {
    /// `interface`: named in the reasons when the two do not fit.
    pub fn compile(interface: &str, importer: &Function, exporter: &Function) -> Result<Self, Vec<Incompatible>> {
        let reasons = check_function(interface, importer, exporter);
        if !reasons.is_empty() {
            return Err(reasons);
        }
        let params = importer.params.iter().zip(&exporter.params).map(|(sent, wanted)| Plan::compile(&sent.ty, &wanted.ty)).collect();
        let result = match (&exporter.result, &importer.result) {
            (Some(sent), Some(wanted)) => Plan::compile(sent, wanted),
            _ => Plan::Same,
        };
        Ok(Self { params, result })
    }

    /// Whether values go through as they are, so that the way may be skipped.
    pub fn is_identity(&self) -> bool {
        self.result.is_same() && self.params.iter().all(Plan::is_same)
    }

    /// The importer's parameters as the exporter wants them.
    pub fn adapt_params(&self, params: Vec<Val>) -> Vec<Val> {
        if self.params.iter().all(Plan::is_same) {
            return params;
        }
        params.into_iter().zip(&self.params).map(|(value, plan)| plan.apply(value)).collect()
    }

    /// The exporter's result as the importer wants it.
    pub fn adapt_result(&self, result: Val) -> Val {
        self.result.apply(result)
    }
}

impl Plan {
    /// Both types are known to fit.
    fn compile(sent: &Type, wanted: &Type) -> Plan {
        let plan = match (sent.structure(), wanted.structure()) {
            (Type::Record(sent), Type::Record(wanted)) => return Plan::record(sent, wanted),
            (Type::List(sent), Type::List(wanted)) => Plan::List(Box::new(Plan::compile(sent, wanted))),
            (Type::Option(sent), Type::Option(wanted)) => Plan::Option(Box::new(Plan::compile(sent, wanted))),
            (Type::Tuple(sent), Type::Tuple(wanted)) => {
                Plan::Tuple(sent.iter().zip(wanted.iter()).map(|(a, b)| Plan::compile(a, b)).collect())
            }
            (Type::Variant(sent), Type::Variant(wanted)) => {
                let cases = sent.cases.iter().zip(&wanted.cases).filter_map(|(sent, wanted)| {
                    let plan = Plan::compile(sent.ty.as_ref()?, wanted.ty.as_ref()?);
                    (!plan.is_same()).then(|| (sent.name.clone(), plan))
                });
                Plan::Variant(cases.collect())
            }
            (Type::Result(sent), Type::Result(wanted)) => {
                let side = |sent: &Option<Type>, wanted: &Option<Type>| match (sent, wanted) {
                    (Some(sent), Some(wanted)) => Box::new(Plan::compile(sent, wanted)),
                    _ => Box::new(Plan::Same),
                };
                Plan::Result(side(&sent.ok, &wanted.ok), side(&sent.err, &wanted.err))
            }
            _ => Plan::Same,
        };
        plan.simplified()
    }

    fn record(sent: &Record, wanted: &Record) -> Plan {
        let fields: Vec<_> = wanted
            .fields
            .iter()
            .map(|field| match sent.fields.iter().position(|other| other.name == field.name) {
                Some(index) => FieldPlan::Take(index, Plan::compile(&sent.fields[index].ty, &field.ty)),
                None => FieldPlan::None(field.name.clone()),
            })
            .collect();
        let in_place = |(at, field): (usize, &FieldPlan)| matches!(field, FieldPlan::Take(index, Plan::Same) if *index == at);
        if fields.len() == sent.fields.len() && fields.iter().enumerate().all(in_place) { Plan::Same } else { Plan::Record(fields) }
    }

    fn simplified(self) -> Plan {
        let same = match &self {
            Plan::List(inner) | Plan::Option(inner) => inner.is_same(),
            Plan::Tuple(items) => items.iter().all(Plan::is_same),
            Plan::Variant(cases) => cases.is_empty(),
            Plan::Result(ok, err) => ok.is_same() && err.is_same(),
            Plan::Same | Plan::Record(_) => false,
        };
        if same { Plan::Same } else { self }
    }

    fn is_same(&self) -> bool {
        matches!(self, Plan::Same)
    }

    /// A value that is not of the sender's type goes through as it is; the receiver's own type check refuses it.
    fn apply(&self, value: Val) -> Val {
        match (self, value) {
            (Plan::Record(plans), Val::Record(fields)) => {
                let mut fields: Vec<_> = fields.into_iter().map(Some).collect();
                let mut adapted = Vec::with_capacity(plans.len());
                for plan in plans {
                    match plan {
                        FieldPlan::None(name) => adapted.push((name.clone(), Val::Option(None))),
                        FieldPlan::Take(index, plan) => {
                            if let Some((name, value)) = fields.get_mut(*index).and_then(Option::take) {
                                adapted.push((name, plan.apply(value)));
                            }
                        }
                    }
                }
                Val::Record(adapted)
            }
            (Plan::List(plan), Val::List(items)) => Val::List(items.into_iter().map(|item| plan.apply(item)).collect()),
            (Plan::Option(plan), Val::Option(Some(value))) => Val::Option(Some(plan.boxed(value))),
            (Plan::Tuple(plans), Val::Tuple(items)) => {
                Val::Tuple(items.into_iter().zip(plans).map(|(item, plan)| plan.apply(item)).collect())
            }
            (Plan::Variant(cases), Val::Variant(name, Some(payload))) => {
                let payload = match cases.iter().find(|(case, _)| *case == name) {
                    Some((_, plan)) => plan.boxed(payload),
                    None => payload,
                };
                Val::Variant(name, Some(payload))
            }
            (Plan::Result(ok, _), Val::Result(Ok(Some(value)))) => Val::Result(Ok(Some(ok.boxed(value)))),
            (Plan::Result(_, err), Val::Result(Err(Some(value)))) => Val::Result(Err(Some(err.boxed(value)))),
            (_, value) => value,
        }
    }

    fn boxed(&self, value: Box<Val>) -> Box<Val> {
        if self.is_same() { value } else { Box::new(self.apply(*value)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Input;
    use crate::codec::{Encoded, ReplyCodec, RequestCodec, Source};
    use crate::fixture;

    const OLD: &str = "
        record inner { a: u8 }
        variant form { none, one(inner) }
        record request { id: string, inners: list<inner>, form: form, pair: option<tuple<u8, inner>> }
        record reply { id: string, inners: list<inner>, best: option<inner>, form: form }
        go: func(request: request) -> result<reply, error>;";

    fn new() -> String {
        OLD.replace(
            "{ id: string, inners: list<inner>, form: form, pair",
            "{ note: option<string>, id: string, inners: list<inner>, form: form, pair",
        )
        .replace("best: option<inner>, ", "count: u32, best: option<inner>, extra: list<string>, ")
    }

    #[test]
    fn the_same_types_go_through_untouched() {
        let contract = fixture::contract("auth");
        for function in &contract.export("auth", "api").unwrap().functions {
            assert!(Adapter::compile("i", function, function).unwrap().is_identity(), "{}", function.name);
        }
    }

    #[test]
    fn options_are_filled_in_and_new_fields_dropped() {
        let (old, new) = (fixture::thing(OLD), fixture::thing(&new()));
        let (importer, exporter) = (fixture::function(&old, "api", "go"), fixture::function(&new, "api", "go"));
        let adapter = Adapter::compile("echo:thing/api@0.1.0", importer, exporter).unwrap();
        assert!(!adapter.is_identity());

        let request = br#"{"id":"x","inners":[{"a":1},{"a":2}],"form":{"type":"one","a":3},"pair":[1,{"a":4}]}"#;
        let decode = |function| RequestCodec::compile(function, &[], Source::Json).unwrap().decode(&Input::Json(request)).unwrap();
        assert_eq!(adapter.adapt_params(decode(importer)), decode(exporter));

        let text = |text: &str| Val::String(text.to_owned());
        let inner = || Val::Record(vec![("a".to_owned(), Val::U8(1))]);
        let reply = Val::Record(vec![
            ("id".to_owned(), text("x")),
            ("inners".to_owned(), Val::List(vec![inner()])),
            ("count".to_owned(), Val::U32(7)),
            ("best".to_owned(), Val::Option(Some(Box::new(inner())))),
            ("extra".to_owned(), Val::List(vec![text("y")])),
            ("form".to_owned(), Val::Variant("none".to_owned(), None)),
        ]);
        let adapted = adapter.adapt_result(Val::Result(Ok(Some(Box::new(reply)))));
        let Encoded::Ok { body: Some(body), .. } = ReplyCodec::compile(importer, None).unwrap().encode(&adapted).unwrap() else { panic!() };
        assert_eq!(String::from_utf8(body).unwrap(), r#"{"id":"x","inners":[{"a":1}],"best":{"a":1},"form":{"type":"none"}}"#);
        let declined = Val::Result(Err(Some(Box::new(text("anything")))));
        assert_eq!(adapter.adapt_result(declined.clone()), declined);
    }

    #[test]
    fn records_deep_within_are_adapted() {
        let wide = OLD.replace("inner { a: u8 }", "inner { b: option<u8>, a: u8 }");
        let (old, new) = (fixture::thing(OLD), fixture::thing(&wide));
        let (importer, exporter) = (fixture::function(&old, "api", "go"), fixture::function(&new, "api", "go"));
        let request = br#"{"id":"x","inners":[{"a":1},{"a":2}],"form":{"type":"one","a":3},"pair":[1,{"a":4}]}"#;
        let decode = |function| RequestCodec::compile(function, &[], Source::Json).unwrap().decode(&Input::Json(request)).unwrap();
        let adapter = Adapter::compile("i", importer, exporter).unwrap();
        assert_eq!(adapter.adapt_params(decode(importer)), decode(exporter));
    }

    #[test]
    fn what_does_not_fit_is_not_adapted() {
        let (old, new) = (fixture::thing(OLD), fixture::thing(&new()));
        // The other way round: the importer sends a field that the exporter does not know, and wants one it does not have.
        let reasons = Adapter::compile("i", fixture::function(&new, "api", "go"), fixture::function(&old, "api", "go")).unwrap_err();
        assert_eq!(reasons.len(), 3, "{reasons:?}");
    }
}
