# Every tool that somebody needs who works on Echo, each at the version that flake.lock and nix/toolchain.toml name.
{
  pkgs,
  crane,
  echo,
}:
let
  inherit (pkgs) lib;
  # The compiler of the packages, and what an editor wants besides. `extensions` takes the place of the file's `components`.
  toolchain = echo.toolchain.override {
    extensions = [
      "clippy"
      "rust-analyzer"
      "rust-src"
      "rustfmt"
    ];
  };
in
((crane.mkLib pkgs).overrideToolchain toolchain).devShell {
  packages =
    echo.servers
    ++ [
      pkgs.cargo-nextest
      pkgs.sqlx-cli
      pkgs.wasm-tools
      pkgs.nodejs
      pkgs.nixfmt
      pkgs.deadnix
    ]
    # nixpkgs has it for Linux alone.
    ++ lib.optionals pkgs.stdenv.hostPlatform.isLinux [ pkgs.chromium ];
}
