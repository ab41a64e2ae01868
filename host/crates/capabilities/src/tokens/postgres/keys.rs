//! The signing keys of all hosts: rows of a table, sealed by the master key (ChaCha20-Poly1305, RFC 8439). Each signs from its moment on until that of the next
//! one, and is accepted from when it was written until its last token has ended. Knows keys and times; nothing of claims.

use std::sync::Arc;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use serde_json::{Value as Json, json};

use super::super::MasterKey;
use super::super::signed::KeyPair;
use super::{MARGIN_US, OpenError, unreadable};
use crate::sql::postgres::pool::Pooled;
use crate::sql::{SqlError, Value};
use echo_base::limits;

pub struct Key {
    pub pair: Arc<KeyPair>,
    pub created_at_us: u64,
    signs_from_us: u64,
    /// The longest life of a token that it signs, on any host.
    access_ttl_s: u64,
}

/// Never without a key.
pub struct Ring {
    /// In the order in which they sign.
    keys: Vec<Key>,
}

impl Ring {
    pub fn find(&self, kid: &str) -> Option<Arc<KeyPair>> {
        self.keys.iter().find(|key| key.pair.kid == kid).map(|key| key.pair.clone())
    }

    pub fn signing(&self, now_us: u64) -> &Key {
        self.keys.iter().rev().find(|key| key.signs_from_us <= now_us).unwrap_or(&self.keys[0])
    }

    pub fn newest(&self) -> &Key {
        self.keys.iter().max_by_key(|key| key.created_at_us).expect("there is one")
    }

    pub fn longest_ttl_s(&self) -> u64 {
        self.keys.iter().map(|key| key.access_ttl_s).max().unwrap_or_default()
    }

    /// Keys whose last token has ended, on the host whose clock is furthest behind.
    pub fn ended(&self, now_us: u64) -> Vec<&str> {
        let pairs = self.keys.windows(2);
        let ended = pairs.filter(|pair| now_us > pair[1].signs_from_us + pair[0].access_ttl_s * 1_000_000 + MARGIN_US);
        ended.map(|pair| pair[0].pair.kid.as_str()).collect()
    }

    pub fn jwks(&self, now_us: u64) -> Json {
        let ended = self.ended(now_us);
        let keys: Vec<Json> = self.keys.iter().filter(|key| !ended.contains(&key.pair.kid.as_str())).map(|key| key.pair.jwk()).collect();
        json!({ "keys": keys })
    }
}

/// Seals the secret halves.
pub struct Sealer(LessSafeKey);

impl Sealer {
    pub fn new(master_key: &MasterKey) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &master_key.derive("signing keys of access tokens"));
        Self(LessSafeKey::new(key.expect("a key of this cipher has 32 bytes")))
    }

    /// The key's name is sealed along, so that no row can be given another's secret. A nonce that is chosen at random is never the same for so few keys.
    fn seal(&self, kid: &str, seed: &[u8; 32]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut sealed = seed.to_vec();
        let outcome = self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(kid), &mut sealed);
        outcome.expect("32 bytes are not too long for the cipher");
        [nonce.as_slice(), &sealed].concat()
    }

    /// None where another key has sealed it.
    fn open(&self, kid: &str, sealed: &[u8]) -> Option<[u8; 32]> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut rest = rest.to_vec();
        let seed = self.0.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(kid), &mut rest).ok()?;
        (&*seed).try_into().ok()
    }
}

/// At the start of a host, under the lock: the first host makes a key, which signs at once.
pub async fn read_or_make(connection: &mut Pooled, sealer: &Sealer, access_ttl_s: u64, now_us: u64) -> Result<Ring, OpenError> {
    if let Some(ring) = read_rows(connection, sealer).await? {
        return Ok(ring);
    }
    insert(connection, sealer, access_ttl_s, now_us, now_us).await?;
    read_rows(connection, sealer).await?.ok_or_else(|| unreadable().into())
}

/// All keys, those that sign now or will marked with how long the tokens of this host live, where others' live shorter.
pub async fn read_for(connection: &mut Pooled, sealer: &Sealer, access_ttl_s: u64, now_us: u64) -> Result<Ring, SqlError> {
    let mut ring = read(connection, sealer).await?;
    let from_us = ring.signing(now_us.saturating_sub(MARGIN_US)).signs_from_us;
    if ring.keys.iter().any(|key| key.signs_from_us >= from_us && key.access_ttl_s < access_ttl_s) {
        let longer = "UPDATE token_key SET access_ttl_s = $1 WHERE access_ttl_s < $1 AND signs_from_us >= $2";
        connection.rows(longer, vec![(access_ttl_s as i64).into(), (from_us as i64).into()]).await?;
        ring = read(connection, sealer).await?;
    }
    Ok(ring)
}

/// Under the lock: a new key, unless another host has made one since `known` was the newest.
pub async fn add(connection: &mut Pooled, sealer: &Sealer, known: &str, access_ttl_s: u64, now_us: u64) -> Result<Ring, SqlError> {
    let ring = read(connection, sealer).await?;
    if ring.newest().pair.kid != known {
        return Ok(ring);
    }
    let last = ring.keys.last().map_or(0, |key| key.signs_from_us);
    let signs_from_us = (now_us + limits::TOKEN_KEY_PUBLISHED_MS * 1_000).max(last + 1);
    // Later than the one before, whatever this host's clock says.
    let created_at_us = now_us.max(ring.newest().created_at_us + 1);
    insert(connection, sealer, access_ttl_s, created_at_us, signs_from_us).await?;
    read(connection, sealer).await
}

/// Errors: also where the master key does not open them, or there are none.
pub async fn read(connection: &mut Pooled, sealer: &Sealer) -> Result<Ring, SqlError> {
    match read_rows(connection, sealer).await {
        Ok(Some(ring)) => Ok(ring),
        Err(OpenError::Sql(error)) => Err(error),
        Ok(None) | Err(OpenError::WrongMasterKey) => Err(unreadable()),
    }
}

async fn read_rows(connection: &mut Pooled, sealer: &Sealer) -> Result<Option<Ring>, OpenError> {
    let all = "SELECT kid, sealed, created_at_us, signs_from_us, access_ttl_s FROM token_key ORDER BY signs_from_us, created_at_us";
    let mut keys = Vec::new();
    for row in connection.rows(all, vec![]).await? {
        let [Value::Text(kid), Value::Bytes(sealed), Value::S64(created_at_us), Value::S64(signs_from_us), Value::S64(access_ttl_s)] =
            row.as_slice()
        else {
            return Err(unreadable().into());
        };
        let seed = sealer.open(kid, sealed).ok_or(OpenError::WrongMasterKey)?;
        let pair = KeyPair::of_seed(&seed).ok().filter(|pair| pair.kid == *kid).ok_or_else(unreadable)?;
        keys.push(Key {
            pair: Arc::new(pair),
            created_at_us: *created_at_us as u64,
            signs_from_us: *signs_from_us as u64,
            access_ttl_s: *access_ttl_s as u64,
        });
    }
    Ok(Some(Ring { keys }).filter(|ring| !ring.keys.is_empty()))
}

async fn insert(
    connection: &mut Pooled,
    sealer: &Sealer,
    access_ttl_s: u64,
    created_at_us: u64,
    signs_from_us: u64,
) -> Result<(), SqlError> {
    put(connection, sealer, &rand::random(), access_ttl_s, created_at_us, signs_from_us).await
}

/// A key whose secret half is given.
pub async fn put(
    connection: &mut Pooled,
    sealer: &Sealer,
    seed: &[u8; 32],
    access_ttl_s: u64,
    created_at_us: u64,
    signs_from_us: u64,
) -> Result<(), SqlError> {
    let pair = KeyPair::of_seed(seed).map_err(|_| unreadable())?;
    let sealed = sealer.seal(&pair.kid, seed);
    let put = "INSERT INTO token_key (kid, sealed, created_at_us, signs_from_us, access_ttl_s) VALUES ($1, $2, $3, $4, $5)";
    let times = [created_at_us, signs_from_us, access_ttl_s].map(|number| Value::S64(number as i64));
    let values = [Value::Text(pair.kid), Value::Bytes(sealed)].into_iter().chain(times).collect();
    connection.rows(put, values).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_is_opened_by_its_master_key_under_its_name_alone() {
        let sealer = |text: &str| Sealer::new(&MasterKey::of_text(&text.repeat(32)).unwrap());
        let sealed = sealer("a").seal("kid", &[7; 32]);
        assert_eq!(sealer("a").open("kid", &sealed), Some([7; 32]));
        assert_eq!(sealer("b").open("kid", &sealed), None);
        assert_eq!(sealer("a").open("another", &sealed), None);
        assert_eq!(sealer("a").open("kid", &sealed[..20]), None);
        assert_eq!(sealer("a").open("kid", &[]), None);
        assert_ne!(sealer("a").seal("kid", &[7; 32]), sealed, "no two are the same");
    }
}
