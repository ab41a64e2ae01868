//! Opening an account and confirming its number.

use echo_sdk::checks::Checks;
use echo_sdk::sql::Database;
use echo_sdk::{Error, ErrorKind, ids, log, time, transaction};

use crate::bindings::echo::location::api as location;
use crate::bindings::echo::user::events as user_events;
use crate::bindings::exports::echo::auth::api::{
    Account, AccountRequest, CodeSent, PhoneRequest, RegisterRequest, Registration, Tokens, VerifyOtpRequest,
};
use crate::otp::{self, Code, Purpose};
use crate::settings::Settings;
use crate::{policy, sessions, store};

const NAME_CHARS_MAX: usize = 100;

/// Where a number belongs, as far as anybody knows.
#[derive(Default)]
pub struct Place {
    pub country: Option<String>,
    pub region: Option<String>,
    pub timezone: Option<String>,
}

pub fn register(request: RegisterRequest) -> Result<Registration, Error> {
    let settings = Settings::load();
    let name = request.name.as_deref().map(str::trim).filter(|name| !name.is_empty());
    Checks::new().name("name", name, 1..=NAME_CHARS_MAX).finish()?;
    policy::check("password", &request.password, &request.phone)?;
    let place = place_of(&request.phone, &settings)?;

    let waiting = store::account_by_phone(&Database, &request.phone)?;
    if let Some(account) = &waiting {
        if account.verified {
            return Err(phone_taken());
        }
        // Asked again before another code may be sent: the same request gets the same answer. Another password has to wait, or whoever
        // registers a number right after its owner would choose the password that the owner's code confirms.
        if let Some(sent) = otp::just_sent(&settings, Purpose::Verify, &request.phone)? {
            let same = policy::matches(&request.password, Some(&account.password_hash))?.matches;
            return if same {
                Ok(registration(account.id.clone(), sent, place))
            } else {
                Err(otp::too_soon(u64::from(sent.resend_after) * 1_000))
            };
        }
    }

    let password_hash = policy::hash(&request.password)?;
    let code = Code::new(Purpose::Verify, &request.phone);
    let now_us = time::now_us();
    let id = transaction(|tx| {
        otp::take_quota(tx, &settings, &request.phone, now_us)?;
        let account = store::NewAccount { id: &ids::uuid_v7(), phone: &request.phone, name, password_hash: &password_hash, place: &place };
        // None: verified by somebody meanwhile.
        let id = store::open_account(tx, &account, now_us)?.ok_or_else(phone_taken)?;
        store::forget_passwords(tx, &id)?;
        store::remember_password(tx, &id, &password_hash, now_us)?;
        otp::send(tx, &settings, &code, now_us)?;
        Ok::<_, Error>(id)
    })?;
    Ok(registration(id, otp::sent(&settings), place))
}

pub fn verify_otp(request: VerifyOtpRequest) -> Result<Tokens, Error> {
    let settings = Settings::load();
    sessions::check_device(&request.device)?;
    let code = Code::given(Purpose::Verify, &request.phone, &request.otp)?;
    let now_us = time::now_us();
    let opened = transaction(|tx| {
        if let Err(wrong) = otp::confirm(tx, &settings, &code, now_us)? {
            return Ok::<_, Error>(Err(wrong));
        }
        let first = store::verify_account(tx, &request.phone, now_us)?;
        let account = store::account_by_phone(tx, &request.phone)?.ok_or_else(otp::invalid)?;
        if first {
            let registration = user_events::Registration {
                user_id: account.id.clone(),
                phone: account.phone.clone(),
                name: account.name.clone(),
                country: account.country.clone(),
                timezone: account.timezone.clone(),
                at: now_us,
            };
            user_events::registered(&account.id, &registration)?;
        }
        Ok(Ok(sessions::open(tx, &settings, &account, &request.device, now_us)?))
    })??;
    Ok(opened.finish())
}

pub fn resend_otp(request: PhoneRequest) -> Result<CodeSent, Error> {
    let settings = Settings::load();
    let waits = store::account_by_phone(&Database, &request.phone)?.is_some_and(|account| !account.verified);
    otp::send_if(waits, &settings, Purpose::Verify, &request.phone)
}

pub fn get(request: AccountRequest) -> Result<Account, Error> {
    let account = store::account_by_id(&Database, &request.user_id)?.ok_or_else(|| Error::not_found("no such account"))?;
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

/// Errors: 422 `invalid_phone`. Without the location service the account is opened without a place.
fn place_of(phone: &str, settings: &Settings) -> Result<Place, Error> {
    match location::lookup(&location::LookupRequest { phone: phone.to_owned() }) {
        // Another form of the number (a trunk prefix in it) would be another account for the same telephone.
        Ok(found) if found.phone != phone || (settings.refuse_unassigned_numbers && !found.valid) => {
            Err(Error::invalid_field("phone", "invalid_phone", "no numbering plan has such a number"))
        }
        Ok(found) => Ok(Place { country: found.country, region: found.region, timezone: found.timezone }),
        Err(error) if error.kind == ErrorKind::Invalid => Err(error),
        Err(error) => {
            log::warn("registering without a place", &[("reason", &error.code)]);
            Ok(Place::default())
        }
    }
}

fn registration(user_id: String, sent: CodeSent, place: Place) -> Registration {
    Registration {
        user_id,
        otp_expires_in: sent.otp_expires_in,
        resend_after: sent.resend_after,
        country: place.country,
        region: place.region,
        timezone: place.timezone,
    }
}

fn phone_taken() -> Error {
    Error::conflict("phone_taken", "there is an account with this number; sign in instead")
}
