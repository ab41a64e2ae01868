# `nix flake check`: the formatting, the lints, every test, the components' bytes, the module and, in a virtual machine, the whole of it.
{
  self,
  pkgs,
  echo,
}:
let
  inherit (echo) common craneLib;
  module = import ./nixos-module-test.nix {
    inherit pkgs;
    inherit (pkgs) lib;
  };
  untrue = builtins.filter (name: !module.${name}) (builtins.attrNames module);
in
{
  fmt = craneLib.cargoFmt (common // { pname = "echo"; });

  clippy = craneLib.cargoClippy (
    common
    // {
      inherit (echo) cargoArtifacts;
      pname = "echo";
      cargoClippyExtraArgs = "--workspace --all-targets -- --deny warnings";
    }
  );

  # The stages that `cargo xtask test` has for everybody, but for those that are checks of their own here.
  tests = echo.xtask {
    pname = "echo-tests";
    command = "cargo xtask test --fast";
    # The tests pack with the host that they test.
    packer = null;
    inputs = echo.servers;
  };

  # Two folders, two CARGO_HOMEs and two environments give the bytes that the package has.
  plugins-reproducible = echo.xtask {
    pname = "echo-plugins-reproducible";
    command = ''
      cargo xtask plugins --check
      diff -r target/plugins ${echo.plugins}/lib/echo/plugins
    '';
  };

  # What the module makes of its options; evaluated, not built.
  module =
    if untrue == [ ] then
      pkgs.runCommand "echo-module" { } "touch $out"
    else
      throw "nixos-module-test.nix: not true: ${builtins.toJSON untrue}";

  # Builds a NixOS and boots it: only where there is network (or a cache) and KVM.
  vm = pkgs.testers.runNixOSTest (import ./vm-test.nix { inherit self; });
}
