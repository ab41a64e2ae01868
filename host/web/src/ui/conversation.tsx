// One conversation: its messages, and where one writes.

import type { Conversation as Talk, Message, OutboxEntry } from '@echo/client';
import { Component, Fragment } from 'preact';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { echo, has, me } from '../state/echo.js';
import { blocked, nameOf, presence } from '../state/people.js';
import { attempt, notify } from '../state/notices.js';
import { REACTIONS, closePoll, needReactions, setPinned, setStarred, toggleReaction } from '../state/extras.js';
import { conversations, conversationsState, jump, loadBackTo, loadConversation, loadNewer, loadNewest, loadOlder, markShown, other, remove, shown, statusOf, thread, typing, waitingIn } from '../state/talk.js';
import { Composer, type Writing } from './composer.js';
import { Content, Reactions } from './content.js';
import { Details } from './details.js';
import { WaitingFile } from './files.js';
import { Icon } from './icons.js';
import { Button, Dialog, Empty, IconButton, Loading, Menu, type MenuItem } from './parts.js';
import { ReportDialog } from './report.js';
import { ConversationAvatar, excerpt, titleOf } from './sidebar.js';
import { Ticks } from './ticks.js';
import { ago, clock, day, moment, sameDay } from './times.js';

export function Conversation({ id, details }: { id: string; details: boolean }) {
  const conversation = conversations.value.get(id);
  const ready = conversationsState.value !== 'loading';
  const [missing, setMissing] = useState(false);
  const [replyTo, setReplyTo] = useState<Message | null>(null);
  const [editing, setEditing] = useState<Message | null>(null);
  const [files, setFiles] = useState<File[]>([]);
  useEffect(() => {
    if (conversation === undefined && ready) loadConversation(id).catch(() => setMissing(true));
  }, [ready, conversation === undefined]);
  if (conversation === undefined)
    return (
      <main class="pane pane-empty">
        {missing ? (
          <Empty icon="warn" title="Not there">
            <p>This conversation does not exist, or you take no part in it.</p>
            <a class="button button-primary" href="/">
              Back
            </a>
          </Empty>
        ) : (
          <Loading what="Loading the conversation" />
        )}
      </main>
    );
  const write = { replyTo, setReplyTo, editing, setEditing, files, setFiles };
  const dropped = (event: DragEvent) => {
    event.preventDefault();
    if (event.dataTransfer?.files.length && has('POST /api/v1/media')) setFiles([...event.dataTransfer.files]);
  };
  return (
    <>
      <main class="pane conversation" aria-label={`Conversation with ${titleOf(conversation)}`} onDragOver={(event) => event.preventDefault()} onDrop={dropped}>
        <Head conversation={conversation} details={details} />
        <Pinned conversation={conversation} />
        <Messages conversation={conversation} {...write} />
        <Composer conversation={conversation} {...write} />
      </main>
      {details && <Details conversation={conversation} />}
    </>
  );
}

function Head({ conversation, details }: { conversation: Talk; details: boolean }) {
  return (
    <header class="pane-head">
      <a class="icon-button only-narrow" href="/" aria-label="Back to the conversations">
        <Icon name="back" />
      </a>
      <a class="head-title" href={details ? `/c/${conversation.id}` : `/c/${conversation.id}/details`}>
        <ConversationAvatar conversation={conversation} size="small" />
        <span class="head-text">
          <h1 dir="auto">{titleOf(conversation)}</h1>
          <Subtitle conversation={conversation} />
        </span>
      </a>
      <a
        class="icon-button"
        href={details ? `/c/${conversation.id}` : `/c/${conversation.id}/details`}
        aria-label={details ? 'Close the details' : 'Details'}
        title="Details"
      >
        <Icon name="info" />
      </a>
    </header>
  );
}

function Subtitle({ conversation }: { conversation: Talk }) {
  const writing = [...(typing.value.get(conversation.id)?.keys() ?? [])];
  const partner = other(conversation);
  let text = '';
  if (writing.length > 0) text = partner ? 'typing…' : `${writing.slice(0, 2).map(nameOf).join(', ')} ${writing.length === 1 ? 'is' : 'are'} typing…`;
  else if (partner === null) text = `${conversation.participant_count} ${conversation.participant_count === 1 ? 'person' : 'people'}`;
  else if (blocked.value.has(partner)) text = 'blocked';
  else {
    const one = presence.value.get(partner);
    if (one?.status === 'online') text = 'online';
    else if (one?.status === 'away' || one?.status === 'busy') text = one.status;
    else if (one?.last_seen) text = `last seen ${ago(one.last_seen)}`;
  }
  return <span class={writing.length > 0 ? 'subtitle writing' : 'subtitle'}>{text}</span>;
}

/** Scrolls to a message and shows which it is; loads what is between. */
const show = (conversation: string, seq: number): void => void (jump.value = { conversation, seq });

function Pinned({ conversation }: { conversation: Talk }) {
  const id = conversation.pinned_message_ids?.at(-1);
  const known = id ? thread(conversation.id).value.messages.find((one) => one.id === id) : undefined;
  const [fetched, setFetched] = useState<Message | null>(null);
  useEffect(() => {
    if (id && known === undefined && fetched?.id !== id) echo.rest.get('/api/v1/messages/{id}', { path: { id } }).then(setFetched, () => undefined);
  }, [id, known === undefined]);
  const message = known ?? (fetched?.id === id ? fetched : null);
  if (!id || !message || message.deleted_at) return null;
  const count = conversation.pinned_message_ids.length;
  return (
    <div class="pinned">
      <button class="pinned-text" type="button" onClick={() => show(conversation.id, message.seq)}>
        <Icon name="pin" />
        <span>
          <strong>{count > 1 ? `Pinned (${count})` : 'Pinned'}</strong>
          <span dir="auto">{excerpt(message.content, message.type)}</span>
        </span>
      </button>
      <IconButton name="close" label="Unpin" onClick={() => setPinned(message, false)} />
    </div>
  );
}

/** From here to the bottom it counts as being at the bottom. */
const BOTTOM_PX = 80;
/** So much beyond what is seen is on the page. */
const AHEAD_PX = 1_200;
/** On the page at first. */
const FIRST_MESSAGES = 30;
/** Added at one time, so that no frame takes long; twice as many where what is there comes to its end. */
const CHUNK_MESSAGES = 5;
/** More than these are taken off the page at the other end. */
const SHOWN_MESSAGES_MAX = 120;
/** With fewer in memory beyond what is on the page, the next are loaded. */
const LOADED_AHEAD = 60;
const FOUND_SHOWN_MS = 1_800;

/** What of the messages in memory is on the page, by their `seq`. Without an end the newest are. */
interface Span {
  from: number;
  to: number;
}

const newestOf = (messages: Message[]): Span => ({ from: messages.at(-FIRST_MESSAGES)?.seq ?? 0, to: Infinity });

/** Indices: from the first, to before the second. */
function shownOf(messages: Message[], { from, to }: Span): [number, number] {
  const start = messages.findIndex((message) => message.seq >= from);
  const end = to === Infinity ? messages.length : messages.findLastIndex((message) => message.seq <= to) + 1;
  return start < 0 || end <= start ? [Math.max(0, messages.length - FIRST_MESSAGES), messages.length] : [start, end];
}

/** A message in the middle of what is seen, and where it stands: what changes around it must not move it. */
function anchorOf(box: HTMLElement | null): { id: string; top: number } | null {
  const all = box?.querySelector('.messages')?.children;
  if (!box || !all?.length) return null;
  const { top, height } = box.getBoundingClientRect();
  let [low, high] = [0, all.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (all[middle]!.getBoundingClientRect().bottom < top + height / 2) low = middle + 1;
    else high = middle;
  }
  for (let at = low; at >= 0; at--) if (all[at]!.id) return { id: all[at]!.id, top: all[at]!.getBoundingClientRect().top };
  return null;
}

function Messages({ conversation, setReplyTo, setEditing }: { conversation: Talk } & Writing) {
  const { id } = conversation;
  const state = thread(id);
  const { messages, older } = state.value;
  const waiting = waitingIn(id).filter((entry) => !messages.some((message) => message.client_message_id === entry.client_message_id));
  const log = useRef<HTMLDivElement>(null);
  const atBottom = useRef(true);
  const [span, setSpan] = useState<Span | null>(null);
  /** The message that is to be scrolled to once it is on the page, and whether it is to stand out there. */
  const sought = useRef<{ seq: number; found: boolean } | null>(null);
  const [below, setBelow] = useState(false);
  const [confirming, setConfirming] = useState<Message | null>(null);
  const [about, setAbout] = useState<Message | null>(null);
  const [history, setHistory] = useState<Message | null>(null);
  const [reporting, setReporting] = useState<Message | null>(null);
  // Where reading begins, as it was when the conversation was opened.
  const [readUpTo] = useState(conversation.unread_count > 0 ? conversation.read_seq : null);

  useEffect(() => {
    const { older, newer } = state.peek();
    if (['unknown', 'stale'].includes(older)) void loadOlder(id);
    else if (newer && jump.peek() === null) void loadNewest(id);
    return () => {
      if (shown.peek() === id) shown.value = null;
    };
  }, [older === 'unknown']);

  const [start, end] = shownOf(messages, span ?? newestOf(messages));
  const first = messages[start]?.seq;
  const last = messages[end - 1]?.seq;
  const drawn = useRef<{ first: number | undefined; last: number | undefined; anchor: ReturnType<typeof anchorOf> }>({ first: undefined, last: undefined, anchor: null });
  // Here, before the page changes, everything stands where it is seen.
  if (drawn.current.first !== first || drawn.current.last !== last) drawn.current = { first, last, anchor: atBottom.current ? null : anchorOf(log.current) };
  useLayoutEffect(() => {
    const box = log.current!;
    const { anchor } = drawn.current;
    const kept = anchor && document.getElementById(anchor.id);
    if (sought.current !== null) {
      const { seq, found } = sought.current;
      const target = document.getElementById(`m-${seq}`);
      sought.current = null;
      target?.scrollIntoView({ block: 'center' });
      if (found) {
        target?.classList.add('found');
        setTimeout(() => target?.classList.remove('found'), FOUND_SHOWN_MS);
      }
    } else if (atBottom.current) box.scrollTop = box.scrollHeight;
    else if (kept) box.scrollTop += kept.getBoundingClientRect().top - anchor.top;
    drawn.current.anchor = null;
  }, [first, last, waiting.length, span]);

  /** More of what is in memory comes onto the page where it is scrolled to, and what is far away goes. */
  const extend = (above: number, left: number) => {
    const { messages, newer } = state.peek();
    const now = span ?? newestOf(messages);
    const [start, end] = shownOf(messages, now);
    const many = end - start > SHOWN_MESSAGES_MAX;
    const chunk = Math.min(above, left) < AHEAD_PX / 2 ? 2 * CHUNK_MESSAGES : CHUNK_MESSAGES;
    const to = (index: number) => (index >= messages.length && !newer ? Infinity : messages[Math.min(index, messages.length) - 1]!.seq);
    if (above < AHEAD_PX && start > 0) {
      const far = many && left > 2 * AHEAD_PX;
      setSpan({ from: messages[Math.max(0, start - chunk)]!.seq, to: far ? to(end - chunk) : to(end) });
    } else if (left < AHEAD_PX && end < messages.length) {
      const far = many && above > 2 * AHEAD_PX;
      setSpan({ from: messages[far ? start + chunk : start]!.seq, to: to(end + chunk) });
    } else if (many && atBottom.current && above > 2 * AHEAD_PX) setSpan({ from: messages[start + CHUNK_MESSAGES]!.seq, to: Infinity });
    // What comes from now on belongs to what is shown.
    else if (end === messages.length && !newer && now.to !== Infinity) setSpan({ from: now.from, to: Infinity });
  };

  /** What is added below takes nobody away from the bottom: only scrolling does. */
  const looked = (scrolled: boolean) => {
    const box = log.current;
    if (box === null) return;
    const { messages, older, newer } = state.peek();
    const left = box.scrollHeight - box.scrollTop - box.clientHeight;
    const [start, end] = shownOf(messages, span ?? newestOf(messages));
    const bottom = left < BOTTOM_PX && !newer && end === messages.length;
    atBottom.current = bottom || (atBottom.current && !scrolled);
    setBelow(!atBottom.current);
    shown.value = atBottom.current ? id : null;
    if (atBottom.current) markShown();
    extend(box.scrollTop, left);
    if (messages.length - end < LOADED_AHEAD && left < AHEAD_PX && newer) void loadNewer(id);
    if (start < LOADED_AHEAD && box.scrollTop < AHEAD_PX && older === 'more') void loadOlder(id);
  };
  useEffect(() => {
    if (older !== 'unknown' && older !== 'stale' && older !== 'loading') looked(false);
  }, [older, first, last, messages.at(-1)?.seq]);
  useEffect(() => {
    // The keyboard of a phone, or a growing text, takes room away: the newest message stays in sight.
    const sized = new ResizeObserver(() => atBottom.current && log.current?.scrollTo(0, log.current.scrollHeight));
    sized.observe(log.current!);
    return () => sized.disconnect();
  }, []);

  const jumping = jump.value?.conversation === id ? jump.value.seq : null;
  const seek = async (seq: number) => {
    if (await loadBackTo(id, seq)) scrollTo(seq, true);
    else notify('That message is not there any more.');
  };
  const scrollTo = (seq: number, found: boolean) => {
    const { messages } = state.peek();
    const at = messages.findIndex((message) => message.seq === seq);
    const end = at + FIRST_MESSAGES;
    sought.current = { seq, found };
    atBottom.current = false;
    setSpan({ from: messages[Math.max(0, at - FIRST_MESSAGES)]!.seq, to: messages[Math.min(end, messages.length - 1)]!.seq });
  };
  useEffect(() => {
    if (jumping === null || older === 'unknown') return;
    jump.value = null;
    void seek(jumping);
  }, [jumping, older === 'unknown']);

  // Where there is more unread than fits, reading begins at the first of it, if that is among what was loaded.
  const opened = useRef(false);
  useEffect(() => {
    if (opened.current || messages.length === 0 || ['unknown', 'stale', 'loading'].includes(older)) return;
    opened.current = true;
    const unread = readUpTo === null || messages[0]!.seq > readUpTo + 1 ? undefined : messages.find((message) => message.seq > readUpTo && message.sender_id !== me());
    if (unread && jump.peek() === null && sought.current === null) scrollTo(unread.seq, false);
  }, [older, messages.length === 0]);

  const down = () => {
    atBottom.current = true;
    setSpan(newestOf(state.peek().messages));
    void loadNewest(id);
  };
  const empty = messages.length === 0 && waiting.length === 0 && older === 'none';
  return (
    <div class="log-frame">
      <div class="log" ref={log} onScroll={() => looked(true)} role="log" aria-label="Messages" aria-live="polite" tabIndex={0}>
        {older === 'loading' && messages.length === 0 && <Loading what="Loading messages" />}
        {older === 'loading' && messages.length > 0 && start === 0 && (
          <div class="log-loading">
            <Loading what="Loading older messages" />
          </div>
        )}
        {older === 'failed' && (
          <div class="log-note">
            <p>Messages could not be loaded.</p>
            <Button onClick={() => void loadOlder(id)}>Try again</Button>
          </div>
        )}
        {empty && (
          <Empty icon="chat" title="Say hello">
            <p>Nothing has been written here yet.</p>
          </Empty>
        )}
        <ol class="messages">
          {messages.slice(start, end).map((message, index) => {
            const before = messages[start + index - 1];
            const newDay = before === undefined || !sameDay(before.created_at, message.created_at);
            const firstUnread = readUpTo !== null && message.sender_id !== me() && message.seq > readUpTo && (before === undefined || before.seq <= readUpTo);
            const run = !newDay && !firstUnread && before.sender_id === message.sender_id && Date.parse(message.created_at) - Date.parse(before.created_at) < 5 * 60_000;
            return (
              <Fragment key={message.id}>
                {newDay && (
                  <li class="divider">
                    <span>{day(message.created_at)}</span>
                  </li>
                )}
                {firstUnread && (
                  <li class="divider divider-unread">
                    <span>Unread messages</span>
                  </li>
                )}
                <Bubble
                  message={message}
                  conversation={conversation}
                  run={run}
                  quoted={message.reply_to ? (messages.find((one) => one.id === message.reply_to) ?? null) : undefined}
                  onReply={() => (setEditing(null), setReplyTo(message))}
                  onEdit={() => (setReplyTo(null), setEditing(message))}
                  onDelete={() => setConfirming(message)}
                  onAbout={() => setAbout(message)}
                  onHistory={() => setHistory(message)}
                  onReport={() => setReporting(message)}
                />
              </Fragment>
            );
          })}
          {waiting.map((entry) => (
            <Waiting key={entry.client_message_id} entry={entry} />
          ))}
        </ol>
      </div>
      {below && (
        <button class="to-bottom" type="button" aria-label="To the newest message" onClick={down}>
          <Icon name="down" />
          {conversation.unread_count > 0 && <span class="badge">{conversation.unread_count}</span>}
        </button>
      )}
      {confirming && <Delete message={confirming} onClose={() => setConfirming(null)} />}
      {about && <About message={about} onClose={() => setAbout(null)} />}
      {history && <History message={history} onClose={() => setHistory(null)} />}
      {reporting && <ReportDialog about={{ message_id: reporting.id }} who={nameOf(reporting.sender_id)} onClose={() => setReporting(null)} />}
    </div>
  );
}

interface BubbleProps {
  message: Message;
  conversation: Talk;
  run: boolean;
  quoted: Message | null | undefined;
  onReply: () => void;
  onEdit: () => void;
  onDelete: () => void;
  onAbout: () => void;
  onHistory: () => void;
  onReport: () => void;
}

/** Rendered anew when its message changes, not when others come or go around it: what it calls is the same then. */
class Bubble extends Component<BubbleProps> {
  override shouldComponentUpdate(next: BubbleProps): boolean {
    const { message, conversation, run, quoted } = this.props;
    return next.message !== message || next.conversation !== conversation || next.run !== run || next.quoted !== quoted;
  }

  render() {
    return <BubbleView {...this.props} />;
  }
}

function BubbleView({ message, conversation, run, quoted, onReply, onEdit, onDelete, onAbout, onHistory, onReport }: BubbleProps) {
  const mine = message.sender_id === me();
  const deleted = message.deleted_at !== null;
  const named = !mine && !run && conversation.type !== 'direct';
  const [choosing, setChoosing] = useState(false);
  const canReact = has('PUT /api/v1/messages/{id}/reactions/{emoji}');
  useEffect(() => {
    if (!deleted && canReact) needReactions(message.id);
  }, [deleted, canReact]);
  const pinned = conversation.pinned_message_ids?.includes(message.id) ?? false;
  const items = (): MenuItem[] => {
    const items: MenuItem[] = [];
    if (canReact) items.push({ icon: 'smile', label: 'React', act: () => setChoosing(true) });
    items.push({ icon: 'reply', label: 'Reply', act: onReply });
    if (has('PUT /api/v1/messages/{id}/pin')) items.push({ icon: 'pin', label: pinned ? 'Unpin' : 'Pin', act: () => setPinned(message, !pinned) });
    if (has('PUT /api/v1/messages/{id}/star')) items.push({ icon: 'star', label: 'Star', act: () => void setStarred(message.id, true) });
    if (mine && message.poll && !message.poll.closed) items.push({ icon: 'lock', label: 'Close the poll', act: () => closePoll(message) });
    if (message.content) items.push({ icon: 'copy', label: 'Copy text', act: () => void copy(message.content!) });
    if (mine && message.type === 'text') items.push({ icon: 'edit', label: 'Edit', act: onEdit });
    if (mine) items.push({ icon: 'info', label: 'Who has read it', act: onAbout });
    if (message.edited_at && has('GET /api/v1/messages/{id}/edits')) items.push({ icon: 'clock', label: 'Earlier versions', act: onHistory });
    if (!mine && has('POST /api/v1/users/reports')) items.push({ icon: 'flag', label: 'Report', danger: true, act: onReport });
    items.push({ icon: 'trash', label: 'Delete', danger: true, act: onDelete });
    return items;
  };
  return (
    <li class={`message ${mine ? 'mine' : 'theirs'} ${run ? 'run' : ''}`} id={`m-${message.seq}`} data-message={message.id}>
      <div class="bubble-column">
      <div class={deleted ? 'bubble bubble-deleted' : 'bubble'}>
        {named ? (
          <span class="sender" dir="auto">
            {nameOf(message.sender_id)}
          </span>
        ) : (
          <span class="hidden">{mine ? 'You' : nameOf(message.sender_id)}: </span>
        )}
        {message.reply_to && !deleted && <Quote message={quoted ?? null} />}
        {deleted ? <span class="text">Message deleted</span> : <Content message={message} />}
        <span class="meta">
          {message.edited_at && !deleted && <span>edited</span>}
          <time dateTime={message.created_at}>{clock(message.created_at)}</time>
          {mine && !deleted && <Ticks status={statusOf(message, conversation)} />}
        </span>
      </div>
      {!deleted && <Reactions message={message} />}
      </div>
      {choosing && (
        <Dialog title="React" onClose={() => setChoosing(false)}>
          <div class="reaction-choice">
            {REACTIONS.map((emoji) => (
              <button
                type="button"
                class="reaction-pick"
                aria-label={`React with ${emoji}`}
                onClick={() => {
                  setChoosing(false);
                  toggleReaction(message, emoji);
                }}
              >
                {emoji}
              </button>
            ))}
          </div>
        </Dialog>
      )}
      {!deleted && <Menu label={`Message of ${clock(message.created_at)}`} items={items} kind="message-menu" />}
    </li>
  );
}

function Quote({ message }: { message: Message | null }) {
  return (
    <button class="quote" type="button" onClick={() => message && show(message.conversation_id, message.seq)} disabled={message === null}>
      <span class="quote-who" dir="auto">
        {message ? nameOf(message.sender_id) : 'Earlier message'}
      </span>
      <span class="quote-text" dir="auto">
        {message ? (message.deleted_at ? 'Message deleted' : excerpt(message.content, message.type)) : 'Scroll up to see it'}
      </span>
    </button>
  );
}

function Waiting({ entry }: { entry: OutboxEntry }) {
  const refused = entry.problem !== undefined;
  return (
    <li class="message mine">
      <div class={refused ? 'bubble bubble-refused' : 'bubble bubble-waiting'}>
        <span class="hidden">You: </span>
        <WaitingFile entry={entry} />
        {(entry.message.content || !entry.attachment) && (
          <span class="text" dir="auto">
            {entry.message.content ?? excerpt(null, entry.message.type)}
          </span>
        )}
        {entry.attachment && !refused && (
          <button type="button" class="link" onClick={() => void echo.discard(entry.client_message_id)}>
            Cancel
          </button>
        )}
        <span class="meta">{refused ? <Icon name="warn" label="not sent" /> : <Ticks status="waiting" />}</span>
      </div>
      {entry.problem && (
        <div class="refused" role="alert">
          <span>Not sent: {entry.problem.detail ?? entry.problem.title}</span>
          <button type="button" class="link" onClick={() => void echo.retry(entry.client_message_id)}>
            Try again
          </button>
          <button type="button" class="link" onClick={() => void echo.discard(entry.client_message_id)}>
            Discard
          </button>
        </div>
      )}
    </li>
  );
}

async function copy(text: string): Promise<void> {
  await attempt(() => navigator.clipboard.writeText(text), 'Copied');
}

function Delete({ message, onClose }: { message: Message; onClose: () => void }) {
  const run = (whom: 'me' | 'everyone') => {
    onClose();
    void remove(message, whom);
  };
  return (
    <Dialog title="Delete this message?" onClose={onClose}>
      <blockquote class="dialog-quote" dir="auto">
        {excerpt(message.content, message.type)}
      </blockquote>
      <div class="dialog-acts column">
        {message.sender_id === me() && (
          <Button kind="danger" onClick={() => run('everyone')}>
            Delete for everyone
          </Button>
        )}
        <Button kind="danger" onClick={() => run('me')}>
          Delete for me
        </Button>
        <Button onClick={onClose}>Cancel</Button>
      </div>
    </Dialog>
  );
}

function About({ message, onClose }: { message: Message; onClose: () => void }) {
  const [items, setItems] = useState<{ user_id: string; status: Message['status']; delivered_at: string | null; read_at: string | null }[] | null>(null);
  useEffect(() => {
    void attempt(async () => setItems((await echo.rest.get('/api/v1/messages/{id}/status', { path: { id: message.id } })).items));
  }, []);
  return (
    <Dialog title="Who has read it" onClose={onClose}>
      {items === null && <Loading what="Loading" />}
      <ul class="about">
        {items?.map((one) => (
          <li key={one.user_id}>
            <bdi>{nameOf(one.user_id)}</bdi>
            <span>
              <Ticks status={one.status} /> {one.read_at ? `read ${ago(one.read_at)}` : one.delivered_at ? `delivered ${ago(one.delivered_at)}` : 'sent'}
            </span>
          </li>
        ))}
      </ul>
    </Dialog>
  );
}

/** What an edited message said before. */
function History({ message, onClose }: { message: Message; onClose: () => void }) {
  const [items, setItems] = useState<{ content: string; at: string }[] | null>(null);
  useEffect(() => {
    void attempt(async () => setItems((await echo.rest.get('/api/v1/messages/{id}/edits', { path: { id: message.id } })).items));
  }, []);
  return (
    <Dialog title="Earlier versions" onClose={onClose}>
      {items === null && <Loading what="Loading" />}
      <ul class="scheduled">
        {items?.map((one) => (
          <li key={one.at}>
            <p class="setting-about">until {moment(one.at)}</p>
            <p dir="auto">{one.content}</p>
          </li>
        ))}
      </ul>
    </Dialog>
  );
}
