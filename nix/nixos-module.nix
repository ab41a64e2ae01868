# `services.echo`: one host with its services as a systemd unit, and the servers that it runs on. It renders settings and hardens the unit; what a setting means is the
# host's business, which checks them while the system is built.
{ self }:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.echo;
  toml = pkgs.formats.toml { };
  packages = self.packages.${pkgs.stdenv.hostPlatform.system};
  echod = lib.getExe cfg.package;
  secrets = builtins.attrNames cfg.secrets;
  isSettingsVariable = name: builtins.match "ECHO_[A-Z0-9_]+__[A-Z0-9_]+" name != null;
  isOutsideTheStore =
    path: builtins.match "/.*" path != null && builtins.match "/nix/store/.*" path == null;

  servers =
    lib.optionals cfg.postgresql.createLocally [ "postgresql.target" ]
    ++ lib.optionals cfg.redis.createLocally [ "redis-echo.service" ]
    ++ lib.optionals cfg.nats.createLocally [ "nats.service" ];
  # What a secret is, only the machine knows: the settings are checked with something of its kind.
  placeholder =
    name:
    {
      ECHO_SQL__URL = "postgres://echo:secret@localhost/echo";
      ECHO_CACHE__URL = "redis://localhost";
      ECHO_EVENTS__URL = "nats://localhost";
    }
    .${name} or "a placeholder of more than thirty-two characters";

  # One folder, as the host wants it; two packages with a service of the same name fail the build.
  plugins = pkgs.runCommand "echo-plugins" { } ''
    mkdir $out
    for folder in ${
      lib.concatMapStringsSep " " (package: "${package}/lib/echo/plugins") cfg.plugins
    }; do
      ln -s "$folder"/*.wasm $out/
    done
  '';
in
{
  options.services.echo = {
    enable = lib.mkEnableOption "Echo, a messaging platform";

    package = lib.mkOption {
      type = lib.types.package;
      default = packages.host;
      defaultText = lib.literalExpression "echo.packages.\${system}.host";
      description = "The host.";
    };

    plugins = lib.mkOption {
      type = lib.types.listOf lib.types.package;
      default = [ packages.plugins ];
      defaultText = lib.literalExpression "[ echo.packages.\${system}.plugins ]";
      description = "Packages with packed services below lib/echo/plugins. What an operator deployed later lies in the data folder.";
    };

    port = lib.mkOption {
      type = lib.types.port;
      default = 8080;
      description = "Where clients connect, on every address. settings.server.listen goes over it.";
    };

    openFirewall = lib.mkEnableOption "that port in the firewall. The operator's address stays closed";

    settings = lib.mkOption {
      inherit (toml) type;
      default = { };
      example = lib.literalExpression ''{ log.level = "warn"; services.message.edit_window_s = 900; }'';
      description = "The content of echo.toml, which explains every setting. No secret belongs here: everybody can read the Nix store.";
    };

    secrets = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
      example = {
        ECHO_SERVER__ADMIN_TOKEN = "/run/keys/echo-admin-token";
      };
      description = "Settings, by the names of their variables, and the files that hold them. systemd reads the files; the host alone sees them.";
    };

    startTimeout = lib.mkOption {
      type = lib.types.int;
      default = 60;
      description = "Seconds until the host has to be ready. Only then the unit counts as started.";
    };

    configFile = lib.mkOption {
      type = lib.types.package;
      readOnly = true;
      description = "The rendered echo.toml, after `echod serve --check` has found it good.";
    };

    # One host keeps its data in files of its own. With these it runs on servers of this machine, and their addresses are in `settings`; for
    # servers elsewhere give their addresses there (sql.url, cache.url, events.url) and passwords by `secrets`.
    postgresql.createLocally = lib.mkEnableOption "PostgreSQL on this machine, with a database for Echo. Wants tokens.master_key: `secrets.ECHO_TOKENS__MASTER_KEY`";
    redis.createLocally = lib.mkEnableOption "Redis on this machine, for the cache and rate limits";
    nats.createLocally = lib.mkEnableOption "NATS with JetStream on this machine, for events. Wants PostgreSQL";
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = builtins.all isSettingsVariable secrets;
        message = "services.echo.secrets: names are those of settings' variables, such as ECHO_SERVER__ADMIN_TOKEN";
      }
      {
        assertion = builtins.all (name: isOutsideTheStore cfg.secrets.${name}) secrets;
        message = "services.echo.secrets: a secret is an absolute path outside the Nix store, which everybody can read";
      }
      {
        assertion = cfg.postgresql.createLocally -> cfg.secrets ? ECHO_TOKENS__MASTER_KEY;
        message = "services.echo.postgresql.createLocally: hosts of a database have a master key: secrets.ECHO_TOKENS__MASTER_KEY";
      }
      {
        assertion =
          cfg.nats.createLocally -> ((cfg.settings.sql or { }) ? url || cfg.secrets ? ECHO_SQL__URL);
        message = "services.echo.nats.createLocally: events are kept in PostgreSQL too: postgresql.createLocally, or sql.url in the settings";
      }
    ];

    services.echo = {
      settings = {
        server.listen = lib.mkDefault "0.0.0.0:${toString cfg.port}";
        data = {
          dir = "/var/lib/echo";
          plugins = lib.mkDefault "${plugins}";
        };
        sql = lib.mkIf cfg.postgresql.createLocally {
          url = lib.mkDefault "postgres:///echo?host=/run/postgresql&user=echo";
        };
        cache = lib.mkIf cfg.redis.createLocally { url = lib.mkDefault "redis://127.0.0.1:6379"; };
        events = lib.mkIf cfg.nats.createLocally {
          url = lib.mkDefault "nats://127.0.0.1:4222";
          replicas = lib.mkDefault 1;
        };
      };
      configFile =
        let
          rendered = toml.generate "echo.toml" cfg.settings;
        in
        pkgs.runCommand "echo.toml" { } ''
          ${lib.concatMapStringsSep "
" (
            name: "export ${name}=file:${builtins.toFile "placeholder" (placeholder name)}"
          ) secrets}
          ${echod} serve --check --config ${rendered}
          cp ${rendered} $out
        '';
    };

    # The host's own role is that of its account; the services' roles have passwords, which the host makes.
    services.postgresql = lib.mkIf cfg.postgresql.createLocally {
      enable = true;
      ensureDatabases = [ "echo" ];
      ensureUsers = [
        {
          name = "echo";
          ensureDBOwnership = true;
          ensureClauses.createrole = true;
        }
      ];
      authentication = ''
        local echo echo peer
        local echo all scram-sha-256
      '';
    };
    services.redis.servers = lib.mkIf cfg.redis.createLocally {
      echo = {
        enable = true;
        bind = "127.0.0.1";
        port = 6379;
        # It keeps what may be lost.
        save = [ ];
      };
    };
    services.nats = lib.mkIf cfg.nats.createLocally {
      enable = true;
      serverName = "echo";
      jetstream = true;
      settings.host = "127.0.0.1";
    };

    networking.firewall.allowedTCPPorts = lib.optionals cfg.openFirewall [ cfg.port ];

    users.users.echo = {
      isSystemUser = true;
      group = "echo";
      home = "/var/lib/echo";
    };
    users.groups.echo = { };

    systemd.services.echo = {
      description = "Echo";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ] ++ servers;
      after = [ "network-online.target" ] ++ servers;
      serviceConfig = {
        Type = "exec";
        ExecStart = "${echod} serve --config ${cfg.configFile}";
        # What is ordered after this unit finds a host that answers.
        ExecStartPost = "${echod} ready --data /var/lib/echo --wait ${toString cfg.startTimeout}";
        TimeoutStartSec = cfg.startTimeout + 30;
        # Above server.drain_timeout.
        TimeoutStopSec = lib.mkDefault 60;
        Restart = "on-failure";
        RestartSec = 1;

        # systemd reads the files as root and shows them to this unit alone; the settings say where (%d).
        LoadCredential = map (name: "${name}:${cfg.secrets.${name}}") secrets;
        Environment = map (name: "${name}=file:%d/${name}") secrets;

        User = "echo";
        Group = "echo";
        StateDirectory = "echo";
        StateDirectoryMode = "0700";
        WorkingDirectory = "/var/lib/echo";
        UMask = "0077";
        # A socket is a file: limits.rs has the bound on connections.
        LimitNOFILE = 1048576;

        AmbientCapabilities = lib.optionals (cfg.port < 1024) [ "CAP_NET_BIND_SERVICE" ];
        CapabilityBoundingSet = if cfg.port < 1024 then [ "CAP_NET_BIND_SERVICE" ] else [ "" ];
        LockPersonality = true;
        # Services are compiled to machine code while the host runs: memory is written, then executed.
        MemoryDenyWriteExecute = false;
        NoNewPrivileges = true;
        PrivateDevices = true;
        PrivateTmp = true;
        ProcSubset = "pid";
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProtectSystem = "strict";
        RemoveIPC = true;
        RestrictAddressFamilies = [
          "AF_INET"
          "AF_INET6"
          "AF_UNIX"
        ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        SystemCallErrorNumber = "EPERM";
        SystemCallFilter = [
          "@system-service"
          "~@privileged"
        ];
      };
    };
  };
}
