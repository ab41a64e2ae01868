//! Images without what was recorded about them: where, when and with what they were taken, previews, comments, and whatever stands behind their end
//! (which in a polyglot is another file). The pictures themselves are not touched: no pixel is decoded. Pure.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Jpeg,
    Png,
    Webp,
}

impl Format {
    pub fn of(content_type: &str) -> Option<Self> {
        match content_type {
            "image/jpeg" => Some(Format::Jpeg),
            "image/png" => Some(Format::Png),
            "image/webp" => Some(Format::Webp),
            _ => None,
        }
    }

    /// Width and height in pixels, as the header claims them.
    pub fn dimensions(self, bytes: &[u8]) -> Option<(u32, u32)> {
        match self {
            Format::Jpeg => segments(bytes)?.0.iter().find(|segment| is_frame(segment.marker)).and_then(|segment| {
                let height = u16::from_be_bytes(*segment.body.get(1..3)?.first_chunk()?);
                let width = u16::from_be_bytes(*segment.body.get(3..5)?.first_chunk()?);
                Some((width.into(), height.into()))
            }),
            Format::Png => {
                let header = bytes.get(8..)?;
                (header.get(4..8)? == b"IHDR").then_some(())?;
                Some((be_u32(header, 8)?, be_u32(header, 12)?))
            }
            Format::Webp => webp_dimensions(bytes),
        }
    }

    /// Whether it is shown turned by a quarter, so that its width is the stored height (EXIF 2.32, the tag Orientation: 5 to 8).
    pub fn lies_on_its_side(self, bytes: &[u8]) -> bool {
        let turned = match self {
            Format::Jpeg => segments(bytes).and_then(|(segments, _)| {
                let mut recorded =
                    segments.iter().filter(|segment| segment.marker == 0xe1).filter_map(|segment| segment.body.strip_prefix(b"Exif\0\0"));
                recorded.next().and_then(orientation)
            }),
            // Of these no orientation is kept.
            Format::Png | Format::Webp => None,
        };
        turned.is_some_and(|turned| turned >= 5)
    }

    /// What a decoder keeps of the picture until its last scan has come, beside the pixels, in bytes: two for each coefficient of a JPEG that comes in
    /// several scans, by what its frame claims.
    pub fn coefficient_bytes(self, bytes: &[u8]) -> Option<u64> {
        if self != Format::Jpeg {
            return Some(0);
        }
        let (width, height) = self.dimensions(bytes)?;
        let (segments, scans) = segments(bytes)?;
        let frame = segments.iter().find(|segment| is_frame(segment.marker))?;
        let components = u64::from(*frame.body.get(5)?);
        let is_in_one_scan = frame.marker != 0xc2 && u64::from(*scans.get(4)?) >= components;
        Some(if is_in_one_scan { 0 } else { 2 * components * u64::from(width) * u64::from(height) })
    }

    /// None where it is not well formed.
    pub fn strip(self, bytes: &[u8]) -> Option<Vec<u8>> {
        match self {
            Format::Jpeg => strip_jpeg(bytes),
            Format::Png => strip_png(bytes),
            Format::Webp => strip_webp(bytes),
        }
    }
}

fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn le_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

// --- JPEG (ITU-T T.81 annex B) -----------------------------------------------------------------------------------------------------

struct Segment<'a> {
    marker: u8,
    body: &'a [u8],
}

/// The segments up to the first scan, and what begins with that scan.
fn segments(bytes: &[u8]) -> Option<(Vec<Segment<'_>>, &[u8])> {
    let mut rest = bytes.strip_prefix(b"\xff\xd8")?;
    let mut segments = Vec::new();
    loop {
        let (marker, length) = (*rest.get(1)?, usize::from(u16::from_be_bytes(*rest.get(2..4)?.first_chunk()?)));
        if rest[0] != 0xff || length < 2 {
            return None;
        }
        if marker == 0xda {
            return Some((segments, rest));
        }
        segments.push(Segment { marker, body: rest.get(4..2 + length)? });
        rest = rest.get(2 + length..)?;
    }
}

/// Start of frame.
fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc)
}

fn strip_jpeg(bytes: &[u8]) -> Option<Vec<u8>> {
    let (segments, scans) = segments(bytes)?;
    let mut clean = b"\xff\xd8".to_vec();
    let mut put = |marker: u8, body: &[u8]| {
        clean.extend_from_slice(&[0xff, marker]);
        clean.extend_from_slice(&((body.len() + 2) as u16).to_be_bytes());
        clean.extend_from_slice(body);
    };
    for segment in &segments {
        match segment.marker {
            // Of EXIF the orientation stays: without it the picture lies on its side.
            0xe1 => {
                if let Some(turned) = segment.body.strip_prefix(b"Exif\0\0").and_then(orientation) {
                    put(0xe1, &exif_of(turned));
                }
            }
            // Colours: the profile, and how Adobe says what they are.
            0xe2 if segment.body.starts_with(b"ICC_PROFILE\0") => put(0xe2, segment.body),
            0xee if segment.body.starts_with(b"Adobe") => put(0xee, segment.body),
            0xe0 if segment.body.starts_with(b"JFIF\0") => put(0xe0, segment.body),
            0xe0..=0xef | 0xfe => {}
            marker => put(marker, segment.body),
        }
    }
    clean.extend_from_slice(scans.get(..end_of_scans(scans)?)?);
    Some(clean)
}

/// After the end-of-image marker; segments between scans are kept, they are tables. Comments and application data there are refused.
fn end_of_scans(scans: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let marker = *scans.get(at + 1)?;
        if scans[at] != 0xff {
            return None;
        }
        match marker {
            0xd9 => return Some(at + 2),
            0xe0..=0xef | 0xfe => return None,
            _ => {}
        }
        let length = usize::from(u16::from_be_bytes(*scans.get(at + 2..at + 4)?.first_chunk()?));
        if length < 2 {
            return None;
        }
        at += 2 + length;
        if marker == 0xda {
            // The coded data: 0xff is followed by 0 or by a restart marker.
            while *scans.get(at)? != 0xff || matches!(*scans.get(at + 1)?, 0 | 0xd0..=0xd7 | 0xff) {
                at += 1;
            }
        }
    }
}

/// 1 to 8, of the first directory of a TIFF (EXIF 2.32 section 4.6).
fn orientation(tiff: &[u8]) -> Option<u8> {
    let is_little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let u16_at = |at: usize| {
        let pair: &[u8; 2] = tiff.get(at..)?.first_chunk()?;
        Some(if is_little { u16::from_le_bytes(*pair) } else { u16::from_be_bytes(*pair) })
    };
    let directory = if is_little { le_u32(tiff, 4)? } else { be_u32(tiff, 4)? } as usize;
    (0..usize::from(u16_at(directory)?))
        .find_map(|entry| {
            let at = directory.checked_add(2 + 12 * entry)?;
            (u16_at(at)? == 0x0112).then(|| u16_at(at + 8))?
        })
        .and_then(|turned| u8::try_from(turned).ok())
        .filter(|turned| (2..=8).contains(turned))
}

fn exif_of(turned: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend_from_slice(&[turned, 0, 0, 0, 0, 0, 0]);
    exif
}

// --- PNG (W3C, third edition) ------------------------------------------------------------------------------------------------------

/// What says how the picture looks; no text, no time, no EXIF, nothing that others made up.
const PNG_KEPT: [&[u8; 4]; 16] = [
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"cICP", b"bKGD", b"pHYs", b"acTL", b"fcTL",
    b"fdAT",
];

fn strip_png(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = bytes.get(8..)?;
    let mut clean = bytes[..8].to_vec();
    let mut has_picture = false;
    loop {
        let length = be_u32(rest, 0)? as usize;
        let (kind, chunk) = (rest.get(4..8)?, rest.get(..length.checked_add(12)?)?);
        if PNG_KEPT.iter().any(|kept| *kept == kind) {
            clean.extend_from_slice(chunk);
        } else if kind[0].is_ascii_uppercase() {
            // A critical chunk that nobody knows.
            return None;
        }
        has_picture |= kind == b"IDAT";
        if kind == b"IEND" {
            return has_picture.then_some(clean);
        }
        rest = &rest[chunk.len()..];
    }
}

/// A PNG for a decoder that makes nothing of the colours' profile, which is compressed and may be a bomb of its own.
pub fn without_profile(mut png: Vec<u8>) -> Vec<u8> {
    let mut at = 8;
    while let (Some(length), Some(kind)) = (be_u32(&png, at), png.get(at + 4..at + 8)) {
        let Some(end) = at.checked_add(length as usize).and_then(|end| end.checked_add(12)).filter(|end| *end <= png.len()) else { break };
        match kind {
            b"iCCP" => drop(png.drain(at..end)),
            b"IDAT" => break,
            _ => at = end,
        }
    }
    png
}

// --- WebP (RFC 9649) ----------------------------------------------------------------------------------------------------------------

const WEBP_KEPT: [&[u8; 4]; 7] = [b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"];
/// Of VP8X's flags: that EXIF and XMP follow.
const WEBP_RECORDED: u8 = 0x08 | 0x04;

/// The chunks within the file's own length.
fn webp_chunks(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let length = le_u32(bytes, 4)? as usize;
    let mut rest = bytes.get(12..length.checked_add(8)?)?;
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let size = le_u32(rest, 4)? as usize;
        chunks.push((rest.get(..4)?, rest.get(8..size.checked_add(8)?)?));
        rest = rest.get(8 + size + size % 2..).unwrap_or_default();
    }
    Some(chunks)
}

fn strip_webp(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut clean = b"RIFF\0\0\0\0WEBP".to_vec();
    for (kind, body) in webp_chunks(bytes)?.into_iter().filter(|(kind, _)| WEBP_KEPT.iter().any(|kept| *kept == *kind)) {
        clean.extend_from_slice(kind);
        clean.extend_from_slice(&(body.len() as u32).to_le_bytes());
        let begin = clean.len();
        clean.extend_from_slice(body);
        if kind == b"VP8X" {
            *clean.get_mut(begin)? &= !WEBP_RECORDED;
        }
        if body.len() % 2 == 1 {
            clean.push(0);
        }
    }
    let length = u32::try_from(clean.len() - 8).ok()?;
    clean[4..8].copy_from_slice(&length.to_le_bytes());
    Some(clean)
}

fn webp_dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    let chunks = webp_chunks(bytes)?;
    let (kind, body) = chunks.first()?;
    let u24 = |at: usize| Some(u32::from_le_bytes([*body.get(at)?, *body.get(at + 1)?, *body.get(at + 2)?, 0]));
    match *kind {
        b"VP8X" => Some((u24(4)? + 1, u24(7)? + 1)),
        b"VP8L" => {
            let packed = le_u32(body, 1)?;
            (*body.first()? == 0x2f).then_some(((packed & 0x3fff) + 1, ((packed >> 14) & 0x3fff) + 1))
        }
        b"VP8 " => {
            (body.get(3..6)? == b"\x9d\x01\x2a").then_some(())?;
            let side = |at: usize| Some(u32::from(u16::from_le_bytes(*body.get(at..)?.first_chunk()?)) & 0x3fff);
            Some((side(6)?, side(8)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"52.5200N 13.4050E";

    fn holds(bytes: &[u8], what: &[u8]) -> bool {
        bytes.windows(what.len()).any(|window| window == what)
    }

    fn segment(marker: u8, body: &[u8]) -> Vec<u8> {
        [&[0xff, marker], &((body.len() + 2) as u16).to_be_bytes()[..], body].concat()
    }

    fn jpeg(before_frame: &[u8], after_end: &[u8]) -> Vec<u8> {
        let frame = segment(0xc0, &[8, 0, 3, 0, 5, 1, 1, 0x11, 0]);
        let scan = [&segment(0xda, &[1, 1, 0, 0, 63, 0])[..], &[1, 2, 0xff, 0, 3, 0xff, 0xd0, 4, 0xff, 0xd9]].concat();
        [b"\xff\xd8", before_frame, &frame, &scan, after_end].concat()
    }

    fn chunk(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32).to_be_bytes(), &kind[..], body, &[0; 4]].concat()
    }

    fn png(width: u32, more: &[u8]) -> Vec<u8> {
        let header = chunk(b"IHDR", &[&width.to_be_bytes()[..], &width.to_be_bytes(), &[8, 2, 0, 0, 0]].concat());
        [b"\x89PNG\r\n\x1a\n", &header[..], more, &chunk(b"IDAT", b"x"), &chunk(b"IEND", b"")].concat()
    }

    fn webp(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let mut body = b"WEBP".to_vec();
        for (kind, bytes) in chunks {
            body.extend_from_slice(&[&kind[..], &(bytes.len() as u32).to_le_bytes(), bytes].concat());
            body.resize(body.len() + bytes.len() % 2, 0);
        }
        [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat()
    }

    #[test]
    fn a_picture_that_is_shown_turned_by_a_quarter_is_known() {
        for turned in 0..=9 {
            let picture = jpeg(&segment(0xe1, &exif_of(turned)), b"");
            let clean = Format::Jpeg.strip(&picture).unwrap();
            assert_eq!(Format::Jpeg.lies_on_its_side(&clean), (5..=8).contains(&turned), "{turned}");
            assert_eq!(Format::Jpeg.dimensions(&clean), Some((5, 3)), "as it is stored");
        }
        assert!(!Format::Jpeg.lies_on_its_side(&jpeg(b"", b"")));
        let webp = webp(&[(b"VP8X", &[8, 0, 0, 0, 1, 0, 0, 1, 0, 0]), (b"EXIF", &exif_of(6)[6..])]);
        assert!(!Format::Webp.lies_on_its_side(&Format::Webp.strip(&webp).unwrap()), "nothing of it is left");
    }

    #[test]
    fn a_profile_is_taken_out_of_a_png_wherever_it_stands_before_the_picture() {
        let chunk = |kind: &[u8; 4], body: &[u8]| [&(body.len() as u32).to_be_bytes(), &kind[..], body, b"sum."].concat();
        let of = |chunks: &[Vec<u8>]| [b"\x89PNG\r\n\x1a\n".to_vec(), chunks.concat()].concat();
        let (header, profile, data) = (chunk(b"IHDR", b"13"), chunk(b"iCCP", b"name"), chunk(b"IDAT", b"iCCP"));
        let plain = of(&[header.clone(), data.clone()]);
        assert_eq!(without_profile(of(&[profile.clone(), header.clone(), profile, data])), plain);
        assert_eq!(without_profile(plain.clone()), plain);
        for length in 0..plain.len() {
            assert_eq!(without_profile(plain[..length].to_vec()), plain[..length]);
        }
        let endless = of(&[[&u32::MAX.to_be_bytes()[..], b"iCCP"].concat()]);
        assert_eq!(without_profile(endless.clone()), endless);
    }

    #[test]
    fn a_jpeg_keeps_its_picture_and_its_orientation_alone() {
        let exif = [b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0", SECRET].concat();
        let recorded = [segment(0xe1, &exif), segment(0xe1, SECRET), segment(0xfe, SECRET), segment(0xed, SECRET)].concat();
        let image = jpeg(&recorded, &[b"PK\x03\x04", SECRET].concat());
        assert_eq!(Format::Jpeg.dimensions(&image), Some((5, 3)));
        let clean = Format::Jpeg.strip(&image).unwrap();
        assert!(!holds(&clean, SECRET) && !holds(&clean, b"PK"));
        assert_eq!(clean, jpeg(&segment(0xe1, &exif_of(6)), b""));
        assert_eq!(orientation(&exif_of(6)[6..]), Some(6));
        assert_eq!(Format::Jpeg.strip(&clean), Some(clean.clone()), "again: the same");
    }

    #[test]
    fn a_png_keeps_its_picture_alone() {
        let recorded = [chunk(b"tEXt", SECRET), chunk(b"eXIf", SECRET), chunk(b"zzZz", SECRET), chunk(b"gAMA", b"1234")].concat();
        let image = [png(7, &recorded), SECRET.to_vec()].concat();
        assert_eq!(Format::Png.dimensions(&image), Some((7, 7)));
        assert_eq!(Format::Png.strip(&image), Some(png(7, &chunk(b"gAMA", b"1234"))));
    }

    #[test]
    fn a_webp_keeps_its_picture_alone() {
        let image = webp(&[(b"VP8X", &[0x1c, 0, 0, 0, 9, 0, 0, 4, 0, 0]), (b"VP8 ", b"abc"), (b"EXIF", SECRET), (b"XMP ", SECRET)]);
        assert_eq!(Format::Webp.dimensions(&image), Some((10, 5)));
        let clean = Format::Webp.strip(&[image, SECRET.to_vec()].concat()).unwrap();
        assert_eq!(clean, webp(&[(b"VP8X", &[0x10, 0, 0, 0, 9, 0, 0, 4, 0, 0]), (b"VP8 ", b"abc")]));
    }

    #[test]
    fn what_is_cut_off_anywhere_is_not_well_formed() {
        let images = [
            (Format::Jpeg, jpeg(&segment(0xe0, b"JFIF\0"), b"")),
            (Format::Png, png(7, b"")),
            (Format::Webp, webp(&[(b"VP8X", &[0, 0, 0, 0, 9, 0, 0, 4, 0, 0])])),
        ];
        for (format, image) in images {
            assert!(format.strip(&image).is_some(), "{format:?}");
            for length in 0..image.len() {
                assert_eq!(format.strip(&image[..length]), None, "{format:?} of {length} bytes");
                let _ = format.dimensions(&image[..length]);
            }
        }
        assert_eq!(Format::Png.strip(&png(7, &chunk(b"EVIL", b""))), None);
    }

    #[test]
    fn a_bomb_says_so_in_its_header() {
        assert_eq!(Format::Png.dimensions(&png(16_384, b"")), Some((16_384, 16_384)));
    }
}
