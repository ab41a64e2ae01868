//! Programs of npm, which it puts into a folder of the target folder. They want Node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{EngineError, pip, program};

/// The folder below `engines` in the target folder that has these packages in `node_modules`; npm gets them where `file` is not there. Errors: what to
/// install.
pub(crate) fn folder_with(name: &str, packages: &[&str], file: &Path) -> Result<PathBuf, EngineError> {
    if program("node").is_none() {
        return Err(EngineError(format!("{name} wants Node and npm: install Node 20.19 or later")));
    }
    if let Some(found) = pip::folder(name, file)? {
        return Ok(found);
    }
    let folder = pip::target_folder()?.join("engines").join(name);
    // Beside its place, and then moved: another process may be doing the same.
    let beside = folder.with_file_name(format!("{name}-{}", std::process::id()));
    let mut npm = Command::new("npm");
    npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--silent", "--prefix"]).arg(&beside).args(packages);
    let what_to_do = || format!("there is no {name}; `npm install --no-save --prefix {} {}` gets it", folder.display(), packages.join(" "));
    fs::create_dir_all(&beside).map_err(|error| EngineError::of(&beside.display().to_string(), error))?;
    let output = npm.stdin(Stdio::null()).output().map_err(|error| EngineError(format!("{}: npm: {error}", what_to_do())))?;
    if !output.status.success() {
        let _ = fs::remove_dir_all(&beside);
        return Err(EngineError(format!("{}: {}", what_to_do(), String::from_utf8_lossy(&output.stderr).trim())));
    }
    if fs::rename(&beside, &folder).is_err() {
        // Somebody else was first.
        let _ = fs::remove_dir_all(&beside);
    }
    if folder.join(file).is_file() { Ok(folder) } else { Err(EngineError(what_to_do())) }
}
