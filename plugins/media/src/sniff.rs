//! What a file is, from its first bytes (after the WHATWG's MIME Sniffing Standard, section 6): only what a browser shows without running it is
//! named; all else is a document to be saved. Pure.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sniffed {
    pub content_type: &'static str,
    pub kind: &'static str,
}

const DOCUMENT: Sniffed = Sniffed { content_type: "application/octet-stream", kind: "document" };

/// `head`: the file's first bytes.
pub fn sniff(head: &[u8]) -> Sniffed {
    let of = |content_type, kind| Sniffed { content_type, kind };
    let at = |offset: usize, what: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(what));
    if at(0, b"\x89PNG\r\n\x1a\n") {
        of("image/png", "image")
    } else if at(0, b"\xff\xd8\xff") {
        of("image/jpeg", "image")
    } else if at(0, b"RIFF") && at(8, b"WEBP") {
        of("image/webp", "image")
    } else if at(0, b"RIFF") && at(8, b"WAVE") {
        of("audio/wav", "audio")
    } else if at(0, b"OggS\0") {
        of("audio/ogg", "audio")
    } else if at(0, b"ID3") || is_mp3_frame(head) {
        of("audio/mpeg", "audio")
    } else if at(0, b"\x1a\x45\xdf\xa3") {
        of("video/webm", "video")
    } else if at(4, b"ftyp") {
        match head.get(8..12) {
            Some(b"M4A " | b"M4B ") => of("audio/mp4", "audio"),
            Some(brand)
                if brand.starts_with(b"mp4")
                    || [b"isom", b"iso2", b"iso5", b"iso6", b"avc1", b"M4V "].iter().any(|known| brand == *known) =>
            {
                of("video/mp4", "video")
            }
            _ => DOCUMENT,
        }
    } else if at(0, b"%PDF-") {
        of("application/pdf", "document")
    } else {
        DOCUMENT
    }
}

/// MPEG-1 or MPEG-2 layer III, with a bit rate and a sampling rate that exist.
fn is_mp3_frame(head: &[u8]) -> bool {
    matches!(head, [0xff, second, third, ..] if matches!(second & 0xfe, 0xfa | 0xf2) && third >> 4 != 0 && third >> 4 != 15 && (third >> 2) & 3 != 3)
}

/// Whether a browser may show it in its place. PDF readers run scripts.
pub fn is_inline(content_type: &str) -> bool {
    ["image/", "audio/", "video/"].iter().any(|kind| content_type.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_what_their_bytes_say() {
        let check = |head: &[u8], expect: &str| assert_eq!(sniff(head).content_type, expect, "{head:?}");
        check(b"\x89PNG\r\n\x1a\n....", "image/png");
        check(b"\xff\xd8\xff\xe0", "image/jpeg");
        check(b"RIFF\0\0\0\0WEBPVP8 ", "image/webp");
        check(b"RIFF\0\0\0\0WAVEfmt ", "audio/wav");
        check(b"OggS\0\x02", "audio/ogg");
        check(b"ID3\x04", "audio/mpeg");
        check(b"\xff\xfb\x90\x00", "audio/mpeg");
        check(b"\x1a\x45\xdf\xa3", "video/webm");
        check(b"\0\0\0\x18ftypmp42", "video/mp4");
        check(b"\0\0\0\x18ftypM4A ", "audio/mp4");
        check(b"%PDF-1.7", "application/pdf");
    }

    #[test]
    fn what_could_run_is_a_document_that_is_saved() {
        let pages: [&[u8]; 8] = [
            b"<html>",
            b"<!DOCTYPE html><script>",
            b"<svg onload='x'>",
            b"<?xml version='1.0'?><svg>",
            b"#!/bin/sh",
            b"MZ",
            b"PK\x03\x04",
            b"",
        ];
        for head in pages {
            assert_eq!(sniff(head), DOCUMENT, "{head:?}");
        }
        assert!(!is_inline(DOCUMENT.content_type) && !is_inline("application/pdf") && is_inline("image/png"));
    }
}
