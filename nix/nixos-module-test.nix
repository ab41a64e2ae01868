# What nixos-module.nix makes of its options: every line must be true. Evaluated with a module system and a few open options, without the
# rest of NixOS; that the unit starts is for vm-test.nix.
{ lib, pkgs }:
let
  inherit (pkgs.stdenv.hostPlatform) system;
  package =
    name:
    pkgs.runCommand name {
      meta.mainProgram = "echod";
    } "touch $out";
  self.packages.${system} = {
    host = package "host";
    plugins = package "plugins";
  };
  open = lib.mkOption {
    type = lib.types.anything;
    default = { };
  };
  nixos.options = {
    assertions = lib.mkOption {
      type = lib.types.listOf lib.types.anything;
      default = [ ];
    };
    networking = open;
    services.postgresql = open;
    services.redis = open;
    services.nats = open;
    systemd.services = open;
    users = open;
  };
  run =
    echo:
    (lib.evalModules {
      modules = [
        nixos
        (import ./nixos-module.nix { inherit self; })
        { services.echo = echo; }
      ];
      specialArgs = { inherit pkgs; };
    }).config;
  on = options: run ({ enable = true; } // options);
  settings = options: (on options).services.echo.settings;
  unit = options: (on options).systemd.services.echo.serviceConfig;
  says = text: expect: builtins.match ".*${expect}.*" text != null;
  complaints =
    options: builtins.length (builtins.filter (check: !check.assertion) (on options).assertions);
  fails = value: !(builtins.tryEval (builtins.deepSeq value true)).success;
  vm = import ./vm-test.nix { self.nixosModules.default = null; };
  unitOf = options: (on options).systemd.services.echo;
  key.ECHO_TOKENS__MASTER_KEY = "/run/keys/echo-master-key";
  local = {
    secrets = key;
    postgresql.createLocally = true;
    redis.createLocally = true;
    nats.createLocally = true;
  };
  elsewhere = {
    secrets = key // {
      ECHO_SQL__PASSWORD = "/run/keys/echo-sql";
      ECHO_EVENTS__URL = "/run/keys/echo-nats";
    };
    settings.sql.url = "postgres://echo@db.example/echo";
    settings.cache.url = "rediss://cache.example";
  };
  secret = {
    secrets.ECHO_SERVER__ADMIN_TOKEN = "/run/keys/echo";
  };
in
{
  off = (run { }).systemd.services == { };
  start = says (unit { }).ExecStart "/bin/echod serve --config /nix/store/[^ ]*-echo.toml";
  gate =
    says (unit { startTimeout = 9; }).ExecStartPost
      "/bin/echod ready --data /var/lib/echo --wait 9";
  gateEndsBeforeTheUnit = (unit { startTimeout = 9; }).TimeoutStartSec > 9;

  port = (settings { }).server.listen == "0.0.0.0:8080";
  portFollows = (settings { port = 9; }).server.listen == "0.0.0.0:9";
  settingsGoOverOptions =
    (settings { settings.server.listen = "127.0.0.1:1"; }).server.listen == "127.0.0.1:1";
  settingsAreKept = (settings { settings.log.level = "warn"; }).log.level == "warn";
  badPort = fails (on { port = 70000; }).services.echo.port;
  unknownOption = fails (on { prot = 1; }).services.echo;
  data = (settings { }).data.dir == "/var/lib/echo" && (unit { }).StateDirectory == "echo";
  plugins = says (settings { }).data.plugins "-echo-plugins";
  lowPort = (unit { port = 80; }).AmbientCapabilities == [ "CAP_NET_BIND_SERVICE" ];
  noCapability = (unit { }).AmbientCapabilities == [ ];

  closed = (on { }).networking.firewall.allowedTCPPorts == [ ];
  opened = (on { openFirewall = true; }).networking.firewall.allowedTCPPorts == [ 8080 ];

  noSecret = (unit { }).LoadCredential == [ ] && (unit { }).Environment == [ ];
  secretByFile =
    (unit secret).LoadCredential == [ "ECHO_SERVER__ADMIN_TOKEN:/run/keys/echo" ]
    && (unit secret).Environment == [ "ECHO_SERVER__ADMIN_TOKEN=file:%d/ECHO_SERVER__ADMIN_TOKEN" ];
  secretIsNotInTheSettings = settings secret == settings { };
  accepted = complaints secret == 0;
  secretInTheStore = complaints { secrets.ECHO_SERVER__ADMIN_TOKEN = "/nix/store/x"; } == 1;
  secretItself = complaints { secrets.ECHO_SERVER__ADMIN_TOKEN = "s3cret"; } == 1;
  secretOfAnother = complaints { secrets.PATH = "/run/keys/echo"; } == 1;

  embedded =
    !(settings { } ? cache)
    && (on { }).services.postgresql == { }
    && (unitOf { }).after == [ "network-online.target" ];
  servers =
    (settings local).sql.url == "postgres:///echo?host=/run/postgresql&user=echo"
    && (settings local).cache.url == "redis://127.0.0.1:6379"
    && (settings local).events.replicas == 1
    && (on local).services.postgresql.ensureDatabases == [ "echo" ]
    && (on local).services.redis.servers.echo.bind == "127.0.0.1"
    && (on local).services.nats.jetstream;
  serversFirst = builtins.length (unitOf local).after == 4;
  serversAccepted = complaints local == 0;
  masterKeyWanted = complaints (local // { secrets = { }; }) == 1;
  natsWantsPostgresql = complaints { nats.createLocally = true; } == 1;
  serversElsewhere =
    complaints elsewhere == 0
    && (settings elsewhere).sql.url == "postgres://echo@db.example/echo"
    && builtins.elem "ECHO_SQL__PASSWORD=file:%d/ECHO_SQL__PASSWORD" (unit elsewhere).Environment;

  vmTest = complaints vm.nodes.machine.services.echo == 0;

  # Wasmtime compiles while it runs.
  jit = !(unit { }).MemoryDenyWriteExecute;
  hardened =
    (unit { }).NoNewPrivileges && (unit { }).ProtectSystem == "strict" && (unit { }).User == "echo";
}
