// What operators changed, or tried to: who, when, what, and how it was answered.

import { useEffect, useState } from 'preact/hooks';
import type { AuditItem, List } from '../api.js';
import { at } from '../format.js';
import { call } from '../state.js';
import { Button, Loading, Table, type Column } from './parts.js';

const COLUMNS: Column<AuditItem>[] = [
  { name: 'When', of: (one) => at(one.at) },
  { name: 'Who', of: (one) => one.operator },
  { name: 'Host', of: (one) => one.node },
  { name: 'Request', of: (one) => <code>{one.request}</code> },
  { name: 'Answer', number: true, of: (one) => <span class={one.status >= 400 ? 'bad' : undefined}>{one.status}</span> },
  { name: 'Detail', of: (one) => one.detail || '–' },
];

export function Audit() {
  const [items, setItems] = useState<AuditItem[] | null>(null);
  const [next, setNext] = useState<string | null>(null);
  const show = (before: AuditItem[], page: List<AuditItem>) => {
    setItems([...before, ...page.items]);
    setNext(page.next_cursor);
  };
  const read = () => call<List<AuditItem>>('GET', 'audit?limit=100').then((page) => show([], page), () => setItems([]));
  // What is shown stays where the older ones cannot be read; the call has said why.
  const older = () => call<List<AuditItem>>('GET', `audit?limit=100&cursor=${next}`).then((page) => show(items ?? [], page), () => undefined);
  useEffect(() => void read(), []);
  return (
    <>
      <div class="page-head">
        <h1 tabIndex={-1}>History</h1>
        <Button onClick={() => void read()}>Read again</Button>
      </div>
      {items ? <Table title="History" columns={COLUMNS} items={items} keyOf={(one) => `${one.at} ${one.request}`} none="Nobody has changed anything yet." /> : <Loading what="Reading" />}
      {next && <Button onClick={() => void older()}>Older ones</Button>}
    </>
  );
}
