//! Addresses that are good for a while, for whoever has them. The key of the signature is the host's.

use echo_sdk::wit::passwords::fingerprint;
use echo_sdk::{Timestamp, config, time};

use crate::bounds::URL_TTL_S;

/// The address of a file's content, below the host's own.
pub fn address(id: &str) -> String {
    let expires = time::now_us() / 1_000_000 + config::number("url_ttl_s", URL_TTL_S);
    format!("/api/v1/media/{id}/content?expires={expires}&signature={}", fingerprint(&signed_text(id, expires)))
}

/// For how many seconds more the address is good; none where it is not.
pub fn seconds_left(id: &str, expires: Option<u64>, signature: Option<&str>) -> Option<u64> {
    let (expires, signature) = (expires?, signature?);
    let left = left(expires, time::now_us())?;
    is_same(&fingerprint(&signed_text(id, expires)), signature).then_some(left)
}

fn left(expires: u64, now: Timestamp) -> Option<u64> {
    expires.checked_sub(now / 1_000_000).filter(|left| *left > 0)
}

/// What is signed is not taken for another service's secret: it begins with words of its own.
fn signed_text(id: &str, expires: u64) -> String {
    format!("media content {id} {expires}")
}

/// In a time that does not depend on where they differ.
fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_ends() {
        assert_eq!(left(100, 90_000_000), Some(10));
        assert_eq!(left(100, 100_000_000), None);
        assert_eq!(left(100, 200_000_000), None);
    }

    #[test]
    fn signatures_are_the_same_or_not() {
        assert!(is_same("abc", "abc"));
        for other in ["abd", "ab", "", "abcd"] {
            assert!(!is_same("abc", other), "{other}");
        }
        assert_ne!(signed_text("a", 1), signed_text("a", 2));
    }
}
