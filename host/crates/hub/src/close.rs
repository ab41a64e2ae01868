//! Why the host closes a socket: the one place where close codes (RFC 6455, section 7.4) are named.

use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// The host is going down; the client comes back after this many milliseconds.
    GoingDown {
        retry_after_ms: u64,
    },
    /// The access token's time is over.
    TokenExpired,
    /// The session or all of the user's tokens were revoked.
    TokenRevoked,
    /// Nothing was heard for the idle time.
    Idle,
    /// The same device has a newer connection.
    Replaced,
    TooLarge,
    TooFast,
    TooSlow,
    /// Not the WebSocket protocol.
    Protocol,
    /// A text frame that is no UTF-8.
    NotUtf8,
}

impl Close {
    pub fn code(self) -> u16 {
        match self {
            Close::GoingDown { .. } => 1012,
            Close::TokenExpired | Close::TokenRevoked => 4401,
            Close::Idle => 4408,
            Close::Replaced => 4409,
            Close::TooLarge => 4413,
            Close::TooFast => 4429,
            Close::TooSlow => 4430,
            Close::Protocol => 1002,
            Close::NotUtf8 => 1007,
        }
    }

    /// For people, and as the metrics' label.
    pub fn reason(self) -> &'static str {
        match self {
            Close::GoingDown { .. } => "going down",
            Close::TokenExpired => "token expired",
            Close::TokenRevoked => "token revoked",
            Close::Idle => "idle",
            Close::Replaced => "replaced",
            Close::TooLarge => "frame too large",
            Close::TooFast => "too many frames",
            Close::TooSlow => "too slow a reader",
            Close::Protocol => "protocol error",
            Close::NotUtf8 => "not utf-8",
        }
    }

    /// Whether requests that were accepted before may still run: not on behalf of a token that has ended.
    pub fn lets_calls_finish(self) -> bool {
        !matches!(self, Close::TokenExpired | Close::TokenRevoked)
    }

    /// Whether what the client still sends can be read as frames.
    pub fn stream_is_readable(self) -> bool {
        !matches!(self, Close::TooLarge | Close::Protocol | Close::NotUtf8)
    }

    pub fn frame(self) -> CloseFrame {
        CloseFrame { code: CloseCode::from(self.code()), reason: self.reason().into() }
    }
}
