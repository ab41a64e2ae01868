//! Small pictures of pictures, decoded in the sandbox: what a file costs its decoder, this one call pays. Made when they are first asked for.

use std::io::Cursor;

use echo_sdk::time::SECOND_US;
use echo_sdk::{Error, time};
use image::codecs::jpeg::JpegEncoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::bindings::echo::blob::blob::{self, BlobError};
use crate::bindings::exports::echo::media::api::{Content, ThumbnailRequest};
use crate::bounds::{
    IMAGE_BYTES_MAX, PIECE_BYTES, PROGRESSIVE_ALLOC_BYTES_MAX, SIDE_MAX, THUMBNAIL_ALLOC_BYTES_MAX, THUMBNAIL_FORGOTTEN_S,
    THUMBNAIL_MAKING_S, THUMBNAIL_SIDES, THUMBNAIL_TRIES_MAX,
};
use crate::store::{self, Row};
use crate::{reading, strip, uploads};

const JPEG_QUALITY: u8 = 80;

pub fn open(request: &ThumbnailRequest) -> Result<Content, Error> {
    let (row, left) = reading::readable_or_signed(&request.id, request.expires, request.signature.as_deref())?;
    let side = side_for(request.size);
    let key = name(&row.id, side);
    let head = match blob::read(&key, 0, 1) {
        Err(BlobError::NotFound) => {
            make(&row, side, &key)?;
            blob::read(&key, 0, 1)
        }
        found => found,
    };
    let is_jpeg = head.map_err(uploads::failed)?.first() == Some(&0xff);
    let content_type = if is_jpeg { "image/jpeg" } else { "image/png" }.to_owned();
    Ok(Content { blob: key, content_type, file_name: None, is_inline: true, public_max_age_s: left })
}

/// The names of all that there may be of a file.
pub fn names(id: &str) -> impl Iterator<Item = String> {
    THUMBNAIL_SIDES.map(|side| name(id, side)).into_iter()
}

fn name(id: &str, side: u32) -> String {
    format!("{id}-{side}")
}

/// The least of the sides that there are which is as long, else the longest.
fn side_for(asked: Option<u32>) -> u32 {
    let [small, medium, large] = THUMBNAIL_SIDES;
    let asked = asked.unwrap_or(medium);
    [small, medium].into_iter().find(|side| *side >= asked).unwrap_or(large)
}

fn make(row: &Row, side: u32, key: &str) -> Result<(), Error> {
    let format = format_of(&row.content_type).ok_or_else(no_thumbnail)?;
    let (Some(blob), true) = (&row.blob, row.size <= IMAGE_BYTES_MAX) else { return Err(no_thumbnail()) };
    // Before it is read: where decoding it ends this call, the try is counted all the same.
    let now = time::now_us();
    if !store::take_thumbnail_try(&row.id, now, THUMBNAIL_TRIES_MAX, now.saturating_sub(THUMBNAIL_FORGOTTEN_S * SECOND_US))? {
        // Whoever made it in the meantime has forgotten the tries.
        let is_being_made = store::thumbnail_tried_at(&row.id)?.is_none_or(|at| at.saturating_add(THUMBNAIL_MAKING_S * SECOND_US) > now);
        return Err(if is_being_made { Error::unavailable("the thumbnail is being made") } else { no_thumbnail() });
    }
    let mut bytes = Vec::with_capacity(row.size as usize);
    while (bytes.len() as u64) < row.size {
        let piece = blob::read(blob, bytes.len() as u64, PIECE_BYTES as u32).map_err(uploads::failed)?;
        if piece.is_empty() {
            return Err(Error::unavailable("the file is shorter than it was"));
        }
        bytes.extend_from_slice(&piece);
    }
    if format == ImageFormat::Png {
        bytes = strip::without_profile(bytes);
    }
    let small = smaller(&bytes, format, side).ok_or_else(no_thumbnail)?;
    keep(key, &small)?;
    store::forget_thumbnail_tries(&row.id)?;
    // Whoever deleted the file meanwhile did not find this.
    if store::media(&row.id)?.is_none() {
        blob::delete(key).map_err(uploads::failed)?;
        return Err(reading::no_media());
    }
    Ok(())
}

/// Calls that made the same picture side by side keep it once.
fn keep(key: &str, small: &[u8]) -> Result<(), Error> {
    let kept = match blob::append(key, 0, small) {
        Ok(_) | Err(BlobError::Conflict) => blob::finish(key).map(|_| ()),
        Err(error) => Err(error),
    };
    match kept {
        // Another call finished what this one appended, or is at it.
        Err(BlobError::Conflict | BlobError::NotFound) => match blob::read(key, 0, 1) {
            Ok(_) => Ok(()),
            Err(BlobError::NotFound) => Err(Error::unavailable("the thumbnail is being made")),
            Err(error) => Err(uploads::failed(error)),
        },
        Err(error) => Err(uploads::failed(error)),
        Ok(()) => Ok(()),
    }
}

fn format_of(content_type: &str) -> Option<ImageFormat> {
    match content_type {
        "image/jpeg" => Some(ImageFormat::Jpeg),
        "image/png" => Some(ImageFormat::Png),
        "image/webp" => Some(ImageFormat::WebP),
        _ => None,
    }
}

/// With no side longer than this, upright; a JPEG, where nothing shines through. None where it cannot be read, or not in so little memory.
fn smaller(bytes: &[u8], format: ImageFormat, side: u32) -> Option<Vec<u8>> {
    let coefficient_bytes = match format {
        ImageFormat::Jpeg => strip::Format::Jpeg.coefficient_bytes(bytes)?,
        _ => 0,
    };
    let mut limits = Limits::default();
    limits.max_image_width = Some(SIDE_MAX);
    limits.max_image_height = Some(SIDE_MAX);
    limits.max_alloc = Some(THUMBNAIL_ALLOC_BYTES_MAX);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().ok()?;
    let pixel_bytes = decoder.total_bytes();
    if pixel_bytes > THUMBNAIL_ALLOC_BYTES_MAX || pixel_bytes + coefficient_bytes > PROGRESSIVE_ALLOC_BYTES_MAX {
        return None;
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let whole = DynamicImage::from_decoder(decoder).ok()?;
    let mut small = if whole.width() > side || whole.height() > side { whole.thumbnail(side, side) } else { whole };
    small.apply_orientation(orientation);
    let mut made = Vec::new();
    if small.color().has_alpha() {
        small.to_rgba8().write_to(&mut Cursor::new(&mut made), ImageFormat::Png).ok()?;
    } else {
        JpegEncoder::new_with_quality(&mut made, JPEG_QUALITY).encode_image(&small.to_rgb8()).ok()?;
    }
    (made.len() <= PIECE_BYTES).then_some(made)
}

fn no_thumbnail() -> Error {
    Error::invalid_field(
        "id",
        "no_thumbnail",
        "there is no thumbnail of this file: it is no picture, not well formed, or too large for one",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: u32, height: u32, format: ImageFormat, has_alpha: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        let image = if has_alpha { DynamicImage::new_rgba8(width, height) } else { DynamicImage::new_rgb8(width, height) };
        image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    }

    fn size_of(bytes: &[u8]) -> (u32, u32) {
        let image = image::load_from_memory(bytes).unwrap();
        (image.width(), image.height())
    }

    #[test]
    fn a_picture_becomes_as_small_as_asked_for_and_no_larger_than_it_is() {
        for (format, has_alpha) in
            [(ImageFormat::Png, true), (ImageFormat::Png, false), (ImageFormat::Jpeg, false), (ImageFormat::WebP, true)]
        {
            let small = smaller(&picture(640, 320, format, has_alpha), format, 128).unwrap();
            assert_eq!((size_of(&small), small[0] == 0xff), ((128, 64), !has_alpha), "{format:?}");
            assert_eq!(size_of(&smaller(&picture(40, 20, format, has_alpha), format, 128).unwrap()), (40, 20));
        }
    }

    #[test]
    fn a_picture_that_lies_on_its_side_stands_up() {
        let plain = picture(640, 320, ImageFormat::Jpeg, false);
        // EXIF with orientation 6: turned by 90 degrees.
        let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let length = ((exif.len() + 2) as u16).to_be_bytes();
        let turned = [&plain[..2], b"\xff\xe1", &length, exif, &plain[2..]].concat();
        assert_eq!(size_of(&smaller(&turned, ImageFormat::Jpeg, 128).unwrap()), (64, 128));
    }

    #[test]
    fn what_is_broken_or_claims_too_much_has_none() {
        let png = picture(640, 320, ImageFormat::Png, false);
        assert_eq!(smaller(&png[..60], ImageFormat::Png, 128), None);
        for side in [16_384_u32, 8_000] {
            let mut bomb = png.clone();
            bomb[16..20].copy_from_slice(&side.to_be_bytes());
            bomb[20..24].copy_from_slice(&side.to_be_bytes());
            assert_eq!(smaller(&bomb, ImageFormat::Png, 128), None);
        }
    }

    /// Its coefficients take more than its pixels: 6,000 by 4,000 in several scans are too many, in one they are not.
    #[test]
    fn a_progressive_picture_is_bounded_with_its_coefficients() {
        let claims = |marker: u8, width: u16, height: u16| {
            let mut jpeg = picture(64, 32, ImageFormat::Jpeg, false);
            let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
            jpeg[frame + 1] = marker;
            jpeg[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
            jpeg[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
            strip::Format::Jpeg.coefficient_bytes(&jpeg).unwrap()
        };
        assert_eq!(claims(0xc0, 6_000, 4_000), 0);
        let check = |width: u16, height: u16, fits: bool| {
            let pixel_bytes = u64::from(width) * u64::from(height) * 3;
            assert_eq!(pixel_bytes + claims(0xc2, width, height) <= PROGRESSIVE_ALLOC_BYTES_MAX, fits, "{width} × {height}");
        };
        check(4_000, 3_000, true);
        check(6_000, 4_000, false);
    }

    #[test]
    fn the_next_longer_side_is_taken() {
        let check = |asked, expect| assert_eq!(side_for(asked), expect, "{asked:?}");
        check(None, 320);
        check(Some(1), 128);
        check(Some(128), 128);
        check(Some(129), 320);
        check(Some(4_000), 640);
    }
}
