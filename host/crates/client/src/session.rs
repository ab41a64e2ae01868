//! Who is signed in: tokens kept, and renewed before they end, once however many want them.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use serde_json::json;

use crate::credentials::{Credentials, now_ms};
use crate::error::Error;
use crate::events::Event;
use crate::shared::Shared;
use crate::storage::Change;
use crate::types::Tokens;

impl Shared {
    pub fn signed_in(&self) -> Option<Arc<Credentials>> {
        self.credentials.borrow().clone()
    }

    /// Somebody has signed in on this device. What another account left is not theirs.
    pub async fn begin(&self, tokens: Tokens) -> Result<(), Error> {
        let credentials = Credentials::of(tokens);
        let is_other = self.signed_in().is_some_and(|before| before.user_id != credentials.user_id);
        let mut changes = if is_other { vec![Change::Cleared] } else { Vec::new() };
        changes.push(Change::Credentials(Some(credentials.clone())));
        self.storage.keep(changes).await?;
        if is_other {
            self.outbox.lock().clear();
            self.feed.forget();
        }
        let (user_id, device_id) = (credentials.user_id, credentials.device_id.clone());
        self.credentials.send_replace(Some(Arc::new(credentials)));
        self.feed.publish(&Event::SignedIn { user_id, device_id });
        Ok(())
    }

    /// Forgets the account.
    pub async fn end(&self, reason: &str) -> Result<(), Error> {
        if self.credentials.send_replace(None).is_none() {
            return Ok(());
        }
        self.outbox.lock().clear();
        self.feed.forget();
        self.feed.publish(&Event::SignedOut { reason: reason.to_owned() });
        Ok(self.storage.keep(vec![Change::Cleared]).await?)
    }

    /// An access token that is good for some time, other than `refused`; none where nobody is signed in.
    pub async fn token(self: &Arc<Self>, refused: Option<&str>) -> Result<Option<Arc<Credentials>>, Error> {
        match self.signed_in() {
            None => Ok(None),
            Some(credentials) if credentials.is_fresh(refused) => Ok(Some(credentials)),
            Some(_) => {
                // In a task of its own: whoever wanted it may be gone before the answer with the new tokens comes.
                let (shared, refused) = (self.clone(), refused.map(str::to_owned));
                let renewing = tokio::spawn(async move { shared.renew(refused.as_deref()).await });
                renewing.await.unwrap_or_else(|error| Err(Error::Unreachable(error.to_string())))
            }
        }
    }

    /// One renews; the others, who waited for it, find the new tokens.
    async fn renew(&self, refused: Option<&str>) -> Result<Option<Arc<Credentials>>, Error> {
        let _turn = self.renewing.lock().await;
        let Some(before) = self.signed_in() else { return Ok(None) };
        if before.is_fresh(refused) {
            return Ok(Some(before));
        }
        match self.refresh(&before.refresh_token).await {
            Ok(tokens) => {
                let credentials = Credentials::of(tokens);
                self.storage.keep(vec![Change::Credentials(Some(credentials.clone()))]).await?;
                let credentials = Arc::new(credentials);
                self.credentials.send_replace(Some(credentials.clone()));
                Ok(Some(credentials))
            }
            Err(Error::Problem(problem)) if matches!(problem.status, 401 | 403) => {
                self.end(&problem.code).await?;
                Ok(None)
            }
            // A token that is not over yet is good while the server cannot be asked for another.
            Err(_) if refused != Some(before.access_token.as_str()) && now_ms() < before.expires_at_ms => Ok(Some(before)),
            Err(error) => Err(error),
        }
    }

    async fn refresh(&self, refresh_token: &str) -> Result<Tokens, Error> {
        let body = json!({ "refresh_token": refresh_token }).to_string();
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let answer = self.http.request(&Method::POST, "/api/v1/auth/refresh", &headers, body.into(), None).await?.successful()?;
        serde_json::from_slice(&answer.body).map_err(|error| Error::Unreadable(error.to_string()))
    }
}
