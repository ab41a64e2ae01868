// Named tokens of operators: made, shown once, ended.

import { useEffect, useRef, useState } from 'preact/hooks';
import type { List, Scope, Token } from '../api.js';
import { at } from '../format.js';
import { attempt, call } from '../state.js';
import { Button, Confirm, Field, Loading, Section, Table, type Column } from './parts.js';

const SCOPES: [Scope, string][] = [
  ['metrics', 'metrics: reads GET /metrics'],
  ['read', 'read: looks at everything'],
  ['deploy', 'deploy: and changes versions of services'],
  ['admin', 'admin: and does everything else'],
];

export function Tokens() {
  const [tokens, setTokens] = useState<Token[] | null>(null);
  const [name, setName] = useState('');
  const [scope, setScope] = useState<Scope>('read');
  const [days, setDays] = useState('');
  const [made, setMade] = useState<(Token & { token: string }) | null>(null);
  const [ending, setEnding] = useState<Token | null>(null);
  const shown = useRef<HTMLInputElement>(null);
  const read = () => call<List<Token>>('GET', 'tokens?limit=100').then(({ items }) => setTokens(items), () => setTokens([]));
  useEffect(() => void read(), []);
  useEffect(() => {
    shown.current?.focus();
    shown.current?.select();
  }, [made]);
  const make = async () => {
    const expires_in = Number(days) > 0 ? Math.round(Number(days) * 86_400) : null;
    const done = await attempt(`The token ${name} is made`, async () => setMade(await call('POST', 'tokens', { name, scopes: [scope], expires_in })));
    if (!done) return;
    setName('');
    setDays('');
    await read();
  };
  const columns: Column<Token>[] = [
    { name: 'Name', of: (one) => one.name },
    { name: 'Scopes', of: (one) => one.scopes.join(', ') },
    { name: 'Made', of: (one) => `${at(one.created_at)} by ${one.created_by}` },
    { name: 'Ends', of: (one) => (one.expires_at ? (new Date(one.expires_at) < new Date() ? 'expired' : at(one.expires_at)) : 'never') },
    { name: 'Used last', of: (one) => at(one.used_at) },
    {
      name: '',
      of: (one) => (
        <Button label={`End ${one.name}`} onClick={() => setEnding(one)}>
          End
        </Button>
      ),
    },
  ];
  return (
    <>
      <h1 tabIndex={-1}>Tokens</h1>
      <Section title="Make a token">
        <form
          class="inline"
          onSubmit={(event) => {
            event.preventDefault();
            void make();
          }}
        >
          <Field label="Name" value={name} onInput={setName} required autocomplete="off" />
          <div class="field">
            <label for="scope">Scope</label>
            <select id="scope" class="input" value={scope} onChange={(event) => setScope(event.currentTarget.value as Scope)}>
              {SCOPES.map(([scope, title]) => (
                <option value={scope}>{title}</option>
              ))}
            </select>
          </div>
          <Field label="Days (empty: until it is ended)" type="number" min={1} value={days} onInput={setDays} />
          <Button kind="primary" type="submit" disabled={!name}>
            Make
          </Button>
        </form>
        {made && (
          <div class="made">
            <label for="made">Token of {made.name}. It is not shown again.</label>
            <input id="made" ref={shown} class="input" readOnly value={made.token} />
            <Button onClick={() => setMade(null)}>I have it</Button>
          </div>
        )}
      </Section>
      <Section title="All tokens">
        {tokens ? <Table title="Tokens" columns={columns} items={tokens} keyOf={(one) => one.id} none="None but the host's own." /> : <Loading what="Reading" />}
      </Section>
      {ending && (
        <Confirm
          title={`End ${ending.name}?`}
          act="End it"
          onClose={() => setEnding(null)}
          onAct={async () => {
            await attempt(`${ending.name} is ended`, () => call('DELETE', `tokens/${ending.id}`));
            await read();
          }}
        >
          <p>Whoever uses it is refused from then on.</p>
        </Confirm>
      )}
    </>
  );
}
