//! The identity providers that the operator has set up: which they are, and where their public keys are. Their settings are `oauth_…` in plugin.toml.

use echo_sdk::{Error, ErrorKind, config, log};

use crate::bindings::exports::echo::auth::api::OauthRequest;

/// As the contract bounds `provider` of a request.
const NAME_BYTES_MAX: usize = 32;
const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    pub name: String,
    /// By this its identities are kept, whatever the operator calls it.
    pub issuer: String,
    /// What its tokens may say instead.
    pub issuer_also: Option<&'static str>,
    /// The operator's clients at the provider.
    pub client_ids: Vec<String>,
    pub keys: KeysAt,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysAt {
    /// A JWK Set.
    Url(String),
    /// Where the document at this address says it (OpenID Connect Discovery 1.0, section 4).
    DiscoveredBy(String),
}

/// The one that the request names. Errors: 404 `provider_unknown`.
pub fn of_request(request: &OauthRequest) -> Result<Provider, Error> {
    let setting = |key| config::text(key).unwrap_or_default();
    let (google, apple, issuers) = (setting("oauth_google_client_ids"), setting("oauth_apple_client_ids"), setting("oauth_issuers"));
    let (providers, not_understood) = configured(&google, &apple, &issuers);
    for entry in not_understood {
        log::warn("the setting `oauth_issuers` has an entry that is not understood: it is NAME=URL CLIENT_ID", &[("entry", &entry)]);
    }
    let found = providers.into_iter().find(|provider| provider.name == request.provider);
    found.ok_or_else(|| Error::new(ErrorKind::NotFound, "provider_unknown", "no such identity provider is offered here"))
}

/// With the entries that are not understood.
fn configured(google: &str, apple: &str, issuers: &str) -> (Vec<Provider>, Vec<String>) {
    let built_in = [
        built_in(
            "google",
            "https://accounts.google.com",
            Some("accounts.google.com"),
            google,
            "https://www.googleapis.com/oauth2/v3/certs",
        ),
        built_in("apple", "https://appleid.apple.com", None, apple, "https://appleid.apple.com/auth/keys"),
    ];
    let mut providers: Vec<Provider> = built_in.into_iter().filter(|provider| !provider.client_ids.is_empty()).collect();
    let mut not_understood = Vec::new();
    for entry in issuers.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        match read(entry).filter(|read| !providers.iter().any(|other| other.name == read.name)) {
            Some(provider) => providers.push(provider),
            None => not_understood.push(entry.to_owned()),
        }
    }
    (providers, not_understood)
}

/// `issuer_also`: Google's documentation names both forms (developers.google.com/identity/openid-connect/openid-connect#validatinganidtoken).
fn built_in(name: &str, issuer: &str, issuer_also: Option<&'static str>, client_ids: &str, keys: &str) -> Provider {
    Provider {
        name: name.to_owned(),
        issuer: issuer.to_owned(),
        issuer_also,
        client_ids: client_ids.split_whitespace().map(str::to_owned).collect(),
        keys: KeysAt::Url(keys.to_owned()),
    }
}

/// `NAME=URL CLIENT_ID`, with more client identifiers behind that.
fn read(entry: &str) -> Option<Provider> {
    let (name, rest) = entry.split_once('=')?;
    let mut words = rest.split_whitespace();
    let issuer = words.next()?;
    let client_ids: Vec<String> = words.map(str::to_owned).collect();
    let name = name.trim();
    let is_reserved = ["google", "apple"].contains(&name);
    // RFC 8414 section 2: an issuer's URL has neither a query nor a fragment.
    let is_url = (issuer.starts_with("https://") || issuer.starts_with("http://")) && !issuer.contains(['?', '#']);
    (is_name(name) && !is_reserved && is_url && !client_ids.is_empty()).then(|| Provider {
        name: name.to_owned(),
        issuer: issuer.to_owned(),
        issuer_also: None,
        client_ids,
        keys: KeysAt::DiscoveredBy(format!("{}{DISCOVERY_PATH}", issuer.trim_end_matches('/'))),
    })
}

/// It stands in a path.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(google: &str, apple: &str, issuers: &str) -> Vec<String> {
        configured(google, apple, issuers).0.into_iter().map(|provider| provider.name).collect()
    }

    #[test]
    fn a_provider_is_offered_where_the_operator_has_clients_there() {
        assert_eq!(names("", " ", ""), [""; 0]);
        assert_eq!(names("web ios", "", ""), ["google"]);
        assert_eq!(names("web", "com.example.app", "company=https://id.example echo"), ["google", "apple", "company"]);
    }

    #[test]
    fn google_and_apple_are_known() {
        let (providers, _) = configured("web ios", "app", "");
        assert_eq!(providers[0].client_ids, ["web", "ios"]);
        assert_eq!((providers[0].issuer.as_str(), providers[0].issuer_also), ("https://accounts.google.com", Some("accounts.google.com")));
        assert_eq!(providers[0].keys, KeysAt::Url("https://www.googleapis.com/oauth2/v3/certs".to_owned()));
        assert_eq!((providers[1].issuer.as_str(), providers[1].issuer_also), ("https://appleid.apple.com", None));
        assert_eq!(providers[1].keys, KeysAt::Url("https://appleid.apple.com/auth/keys".to_owned()));
    }

    #[test]
    fn the_keys_of_others_are_discovered() {
        for (issuer, at) in [
            ("https://id.example", "https://id.example/.well-known/openid-configuration"),
            ("https://id.example/", "https://id.example/.well-known/openid-configuration"),
            ("https://id.example/a/b", "https://id.example/a/b/.well-known/openid-configuration"),
        ] {
            let (providers, _) = configured("", "", &format!(" company = {issuer}  echo  echo-ios "));
            assert_eq!((providers[0].name.as_str(), providers[0].issuer.as_str()), ("company", issuer));
            assert_eq!(providers[0].client_ids, ["echo", "echo-ios"]);
            assert_eq!(providers[0].keys, KeysAt::DiscoveredBy(at.to_owned()));
        }
    }

    #[test]
    fn what_is_not_understood_is_not_offered() {
        for wrong in [
            "company",
            "company=",
            "company=https://id.example",
            "company=id.example echo",
            "company=ftp://id.example echo",
            "company=https://id.example?a=b echo",
            "Company=https://id.example echo",
            "a/b=https://id.example echo",
            "=https://id.example echo",
            "google=https://id.example echo",
            "apple=https://id.example echo",
        ] {
            let good = "good=https://good.example echo";
            let (providers, not_understood) = configured("", "", &format!("{wrong}, {good}"));
            assert_eq!((providers.len(), providers[0].name.as_str()), (1, "good"), "{wrong}");
            assert_eq!(not_understood, [wrong]);
        }
        assert_eq!(names("", "", "one=https://a.example x, one=https://b.example x"), ["one"]);
    }
}
