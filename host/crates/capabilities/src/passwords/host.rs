//! `echo:passwords/passwords` for a guest: lengths are checked here, before a worker is taken.

use std::net::IpAddr;

use wasmtime::component::{HasSelf, Linker};

use super::{Algorithm, PasswordError, Requester, Standing};
use crate::context::CallContext;
use crate::guest::Guest;
use bindings::echo::passwords::passwords::{
    Algorithm as GuestAlgorithm, Host, PasswordError as GuestError, Standing as GuestStanding, Verdict,
};
use echo_base::limits;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../../wit",
        inline: "package echo:host; world capability { import echo:passwords/passwords@0.1.0; }",
        imports: { "echo:passwords/passwords@0.1.0.fingerprint": trappable, default: async },
    });
}

/// Gives the interface to whatever is instantiated with this linker.
pub fn add_to_linker<T: Send + 'static>(linker: &mut Linker<T>, get: fn(&mut T) -> &mut Guest) -> wasmtime::Result<()> {
    bindings::echo::passwords::passwords::add_to_linker::<T, HasSelf<Guest>>(linker, get)
}

impl Host for Guest {
    async fn hash(&mut self, password: String, algorithm: GuestAlgorithm, standing: GuestStanding) -> Result<String, GuestError> {
        check_password(&password)?;
        let algorithm = match algorithm {
            GuestAlgorithm::Argon2id => Algorithm::Argon2id,
            GuestAlgorithm::Bcrypt => Algorithm::Bcrypt,
            GuestAlgorithm::Scrypt => Algorithm::Scrypt,
        };
        Ok(self.capabilities.passwords.hash(&password, algorithm, &requester(self.context(), standing)).await?)
    }

    async fn verify(&mut self, password: String, stored: Option<String>, standing: GuestStanding) -> Result<Verdict, GuestError> {
        check_password(&password)?;
        if stored.as_ref().is_some_and(|stored| stored.len() > limits::PASSWORD_HASH_BYTES_MAX) {
            return Err(GuestError::MalformedHash);
        }
        let verdict = self.capabilities.passwords.verify(&password, stored.as_deref(), &requester(self.context(), standing)).await?;
        Ok(Verdict { matches: verdict.matches, needs_rehash: verdict.needs_rehash })
    }

    fn fingerprint(&mut self, secret: String) -> wasmtime::Result<String> {
        // Nothing longer than a request's body can come from a client; a service that hands in more has gone wrong.
        wasmtime::ensure!(secret.len() <= limits::BODY_BYTES_MAX, "fingerprint of {} bytes", secret.len());
        Ok(self.capabilities.passwords.fingerprint(&secret))
    }
}

/// Whoever is signed in is known, whatever the service says; others are told apart by their address, of IPv6 a whole /64.
fn requester(context: &CallContext, standing: GuestStanding) -> Requester {
    if let Some(caller) = &context.caller {
        return Requester { standing: Standing::Known, client: format!("user {}", caller.user_id) };
    }
    let standing = match standing {
        GuestStanding::Stranger => Standing::Stranger,
        GuestStanding::Known => Standing::Known,
    };
    let client = match context.client_address.map(|address| address.to_canonical()) {
        Some(IpAddr::V6(v6)) => format!("address {:?}", &v6.segments()[..4]),
        Some(IpAddr::V4(v4)) => format!("address {v4}"),
        None => String::new(),
    };
    Requester { standing, client }
}

fn check_password(password: &str) -> Result<(), GuestError> {
    if password.len() > limits::PASSWORD_BYTES_MAX { Err(GuestError::TooLong) } else { Ok(()) }
}

impl From<PasswordError> for GuestError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => GuestError::Busy,
            PasswordError::TooLong => GuestError::TooLong,
            PasswordError::MalformedHash => GuestError::MalformedHash,
        }
    }
}
