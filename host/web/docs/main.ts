// `/docs`: what the host says of its interface, to read and to try. The viewer is Swagger UI, loaded once its part is looked at.

const byId = (id: string) => document.getElementById(id)!;
const state = byId('state');

interface Viewer {
  preauthorizeApiKey(scheme: string, token: string): void;
}
let viewer: Promise<Viewer> | null = null;

async function openViewer(): Promise<Viewer> {
  const { default: SwaggerUIBundle } = await import('./viewer.js');
  return new Promise((resolve) => {
    const ui: Viewer = SwaggerUIBundle({
      url: '/openapi.json',
      dom_id: '#http',
      deepLinking: false,
      docExpansion: 'none',
      filter: true,
      displayRequestDuration: true,
      validatorUrl: null,
      onComplete: () => {
        state.hidden = true;
        resolve(ui);
      },
    });
  });
}

function element(name: string, text: string, ...children: Node[]): HTMLElement {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

interface Frame {
  name: string;
  summary?: string;
  description?: string;
  payload: unknown;
}

/** The frames of the socket, from `/asyncapi.json`. Text reaches the page as text alone. */
async function openSocketPart(): Promise<void> {
  const answer = await fetch('/asyncapi.json');
  const document_ = (await answer.json()) as { info: { title: string; version: string; description?: string }; components: { messages: Record<string, Frame>; schemas?: Record<string, unknown> } };
  const { messages, schemas = {} } = document_.components;
  const section = (title: string, about: string, names: string[]) => {
    const frames = names.map((name) => {
      const frame = messages[name]!;
      const details = element('details', '', element('summary', '', element('code', frame.name), element('span', ` ${frame.summary ?? ''}`)));
      details.addEventListener('toggle', () => {
        if (details.children.length > 1) return;
        if (frame.description) details.append(element('p', frame.description));
        details.append(element('pre', JSON.stringify(resolved(frame.payload, schemas), null, 2)));
      });
      return details;
    });
    return element('section', '', element('h2', title), element('p', about), ...frames);
  };
  const names = Object.keys(messages);
  const part = byId('socket');
  part.replaceChildren(
    element('p', document_.info.description ?? ''),
    section('From the client', 'One JSON text frame each; one with an id is answered.', names.filter((name) => name.startsWith('client_'))),
    section('From the server', 'Frames with a seq are kept and come again after a lost connection.', names.filter((name) => !/^(client|reply)_/.test(name))),
    section('Answers', 'To frames with an id.', names.filter((name) => name.startsWith('reply_'))),
  );
}

/** With what it refers to in its place; what refers to itself ends after some levels. */
function resolved(node: unknown, schemas: Record<string, unknown>, depth = 0): unknown {
  if (Array.isArray(node)) return node.map((one) => resolved(one, schemas, depth));
  if (typeof node !== 'object' || node === null) return node;
  const reference = (node as { $ref?: string }).$ref?.split('/').at(-1);
  if (reference !== undefined) return depth > 4 ? { $ref: reference } : resolved(schemas[reference], schemas, depth + 1);
  return Object.fromEntries(Object.entries(node).map(([name, value]) => [name, resolved(value, schemas, depth)]));
}

/** The access token of the web client in this browser. */
function token(): Promise<string | null> {
  return new Promise((resolve) => {
    const opening = indexedDB.open('echo');
    // Nobody has signed in here: the database is not made by looking for it.
    opening.onupgradeneeded = () => opening.transaction!.abort();
    opening.onerror = () => resolve(null);
    opening.onsuccess = () => {
      try {
        const reading = opening.result.transaction('values').objectStore('values').get('credentials');
        reading.onsuccess = () => resolve((reading.result as { access_token?: string } | undefined)?.access_token ?? null);
        reading.onerror = () => resolve(null);
      } catch {
        resolve(null);
      }
      opening.result.close();
    };
  });
}

let socketPart: Promise<void> | null = null;

async function show(): Promise<void> {
  const socket = location.hash === '#socket';
  byId('http').hidden = socket;
  byId('socket').hidden = !socket;
  byId('to-http').toggleAttribute('aria-current', !socket);
  byId('to-socket').toggleAttribute('aria-current', socket);
  try {
    if (socket) await (socketPart ??= openSocketPart());
    else await (viewer ??= openViewer());
    state.hidden = true;
  } catch (error) {
    socketPart = viewer = null;
    state.hidden = false;
    state.textContent = `The interface cannot be read: ${String(error)}`;
  }
}

const dark = matchMedia('(prefers-color-scheme: dark)');
const themed = () => document.documentElement.classList.toggle('dark-mode', dark.matches);
dark.addEventListener('change', themed);
themed();
addEventListener('popstate', () => void show());
for (const link of ['to-http', 'to-socket'])
  byId(link).addEventListener('click', (event) => {
    // The viewer listens to addresses too: what changes here is none of its own.
    event.preventDefault();
    history.pushState(null, '', (event.currentTarget as HTMLAnchorElement).hash);
    void show();
  });
void show();
void token().then((found) => (byId('session').hidden = found === null));
byId('use-session').addEventListener('click', async () => {
  const [found, ui] = [await token(), await (viewer ??= openViewer())];
  if (found === null) return;
  ui.preauthorizeApiKey('bearer', found);
  byId('session').textContent = 'Requests that you try are made as the account that is signed in to the web client.';
});
