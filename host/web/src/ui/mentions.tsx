// What concerns oneself: mentions in groups, and changes of the account.

import type { Message } from '@echo/client';
import { useEffect, useState } from 'preact/hooks';
import { echo } from '../state/echo.js';
import { attempt } from '../state/notices.js';
import { nameOf, need } from '../state/people.js';
import { jump } from '../state/talk.js';
import { Icon } from './icons.js';
import { Empty, Loading } from './parts.js';
import { excerpt } from './sidebar.js';
import { ago } from './times.js';

export const MENTIONS = 'GET /api/v1/notifications';

interface Notification {
  id: string;
  kind: 'mention' | 'password_changed';
  message_id: string | null;
  conversation_id: string | null;
  sender_id: string | null;
  at: string;
  read: boolean;
}

export function Mentions() {
  const [items, setItems] = useState<Notification[] | null>(null);
  useEffect(() => {
    void attempt(async () => {
      const page = await echo.rest.get('/api/v1/notifications', { query: { limit: 50 } });
      need(page.items.map((one) => one.sender_id ?? ''));
      setItems(page.items);
      const newest = page.items[0];
      if (newest && !newest.read) await echo.rest.post('/api/v1/notifications/read', { body: { up_to: newest.id } });
    });
  }, []);
  if (items === null) return <Loading what="Loading" />;
  if (items.length === 0)
    return (
      <Empty icon="bell" title="Nothing yet">
        <p>Where somebody mentions you in a group, you find it here.</p>
      </Empty>
    );
  return (
    <ul class="group">
      {items.map((one) => (
        <li class={one.read ? 'participant' : 'participant row-unread'} key={one.id}>
          {one.kind === 'mention' ? (
            <MentionLine notification={one} />
          ) : (
            <>
              <Icon name="key" />
              <span class="setting-text">
                <span>Your password was changed</span>
                <span class="setting-about">{ago(one.at)}</span>
              </span>
            </>
          )}
        </li>
      ))}
    </ul>
  );
}

function MentionLine({ notification }: { notification: Notification }) {
  const { message_id, conversation_id, sender_id, at } = notification;
  const [message, setMessage] = useState<Message | null>(null);
  useEffect(() => {
    if (message_id) echo.rest.get('/api/v1/messages/{id}', { path: { id: message_id } }).then(setMessage, () => undefined);
  }, [message_id]);
  const open = () => {
    if (message) jump.value = { conversation: message.conversation_id, seq: message.seq };
  };
  return (
    <a class="row-text plain" href={`/c/${conversation_id}`} onClick={open}>
      <span class="setting-about" dir="auto">
        {sender_id ? nameOf(sender_id) : 'Somebody'} · {ago(at)}
      </span>
      <span dir="auto">{message ? (message.deleted_at ? 'Message deleted' : excerpt(message.content, message.type)) : 'mentioned you'}</span>
    </a>
  );
}
