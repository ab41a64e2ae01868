//! The one wasmtime engine: its settings, its epoch tick, and the compiled code kept on disk. Knows no services.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasmtime::component::Component;
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::long_calls;
use echo_base::limits;
use echo_base::private_file;

/// Cheap to clone. The ticking thread ends with the last clone.
#[derive(Clone)]
pub struct Engine {
    engine: wasmtime::Engine,
    code: Arc<CodeCache>,
    ticker: Arc<Ticker>,
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the runtime cannot start: {0}")]
    Start(String),
    #[error("the folder of compiled code {folder}: {source}")]
    Cache { folder: PathBuf, source: io::Error },
    #[error("it does not compile: {0}")]
    Compile(String),
}

impl Engine {
    /// Starts the engine; compiled code is kept in `code_folder`, which this host alone writes (mode 0700).
    pub fn start(code_folder: &Path) -> Result<Self, EngineError> {
        let engine = wasmtime::Engine::new(&config()).map_err(|error| EngineError::Start(format!("{error:#}")))?;
        let code = CodeCache::open(code_folder).map_err(|source| EngineError::Cache { folder: code_folder.to_owned(), source })?;
        let ticker = Ticker::start(engine.clone());
        Ok(Self { engine, code: Arc::new(code), ticker: Arc::new(ticker) })
    }

    pub fn wasmtime(&self) -> &wasmtime::Engine {
        &self.engine
    }

    /// How often the epoch was moved forward.
    pub fn ticks(&self) -> Arc<AtomicU64> {
        self.ticker.ticks.clone()
    }

    /// Compiled code for a component, from disk when this host compiled the same bytes with the same engine before. Takes up to a second
    /// of CPU: call it off the async threads.
    pub fn compile(&self, component: &[u8], sha256: &str) -> Result<Component, EngineError> {
        let name = format!("{sha256}-{}", self.fingerprint());
        if let Some(compiled) = self.code.read(&name) {
            // SAFETY: `read` gives back only bytes whose MAC under this host's own key is right, so this host serialised them.
            match unsafe { Component::deserialize(&self.engine, &compiled) } {
                Ok(component) => return Ok(component),
                Err(error) => tracing::warn!(%error, "compiled code on disk does not fit this engine and is compiled again"),
            }
        }
        let compiled = Component::new(&self.engine, component).map_err(|error| EngineError::Compile(format!("{error:#}")))?;
        match compiled.serialize() {
            Ok(bytes) => self.code.write(&name, &bytes),
            Err(error) => tracing::warn!(%error, "compiled code cannot be serialised; it is compiled again at the next start"),
        }
        Ok(compiled)
    }

    /// Removes the compiled code of a component that is no longer kept.
    pub fn forget_code(&self, sha256: &str) {
        self.code.remove_where(|name| name.split('-').next() == Some(sha256));
    }

    /// Removes the compiled code of all other components, and of these what another engine made.
    pub fn keep_code(&self, sha256s: &HashSet<String>) {
        let fingerprint = self.fingerprint();
        self.code
            .remove_where(|name| !name.split_once('-').is_some_and(|(sha256, made_by)| sha256s.contains(sha256) && made_by == fingerprint));
    }

    /// What compiled code depends on besides the component: wasmtime's version, its settings and this processor.
    fn fingerprint(&self) -> String {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

fn config() -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(limits::INSTANCES_MAX)
        .total_core_instances(limits::INSTANCES_MAX * limits::CORE_INSTANCES_PER_COMPONENT)
        .max_core_instances_per_component(limits::CORE_INSTANCES_PER_COMPONENT)
        .total_memories(limits::INSTANCES_MAX)
        .max_memories_per_component(1)
        .total_tables(limits::INSTANCES_MAX * limits::TABLES_PER_COMPONENT)
        .max_tables_per_component(limits::TABLES_PER_COMPONENT)
        .table_elements(limits::TABLE_ELEMENTS_MAX)
        .total_stacks(limits::INSTANCES_MAX)
        .max_memory_size(limits::GUEST_MEMORY_BYTES_MAX as usize)
        .linear_memory_keep_resident(limits::INSTANCE_RESIDENT_BYTES);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(limits::GUEST_STACK_BYTES)
        .async_stack_size(limits::FIBRE_STACK_BYTES)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(8));
    config
}

/// Increments the engine's epoch, so that a guest that never calls the host is still interrupted: every `EPOCH_TICK_MS` while there are
/// long calls, and every `EPOCH_TICK_QUIET_MS` else, because each tick wakes a processor.
struct Ticker {
    stop: Arc<AtomicBool>,
    ticks: Arc<AtomicU64>,
}

impl Ticker {
    fn start(engine: wasmtime::Engine) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ticks = Arc::new(AtomicU64::new(0));
        let (seen, counted) = (stop.clone(), ticks.clone());
        std::thread::Builder::new()
            .name("epoch-tick".to_owned())
            .spawn(move || {
                while !seen.load(Ordering::Relaxed) {
                    let tick_ms = if long_calls::were_seen() { limits::EPOCH_TICK_MS } else { limits::EPOCH_TICK_QUIET_MS };
                    std::thread::sleep(Duration::from_millis(tick_ms));
                    counted.fetch_add(1, Ordering::Relaxed);
                    engine.increment_epoch();
                }
            })
            .expect("a host that cannot start one thread cannot run at all");
        Self { stop, ticks }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Files of compiled code, each with a MAC under a key in this host's data folder, because loading compiled code is running it.
struct CodeCache {
    folder: PathBuf,
    key: [u8; 32],
}

const MAC_BYTES: usize = 32;
const KEY_FILE: &str = "key";

impl CodeCache {
    fn open(folder: &Path) -> io::Result<Self> {
        private_file::create_folder(folder)?;
        let key_file = folder.join(KEY_FILE);
        let key = match fs::read(&key_file) {
            Ok(bytes) if bytes.len() == 32 => bytes.try_into().expect("32 bytes were checked"),
            _ => {
                let key: [u8; 32] = rand::random();
                // Whole or not at all: of a key that is half zeros, others could make code.
                private_file::write(&key_file, &key)?;
                key
            }
        };
        Ok(Self { folder: folder.to_owned(), key })
    }

    fn mac(&self, name: &str, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(name.as_bytes());
        mac.update(&[0]);
        mac.update(bytes);
        mac
    }

    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.folder.join(name)).ok()?;
        if bytes.len() < MAC_BYTES {
            return None;
        }
        let code = bytes.split_off(MAC_BYTES);
        if self.mac(name, &code).verify_slice(&bytes).is_err() {
            tracing::warn!(file = name, "compiled code on disk was not written by this host and is not loaded");
            return None;
        }
        Some(code)
    }

    /// A file that cannot be removed only takes space, so the failure is logged and not returned.
    fn remove_where(&self, is_surplus: impl Fn(&str) -> bool) {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) => return tracing::warn!(%error, "the folder of compiled code cannot be read"),
        };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            if name != KEY_FILE
                && is_surplus(name)
                && let Err(error) = fs::remove_file(&path)
            {
                tracing::warn!(file = name, %error, "compiled code that nobody needs cannot be removed");
            }
        }
    }

    /// A failure only makes the next start slower, so it is logged and not returned.
    fn write(&self, name: &str, code: &[u8]) {
        let mut bytes = self.mac(name, code).finalize().into_bytes().to_vec();
        bytes.extend_from_slice(code);
        let unfinished = self.folder.join(format!("{name}.{}", std::process::id()));
        let written = fs::write(&unfinished, &bytes).and_then(|()| fs::rename(&unfinished, self.folder.join(name)));
        if let Err(error) = written {
            tracing::warn!(%error, "compiled code cannot be kept on disk");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_the_host_did_not_write_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let cache = CodeCache::open(folder.path()).unwrap();
        cache.write("a", b"code");
        assert_eq!(cache.read("a").as_deref(), Some(b"code".as_slice()));

        // The same file under another name, and a changed one.
        fs::copy(folder.path().join("a"), folder.path().join("b")).unwrap();
        assert_eq!(cache.read("b"), None);
        let mut bytes = fs::read(folder.path().join("a")).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(folder.path().join("a"), bytes).unwrap();
        assert_eq!(cache.read("a"), None);
    }

    #[test]
    fn compiled_code_is_loaded_the_second_time() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::start(folder.path()).unwrap();
        let empty_component = b"\0asm\x0d\0\x01\0";
        engine.compile(empty_component, "empty").unwrap();
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "the key and one compiled component: {names:?}");
        let again = Engine::start(folder.path()).unwrap();
        again.compile(b"not read, because the compiled code is there", "empty").unwrap();
    }

    #[test]
    fn code_that_nobody_needs_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::start(folder.path()).unwrap();
        let empty_component = b"\0asm\x0d\0\x01\0";
        ["a", "b", "c"].iter().for_each(|sha256| drop(engine.compile(empty_component, sha256).unwrap()));
        fs::write(folder.path().join("a-0123456789abcdef"), b"of another engine").unwrap();
        fs::write(folder.path().join("a-0123456789abcdef.17"), b"not finished").unwrap();
        let names = || {
            let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<_> = names.map(|name| name.split('-').next().unwrap().to_owned()).collect();
            names.sort();
            names
        };
        engine.forget_code("c");
        assert_eq!(names(), ["a", "a", "a", "b", "key"]);
        engine.keep_code(&HashSet::from(["a".to_owned()]));
        assert_eq!(names(), ["a", "key"]);
    }
}
