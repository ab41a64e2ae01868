//! Outgoing HTTP: which hosts and credentials a service may use, and one way to send. Knows no provider's protocol but how its credential is made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use async_trait::async_trait;

pub mod client;
pub mod credentials;
pub mod host;
#[cfg(test)]
mod suite;

pub const APNS: &str = "apns";
pub const FCM: &str = "fcm";
pub const WEBPUSH: &str = "webpush";
/// The credentials that there are.
pub const NAMES: [&str; 3] = [APNS, FCM, WEBPUSH];

/// What the operator says of outgoing requests.
#[derive(Clone, Debug, Default)]
pub struct HttpSettings {
    /// Hosts that may be at addresses which are not public and may speak plain HTTP: granted by that to all services that can send at all.
    pub private_hosts: Vec<HostPattern>,
    /// Certificates in PEM that are trusted besides the system's.
    pub root_certificates: Option<Vec<u8>>,
    pub credentials: CredentialSettings,
}

/// As configured; keys in PEM (PKCS #8).
#[derive(Clone, Default)]
pub struct CredentialSettings {
    pub vapid_key: Option<String>,
    /// `mailto:` or `https:`, where a push service can reach the operator.
    pub vapid_subject: String,
    /// Google's JSON file.
    pub fcm_service_account: Option<String>,
    pub apns_key: Option<String>,
    pub apns_key_id: String,
    pub apns_team_id: String,
}

impl std::fmt::Debug for CredentialSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CredentialSettings").finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
pub struct OutgoingRequest {
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub credential: Option<String>,
    pub timeout: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpError {
    #[error("{0} is not granted")]
    NotGranted(String),
    #[error("not a request that can be sent: {0}")]
    Invalid(String),
    #[error("unreachable: {0}")]
    Unreachable(String),
    #[error("no answer in time")]
    TimedOut,
    #[error("the request or the answer is too large")]
    TooLarge,
    #[error("the credential {0:?} cannot be used")]
    NoCredential(String),
}

#[async_trait]
pub trait Http: Send + Sync {
    /// An answer of any status is a success. Errors: see `HttpError`.
    async fn send(&self, grants: &HttpGrants, request: OutgoingRequest) -> Result<OutgoingResponse, HttpError>;
    /// None where it is not configured.
    fn public_key(&self, credential: &str) -> Option<String>;
}

/// What a version of a service may use, as its manifest has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpGrants {
    hosts: Vec<HostPattern>,
    credentials: Vec<String>,
}

impl HttpGrants {
    /// Errors: what is no host or no credential, for whoever wrote it.
    pub fn parse(hosts: &[String], credentials: &[String]) -> Result<Self, String> {
        let hosts = hosts.iter().map(|host| HostPattern::parse(host)).collect::<Result<_, _>>()?;
        for credential in credentials {
            if !NAMES.contains(&credential.as_str()) {
                return Err(format!("{credential:?} is none of the credentials {}", NAMES.join(", ")));
            }
        }
        Ok(Self { hosts, credentials: credentials.to_vec() })
    }

    pub fn covers(&self, host: &str, port: u16) -> bool {
        self.hosts.iter().any(|pattern| pattern.covers(host, port))
    }

    pub fn has_credential(&self, name: &str) -> bool {
        self.credentials.iter().any(|credential| credential == name)
    }
}

/// `name:port`, or `*.name:port` for the hosts below a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    /// In lower case; of a pattern what stands behind the star, with its dot.
    name: String,
    port: u16,
    below: bool,
}

impl HostPattern {
    /// Errors: why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no host: write name:port, such as \"push.example.com:443\" or \"*.example.com:443\"");
        let (name, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let (name, below) = match name.strip_prefix('*') {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let labels = name.strip_prefix('.').filter(|_| below).unwrap_or(name);
        let is_label = |label: &str| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        // A star over a whole top-level domain would be the internet.
        let enough = !below || (name.starts_with('.') && labels.contains('.'));
        let good = enough && (labels.split('.').all(is_label) || (!below && bare_ip(labels).is_some()));
        if good { Ok(Self { name: name.to_ascii_lowercase(), port, below }) } else { Err(wrong()) }
    }

    pub fn covers(&self, host: &str, port: u16) -> bool {
        self.port == port && self.names(host)
    }

    /// At any port.
    fn names(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        if self.below { host.len() > self.name.len() && host.ends_with(&self.name) } else { host == self.name }
    }
}

/// An address where a name is expected; IPv6 stands in brackets (RFC 3986).
fn bare_ip(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// Whether it is one of the internet's, by the registries of special-purpose addresses (RFC 6890 and its updates).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    let special = v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_documentation()
        || a == 0
        // Shared by carriers (RFC 6598), assignments of protocols, measurements, multicast and above.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b))
        || a >= 224;
    !special
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    let [a, b, ..] = v6.segments();
    // Only 2000::/3 is given out; of it not the IETF's own (Teredo among them), documentation, and 6to4, which holds an IPv4 address.
    a & 0xe000 == 0x2000 && !(a == 0x2001 && b < 0x200) && !(a == 0x2001 && b == 0xdb8) && a != 0x2002 && a & 0xfff0 != 0x3ff0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_its_host_or_the_hosts_below_it_at_its_port() {
        for (pattern, host, port, expect) in [
            ("fcm.example:443", "fcm.example", 443, true),
            ("fcm.example:443", "FCM.example", 443, true),
            ("fcm.example:443", "fcm.example", 444, false),
            ("fcm.example:443", "a.fcm.example", 443, false),
            ("*.push.example:443", "web.push.example", 443, true),
            ("*.push.example:443", "push.example", 443, false),
            ("*.push.example:443", "evilpush.example", 443, false),
            ("127.0.0.1:8080", "127.0.0.1", 8080, true),
        ] {
            assert_eq!(HostPattern::parse(pattern).unwrap().covers(host, port), expect, "{pattern} {host}:{port}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            "a.example",
            "a.example:x",
            "a.example:70000",
            "*:443",
            "*.com:443",
            "*a.example:443",
            "a..example:443",
            "https://a.example:443",
        ] {
            assert!(HostPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn public_are_the_addresses_of_the_internet_alone() {
        for public in ["1.1.1.1", "142.250.1.1", "2606:4700::1111", "2a00:1450::1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for other in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "fc00::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:a00:1::",
            "3fff::1",
        ] {
            assert!(!is_public(other.parse().unwrap()), "{other}");
        }
    }
}
