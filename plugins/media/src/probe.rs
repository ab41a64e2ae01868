//! How long audio and video last, and how large a video's picture is, as far as the container says so. Reads headers alone, a bounded number of times; what is
//! not well formed says nothing. Pure but for where the bytes come from.

use crate::bounds::{DURATION_MS_MAX, PROBE_BYTES, PROBE_READS_MAX};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub duration_ms: Option<u64>,
    /// In pixels.
    pub size: Option<(u32, u32)>,
}

/// A file of which ranges can be read.
pub struct Source<'a> {
    read: &'a dyn Fn(u64, u32) -> Option<Vec<u8>>,
    size: u64,
    reads_left: u32,
}

impl<'a> Source<'a> {
    /// `read`: by offset and length; fewer bytes at the end.
    pub fn new(size: u64, read: &'a dyn Fn(u64, u32) -> Option<Vec<u8>>) -> Self {
        Self { read, size, reads_left: PROBE_READS_MAX }
    }

    fn at(&mut self, offset: u64, length: u32) -> Option<Vec<u8>> {
        self.reads_left = self.reads_left.checked_sub(1)?;
        (self.read)(offset, length.min(PROBE_BYTES))
    }
}

pub fn probe(content_type: &str, mut source: Source<'_>) -> Found {
    let mut found = Found::default();
    let end = source.size;
    let _ = match content_type {
        "video/mp4" | "audio/mp4" => boxes(&mut source, 0, end, &mut found),
        "video/webm" => elements(&mut source, 0, end, &mut Webm::default(), &mut found),
        "audio/ogg" => ogg(&mut source).map(|ms| found.duration_ms = Some(ms)),
        "audio/wav" => wav(&mut source).map(|ms| found.duration_ms = Some(ms)),
        "audio/mpeg" => mp3(&mut source).map(|ms| found.duration_ms = Some(ms)),
        _ => None,
    };
    found.duration_ms = found.duration_ms.filter(|ms| (1..=DURATION_MS_MAX).contains(ms));
    found.size = found.size.filter(|(width, height)| *width > 0 && *height > 0);
    found
}

fn be(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    Some(bytes.get(at..at + length)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn le(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    Some(bytes.get(at..at + length)?.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

/// `units` of which there are `per_second`.
fn milliseconds(units: u64, per_second: u64) -> Option<u64> {
    let per_second = u128::from((per_second > 0).then_some(per_second)?);
    u64::try_from(u128::from(units) * 1_000 / per_second).ok()
}

// --- MP4 (ISO/IEC 14496-12) ----------------------------------------------------------------------------------------------------------

/// The boxes between two offsets.
fn boxes(source: &mut Source<'_>, mut at: u64, end: u64, found: &mut Found) -> Option<()> {
    while at + 8 <= end {
        let head = source.at(at, 16)?;
        let (size, kind) = (be(&head, 0, 4)?, head.get(4..8)?);
        let (size, head_size) = match size {
            0 => (end - at, 8),
            1 => (be(&head, 8, 8)?, 16),
            size => (size, 8),
        };
        if size < head_size || size > end - at {
            return None;
        }
        let body = at + head_size;
        match kind {
            b"moov" | b"trak" => boxes(source, body, at + size, found)?,
            b"mvhd" => {
                let head = source.at(body, 32)?;
                let (scale, duration, unknown) = match head.first()? {
                    0 => (be(&head, 12, 4)?, be(&head, 16, 4)?, u64::from(u32::MAX)),
                    _ => (be(&head, 20, 4)?, be(&head, 24, 8)?, u64::MAX),
                };
                found.duration_ms =
                    Some(duration).filter(|duration| *duration != unknown).and_then(|duration| milliseconds(duration, scale));
            }
            b"tkhd" => {
                let head = source.at(body, 96)?;
                let at = if *head.first()? == 0 { 76 } else { 88 };
                // 16.16 fixed point; of an audio track they are 0.
                let (width, height) = ((be(&head, at, 4)? >> 16) as u32, (be(&head, at + 4, 4)? >> 16) as u32);
                if width > 0 && height > 0 {
                    found.size.get_or_insert((width, height));
                }
            }
            _ => {}
        }
        at += size;
    }
    Some(())
}

// --- Matroska and WebM (RFC 9559, RFC 8794) ----------------------------------------------------------------------------------------

struct Webm {
    /// Nanoseconds of one unit of the duration.
    scale: u64,
    duration: Option<f64>,
    size: (u32, u32),
}

impl Default for Webm {
    fn default() -> Self {
        Self { scale: 1_000_000, duration: None, size: (0, 0) }
    }
}

/// A number of one to eight bytes, and how many those were; of an id the marker stays. None in the first: a size that is not known.
fn number(bytes: &[u8], is_id: bool) -> Option<(Option<u64>, u64)> {
    let length = bytes.first()?.leading_zeros() as usize + 1;
    if length > 8 {
        return None;
    }
    let value = be(bytes, 0, length)?;
    let bits = 7 * length as u32;
    let plain = value & ((1 << bits) - 1);
    let is_unknown = !is_id && plain == (1 << bits) - 1;
    Some((Some(if is_id { value } else { plain }).filter(|_| !is_unknown), length as u64))
}

/// The elements between two offsets, up to the first cluster.
fn elements(source: &mut Source<'_>, mut at: u64, end: u64, webm: &mut Webm, found: &mut Found) -> Option<()> {
    while at + 2 <= end {
        let head = source.at(at, 12)?;
        let (id, id_length) = number(&head, true)?;
        let (size, size_length) = number(head.get(id_length as usize..)?, false)?;
        let body = at + id_length + size_length;
        let next = size.map_or(Some(end), |size| body.checked_add(size)).filter(|next| (body..=end).contains(next))?;
        match id? {
            // Segment, Info, Tracks, TrackEntry, Video.
            0x1853_8067 | 0x1549_a966 | 0x1654_ae6b | 0xae | 0xe0 => elements(source, body, next, webm, found)?,
            0x002a_d7b1 => webm.scale = be(&source.at(body, 8)?, 0, usize::try_from(next - body).ok()?)?,
            0x4489 => {
                let bytes = source.at(body, 8)?;
                webm.duration = match next - body {
                    4 => Some(f64::from(f32::from_bits(be(&bytes, 0, 4)? as u32))),
                    8 => Some(f64::from_bits(be(&bytes, 0, 8)?)),
                    _ => None,
                };
            }
            0xb0 => webm.size.0 = be(&source.at(body, 8)?, 0, usize::try_from(next - body).ok()?)? as u32,
            0xba => webm.size.1 = be(&source.at(body, 8)?, 0, usize::try_from(next - body).ok()?)? as u32,
            // Cluster: what is asked for here stands before it.
            0x1f43_b675 => return Some(()),
            _ => {}
        }
        found.size = Some(webm.size);
        found.duration_ms = webm.duration.map(|duration| (duration * webm.scale as f64 / 1e6) as u64);
        at = next;
    }
    Some(())
}

// --- Ogg (RFC 3533; Opus: RFC 7845), WAV, MP3 ----------------------------------------------------------------------------------------

fn ogg(source: &mut Source<'_>) -> Option<u64> {
    let head = source.at(0, 64)?;
    let packet = head.get(27 + usize::from(*head.get(26)?)..)?;
    let (rate, skipped) = match packet {
        [b'O', b'p', b'u', b's', b'H', b'e', b'a', b'd', ..] => (48_000, le(packet, 10, 2)?),
        [1, b'v', b'o', b'r', b'b', b'i', b's', ..] => (le(packet, 12, 4)?, 0),
        _ => return None,
    };
    // The position at the end of the last page.
    let tail = source.at(source.size.saturating_sub(u64::from(PROBE_BYTES)), PROBE_BYTES)?;
    let last = tail.windows(4).rposition(|window| window == b"OggS")?;
    let position = le(&tail, last + 6, 8).filter(|position| *position != u64::MAX)?;
    milliseconds(position.checked_sub(skipped)?, rate)
}

fn wav(source: &mut Source<'_>) -> Option<u64> {
    let (mut at, mut rate) = (12, None);
    while at + 8 <= source.size {
        let head = source.at(at, 24)?;
        let size = le(&head, 4, 4)?;
        match head.get(..4)? {
            b"fmt " => rate = le(&head, 16, 4),
            b"data" => return milliseconds(size.min(source.size - at - 8), rate?),
            _ => {}
        }
        at += 8 + size + size % 2;
    }
    None
}

/// By the count of frames where the encoder wrote it down (Xing, Info), else as if all frames were as the first.
fn mp3(source: &mut Source<'_>) -> Option<u64> {
    const KBITS: [[u64; 16]; 2] = [
        [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0],
        [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0],
    ];
    let head = source.at(0, 10)?;
    let begin = match head.strip_prefix(b"ID3") {
        // Four times seven bits.
        Some(_) => 10 + head.get(6..10)?.iter().fold(0, |size, byte| size << 7 | u64::from(byte & 0x7f)),
        None => 0,
    };
    let frame = source.at(begin, 64)?;
    let [0xff, second, third, fourth, ..] = *frame.as_slice() else { return None };
    let is_first_version = match second & 0xfe {
        0xfa => true,
        0xf2 => false,
        _ => return None,
    };
    let rate = *[44_100, 48_000, 32_000].get(usize::from(third >> 2 & 3))? / if is_first_version { 1 } else { 2 };
    let samples = if is_first_version { 1_152 } else { 576 };
    let is_mono = fourth >> 6 == 3;
    // Behind the frame's side information.
    let info = 4 + match (is_first_version, is_mono) {
        (true, false) => 32,
        (false, true) => 9,
        _ => 17,
    };
    let tag = frame.get(info..info + 12)?;
    if (tag.starts_with(b"Xing") || tag.starts_with(b"Info")) && tag[7] & 1 == 1 {
        return milliseconds(be(tag, 8, 4)? * samples, rate);
    }
    let kbits = KBITS[usize::from(!is_first_version)][usize::from(third >> 4)];
    milliseconds((source.size - begin) * 8, kbits * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(content_type: &str, bytes: &[u8]) -> Found {
        let read = |offset: u64, length: u32| {
            let begin = usize::try_from(offset).unwrap().min(bytes.len());
            Some(bytes[begin..(begin + length as usize).min(bytes.len())].to_vec())
        };
        probe(content_type, Source::new(bytes.len() as u64, &read))
    }

    fn boxed(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32 + 8).to_be_bytes()[..], kind, body].concat()
    }

    fn mp4() -> Vec<u8> {
        let mvhd = [&[0; 12][..], &600_u32.to_be_bytes(), &1_500_u32.to_be_bytes(), &[0; 80]].concat();
        let tkhd = |width: u32, height: u32| [&[0; 76][..], &(width << 16).to_be_bytes(), &(height << 16).to_be_bytes()].concat();
        let tracks = [(0, 0), (1_280, 720)].map(|(width, height)| boxed(b"trak", &boxed(b"tkhd", &tkhd(width, height)))).concat();
        let moov = boxed(b"moov", &[boxed(b"mvhd", &mvhd), tracks].concat());
        // The index behind the data, as cameras write it.
        [boxed(b"ftyp", b"isom\0\0\0\0"), boxed(b"mdat", &[7; 5_000]), moov].concat()
    }

    fn element(id: &[u8], body: &[u8]) -> Vec<u8> {
        [id, &(body.len() as u32 | 0x1000_0000).to_be_bytes(), body].concat()
    }

    fn webm() -> Vec<u8> {
        let info = element(
            b"\x15\x49\xa9\x66",
            &[element(b"\x2a\xd7\xb1", &[0x0f, 0x42, 0x40]), element(b"\x44\x89", &2_500_f64.to_be_bytes())].concat(),
        );
        let video = element(b"\xe0", &[element(b"\xb0", &[2, 128]), element(b"\xba", &[1, 104])].concat());
        let tracks = element(b"\x16\x54\xae\x6b", &element(b"\xae", &video));
        // A segment of unknown length, as from a recorder.
        let segment = [&b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff"[..], &info, &tracks, b"\x1f\x43\xb6\x75\x81\x00"].concat();
        [element(b"\x1a\x45\xdf\xa3", b""), segment].concat()
    }

    fn opus() -> Vec<u8> {
        let page =
            |position: u64, body: &[u8]| [&b"OggS\0\0"[..], &position.to_le_bytes()[..], &[0; 12], &[1, body.len() as u8], body].concat();
        [page(0, b"OpusHead\x01\x01\x38\x01\x80\xbb\0\0\0\0\0"), page(48_000 * 3 + 312, b"audio")].concat()
    }

    fn wave() -> Vec<u8> {
        let fmt = [&b"fmt \x10\0\0\0\x01\0\x01\0"[..], &8_000_u32.to_le_bytes(), &16_000_u32.to_le_bytes(), &[2, 0, 16, 0]].concat();
        [&b"RIFF\0\0\0\0WAVE"[..], b"LIST\x03\0\0\0abc\0", &fmt, b"data", &24_000_u32.to_le_bytes(), &[0; 24_000]].concat()
    }

    fn mp3(tag: &[u8]) -> Vec<u8> {
        // MPEG-1 layer III, 128 kbit/s, 44,100 Hz, stereo.
        let mut bytes = [&b"ID3\x04\0\0\0\0\0\x05abcde"[..], &[0xff, 0xfb, 0x90, 0], &[0; 32], tag].concat();
        bytes.resize(15 + 32_000, 0);
        bytes
    }

    #[test]
    fn containers_say_how_long_and_how_large() {
        let check = |content_type: &str, bytes: &[u8], duration_ms: u64, size: Option<(u32, u32)>| {
            assert_eq!(found(content_type, bytes), Found { duration_ms: Some(duration_ms), size }, "{content_type}");
        };
        check("video/mp4", &mp4(), 2_500, Some((1_280, 720)));
        check("video/webm", &webm(), 2_500, Some((640, 360)));
        check("audio/ogg", &opus(), 3_000, None);
        check("audio/wav", &wave(), 1_500, None);
        check("audio/mpeg", &mp3(b""), 2_000, None);
        check("audio/mpeg", &mp3(b"Xing\0\0\0\x01\0\0\0\x64"), 100 * 1_152 * 1_000 / 44_100, None);
    }

    /// Whatever is cut off or turned over, nothing panics, and nothing is read without end.
    #[test]
    fn what_is_not_well_formed_says_nothing() {
        for (content_type, bytes) in
            [("video/mp4", mp4()), ("video/webm", webm()), ("audio/ogg", opus()), ("audio/wav", wave()), ("audio/mpeg", mp3(b"Info"))]
        {
            for length in (0..bytes.len().min(300)).chain([bytes.len() - 1]) {
                found(content_type, &bytes[..length]);
            }
            for at in 0..bytes.len().min(400) {
                for with in [0, 1, 0x7f, 0xff] {
                    let mut other = bytes.clone();
                    other[at] = with;
                    found(content_type, &other);
                }
            }
        }
        assert_eq!(found("video/mp4", &boxed(b"free", b"").repeat(100_000)), Found::default(), "too many boxes");
    }
}
