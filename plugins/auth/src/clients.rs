//! Who is trying, so that what strangers do is not counted against the owner of an account: a live session, a device that signed in before, or anybody.
//! A device's id is chosen by its client: one that nobody can guess is counted apart from everybody, and one that somebody learned still from the
//! address where its owner uses it.

use std::net::IpAddr;

use echo_sdk::sql::{Database, SqlError};
use echo_sdk::wit::context;
use echo_sdk::wit::passwords::Standing;

use crate::store::{self, Account};

/// The client's address as it is counted: a whole /64 of IPv6, as a client may take any address in it (RFC 6177). Empty where there is none.
pub fn address() -> String {
    context::client_address().map(|address| counted(&address)).unwrap_or_default()
}

fn counted(address: &str) -> String {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.to_string(),
            None => {
                let [a, b, c, d, ..] = v6.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
        },
        _ => address.to_owned(),
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Client {
    Stranger,
    /// A device that signed in before; with the address, where it did so from this one.
    Device {
        id: String,
        address: Option<String>,
    },
    Session(String),
}

impl Client {
    /// Who signs in on this device.
    pub fn of_device(account: Option<&Account>, device: &str, address: &str) -> Result<Self, SqlError> {
        let Some(account) = account else { return Ok(Self::Stranger) };
        Ok(match store::device_known(&Database, &account.id, device, address)? {
            None => Self::Stranger,
            Some(from_here) => Self::Device { id: device.to_owned(), address: from_here.then(|| address.to_owned()) },
        })
    }

    /// Under which its failures are counted; empty for all strangers together.
    pub fn key(&self) -> String {
        match self {
            Self::Stranger => String::new(),
            Self::Device { id, address: None } => format!("device {id}"),
            Self::Device { id, address: Some(address) } => format!("device {address} {id}"),
            Self::Session(id) => format!("session {id}"),
        }
    }

    pub fn standing(&self) -> Standing {
        if *self == Self::Stranger { Standing::Stranger } else { Standing::Known }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_by_what_one_client_has() {
        assert_eq!(counted("192.0.2.7"), "192.0.2.7");
        assert_eq!(counted("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), counted("2001:db8:1:2::1"));
        assert_ne!(counted("2001:db8:1:2::1"), counted("2001:db8:1:3::1"));
    }

    #[test]
    fn each_kind_of_client_is_counted_apart() {
        let device = |address: Option<&str>| Client::Device { id: "d".to_owned(), address: address.map(str::to_owned) };
        let keys = [Client::Stranger, device(None), device(Some("192.0.2.7")), Client::Session("d".to_owned())].map(|client| client.key());
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len(), "{keys:?}");
    }
}
