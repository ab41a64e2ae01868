# A machine that boots with the module, and a person who signs up on it. Needs network (or a cache) to be built and KVM to be quick:
# `nix build .#checks.x86_64-linux.vm`. Where there is neither, nixos-module-test.nix has what evaluation alone can show.
{ self }:
{
  name = "echo";

  nodes.machine = {
    imports = [ self.nixosModules.default ];
    # As a secret comes from outside; here it is none.
    environment.etc."operator-token".text = "the operator's token";
    services.echo = {
      enable = true;
      openFirewall = true;
      secrets.ECHO_SERVER__ADMIN_TOKEN = "/etc/operator-token";
      settings.log.level = "info";
    };
  };

  testScript = ''
    import json

    operator = "curl -sS --fail -H \"authorization: Bearer the operator's token\" http://127.0.0.1:9090/admin/v1"

    # The unit has started only when the host is ready: no waiting for a port.
    machine.wait_for_unit("echo.service")
    machine.succeed("curl -sS --fail http://127.0.0.1:8080/ready")

    services = json.loads(machine.succeed(operator + "/plugins"))["items"]
    assert [service["name"] for service in services] == ["analytics", "auth", "location", "media", "message", "notification", "presence", "user"], services
    assert all(service["state"] == "live" and len(service["component_sha256"]) == 64 for service in services), services
    machine.fail("curl -sS --fail http://127.0.0.1:9090/admin/v1/plugins")

    person = json.dumps({"phone": "+14155550101", "password": "correct horse 7"})
    register = f"curl -sS --fail -H 'content-type: application/json' -d '{person}' http://127.0.0.1:8080/api/v1/auth/register"
    assert "registration_id" in json.loads(machine.succeed(register))

    # Nobody else reads its data, and it comes back by itself.
    machine.fail("su -s /bin/sh nobody -c 'ls /var/lib/echo'")
    machine.succeed("systemctl kill --signal=KILL echo.service")
    machine.wait_until_succeeds("systemctl is-active echo.service && curl -sS --fail http://127.0.0.1:8080/ready")
    machine.succeed("systemctl stop echo.service")
    machine.fail("journalctl -u echo.service | grep \"the operator's token\"")
  '';
}
