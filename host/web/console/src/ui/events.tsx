// The queue: what waits for whom, and what became a dead letter.

import { useEffect, useState } from 'preact/hooks';
import type { Consumer, DeadLetter, List } from '../api.js';
import { at, count } from '../format.js';
import { attempt, call, consumers, lag } from '../state.js';
import { Chart } from './chart.js';
import { Button, Confirm, Loading, Section, Table, type Column } from './parts.js';

const CONSUMERS: Column<Consumer>[] = [
  { name: 'Consumer', of: (one) => <a href={`#/services/${one.consumer}`}>{one.consumer}</a> },
  { name: 'Topic', of: (one) => one.topic },
  { name: 'Waiting', number: true, of: (one) => count(one.lag) },
  { name: 'Dead letters', number: true, of: (one) => <span class={one.dead_letters > 0 ? 'bad' : undefined}>{count(one.dead_letters)}</span> },
];

export function Events() {
  const [letters, setLetters] = useState<DeadLetter[] | null>(null);
  const [dropping, setDropping] = useState<DeadLetter | null>(null);
  const known = consumers.value;
  const dead = known?.reduce((sum, one) => sum + one.dead_letters, 0);
  const read = () => call<List<DeadLetter>>('GET', 'queue/dead-letters?limit=200').then(({ items }) => setLetters(items), () => setLetters([]));
  useEffect(() => void read(), [dead]);
  if (!known) return <Loading what="Asking the host" />;
  const act = async (done: string, method: string, path: string) => {
    await attempt(done, () => call(method, `queue/dead-letters/${path}`));
    await read();
  };
  const columns: Column<DeadLetter>[] = [
    { name: 'When', of: (one) => at(one.at) },
    { name: 'Consumer', of: (one) => one.consumer },
    { name: 'Topic', of: (one) => one.event.topic },
    { name: 'Key', of: (one) => <code>{one.event.key}</code> },
    { name: 'Tries', number: true, of: (one) => one.tries },
    { name: 'Reason', of: (one) => one.reason },
    {
      name: 'Event',
      of: (one) =>
        one.event.payload === null ? (
          'for scope admin'
        ) : (
          <details>
            <summary>Read</summary>
            <pre>{pretty(one.event.payload)}</pre>
          </details>
        ),
    },
    {
      name: '',
      of: (one) => (
        <span class="acts">
          <Button wants="admin" label={`Replay the event ${one.event.id}`} onClick={() => void act('It is in the queue again', 'POST', `${encodeURIComponent(one.id)}/replay`)}>
            Replay
          </Button>
          <Button wants="admin" label={`Drop the event ${one.event.id}`} onClick={() => setDropping(one)}>
            Drop
          </Button>
        </span>
      ),
    },
  ];
  const times = lag.value.map((one) => one.at);
  return (
    <>
      <h1 tabIndex={-1}>Events</h1>
      <div class="charts">
        <Chart title="Events waiting" at={times} show={count} whole series={[{ name: 'Waiting', colour: 'accent', values: lag.value.map((one) => one.lag) }]} />
        <Chart title="Dead letters" at={times} show={count} whole series={[{ name: 'Dead letters', colour: 'danger', values: lag.value.map((one) => one.deadLetters) }]} />
      </div>
      <Section title="Dead letters">
        {letters ? <Table title="Dead letters" columns={columns} items={letters} keyOf={(one) => `${one.id} ${one.consumer}`} none="None: every event was handled, or is being tried again." /> : <Loading what="Reading" />}
      </Section>
      <Section title="Consumers">
        <Table title="Consumers" columns={CONSUMERS} items={known} keyOf={(one) => `${one.consumer} ${one.topic}`} none="No service subscribes to events." />
      </Section>
      {dropping && (
        <Confirm title="Drop this event?" act="Drop" onClose={() => setDropping(null)} onAct={() => act('It is dropped', 'DELETE', encodeURIComponent(dropping.id))}>
          <p>
            {dropping.consumer} will never handle it: {dropping.event.topic}, {dropping.reason}
          </p>
        </Confirm>
      )}
    </>
  );
}

function pretty(payload: string): string {
  try {
    return JSON.stringify(JSON.parse(payload), null, 2);
  } catch {
    return payload;
  }
}
