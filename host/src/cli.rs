//! The command line: its commands and options, parsed. Does nothing itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use crate::config::{Mode, Overrides};

/// Echo: a messaging platform whose services are WebAssembly components, swapped while traffic flows.
#[derive(Debug, Parser)]
#[command(name = "echod", version, about, after_help = EXAMPLES, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the host
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Serve),
    /// Run the host on a developer's machine: readable logs, GET /dev/outbox, generous rate limits, plugins swapped when their files change
    #[command(after_help = DEV_EXAMPLES)]
    Dev(Dev),
    /// Ask a host on this machine whether it is ready; the exit status says so too
    Ready(Ready),
    /// Copy all that a running host keeps, as it is at one moment, into a folder that is new or empty
    Backup {
        /// On the host's machine
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        #[command(flatten)]
        admin: Admin,
    },
    /// Check a backup and put it back as the data folder, on which no host runs. Devices load their state again
    Restore(Restore),
    /// Move a host's data from SQLite files to PostgreSQL; show and apply services' migrations without serving
    #[command(after_help = MIGRATE_EXAMPLES, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
    Migrate(Migrate),
    /// Make, list and end operators' tokens, and see what was done with them
    #[command(after_help = TOKEN_EXAMPLES)]
    Token {
        #[command(subcommand)]
        command: Token,
    },
    /// Have a running host read its settings again and take over those of routes (SIGHUP does the same in `serve`). Settings that are wrong change nothing
    Reload {
        #[command(flatten)]
        admin: Admin,
    },
    /// Pack, look at, deploy and roll back services
    #[command(after_help = PLUGIN_EXAMPLES)]
    Plugin {
        #[command(subcommand)]
        command: Plugin,
    },
}

#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    pub host: Host,
    /// Read and check the settings, say what is wrong with them, and end
    #[arg(long)]
    pub check: bool,
}

#[derive(Debug, Args)]
pub struct Dev {
    #[command(flatten)]
    pub host: Host,
    /// Listen where others can reach it too: they can read every one-time code that is sent, and nothing limits them
    #[arg(long)]
    pub expose_dev: bool,
}

impl Dev {
    pub fn overrides(&self) -> Overrides {
        Overrides { expose_dev: self.expose_dev, ..self.host.overrides() }
    }
}

/// What `serve` and `dev` share.
#[derive(Debug, Args)]
pub struct Host {
    /// The settings [default: echo.toml in this folder, if there is one]
    #[arg(long, value_name = "FILE", env = "ECHO_CONFIG")]
    pub config: Option<PathBuf>,
    /// Databases, queue, feeds and keys [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where clients connect; port 0 takes any free one [default: 0.0.0.0:8080; dev: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Where the operator connects [default: 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    pub admin_listen: Option<SocketAddr>,
    /// Packed services that are loaded at the start [default: none; dev: target/plugins]
    #[arg(long, value_name = "DIR")]
    pub plugins: Option<PathBuf>,
}

impl Host {
    /// The settings' file to read, if any.
    pub fn config_file(&self) -> Option<PathBuf> {
        config_file(self.config.as_ref())
    }

    pub fn overrides(&self) -> Overrides {
        Overrides {
            data: self.data.clone(),
            plugins: self.plugins.clone(),
            listen: self.listen,
            admin_listen: self.admin_listen,
            ..Overrides::default()
        }
    }
}

impl Command {
    /// What to run the host with, where this is a command that does.
    pub fn host(&self) -> Option<(Mode, &Host)> {
        match self {
            Command::Serve(serve) => Some((Mode::Serve, &serve.host)),
            Command::Dev(dev) => Some((Mode::Dev, &dev.host)),
            Command::Ready(_)
            | Command::Backup { .. }
            | Command::Restore(_)
            | Command::Reload { .. }
            | Command::Migrate(_)
            | Command::Token { .. }
            | Command::Plugin { .. } => None,
        }
    }
}

#[derive(Debug, Args)]
pub struct Restore {
    /// What `echod backup` wrote
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Where it is put back
    #[arg(long, value_name = "DIR", default_value = "./data")]
    pub data: PathBuf,
    /// Where there is data already, put that aside: it is kept beside, as <DATA>.before-<time>
    #[arg(long)]
    pub replace: bool,
}

#[derive(Debug, Args)]
pub struct Migrate {
    #[command(subcommand)]
    pub command: Option<MigrateCommand>,
    /// sqlite:DIR, the data folder of one host, which may be running: it is ended when most is copied
    #[arg(long, value_name = "URL", required = true, value_parser = data_folder)]
    pub from: Option<PathBuf>,
    /// An empty PostgreSQL database: postgres://user@host/name; with a password in it env:NAME or file:PATH [default: sql.url of the settings]
    #[arg(long, value_name = "URL", value_parser = database_address)]
    pub to: Option<String>,
    /// The settings of the hosts that will run on the database [default: echo.toml in this folder, if there is one]
    #[arg(long, value_name = "FILE", env = "ECHO_CONFIG")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum MigrateCommand {
    /// Which migrations of each service are applied, and which are outstanding. Changes nothing
    Status(Host),
    /// Apply those that are outstanding, without serving; running hosts on PostgreSQL go on meanwhile
    Up(Host),
    /// After a move: serve from the SQLite files again, as they were then
    Back {
        /// The data folder whose data was moved
        #[arg(long, value_name = "DIR", default_value = "./data")]
        data: PathBuf,
    },
}

impl Migrate {
    pub fn config_file(&self) -> Option<PathBuf> {
        config_file(self.config.as_ref())
    }

    pub fn overrides(&self) -> Overrides {
        Overrides { data: self.from.clone(), sql_url: self.to.clone(), ..Overrides::default() }
    }
}

fn data_folder(url: &str) -> Result<PathBuf, String> {
    let folder = url.strip_prefix("sqlite:").filter(|folder| !folder.is_empty());
    folder.map(PathBuf::from).ok_or_else(|| "sqlite:DIR is wanted, such as sqlite:/var/lib/echo".to_owned())
}

/// Everyone on a machine sees the arguments of its processes, so no password is in it.
fn database_address(url: &str) -> Result<String, String> {
    if !["env:", "file:", "postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err("postgres://user@host/name is wanted, or env:NAME or file:PATH where it stands".to_owned());
    }
    let user = url.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next()?.rsplit_once('@')).map(|(user, _)| user);
    if user.is_some_and(|user| user.contains(':')) {
        return Err("a password is not given on the command line; write env:NAME or file:PATH, where the whole URL stands".to_owned());
    }
    Ok(url.to_owned())
}

fn config_file(given: Option<&PathBuf>) -> Option<PathBuf> {
    given.cloned().or_else(|| Some(PathBuf::from("echo.toml")).filter(|file| file.is_file()))
}

/// For what starts and watches a host: a unit, a container.
#[derive(Debug, Args)]
pub struct Ready {
    /// Where its clients connect, such as http://127.0.0.1:8080 [default: the host that runs on the data folder]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The data folder of the host on this machine
    #[arg(long, value_name = "DIR", default_value = "./data")]
    pub data: PathBuf,
    /// Ask again for so long before the answer is no
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=3_600))]
    pub wait: u64,
}

#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token and print it, once: only its hash is kept
    New {
        /// Who or what will use it, such as ci or ann@example.org
        name: String,
        /// What it opens: metrics (GET /metrics), read (and looking at everything), deploy (and versions of services), admin (and all else).
        /// Each includes those before it
        #[arg(long, value_name = "SCOPE", required = true, value_delimiter = ',', value_parser = ["metrics", "read", "deploy", "admin"])]
        scope: Vec<String>,
        /// It ends by itself after so many days [default: it does not]
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=3_660))]
        days: Option<u64>,
        #[command(flatten)]
        admin: Admin,
    },
    /// All tokens: their scopes, who made them, when they were used last
    List {
        #[command(flatten)]
        admin: Admin,
    },
    /// End a token; it opens nothing from then on
    End {
        /// Its name
        name: String,
        #[command(flatten)]
        admin: Admin,
    },
    /// What operators changed, newest first: who, when, what, and how it was answered
    Audit {
        #[command(flatten)]
        admin: Admin,
    },
}

#[derive(Debug, Subcommand)]
pub enum Plugin {
    /// Write a folder with a whole small service in it: contract, manifest, tables, code. Builds as it is
    New(New),
    /// Make one self-describing file: the component with its manifest, its contracts and its migrations
    Pack(Pack),
    /// Say what is in a packed file: routes, sockets, events, imports, limits, migrations
    Inspect {
        /// A packed file
        file: PathBuf,
    },
    /// Print the JSON schema of plugin.toml, for editors
    Schema {
        /// As a page for people
        #[arg(long)]
        markdown: bool,
    },
    /// Send a packed file to a running host and make it the live version. Traffic goes on meanwhile; a version that cannot work is refused
    Deploy {
        /// A packed file
        file: PathBuf,
        /// Say what would happen, and why it would be refused; change nothing
        #[arg(long)]
        dry_run: bool,
        /// Confirm a change by the name that the plan gives it: a route or frame that goes, a looser access, rate or cache, a new import.
        /// May be given several times
        #[arg(long, value_name = "NAME")]
        allow: Vec<String>,
        /// Grant imports to the service from now on: a package such as echo:sql, or an interface such as echo:user/api. Several with commas
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        grant: Vec<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// The services of a running host
    List {
        #[command(flatten)]
        admin: Admin,
    },
    /// What was deployed and rolled back, newest first
    History {
        /// The service's name
        name: String,
        #[command(flatten)]
        admin: Admin,
    },
    /// Go back to the last good version: the one that was live last and was not rolled away from. Says what clients lose by it
    Rollback {
        /// The service's name
        name: String,
        /// Go back also where a live dependent needs what that version does not have; its calls of that then fail
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        admin: Admin,
    },
}

#[derive(Debug, Args)]
pub struct New {
    /// The service's name: lower-case letters, digits and hyphens
    pub name: String,
    /// Where to write it [default: a folder of that name here]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The SDK: plugins/sdk of Echo's repository, or the package that `cargo package -p echo-sdk` makes of it, unpacked
    #[arg(long, value_name = "DIR", env = "ECHO_SDK", default_value = "plugins/sdk")]
    pub sdk: PathBuf,
}

impl New {
    pub fn folder(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| PathBuf::from(&self.name))
    }
}

#[derive(Debug, Args)]
pub struct Pack {
    /// The plugin's folder, with its plugin.toml; its contracts are in wit/ there or above, its migrations in migrations/ there or beside the contracts
    pub dir: PathBuf,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// What the compiler made, a component or a core module [default: target/wasm32-unknown-unknown/release in the folder, else what
    /// `cargo xtask plugins` built]
    #[arg(long, value_name = "WASM")]
    component: Option<PathBuf>,
}

impl Pack {
    /// The file to pack of the service of this name: as it was given, else the newest place where a build leaves it.
    pub fn component(&self, service: &str) -> PathBuf {
        if let Some(component) = &self.component {
            return component.clone();
        }
        let file = Path::new(&service.replace('-', "_")).with_extension("wasm");
        let own = self.dir.join("target/wasm32-unknown-unknown/release").join(&file);
        if own.is_file() { own } else { Path::new("target/components/wasm32-unknown-unknown/plugin").join(file) }
    }
}

/// How to reach a running host's operator API.
#[derive(Debug, Args)]
pub struct Admin {
    /// The operator's address, such as http://127.0.0.1:9090 [default: the host that runs on the data folder]
    #[arg(long, value_name = "URL", env = "ECHO_ADMIN_URL")]
    pub admin: Option<String>,
    /// The operator's token [default: that of the host that runs on the data folder]
    #[arg(long, value_name = "TOKEN", env = "ECHO_ADMIN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The data folder of the host on this machine
    #[arg(long, value_name = "DIR", default_value = "./data")]
    pub data: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  echod dev                                          run everything on this machine; addresses are printed
  echod serve --config /etc/echo/echo.toml           run in production
  echod plugin deploy target/plugins/message.wasm    replace a service while people talk
  echod reload                                       take over what was changed of [[gateway.routes]] in echo.toml
  echod backup /backups/monday                       copy what a running host keeps
  echod restore /backups/monday --data /var/lib/echo put it back, with the host ended
  echod migrate --from sqlite:/var/lib/echo --to postgres://echo@db.example/echo

echo.toml explains every setting.";

const SERVE_EXAMPLES: &str = "\
Settings come from echo.toml, then from variables named ECHO_SECTION__KEY, then from the flags here.

Examples:
  echod serve --config /etc/echo/echo.toml --check   are the settings good?
  ECHO_LOG__LEVEL=debug echod serve --data /var/lib/echo
  echod serve --listen 127.0.0.1:0                   any free port; see run/addresses.json in the data folder";

const DEV_EXAMPLES: &str = "\
Examples:
  echod dev                                          http://127.0.0.1:8080, data in ./data
  echod dev --data /tmp/echo --listen 127.0.0.1:0    a second one beside it
  curl http://127.0.0.1:8080/dev/outbox              the codes and messages that would have been sent";

const MIGRATE_EXAMPLES: &str = "\
A move copies the running host, ends it, brings over what was written meanwhile, compares both sides row by row, and puts the files aside. Until
then the database refuses hosts, and afterwards the files do; cut off at any point, it begins anew when it is run again.

Examples:
  echod migrate --from sqlite:/var/lib/echo --to postgres://echo@db.example/echo --config /etc/echo/new.toml
  echod migrate --from sqlite:./data --to env:DATABASE_URL
  echod migrate back --data /var/lib/echo            to the files as they were when the data was moved
  echod migrate status --config /etc/echo/echo.toml --plugins /opt/echo/plugins
  echod migrate up --config /etc/echo/echo.toml --plugins /opt/echo/plugins";

const TOKEN_EXAMPLES: &str = "\
Examples:
  echod token new ci --scope deploy --days 365       for a pipeline that deploys
  echod token new scraper --scope metrics            for Prometheus
  ECHO_ADMIN_TOKEN=echo_op_… echod plugin list --admin http://10.0.0.7:9090
  echod token list
  echod token end ci
  echod token audit                                  who did what";

const PLUGIN_EXAMPLES: &str = "\
A host on this machine is found by its data folder (--data, ./data); any other one by --admin and --token, or by ECHO_ADMIN_URL and
ECHO_ADMIN_TOKEN.

Examples:
  echod plugin new polls --sdk ../echo/plugins/sdk   a service of one's own, to begin with
  echod plugin pack plugins/message -o message.wasm  one file with everything in it
  echod plugin inspect message.wasm                  what it offers and what it wants
  echod plugin deploy message.wasm --dry-run         would it be accepted?
  echod plugin deploy message.wasm                   make it live
  echod plugin deploy message.wasm --allow 'route-removed:GET /api/v1/messages/drafts'
  echod plugin history message
  echod plugin rollback message                      back to the last good version; again: to the one before that";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parsed(line: &str) -> Command {
        Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}")).command
    }

    #[test]
    fn a_password_is_not_given_on_the_command_line() {
        for good in [
            "postgres://echo@db.example/echo",
            "postgres:///echo?host=/run",
            "env:DATABASE_URL",
            "file:/run/url",
            "postgres://db:5432/echo",
        ] {
            assert_eq!(database_address(good).as_deref(), Ok(good));
        }
        assert!(database_address("mysql://x/y").is_err());
        assert!(database_address("postgres://echo:secret@db.example/echo").unwrap_err().contains("env:NAME"));
    }

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_commands_of_the_interface_are_understood() {
        let Command::Serve(serve) =
            parsed("echod serve --config echo.toml --data d --listen 127.0.0.1:0 --admin-listen 127.0.0.1:1 --plugins p --check")
        else {
            panic!("no serve")
        };
        assert!(serve.check);
        let overrides = serve.host.overrides();
        assert_eq!((overrides.data, overrides.plugins), (Some("d".into()), Some("p".into())));
        assert_eq!((overrides.listen.unwrap().port(), overrides.admin_listen.unwrap().port()), (0, 1));
        assert_eq!(serve.host.config_file(), Some("echo.toml".into()));
        assert_eq!(parsed("echod dev").host().map(|(mode, _)| mode), Some(Mode::Dev));
        let Command::Dev(dev) = parsed("echod dev --expose-dev --listen 0.0.0.0:1") else { panic!("no dev") };
        assert!(dev.overrides().expose_dev && dev.overrides().listen.is_some());

        let Command::Plugin { command: Plugin::Deploy { file, dry_run, allow, grant, admin } } = parsed(
            "echod plugin deploy a.wasm --dry-run --allow a --allow b --grant echo:sql,echo:log --admin http://h:1 --token t --data d",
        ) else {
            panic!("no deploy")
        };
        assert_eq!((allow, grant), (vec!["a".into(), "b".into()], vec!["echo:sql".to_owned(), "echo:log".to_owned()]));
        assert_eq!((file, dry_run, admin.admin.as_deref(), admin.token.as_deref()), ("a.wasm".into(), true, Some("http://h:1"), Some("t")));
        let Command::Plugin { command: Plugin::Pack(pack) } = parsed("echod plugin pack plugins/auth --component c.wasm -o a.wasm") else {
            panic!("no pack")
        };
        assert_eq!((pack.component("auth"), pack.output), ("c.wasm".into(), "a.wasm".into()));
        let Command::Plugin { command: Plugin::Pack(pack) } = parsed("echod plugin pack plugins/auth/ -o a.wasm") else {
            panic!("no pack")
        };
        assert!(pack.component("auth").ends_with("plugin/auth.wasm"));
        let Command::Plugin { command: Plugin::New(new) } = parsed("echod plugin new polls --sdk s") else { panic!("no new") };
        assert_eq!((new.folder(), new.sdk), ("polls".into(), "s".into()));
        let Command::Ready(ready) = parsed("echod ready --data d --wait 60") else { panic!("no ready") };
        assert_eq!((ready.url, ready.data, ready.wait), (None, "d".into(), 60));
        for line in [
            "echod ready",
            "echod reload",
            "echod plugin list",
            "echod plugin inspect a.wasm",
            "echod plugin history auth",
            "echod plugin rollback auth",
        ] {
            assert!(parsed(line).host().is_none());
        }
    }

    #[test]
    fn a_move_names_a_folder_and_a_database() {
        let Command::Migrate(migrate) = parsed("echod migrate --from sqlite:/var/lib/echo --to postgres://echo@db/echo --config c.toml")
        else {
            panic!("no migrate")
        };
        let overrides = migrate.overrides();
        assert_eq!(overrides.data, Some("/var/lib/echo".into()));
        assert_eq!((overrides.sql_url.as_deref(), migrate.config_file()), (Some("postgres://echo@db/echo"), Some("c.toml".into())));
        for (line, expect) in
            [("echod migrate status --plugins p", "Status"), ("echod migrate up", "Up"), ("echod migrate back --data d", "Back")]
        {
            let Command::Migrate(Migrate { command: Some(command), .. }) = parsed(line) else { panic!("{line}") };
            assert!(format!("{command:?}").starts_with(expect), "{line}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "echod migrate",
            "echod migrate --to postgres://echo@db/echo",
            "echod migrate --from /var/lib/echo",
            "echod migrate --from postgres://echo@db/echo",
            "echod migrate back --from sqlite:d",
            "echod",
            "echod serve --listen here",
            "echod dev --check",
            "echod serve --expose-dev",
            "echod ready --wait long",
            "echod plugin",
            "echod plugin pack plugins/auth",
            "echod fly",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
