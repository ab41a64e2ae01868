//! Development mode: rebuilds a plugin when its source changes, and deploys a packed file when it changes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, EventKind, RecursiveMode, Watcher};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use echo_base::limits;
use echo_runtime::Runtime;

/// Watches the packed files and, where there is a source tree, the sources, until `shutdown`.
/// Errors: the folder of packed files cannot be watched.
pub async fn run(runtime: Arc<Runtime>, packed: PathBuf, sources: Option<SourceTree>, shutdown: CancellationToken) -> notify::Result<()> {
    // A full channel means that the folder will be read anyway, so a dropped change is found then.
    let (changed, mut changes) = mpsc::channel::<PathBuf>(limits::WATCH_CHANGES_MAX);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if let Ok(Event { kind: EventKind::Create(_) | EventKind::Modify(_), paths, .. }) = event {
            for path in paths {
                let _ = changed.try_send(path);
            }
        }
    })?;
    std::fs::create_dir_all(&packed).map_err(notify::Error::io)?;
    watcher.watch(&packed, RecursiveMode::NonRecursive)?;
    if let Some(tree) = &sources {
        for folder in tree.folders() {
            watcher.watch(&folder, RecursiveMode::Recursive)?;
        }
        tracing::info!(folder = %tree.root.display(), "watching the plugins' sources");
    }
    loop {
        let first = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            path = changes.recv() => match path {
                Some(path) => path,
                None => return Ok(()),
            },
        };
        let paths = settled(first, &mut changes).await;
        for path in paths.iter().filter(|path| is_packed(path, &packed)) {
            deploy(&runtime, path).await;
        }
        if let Some(tree) = &sources {
            let stale = tree.stale(&paths);
            if !stale.is_empty() {
                tree.rebuild(&stale).await;
            }
        }
    }
}

/// All changes until there was none for `WATCH_SETTLE_MS`: an editor and a compiler write a file in several steps.
async fn settled(first: PathBuf, changes: &mut mpsc::Receiver<PathBuf>) -> BTreeSet<PathBuf> {
    let mut paths = BTreeSet::from([first]);
    let pause = Duration::from_millis(limits::WATCH_SETTLE_MS);
    while let Ok(Some(path)) = tokio::time::timeout(pause, changes.recv()).await {
        paths.insert(path);
    }
    paths
}

fn is_packed(path: &Path, packed: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wasm")
        && path.parent().is_some_and(|parent| parent.ends_with(packed) || parent == packed)
}

async fn deploy(runtime: &Runtime, path: &Path) {
    let bytes = match tokio::fs::read(path).await {
        Ok(bytes) => bytes,
        Err(error) => return tracing::warn!(path = %path.display(), %error, "a packed file cannot be read"),
    };
    match runtime.deploy_if_changed(bytes).await {
        Ok(Some(activation)) => {
            tracing::info!(service = activation.service, version = activation.version, generation = activation.generation, "swapped");
        }
        Ok(None) => {}
        Err(error) => tracing::error!(path = %path.display(), %error, "not swapped; the running version goes on"),
    }
}

/// A checkout of Echo: `plugins/<service>/`, `plugins/sdk/`, `wit/`, `migrations/`.
#[derive(Clone, Debug)]
pub struct SourceTree {
    root: PathBuf,
}

impl SourceTree {
    /// The tree at `root`, if it is one.
    pub fn at(root: &Path) -> Option<Self> {
        (root.join("plugins/sdk").is_dir() && root.join("xtask").is_dir()).then(|| Self { root: root.to_owned() })
    }

    fn folders(&self) -> Vec<PathBuf> {
        ["plugins", "wit", "migrations"].iter().map(|name| self.root.join(name)).filter(|folder| folder.is_dir()).collect()
    }

    /// Which plugins these changes concern; `*` stands for all, for shared files.
    fn stale(&self, paths: &BTreeSet<PathBuf>) -> BTreeSet<String> {
        let mut stale = BTreeSet::new();
        for path in paths {
            let Ok(inside) = path.strip_prefix(&self.root) else { continue };
            let source = path.extension().and_then(|extension| extension.to_str());
            if !matches!(source, Some("rs" | "toml" | "wit" | "sql" | "bin")) {
                continue;
            }
            let mut parts = inside.components().filter_map(|part| part.as_os_str().to_str());
            match (parts.next(), parts.next()) {
                // No service, and in none: what their tests run on.
                (Some("plugins"), Some("testing")) => continue,
                (Some("plugins"), Some("sdk")) | (Some("wit"), _) => stale.insert("*".to_owned()),
                (Some("plugins" | "migrations"), Some(service)) => stale.insert(service.to_owned()),
                _ => continue,
            };
        }
        stale
    }

    /// Builds and packs by `cargo xtask plugins`; the packed files then change and are deployed.
    async fn rebuild(&self, stale: &BTreeSet<String>) {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["xtask", "plugins"]).current_dir(&self.root).stdin(Stdio::null()).kill_on_drop(true);
        if let Ok(myself) = std::env::current_exe() {
            command.env("ECHOD", myself);
        }
        if !stale.contains("*") {
            command.args(stale);
        }
        tracing::info!(plugins = ?stale, "rebuilding");
        match command.output().await {
            Ok(output) if output.status.success() => {}
            Ok(output) => tracing::error!(
                "the plugins do not build; the running versions go on\n{}",
                String::from_utf8_lossy(&output.stderr).trim_end()
            ),
            Err(error) => tracing::error!(%error, "cargo cannot be started"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_makes_stale_what_is_built_from_it() {
        let tree = SourceTree { root: PathBuf::from("/echo") };
        let check = |path: &str, expect: &[&str]| {
            let stale = tree.stale(&BTreeSet::from([PathBuf::from(path)]));
            assert_eq!(stale.iter().map(String::as_str).collect::<Vec<_>>(), expect, "{path}");
        };
        check("/echo/plugins/auth/src/lib.rs", &["auth"]);
        check("/echo/plugins/auth/plugin.toml", &["auth"]);
        check("/echo/migrations/auth/0002_more.sqlite.sql", &["auth"]);
        check("/echo/plugins/sdk/src/lib.rs", &["*"]);
        check("/echo/wit/deps/auth/auth.wit", &["*"]);
        check("/echo/plugins/auth/src/lib.rs.swp", &[]);
        check("/echo/plugins/testing/src/lib.rs", &[]);
        check("/echo/host/src/main.rs", &[]);
        check("/elsewhere/plugins/auth/src/lib.rs", &[]);
    }
}
