//! Pages of a list: the limit, and opaque cursors over the typed keys by which the list is ordered.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::{Cursor, Error, Uuid};

pub const LIMIT_DEFAULT: u32 = 50;
pub const LIMIT_MAX: u32 = 100;
/// Longest cursor accepted, in characters.
pub const CURSOR_CHARS_MAX: usize = 512;
/// The code of a cursor that is none of this list's.
pub const CURSOR_INVALID: &str = "cursor_invalid";

/// Which page is wanted, with a cursor over keys of type `K` (the columns of ORDER BY: `u64`, `i64`, `Id`, `String`, or tuples of them).
///
/// The host lets through only cursors that this list gave to this caller; what is decoded here is still taken for a stranger's: whatever comes out
/// of a cursor is a value that its column can be compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<K> {
    pub limit: u32,
    /// The last key of the page before; none for the first page.
    pub after: Option<K>,
}

impl<K: CursorKey> Page<K> {
    /// The contract bounds the limit (`@range 1..=100`); where it does not, one outside gives the nearest. Errors: 422 on a `cursor` that is none of
    /// this list's.
    pub fn new(limit: Option<u32>, cursor: Option<&str>) -> Result<Self, Error> {
        let limit = limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX);
        let after = match cursor {
            None => None,
            Some(cursor) => {
                Some(decode(cursor).ok_or_else(|| Error::invalid_field("cursor", CURSOR_INVALID, "not a cursor of this list"))?)
            }
        };
        Ok(Self { limit, after })
    }

    /// How many rows to ask for: one more than the page holds, to know whether there is another.
    pub fn fetch(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// Of a page that starts after this key: for a list that looks at more than it shows.
    pub fn cursor(&self, key: &K) -> Cursor {
        encode(key)
    }

    /// Cuts the extra row off; the next page starts after the key of the last one kept.
    pub fn finish<T>(&self, mut items: Vec<T>, key: impl Fn(&T) -> K) -> (Vec<T>, Option<Cursor>) {
        let limit = self.limit as usize;
        if items.len() <= limit {
            return (items, None);
        }
        items.truncate(limit);
        let next = items.last().map(|last| encode(&key(last)));
        (items, next)
    }
}

/// What a cursor can carry.
pub trait CursorKey: Sized {
    fn write(&self, bytes: &mut Vec<u8>);
    fn read(bytes: &mut &[u8]) -> Option<Self>;
}

impl CursorKey for u64 {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_be_bytes());
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        // A database's integers and times end where `i64` does.
        Some(Self::from_be_bytes(*head)).filter(|number| i64::try_from(*number).is_ok())
    }
}

/// A UUID in a key: 16 bytes, so that nothing but a UUID comes out of a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id(pub Uuid);

impl CursorKey for Id {
    fn write(&self, bytes: &mut Vec<u8>) {
        let digits = self.0.bytes().filter_map(|digit| char::from(digit).to_digit(16)).collect::<Vec<_>>();
        let mut whole = [0_u8; 16];
        for (byte, pair) in whole.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = (pair[0] * 16 + pair[1]) as u8;
        }
        bytes.extend_from_slice(&whole);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<16>()?;
        *bytes = rest;
        let number = u128::from_be_bytes(*head);
        let part = |from_bit: u32, bits: u32| (number >> from_bit) & ((1 << bits) - 1);
        Some(Self(format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", part(96, 32), part(80, 16), part(64, 16), part(48, 16), part(0, 48))))
    }
}

impl CursorKey for i64 {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_be_bytes());
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(Self::from_be_bytes(*head))
    }
}

impl CursorKey for String {
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&u16::try_from(self.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend_from_slice(&self.as_bytes()[..self.len().min(u16::MAX.into())]);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (text, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        *bytes = rest;
        // PostgreSQL compares no text with a NUL in it.
        String::from_utf8(text.to_vec()).ok().filter(|text| !text.contains('\0'))
    }
}

impl<A: CursorKey, B: CursorKey> CursorKey for (A, B) {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.0.write(bytes);
        self.1.write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::read(bytes)?, B::read(bytes)?))
    }
}

impl<A: CursorKey, B: CursorKey, C: CursorKey> CursorKey for (A, B, C) {
    fn write(&self, bytes: &mut Vec<u8>) {
        self.0.write(bytes);
        self.1.write(bytes);
        self.2.write(bytes);
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::read(bytes)?, B::read(bytes)?, C::read(bytes)?))
    }
}

fn encode(key: &impl CursorKey) -> Cursor {
    let mut bytes = Vec::new();
    key.write(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode<K: CursorKey>(cursor: &str) -> Option<K> {
    if cursor.len() > CURSOR_CHARS_MAX {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let mut rest = bytes.as_slice();
    let key = K::read(&mut rest)?;
    rest.is_empty().then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    type Key = (u64, String);

    const ID: &str = "018f4c5e-7b1a-7c3d-8e9f-0123456789ab";

    #[test]
    fn a_page_leads_to_the_next() {
        let page = Page::<Key>::new(Some(2), None).unwrap();
        assert_eq!((page.fetch(), page.after.clone()), (3, None));
        let (items, next) = page.finish(vec![(9, "a"), (8, "b"), (7, "c")], |(at, id)| (*at, (*id).to_owned()));
        assert_eq!(items, [(9, "a"), (8, "b")]);
        let following = Page::<Key>::new(None, next.as_deref()).unwrap();
        assert_eq!(following, Page { limit: LIMIT_DEFAULT, after: Some((8, "b".to_owned())) });
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        let page = Page::<u64>::new(Some(3), None).unwrap();
        assert_eq!(page.finish(vec![1, 2, 3], |item| *item).1, None);
    }

    #[test]
    fn an_identifier_is_kept_in_its_bytes() {
        let key = (7_u64, Id(ID.to_owned()));
        let page = Page::<(u64, Id)>::new(None, Some(&encode(&key))).unwrap();
        assert_eq!(page.after, Some(key));
    }

    #[test]
    fn whatever_is_changed_in_a_cursor_it_gives_what_a_column_can_be_compared_with_or_is_refused() {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let is_uuid = |text: &str| {
            text.len() == 36
                && text.bytes().enumerate().all(|(at, c)| if matches!(at, 8 | 13 | 18 | 23) { c == b'-' } else { c.is_ascii_hexdigit() })
        };
        let cursor = encode(&(1_700_000_000_000_000_u64, Id(ID.to_owned())));
        for at in 0..cursor.len() {
            for letter in ALPHABET {
                let mut changed = cursor.clone().into_bytes();
                changed[at] = *letter;
                let changed = String::from_utf8(changed).expect("ASCII");
                match Page::<(u64, Id)>::new(None, Some(&changed)) {
                    Ok(page) => {
                        let (number, Id(id)) = page.after.expect("a key");
                        assert!(i64::try_from(number).is_ok() && is_uuid(&id), "{changed}: {number} {id}");
                    }
                    Err(error) => assert_eq!(error.code, CURSOR_INVALID),
                }
            }
        }
        assert!(Page::<String>::new(None, Some(&encode(&"a\0b".to_owned()))).is_err());
    }

    #[test]
    fn bad_cursors_are_refused_by_field() {
        let limit = |limit| Page::<Key>::new(Some(limit), None).expect("a page").limit;
        assert_eq!((limit(0), limit(100), limit(101)), (1, 100, 100));
        let long = "A".repeat(600);
        // No base64, too short, a text longer than what follows, something left over, too long.
        for cursor in ["*", "AAAA", "AAAAAAAAAAAAMg", "AAAAAAAAAAAAAAA", &long] {
            let error = Page::<Key>::new(None, Some(cursor)).expect_err("refused");
            assert_eq!(
                (error.kind, error.code.as_str(), error.fields[0].field.as_str()),
                (ErrorKind::Invalid, CURSOR_INVALID, "cursor"),
                "{cursor}"
            );
        }
    }
}
