//! What a socket keeps of the request that opened it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use http::header;

use echo_base::limits;
use echo_capabilities::context::ClientAddress;

pub(super) struct Client {
    pub address: Option<IpAddr>,
    pub user_agent: Option<Arc<str>>,
}

impl Client {
    pub fn of(request: &Request) -> Self {
        let address = request.extensions().get::<ClientAddress>().map(|address| address.0);
        let user_agent = request.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        // ASCII, as `to_str` takes no other: any byte is a good place to cut.
        let user_agent = user_agent.map(|agent| Arc::from(&agent[..agent.len().min(limits::USER_AGENT_BYTES_MAX)]));
        Self { address, user_agent }
    }
}
