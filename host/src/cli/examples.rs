//! What `--help` shows below the options: examples, and what the exit statuses mean.

pub(super) const EXAMPLES: &str = "\
Examples:
  echod dev                                          run everything on this machine; addresses are printed
  echod serve --config /etc/echo/echo.toml           run in production
  echod plugin deploy target/plugins/message.wasm    replace a service while people talk
  echod reload                                       take over what was changed of [[gateway.routes]] in echo.toml
  echod backup /backups/monday                       copy what a running host keeps
  echod restore /backups/monday --data /var/lib/echo   put it back, with the host ended
  echod doctor --config /etc/echo/echo.toml          what would keep a host from running well, and what to do
  echod migrate --from sqlite:/var/lib/echo --to postgres://echo@db.example/echo

Exit status:
  0  done
  1  it failed, or doctor found what would keep a host from running
  2  the command line or the settings are wrong
  3  the host refused
  4  no host was found, or it does not answer or is not ready

Colours are for terminals alone; NO_COLOR=1 switches them off there too. echo.toml explains every setting.";

pub(super) const SERVE_EXAMPLES: &str = "\
Settings come from echo.toml, then from variables named ECHO_SECTION__KEY, then from the flags here.

Examples:
  echod serve --config /etc/echo/echo.toml --check   are the settings good?
  ECHO_LOG__LEVEL=debug echod serve --data /var/lib/echo
  echod serve --listen 127.0.0.1:0                   any free port; see run/addresses.json in the data folder";

pub(super) const DEV_EXAMPLES: &str = "\
Examples:
  echod dev                                          http://127.0.0.1:8080, data in ./data
  echod dev --data /tmp/echo --listen 127.0.0.1:0    a second one beside it
  curl http://127.0.0.1:8080/dev/outbox              the codes and messages that would have been sent";

pub(super) const READY_EXAMPLES: &str = "\
Examples:
  echod ready --data /var/lib/echo --wait 60         after a start: returns when it is up, or says that it is not
  echod ready --url http://10.0.0.7:8080 || systemctl restart echo";

pub(super) const RELOAD_EXAMPLES: &str = "\
Examples:
  echod serve --config /etc/echo/echo.toml --check && echod reload --data /var/lib/echo";

pub(super) const BACKUP_EXAMPLES: &str = "\
Examples:
  echod backup /backups/monday --data /var/lib/echo
  echod backup /backups/monday --json                how many files and bytes, for a program";

pub(super) const RESTORE_EXAMPLES: &str = "\
Examples:
  echod restore /backups/monday --data /tmp/tried    does it work? then: echod serve --data /tmp/tried
  echod restore /backups/monday --data /var/lib/echo --replace";

pub(super) const MIGRATE_EXAMPLES: &str = "\
A move copies the running host, ends it, brings over what was written meanwhile, compares both sides row by row, and puts the files aside. Until
then the database refuses hosts, and afterwards the files do; cut off at any point, it begins anew when it is run again.

Examples:
  echod migrate --from sqlite:/var/lib/echo --to postgres://echo@db.example/echo --config /etc/echo/new.toml
  echod migrate --from sqlite:./data --to env:DATABASE_URL
  echod migrate back --data /var/lib/echo            to the files as they were when the data was moved
  echod migrate status --config /etc/echo/echo.toml --plugins /opt/echo/plugins
  echod migrate up --config /etc/echo/echo.toml --plugins /opt/echo/plugins";

pub(super) const DOCTOR_EXAMPLES: &str = "\
The exit status is 1 where something would keep a host from running, and 0 for warnings alone.

Examples:
  echod doctor --config /etc/echo/echo.toml --data /var/lib/echo
  echod doctor --dev
  echod doctor --json | jq '.items[] | select(.verdict != \"good\")'";

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  echod completions bash > ~/.local/share/bash-completion/completions/echod
  echod completions zsh > ~/.zfunc/_echod            with fpath+=~/.zfunc before compinit
  echod completions fish > ~/.config/fish/completions/echod.fish";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  echod man /usr/local/share/man/man1                then: man echod-plugin-deploy
  echod man /tmp/pages && man -l /tmp/pages/echod.1";

pub(super) const TOKEN_NEW_EXAMPLES: &str = "\
Examples:
  export ECHO_ADMIN_TOKEN=$(echod token new ci --scope deploy --days 365)
  echod token new grafana --scope metrics,read";

pub(super) const PACK_EXAMPLES: &str = "\
Examples:
  echod plugin pack plugins/message -o message.wasm  of what `cargo xtask plugins` built
  echod plugin pack . -o polls.wasm                  of a service's own folder, after cargo build --release --target wasm32-unknown-unknown";

pub(super) const DEPLOY_EXAMPLES: &str = "\
Examples:
  echod plugin deploy message.wasm --dry-run         the plan, and what would have to be confirmed
  echod plugin deploy message.wasm --allow 'route-removed:GET /api/v1/messages/drafts'
  echod plugin deploy polls.wasm --grant echo:context,echo:sql,echo:config,echo:log";

pub(super) const VERIFY_EXAMPLES: &str = "\
Examples:
  echod plugin verify message.wasm                   0: it would be accepted; 3: it would not, and why
  echod plugin verify message.wasm --json | jq .plan";

pub(super) const DIFF_EXAMPLES: &str = "\
Examples:
  echod plugin diff message.wasm                     from what runs to this file
  echod plugin diff message 0.1.0                    from what runs to a version that the host keeps
  echod plugin diff message 0.1.0 0.2.0
  echod plugin diff message ./old.wasm ./new.wasm --json";

pub(super) const TOKEN_EXAMPLES: &str = "\
Examples:
  echod token new ci --scope deploy --days 365       for a pipeline that deploys
  echod token new scraper --scope metrics            for Prometheus
  ECHO_ADMIN_TOKEN=echo_op_… echod plugin list --admin http://10.0.0.7:9090
  echod token list
  echod token end ci
  echod token audit                                  who did what
  echod token audit --limit 1000 --json | jq '.items[] | select(.operator == \"ci\")'";

pub(super) const PLUGIN_EXAMPLES: &str = "\
A host on this machine is found by its data folder (--data, ./data); any other one by --admin and --token, or by ECHO_ADMIN_URL and
ECHO_ADMIN_TOKEN.

Examples:
  echod plugin new polls --sdk ../echo/plugins/sdk   a service of one's own, to begin with
  echod plugin pack plugins/message -o message.wasm  one file with everything in it
  echod plugin inspect message.wasm                  what it offers and what it wants
  echod plugin diff message.wasm                     what of it differs from what runs
  echod plugin verify message.wasm                   would it be accepted?
  echod plugin deploy message.wasm                   make it live
  echod plugin deploy message.wasm --allow 'route-removed:GET /api/v1/messages/drafts'
  echod plugin history message
  echod plugin rollback message                      back to the last good version; again: to the one before that";
