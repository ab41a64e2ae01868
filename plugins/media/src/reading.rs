//! Who may have a file, and what they are told of it.

use echo_sdk::{Error, caller, config};

use crate::bindings::echo::message::api as message;
use crate::bindings::exports::echo::media::api::{Content, ContentRequest, Kind, Media, State, Usage};
use crate::bounds::QUOTA_BYTES;
use crate::store::{self, Row};
use crate::{signed, sniff, uploads};

pub fn get(id: &str) -> Result<Media, Error> {
    let row = readable(id)?;
    // All of it had come, and what came after was lost.
    Ok(view(if row.blob.is_none() { uploads::finished_if_whole(row)? } else { row }))
}

/// The caller's own, else 404.
pub fn own(id: &str) -> Result<Row, Error> {
    let me = caller()?.user_id;
    store::media(id)?.filter(|row| row.owner_id == me).ok_or_else(no_media)
}

/// The caller's own, or of a message that the caller sees; else 404. Asked each time: who has left, or was removed, has it no more.
fn readable(id: &str) -> Result<Row, Error> {
    let me = caller()?.user_id;
    let row = store::media(id)?.ok_or_else(no_media)?;
    if row.owner_id == me {
        return Ok(row);
    }
    let is_seen = row.blob.is_some() && message::media_use(&message::MediaUseRequest { media_id: id.to_owned() })?.visible;
    if is_seen { Ok(row) } else { Err(no_media()) }
}

/// This person's, and whole; else 404.
pub fn whole_of(id: &str, owner_id: &str) -> Result<Media, Error> {
    let row = store::media(id)?.filter(|row| row.owner_id == owner_id).ok_or_else(no_media)?;
    let row = if row.blob.is_none() { uploads::finished_if_whole(row)? } else { row };
    if row.blob.is_some() { Ok(view(row)) } else { Err(no_media()) }
}

/// Also for whoever has an address that is good for so many seconds more.
pub fn readable_or_signed(id: &str, expires: Option<u64>, signature: Option<&str>) -> Result<(Row, Option<u64>), Error> {
    let left = signed::seconds_left(id, expires, signature);
    let row = match left {
        Some(_) => store::media(id)?.ok_or_else(no_media)?,
        None => readable(id)?,
    };
    Ok((row, left))
}

pub fn content(request: &ContentRequest) -> Result<Content, Error> {
    let (row, left) = readable_or_signed(&request.id, request.expires, request.signature.as_deref())?;
    let blob = row.blob.ok_or_else(no_media)?;
    let is_inline = sniff::is_inline(&row.content_type);
    Ok(Content { blob, content_type: row.content_type, file_name: row.file_name, is_inline, public_max_age_s: left })
}

pub fn usage() -> Result<Usage, Error> {
    let (files, used) = store::usage_of(&echo_sdk::sql::Database, &caller()?.user_id)?;
    Ok(Usage { used, quota: quota(), files })
}

pub fn quota() -> u64 {
    config::number("quota_bytes", QUOTA_BYTES)
}

pub fn view(row: Row) -> Media {
    let is_ready = row.blob.is_some();
    Media {
        content_url: is_ready.then(|| signed::address(&row.id)),
        upload_length: (!is_ready).then_some(row.size),
        uploaded: is_ready.then_some(row.uploaded.unwrap_or(row.size)),
        state: if is_ready { State::Ready } else { State::Uploading },
        kind: match row.kind.as_str() {
            "image" => Kind::Image,
            "video" => Kind::Video,
            "audio" => Kind::Audio,
            _ => Kind::Document,
        },
        id: row.id,
        owner_id: row.owner_id,
        content_type: row.content_type,
        file_name: row.file_name,
        size: row.size,
        width: row.width,
        height: row.height,
        duration_ms: row.duration_ms,
        created_at: row.created_at,
    }
}

pub fn no_media() -> Error {
    Error::not_found("there is no such file")
}
