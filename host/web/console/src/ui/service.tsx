// One service: its generations, versions and history; a new version, and the way back.

import { useEffect, useState } from 'preact/hooks';
import type { Activation, Generation, HistoryItem, List } from '../api.js';
import { age, at, bytes, count, duration } from '../format.js';
import { attempt, call, notify, samples, services } from '../state.js';
import { Charts } from './services.js';
import { Button, Check, Confirm, Loading, Section, State, Table, type Column } from './parts.js';
import { Upload } from './upload.js';

const GENERATIONS: Column<Generation>[] = [
  { name: 'Generation', of: (one) => one.generation },
  { name: 'State', of: (one) => <State of={one.state} /> },
  { name: 'Version', of: (one) => one.version },
  { name: 'Live since', of: (one) => `${age(one.age_ms)} ago` },
  { name: 'Calls', number: true, of: (one) => count(one.traffic.calls) },
  { name: 'Errors', number: true, of: (one) => count(one.traffic.errors) },
  { name: 'Traps', number: true, of: (one) => count(one.traffic.traps) },
  { name: 'p50', number: true, of: (one) => duration(one.traffic.p50_us) },
  { name: 'p99', number: true, of: (one) => duration(one.traffic.p99_us) },
  { name: 'Running', number: true, of: (one) => count(one.traffic.running) },
];

const HISTORY: Column<HistoryItem>[] = [
  { name: 'When', of: (one) => at(one.at) },
  { name: 'What', of: (one) => one.action },
  { name: 'Version', of: (one) => (one.replaced ? `${one.replaced} → ${one.version}` : one.version) },
  { name: 'Who', of: (one) => one.operator ?? 'the host' },
  { name: 'Host', of: (one) => one.node ?? '–' },
  { name: 'Why', of: (one) => [one.reason, one.forced && 'forced'].filter(Boolean).join('; ') || '–' },
];

type Asked = { act: 'rollback' } | { act: 'activate' | 'remove'; version: string };

export function Service({ name }: { name: string }) {
  const service = services.value?.find((one) => one.name === name);
  const [history, setHistory] = useState<HistoryItem[] | null>(null);
  const [uploading, setUploading] = useState(false);
  const [asked, setAsked] = useState<Asked | null>(null);
  const path = `plugins/${encodeURIComponent(name)}`;
  useEffect(() => {
    call<List<HistoryItem>>('GET', `${path}/history`).then(({ items }) => setHistory(items), () => setHistory([]));
  }, [name, service?.generation, service?.versions.length]);
  if (!services.value) return <Loading what="Asking the host" />;
  if (!service) {
    return (
      <>
        <h1 tabIndex={-1}>{name}</h1>
        <p class="none">This host has no service of this name.</p>
      </>
    );
  }
  const versions: Column<string>[] = [
    { name: 'Version', of: (version) => version },
    { name: 'State', of: (version) => (version === service.active ? <State of="live" /> : service.bad_versions.includes(version) ? <State of="rolled away from" /> : 'kept') },
    {
      name: '',
      of: (version) =>
        version !== service.active && (
          <span class="acts">
            <Button wants="deploy" label={`Activate ${version}`} onClick={() => setAsked({ act: 'activate', version })}>
              Activate
            </Button>
            <Button wants="deploy" label={`Remove ${version}`} onClick={() => setAsked({ act: 'remove', version })}>
              Remove
            </Button>
          </span>
        ),
    },
  ];
  return (
    <>
      <p class="crumb">
        <a href="#/services">Services</a>
      </p>
      <div class="page-head">
        <h1 tabIndex={-1}>{name}</h1>
        <State of={service.state} />
        {service.breaker === 'open' && <State of="open" />}
        <span class="spacer" />
        <Button wants="deploy" onClick={() => setAsked({ act: 'rollback' })}>
          Roll back
        </Button>
        <Button kind="primary" wants="deploy" onClick={() => setUploading(true)}>
          Upload a version
        </Button>
      </div>
      <dl class="facts">
        <Fact name="Version" value={service.active ?? 'none'} testId="active" />
        <Fact name="Generation" value={String(service.generation ?? '–')} />
        <Fact name="p99" value={duration(service.traffic.p99_us)} />
        <Fact name="Running" value={count(service.calls_running)} />
        <Fact name="Instances" value={count(service.instances)} />
        <Fact name="Memory" value={bytes(service.memory_bytes)} />
        <Fact name="Breaker" value={service.breaker} />
      </dl>
      <Charts samples={samples.value.get(name) ?? []} />
      <Section title="Generations">
        <Table title="Generations" columns={GENERATIONS} items={service.generations} keyOf={(one) => String(one.generation)} none="None on this host." />
      </Section>
      <Section title="Versions">
        <Table title="Versions" columns={versions} items={service.versions} keyOf={(version) => version} none="None." />
      </Section>
      <Section title="History">
        {history ? <Table title="History" columns={HISTORY} items={history} keyOf={(one) => one.at} none="Nothing yet." /> : <Loading what="Reading the history" />}
      </Section>
      <Section title="What it offers and uses">
        <details>
          <summary>{service.routes.length} routes</summary>
          <Lines of={service.routes} />
        </details>
        <details>
          <summary>{service.grants.length} imports</summary>
          <Lines of={service.grants} />
        </details>
        <p class="hint">
          Packed file: SHA-256 <code>{service.sha256 ?? '–'}</code>
        </p>
      </Section>
      {uploading && <Upload service={service} onClose={() => setUploading(false)} />}
      {asked?.act === 'rollback' && <Rollback name={name} path={path} onClose={() => setAsked(null)} />}
      {asked?.act === 'activate' && (
        <Confirm
          title={`Activate ${asked.version}?`}
          act="Activate"
          onClose={() => setAsked(null)}
          onAct={() => attempt(`${name} ${asked.version} is live`, () => call('PUT', `${path}/active`, { version: asked.version }))}
        >
          <p>New requests reach {asked.version} at once; requests that began before end where they began.</p>
        </Confirm>
      )}
      {asked?.act === 'remove' && (
        <Confirm
          title={`Remove ${asked.version}?`}
          act="Remove"
          onClose={() => setAsked(null)}
          onAct={() => attempt(`${name} ${asked.version} is removed`, () => call('DELETE', `${path}/versions/${encodeURIComponent(asked.version)}`))}
        >
          <p>Nobody can go back to it then, except by uploading it again.</p>
        </Confirm>
      )}
    </>
  );
}

function Rollback({ name, path, onClose }: { name: string; path: string; onClose: () => void }) {
  const [force, setForce] = useState(false);
  const run = async () => {
    let back: Activation | undefined;
    const done = await attempt(`${name} is rolled back`, async () => (back = await call<Activation>('POST', `${path}/rollback${force ? '?force=true' : ''}`)));
    // What clients had and have no more stays to be read.
    if (done && back?.loses?.length) notify('failed', `Lost with it: ${back.loses.join('; ')}`);
  };
  return (
    <Confirm title={`Roll ${name} back?`} act="Roll back" onAct={run} onClose={onClose}>
      <p>The version that was live before, and was not rolled away from, becomes live. It needs neither a check nor the database, so it is quick.</p>
      <Check label="Even if other services need what it does not have (force)" checked={force} onChange={setForce} />
    </Confirm>
  );
}

function Fact({ name, value, testId }: { name: string; value: string; testId?: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd data-testid={testId}>{value}</dd>
    </div>
  );
}

export function Lines({ of }: { of: string[] }) {
  return (
    <ul class="lines">
      {of.map((line) => (
        <li>
          <code>{line}</code>
        </li>
      ))}
    </ul>
  );
}
