//! Against request smuggling (RFC 9112, sections 6.3 and 11.2): finds HTTP/1.1 requests with both Content-Length and Transfer-Encoding. What stands before this
//! host may go by the other one and take a part of the request for the next. hyper goes by Transfer-Encoding and takes Content-Length away before
//! anybody has seen it, so the lines are looked at as they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use memchr::memchr;

const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";

/// An extension of a request that has both.
#[derive(Clone, Copy, Debug)]
pub struct AmbiguousLength;

/// Whether a head with both came and no chunked request has been seen since.
#[derive(Clone, Debug, Default)]
pub struct AmbiguousLengths(Arc<AtomicBool>);

impl AmbiguousLengths {
    /// For a request with Transfer-Encoding.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// Reads the lines of one connection. Where bodies begin is not known here: a body that holds such a head makes a chunked request after it suspicious too,
/// which is answered 400 and sent again on another connection.
#[derive(Debug, Default)]
pub struct HeadScanner {
    ambiguous: AmbiguousLengths,
    /// How the line that is coming begins.
    begin: [u8; TRANSFER_ENCODING.len()],
    length: usize,
    has_length: bool,
    has_encoding: bool,
}

impl HeadScanner {
    pub fn ambiguous(&self) -> AmbiguousLengths {
        self.ambiguous.clone()
    }

    pub fn read(&mut self, mut bytes: &[u8]) {
        while let Some(end) = memchr(b'\n', bytes) {
            self.take_in(&bytes[..end]);
            self.end_line();
            bytes = &bytes[end + 1..];
        }
        self.take_in(bytes);
    }

    fn take_in(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(self.begin.len() - self.length);
        self.begin[self.length..self.length + count].copy_from_slice(&bytes[..count]);
        self.length += count;
    }

    fn end_line(&mut self) {
        let begin = &self.begin[..std::mem::take(&mut self.length)];
        let is = |name: &[u8]| begin.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
        match begin {
            b"" | b"\r" => {
                let (has_length, has_encoding) = (std::mem::take(&mut self.has_length), std::mem::take(&mut self.has_encoding));
                if has_length && has_encoding {
                    self.ambiguous.0.store(true, Ordering::Relaxed);
                }
            }
            _ if is(CONTENT_LENGTH) => self.has_length = true,
            _ if is(TRANSFER_ENCODING) => self.has_encoding = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_with_both_is_seen_however_it_comes() {
        let check = |text: &str, expect: bool| {
            for size in [1, 2, 7, text.len()] {
                let mut lines = HeadScanner::default();
                text.as_bytes().chunks(size).for_each(|some| lines.read(some));
                assert_eq!(lines.ambiguous().take(), expect, "{text:?} in pieces of {size}");
                assert!(!lines.ambiguous().take(), "once");
            }
        };
        let (length, encoding) = ("Content-Length: 5\r\n", "TRANSFER-encoding: chunked\r\n");
        let head = "POST / HTTP/1.1\r\nhost: x\r\n";
        check(&format!("{head}{length}{encoding}\r\n"), true);
        check(&format!("{head}{encoding}x: y\r\n{length}\r\n"), true);
        check(&format!("{head}{length}\r\nhello{head}{encoding}\r\n"), false);
        check(&format!("{head}{length}\r\nhello{head}{length}{encoding}\r\n"), true);
        check(&format!("{head}x-{length}{encoding}\r\n"), false);
        check(&format!("{head}{length}x: {encoding}\r\n"), false);
    }
}
