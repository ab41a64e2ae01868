# The OCI image: the host, its services and CA certificates, and nothing else; no shell, no package manager. It runs as 65532 and writes
# below /data alone. Whether it is well, `echod ready` says from inside it: OCI has no field for a health check, so whoever runs the image
# names that command (host/docs/REPRODUCE.md shows how).
{
  pkgs,
  host,
  plugins,
  version,
}:
let
  user = "65532";
in
pkgs.dockerTools.buildLayeredImage {
  name = "echo";
  tag = version;
  contents = [
    host
    pkgs.cacert
  ];
  fakeRootCommands = ''
    install -d -m 0700 -o ${user} -g ${user} ./data
    install -d -m 1777 ./tmp
  '';
  config = {
    Entrypoint = [ (pkgs.lib.getExe host) ];
    Cmd = [ "serve" ];
    Env = [
      "ECHO_DATA__DIR=/data"
      "ECHO_DATA__PLUGINS=${plugins}/lib/echo/plugins"
      "PATH=/bin"
      "SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt"
    ];
    ExposedPorts."8080/tcp" = { };
    # `./data`, where the commands look for the host, is /data.
    WorkingDir = "/";
    Volumes."/data" = { };
    User = "${user}:${user}";
    StopSignal = "SIGTERM";
    Labels = {
      "org.opencontainers.image.title" = "Echo";
      "org.opencontainers.image.version" = version;
      "org.opencontainers.image.licenses" = "Apache-2.0";
    };
  };
}
