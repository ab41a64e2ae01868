//! The WebSocket edge: one socket's loop, who is connected, feed and resume, slow clients.
