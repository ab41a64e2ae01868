//! A connection that became a WebSocket, between a client and an outside service: bytes pass both ways until one side ends it, nothing passes for too long, or
//! the caller's token ends. Knows no frames.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep_until, timeout};

use echo_base::limits;
use echo_capabilities::context::Caller;
use echo_capabilities::tokens::{TokenError, Tokens};

pub struct Tunnel {
    pub client: OnUpgrade,
    pub target: OnUpgrade,
    pub idle_timeout: Duration,
    pub guard: Option<Guard>,
    /// One of those that a prefix has.
    pub slot: OwnedSemaphorePermit,
}

/// The token by which the caller is known: without it the connection ends.
pub struct Guard {
    pub tokens: Arc<dyn Tokens>,
    pub token: String,
    pub caller: Arc<Caller>,
}

impl Tunnel {
    pub async fn run(self) {
        let ended = async {
            match &self.guard {
                Some(guard) => guard.ended().await,
                None => std::future::pending().await,
            }
        };
        let both = async { tokio::try_join!(self.client, self.target) };
        let Ok(Ok((client, target))) = timeout(Duration::from_millis(limits::OUTSIDE_CONNECT_MS), both).await else { return };
        let (mut client_reads, mut client_writes) = split(TokioIo::new(client));
        let (mut target_reads, mut target_writes) = split(TokioIo::new(target));
        let used_at = Mutex::new(Instant::now());
        let passing = async {
            // An error of one ends both: half a WebSocket is none.
            let _ = tokio::try_join!(
                pass(&mut client_reads, &mut target_writes, &used_at),
                pass(&mut target_reads, &mut client_writes, &used_at),
            );
        };
        tokio::select! {
            () = passing => {}
            () = unused(&used_at, self.idle_timeout) => {}
            () = ended => {}
        }
        drop(self.slot);
    }
}

impl Guard {
    /// When the token expires or is revoked.
    async fn ended(&self) {
        // Listened to from before the token is looked at: a revocation in between must not slip through.
        let mut revocations = self.tokens.revocations();
        if self.is_refused().await {
            return;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let left = Duration::from_micros(self.caller.expires_at_us).saturating_sub(now);
        let Some(until) = Instant::now().checked_add(left) else { return std::future::pending().await };
        let revoked = async {
            while revocations.next().await.is_some() {
                if self.is_refused().await {
                    return;
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            () = sleep_until(until.into()) => {}
            () = revoked => {}
        }
    }

    /// Where tokens cannot be looked at now, the connection stays.
    async fn is_refused(&self) -> bool {
        matches!(self.tokens.verify(&self.token).await, Err(TokenError::Invalid | TokenError::Expired | TokenError::Revoked))
    }
}

async fn pass(from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), used_at: &Mutex<Instant>) -> io::Result<()> {
    let mut buffer = vec![0; limits::OUTSIDE_TUNNEL_BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        *used_at.lock() = Instant::now();
    }
}

/// When nothing has passed for so long.
async fn unused(used_at: &Mutex<Instant>, idle_timeout: Duration) {
    loop {
        let until = *used_at.lock() + idle_timeout;
        if until <= Instant::now() {
            return;
        }
        sleep_until(until.into()).await;
    }
}
