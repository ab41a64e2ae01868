//! Values in rows of `COPY … (FORMAT binary)`: each with its length before it, -1 for NULL.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value as Json;
use uuid::Uuid;

use super::{encode, oid};
use crate::sql::Value;

/// Arrays, for the host's own tables; their values are given as JSON texts.
const INT8_ARRAY: u32 = 1016;
const UUID_ARRAY: u32 = 2951;

/// Errors: why it is no value of the type.
pub fn write(value: &Value, wanted: u32, out: &mut Vec<u8>) -> Result<(), String> {
    if *value == Value::Null {
        out.extend((-1_i32).to_be_bytes());
        return Ok(());
    }
    let begins = out.len();
    out.extend([0; 4]);
    match wanted {
        INT8_ARRAY => write_array(value, oid::INT8, |item| Some(item.as_i64()?.to_be_bytes().to_vec()), out)?,
        UUID_ARRAY => write_array(value, oid::UUID, |item| Some(item.as_str()?.parse::<Uuid>().ok()?.as_bytes().to_vec()), out)?,
        _ => drop(encode(value, wanted, out).map_err(|error| error.to_string())?),
    }
    let length = i32::try_from(out.len() - begins - 4).map_err(|_| "it is too long".to_owned())?;
    out[begins..begins + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// `array_recv`: dimensions, whether there are NULLs, the items' type; the count and the first index of the one dimension; the items.
fn write_array(list: &Value, of: u32, item: impl Fn(&Json) -> Option<Vec<u8>>, out: &mut Vec<u8>) -> Result<(), String> {
    let Value::Text(text) = list else { return Err("it is no list".to_owned()) };
    let items: Vec<Json> = serde_json::from_str(text).map_err(|error| format!("it is no list: {error}"))?;
    out.extend(i32::from(!items.is_empty()).to_be_bytes());
    out.extend(0_i32.to_be_bytes());
    out.extend(of.to_be_bytes());
    if !items.is_empty() {
        out.extend((items.len() as i32).to_be_bytes());
        out.extend(1_i32.to_be_bytes());
    }
    for one in &items {
        let bytes = item(one).ok_or_else(|| format!("its item {one} has another type"))?;
        out.extend((bytes.len() as i32).to_be_bytes());
        out.extend(bytes);
    }
    Ok(())
}

/// The same for all ways in which one value may be written.
pub fn canonical(value: &[u8], of: u32) -> Cow<'_, [u8]> {
    match of {
        // Without its version. PostgreSQL orders names by their length, and drops duplicates and spaces.
        oid::JSONB => match serde_json::from_slice::<Json>(&value[1.min(value.len())..]) {
            Ok(json) => sorted(json).to_string().into_bytes().into(),
            Err(_) => value.into(),
        },
        // How many digits are shown after the point is the column's.
        oid::NUMERIC if value.len() >= 8 => [&value[..6], &value[8..]].concat().into(),
        _ => value.into(),
    }
}

fn sorted(json: Json) -> Json {
    match json {
        Json::Object(members) => {
            let members: BTreeMap<String, Json> = members.into_iter().map(|(name, value)| (name, sorted(value))).collect();
            Json::Object(members.into_iter().collect())
        }
        Json::Array(items) => Json::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// How many bytes the row takes that begins here; none where it is not whole yet, or the end of the rows.
pub fn row_length(bytes: &[u8]) -> Option<usize> {
    let (count, _) = bytes.split_first_chunk::<2>()?;
    let mut length = 2;
    for _ in 0..usize::try_from(i16::from_be_bytes(*count)).ok()? {
        let (size, _) = bytes.get(length..)?.split_first_chunk::<4>()?;
        length += 4 + usize::try_from(i32::from_be_bytes(*size)).unwrap_or(0);
    }
    (length <= bytes.len()).then_some(length)
}
