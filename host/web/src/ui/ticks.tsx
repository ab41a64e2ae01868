// Sent, delivered, read: as signs for the eye and as words for a screen reader.

import type { Message } from '@echo/client';
import { Icon } from './icons.js';

const WORDS = { waiting: 'waiting to be sent', sent: 'sent', delivered: 'delivered', read: 'read' };

export function Ticks({ status }: { status: Message['status'] | 'waiting' }) {
  const name = status === 'waiting' ? 'clock' : status === 'sent' ? 'sent' : 'twice';
  return (
    <span class={`ticks ticks-${status}`} data-status={status}>
      <Icon name={name} label={WORDS[status]} />
    </span>
  );
}
