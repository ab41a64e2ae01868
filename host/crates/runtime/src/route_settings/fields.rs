//! Fields of a route that the operator renames or gives defaults: the function as clients see it, held against the service's contract.

use super::{Decided, Manifest, Route, RouteSettings};
use echo_contract::codec::{ReplyCodec, RequestCodec, Source};
use echo_contract::wit::{Contract, Function};

/// What a route serves in the place of its function.
pub struct ChangedFunction {
    pub function: Function,
    pub request: RequestCodec,
    pub reply: ReplyCodec,
}

impl RouteSettings {
    /// What does not fit a service's types: fields that are not there, each with the nearest, names that collide, defaults of another type.
    pub fn problems_with_types(&self, manifest: &Manifest, contract: &Contract) -> Vec<String> {
        let decided = self.decide(manifest);
        let api = contract.export(&manifest.name, "api");
        let changed = manifest.routes.iter().filter_map(|route| decided.fields(route, api?.function(&route.call)?));
        changed.filter_map(Result::err).flatten().collect()
    }
}

impl Decided<'_> {
    /// None where the route's fields are those of its function. Errors: why they cannot be changed so, a sentence each.
    pub fn fields(&self, declared: &Route, function: &Function) -> Option<Result<ChangedFunction, Vec<String>>> {
        let own = self.overrides.get(declared.http.as_str())?;
        // What is streamed is said to be impossible where only the manifest is known.
        if declared.stream.is_some() || (own.request_fields.is_empty() && own.response_fields.is_empty()) {
            return None;
        }
        let variables = declared.variables();
        let flag = declared.status_unless.as_ref().map(|unless| unless.field.as_str());
        let mut problems = Vec::new();
        let mut of = |name: &str, wrong: Vec<String>| problems.extend(wrong.iter().map(|reason| own.problem(&format!("{name}: {reason}"))));
        let mut changed = function.clone();
        if !own.request_fields.is_empty() {
            match own.request_fields.of_request(&changed, &variables) {
                Ok(function) => changed = function,
                Err(wrong) => of("request_fields", wrong),
            }
        }
        if !own.response_fields.is_empty() {
            match own.response_fields.of_reply(&changed, flag) {
                Ok(function) => changed = function,
                Err(wrong) => of("response_fields", wrong),
            }
        }
        let source = if matches!(declared.method(), "GET" | "DELETE") { Source::Query } else { Source::Body };
        let request = RequestCodec::compile(&changed, &variables, source).map_err(|error| of("request_fields", vec![error.to_string()]));
        let reply = ReplyCodec::compile(&changed, flag).map_err(|error| of("response_fields", vec![error.to_string()]));
        Some(match (request, reply) {
            (Ok(request), Ok(reply)) if problems.is_empty() => Ok(ChangedFunction { function: changed, request, reply }),
            _ => Err(problems),
        })
    }
}
