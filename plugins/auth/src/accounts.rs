//! Registering a number, confirming it, and the account that comes of it.

use echo_sdk::sql::Database;
use echo_sdk::time::SECOND_US;
use echo_sdk::wit::context;
use echo_sdk::wit::passwords::Standing;
use echo_sdk::{Error, ErrorKind, ids, time, transaction};

use crate::bindings::echo::user::events as user_events;
use crate::bindings::exports::echo::auth::api::{
    Account, AccountRequest, CodeSent, RegisterRequest, Registration, ResendOtpRequest, Tokens, VerifyOtpRequest,
};
use crate::otp::{self, Code, Purpose};
use crate::secret::{Kind, Secret};
use crate::settings::Settings;
use crate::{clients, numbers, policy, quotas, sessions, store};

pub fn register(request: RegisterRequest) -> Result<Registration, Error> {
    let settings = Settings::load();
    let name = request.name.as_deref().map(str::trim).filter(|name| !name.is_empty());
    policy::check("password", &request.password, &request.phone)?;
    let place = numbers::served(&request.phone, &settings)?;
    if store::account_by_phone(&Database, &request.phone)?.is_some() {
        return Err(phone_taken());
    }
    // Before the hashing, and whatever the password: other registrations of the number are none of this client's business.
    let quotas = quotas::of_registration(&settings, &request.phone, &clients::address());
    quotas::check(&Database, &quotas, time::now_us())??;

    let password_hash = policy::hash(&request.password, Standing::Stranger)?;
    let secret = Secret::new(Kind::Registration);
    let code = Code::new(Purpose::Verify, &secret.fingerprint);
    let address = context::client_address();
    let now_us = time::now_us();
    transaction(|tx| {
        if store::account_by_phone(tx, &request.phone)?.is_some() {
            return Err(phone_taken());
        }
        quotas::take(tx, &quotas, now_us)??;
        let (open, first_ends_us) = store::open_registrations(tx, &request.phone, now_us)?;
        if open >= settings.registrations_per_phone {
            return Err(too_many_registrations(first_ends_us.unwrap_or(now_us).saturating_sub(now_us)));
        }
        let registration = store::NewRegistration {
            fingerprint: &secret.fingerprint,
            phone: &request.phone,
            password_hash: &password_hash,
            name,
            place: &place,
            address: address.as_deref(),
            code: &code,
            code_expires_at: otp::ends_us(&settings, now_us),
            expires_at: now_us + settings.registration_ttl_s * SECOND_US,
        };
        store::add_registration(tx, &registration, now_us)?;
        otp::send(&settings, &request.phone, &code, now_us)
    })?;
    let sent = otp::sent(&settings);
    Ok(Registration {
        registration_id: secret.text,
        otp_expires_in: sent.otp_expires_in,
        resend_after: sent.resend_after,
        country: place.country,
        region: place.region,
        timezone: place.timezone,
    })
}

pub fn verify_otp(request: VerifyOtpRequest) -> Result<Tokens, Error> {
    let settings = Settings::load();
    let secret = Secret::given(Kind::Registration, &request.registration_id).ok_or_else(otp::invalid)?;
    let code = Code::given(Purpose::Verify, &secret.fingerprint, &request.otp);
    let now_us = time::now_us();
    let opened = transaction(|tx| {
        let registration = store::try_registration(tx, &secret.fingerprint, &request.phone, now_us)?;
        if let Err(wrong) = otp::judge(registration.as_ref().map(|registration| &registration.code), &code, &settings, now_us) {
            // Committed: the try counts.
            return Ok::<_, Error>(Err(wrong));
        }
        let registration = registration.ok_or_else(otp::invalid)?;
        let account = store::open_account(tx, &ids::uuid_v7(), &request.phone, &registration, now_us)?.ok_or_else(phone_taken)?;
        store::remember_password(tx, &account.id, &account.password_hash, now_us)?;
        store::end_registrations(tx, &request.phone)?;
        let registered = user_events::Registration {
            user_id: account.id.clone(),
            phone: account.phone.clone(),
            name: account.name.clone(),
            country: account.country.clone(),
            timezone: account.timezone.clone(),
            at: now_us,
        };
        user_events::registered(&account.id, &registered)?;
        Ok(Ok(sessions::open(tx, &settings, &account, &request.device, now_us)?))
    })??;
    Ok(opened.finish())
}

pub fn resend_otp(request: ResendOtpRequest) -> Result<CodeSent, Error> {
    let settings = Settings::load();
    let secret = Secret::given(Kind::Registration, &request.registration_id).ok_or_else(registration_unknown)?;
    let code = Code::new(Purpose::Verify, &secret.fingerprint);
    let now_us = time::now_us();
    transaction(|tx| {
        if !store::renew_code(tx, &secret.fingerprint, &request.phone, &code, otp::ends_us(&settings, now_us), now_us)? {
            return Err(registration_unknown());
        }
        quotas::take(tx, &quotas::of_registration(&settings, &request.phone, &clients::address()), now_us)??;
        otp::send(&settings, &request.phone, &code, now_us)
    })?;
    Ok(otp::sent(&settings))
}

pub fn get(request: AccountRequest) -> Result<Account, Error> {
    let account = store::account_by_id(&Database, &request.user_id)?.ok_or_else(no_account)?;
    // To other services there is none while its owner only might have it back.
    if store::is_deleted(&Database, &account.id)? {
        return Err(no_account());
    }
    Ok(Account {
        user_id: account.id,
        phone: account.phone,
        name: account.name,
        country: account.country,
        region: account.region,
        timezone: account.timezone,
        verified: account.verified,
        created_at: account.created_at,
    })
}

fn no_account() -> Error {
    Error::not_found("no such account")
}

fn phone_taken() -> Error {
    Error::conflict("phone_taken", "there is an account with this number; sign in instead")
}

fn registration_unknown() -> Error {
    Error::new(ErrorKind::NotFound, "registration_unknown", "this registration is over; register again")
}

fn too_many_registrations(ends_in_us: u64) -> Error {
    Error::rate_limited("too_many_registrations", "too many registrations of this number are open", ends_in_us.div_ceil(1_000))
}
