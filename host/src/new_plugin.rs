//! `echod plugin new`: a folder with a whole service in it, to be built as it is and then changed. Knows the names of its files and nothing of a host.

use std::fs;
use std::path::{Path, PathBuf};

use echo_base::names::ServiceName;

/// Path and text of each file; `SERVICE` stands for the service's name, `MODULE` for the same as a Rust module, `SDK` for the SDK's folder.
const FILES: [(&str, &str); 9] = [
    ("Cargo.toml", include_str!("new_plugin/template/Cargo.toml.in")),
    ("plugin.toml", include_str!("new_plugin/template/plugin.toml.in")),
    ("README.md", include_str!("new_plugin/template/README.md.in")),
    ("wit/services.wit", include_str!("new_plugin/template/services.wit.in")),
    ("wit/deps/SERVICE/SERVICE.wit", include_str!("new_plugin/template/api.wit.in")),
    ("src/lib.rs", include_str!("new_plugin/template/lib.rs.in")),
    ("src/store.rs", include_str!("new_plugin/template/store.rs.in")),
    ("migrations/0001_notes.sqlite.sql", include_str!("new_plugin/template/0001_notes.sqlite.sql.in")),
    ("migrations/0001_notes.postgres.sql", include_str!("new_plugin/template/0001_notes.postgres.sql.in")),
];

#[derive(Debug, thiserror::Error)]
pub enum NewPluginError {
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    #[error("{0} is a service of Echo's own; take another name")]
    Taken(ServiceName),
    #[error("no SDK in {} (a folder with src/lib.rs and wit/deps); name it with --sdk: `plugins/sdk` of Echo's repository, or the package that `cargo package -p echo-sdk` makes of it, unpacked", .0.display())]
    NoSdk(PathBuf),
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: std::io::Error },
}

/// Writes the service into `folder`, which must not be there yet, with the SDK's contracts beside its own. Returns the files' names.
pub fn create(name: &ServiceName, folder: &Path, sdk: &Path) -> Result<Vec<String>, NewPluginError> {
    if folder.exists() {
        return Err(NewPluginError::Exists(folder.to_owned()));
    }
    let contracts = sdk.join("wit/deps");
    if !sdk.join("src/lib.rs").is_file() || !contracts.is_dir() {
        return Err(NewPluginError::NoSdk(sdk.to_owned()));
    }
    if contracts.join(name.as_str()).exists() {
        return Err(NewPluginError::Taken(name.clone()));
    }
    let sdk = sdk.canonicalize().map_err(|reason| NewPluginError::File { path: sdk.to_owned(), reason })?;
    let module = name.as_str().replace('-', "_");
    let filled = |text: &str| {
        text.replace("SERVICE", name.as_str()).replace("MODULE", &module).replace("SDK\" }", &format!("{}\" }}", sdk.display()))
    };
    let mut written = Vec::new();
    for (path, text) in FILES {
        let path = filled(path);
        write(&folder.join(&path), filled(text).as_bytes())?;
        written.push(path);
    }
    copy_folder(&contracts, &folder.join("wit/deps"))?;
    written.push("wit/deps: Echo's contracts".to_owned());
    Ok(written)
}

fn copy_folder(from: &Path, into: &Path) -> Result<(), NewPluginError> {
    let failed = |reason| NewPluginError::File { path: from.to_owned(), reason };
    for entry in fs::read_dir(from).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let copy = into.join(path.file_name().expect("an entry has a name"));
        if path.is_dir() {
            copy_folder(&path, &copy)?;
        } else {
            write(&copy, &fs::read(&path).map_err(failed)?)?;
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), NewPluginError> {
    let failed = |reason| NewPluginError::File { path: path.to_owned(), reason };
    fs::create_dir_all(path.parent().expect("a file has a folder")).map_err(failed)?;
    fs::write(path, bytes).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use echo_contract::wit::wit_text;
    use echo_runtime::artifact::read_migrations;
    use echo_runtime::manifest::Manifest;

    fn sdk() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/sdk")
    }

    #[test]
    fn a_new_service_has_a_good_manifest_a_contract_and_migrations() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folder = folder.path().join("shopping-list");
        create(&ServiceName::parse("shopping-list").unwrap(), &folder, &sdk()).expect("written");
        let manifest = fs::read_to_string(folder.join("plugin.toml")).unwrap();
        assert_eq!(Manifest::parse(&manifest).expect("a good one").service().as_str(), "shopping-list");
        assert!(wit_text(&folder.join("wit"), "shopping-list").expect("a world of its name").contains("echo:shopping-list"));
        assert_eq!(read_migrations(&folder.join("migrations")).expect("named as they should be").len(), 2);
        assert!(fs::read_to_string(folder.join("src/lib.rs")).unwrap().contains("exports::echo::shopping_list::api"));
    }

    #[test]
    fn what_is_there_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let refused =
            |name: &str, folder: &Path, sdk: &Path| create(&ServiceName::parse(name).unwrap(), folder, sdk).unwrap_err().to_string();
        assert!(refused("polls", folder.path(), &sdk()).contains("is there already"));
        assert!(refused("message", &folder.path().join("m"), &sdk()).contains("another name"));
        assert!(refused("polls", &folder.path().join("p"), folder.path()).contains("--sdk"));
    }
}
