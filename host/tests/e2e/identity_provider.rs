//! Signing in by a real identity provider: npm's `oidc-provider`, run here, at whose pages people sign in as in a browser (OpenID Connect Core 1.0, the
//! code flow with PKCE). Wants Node.

use std::collections::BTreeMap;

use echo_engines::oidc::{CLIENTS, Provider, REDIRECT};
use reqwest::redirect::Policy;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::app::{Person, TestApp};

const OAUTH: &str = "/api/v1/auth/oauth";
const SERVICES: [&str; 5] = ["auth", "location", "message", "notification", "user"];
/// The example of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

/// One person's, new each time.
struct Browser<'a> {
    provider: &'a Provider,
    client: reqwest::Client,
    cookies: BTreeMap<String, String>,
}

impl<'a> Browser<'a> {
    fn new(provider: &'a Provider) -> Self {
        let client = reqwest::Client::builder().redirect(Policy::none()).build().expect("a client");
        Self { provider, client, cookies: BTreeMap::new() }
    }

    /// Where the answer leads, and its body.
    async fn ask(&mut self, method: Method, place: &str, form: Option<&str>) -> (Option<String>, String) {
        let url = if place.starts_with('/') { format!("{}{place}", self.provider.issuer()) } else { place.to_owned() };
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = self.client.request(method, url).header("cookie", cookies.join("; "));
        if let Some(form) = form {
            request = request.header("content-type", "application/x-www-form-urlencoded").body(form.to_owned());
        }
        let answer = request.send().await.expect("the provider answers");
        for cookie in answer.headers().get_all("set-cookie") {
            let pair = cookie.to_str().expect("text").split(';').next().unwrap_or_default();
            let (name, value) = pair.split_once('=').expect("a cookie");
            match value {
                "" => self.cookies.remove(name),
                value => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
        let location = answer.headers().get("location").map(|place| place.to_str().expect("text").to_owned());
        (location, answer.text().await.expect("text"))
    }

    /// The ID Token that the provider gives to this client when the person signs in there and agrees.
    async fn id_token(mut self, client: &str, name: &str, nonce: &str) -> String {
        let redirect = REDIRECT.replace(':', "%3A").replace('/', "%2F");
        let query = format!(
            "client_id={client}&response_type=code&scope=openid%20email&nonce={nonce}&redirect_uri={redirect}&code_challenge={CHALLENGE}&code_challenge_method=S256"
        );
        let (mut place, _) = self.ask(Method::GET, &format!("/auth?{query}"), None).await;
        for form in [format!("prompt=login&login={name}&password=any"), "prompt=consent".to_owned()] {
            let (resumed, page) = self.ask(Method::POST, &place.expect("a page"), Some(&form)).await;
            (place, _) = self.ask(Method::GET, &resumed.unwrap_or_else(|| panic!("{page}")), None).await;
        }
        let back = place.expect("the way back");
        let code = back.strip_prefix(REDIRECT).and_then(|rest| rest.split(['?', '&']).find_map(|part| part.strip_prefix("code=")));
        let code = code.unwrap_or_else(|| panic!("no code in {back}"));
        let form = format!("grant_type=authorization_code&code={code}&client_id={client}&redirect_uri={redirect}&code_verifier={VERIFIER}");
        let (_, answer) = self.ask(Method::POST, "/token", Some(&form)).await;
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        answer["id_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }
}

fn request(id_token: &str, nonce: &str, device: &str) -> Value {
    json!({ "id_token": id_token, "nonce": nonce, "device": { "id": device } })
}

async fn refreshed(app: &TestApp, token: &str) -> Value {
    app.post("/api/v1/auth/refresh", json!({ "refresh_token": token })).send().await.expect(StatusCode::OK)
}

#[tokio::test]
async fn a_person_signs_in_by_an_identity_that_they_linked() {
    let provider = Provider::start(&std::env::temp_dir()).unwrap_or_else(|error| panic!("{error}"));
    let issuers = format!("company={} {}", provider.issuer(), CLIENTS.join(" "));
    let settings = [("ECHO_SERVICES__AUTH__OAUTH_ISSUERS", &*issuers), ("ECHO_HTTP__PRIVATE_HOSTS", &provider.address())];
    let app = TestApp::with(&SERVICES, &settings).await;
    let (ada, bala) = app.two().await;
    let company = format!("{OAUTH}/company");
    let token = async |client: &str, name: &str, nonce: &str| Browser::new(&provider).id_token(client, name, nonce).await;

    // Nobody has linked it: it opens no account, and is not used up.
    let first = token(CLIENTS[0], "ada", "one").await;
    app.post(&company, request(&first, "one", "laptop")).send().await.expect_problem(403, "oauth_not_linked");
    // The password is wanted to link it.
    let mut link = request(&first, "one", "laptop");
    app.post(&company, link.clone()).by(&ada).send().await.expect_problem(422, "invalid");
    link["password"] = json!("not the password 1");
    app.post(&company, link.clone()).by(&ada).send().await.expect_problem(403, "wrong_password");
    link["password"] = json!(ada.password);
    let linked = app.post(&company, link.clone()).by(&ada).send().await.expect(StatusCode::OK);
    assert_eq!((&linked["user_id"], &linked["session_id"]), (&json!(ada.id), &json!(ada.session_id)));
    app.post(&company, link.clone()).by(&ada).send().await.expect_problem(401, "id_token_used");
    // With an access token that is none it is neither linked nor signed in.
    app.post(&company, link).token("expired").send().await.expect_problem(401, "unauthenticated");
    // The pair that it had and the one that it got are both good.
    refreshed(&app, &ada.refresh_token).await;
    refreshed(&app, linked["refresh_token"].as_str().expect("text")).await;
    let list = app.get(OAUTH).by(&ada).send().await.expect(StatusCode::OK);
    let identity = &list["items"][0];
    assert_eq!((list["items"].as_array().map(Vec::len), &list["next_cursor"]), (Some(1), &Value::Null));
    assert_eq!((&identity["provider"], &identity["email"]), (&json!("company"), &json!("ada@company.example")));
    assert_eq!(identity["last_used_at"], Value::Null);

    // However the provider signs, and once each.
    for client in CLIENTS {
        let token = token(client, "ada", "two").await;
        app.post(&company, request(&token, "another", "laptop")).send().await.expect_problem(401, "id_token_invalid");
        let tokens = app.post(&company, request(&token, "two", client)).send().await.expect(StatusCode::OK);
        assert_eq!((&tokens["user_id"], &tokens["device_id"]), (&json!(ada.id), &json!(client)));
        let signed_in = Person::new(&ada.phone, &ada.password, client, &tokens);
        app.get("/api/v1/users/me").by(&signed_in).send().await.expect(StatusCode::OK);
        app.post(&company, request(&token, "two", client)).send().await.expect_problem(401, "id_token_used");
    }

    // With new keys of the provider it goes on at once, and the old ones are good for nothing.
    let old = token(CLIENTS[1], "ada", "three").await;
    provider.rotate_keys().unwrap_or_else(|error| panic!("{error}"));
    let new = token(CLIENTS[1], "ada", "four").await;
    app.post(&company, request(&new, "four", "tablet")).send().await.expect(StatusCode::OK);
    app.post(&company, request(&old, "three", "tablet")).send().await.expect_problem(401, "id_token_invalid");

    // An identity is one account's, and an account has one of each provider.
    let mut link = request(&token(CLIENTS[0], "ada", "five").await, "five", "phone");
    link["password"] = json!(bala.password);
    app.post(&company, link).by(&bala).send().await.expect_problem(409, "identity_taken");
    let mut link = request(&token(CLIENTS[0], "chen", "six").await, "six", "phone");
    link["password"] = json!(ada.password);
    app.post(&company, link).by(&ada).send().await.expect_problem(409, "provider_linked");

    let history = app.get("/api/v1/auth/login-history").by(&ada).send().await.expect(StatusCode::OK);
    let entries = history["items"].as_array().expect("items");
    assert_eq!(entries.len(), 4, "{history}");
    assert!(entries.iter().all(|entry| entry["provider"] == "company" && entry["outcome"] == "succeeded"), "{history}");

    // Unlinked it opens nothing, and the number and the password still do.
    app.delete(&format!("{OAUTH}?provider=google")).by(&ada).send().await.expect_problem(404, "not_found");
    app.delete(&format!("{OAUTH}?provider=company")).by(&bala).send().await.expect_problem(404, "not_found");
    app.delete(&format!("{OAUTH}?provider=company")).by(&ada).send().await.expect(StatusCode::NO_CONTENT);
    app.delete(&format!("{OAUTH}?provider=company")).by(&ada).send().await.expect_problem(404, "not_found");
    let last = token(CLIENTS[0], "ada", "seven").await;
    app.post(&company, request(&last, "seven", "laptop")).send().await.expect_problem(403, "oauth_not_linked");
    app.log_in(&ada, "laptop").await;
}
