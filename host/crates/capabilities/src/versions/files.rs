//! Files of one host: `<folder>/<service>/<version>.wasm` and `<folder>/<service>/state.json`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use uuid::Uuid;

use super::{Kept, StoreError, VersionStore};
use echo_base::names::ServiceName;
use echo_base::private_file;

pub struct FileVersions {
    folder: PathBuf,
}

impl FileVersions {
    pub fn open(folder: &Path) -> io::Result<Self> {
        private_file::create_folder(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    fn of(&self, service: &ServiceName) -> PathBuf {
        self.folder.join(service.as_str())
    }

    fn packed(&self, service: &ServiceName, version: &str) -> PathBuf {
        self.of(service).join(format!("{version}.wasm"))
    }
}

#[async_trait]
impl VersionStore for FileVersions {
    async fn services(&self) -> Result<BTreeMap<ServiceName, i64>, StoreError> {
        let mut services = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            if let Ok(service) = ServiceName::parse(entry?.file_name().to_str().unwrap_or_default()) {
                // Nobody else changes them.
                services.insert(service, 0);
            }
        }
        Ok(services)
    }

    async fn read(&self, service: &ServiceName) -> Result<Kept, StoreError> {
        let folder = self.of(service);
        let mut kept = Kept { state: fs::read_to_string(folder.join("state.json")).ok(), ..Kept::default() };
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(kept),
            Err(error) => return Err(error.into()),
        };
        for entry in entries {
            let name = entry?.file_name();
            if let Some(version) = name.to_str().and_then(|name| name.strip_suffix(".wasm")) {
                kept.files.insert(version.to_owned(), None);
            }
        }
        Ok(kept)
    }

    async fn file(&self, service: &ServiceName, version: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match fs::read(self.packed(service, version)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn keep(&self, service: &ServiceName, version: &str, _: &str, file: &[u8]) -> Result<(), StoreError> {
        private_file::create_folder(&self.of(service))?;
        Ok(private_file::write(&self.packed(service, version), file)?)
    }

    async fn remove(&self, service: &ServiceName, version: &str) -> Result<(), StoreError> {
        Ok(fs::remove_file(self.packed(service, version))?)
    }

    async fn put_state(&self, service: &ServiceName, _: i64, state: &str, _: Option<Uuid>) -> Result<i64, StoreError> {
        private_file::create_folder(&self.of(service))?;
        private_file::write(&self.of(service).join("state.json"), state.as_bytes())?;
        Ok(0)
    }
}

impl From<io::Error> for StoreError {
    fn from(error: io::Error) -> Self {
        StoreError::Unavailable(error.to_string())
    }
}
