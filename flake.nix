# Echo for Nix: tools, packages, checks, the NixOS module and the OCI image, all from the sources beside it. What each is stands in nix/.
# It compiles nothing in a way of its own: components come from `cargo xtask plugins`, as they do without Nix.
{
  description = "Echo: a messaging platform whose services are WebAssembly components";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixpkgs-unstable";
    rust-overlay = {
      url = "github:oxalica/rust-overlay";
      inputs.nixpkgs.follows = "nixpkgs";
    };
    crane.url = "github:ipetkov/crane";
  };

  outputs =
    {
      self,
      nixpkgs,
      rust-overlay,
      crane,
    }:
    let
      inherit (nixpkgs) lib;
      # Where Echo runs, and where it is worked on besides. Intel Macs are gone from nixpkgs.
      hosts = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      desks = hosts ++ [ "aarch64-darwin" ];
      on =
        systems: f:
        lib.genAttrs systems (
          system:
          let
            pkgs = import nixpkgs {
              inherit system;
              overlays = [ rust-overlay.overlays.default ];
            };
          in
          f {
            inherit pkgs;
            echo = import ./nix/packages.nix { inherit pkgs crane; };
          }
        );
    in
    {
      packages = on hosts (
        { echo, ... }:
        {
          inherit (echo) host plugins image;
          default = echo.host;
        }
      );

      # `nix run`: everything on this machine, data in ./data.
      apps = on hosts (
        { echo, ... }:
        {
          default = {
            type = "app";
            program = lib.getExe echo.dev;
            meta.description = "Echo with its services, on the embedded backends";
          };
        }
      );

      devShells = on desks (
        { pkgs, echo }: { default = import ./nix/shell.nix { inherit pkgs crane echo; }; }
      );

      checks = on hosts ({ pkgs, echo }: import ./nix/checks.nix { inherit self pkgs echo; });

      # nix fmt flake.nix nix/*.nix
      formatter = on desks ({ pkgs, ... }: pkgs.nixfmt);

      overlays.default = _final: prev: {
        echod = self.packages.${prev.stdenv.hostPlatform.system}.host;
        echo-plugins = self.packages.${prev.stdenv.hostPlatform.system}.plugins;
      };

      nixosModules.default = import ./nix/nixos-module.nix { inherit self; };
    };
}
