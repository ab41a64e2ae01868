//! Programs of PyPI, which pip puts into a folder of the target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::EngineError;

/// The folder of this name below `engines` in the target folder, where `file` is in it.
pub(crate) fn folder(name: &str, file: &Path) -> Result<Option<PathBuf>, EngineError> {
    let folder = target_folder()?.join("engines").join(name);
    Ok(Some(folder).filter(|folder| folder.join(file).is_file()))
}

/// A folder below `engines` in the target folder with these packages; pip gets them where `file` is not in it. Errors: what to install.
pub(crate) fn folder_with(name: &str, packages: &[&str], file: &Path) -> Result<PathBuf, EngineError> {
    if let Some(found) = folder(name, file)? {
        return Ok(found);
    }
    let folder = target_folder()?.join("engines").join(name);
    // Beside its place, and then moved: another process may be doing the same.
    let beside = folder.with_file_name(format!("{name}-{}", std::process::id()));
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir", "--target"]).arg(&beside).args(packages);
    let what_to_do = || format!("there is no {name}; `pip install --target {} '{}'` gets it", folder.display(), packages.join("' '"));
    let output = pip.stdin(Stdio::null()).output().map_err(|error| EngineError(format!("{}: python3: {error}", what_to_do())))?;
    if !output.status.success() {
        return Err(EngineError(format!("{}: {}", what_to_do(), String::from_utf8_lossy(&output.stderr).trim())));
    }
    if fs::rename(&beside, &folder).is_err() {
        // Somebody else was first.
        let _ = fs::remove_dir_all(&beside);
    }
    if folder.join(file).is_file() { Ok(folder) } else { Err(EngineError(what_to_do())) }
}

/// Cargo's, in which this program lies.
pub(crate) fn target_folder() -> Result<PathBuf, EngineError> {
    let program = std::env::current_exe().map_err(|error| EngineError::of("this program", error))?;
    let found = program.ancestors().skip(1).filter(|folder| folder.join("CACHEDIR.TAG").is_file()).last().map(Path::to_owned);
    found.ok_or_else(|| EngineError(format!("{} lies in no target folder of cargo", program.display())))
}
