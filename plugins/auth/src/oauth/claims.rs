//! What an ID Token has to say to be accepted (OpenID Connect Core 1.0, section 3.1.3.7), once its signature was verified. Knows no key.

use echo_sdk::Error;
use echo_sdk::time::SECOND_US;
use echo_sdk::wit::tokens::IdToken;

use super::providers::Provider;

/// Between the provider's clock and this host's, in microseconds.
const LEEWAY_US: u64 = 60 * SECOND_US;
/// For so long after it was issued a token is accepted, whatever its own end, in microseconds: a client signs in with what it has just got.
const AGE_US_MAX: u64 = 60 * 60 * SECOND_US;
/// OpenID Connect Core 1.0, section 2: at most 255 characters of ASCII.
const SUBJECT_BYTES_MAX: usize = 255;
/// RFC 5321, section 4.5.3.1: longer ones are no addresses.
const EMAIL_BYTES_MAX: usize = 254;

/// Somebody whom a provider vouches for.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    /// The provider's first name for itself.
    pub issuer: String,
    pub subject: String,
    /// Where the provider has verified it: shown to the person, and compared with nothing.
    pub email: Option<String>,
    /// From then on the token is refused for its age, so that nobody has to remember that it was used.
    pub refused_from_us: u64,
}

/// Errors: 401 `id_token_invalid`, `id_token_expired`.
pub fn check(said: IdToken, provider: &Provider, nonce: &str, now_us: u64) -> Result<Identity, Error> {
    if said.issuer != provider.issuer && provider.issuer_also != Some(said.issuer.as_str()) {
        return Err(invalid("it is of another issuer"));
    }
    // Others that it is for could use it here as well, where they are none of the operator's own.
    let is_own = |client: &String| provider.client_ids.contains(client);
    if said.audience.is_empty() || !said.audience.iter().all(is_own) {
        return Err(invalid("it is for another audience"));
    }
    if said.authorized_party.as_ref().map_or(said.audience.len() > 1, |party| !is_own(party)) {
        return Err(invalid("it was issued to another client"));
    }
    if said.nonce.as_deref() != Some(nonce) || nonce.is_empty() {
        return Err(invalid("it has another nonce"));
    }
    if said.issued_at > now_us.saturating_add(LEEWAY_US) || said.expires_at < said.issued_at {
        return Err(invalid("its times are none"));
    }
    let refused_from_us = said.expires_at.min(said.issued_at.saturating_add(AGE_US_MAX)).saturating_add(LEEWAY_US);
    if now_us >= refused_from_us {
        return Err(Error::unauthenticated("id_token_expired", "the provider's token is too old: get another one"));
    }
    if said.subject.is_empty() || said.subject.len() > SUBJECT_BYTES_MAX || !said.subject.bytes().all(|byte| (b' '..=b'~').contains(&byte))
    {
        return Err(invalid("its subject is none"));
    }
    let email = said.email.filter(|email| said.email_verified && is_email(email));
    Ok(Identity { issuer: provider.issuer.clone(), subject: said.subject, email, refused_from_us })
}

pub fn invalid(why: &str) -> Error {
    Error::unauthenticated("id_token_invalid", format!("not a token of this provider that is good here: {why}"))
}

/// As far as it can be shown to people.
fn is_email(text: &str) -> bool {
    text.len() <= EMAIL_BYTES_MAX && text.contains('@') && !text.chars().any(|c| c.is_control() || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::super::providers::KeysAt;
    use super::*;

    const NOW_US: u64 = 1_700_000_000 * SECOND_US;

    fn provider() -> Provider {
        Provider {
            name: "company".to_owned(),
            issuer: "https://id.example".to_owned(),
            issuer_also: Some("id.example"),
            client_ids: vec!["web".to_owned(), "ios".to_owned()],
            keys: KeysAt::Url(String::new()),
        }
    }

    fn good() -> IdToken {
        IdToken {
            issuer: "https://id.example".to_owned(),
            subject: "ada".to_owned(),
            audience: vec!["web".to_owned()],
            authorized_party: None,
            nonce: Some("n-1".to_owned()),
            issued_at: NOW_US - SECOND_US,
            expires_at: NOW_US + 600 * SECOND_US,
            email: Some("ada@example.org".to_owned()),
            email_verified: true,
        }
    }

    /// The identity, or the code of what it is refused with.
    fn check_with(change: impl FnOnce(&mut IdToken)) -> Result<Identity, String> {
        let mut said = good();
        change(&mut said);
        check(said, &provider(), "n-1", NOW_US).map_err(|error| error.code)
    }

    fn list(clients: &[&str]) -> Vec<String> {
        clients.iter().map(|client| (*client).to_owned()).collect()
    }

    #[test]
    fn a_good_token_is_an_identity_of_the_issuer_and_subject() {
        let identity = check_with(|_| {}).unwrap();
        let email = Some("ada@example.org".to_owned());
        let refused_from_us = NOW_US + 660 * SECOND_US;
        assert_eq!(identity, Identity { issuer: "https://id.example".to_owned(), subject: "ada".to_owned(), email, refused_from_us });
        // By either name of the issuer it is the same one.
        assert_eq!(check_with(|said| said.issuer = "id.example".to_owned()).unwrap().issuer, "https://id.example");
    }

    #[test]
    fn another_issuer_is_refused() {
        for issuer in ["", "https://id.example/", "https://ID.example", "http://id.example", "https://id.example.evil.example"] {
            assert_eq!(check_with(|said| said.issuer = issuer.to_owned()).unwrap_err(), "id_token_invalid", "{issuer}");
        }
    }

    #[test]
    fn it_is_for_the_operators_clients_and_for_nobody_else() {
        let refused = |audience: &[&str], party: Option<&str>| {
            check_with(|said| {
                said.audience = list(audience);
                said.authorized_party = party.map(str::to_owned);
            })
            .is_err()
        };
        for (audience, party, expect) in [
            (&["web"][..], None, false),
            (&["ios"], None, false),
            (&["web"], Some("ios"), false),
            (&["web", "ios"], Some("web"), false),
            (&["web", "ios"], None, true),
            (&["web"], Some("other"), true),
            (&["web"], Some(""), true),
            (&[], None, true),
            (&[], Some("web"), true),
            (&["other"], Some("web"), true),
            (&["WEB"], None, true),
            (&["web", "other"], Some("web"), true),
        ] {
            assert_eq!(refused(audience, party), expect, "{audience:?} {party:?}");
        }
    }

    #[test]
    fn another_nonce_or_none_is_refused() {
        for nonce in [None, Some(""), Some("n-2"), Some("N-1"), Some("n-1 ")] {
            assert_eq!(check_with(|said| said.nonce = nonce.map(str::to_owned)).unwrap_err(), "id_token_invalid", "{nonce:?}");
        }
        let mut said = good();
        said.nonce = Some(String::new());
        assert!(check(said, &provider(), "", NOW_US).is_err());
    }

    #[test]
    fn it_is_good_for_its_time_and_an_hour_at_most_give_or_take_a_minute() {
        let with = |issued_s: i64, expires_s: i64| {
            let at = |seconds: i64| NOW_US.saturating_add_signed(seconds * SECOND_US as i64);
            check_with(|said| (said.issued_at, said.expires_at) = (at(issued_s), at(expires_s))).map(|_| ())
        };
        for (issued_s, expires_s, expect) in [
            (0, 600, Ok(())),
            (60, 600, Ok(())),
            (61, 600, Err("id_token_invalid")),
            (-600, -59, Ok(())),
            (-600, -60, Err("id_token_expired")),
            (-3_659, 600, Ok(())),
            (-3_660, 600, Err("id_token_expired")),
            (-30, -40, Err("id_token_invalid")),
        ] {
            assert_eq!(with(issued_s, expires_s), expect.map_err(str::to_owned), "{issued_s} {expires_s}");
        }
        // However far away its own end is, it has to be remembered for an hour.
        let identity = check_with(|said| said.expires_at = u64::MAX).unwrap();
        assert_eq!(identity.refused_from_us, NOW_US - SECOND_US + AGE_US_MAX + LEEWAY_US);
    }

    #[test]
    fn a_subject_is_some_text_of_ascii() {
        for subject in [String::new(), "a".repeat(256), "ädä".to_owned(), "a\nb".to_owned(), "a\0".to_owned()] {
            assert_eq!(check_with(|said| said.subject = subject.clone()).unwrap_err(), "id_token_invalid", "{subject}");
        }
        assert!(check_with(|said| said.subject = "a".repeat(255)).is_ok());
    }

    #[test]
    fn an_address_is_kept_where_the_provider_has_verified_it() {
        let email = |email: Option<&str>, verified: bool| {
            check_with(|said| (said.email, said.email_verified) = (email.map(str::to_owned), verified)).unwrap().email
        };
        assert_eq!(email(Some("ada@example.org"), true).as_deref(), Some("ada@example.org"));
        for (text, verified) in [
            (Some("ada@example.org"), false),
            (None, true),
            (Some("ada"), true),
            (Some("a@b\u{1b}[2J"), true),
            (Some(" a@b"), true),
            (Some(&format!("a@{}", "b".repeat(253))), true),
        ] {
            assert_eq!(email(text, verified), None, "{text:?}");
        }
    }
}
