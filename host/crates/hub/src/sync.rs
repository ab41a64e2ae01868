//! `GET /api/v1/sync?since=<cursor>&limit=`: the feed of `GET /ws` over REST, for clients without a socket.
//!
//! `next_cursor` is where the next page starts, null at the head. A cursor that the feed no longer goes back to: 410
//! `resync_required`, with the head as `cursor` to go on from once the state is loaded anew.

use std::sync::Arc;

use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Hub;
use super::frame::rfc3339;
use super::handshake::{feed_unavailable, parse_cursor};
use echo_base::limits;
use echo_capabilities::context::{Caller, ClientAddress};
use echo_capabilities::hub::{Acknowledgement, FeedError, FeedPage};
use echo_edge::problem::Problem;

#[derive(Deserialize)]
struct Parameters {
    since: Option<String>,
    limit: Option<String>,
}

pub(super) async fn sync(State(hub): State<Arc<Hub>>, request: Request) -> Response {
    // Without its body: what is held across an await must be shareable.
    let (request, _) = request.into_parts();
    match page(&hub, &request).await {
        Ok(body) => {
            let mut response = Response::new(body.into());
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(problem) => problem.into_response(),
    }
}

async fn page(hub: &Hub, request: &Parts) -> Result<String, Problem> {
    let caller = match hub.verify_bearer(&request.headers).await {
        Ok(caller) => caller,
        Err(problem) => {
            let address = request.extensions.get::<ClientAddress>().map(|address| address.0);
            return Err(hub.count_refused(problem, address).await);
        }
    };
    hub.count(super::SYNC_PAGES, caller.user_id, None).await?;
    let Query(parameters) = Query::<Parameters>::try_from_uri(&request.uri)
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "unreadable", "the query cannot be read"))?;
    let since = parameters.since.as_deref().map_or(Ok(0), parse_cursor)?;
    let limit = parameters.limit.as_deref().map_or(Ok(limits::SYNC_PAGE_DEFAULT), parse_limit)?;
    let page = hub.feed.read(caller.user_id, since, limit).await.map_err(feed_unavailable)?;
    if since > page.head || (page.head > since && page.oldest > since + 1) {
        return Err(resync_required(page.head));
    }
    if let Some(last) = page.entries.last() {
        hub.note_fetched(&caller, since, last.seq).await.map_err(feed_unavailable)?;
    }
    encode(&page).map_err(|error| {
        tracing::error!(%error, "a feed holds what is no JSON");
        Problem::internal()
    })
}

impl Hub {
    /// A device may acknowledge what it fetched here as what its socket was sent.
    async fn note_fetched(&self, caller: &Caller, above: u64, up_to: u64) -> Result<(), FeedError> {
        if let Some(connection) = self.registry.connection_of(caller.user_id, &caller.device_id) {
            if connection.note_fetched(above, up_to) {
                self.acknowledger.note(&connection, 0);
            }
            return Ok(());
        }
        match self.feed.device(caller.user_id, &caller.device_id).await? {
            Some(known) if known.above <= above => Ok(()),
            Some(_) | None => {
                let begins = Acknowledgement { user: caller.user_id, device: caller.device_id.clone(), above, seq: 0 };
                self.feed.acknowledge(&[begins]).await
            }
        }
    }
}

/// `head` is where it goes on.
fn resync_required(head: u64) -> Problem {
    let detail = "the feed no longer holds what follows this cursor; load the state anew and go on from `cursor`";
    Problem::new(StatusCode::GONE, "resync_required", detail).with_cursor(head)
}

fn parse_limit(limit: &str) -> Result<usize, Problem> {
    match limit.parse() {
        Ok(limit) if (1..=limits::FEED_PAGE_MAX).contains(&limit) => Ok(limit),
        Ok(_) | Err(_) => Err(Problem::invalid("limit", "out_of_range", format!("an integer from 1 to {}", limits::FEED_PAGE_MAX))),
    }
}

fn encode(page: &FeedPage) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Item<'a> {
        r#type: &'a str,
        seq: u64,
        at: String,
        payload: &'a RawValue,
    }
    #[derive(Serialize)]
    struct Document<'a> {
        items: Vec<Item<'a>>,
        next_cursor: Option<u64>,
    }
    let mut items = Vec::with_capacity(page.entries.len());
    for entry in &page.entries {
        items.push(Item { r#type: &entry.event, seq: entry.seq, at: rfc3339(entry.at_us), payload: serde_json::from_str(&entry.payload)? });
    }
    let last = page.entries.last().map(|entry| entry.seq);
    serde_json::to_string(&Document { items, next_cursor: last.filter(|last| *last < page.head) })
}
