// An OpenID Connect provider of tests: npm's `oidc-provider`, in memory. Whoever gives a name at its pages is signed in as that. Arguments: the folder of the
// packages, the port. `POST /rotate` makes new keys, and publishes and signs with these alone.

import { generateKeyPairSync, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [packages, port] = process.argv.slice(2);
const { default: Provider } = await import(pathToFileURL(join(packages, "oidc-provider/lib/index.js")));
const issuer = `http://127.0.0.1:${port}`;

const algorithms = {
  RS256: () => generateKeyPairSync("rsa", { modulusLength: 2048 }),
  ES256: () => generateKeyPairSync("ec", { namedCurve: "P-256" }),
  EdDSA: () => generateKeyPairSync("ed25519"),
};

function newKeys() {
  return Object.entries(algorithms).map(([alg, make]) => ({
    ...make().privateKey.export({ format: "jwk" }),
    alg,
    use: "sig",
    kid: `${alg} ${randomUUID()}`,
  }));
}

const cookieKeys = [randomUUID()];

function newProvider() {
  return new Provider(issuer, {
    clients: Object.keys(algorithms).map((alg) => ({
      client_id: `echo-${alg}`,
      application_type: "native",
      token_endpoint_auth_method: "none",
      redirect_uris: ["http://127.0.0.1/signed-in"],
      id_token_signed_response_alg: alg,
    })),
    jwks: { keys: newKeys() },
    enabledJWA: { idTokenSigningAlgValues: Object.keys(algorithms) },
    cookies: { keys: cookieKeys },
    claims: { openid: ["sub"], email: ["email", "email_verified"] },
    conformIdTokenClaims: false,
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@company.example`, email_verified: true }),
    }),
  });
}

let serve = newProvider().callback();
const server = createServer((request, response) => {
  if (request.method === "POST" && request.url === "/rotate") {
    serve = newProvider().callback();
    response.writeHead(204).end();
    return;
  }
  serve(request, response);
});
server.listen(Number(port), "127.0.0.1");
