//! The providers of pushes: what is sent to each, and what its answers mean. Web Push (RFC 8030), FCM (HTTP v1) and APNs. The host holds the keys and signs.

use echo_sdk::time::SECOND_US;
use echo_sdk::wit::http::{self, Header, HttpError, Request, Response};
use echo_sdk::{Timestamp, config};
use serde_json::{Value, json};
use unicode_segmentation::UnicodeSegmentation;

use crate::bounds::{BACK_OFF_MAX_MS, BACK_OFF_MS, PAYLOAD_BYTES_MAX, PUSH_TIMEOUT_MS, RETRY_AFTER_MAX_MS};
use crate::encryption::{PLAINTEXT_BYTES_MAX, Subscription};

/// Where the settings are missing.
const PUSH_SERVICES: &str = "fcm.googleapis.com updates.push.services.mozilla.com *.push.apple.com *.notify.windows.com";
const FCM_URL: &str = "https://fcm.googleapis.com";
const APNS_URL: &str = "https://api.push.apple.com";

/// Where to send, as it is configured.
pub struct Providers {
    /// The push services that browsers' subscriptions may name.
    webpush: Option<String>,
    /// The address of its messages.
    fcm: Option<String>,
    /// The address of its devices, and the app.
    apns: Option<(String, String)>,
}

/// A push that is due.
pub struct Push<'a> {
    pub provider: &'a str,
    pub token: &'a str,
    pub title: &'a str,
    pub body: &'a str,
    /// Whether the recipient lets pushes show what messages say.
    pub shows_text: bool,
    pub message_id: &'a str,
    pub conversation_id: &'a str,
    /// Until when it is of use.
    pub expires_at: Timestamp,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Sent,
    /// The token is no more.
    Dead,
    /// The provider says when; none: it does not.
    Retry(Option<u64>),
    /// It will never be taken, or is of no use any more.
    GivenUp,
}

/// Whether a browser's pushes may be sent there: the address comes from whoever registers a device.
pub fn is_push_service(endpoint: &str) -> bool {
    is_among(&push_services(), endpoint)
}

fn push_services() -> String {
    config::text("push_services").unwrap_or_else(|| PUSH_SERVICES.to_owned())
}

/// `services`: names, or `*.name` for all hosts below it, with a port unless it is 443, separated by spaces; `http://name:port` for one of the operator's own
/// without TLS, which RFC 8030 (section 8) has for all others.
fn is_among(services: &str, endpoint: &str) -> bool {
    let (scheme, rest) = match endpoint.split_once("://") {
        Some(("https", rest)) => ("", rest),
        Some(("http", rest)) => ("http://", rest),
        _ => return false,
    };
    let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or_default().to_ascii_lowercase();
    let host = authority.strip_suffix(":443").unwrap_or(&authority);
    let of_scheme = |service| match scheme {
        "" => Some(service).filter(|service: &&str| !service.contains("://")),
        scheme => service.strip_prefix(scheme),
    };
    services.split_whitespace().filter_map(of_scheme).any(|service| match service.strip_prefix('*') {
        Some(below) => host.len() > below.len() && host.ends_with(below) && !host.contains('@'),
        None => host == service,
    })
}

impl Providers {
    pub fn configured() -> Self {
        let has = |credential| http::public_key(credential).is_some();
        let text = |key| config::text(key).filter(|text| !text.is_empty());
        let at = |key, fallback: &str| text(key).unwrap_or_else(|| fallback.to_owned()).trim_end_matches('/').to_owned();
        let fcm = text("fcm_project").map(|project| format!("{}/v1/projects/{project}/messages:send", at("fcm_url", FCM_URL)));
        let apns = text("apns_topic").map(|topic| (format!("{}/3/device/", at("apns_url", APNS_URL)), topic));
        Self { webpush: has("webpush").then(push_services), fcm: fcm.filter(|_| has("fcm")), apns: apns.filter(|_| has("apns")) }
    }

    pub fn sends(&self, provider: &str) -> bool {
        match provider {
            "webpush" => self.webpush.is_some(),
            "fcm" => self.fcm.is_some(),
            "apns" => self.apns.is_some(),
            _ => false,
        }
    }

    /// None: its token cannot be sent to.
    pub fn request(&self, push: &Push, now: Timestamp) -> Option<Request> {
        let ttl_s = push.expires_at.saturating_sub(now) / SECOND_US;
        match push.provider {
            "webpush" => web_push(self.webpush.as_deref()?, push, ttl_s),
            "fcm" => Some(fcm(self.fcm.as_deref()?, push, ttl_s)),
            "apns" => {
                let (url, topic) = self.apns.as_ref()?;
                apns(url, topic, push)
            }
            _ => None,
        }
    }
}

/// What a browser's own code shows.
fn web_push(services: &str, push: &Push, ttl_s: u64) -> Option<Request> {
    let subscription = Subscription::parse(push.token).filter(|subscription| is_among(services, &subscription.endpoint))?;
    let payload = cut(push.body, PLAINTEXT_BYTES_MAX, |body| {
        json!({
            "title": push.title,
            "body": body,
            "preview": push.shows_text,
            "message_id": push.message_id,
            "conversation_id": push.conversation_id,
        })
    });
    // RFC 8030, section 5.4: one that was not fetched yet gives way to the next of its conversation. At most 32 characters of base64url.
    let (ttl, topic) = (ttl_s.to_string(), push.conversation_id.replace('-', ""));
    let headers = [
        ("content-encoding", "aes128gcm"),
        ("content-type", "application/octet-stream"),
        ("ttl", ttl.as_str()),
        ("urgency", "high"),
        ("topic", topic.as_str()),
    ];
    Some(request(&subscription.endpoint, &headers, subscription.encrypt(&payload)?, "webpush"))
}

fn fcm(url: &str, push: &Push, ttl_s: u64) -> Request {
    let payload = cut(push.body, PAYLOAD_BYTES_MAX, |body| {
        json!({ "message": {
            "token": push.token,
            "notification": { "title": push.title, "body": body },
            "data": { "message_id": push.message_id, "conversation_id": push.conversation_id },
            "android": { "collapse_key": push.conversation_id, "priority": "HIGH", "ttl": format!("{ttl_s}s") },
        } })
    });
    request(url, &[("content-type", "application/json")], payload, "fcm")
}

fn apns(url: &str, topic: &str, push: &Push) -> Option<Request> {
    // Hexadecimal, as Apple gives them out: nothing else belongs into an address.
    if push.token.is_empty() || !push.token.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let payload = cut(push.body, PAYLOAD_BYTES_MAX, |body| {
        json!({
            "aps": { "alert": { "title": push.title, "body": body }, "sound": "default", "thread-id": push.conversation_id, "mutable-content": 1 },
            "message_id": push.message_id,
            "conversation_id": push.conversation_id,
        })
    });
    let expiration = (push.expires_at / SECOND_US).to_string();
    let headers = [
        ("apns-topic", topic),
        ("apns-push-type", "alert"),
        ("apns-priority", "10"),
        ("apns-collapse-id", push.conversation_id),
        ("apns-expiration", expiration.as_str()),
        ("content-type", "application/json"),
    ];
    Some(request(&format!("{url}{}", push.token), &headers, payload, "apns"))
}

fn request(url: &str, headers: &[(&str, &str)], body: Vec<u8>, credential: &str) -> Request {
    Request {
        method: "POST".to_owned(),
        url: url.to_owned(),
        headers: headers.iter().map(|(name, value)| Header { name: (*name).to_owned(), value: (*value).to_owned() }).collect(),
        body,
        credential: Some(credential.to_owned()),
        timeout_ms: PUSH_TIMEOUT_MS,
    }
}

/// The payload with as much of the body as fits, whole graphemes (UAX 29) and an ellipsis where it is cut.
fn cut(body: &str, bytes_max: usize, payload: impl Fn(&str) -> Value) -> Vec<u8> {
    let whole = payload(body).to_string();
    if whole.len() <= bytes_max {
        return whole.into_bytes();
    }
    let ends: Vec<usize> = body.grapheme_indices(true).map(|(at, _)| at).collect();
    let of = |end: usize| payload(&format!("{}…", &body[..end])).to_string();
    let fitting = ends.partition_point(|end| of(*end).len() <= bytes_max);
    of(fitting.checked_sub(1).map_or(0, |last| ends[last])).into_bytes()
}

/// What an answer means. Only what can be nothing but the end of a token ends it: a mistake in the settings must not take all of them.
pub fn outcome(provider: &str, answer: &Result<Response, HttpError>, now: Timestamp) -> Outcome {
    let response = match answer {
        Ok(response) => response,
        Err(HttpError::NotGranted | HttpError::Invalid | HttpError::TooLarge) => return Outcome::GivenUp,
        Err(HttpError::Unreachable | HttpError::TimedOut | HttpError::NoCredential) => return Outcome::Retry(None),
    };
    let reason = || serde_json::from_slice::<Value>(&response.body).unwrap_or_default();
    match (response.status, provider) {
        (200..=299, _) => Outcome::Sent,
        (429 | 500..=599, _) => Outcome::Retry(retry_after_ms(response, now)),
        // RFC 8030, section 7.3.
        (404 | 410, "webpush") | (410, "apns") => Outcome::Dead,
        (404, "fcm") if fcm_code(&reason()) == "UNREGISTERED" => Outcome::Dead,
        (400, "apns") if reason()["reason"] == "BadDeviceToken" => Outcome::Dead,
        // The host asks for another access token before it sends again.
        (401, "fcm") => Outcome::Retry(None),
        (403, "apns") if reason()["reason"] == "ExpiredProviderToken" => Outcome::Retry(None),
        _ => Outcome::GivenUp,
    }
}

/// What FCM says in detail.
fn fcm_code(answer: &Value) -> String {
    let details = answer["error"]["details"].as_array().into_iter().flatten();
    let code = details.filter_map(|detail| detail["errorCode"].as_str()).next();
    code.unwrap_or_default().to_owned()
}

/// In seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after_ms(response: &Response, now: Timestamp) -> Option<u64> {
    let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("retry-after"))?;
    let text = header.value.trim();
    let wait_ms = match text.parse::<u64>() {
        Ok(seconds) => seconds.saturating_mul(1_000),
        Err(_) => {
            let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            u64::try_from(at.as_millisecond()).ok()?.saturating_sub(now / 1_000)
        }
    };
    Some(wait_ms.min(RETRY_AFTER_MAX_MS))
}

/// How long to wait after so many tries: twice as long each time, and never shorter than the provider says.
pub fn back_off_ms(tries: u64, said_ms: Option<u64>) -> u64 {
    let doubled = BACK_OFF_MS.saturating_mul(1 << tries.min(20)).min(BACK_OFF_MAX_MS);
    doubled.max(said_ms.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push<'a>(provider: &'a str, token: &'a str, body: &'a str) -> Push<'a> {
        Push {
            provider,
            token,
            title: "New message",
            body,
            shows_text: true,
            message_id: "m",
            conversation_id: "0189-c",
            expires_at: 100 * SECOND_US,
        }
    }

    fn providers() -> Providers {
        Providers {
            webpush: Some("push.example.net".to_owned()),
            fcm: Some("https://fcm/send".into()),
            apns: Some(("https://apns/3/device/".into(), "app".into())),
        }
    }

    fn header(request: &Request, name: &str) -> Option<String> {
        request.headers.iter().find(|header| header.name == name).map(|header| header.value.clone())
    }

    #[test]
    fn a_payload_is_cut_at_a_grapheme_and_never_exceeds_its_bound() {
        let family = "👨‍👩‍👧‍👦";
        for body in [family.repeat(300), "\u{1}".repeat(3_000), "a".repeat(5_000), "\"".repeat(4_000)] {
            for (provider, token, text) in [
                ("fcm", "t", "/message/notification/body"),
                ("apns", "00ff", "/aps/alert/body"),
                ("webpush", crate::encryption::tests::SUBSCRIPTION, ""),
            ] {
                let request = providers().request(&push(provider, token, &body), 0).expect("a request");
                assert!(request.body.len() <= PAYLOAD_BYTES_MAX && request.body.len() > PAYLOAD_BYTES_MAX - 40, "{}", request.body.len());
                // What a browser gets is encrypted.
                let Ok(payload) = serde_json::from_slice::<Value>(&request.body) else { continue };
                let kept =
                    payload.pointer(text).and_then(Value::as_str).and_then(|text| text.strip_suffix('…')).expect("it says that it was cut");
                assert!(body.starts_with(kept) && (!body.starts_with(family) || kept.len() % family.len() == 0));
            }
        }
        let short = providers().request(&push("fcm", "t", "Hello"), 0).expect("a request");
        assert_eq!(serde_json::from_slice::<Value>(&short.body).unwrap()["message"]["notification"]["body"], "Hello");
    }

    #[test]
    fn apns_gets_a_device_in_hexadecimal_and_nothing_else() {
        let request = providers().request(&push("apns", "00ffAA", "Hello"), 0).expect("a request");
        assert_eq!((request.url.as_str(), header(&request, "apns-expiration").as_deref()), ("https://apns/3/device/00ffAA", Some("100")));
        for token in ["", "../x", "00 ff", "g0"] {
            assert!(providers().request(&push("apns", token, "Hello"), 0).is_none(), "{token}");
        }
    }

    #[test]
    fn an_answer_says_what_becomes_of_the_push_and_of_its_token() {
        let answer = |status, body: &str, headers: &[(&str, &str)]| {
            let headers = headers.iter().map(|(name, value)| Header { name: (*name).into(), value: (*value).into() }).collect();
            Ok(Response { status, headers, body: body.as_bytes().to_vec() })
        };
        let mismatch = r#"{"error":{"code":403,"status":"PERMISSION_DENIED","details":[{"errorCode":"SENDER_ID_MISMATCH"}]}}"#;
        let unregistered = r#"{"error":{"code":404,"status":"NOT_FOUND","details":[{"errorCode":"UNREGISTERED"}]}}"#;
        // 1999-12-31T23:58:59Z.
        let now = 946_684_739 * SECOND_US;
        for (provider, given, expect) in [
            ("webpush", answer(201, "", &[]), Outcome::Sent),
            ("webpush", answer(404, "", &[]), Outcome::Dead),
            ("webpush", answer(410, "", &[]), Outcome::Dead),
            ("webpush", answer(302, "", &[]), Outcome::GivenUp),
            ("webpush", answer(413, "", &[]), Outcome::GivenUp),
            ("webpush", answer(403, "", &[]), Outcome::GivenUp),
            ("webpush", answer(429, "", &[("Retry-After", "7")]), Outcome::Retry(Some(7_000))),
            ("webpush", answer(429, "", &[("retry-after", "999999999")]), Outcome::Retry(Some(RETRY_AFTER_MAX_MS))),
            ("webpush", answer(503, "", &[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")]), Outcome::Retry(Some(60_000))),
            ("webpush", answer(503, "", &[("retry-after", "Thu, 31 Dec 1998 23:59:59 GMT")]), Outcome::Retry(Some(0))),
            ("webpush", answer(503, "", &[("retry-after", "soon")]), Outcome::Retry(None)),
            ("fcm", answer(200, "{}", &[]), Outcome::Sent),
            ("fcm", answer(404, unregistered, &[]), Outcome::Dead),
            ("fcm", answer(404, "no such project", &[]), Outcome::GivenUp),
            ("fcm", answer(403, mismatch, &[]), Outcome::GivenUp),
            ("fcm", answer(400, r#"{"error":{"status":"INVALID_ARGUMENT"}}"#, &[]), Outcome::GivenUp),
            ("fcm", answer(401, "", &[]), Outcome::Retry(None)),
            ("fcm", answer(500, "", &[]), Outcome::Retry(None)),
            ("apns", answer(200, "", &[]), Outcome::Sent),
            ("apns", answer(410, r#"{"reason":"Unregistered","timestamp":1}"#, &[]), Outcome::Dead),
            ("apns", answer(400, r#"{"reason":"BadDeviceToken"}"#, &[]), Outcome::Dead),
            ("apns", answer(400, r#"{"reason":"DeviceTokenNotForTopic"}"#, &[]), Outcome::GivenUp),
            ("apns", answer(403, r#"{"reason":"ExpiredProviderToken"}"#, &[]), Outcome::Retry(None)),
            ("apns", answer(403, r#"{"reason":"InvalidProviderToken"}"#, &[]), Outcome::GivenUp),
            ("apns", answer(404, r#"{"reason":"BadPath"}"#, &[]), Outcome::GivenUp),
            ("webpush", Err(HttpError::NotGranted), Outcome::GivenUp),
            ("fcm", Err(HttpError::NoCredential), Outcome::Retry(None)),
            ("apns", Err(HttpError::Unreachable), Outcome::Retry(None)),
            ("apns", Err(HttpError::TooLarge), Outcome::GivenUp),
        ] {
            assert_eq!(outcome(provider, &given, now), expect, "{provider} {given:?}");
        }
    }

    #[test]
    fn browsers_are_pushed_to_by_push_services_alone() {
        for (endpoint, expect) in [
            ("https://fcm.googleapis.com/fcm/send/a", true),
            ("https://FCM.googleapis.com:443/wp/a", true),
            ("https://web.push.apple.com/a", true),
            ("https://wns2.notify.windows.com/w/?token=a", true),
            ("https://fcm.googleapis.com:444/a", false),
            ("https://push.apple.com/a", false),
            ("https://evilpush.apple.com/a", false),
            ("https://elsewhere.example/a#.push.apple.com", false),
            ("https://elsewhere.example\\.push.apple.com/a", false),
            ("https://a@web.push.apple.com/a", false),
            ("https://fcm.googleapis.com@elsewhere.example/a", false),
            ("https://169.254.169.254/latest", false),
            ("fcm.googleapis.com", false),
            ("http://fcm.googleapis.com/fcm/send/a", false),
            ("http://web.push.apple.com/a", false),
        ] {
            assert_eq!(is_among(PUSH_SERVICES, endpoint), expect, "{endpoint}");
        }
        assert!(is_among("push.example:8443 127.0.0.1:80", "https://push.example:8443/a"));
        assert!(is_among("push.example:8443 http://127.0.0.1:80", "http://127.0.0.1:80/a"));
        assert!(!is_among("http://127.0.0.1:80", "https://127.0.0.1:80/a"), "it is another address");
    }

    #[test]
    fn a_wait_doubles_up_to_its_bound_and_is_what_the_provider_says_at_least() {
        assert_eq!([0, 1, 2].map(|tries| back_off_ms(tries, None)), [BACK_OFF_MS, 2 * BACK_OFF_MS, 4 * BACK_OFF_MS]);
        assert_eq!((back_off_ms(64, None), back_off_ms(0, Some(60_000))), (BACK_OFF_MAX_MS, 60_000));
    }
}
