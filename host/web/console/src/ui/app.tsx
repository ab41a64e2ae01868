// The whole page: signing in, or the navigation with the page that was chosen.

import { useEffect, useRef, useState } from 'preact/hooks';
import { can, hosts, operator, page, poll, signIn, signOut, trouble } from '../state.js';
import { theme, type Theme } from '../theme.js';
import { Audit } from './audit.js';
import { Events } from './events.js';
import { Hosts } from './hosts.js';
import { Button, Field, Loading, Notices } from './parts.js';
import { Service } from './service.js';
import { Services } from './services.js';
import { Tokens } from './tokens.js';

export function App() {
  return (
    <>
      {operator.value === undefined ? <Loading what="Opening the console" /> : operator.value === null ? <SignIn /> : <Signed />}
      <Notices />
    </>
  );
}

function SignIn() {
  const [given, setGiven] = useState('');
  const [busy, setBusy] = useState(false);
  const [failed, setFailed] = useState('');
  const submit = async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setFailed('');
    await signIn(given.trim()).catch((error: Error) => setFailed(error.message));
    setBusy(false);
  };
  return (
    <main class="sign-in">
      <h1>Echo console</h1>
      <form onSubmit={(event) => void submit(event)}>
        <Field label="Operator's token" type="password" autocomplete="off" required value={given} onInput={setGiven} hint="echod dev prints the host's own; it is in run/addresses.json of the data folder. echod token new makes others." />
        {failed && (
          <p class="failed" role="alert">
            {failed}
          </p>
        )}
        <Button kind="primary" type="submit" busy={busy}>
          Sign in
        </Button>
      </form>
    </main>
  );
}

const PAGES = [
  { name: 'services', title: 'Services' },
  { name: 'events', title: 'Events' },
  { name: 'hosts', title: 'Hosts' },
  { name: 'audit', title: 'History' },
  { name: 'tokens', title: 'Tokens' },
] as const;

function Signed() {
  const { name, of } = page.value;
  const main = useRef<HTMLElement>(null);
  const first = useRef(true);
  const shown = PAGES.find((one) => one.name === name) ?? PAGES[0];
  useEffect(() => {
    document.title = `${of || shown.title} – Echo console`;
    void poll();
    // A new page begins at its heading, for those who use a keyboard or a screen reader too.
    if (!first.current) main.current?.querySelector<HTMLElement>('h1')?.focus();
    first.current = false;
  }, [name, of]);
  return (
    <div class="shell">
      <a class="skip" href="#main" onClick={(event) => (event.preventDefault(), main.current?.querySelector<HTMLElement>('h1')?.focus())}>
        Skip to the page
      </a>
      <header class="top">
        <p class="brand">
          Echo <span>{hosts.value?.find((host) => host.this)?.name ?? ''}</span>
        </p>
        <nav aria-label="Console">
          {PAGES.map(({ name, title }) => (
            <a href={`#/${name}`} aria-current={shown.name === name ? 'page' : undefined}>
              {title}
            </a>
          ))}
        </nav>
        <div class="account">
          <span class="who">
            {operator.value!.name} <span class="soft">{operator.value!.scopes.join(', ')}</span>
          </span>
          <select aria-label="Theme" value={theme.value} onChange={(event) => (theme.value = event.currentTarget.value as Theme)}>
            <option value="system">System</option>
            <option value="light">Light</option>
            <option value="dark">Dark</option>
          </select>
          <Button onClick={signOut}>Sign out</Button>
        </div>
      </header>
      {trouble.value && (
        <p class="trouble" role="status">
          {trouble.value}
        </p>
      )}
      <main ref={main} id="main">
        {shown.name === 'services' && (of ? <Service key={of} name={of} /> : <Services />)}
        {shown.name === 'events' && <Events />}
        {shown.name === 'hosts' && <Hosts />}
        {shown.name === 'audit' && <Audit />}
        {shown.name === 'tokens' && (can('admin') ? <Tokens /> : <Missing />)}
      </main>
    </div>
  );
}

function Missing() {
  return (
    <>
      <h1 tabIndex={-1}>Tokens</h1>
      <p class="none">Tokens are made and ended with a token of scope admin.</p>
    </>
  );
}
