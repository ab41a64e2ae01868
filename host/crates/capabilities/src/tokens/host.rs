//! `echo:tokens/tokens` for a guest: identifiers are parsed and lengths checked here; no key comes near a guest.

use uuid::Uuid;
use wasmtime::component::{HasSelf, Linker};

use super::id_token::{self, IdTokenError};
use super::{Claims, TokenError};
use crate::guest::Guest;
use bindings::echo::tokens::tokens::{
    AccessToken, Claims as GuestClaims, Host, IdToken as GuestIdToken, IdTokenError as GuestIdTokenError, Ticket, TokenError as GuestError,
    Verified,
};
use echo_base::limits;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        inline: "package echo:host; world capability { import echo:tokens/tokens@0.1.0; }",
        imports: {
            "echo:tokens/tokens@0.1.0.verify": async,
            "echo:tokens/tokens@0.1.0.socket-ticket": async,
            "echo:tokens/tokens@0.1.0.revoke-session": async,
            "echo:tokens/tokens@0.1.0.revoke-user": async,
        },
    });
}

/// Gives the interface to whatever is instantiated with this linker.
pub fn add_to_linker<T: Send + 'static>(linker: &mut Linker<T>, get: fn(&mut T) -> &mut Guest) -> wasmtime::Result<()> {
    bindings::echo::tokens::tokens::add_to_linker::<T, HasSelf<Guest>>(linker, get)
}

impl Host for Guest {
    fn sign(&mut self, claims: GuestClaims) -> Result<AccessToken, GuestError> {
        let signed = self.capabilities.tokens.sign(&checked_claims(claims)?)?;
        Ok(AccessToken { token: signed.token, jti: signed.jti.to_string(), expires_in: signed.expires_in_s })
    }

    async fn verify(&mut self, token: String) -> Result<Verified, GuestError> {
        if token.len() > limits::TOKEN_BYTES_MAX {
            return Err(GuestError::Invalid);
        }
        let caller = self.capabilities.tokens.verify(&token).await?;
        let jti = self.capabilities.tokens.jti(&token)?;
        Ok(Verified {
            claims: GuestClaims {
                user_id: caller.user_id.to_string(),
                device_id: caller.device_id.clone(),
                session_id: caller.session_id.to_string(),
                roles: caller.roles.clone(),
            },
            jti: jti.to_string(),
            expires_at: caller.expires_at_us,
        })
    }

    async fn revoke_session(&mut self, session_id: String) -> Result<(), GuestError> {
        Ok(self.capabilities.tokens.revoke_session(identifier(&session_id)?).await?)
    }

    async fn revoke_user(&mut self, user_id: String) -> Result<(), GuestError> {
        Ok(self.capabilities.tokens.revoke_user(identifier(&user_id)?).await?)
    }

    async fn socket_ticket(&mut self, claims: GuestClaims) -> Result<Ticket, GuestError> {
        let (ticket, expires_in) = self.capabilities.tokens.issue_ticket(&checked_claims(claims)?).await?;
        Ok(Ticket { ticket, expires_in })
    }

    fn verify_id_token(&mut self, token: String, keys: String) -> Result<GuestIdToken, GuestIdTokenError> {
        let said = id_token::verify(&token, &keys).map_err(|error| match error {
            IdTokenError::Invalid => GuestIdTokenError::Invalid,
            IdTokenError::UnknownKey => GuestIdTokenError::UnknownKey,
        })?;
        Ok(GuestIdToken {
            issuer: said.issuer,
            subject: said.subject,
            audience: said.audience,
            authorized_party: said.authorized_party,
            nonce: said.nonce,
            issued_at: said.issued_at_us,
            expires_at: said.expires_at_us,
            email: said.email,
            email_verified: said.email_verified,
        })
    }
}

fn checked_claims(claims: GuestClaims) -> Result<Claims, GuestError> {
    let device_good = !claims.device_id.is_empty() && claims.device_id.chars().count() <= limits::DEVICE_ID_CHARS_MAX;
    let roles_good =
        claims.roles.len() <= limits::ROLES_MAX && claims.roles.iter().all(|role| !role.is_empty() && role.len() <= limits::ROLE_BYTES_MAX);
    if !device_good || !roles_good {
        return Err(GuestError::Invalid);
    }
    Ok(Claims {
        user_id: identifier(&claims.user_id)?,
        device_id: claims.device_id,
        session_id: identifier(&claims.session_id)?,
        roles: claims.roles,
    })
}

/// The hyphenated form alone: `Uuid::parse_str` by itself would take braces and `urn:uuid:` too.
fn identifier(text: &str) -> Result<Uuid, GuestError> {
    if text.len() != uuid::fmt::Hyphenated::LENGTH {
        return Err(GuestError::Invalid);
    }
    Uuid::try_parse(text).map_err(|_| GuestError::Invalid)
}

impl From<TokenError> for GuestError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Unavailable => GuestError::Unavailable,
            TokenError::Invalid | TokenError::Expired | TokenError::Revoked => GuestError::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> GuestClaims {
        GuestClaims {
            user_id: "0190c8a0-7e3b-7000-8000-000000000001".to_owned(),
            device_id: "phone".to_owned(),
            session_id: "0190c8a0-7e3b-7000-8000-000000000002".to_owned(),
            roles: vec!["admin".to_owned()],
        }
    }

    #[test]
    fn claims_are_checked_before_they_are_signed() {
        assert!(checked_claims(good()).is_ok());
        let device = |device_id: String| GuestClaims { device_id, ..good() };
        let roles = |roles: Vec<String>| GuestClaims { roles, ..good() };
        let user = |user_id: &str| GuestClaims { user_id: user_id.to_owned(), ..good() };
        assert!(checked_claims(device("ä".repeat(limits::DEVICE_ID_CHARS_MAX))).is_ok());
        for wrong in [
            device(String::new()),
            device("ä".repeat(limits::DEVICE_ID_CHARS_MAX + 1)),
            roles(vec!["r".to_owned(); limits::ROLES_MAX + 1]),
            roles(vec!["r".repeat(limits::ROLE_BYTES_MAX + 1)]),
            roles(vec![String::new()]),
            user(""),
            user("someone"),
            user("{0190c8a0-7e3b-7000-8000-000000000001}"),
            user("0190c8a07e3b70008000000000000001"),
            GuestClaims { session_id: "urn:uuid:0190c8a0-7e3b-7000-8000-000000000002".to_owned(), ..good() },
        ] {
            assert!(checked_claims(wrong.clone()).is_err(), "{wrong:?}");
        }
    }
}
