//! What a test's hosts keep, looked at past them: in the files of their data folders, and in SQLite's tables or PostgreSQL's.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::app::TestApp;

/// The files, and the tables of PostgreSQL, that hold the text, in capitals or not; a file that is gone meanwhile holds nothing.
pub fn holding(app: &TestApp, text: &str) -> Vec<String> {
    let text = text.to_ascii_lowercase();
    let holds = |path: &PathBuf| contains(&std::fs::read(path).unwrap_or_default().to_ascii_lowercase(), text.as_bytes());
    let files = app.data_folders().into_iter().flat_map(|folder| files_below(&folder)).filter(holds).map(|path| path.display().to_string());
    let mut found: Vec<String> = files.collect();
    if let Some(url) = app.database() {
        found.extend(tables_holding(url, &text));
    }
    found
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.append(&mut files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// Rows that PostgreSQL has removed and its vacuum has not overwritten yet are not looked for: no statement shows them.
fn tables_holding(url: &str, text: &str) -> Vec<String> {
    let dump = Command::new("pg_dump").args(["--data-only", "-d", url]).output().expect("pg_dump is there");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    // Bytes are written in hexadecimal digits.
    let in_digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let (mut table, mut found) = (String::new(), Vec::new());
    for line in String::from_utf8_lossy(&dump.stdout).to_ascii_lowercase().lines() {
        if let Some(copied) = line.strip_prefix("copy ") {
            table = copied.split_whitespace().next().unwrap_or_default().to_owned();
        } else if line.contains(text) || line.contains(&in_digits) {
            found.push(table.clone());
        }
    }
    found
}

/// The number that the statement gives on a service's tables; none where they cannot be read just now.
pub fn number(app: &TestApp, service: &str, sql: &str) -> Option<i64> {
    if let Some(url) = app.database() {
        return psql(url, service, sql).trim().parse().ok();
    }
    // In a copy, as a running host has the file for itself.
    let copied = tempfile::tempdir().expect("a folder");
    let name = format!("{service}.sqlite");
    std::fs::copy(app.data_folder().join("services").join(&name), copied.path().join(&name)).ok()?;
    let log = format!("{name}-wal");
    // None after a clean end.
    let _ = std::fs::copy(app.data_folder().join("services").join(&log), copied.path().join(&log));
    let file = rusqlite::Connection::open(copied.path().join(&name)).ok()?;
    file.query_row(sql, (), |row| row.get(0)).ok()
}

/// Changes a service's tables while no host runs.
pub fn execute(app: &TestApp, service: &str, sql: &str) {
    match app.database() {
        Some(url) => drop(psql(url, service, sql)),
        None => {
            let file =
                rusqlite::Connection::open(app.data_folder().join(format!("services/{service}.sqlite"))).expect("the service's file");
            file.execute_batch(sql).expect("the statements");
        }
    }
}

fn psql(url: &str, service: &str, sql: &str) -> String {
    let mut psql = Command::new("psql");
    psql.args(["-qAt", "-v", "ON_ERROR_STOP=1", "-d", url, "-c", &format!("SET search_path = echo_{service}"), "-c", sql]);
    let output = psql.output().expect("psql is there");
    assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
