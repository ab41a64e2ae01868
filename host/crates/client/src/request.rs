//! Requests over REST: typed by whoever asks, with the access token of who is signed in, renewed once where it was refused.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::shared::Shared;
use crate::transport::Answer;

/// What stands for itself in a query (RFC 3986, section 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A request being put together.
#[must_use = "it is sent by `send` or `answer`"]
pub struct Request<'a> {
    shared: &'a Arc<Shared>,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    with_token: bool,
    wrong: Option<Error>,
}

impl<'a> Request<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>, method: Method, path: &str) -> Self {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        Self { shared, method, path: path.to_owned(), headers, body: Bytes::new(), with_token: true, wrong: None }
    }

    /// One more parameter of the query.
    pub fn query(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        self.path = format!("{}{separator}{name}={}", self.path, utf8_percent_encode(&value.to_string(), RESERVED));
        self
    }

    pub fn header(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => drop(self.headers.insert(name, value)),
            Err(error) => self.wrong = Some(Error::Settings(format!("{name}: {error}"))),
        }
        self
    }

    pub fn json(mut self, body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => self.body = body.into(),
            Err(error) => self.wrong = Some(Error::Settings(format!("the request's body: {error}"))),
        }
        self.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self
    }

    /// As it is, for instance a part of a file.
    pub fn bytes(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// As who has this access token, in the place of who is signed in.
    pub fn token(self, token: &str) -> Self {
        self.header(AUTHORIZATION, &format!("Bearer {token}")).anonymous()
    }

    /// Without the access token.
    pub fn anonymous(mut self) -> Self {
        self.with_token = false;
        self
    }

    /// The answer's JSON; `()` where there is none.
    pub async fn send<T: DeserializeOwned>(self) -> Result<T, Error> {
        let answer = self.answer().await?;
        let body: &[u8] = if answer.body.is_empty() { b"null" } else { &answer.body };
        serde_json::from_slice(body).map_err(|error| Error::Unreadable(error.to_string()))
    }

    /// The answer itself, where its headers or its bytes are wanted. Errors: every status but 2xx is a `Problem`.
    pub async fn answer(self) -> Result<Answer, Error> {
        if let Some(wrong) = self.wrong {
            return Err(wrong);
        }
        let shared = self.shared;
        let once = async |token: Option<&str>| shared.http.request(&self.method, &self.path, &self.headers, self.body.clone(), token).await;
        let credentials = if self.with_token { shared.token(None).await? } else { None };
        let Some(credentials) = credentials else { return once(None).await?.successful() };
        let first = once(Some(&credentials.access_token)).await?;
        if first.status != 401 {
            return first.successful();
        }
        match shared.token(Some(&credentials.access_token)).await? {
            Some(renewed) => once(Some(&renewed.access_token)).await?.successful(),
            None => first.successful(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::client::EchoClient;

    #[tokio::test]
    async fn a_query_is_encoded() {
        let client = EchoClient::builder("http://localhost").build().expect("a client");
        let request = client.get("/api/v1/messages/search").query("q", "naïve & 100%").query("limit", 5);
        assert_eq!(request.path, "/api/v1/messages/search?q=na%C3%AFve%20%26%20100%25&limit=5");
    }
}
