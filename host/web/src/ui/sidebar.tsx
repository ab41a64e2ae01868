// The list of conversations.

import type { Conversation, Message } from '@echo/client';
import { useEffect, useState } from 'preact/hooks';
import { connection, disconnected, echo, has, me, outbox } from '../state/echo.js';
import { nameOf, people, watchPresence } from '../state/people.js';
import { profile } from '../state/profile.js';
import { route } from '../state/route.js';
import { drafts } from '../state/drafts.js';
import { searchMessages } from '../state/extras.js';
import { conversations, conversationsState, isMuted, jump, loadConversations, other, sorted, statusOf, typing } from '../state/talk.js';
import { Icon } from './icons.js';
import { Ticks } from './ticks.js';
import { Avatar, Button, Empty, Loading, PersonAvatar } from './parts.js';
import { short } from './times.js';

/** Shown at first; more as one scrolls. */
const STEP = 60;

export function Sidebar() {
  const [query, setQuery] = useState('');
  const [archived, setArchived] = useState(false);
  const [count, setCount] = useState(STEP);
  const own = profile.value;
  const wanted = query.trim().toLocaleLowerCase();
  const all = sorted.value;
  const archivedCount = all.filter((one) => one.archived).length;
  const found = wanted ? all.filter((one) => titleOf(one).toLocaleLowerCase().includes(wanted)) : all.filter((one) => one.archived === archived);
  const partners = found.slice(0, 50).map(other).filter((id): id is string => id !== null);
  useEffect(() => watchPresence(partners), [partners.join()]);
  const scrolled = (event: Event) => {
    const list = event.currentTarget as HTMLElement;
    if (list.scrollTop + list.clientHeight > list.scrollHeight - 400 && count < found.length) setCount(count + STEP);
  };
  return (
    <aside class="sidebar" aria-label="Conversations">
      <header class="sidebar-head">
        <a class="me" href="/settings/profile">
          <Avatar id={me()} name={own?.display_name ?? ''} size="small" />
          <span class="me-name" dir="auto">
            {own?.display_name ?? ''}
          </span>
        </a>
        <a class="icon-button" href="/settings" aria-label="Settings" title="Settings">
          <Icon name="settings" />
        </a>
        <a class="icon-button accent" href="/new" aria-label="New conversation" title="New conversation">
          <Icon name="plus" />
        </a>
      </header>
      <div class="search">
        <Icon name="search" />
        <input class="search-input" type="search" aria-label="Find a conversation" placeholder="Find a conversation" dir="auto" value={query} onInput={(event) => setQuery(event.currentTarget.value)} />
      </div>
      <ConnectionBanner />
      {archived && !wanted && (
        <button class="archived-link" type="button" onClick={() => setArchived(false)}>
          <Icon name="back" /> Archived
        </button>
      )}
      <nav class="list" aria-label="Conversations" onScroll={scrolled}>
        {conversationsState.value === 'loading' && found.length === 0 && <Loading what="Loading conversations" />}
        {conversationsState.value === 'failed' && (
          <Empty icon="warn" title="Not loaded">
            <p>The conversations could not be loaded.</p>
            <Button onClick={() => void loadConversations()}>Try again</Button>
          </Empty>
        )}
        {conversationsState.value === 'ready' && found.length === 0 && (
          <Empty icon={wanted ? 'search' : 'chat'} title={wanted ? 'Nothing found' : archived ? 'Nothing archived' : 'No conversations yet'}>
            <p>{wanted ? 'No conversation has that name.' : archived ? '' : 'Find somebody by name or phone number and say hello.'}</p>
            {!archived && (
              <a class="button button-primary" href="/new">
                {wanted ? 'Look among all people' : 'Find people'}
              </a>
            )}
          </Empty>
        )}
        {wanted && found.length > 0 && <h2 class="section">Conversations</h2>}
        <ul>
          {found.slice(0, count).map((one) => (
            <li key={one.id}>
              <Row conversation={one} />
            </li>
          ))}
        </ul>
        {wanted.length > 1 && has('GET /api/v1/messages/search') && <FoundMessages query={wanted} />}
        {!archived && !wanted && archivedCount > 0 && (
          <button class="archived-link" type="button" onClick={() => setArchived(true)}>
            <Icon name="archive" /> Archived ({archivedCount})
          </button>
        )}
      </nav>
    </aside>
  );
}

export function titleOf(conversation: Conversation): string {
  const partner = other(conversation);
  if (partner !== null) return partner === me() ? 'Notes to yourself' : nameOf(partner);
  return conversation.title || 'Group';
}

export function ConversationAvatar({ conversation, size }: { conversation: Conversation; size?: 'small' | 'middle' | 'large' }) {
  const partner = other(conversation);
  const given = size ? { size } : {};
  return partner !== null ? <PersonAvatar id={partner} {...given} /> : <Avatar id={conversation.id} name={titleOf(conversation)} group {...given} />;
}

/** Messages with these words, of all conversations or of one. */
export function FoundMessages({ query, within }: { query: string; within?: string }) {
  const [found, setFound] = useState<Message[] | null>(null);
  useEffect(() => {
    let on = true;
    const timer = setTimeout(() => {
      searchMessages(query, within).then(
        (items) => on && setFound(items),
        () => on && setFound([]),
      );
    }, 300);
    return () => {
      on = false;
      clearTimeout(timer);
    };
  }, [query, within]);
  if (found === null || (found.length === 0 && !within)) return null;
  if (found.length === 0) return <p class="hint">Nothing found here.</p>;
  return (
    <>
      {!within && <h2 class="section">Messages</h2>}
      <ul>
        {found.map((message) => {
          const conversation = conversations.value.get(message.conversation_id);
          return (
            <li key={message.id}>
              <a class="row" href={`/c/${message.conversation_id}`} onClick={() => (jump.value = { conversation: message.conversation_id, seq: message.seq })}>
                <span class="row-text">
                  <span class="row-line">
                    <span class="row-title" dir="auto">
                      {conversation && !within ? titleOf(conversation) : nameOf(message.sender_id)}
                    </span>
                    <time class="row-time" dateTime={message.created_at}>
                      {short(message.created_at)}
                    </time>
                  </span>
                  <span class="row-preview" dir="auto">
                    {within ? '' : `${nameOf(message.sender_id)}: `}
                    {excerpt(message.content, message.type)}
                  </span>
                </span>
              </a>
            </li>
          );
        })}
      </ul>
    </>
  );
}

function ConnectionBanner() {
  if (connection.value === 'online' || !disconnected.value) return null;
  const waiting = outbox.value.filter((entry) => !entry.problem).length;
  return (
    <div class="banner" role="status">
      <span>
        <strong>No connection.</strong> {waiting > 0 ? `${waiting === 1 ? '1 message waits' : `${waiting} messages wait`} to be sent.` : 'You can go on writing.'}
      </span>
      <button class="banner-act" type="button" onClick={() => echo.wake()}>
        Try now
      </button>
    </div>
  );
}

function Row({ conversation }: { conversation: Conversation }) {
  const now = route.value;
  const current = now.page === 'conversation' && now.id === conversation.id;
  const { unread_count: unread, last_message: last, marked_unread: marked } = conversation;
  const title = titleOf(conversation);
  return (
    <a class={`row ${unread || marked ? 'row-unread' : ''}`} href={`/c/${conversation.id}`} aria-current={current ? 'page' : undefined}>
      <ConversationAvatar conversation={conversation} />
      <span class="row-text">
        <span class="row-line">
          <span class="row-title" dir="auto">
            {title}
          </span>
          {isMuted(conversation) && <Icon name="mute" label="muted" />}
          {conversation.pinned && <Icon name="pin" label="pinned" />}
          <time class="row-time" dateTime={last?.created_at ?? conversation.created_at}>
            {short(last?.created_at ?? conversation.created_at)}
          </time>
        </span>
        <span class="row-line">
          <Preview conversation={conversation} />
          {unread === 0 && marked && (
            <span class="badge badge-mark">
              <span class="hidden">marked as unread</span>
            </span>
          )}
          {unread > 0 && (
            <span class={isMuted(conversation) ? 'badge badge-muted' : 'badge'}>
              {unread > 99 ? '99+' : unread}
              <span class="hidden"> unread</span>
            </span>
          )}
        </span>
      </span>
    </a>
  );
}

function Preview({ conversation }: { conversation: Conversation }) {
  const now = route.value;
  const writing = [...(typing.value.get(conversation.id)?.keys() ?? [])];
  if (writing.length > 0) return <span class="row-preview writing">{conversation.type === 'direct' ? 'typing…' : `${nameOf(writing[0]!)} is typing…`}</span>;
  const draft = drafts.value.get(conversation.id)?.trim();
  const open = now.page === 'conversation' && now.id === conversation.id;
  if (draft && !open)
    return (
      <span class="row-preview" dir="auto">
        <span class="draft">Draft: </span>
        {draft}
      </span>
    );
  const last = conversation.last_message;
  if (last === null) return <span class="row-preview">No messages yet</span>;
  const mine = last.sender_id === me();
  const who = mine ? 'You: ' : conversation.type === 'direct' ? '' : `${people.value.get(last.sender_id)?.display_name.split(' ')[0] ?? ''}: `;
  return (
    <span class="row-preview" dir="auto">
      {mine && !last.deleted_at && <Ticks status={statusOf(last, conversation)} />}
      {last.deleted_at ? 'Message deleted' : `${who}${excerpt(last.content, last.type)}`}
    </span>
  );
}

const KINDS: Record<string, string> = { image: 'Photo', video: 'Video', audio: 'Voice message', document: 'File', location: 'Place', contact: 'Contact', poll: 'Poll' };

export function excerpt(content: string | null, type: string): string {
  return (content ?? KINDS[type] ?? '').slice(0, 200);
}

