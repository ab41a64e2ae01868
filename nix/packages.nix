# What can be built: the host, the services as packed components, the image, and what the other parts need to build more.
# Knows no service by name: which there are is for `cargo xtask plugins` to find.
{ pkgs, crane }:
let
  inherit (pkgs) lib;

  toolchain = pkgs.rust-bin.fromRustupToolchainFile ./toolchain.toml;
  craneLib = (crane.mkLib pkgs).overrideToolchain toolchain;

  # What a compiler or a test reads, and no more: a change anywhere else rebuilds nothing.
  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../.cargo
      ../Cargo.lock
      ../Cargo.toml
      ../clippy.toml
      ../deny.toml
      ../echo.toml
      ../host
      ../migrations
      ../nix/toolchain.toml
      ../plugins
      ../README.md
      ../rustfmt.toml
      ../wit
      ../xtask
    ];
  };

  # From the lock file alone, so that an evaluation that builds nothing works.
  cargoVendorDir = craneLib.vendorCargoDeps { cargoLock = ../Cargo.lock; };

  inherit ((fromTOML (builtins.readFile ../Cargo.toml)).workspace.package) version;

  common = {
    inherit src cargoVendorDir version;
    strictDeps = true;
  };

  hostOnly = common // {
    pname = "echod";
    cargoExtraArgs = "--locked --package echod";
  };
  cargoArtifacts = craneLib.buildDepsOnly hostOnly;

  host = craneLib.buildPackage (
    hostOnly
    // {
      inherit cargoArtifacts;
      doCheck = false; # checks.tests has them all
      meta = {
        description = "Echo's host";
        license = lib.licenses.asl20;
        mainProgram = "echod";
      };
    }
  );

  # A derivation that runs `cargo xtask`, as people without Nix do. Where the dependencies lie is told to it, because their paths are
  # to be taken out of the components.
  xtask =
    {
      pname,
      command,
      install ? "touch $out",
      packer ? lib.getExe host,
      inputs ? [ ],
    }:
    craneLib.mkCargoDerivation (
      common
      // {
        inherit pname;
        cargoArtifacts = null;
        doInstallCargoArtifacts = false;
        nativeBuildInputs = inputs;
        # Not a byte is changed after the build.
        dontStrip = true;
        dontFixup = true;
        buildPhaseCargoCommand = ''
          export ECHO_VENDOR_DIRS="$(echo ${cargoVendorDir}/*/ | tr ' ' ':')"
          ${if packer == null then "" else "export ECHOD=${packer}"}
          ${command}
        '';
        installPhaseCommand = install;
      }
    );

  plugins = xtask {
    pname = "echo-plugins";
    command = "cargo xtask plugins";
    install = ''
      mkdir -p $out/lib/echo
      cp -r target/plugins $out/lib/echo/plugins
    '';
  };

  dev =
    pkgs.runCommand "echo-dev"
      {
        meta = {
          description = "Echo with its services, on the embedded backends";
          mainProgram = "echo-dev";
        };
      }
      ''
        mkdir -p $out/bin
        cat > $out/bin/echo-dev <<'end'
        #!/bin/sh
        export ECHO_DATA__PLUGINS="''${ECHO_DATA__PLUGINS:-${plugins}/lib/echo/plugins}"
        exec ${lib.getExe host} dev "$@"
        end
        chmod +x $out/bin/echo-dev
      '';
in
{
  inherit
    cargoArtifacts
    common
    craneLib
    dev
    host
    plugins
    toolchain
    xtask
    ;

  image = import ./image.nix {
    inherit
      pkgs
      host
      plugins
      version
      ;
  };

  # What the tests and a developer start on free ports.
  servers = [
    pkgs.postgresql_18
    pkgs.redis
    pkgs.nats-server
  ];
}
