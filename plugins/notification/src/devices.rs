//! Where a user's pushes go. A push token belongs to one account and one session: who registers it has it, and it ends with the session.

use echo_sdk::sql::transaction;
use echo_sdk::wit::http;
use echo_sdk::{Error, caller, time};
use sha2::{Digest, Sha256};

use crate::bindings::exports::echo::auth::events::SessionEnd;
use crate::bindings::exports::echo::notification::api::{AddDeviceRequest, Provider, PushDevice, PushDevices};
use crate::encryption::Subscription;
use crate::providers;
use crate::store::{self, Device};

pub fn list() -> Result<PushDevices, Error> {
    let devices = store::devices_of(&caller()?.user_id)?;
    Ok(PushDevices { items: devices.into_iter().map(view).collect(), next_cursor: None, web_push_key: http::public_key("webpush") })
}

pub fn add(request: AddDeviceRequest) -> Result<PushDevice, Error> {
    let caller = caller()?;
    check_token(request.provider, &request.token)?;
    let device = Device {
        token: normalized(request.provider, request.token),
        provider: name(request.provider).to_owned(),
        platform: request.platform,
        created_at: time::now_us(),
    };
    transaction(|tx| {
        // A request that was on its way when its session ended: the token must not outlive what it belongs to.
        if store::has_ended(tx, &caller.session_id)? {
            return Err(Error::unauthenticated("token_revoked", "the session has ended"));
        }
        Ok(store::put_device(tx, &hash(&device.token), &caller.user_id, &caller.session_id, &device)?)
    })?;
    Ok(view(device))
}

/// What the provider would never take is refused now: later it would only be found that nothing arrives.
fn check_token(provider: Provider, token: &str) -> Result<(), Error> {
    match provider {
        Provider::Webpush if !Subscription::parse(token).is_some_and(|subscription| providers::is_push_service(&subscription.endpoint)) => {
            let wanted = "no PushSubscription as JSON of a push service that is served here, with TLS";
            Err(Error::invalid_field("token", "invalid_subscription", wanted))
        }
        Provider::Apns if !is_apns_token(token) => {
            Err(Error::invalid_field("token", "invalid_token", "a device token of APNs is 32 to 100 bytes in hexadecimal"))
        }
        Provider::Fcm if token.contains(char::is_whitespace) || !token.is_ascii() => {
            Err(Error::invalid_field("token", "invalid_token", "a registration token of FCM is ASCII without spaces"))
        }
        Provider::Webpush | Provider::Apns | Provider::Fcm => Ok(()),
    }
}

/// One phone is one device, however its token is written.
fn normalized(provider: Provider, token: String) -> String {
    if provider == Provider::Apns { token.to_ascii_lowercase() } else { token }
}

/// Apple's are of 32 bytes today, and may become longer (UIApplicationDelegate, didRegisterForRemoteNotifications).
fn is_apns_token(token: &str) -> bool {
    (64..=200).contains(&token.len()) && token.len().is_multiple_of(2) && token.bytes().all(|byte| byte.is_ascii_hexdigit())
}

pub fn remove(token: &str) -> Result<(), Error> {
    let me = caller()?.user_id;
    let written = if is_apns_token(token) { token.to_ascii_lowercase() } else { token.to_owned() };
    if store::delete_device(&hash(token), &me)? || store::delete_device(&hash(&written), &me)? {
        Ok(())
    } else {
        Err(Error::not_found("there is no such device"))
    }
}

/// A push token ends with the session that registered it, however that ended.
pub fn sessions_ended(event: &SessionEnd) -> Result<(), Error> {
    let now = time::now_us();
    transaction(|tx| {
        store::note_ended(tx, &event.session_ids, now)?;
        Ok(store::delete_devices_of_sessions(tx, &event.user_id, &event.session_ids)?)
    })
}

fn view(device: Device) -> PushDevice {
    let Device { token, provider, platform, created_at } = device;
    PushDevice { token, provider: provider_of(&provider), platform, created_at }
}

fn name(provider: Provider) -> &'static str {
    match provider {
        Provider::Fcm => "fcm",
        Provider::Apns => "apns",
        Provider::Webpush => "webpush",
    }
}

/// What the table's CHECK lets in.
fn provider_of(name: &str) -> Provider {
    match name {
        "apns" => Provider::Apns,
        "webpush" => Provider::Webpush,
        _ => Provider::Fcm,
    }
}

/// By which a token is known: SHA-256 in hexadecimal. A browser's subscription is its endpoint, however its JSON is written.
fn hash(token: &str) -> String {
    let endpoint = Subscription::parse(token).map(|subscription| subscription.endpoint);
    Sha256::digest(endpoint.as_deref().unwrap_or(token)).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_its_hash() {
        // FIPS 180-4's example "abc".
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_subscription_is_known_by_its_endpoint() {
        let written = |more: &str, secret: &str| {
            format!(
                r#"{{{more}"keys":{{"auth":"{secret}","p256dh":"BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"}},"endpoint":"https://push.example/1"}}"#
            )
        };
        let secret = "BTBZMqHH6r4Tts7J_aSIgg";
        assert!(Subscription::parse(&written("", secret)).is_some());
        assert_eq!(hash(&written("", secret)), hash(&written(r#""expirationTime":null,"#, &format!("{secret}=="))));
    }

    #[test]
    fn providers_lead_back() {
        for provider in [Provider::Fcm, Provider::Apns, Provider::Webpush] {
            assert_eq!(provider_of(name(provider)), provider);
        }
    }

    #[test]
    fn a_phone_is_one_device_in_upper_case_and_in_lower() {
        assert_eq!(normalized(Provider::Apns, "00aaFF19".repeat(8)), "00aaff19".repeat(8));
        assert_eq!(normalized(Provider::Fcm, "dGhpcw:APA91b".to_owned()), "dGhpcw:APA91b");
    }

    #[test]
    fn a_token_is_one_that_its_provider_makes() {
        let check = |provider, token: &str, expect: Option<&str>| {
            let refused = check_token(provider, token).err().map(|error| error.code);
            assert_eq!(refused.as_deref(), expect, "{token}");
        };
        let apns = "00aaFF19".repeat(8);
        check(Provider::Apns, &apns, None);
        check(Provider::Apns, &apns[1..], Some("invalid_token"));
        check(Provider::Apns, &apns[..62], Some("invalid_token"));
        check(Provider::Apns, &"a".repeat(202), Some("invalid_token"));
        for wrong in ["zz", "", &"z".repeat(64)] {
            check(Provider::Apns, wrong, Some("invalid_token"));
        }
        check(Provider::Fcm, "dGhpcw:APA91b-_x", None);
        check(Provider::Fcm, "two words", Some("invalid_token"));
        check(Provider::Fcm, "größe", Some("invalid_token"));
        check(Provider::Webpush, "zz", Some("invalid_subscription"));
    }
}
