//! `echo:tokens/tokens` for a guest: identifiers are parsed and lengths checked here; no key comes near a guest.

use uuid::Uuid;
use wasmtime::component::{HasSelf, Linker};

use super::{Claims, TokenError};
use crate::capabilities::guest::Guest;
use crate::limits;
use bindings::echo::tokens::tokens::{AccessToken, Claims as GuestClaims, Host, Ticket, TokenError as GuestError, Verified};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        inline: "package echo:host; world power { import echo:tokens/tokens@0.1.0; }",
        imports: {
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
        let signed = self.powers.tokens.sign(&checked_claims(claims)?)?;
        Ok(AccessToken { token: signed.token, jti: signed.jti.to_string(), expires_in: signed.expires_in_s })
    }

    fn verify(&mut self, token: String) -> Result<Verified, GuestError> {
        if token.len() > limits::TOKEN_BYTES_MAX {
            return Err(GuestError::Invalid);
        }
        let caller = self.powers.tokens.verify(&token)?;
        let jti = self.powers.tokens.jti(&token)?;
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
        Ok(self.powers.tokens.revoke_session(identifier(&session_id)?).await?)
    }

    async fn revoke_user(&mut self, user_id: String) -> Result<(), GuestError> {
        Ok(self.powers.tokens.revoke_user(identifier(&user_id)?).await?)
    }

    fn socket_ticket(&mut self, claims: GuestClaims) -> Result<Ticket, GuestError> {
        let (ticket, expires_in) = self.powers.tokens.issue_ticket(&checked_claims(claims)?)?;
        Ok(Ticket { ticket, expires_in })
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
