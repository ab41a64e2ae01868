//! Identifiers: UUIDv7 (RFC 9562 §5.7), in order of the time they are made.

use crate::wit::random;
use crate::{Uuid, time};

/// A new identifier. Ids made in different microseconds sort by their time.
pub fn uuid_v7() -> Uuid {
    uuid_v7_of(time::now_us(), random::get_random_u64())
}

/// The identifier of this time, with these bits for what the time leaves open. `rand_a` carries the microseconds (RFC 9562 §6.2, method 3).
pub fn uuid_v7_of(at_us: u64, random: u64) -> Uuid {
    let ms = (at_us / 1_000) & 0xffff_ffff_ffff;
    let fraction = (at_us % 1_000) * 4_096 / 1_000;
    let tail = (random & 0x3fff_ffff_ffff_ffff) | 0x8000_0000_0000_0000;
    format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", ms >> 16, ms & 0xffff, 0x7000 | fraction, tail >> 48, tail & 0xffff_ffff_ffff)
}

/// Secure random bytes.
pub fn random_bytes(count: usize) -> Vec<u8> {
    random::get_random_bytes(count as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 9562 appendix A.6: 017F22E2-79B0-7CC3-98C4-DC0C0C07398F, its rand_a being our microseconds.
        let at_us = 0x017f_22e2_79b0_u64 * 1_000 + 0xcc3 * 1_000 / 4_096 + 1;
        let id = uuid_v7_of(at_us, 0x18c4_dc0c_0c07_398f);
        assert_eq!(&id[..15], "017f22e2-79b0-7");
        assert_eq!(&id[18..], "-98c4-dc0c0c07398f");
        assert_eq!(id.len(), 36);
    }

    #[test]
    fn later_sorts_after() {
        let ids: Vec<_> = (0..5_000).map(|step| uuid_v7_of(1_700_000_000_000_000 + step, u64::MAX - step)).collect();
        assert!(ids.is_sorted());
        assert!(uuid_v7_of(1, u64::MAX) < uuid_v7_of(2, 0));
    }
}
