//! What addresses and their parts look like.

/// The password in an address: `postgres://user:password@host/database`.
pub fn password_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let (user, _) = rest.split(['/', '?']).next()?.rsplit_once('@')?;
    user.split_once(':').map(|(_, password)| password)
}

pub fn with_password(url: &str, password: &str) -> String {
    let Some((user, rest)) = url.split_once("://").and_then(|(_, rest)| rest.split_once('@')) else { return url.to_owned() };
    let encoded: String = password
        .bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    format!("postgres://{user}:{encoded}@{rest}")
}

/// Whether it is an address with one of these schemes and a host.
pub fn has_host(url: &str, schemes: &[&str]) -> bool {
    let uri = url.parse::<http::Uri>();
    uri.is_ok_and(|uri| uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme)) && uri.host().is_some_and(|host| !host.is_empty()))
}

/// What may stand before Echo's names in an engine that others use too.
pub fn is_prefix(prefix: &str) -> bool {
    (1..=32).contains(&prefix.len()) && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// RFC 6454: scheme, host and port, and nothing after.
pub fn is_origin(text: &str) -> bool {
    match text.parse::<http::Uri>() {
        Ok(uri) => {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
                && uri.path_and_query().is_none_or(|path| path == "/")
                && !text.ends_with('/')
        }
        Err(_) => false,
    }
}
