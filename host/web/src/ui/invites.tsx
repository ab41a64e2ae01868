// Links by which people join a group: made and ended by those who manage it, followed by anybody who has one.

import type { Conversation, Invite } from '@echo/client';
import { useEffect, useState } from 'preact/hooks';
import { echo } from '../state/echo.js';
import { attempt, meaning } from '../state/notices.js';
import { go } from '../state/route.js';
import { keep } from '../state/talk.js';
import { Icon } from './icons.js';
import { Button, Dialog, Empty, IconButton, Loading } from './parts.js';
import { moment } from './times.js';

const ROUTE = '/api/v1/messages/conversations/{id}/invites';
const HOUR_MS = 3_600_000;
const ENDS: [string, number | null][] = [
  ['no end', null],
  ['an hour', HOUR_MS],
  ['a day', 24 * HOUR_MS],
  ['a week', 7 * 24 * HOUR_MS],
];

const addressOf = (invite: Invite) => `${location.origin}/join/${invite.code}`;

export function Invites({ conversation, onClose }: { conversation: Conversation; onClose: () => void }) {
  const path = { id: conversation.id };
  const [items, setItems] = useState<Invite[] | null>(null);
  const [end, setEnd] = useState(2);
  const [most, setMost] = useState(0);
  const [busy, setBusy] = useState(false);
  const load = () => attempt(async () => setItems((await echo.rest.get(ROUTE, { path })).items));
  useEffect(() => void load(), []);
  const make = async () => {
    setBusy(true);
    const after = ENDS[end]![1];
    const body = { ...(after === null ? {} : { expires_at: new Date(Date.now() + after).toISOString() }), ...(most > 0 ? { uses_max: most } : {}) };
    if (await attempt(() => echo.rest.post(ROUTE, { path, body }))) await load();
    setBusy(false);
  };
  const revoke = async (code: string) => {
    if (await attempt(() => echo.rest.delete(`${ROUTE}/{code}`, { path: { ...path, code } }), 'Nobody joins by that link any more')) await load();
  };
  return (
    <Dialog title="Invite by link" onClose={onClose}>
      <form class="form" onSubmit={(event) => (event.preventDefault(), void make())}>
        <label class="setting">
          <span>Good for</span>
          <select class="select" value={String(end)} onChange={(event) => setEnd(Number(event.currentTarget.value))}>
            {ENDS.map(([title], index) => (
              <option key={title} value={String(index)}>
                {title}
              </option>
            ))}
          </select>
        </label>
        <label class="setting">
          <span>How many may join</span>
          <select class="select" value={String(most)} onChange={(event) => setMost(Number(event.currentTarget.value))}>
            {[0, 1, 10, 100].map((count) => (
              <option key={count} value={String(count)}>
                {count === 0 ? 'as many as want' : count}
              </option>
            ))}
          </select>
        </label>
        <Button kind="primary" type="submit" busy={busy}>
          Make a link
        </Button>
      </form>
      {items === null && <Loading what="Loading" />}
      <ul class="scheduled">
        {items?.map((invite) => (
          <li key={invite.code}>
            <div class="code-line">
              <code dir="ltr">{addressOf(invite)}</code>
              <IconButton name="copy" label="Copy the link" onClick={() => void attempt(() => navigator.clipboard.writeText(addressOf(invite)), 'Copied')} />
              <IconButton name="trash" label="End the link" onClick={() => void revoke(invite.code)} />
            </div>
            <p class="setting-about">
              {[`${invite.uses} joined${invite.uses_max ? ` of ${invite.uses_max}` : ''}`, invite.expires_at ? `ends ${moment(invite.expires_at)}` : 'no end'].join(' · ')}
            </p>
          </li>
        ))}
      </ul>
    </Dialog>
  );
}

/** The page that such a link opens. */
export function Join({ code }: { code: string }) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<unknown>(null);
  const join = async () => {
    setBusy(true);
    setProblem(null);
    try {
      const conversation = await echo.rest.post('/api/v1/messages/join/{code}', { path: { code } });
      keep(conversation);
      go(`/c/${conversation.id}`, true);
    } catch (error) {
      setProblem(error);
      setBusy(false);
    }
  };
  return (
    <main class="pane pane-empty">
      <Empty icon="link" title="You are invited">
        <p>Somebody sent you a link to a group. Who joins sees what is written from now on, and the others see who joined.</p>
        {problem !== null && (
          <p class="failure" role="alert">
            {(problem as { status?: number }).status === 404 ? 'This link is over, or used up. Ask for another one.' : meaning(problem)}
          </p>
        )}
        <div class="form-row">
          <a class="button button-plain" href="/">
            Not now
          </a>
          <Button kind="primary" busy={busy} onClick={() => void join()}>
            <Icon name="people" /> Join the group
          </Button>
        </div>
      </Empty>
    </main>
  );
}
