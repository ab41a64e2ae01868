//! Which fields of a reply look like secrets, so that an author must say whether the host may keep the answer. A name is only a hint:
//! the author decides, and the activation gate refuses a manifest without a decision.

use super::wit::{Function, Type};

/// The last words of names that secrets have: `access-token`, `ticket`, `client-secret`.
const SECRET_WORDS: [&str; 7] = ["token", "tokens", "ticket", "secret", "secrets", "password", "otp"];

/// Why it must be said of this route whether its answer is a secret; none where no field looks like one.
pub fn undeclared(route: &str, function: &Function) -> Option<String> {
    let fields = secret_fields(function);
    let field = fields.first()?;
    Some(format!(
        "route {route:?}: its reply has {field}: write secret_answer = true, and the host keeps the answer nowhere, or secret_answer = false, and it \
         is given again for the same Idempotency-Key"
    ))
}

/// The names, as paths from the reply on, of what may be a secret in a success of this function.
fn secret_fields(function: &Function) -> Vec<String> {
    let mut found = Vec::new();
    match &function.result {
        Some(Type::Result(result)) => result.ok.iter().for_each(|ok| search(ok, "", &mut found)),
        Some(other) => search(other, "", &mut found),
        None => {}
    }
    found
}

/// Types of a component hold no cycles, so this ends.
fn search(ty: &Type, path: &str, found: &mut Vec<String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let looks_secret = |name: &str| name.rsplit('-').next().is_some_and(|word| SECRET_WORDS.contains(&word));
    match ty {
        Type::Record(record) => {
            for field in &record.fields {
                if looks_secret(&field.name) {
                    found.push(below(&field.name));
                }
                search(&field.ty, &below(&field.name), found);
            }
        }
        Type::Variant(variant) => {
            for case in &variant.cases {
                if let Some(ty) = &case.ty {
                    if looks_secret(&case.name) {
                        found.push(below(&case.name));
                    }
                    search(ty, &below(&case.name), found);
                }
            }
        }
        Type::List(inner) | Type::Option(inner) => search(inner, path, found),
        Type::Tuple(parts) => parts.iter().for_each(|part| search(part, path, found)),
        Type::Result(result) => result.ok.iter().chain(&result.err).for_each(|part| search(part, path, found)),
        Type::Alias(alias) => search(&alias.target, path, found),
        Type::Bool | Type::U8 | Type::U16 | Type::U32 | Type::U64 | Type::S8 | Type::S16 | Type::S32 | Type::S64 => {}
        Type::F32 | Type::F64 | Type::Char | Type::String | Type::Enum(_) | Type::Flags(_) | Type::Opaque(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn secrets_are_known_by_their_names_wherever_they_stand() {
        let contract = fixture::thing(
            "record inner { access-token: string, token-type: string }
             record page { items: list<option<inner>>, next-cursor: option<cursor> }
             variant way { plain, ticket(string) }
             record whole { name: string, ways: way }
             deep: func() -> result<page, error>;
             cases: func() -> result<whole, error>;
             plain: func() -> result<string, inner>;
             nothing: func() -> result;",
        );
        let of = |name: &str| secret_fields(fixture::function(&contract, "api", name));
        assert_eq!(of("deep"), ["items.access-token"]);
        assert_eq!(of("cases"), ["ways.ticket"]);
        assert!(of("plain").is_empty() && of("nothing").is_empty(), "an error is no success");
    }
}
