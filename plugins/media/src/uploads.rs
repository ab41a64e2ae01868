//! Files that come: begun, whole, given up.

use echo_sdk::sql::{Database, transaction};
use echo_sdk::{Error, caller, config, exports, ids, time};

use crate::bindings::echo::blob::blob::{self, BlobError};
use crate::bindings::echo::message::api as message;
use crate::bindings::exports::echo::media::api::{AppendRequest, BeginRequest, Media, UploadRequest};
use crate::bounds::{EXPORTS_CLEARED_PER_RUN, HEAD_BYTES, IMAGE_BYTES_MAX, PIECE_BYTES, PIXELS_MAX, SIDE_MAX, SWEPT_PER_RUN, UPLOAD_TTL_S};
use crate::reading::{own, quota, view};
use crate::sniff::{self, Sniffed};
use crate::store::{self, Row};
use crate::{probe, strip, thumbnails};

/// What an upload is while nobody has looked.
const UNKNOWN: &str = "application/octet-stream";

pub fn whole(request: UploadRequest) -> Result<Media, Error> {
    if request.size == 0 {
        return Err(Error::invalid_field("file", "empty", "the file has no bytes"));
    }
    let row = admitted(request.upload, request.size, request.file_name)?;
    finish_or_forget(row).map(view)
}

pub fn begin(request: BeginRequest) -> Result<Media, Error> {
    admitted(ids::uuid_v7(), request.length, request.file_name).map(view)
}

pub fn append(request: &AppendRequest) -> Result<Media, Error> {
    let row = own(&request.id)?;
    match request.size {
        Some(size) if size == row.size && row.blob.is_none() => finish_or_forget(row).map(view),
        Some(_) if row.blob.is_some() => {
            // Late: of several at one offset one was taken, and the file is whole.
            blob::discard(&row.id).map_err(failed)?;
            Ok(view(row))
        }
        _ => Ok(view(row)),
    }
}

/// As it is by now, where all had come and the end of it was lost.
pub fn finished_if_whole(row: Row) -> Result<Row, Error> {
    match blob::upload_size(&row.id) {
        Ok(size) if size == row.size => finish_or_forget(row),
        _ => Ok(row),
    }
}

/// Written down within the caller's share.
fn admitted(id: String, size: u64, file_name: Option<String>) -> Result<Row, Error> {
    let row = Row {
        id,
        owner_id: caller()?.user_id,
        blob: None,
        content_type: UNKNOWN.to_owned(),
        kind: "document".to_owned(),
        file_name,
        size,
        uploaded: None,
        width: None,
        height: None,
        duration_ms: None,
        created_at: time::now_us(),
    };
    let quota = quota();
    transaction(|tx| {
        let (_, used) = store::usage_of(tx, &row.owner_id)?;
        if used.saturating_add(row.size) > quota {
            return Err(Error::too_large("quota_exceeded", format!("your files may have {quota} bytes together")));
        }
        Ok(store::insert(tx, &row)?)
    })?;
    Ok(row)
}

/// What the service declines is gone, with its row; what cannot be done now may be tried again.
fn finish_or_forget(row: Row) -> Result<Row, Error> {
    let id = row.id.clone();
    let finished = finish(row);
    if finished.as_ref().is_err_and(|error| error.kind != echo_sdk::ErrorKind::Unavailable) {
        remove(&id, None)?;
    }
    finished
}

fn finish(mut row: Row) -> Result<Row, Error> {
    let head = blob::read_upload(&row.id, 0, HEAD_BYTES).map_err(failed)?;
    let Sniffed { content_type, kind } = sniff::sniff(&head);
    content_type.clone_into(&mut row.content_type);
    kind.clone_into(&mut row.kind);
    row.uploaded = Some(row.size);
    let blob = match strip::Format::of(content_type) {
        Some(format) => {
            let (bytes, (width, height)) = cleaned(&row, format)?;
            (row.width, row.height) = (Some(width), Some(height));
            let clean = clean_name(&row.id);
            blob::discard(&clean).map_err(failed)?;
            for (at, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
                blob::append(&clean, (at * PIECE_BYTES) as u64, piece).map_err(failed)?;
            }
            let object = blob::finish(&clean).map_err(failed)?;
            row.size = object.size;
            object.key
        }
        None => {
            let found = probed(&row);
            (row.width, row.height) = found.size.unzip();
            row.duration_ms = found.duration_ms;
            blob::finish(&row.id).map_err(failed)?.key
        }
    };
    row.blob = Some(blob);
    if !store::set_ready(&row)? {
        // Deleted meanwhile.
        remove(&row.id, row.blob.as_deref())?;
        return Err(crate::reading::no_media());
    }
    if row.blob.as_deref() != Some(row.id.as_str()) {
        blob::discard(&row.id).map_err(failed)?;
    }
    Ok(row)
}

fn probed(row: &Row) -> probe::Found {
    let read = |offset, length| blob::read_upload(&row.id, offset, length).ok();
    probe::probe(&row.content_type, probe::Source::new(row.size, &read))
}

/// The image without what was recorded about it, and its size in pixels as it is shown. By its header, before anything of it is read.
fn cleaned(row: &Row, format: strip::Format) -> Result<(Vec<u8>, (u32, u32)), Error> {
    if row.size > IMAGE_BYTES_MAX {
        return Err(Error::invalid_field("file", "image_too_large", format!("an image has at most {IMAGE_BYTES_MAX} bytes")));
    }
    let mut bytes = Vec::with_capacity(row.size as usize);
    while (bytes.len() as u64) < row.size {
        let piece = blob::read_upload(&row.id, bytes.len() as u64, PIECE_BYTES as u32).map_err(failed)?;
        if piece.is_empty() {
            return Err(Error::unavailable("the upload is shorter than it was"));
        }
        bytes.extend_from_slice(&piece);
    }
    let unreadable = || Error::invalid_field("file", "unreadable_image", "the image is not well formed");
    let (width, height) = format.dimensions(&bytes).ok_or_else(unreadable)?;
    if width == 0 || height == 0 {
        return Err(unreadable());
    }
    if width > SIDE_MAX || height > SIDE_MAX || u64::from(width) * u64::from(height) > PIXELS_MAX {
        return Err(Error::invalid_field("file", "dimensions_too_large", too_many_pixels(width, height)));
    }
    let clean = format.strip(&bytes).ok_or_else(unreadable)?;
    // As it is seen, of which only what is kept decides.
    let shown = if format.lies_on_its_side(&clean) { (height, width) } else { (width, height) };
    Ok((clean, shown))
}

fn too_many_pixels(width: u32, height: u32) -> String {
    format!("{width} × {height} pixels: an image has at most {SIDE_MAX} on a side and {PIXELS_MAX} in all")
}

fn clean_name(id: &str) -> String {
    format!("{id}-clean")
}

/// Of the caller's own. Not one that a message has, sent or to be sent: the message would name a file that is not there.
pub fn delete(id: &str) -> Result<(), Error> {
    let row = own(id)?;
    // One that has not come whole is in no message.
    if row.blob.is_some() && message::media_use(&message::MediaUseRequest { media_id: row.id.clone() })?.used {
        return Err(Error::conflict("media_in_use", "a message has this file: it goes with the last of them"));
    }
    remove(&row.id, row.blob.as_deref())
}

/// The bytes first: a row without them is found again, bytes without a row are not.
pub fn remove(id: &str, blob: Option<&str>) -> Result<(), Error> {
    let clean = clean_name(id);
    if blob == Some(clean.as_str()) {
        for key in thumbnails::names(id) {
            blob::delete(&key).map_err(failed)?;
            blob::discard(&key).map_err(failed)?;
        }
    }
    for key in blob.into_iter().chain([id, &clean]) {
        blob::delete(key).map_err(failed)?;
        blob::discard(key).map_err(failed)?;
    }
    store::delete(id)?;
    Ok(())
}

pub fn sweep() -> Result<(), Error> {
    let before = time::now_us().saturating_sub(config::number("upload_ttl_s", UPLOAD_TTL_S) * 1_000_000);
    exports::close_expired(&Database, time::now_us(), EXPORTS_CLEARED_PER_RUN)?;
    for id in store::unfinished_since(&Database, before, SWEPT_PER_RUN)? {
        remove(&id, None)?;
    }
    Ok(())
}

pub fn failed(error: BlobError) -> Error {
    match error {
        BlobError::Unavailable => Error::unavailable("files cannot be stored or read now"),
        BlobError::Conflict => Error::unavailable("this file is being finished by another request"),
        BlobError::NotFound => Error::invalid_field("file", "empty", "the file has no bytes"),
        BlobError::TooLarge => Error::internal("more of a blob than the host lets pass"),
    }
}
