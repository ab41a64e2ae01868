//! From a request to an open socket: origin, identity, cursor, a place in the registry, and the upgrade (RFC 6455, section 4).
//! Whoever is refused is refused before the upgrade, with a problem.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use uuid::Uuid;

use super::Hub;
use super::client::Client;
use super::connection::Connection;
use super::registry::{Refused, Registration};
use super::resume::{Delivery, Start};
use super::socket::Socket;
use echo_base::limits;
use echo_capabilities::context::{Caller, ClientAddress};
use echo_capabilities::hub::ClaimError;
use echo_capabilities::hub::{Acknowledgement, FeedPage};
use echo_capabilities::tokens::{Revocation, RevocationEvent, Revocations, TokenError, Tokens};
use echo_edge::problem::Problem;

/// The subprotocol that a client offers and the server picks.
const SUBPROTOCOL: &str = "echo.v1";
/// Carries the token of a client that cannot set headers; never picked.
const BEARER_SUBPROTOCOL: &str = "bearer.";

#[derive(Deserialize)]
struct Parameters {
    ticket: Option<String>,
    since: Option<String>,
}

/// `GET /ws`.
pub(super) async fn open(State(hub): State<Arc<Hub>>, request: Request) -> Response {
    hub.open(request).await.unwrap_or_else(|problem| {
        metrics::counter!("echo_hub_refused_total", "code" => problem.code.clone()).increment(1);
        problem.into_response()
    })
}

impl Hub {
    async fn open(self: Arc<Self>, request: Request) -> Result<Response, Problem> {
        if self.registry.is_draining() {
            return Err(shutting_down());
        }
        self.check_origin(request.headers())?;
        let Query(parameters) = Query::<Parameters>::try_from_uri(request.uri())
            .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "unreadable", "the query cannot be read"))?;
        // Listened to from before the token is looked at: a revocation in between must not slip through.
        let revocations = self.tokens.revocations();
        let headers = request.headers().clone();
        let address = request.extensions().get::<ClientAddress>().map(|address| address.0);
        let (caller, ticket) = match self.identify(&headers, parameters.ticket.as_deref()).await {
            Ok(identified) => identified,
            Err(problem) => return Err(self.count_refused(problem, address).await),
        };
        let opened = self.open_for(caller, revocations, parameters.since.as_deref(), request).await;
        if let Some(ticket) = ticket {
            match &opened {
                Ok(_) => ticket.spend(),
                // Before the answer: whoever reads it may use the ticket again.
                Err(_) => ticket.give_back().await,
            }
        }
        opened
    }

    /// Nothing refuses any more where it succeeds.
    async fn open_for(
        self: Arc<Self>,
        caller: Arc<Caller>,
        revocations: Revocations,
        since: Option<&str>,
        request: Request,
    ) -> Result<Response, Problem> {
        self.count(super::SOCKETS, caller.user_id, None).await?;
        let mut response = create_response_with_body(&request, Body::empty)
            .map_err(|error| Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade_required", format!("open a WebSocket here: {error}")))
            .map_err(|problem| problem.with(header::UPGRADE, HeaderValue::from_static("websocket")))?;
        if protocols(request.headers()).any(|protocol| protocol == SUBPROTOCOL) {
            response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        let start = match since {
            Some(since) => Start::Since(parse_cursor(since)?),
            None => Start::Head,
        };

        // Registered before the feed is read: what is appended after the read is delivered, what was before is in the page.
        let registration = self.register(&caller)?;
        if let Some(hosts) = &self.hosts {
            let claimed = hosts.claim(registration.connection(), self.settings.devices_per_user_max).await;
            claimed.map_err(|error| match error {
                ClaimError::TooManyDevices => self.too_many_devices(),
                ClaimError::Unavailable(error) => feed_unavailable(error),
            })?;
        }
        let page = self.read_feed(caller.user_id, start.since()).await?;
        self.note_start(&registration, start, page.head).await?;
        check_not_revoked(revocations, &caller)?;

        let client = Client::of(&request);
        let upgrade = hyper::upgrade::on(request);
        let hub = self.clone();
        self.sockets.spawn(async move {
            // The client may be gone before the upgrade; the registration ends with it.
            let Ok(upgraded) = upgrade.await else { return };
            let config = hub.websocket_config();
            let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
            Socket::new(hub, registration, caller, client, stream, Delivery::new(start, page)).run(start).await;
        });
        Ok(response)
    }

    /// A token or ticket that is no good counts for its address; where there were too many, that is the answer.
    pub(super) async fn count_refused(&self, problem: Problem, address: Option<IpAddr>) -> Problem {
        let is_missing = problem.code == Problem::token_missing().code;
        if problem.status != StatusCode::UNAUTHORIZED || is_missing {
            return problem;
        }
        match self.rates.count_bad_token(self.settings.rate_scale, address, Instant::now()).await {
            Ok(()) => problem,
            Err(wait) => Problem::rate_limited(wait),
        }
    }

    fn websocket_config(&self) -> WebSocketConfig {
        WebSocketConfig::default()
            .read_buffer_size(limits::SOCKET_READ_BUFFER_BYTES)
            .write_buffer_size(limits::SOCKET_WRITE_BATCH_BYTES)
            .max_message_size(Some(self.settings.frame_bytes_max))
            .max_frame_size(Some(self.settings.frame_bytes_max))
    }

    /// A browser says which page opens the socket; other clients do not, and hold no one's cookies.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or_default();
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let own = origin.split_once("://").is_some_and(|(_, authority)| !host.is_empty() && authority.eq_ignore_ascii_case(host));
        let allowed = &self.settings.allowed_origins;
        if own || allowed.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin)) {
            Ok(())
        } else {
            Err(Problem::new(StatusCode::FORBIDDEN, "origin_refused", "pages of this origin may not open a socket here"))
        }
    }

    /// The first of: `Authorization: Bearer`, the subprotocol `bearer.<jwt>`, `?ticket=`. One that is no good is not passed over.
    async fn identify(&self, headers: &HeaderMap, ticket: Option<&str>) -> Result<(Arc<Caller>, Option<RedeemedTicket>), Problem> {
        if headers.contains_key(header::AUTHORIZATION) {
            return Ok((self.verify_bearer(headers).await?, None));
        }
        if let Some(token) = protocols(headers).find_map(|protocol| protocol.strip_prefix(BEARER_SUBPROTOCOL)) {
            return Ok((self.verify(token).await?, None));
        }
        match ticket {
            Some(ticket) if ticket.len() <= limits::TOKEN_BYTES_MAX => {
                let caller = self.tokens.redeem_ticket(ticket).await?;
                Ok((caller, Some(RedeemedTicket { tokens: self.tokens.clone(), ticket: Some(ticket.to_owned()) })))
            }
            Some(_) => Err(TokenError::Invalid.into()),
            None => Err(Problem::token_missing()),
        }
    }

    /// Who `Authorization: Bearer` says.
    pub(super) async fn verify_bearer(&self, headers: &HeaderMap) -> Result<Arc<Caller>, Problem> {
        let header = headers.get(header::AUTHORIZATION).and_then(|header| header.to_str().ok()).ok_or_else(Problem::token_missing)?;
        match header.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => self.verify(token.trim()).await,
            Some(_) | None => Err(Problem::token_missing()),
        }
    }

    pub(super) async fn verify(&self, token: &str) -> Result<Arc<Caller>, Problem> {
        if token.len() > limits::TOKEN_BYTES_MAX {
            return Err(TokenError::Invalid.into());
        }
        Ok(self.tokens.verify(token).await?)
    }

    fn register(&self, caller: &Caller) -> Result<Registration, Problem> {
        let settings = &self.settings;
        let connection =
            Connection::new(caller.user_id, &caller.device_id, caller.session_id, settings.queue_frames_max, settings.queue_bytes_max);
        self.registry.register(connection, settings.devices_per_user_max).map_err(|refused| match refused {
            Refused::TooManyDevices => self.too_many_devices(),
            Refused::GoingDown => shutting_down(),
        })
    }

    fn too_many_devices(&self) -> Problem {
        let detail = format!("more than {} devices of one user at once", self.settings.devices_per_user_max);
        Problem::new(StatusCode::CONFLICT, "too_many_devices", detail)
    }

    /// From where on the device is given events. One that says where it goes on has what it was given before; one of which nothing is known, or
    /// that says nothing, begins here.
    async fn note_start(&self, registration: &Registration, start: Start, head: u64) -> Result<(), Problem> {
        let connection = registration.connection();
        let known = self.feed.device(connection.user, &connection.device).await.map_err(feed_unavailable)?;
        let above = match (start, known) {
            (Start::Head, _) => head,
            (Start::Since(since), Some(known)) if since >= known.above => known.above,
            (Start::Since(since), _) => since,
        };
        connection.above.store(above, Ordering::SeqCst);
        match known {
            Some(known) if known.above == above => Ok(()),
            Some(_) => {
                self.acknowledger.note(connection, 0);
                Ok(())
            }
            // At once: a host that is killed is not to take it for another one's.
            None => {
                let begins = Acknowledgement { user: connection.user, device: connection.device.to_string(), above, seq: 0 };
                self.feed.acknowledge(&[begins]).await.map_err(feed_unavailable)
            }
        }
    }

    async fn read_feed(&self, user: Uuid, since: u64) -> Result<FeedPage, Problem> {
        let _turn = self.feed_reads.acquire().await.expect("never closed");
        self.feed.read(user, since, self.settings.resume_page).await.map_err(feed_unavailable)
    }
}

/// Nobody else can use the ticket meanwhile. If the socket is refused after all, or its client goes away, it is good again.
struct RedeemedTicket {
    tokens: Arc<dyn Tokens>,
    /// None once it is decided what becomes of it.
    ticket: Option<String>,
}

impl RedeemedTicket {
    fn spend(mut self) {
        self.ticket = None;
    }

    async fn give_back(mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.tokens.return_ticket(&ticket).await;
        }
    }
}

impl Drop for RedeemedTicket {
    fn drop(&mut self) {
        let (Some(ticket), Ok(runtime)) = (self.ticket.take(), tokio::runtime::Handle::try_current()) else { return };
        let tokens = self.tokens.clone();
        // Its end is that of one statement.
        runtime.spawn(async move { tokens.return_ticket(&ticket).await });
    }
}

/// A cursor as clients write it.
pub(super) fn parse_cursor(cursor: &str) -> Result<u64, Problem> {
    let digits = !cursor.is_empty() && cursor.bytes().all(|byte| byte.is_ascii_digit());
    match cursor.parse() {
        Ok(cursor) if digits && cursor <= super::resume::ABOVE_ALL => Ok(cursor),
        Ok(_) | Err(_) => Err(Problem::invalid("since", "cursor_invalid", "an integer, the seq of the last event that this device has")),
    }
}

pub(super) fn feed_unavailable(error: echo_capabilities::hub::FeedError) -> Problem {
    tracing::warn!(%error, "a feed cannot be read");
    Problem::unavailable("feed_unavailable", "the feed cannot be read now", Duration::from_secs(1))
}

fn check_not_revoked(mut revocations: Revocations, caller: &Caller) -> Result<(), Problem> {
    while let Some(event) = revocations.try_next() {
        match event {
            RevocationEvent::Revoked(Revocation::Session(session)) if session == caller.session_id => {
                return Err(TokenError::Revoked.into());
            }
            RevocationEvent::Revoked(Revocation::User(user)) if user == caller.user_id => return Err(TokenError::Revoked.into()),
            RevocationEvent::Revoked(_) => {}
            RevocationEvent::Resync => return Err(TokenError::Unavailable.into()),
        }
    }
    Ok(())
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let all = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    all.iter().filter_map(|header| header.to_str().ok()).flat_map(|header| header.split(',')).map(str::trim)
}

fn shutting_down() -> Problem {
    Problem::unavailable("shutting_down", "this host is shutting down", Duration::from_secs(1))
}
