// Resumable uploads by a client that others wrote: tus-js-client against a real host.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Upload } from 'tus-js-client';
import { Host, newPhone } from './host.mjs';

const CHUNK_BYTES = 700_000;
const bytes = Buffer.from(Uint8Array.from({ length: 3_000_000 }, (_, at) => at % 251));

let host;
let authorization;
before(async () => {
  host = await Host.start();
  const post = async (path, body) => {
    const answer = await fetch(`${host.url}/api/v1/auth/${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    });
    assert.ok(answer.ok, `${path}: ${answer.status}`);
    return answer.json();
  };
  const phone = newPhone();
  const { registration_id } = await post('register', { phone, password: 'correct horse 7' });
  const otp = await host.codeFor(phone);
  const { access_token } = await post('verify-otp', { registration_id, phone, otp, device: { id: 'tus' } });
  authorization = `Bearer ${access_token}`;
});
after(() => host.end());

/** Runs until it is done, or until `stop` says so after a chunk. */
function send(options, stop = () => false) {
  return new Promise((resolve, reject) => {
    const upload = new Upload(bytes, {
      endpoint: `${host.url}/api/v1/media`,
      headers: { authorization },
      chunkSize: CHUNK_BYTES,
      retryDelays: [0, 100, 500, 1_000, 2_000],
      metadata: { filename: 'a.bin', filetype: 'application/octet-stream' },
      onError: reject,
      onSuccess: () => resolve(upload),
      onChunkComplete: (_size, accepted) => {
        if (stop(accepted)) upload.abort().then(() => resolve(upload), reject);
      },
      ...options,
    });
    upload.start();
  });
}

const fetched = (url, path = '') => fetch(`${url}${path}`, { headers: { authorization } });

async function isWhole(url) {
  const media = await (await fetched(url)).json();
  assert.deepEqual([media.state, media.file_name, media.size], ['ready', 'a.bin', bytes.length]);
  const content = Buffer.from(await (await fetched(url, '/content')).arrayBuffer());
  assert.ok(content.equals(bytes), `${content.length} bytes came back`);
}

test('a file arrives in chunks', async () => {
  const { url } = await send({});
  await isWhole(url);
});

test('an upload that was stopped goes on where it was, after the host was killed too', async () => {
  const { url } = await send({}, (accepted) => accepted >= 2 * CHUNK_BYTES);
  assert.equal((await (await fetched(url)).json()).state, 'uploading');
  await host.restart();
  let first = null;
  await send({ uploadUrl: url, onProgress: (sent) => (first ??= sent) });
  assert.ok(first >= 2 * CHUNK_BYTES, `it began at ${first}`);
  await isWhole(url);
});

test('an upload that is given up is gone', async () => {
  const upload = await send({}, (accepted) => accepted >= CHUNK_BYTES);
  await upload.abort(true);
  assert.equal((await fetched(upload.url)).status, 404);
});

test('a file that is too large is refused before a byte of it is sent', async () => {
  const refused = await send({ uploadSize: 4 * 1024 ** 3, retryDelays: [] }).catch((error) => error);
  assert.equal(refused.originalResponse?.getStatus(), 413, String(refused));
});
