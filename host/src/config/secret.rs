//! Settings that are never shown, and those that are made once and kept in the data folder where none is configured.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use echo_base::private_file;

use super::{Config, ConfigError, Mode};

/// A value that is never shown: `env:NAME` or `file:PATH` in the settings.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// None where nothing was configured.
    pub fn text(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|text| !text.is_empty())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "unset" } else { "…" })
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl Config {
    /// For Web Push in development mode, where no key is configured and one host has the data: made once and kept in the data folder, as PEM. Whoever
    /// tries Echo out can have pushes in their browser then.
    pub fn dev_vapid_key(&self, make: impl FnOnce() -> String) -> Result<Option<String>, ConfigError> {
        if self.mode != Mode::Dev || self.http.vapid_key.text().is_some() || self.master_key()?.is_some() {
            return Ok(None);
        }
        self.kept_as(&Secret::default(), "vapid.key", make).map(Some)
    }

    /// The key of fingerprints. See `shared_secret`.
    pub fn fingerprint_key(&self) -> Result<[u8; 32], ConfigError> {
        self.shared_secret(&self.passwords.fingerprint_key, "fingerprint.key", "fingerprints")
    }

    /// The key that cursors are sealed with. See `shared_secret`.
    pub fn cursor_key(&self) -> Result<[u8; 32], ConfigError> {
        self.shared_secret(&self.server.cursor_key, "cursor.key", "cursors")
    }

    /// The same on all hosts of a database and after a restart: the configured one, else derived from the master key, else (one host) made once and kept in
    /// the data folder.
    fn shared_secret(&self, configured: &Secret, file: &str, purpose: &str) -> Result<[u8; 32], ConfigError> {
        match self.master_key()? {
            Some(master_key) if configured.text().is_none() => Ok(master_key.derive(purpose)),
            _ => Ok(Sha256::digest(self.kept(configured, file)?.as_bytes()).into()),
        }
    }

    /// Which host this is among those that share a database: the configured name, else one made once and kept in the data folder.
    pub fn node_name(&self) -> Result<String, ConfigError> {
        if !self.node.name.is_empty() {
            return Ok(self.node.name.clone());
        }
        let text = self.kept(&Secret::default(), "node.name")?;
        Ok(format!("node-{}", &text[..text.len().min(12)]))
    }

    /// The operator's token: the configured one, else one made once and kept in the data folder.
    pub fn admin_token(&self) -> Result<String, ConfigError> {
        self.kept(&self.server.admin_token, "admin.token")
    }

    fn kept(&self, configured: &Secret, name: &str) -> Result<String, ConfigError> {
        self.kept_as(configured, name, || rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn kept_as(&self, configured: &Secret, name: &str, make: impl FnOnce() -> String) -> Result<String, ConfigError> {
        if let Some(text) = configured.text() {
            return Ok(text.to_owned());
        }
        let folder = self.data.dir.join("secrets");
        let path = folder.join(name);
        let failed = |error: std::io::Error| ConfigError(vec![format!("{}: {error}", path.display())]);
        match std::fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
            // Nothing there, or nothing in it.
            _ => {}
        }
        let made = make();
        private_file::create_folder(&folder).and_then(|()| private_file::write(&path, made.as_bytes())).map_err(failed)?;
        Ok(made)
    }
}
