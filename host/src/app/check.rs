//! Whether a host could start with these settings, without starting one: `echod serve --check`. What `config` cannot see by itself is looked at here:
//! files that are named, and settings of services, which only the services know.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::{Config, ConfigError, Mode};
use echo_base::names::ServiceName;
use echo_capabilities::http::client::HttpClient;
use echo_contract::wit::Contract;
use echo_gateway::Tls;
use echo_runtime::artifact::Artifact;
use echo_runtime::permissions::Permissions;

/// `problems`: what is wrong with the settings by themselves. Errors: everything that is wrong, not only the first.
pub fn check(config: &Config, mut problems: Vec<String>) -> Result<(), ConfigError> {
    if let Some((certificate, key)) = config.tls()
        && let Err(error) = Tls::open(certificate, key)
    {
        problems.push(format!("server.tls_cert, server.tls_key: {error}"));
    }
    if let Err(error) = config.outgoing_http().map_err(|error| error.to_string()).and_then(HttpClient::new) {
        problems.push(error);
    }
    problems.extend(super::moved::refusal(&config.data.dir, config.postgres().is_some()));
    if let Err(error) = permissions(config) {
        problems.push(format!("{error:#}"));
    }
    if let Some(folder) = config.plugins_folder() {
        check_services(config, folder, &mut problems);
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError(problems)) }
}

/// By the manifests of the packed files; a service that is not there may come later, with whatever settings.
fn check_services(config: &Config, folder: &Path, problems: &mut Vec<String>) {
    let files = match std::fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) => return problems.push(format!("data.plugins: {}: {error}", folder.display())),
    };
    let mut paths: Vec<_> =
        files.flatten().map(|file| file.path()).filter(|path| path.extension().is_some_and(|end| end == "wasm")).collect();
    paths.sort_unstable();
    let mut manifests = Vec::new();
    for path in paths {
        let artifact = std::fs::read(&path)
            .map_err(|error| error.to_string())
            .and_then(|bytes| Artifact::read(bytes).map_err(|error| error.to_string()));
        match artifact {
            Ok(artifact) => {
                problems.extend(unknown_settings(config, &artifact.manifest.service(), &artifact.manifest.config));
                match Contract::decode(&artifact.bytes, Some(&artifact.wit_text)) {
                    Ok(contract) => problems.extend(config.routes().problems_with_types(&artifact.manifest, &contract)),
                    Err(error) => problems.push(format!("data.plugins: {}: {error}", path.display())),
                }
                manifests.push(artifact.manifest.clone());
            }
            Err(error) => problems.push(format!("data.plugins: {}: {error}", path.display())),
        }
    }
    let (routes, known) = (config.routes(), manifests.iter().collect::<Vec<_>>());
    // A route that none of these has may be one of a service that was deployed.
    let others = config.sql.url.text().is_some() || deployed(config).iter().any(|name| !manifests.iter().any(|known| known.name == *name));
    problems.extend(if others { routes.impossible(&known) } else { routes.problems_with(&known) });
}

/// Services that the data folder keeps versions of.
fn deployed(config: &Config) -> Vec<String> {
    let folders = std::fs::read_dir(config.data.dir.join("plugins")).into_iter().flatten().flatten();
    folders.filter_map(|folder| folder.file_name().into_string().ok()).collect()
}

/// Settings of the operator's that the service's manifest does not have, each with the nearest that it has.
pub fn unknown_settings(config: &Config, service: &ServiceName, known: &BTreeMap<String, toml::Value>) -> Vec<String> {
    let given = config.services.get(service.as_str()).into_iter().flat_map(BTreeMap::keys);
    let unknown = given.filter(|name| !known.contains_key(*name)).map(|name| {
        let likeness = |known: &&String| (1_000.0 * strsim::normalized_damerau_levenshtein(known, name)) as u32;
        let nearest = known.keys().max_by_key(likeness).filter(|known| likeness(known) > 500);
        let nearest = nearest.map(|known| format!("; did you mean {known}?")).unwrap_or_default();
        format!("services.{service}: there is no setting {name}{nearest}")
    });
    unknown.collect()
}

/// In development the source tree's own map, so that a new world needs no new host.
pub(super) fn permissions(config: &Config) -> Result<Permissions, String> {
    let sources = PathBuf::from("wit/services.wit");
    let file = match config.permissions() {
        Some(file) => Some(file.to_owned()),
        None => (config.mode == Mode::Dev && sources.is_file()).then_some(sources),
    };
    let permissions = Permissions::new(file);
    permissions.worlds().map_err(|reason| format!("data.permissions: {reason}"))?;
    Ok(permissions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;

    #[test]
    fn an_unknown_setting_of_a_service_is_said_with_the_nearest() {
        let mut config = Config::defaults(Mode::Serve);
        let own = ["edit_windw_s", "delete_window_s", "zzz"].map(|name| (name.to_owned(), "1".to_owned()));
        config.services.insert("message".to_owned(), own.into());
        let known = ["edit_window_s", "delete_window_s"].map(|name| (name.to_owned(), toml::Value::Integer(1))).into();
        let unknown = |service: &str| unknown_settings(&config, &ServiceName::parse(service).unwrap(), &known);
        assert_eq!(
            unknown("message"),
            [
                "services.message: there is no setting edit_windw_s; did you mean edit_window_s?",
                "services.message: there is no setting zzz"
            ]
        );
        assert!(unknown("user").is_empty());
    }

    #[test]
    fn files_that_are_named_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::defaults(Mode::Serve);
        assert!(check(&config, Vec::new()).is_ok());
        let bad = folder.path().join("bad.pem");
        std::fs::write(&bad, "no certificate").unwrap();
        (config.server.tls_cert, config.server.tls_key) = (bad.clone(), bad);
        config.http.root_certificates = folder.path().join("no.pem");
        config.data.permissions = folder.path().join("nothing.wit");
        config.data.plugins = folder.path().join("nowhere");
        let error = check(&config, vec!["first".to_owned()]).unwrap_err();
        let said = |what: &str| error.0.iter().any(|problem| problem.contains(what));
        assert!(
            said("server.tls_cert")
                && said("data.permissions")
                && said("data.plugins")
                && said("http.root_certificates")
                && error.0[0] == "first"
                && error.0.len() == 5,
            "{error}"
        );
    }
}
