//! The command line: its commands and options, parsed; completions for shells and man pages, which are made of them. Does nothing else.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};

use self::examples::{
    BACKUP_EXAMPLES, COMPLETIONS_EXAMPLES, DEPLOY_EXAMPLES, DEV_EXAMPLES, DIFF_EXAMPLES, DOCTOR_EXAMPLES, EXAMPLES, MAN_EXAMPLES,
    MIGRATE_EXAMPLES, PACK_EXAMPLES, PLUGIN_EXAMPLES, READY_EXAMPLES, RELOAD_EXAMPLES, RESTORE_EXAMPLES, SERVE_EXAMPLES, TOKEN_EXAMPLES,
    TOKEN_NEW_EXAMPLES, VERIFY_EXAMPLES,
};
use crate::config::{Mode, Overrides};
use echo_base::limits;

mod examples;
#[cfg(test)]
mod tests;

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
    #[command(after_help = READY_EXAMPLES)]
    Ready(Ready),
    /// Copy all that a running host keeps, as it is at one moment, into a folder that is new or empty
    #[command(after_help = BACKUP_EXAMPLES)]
    Backup {
        /// On the host's machine
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        #[command(flatten)]
        admin: Admin,
    },
    /// Check a backup and put it back as the data folder, on which no host runs. Devices load their state again
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(Restore),
    /// Move a host's data from SQLite files to PostgreSQL; show and apply services' migrations without serving
    #[command(after_help = MIGRATE_EXAMPLES, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
    Migrate(Migrate),
    /// Look for what would keep a host from running well here (ports, files, engines, clock, disk, permissions), and say what to do. Changes nothing
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(Doctor),
    /// Print what makes a shell complete the commands and options of echod
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions { shell: clap_complete::Shell },
    /// Write the manual's pages, one for each command, into a folder
    #[command(after_help = MAN_EXAMPLES)]
    Man {
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Make, list and end operators' tokens, and see what was done with them
    #[command(after_help = TOKEN_EXAMPLES)]
    Token {
        #[command(subcommand)]
        command: Token,
    },
    /// Have a running host read its settings again and take over those of routes (SIGHUP does the same in `serve`). Settings that are wrong change nothing
    #[command(after_help = RELOAD_EXAMPLES)]
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
            | Command::Doctor(_)
            | Command::Completions { .. }
            | Command::Man { .. }
            | Command::Token { .. }
            | Command::Plugin { .. } => None,
        }
    }
}

#[derive(Debug, Args)]
pub struct Doctor {
    #[command(flatten)]
    pub host: Host,
    /// With the defaults of `echod dev`
    #[arg(long)]
    pub dev: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Writes a page for each command. Errors: the folder cannot be made or written to.
pub fn write_man_pages(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(<Cli as clap::CommandFactory>::command(), folder)
}

/// The script that makes this shell complete the command line.
pub fn completions(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut <Cli as clap::CommandFactory>::command(), "echod", &mut script);
    String::from_utf8_lossy(&script).into_owned()
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
    Status(Migrations),
    /// Apply those that are outstanding, without serving; running hosts on PostgreSQL go on meanwhile
    Up(Migrations),
    /// After a move: serve from the SQLite files again, as they were then
    Back {
        /// The data folder whose data was moved
        #[arg(long, value_name = "DIR", default_value = "./data")]
        data: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct Migrations {
    #[command(flatten)]
    pub host: Host,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
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
    #[command(after_help = TOKEN_NEW_EXAMPLES)]
    New {
        /// Who or what will use it, such as ci or ann: letters, digits, -, _ and ., first a letter or a digit
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
        /// So many of them
        #[arg(long, value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=limits::OPERATOR_AUDIT_MAX as u64))]
        limit: u64,
        #[command(flatten)]
        admin: Admin,
    },
}

#[derive(Debug, Subcommand)]
pub enum Plugin {
    /// Write a folder with a whole small service in it: contract, manifest, tables, code. Builds as it is
    New(New),
    /// Make one self-describing file: the component with its manifest, its contracts and its migrations
    #[command(after_help = PACK_EXAMPLES)]
    Pack(Pack),
    /// Say what is in a packed file: routes, sockets, events, imports, limits, migrations
    Inspect {
        /// A packed file
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON schema of plugin.toml, for editors
    Schema {
        /// As a page for people
        #[arg(long)]
        markdown: bool,
    },
    /// Send a packed file to a running host and make it the live version. Traffic goes on meanwhile; a version that cannot work is refused
    #[command(after_help = DEPLOY_EXAMPLES)]
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
    /// Say what the gate of a running host would say of a packed file, and deploy nothing; the exit status says so too
    #[command(after_help = VERIFY_EXAMPLES)]
    Verify {
        /// A packed file
        file: PathBuf,
        /// Confirm a change by the name that the plan gives it, as with deploy
        #[arg(long, value_name = "NAME")]
        allow: Vec<String>,
        /// Grant imports, as with deploy
        #[arg(long, value_name = "NAME", value_delimiter = ',')]
        grant: Vec<String>,
        #[command(flatten)]
        admin: Admin,
    },
    /// Say what differs between two versions of a service: routes, frames, limits, functions, fields and their bounds, and what of it is refused or
    /// has to be confirmed
    #[command(after_help = DIFF_EXAMPLES)]
    Diff {
        /// The service's name; or a packed file, which is compared with the version that runs
        #[arg(value_name = "NAME|FILE")]
        what: String,
        /// A version that the host keeps, `live`, or a packed file [default: live]
        from: Option<String>,
        /// The same; with one version alone, that is compared with the one that runs
        to: Option<String>,
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
    /// Print the host's answer as JSON
    #[arg(long)]
    pub json: bool,
}
