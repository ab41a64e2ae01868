//! The signing keys: one private file each, one of them active, the others accepted until their last token has ended.
//! Knows keys and times; nothing of claims.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::SigningKey;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::signed::{KeyPair, thumbprint};
use super::OpenError;
use echo_base::private_file;

/// Reads are one pointer load; whoever changes the keys takes `changing` first. Its methods that change files block.
pub struct Keys {
    folder: PathBuf,
    ring: ArcSwap<Ring>,
    changing: Mutex<()>,
}

#[derive(Clone)]
pub struct Ring {
    pub active: Arc<Key>,
    retired: Vec<Arc<Key>>,
}

pub struct Key {
    pub pair: Arc<KeyPair>,
    record: Record,
}

impl Keys {
    /// Reads the keys of the folder and makes the first one where there is none.
    pub fn open(folder: &Path, access_ttl_s: u64, now_us: u64) -> Result<Self, OpenError> {
        private_file::create_folder(folder).map_err(|source| OpenError::file(folder, source))?;
        let mut keys = read_folder(folder)?;
        keys.retain(|record| !drop_ended(folder, record, now_us));
        keys.sort_by_key(|record| (record.retired_at_us.is_none(), record.created_at_us));
        let mut active = match keys.pop_if(|record| record.retired_at_us.is_none()) {
            Some(record) => record,
            None => Record::generate(access_ttl_s, now_us),
        };
        active.access_ttl_s = active.access_ttl_s.max(access_ttl_s);
        active.write(folder)?;
        // Two without an end: the host died between writing the new key and retiring the old one.
        for record in keys.iter_mut().filter(|record| record.retired_at_us.is_none()) {
            record.retired_at_us = Some(now_us);
            record.write(folder)?;
        }
        let retired = keys.into_iter().map(|record| record.into_key(folder)).collect::<Result<_, _>>()?;
        let ring = Ring { active: active.into_key(folder)?, retired };
        Ok(Self { folder: folder.to_owned(), ring: ArcSwap::from_pointee(ring), changing: Mutex::new(()) })
    }

    pub fn ring(&self) -> arc_swap::Guard<Arc<Ring>> {
        self.ring.load()
    }

    /// A new active key; on the disk before it signs anything.
    pub fn rotate(&self, access_ttl_s: u64, now_us: u64) -> Result<(), OpenError> {
        let _changing = self.changing.lock();
        let old = self.ring.load_full();
        let new = Record::generate(access_ttl_s, now_us);
        new.write(&self.folder)?;
        let retiring = Record { retired_at_us: Some(now_us), ..old.active.record.clone() };
        retiring.write(&self.folder)?;
        let mut retired = old.retired.clone();
        retired.push(retiring.into_key(&self.folder)?);
        self.ring.store(Arc::new(Ring { active: new.into_key(&self.folder)?, retired }));
        Ok(())
    }

    /// Forgets retired keys whose last token has ended.
    pub fn drop_ended(&self, now_us: u64) {
        let _changing = self.changing.lock();
        let old = self.ring.load_full();
        let mut retired = old.retired.clone();
        retired.retain(|key| !drop_ended(&self.folder, &key.record, now_us));
        if retired.len() < old.retired.len() {
            self.ring.store(Arc::new(Ring { active: old.active.clone(), retired }));
        }
    }
}

impl Ring {
    pub fn find(&self, kid: &str) -> Option<&Arc<Key>> {
        self.all().find(|key| key.kid() == kid)
    }

    /// The longest life of any token that may be out.
    pub fn longest_ttl_s(&self) -> u64 {
        self.all().map(|key| key.record.access_ttl_s).max().unwrap_or_default()
    }

    /// RFC 7517, with the key type of RFC 8037.
    pub fn jwks(&self) -> Value {
        let keys: Vec<Value> = self.all().map(|key| key.pair.jwk()).collect();
        json!({ "keys": keys })
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Key>> {
        std::iter::once(&self.active).chain(&self.retired)
    }
}

impl Key {
    pub fn kid(&self) -> &str {
        &self.record.kid
    }

    pub fn created_at_us(&self) -> u64 {
        self.record.created_at_us
    }
}

/// A key's file: a private JWK (RFC 8037) with its times.
#[derive(Clone, Serialize, Deserialize)]
struct Record {
    kty: String,
    crv: String,
    kid: String,
    x: String,
    d: String,
    created_at_us: u64,
    retired_at_us: Option<u64>,
    /// The longest life of a token that it signed.
    access_ttl_s: u64,
}

impl Record {
    fn generate(access_ttl_s: u64, now_us: u64) -> Self {
        let key = SigningKey::from_bytes(&rand::random());
        let x = URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes());
        Self {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            kid: thumbprint(&x),
            x,
            d: URL_SAFE_NO_PAD.encode(key.as_bytes()),
            created_at_us: now_us,
            retired_at_us: None,
            access_ttl_s,
        }
    }

    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.json", self.kid))
    }

    fn write(&self, folder: &Path) -> Result<(), OpenError> {
        let path = self.path(folder);
        let text = serde_json::to_vec_pretty(self).expect("a record of strings and numbers");
        private_file::write(&path, &text).map_err(|source| OpenError::file(&path, source))
    }

    fn into_key(self, folder: &Path) -> Result<Arc<Key>, OpenError> {
        let bad = |reason: &str| OpenError::BadKey { path: self.path(folder), reason: reason.to_owned() };
        let seed = URL_SAFE_NO_PAD.decode(&self.d).ok().and_then(|seed| seed.try_into().ok());
        let key = SigningKey::from_bytes(&seed.ok_or_else(|| bad("d is not 32 bytes of base64url"))?);
        // The file's name must be the key's: else a token could be checked against another key than it names.
        if URL_SAFE_NO_PAD.encode(key.verifying_key().as_bytes()) != self.x || thumbprint(&self.x) != self.kid {
            return Err(bad("d, x and kid do not belong together"));
        }
        let pair = KeyPair::of_seed(key.as_bytes()).map_err(|reason| bad(&reason))?;
        Ok(Arc::new(Key { pair: Arc::new(pair), record: self }))
    }
}

/// For a move to another engine: the keys of a folder that no host uses, oldest first, each with its seed, when it was made and the longest life of its
/// tokens. None that has ended.
pub fn exported(folder: &Path, now_us: u64) -> Result<Vec<([u8; 32], u64, u64)>, OpenError> {
    let mut records = read_folder(folder)?;
    records.retain(|record| record.retired_at_us.is_none_or(|retired| now_us <= retired + record.access_ttl_s * 1_000_000));
    records.sort_by_key(|record| record.created_at_us);
    let bad = |record: &Record| OpenError::BadKey { path: record.path(folder), reason: "d is not 32 bytes of base64url".to_owned() };
    let seed = |record: &Record| URL_SAFE_NO_PAD.decode(&record.d).ok().and_then(|seed| seed.try_into().ok());
    records.iter().map(|record| Ok((seed(record).ok_or_else(|| bad(record))?, record.created_at_us, record.access_ttl_s))).collect()
}

fn read_folder(folder: &Path) -> Result<Vec<Record>, OpenError> {
    let entries = std::fs::read_dir(folder).map_err(|source| OpenError::file(folder, source))?;
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| OpenError::file(folder, source))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = std::fs::read(&path).map_err(|source| OpenError::file(&path, source))?;
        let record = serde_json::from_slice(&text).map_err(|error| OpenError::BadKey { path, reason: error.to_string() })?;
        records.push(record);
    }
    Ok(records)
}

/// Removes the file of a key that has nothing left to verify; whether it had.
fn drop_ended(folder: &Path, record: &Record, now_us: u64) -> bool {
    let ended = record.retired_at_us.is_some_and(|retired| now_us > retired + record.access_ttl_s * 1_000_000);
    if ended && let Err(error) = std::fs::remove_file(record.path(folder)) {
        tracing::warn!(kid = record.kid, %error, "the file of an ended key stays");
    }
    ended
}
