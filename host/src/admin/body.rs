//! Bodies of the operator's requests: JSON, and what is wrong with one in words.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;

use super::AdminError;
use echo_edge::problem::Problem;

/// A JSON body. Errors: 400 `unreadable`, 413 `too_large`, 415 `unsupported_media_type`, 422 `invalid`.
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = AdminError;

    async fn from_request(request: Request, state: &S) -> Result<Self, AdminError> {
        Json::from_request(request, state).await.map(|Json(body)| Self(body)).map_err(|rejection| {
            let code = match &rejection {
                JsonRejection::JsonDataError(_) => "invalid",
                JsonRejection::MissingJsonContentType(_) => "unsupported_media_type",
                JsonRejection::BytesRejection(_) if rejection.status().as_u16() == 413 => "too_large",
                _ => "unreadable",
            };
            AdminError(Problem::new(rejection.status(), code, rejection.body_text()))
        })
    }
}
