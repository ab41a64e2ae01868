// The hosts of the cluster, their connections, and the drain of this one.

import { useState } from 'preact/hooks';
import type { Connections, Host } from '../api.js';
import { age, at, count } from '../format.js';
import { attempt, call, connections, hosts } from '../state.js';
import { Button, Confirm, Loading, Section, State, Table, type Column } from './parts.js';

const HOSTS: Column<Host>[] = [
  { name: 'Host', of: (one) => (one.this ? `${one.name} (this one)` : one.name) },
  { name: 'State', of: (one) => <State of={one.state} /> },
  { name: 'echod', of: (one) => one.version },
  { name: 'Reached at', of: (one) => one.advertise },
  { name: 'Up since', of: (one) => at(one.started_at) },
  { name: 'Seen', of: (one) => (one.this ? 'now' : `${age(one.seen_ms_ago)} ago`) },
  { name: 'Connections', number: true, of: (one) => count(one.connections) },
  {
    name: 'Runs',
    of: (one) => (
      <details>
        <summary>{one.services.length} services</summary>
        <ul class="lines">
          {one.services.map(({ name, version, sha256 }) => (
            <li>
              {name} {version} <code title={sha256}>{sha256.slice(0, 12)}</code>
            </li>
          ))}
        </ul>
      </details>
    ),
  },
  {
    name: 'Leases',
    of: (one) =>
      one.leases.length === 0 ? (
        '–'
      ) : (
        <details>
          <summary>{one.leases.length}</summary>
          <ul class="lines">
            {one.leases.map((lease) => (
              <li>{lease}</li>
            ))}
          </ul>
        </details>
      ),
  },
];

const SOCKETS: Column<Connections['items'][number]>[] = [
  { name: 'Connection', of: (one) => <code>{one.connection_id}</code> },
  { name: 'User', of: (one) => <code>{one.user_id}</code> },
  { name: 'Device', of: (one) => <code>{one.device_id}</code> },
];

export function Hosts() {
  const [draining, setDraining] = useState(false);
  const known = hosts.value;
  if (!known) return <Loading what="Asking the host" />;
  const here = known.find((host) => host.this);
  const sockets = connections.value;
  return (
    <>
      <div class="page-head">
        <h1 tabIndex={-1}>Hosts</h1>
        <Button kind="danger" wants="admin" disabled={here?.state === 'draining'} onClick={() => setDraining(true)}>
          Drain this host
        </Button>
      </div>
      <Section title="Hosts of the cluster">
        <Table title="Hosts" columns={HOSTS} items={known} keyOf={(one) => one.name} none="None." />
      </Section>
      <Section title="Connections">
        {sockets ? (
          <>
            <p class="hint">{sockets.nodes.map(({ node, count: open }) => `${node}: ${count(open)}`).join(' · ')}. Below are those of this host, the first 1,000.</p>
            <Table title="Connections" columns={SOCKETS} items={sockets.items} keyOf={(one) => one.connection_id} none="Nobody is connected to this host." />
          </>
        ) : (
          <Loading what="Counting" />
        )}
      </Section>
      {draining && (
        <Confirm title={`Drain ${here?.name ?? 'this host'}?`} act="Drain" onClose={() => setDraining(false)} onAct={() => attempt('It drains and ends', () => call('POST', 'drain'))}>
          <p>It takes no new connections, lets its requests end, asks its clients to connect elsewhere, and ends. Whoever started it decides whether it starts again.</p>
        </Confirm>
      )}
    </>
  );
}
