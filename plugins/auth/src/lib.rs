//! The auth service: its exports, each handed to the file of its topic. Rules are in `otp.rs`, `policy.rs`, `lockout.rs`; SQL is in `store.rs`.

mod accounts;
mod clients;
mod erasure;
mod exports;
mod lockout;
mod login;
mod numbers;
mod oauth;
mod otp;
mod password;
mod policy;
mod quotas;
mod retention;
mod roles;
mod secret;
mod sessions;
mod settings;
mod store;
mod totp;

#[allow(clippy::all)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "echo:services/auth",
        generate_all,
        with: {
            "echo:types/types@0.1.0": echo_sdk::wit::types,
            "echo:context/context@0.1.0": echo_sdk::wit::context,
            "echo:sql/sql@0.1.0": echo_sdk::wit::sql,
            "echo:cache/cache@0.1.0": echo_sdk::wit::cache,
            "echo:http/http@0.1.0": echo_sdk::wit::http,
            "echo:passwords/passwords@0.1.0": echo_sdk::wit::passwords,
            "echo:tokens/tokens@0.1.0": echo_sdk::wit::tokens,
            "echo:config/config@0.1.0": echo_sdk::wit::config,
            "echo:log/log@0.1.0": echo_sdk::wit::log,
            "wasi:clocks/wall-clock@0.2.6": echo_sdk::wit::wall_clock,
            "wasi:random/random@0.2.6": echo_sdk::wit::random,
        },
    });
}

use bindings::exports::echo::account_export::events as export_events;
use bindings::exports::echo::auth::api;
use echo_sdk::Error;

struct Service;

impl api::Guest for Service {
    fn register(request: api::RegisterRequest) -> Result<api::Registration, Error> {
        accounts::register(request)
    }

    fn verify_otp(request: api::VerifyOtpRequest) -> Result<api::Tokens, Error> {
        accounts::verify_otp(request)
    }

    fn resend_otp(request: api::ResendOtpRequest) -> Result<api::CodeSent, Error> {
        accounts::resend_otp(request)
    }

    fn login(request: api::LoginRequest) -> Result<api::Tokens, Error> {
        login::login(request)
    }

    fn refresh(request: api::RefreshRequest) -> Result<api::Tokens, Error> {
        sessions::refresh(request)
    }

    fn logout() -> Result<(), Error> {
        sessions::logout()
    }

    fn logout_all() -> Result<(), Error> {
        sessions::logout_all()
    }

    fn list_sessions() -> Result<api::Sessions, Error> {
        sessions::list()
    }

    fn end_session(request: api::SessionRequest) -> Result<(), Error> {
        sessions::end(request)
    }

    fn forgot_password(request: api::PhoneRequest) -> Result<api::ResetSent, Error> {
        password::forgot(request)
    }

    fn reset_password(request: api::ResetPasswordRequest) -> Result<(), Error> {
        password::reset(request)
    }

    fn change_password(request: api::ChangePasswordRequest) -> Result<(), Error> {
        password::change(request)
    }

    fn list_logins(request: api::LoginHistoryRequest) -> Result<api::LoginHistory, Error> {
        login::history(request)
    }

    fn issue_ws_ticket() -> Result<api::WsTicket, Error> {
        sessions::issue_ws_ticket()
    }

    fn start_totp(request: api::StartTotpRequest) -> Result<api::TotpSecret, Error> {
        totp::start(&request.password)
    }

    fn confirm_totp(request: api::ConfirmTotpRequest) -> Result<api::RecoveryCodes, Error> {
        totp::confirm(&request.code)
    }

    fn end_totp(request: api::EndTotpRequest) -> Result<(), Error> {
        totp::end(&request.code)
    }

    fn oauth(request: api::OauthRequest) -> Result<api::Tokens, Error> {
        oauth::sign_in_or_link(request)
    }

    fn list_identities() -> Result<api::Identities, Error> {
        oauth::list()
    }

    fn unlink_identity(request: api::UnlinkRequest) -> Result<(), Error> {
        oauth::unlink(&request.provider)
    }

    fn delete_account() -> Result<(), Error> {
        erasure::delete()
    }

    fn erase_accounts() -> Result<(), Error> {
        erasure::erase_due()
    }

    fn request_export() -> Result<api::ExportStatus, Error> {
        exports::request()
    }

    fn get_export(request: api::ExportPageRequest) -> Result<api::AccountExport, Error> {
        exports::read(&request)
    }

    fn renew_exports() -> Result<(), Error> {
        exports::renew()
    }

    fn clear_away() -> Result<(), Error> {
        retention::clear_away()
    }

    fn end_expired_sessions() -> Result<(), Error> {
        sessions::end_expired()
    }

    fn get_account(request: api::AccountRequest) -> Result<api::Account, Error> {
        accounts::get(request)
    }
}

impl export_events::Guest for Service {
    fn prepared(_key: String, event: export_events::PreparedPart) -> Result<(), Error> {
        exports::prepared(&event)
    }

    /// Published by this service itself; not subscribed to.
    fn requested(_key: String, _event: export_events::Request) -> Result<(), Error> {
        Ok(())
    }
}

// Only in the component: the native build of the tests has no use for the exports.
#[cfg(target_arch = "wasm32")]
bindings::export!(Service with_types_in bindings);
