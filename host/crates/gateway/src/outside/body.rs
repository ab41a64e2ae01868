//! A request's body on its way to an outside service: streamed, taken from the client only when it is sent, so that an attempt that did not come so far can be
//! made again.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use http_body_util::LengthLimitError;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;

use echo_base::deadline::timeout_at;

/// What all attempts of one request share.
pub struct Sending(Mutex<State>);

struct State {
    /// Gone when the first byte of it is wanted.
    untouched: Option<Body>,
    hint: SizeHint,
    is_empty: bool,
    /// When the client last sent something, at first: when the request began.
    moved_at: Instant,
    waits_for_client: bool,
    fault: Option<BodyFault>,
}

/// Why the client's body ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    TooLarge,
    Broken,
}

/// Why an attempt took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    Client,
    Target,
}

impl Sending {
    pub fn new(body: Body) -> Arc<Self> {
        let (hint, is_empty) = (body.size_hint(), body.is_end_stream());
        let state = State { untouched: Some(body), hint, is_empty, moved_at: Instant::now(), waits_for_client: false, fault: None };
        Arc::new(Self(Mutex::new(state)))
    }

    /// The body for one attempt.
    pub fn body(self: &Arc<Self>) -> SentBody {
        let state = self.0.lock();
        SentBody { sending: self.clone(), taken: None, hint: state.hint, is_empty: state.is_empty }
    }

    /// Nothing of the body was sent, or there is none.
    pub fn is_untouched(&self) -> bool {
        self.0.lock().untouched.is_some()
    }

    pub fn fault(&self) -> Option<BodyFault> {
        self.0.lock().fault
    }

    /// What comes within the time after the last piece of the body. Errors: who was late.
    pub async fn within<F: Future>(&self, timeout: Duration, attempt: F) -> Result<F::Output, Late> {
        let mut attempt = pin!(attempt);
        loop {
            let until = self.0.lock().moved_at + timeout;
            if let Ok(output) = timeout_at(until, attempt.as_mut()).await {
                return Ok(output);
            }
            let state = self.0.lock();
            if state.moved_at + timeout <= Instant::now() {
                return Err(if state.waits_for_client { Late::Client } else { Late::Target });
            }
        }
    }
}

pub struct SentBody {
    sending: Arc<Sending>,
    taken: Option<Body>,
    hint: SizeHint,
    is_empty: bool,
}

impl HttpBody for SentBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.taken.is_none() {
            this.taken = this.sending.0.lock().untouched.take();
        }
        let Some(body) = &mut this.taken else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        let mut state = this.sending.0.lock();
        state.waits_for_client = polled.is_pending();
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Err(error))) => {
                state.fault = Some(if is_too_large(&error) { BodyFault::TooLarge } else { BodyFault::Broken });
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(frame) => {
                state.moved_at = Instant::now();
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.taken.as_ref().map_or(self.is_empty, Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.taken.as_ref().map_or_else(|| self.hint, Body::size_hint)
    }
}

/// An answer's body whose failure comes in a turn of its own: what came before it, and the head, have left by then. The server's connection would otherwise drop
/// them together with the failure that it finds beside them.
pub struct DelayedFailure {
    body: Body,
    failure: Option<axum::Error>,
}

impl DelayedFailure {
    pub fn new(body: Body) -> Self {
        Self { body, failure: None }
    }
}

impl HttpBody for DelayedFailure {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Err(failure))) => {
                self.failure = Some(failure);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.failure.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn is_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<LengthLimitError>())
}
