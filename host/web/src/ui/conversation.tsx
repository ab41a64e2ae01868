// One conversation: its messages, and where one writes.

import type { Conversation as Talk, Message, OutboxEntry } from '@echo/client';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { echo, has, me } from '../state/echo.js';
import { blocked, nameOf, presence, setBlocked } from '../state/people.js';
import { attempt, notify } from '../state/notices.js';
import { drafts, setDraft } from '../state/drafts.js';
import { REACTIONS, closePoll, needReactions, reactions, setPinned, setStarred, toggleReaction, vote } from '../state/extras.js';
import { conversations, conversationsState, edit, jump, loadBackTo, loadConversation, loadNewer, loadNewest, loadOlder, markShown, other, remove, say, shown, statusOf, thread, typing, waitingIn } from '../state/talk.js';
import { Details } from './details.js';
import { Icon } from './icons.js';
import { Button, Confirm, Dialog, Empty, Field, IconButton, Loading, Menu, type MenuItem } from './parts.js';
import { ConversationAvatar, excerpt, titleOf } from './sidebar.js';
import { Ticks } from './ticks.js';
import { ago, clock, day, sameDay } from './times.js';

export function Conversation({ id, details }: { id: string; details: boolean }) {
  const conversation = conversations.value.get(id);
  const ready = conversationsState.value !== 'loading';
  const [missing, setMissing] = useState(false);
  const [replyTo, setReplyTo] = useState<Message | null>(null);
  const [editing, setEditing] = useState<Message | null>(null);
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
  const write = { replyTo, setReplyTo, editing, setEditing };
  return (
    <>
      <main class="pane conversation" aria-label={`Conversation with ${titleOf(conversation)}`}>
        <Head conversation={conversation} details={details} />
        <Pinned conversation={conversation} />
        <Messages conversation={conversation} {...write} />
        <Composer conversation={conversation} {...write} />
      </main>
      {details && <Details conversation={conversation} />}
    </>
  );
}

interface Writing {
  replyTo: Message | null;
  setReplyTo: (message: Message | null) => void;
  editing: Message | null;
  setEditing: (message: Message | null) => void;
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
async function show(conversation: string, seq: number): Promise<void> {
  if (!(await loadBackTo(conversation, seq))) return notify('That message is not there any more.');
  requestAnimationFrame(() => {
    const target = document.getElementById(`m-${seq}`);
    target?.scrollIntoView({ block: 'center' });
    target?.classList.add('found');
    setTimeout(() => target?.classList.remove('found'), 1_800);
  });
}

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
      <button class="pinned-text" type="button" onClick={() => void show(conversation.id, message.seq)}>
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

function Messages({ conversation, setReplyTo, setEditing }: { conversation: Talk } & Writing) {
  const { id } = conversation;
  const state = thread(id);
  const { messages, older } = state.value;
  const waiting = waitingIn(id).filter((entry) => !messages.some((message) => message.client_message_id === entry.client_message_id));
  const log = useRef<HTMLDivElement>(null);
  const atBottom = useRef(true);
  /** A message on the page, and where it stood: what is added above it must not move it. */
  const anchor = useRef<{ seq: string; top: number } | null>(null);
  const [below, setBelow] = useState(false);
  const [confirming, setConfirming] = useState<Message | null>(null);
  const [about, setAbout] = useState<Message | null>(null);
  // Where reading begins, as it was when the conversation was opened.
  const [readUpTo] = useState(conversation.unread_count > 0 ? conversation.read_seq : null);

  useEffect(() => {
    if (state.peek().older === 'unknown') void loadOlder(id);
    return () => {
      if (shown.peek() === id) shown.value = null;
    };
  }, [older === 'unknown']);

  const first = messages[0]?.seq;
  const last = messages.at(-1)?.seq;
  useLayoutEffect(() => {
    const box = log.current!;
    const kept = anchor.current && document.getElementById(anchor.current.seq);
    if (atBottom.current) box.scrollTop = box.scrollHeight;
    else if (kept) box.scrollTop += kept.getBoundingClientRect().top - anchor.current!.top;
  }, [first, last, waiting.length]);

  const looked = () => {
    const box = log.current;
    if (box === null) return;
    const { newer } = state.peek();
    const left = box.scrollHeight - box.scrollTop - box.clientHeight;
    atBottom.current = left < BOTTOM_PX && !newer;
    const frame = box.getBoundingClientRect();
    const at = (part: number) => document.elementFromPoint(frame.left + frame.width / 2, frame.top + frame.height * part)?.closest('.message');
    const middle = at(0.5) ?? at(0.45) ?? at(0.55);
    anchor.current = middle ? { seq: middle.id, top: middle.getBoundingClientRect().top } : null;
    setBelow(!atBottom.current);
    shown.value = atBottom.current ? id : null;
    if (atBottom.current) markShown();
    if (left < 400 && newer) void loadNewer(id);
    if (box.scrollTop < 400 && state.peek().older === 'more') void loadOlder(id);
  };
  useEffect(() => {
    if (older !== 'unknown' && older !== 'loading') looked();
  }, [older, last]);
  useEffect(() => {
    // The keyboard of a phone, or a growing text, takes room away: the newest message stays in sight.
    const sized = new ResizeObserver(() => atBottom.current && log.current?.scrollTo(0, log.current.scrollHeight));
    sized.observe(log.current!);
    return () => sized.disconnect();
  }, []);

  const jumping = jump.value?.conversation === id ? jump.value.seq : null;
  useEffect(() => {
    if (jumping === null || older === 'unknown') return;
    jump.value = null;
    atBottom.current = false;
    void show(id, jumping);
  }, [jumping, older === 'unknown']);

  const down = async () => {
    await loadNewest(id);
    atBottom.current = true;
    log.current!.scrollTop = log.current!.scrollHeight;
    looked();
  };
  const empty = messages.length === 0 && waiting.length === 0 && older === 'none';
  return (
    <div class="log-frame">
      <div class="log" ref={log} onScroll={looked} role="log" aria-label="Messages" aria-live="polite" tabIndex={0}>
        {older === 'loading' && <Loading what={messages.length ? 'Loading older messages' : 'Loading messages'} />}
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
          {messages.map((message, index) => {
            const before = messages[index - 1];
            const newDay = before === undefined || !sameDay(before.created_at, message.created_at);
            const firstUnread = readUpTo !== null && message.sender_id !== me() && message.seq > readUpTo && (before === undefined || before.seq <= readUpTo);
            const run = !newDay && !firstUnread && before.sender_id === message.sender_id && Date.parse(message.created_at) - Date.parse(before.created_at) < 5 * 60_000;
            return (
              <>
                {newDay && (
                  <li class="divider" key={`day-${message.seq}`}>
                    <span>{day(message.created_at)}</span>
                  </li>
                )}
                {firstUnread && (
                  <li class="divider divider-unread" key="unread">
                    <span>Unread messages</span>
                  </li>
                )}
                <Bubble
                  key={message.id}
                  message={message}
                  conversation={conversation}
                  run={run}
                  quoted={message.reply_to ? (messages.find((one) => one.id === message.reply_to) ?? null) : undefined}
                  onReply={() => (setEditing(null), setReplyTo(message))}
                  onEdit={() => (setReplyTo(null), setEditing(message))}
                  onDelete={() => setConfirming(message)}
                  onAbout={() => setAbout(message)}
                />
              </>
            );
          })}
          {waiting.map((entry) => (
            <Waiting key={entry.client_message_id} entry={entry} />
          ))}
        </ol>
      </div>
      {below && (
        <button class="to-bottom" type="button" aria-label="To the newest message" onClick={() => void down()}>
          <Icon name="down" />
          {conversation.unread_count > 0 && <span class="badge">{conversation.unread_count}</span>}
        </button>
      )}
      {confirming && <Delete message={confirming} onClose={() => setConfirming(null)} />}
      {about && <About message={about} onClose={() => setAbout(null)} />}
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
}

function Bubble({ message, conversation, run, quoted, onReply, onEdit, onDelete, onAbout }: BubbleProps) {
  const mine = message.sender_id === me();
  const deleted = message.deleted_at !== null;
  const named = !mine && !run && conversation.type !== 'direct';
  const [choosing, setChoosing] = useState(false);
  const canReact = has('PUT /api/v1/messages/{id}/reactions/{emoji}');
  useEffect(() => {
    if (!deleted && canReact) needReactions(message.id);
  }, [deleted, canReact]);
  const pinned = conversation.pinned_message_ids?.includes(message.id) ?? false;
  const items: MenuItem[] = [];
  if (!deleted) {
    if (canReact) items.push({ icon: 'smile', label: 'React', act: () => setChoosing(true) });
    items.push({ icon: 'reply', label: 'Reply', act: onReply });
    if (has('PUT /api/v1/messages/{id}/pin')) items.push({ icon: 'pin', label: pinned ? 'Unpin' : 'Pin', act: () => setPinned(message, !pinned) });
    if (has('PUT /api/v1/messages/{id}/star')) items.push({ icon: 'star', label: 'Star', act: () => void setStarred(message.id, true) });
    if (mine && message.poll && !message.poll.closed) items.push({ icon: 'lock', label: 'Close the poll', act: () => closePoll(message) });
    if (message.content) items.push({ icon: 'copy', label: 'Copy text', act: () => void copy(message.content!) });
    if (mine && message.type === 'text') items.push({ icon: 'edit', label: 'Edit', act: onEdit });
    if (mine) items.push({ icon: 'info', label: 'Who has read it', act: onAbout });
    items.push({ icon: 'trash', label: 'Delete', danger: true, act: onDelete });
  }
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
      {items.length > 0 && <Menu label={`Message of ${clock(message.created_at)}`} items={items} kind="message-menu" />}
    </li>
  );
}

function Reactions({ message }: { message: Message }) {
  const of = reactions.value.get(message.id);
  if (of === undefined || of.size === 0) return null;
  return (
    <span class="reactions">
      {[...of].map(([canonical, { emoji, users }]) => (
        <button
          key={canonical}
          type="button"
          class="reaction"
          aria-pressed={users.has(me())}
          aria-label={`${emoji} ${[...users].map(nameOf).join(', ')}`}
          title={[...users].map(nameOf).join(', ')}
          onClick={() => toggleReaction(message, emoji)}
        >
          <span aria-hidden="true">{emoji}</span>
          {users.size > 1 && <span aria-hidden="true">{users.size}</span>}
        </button>
      ))}
    </span>
  );
}

function Poll({ message, poll }: { message: Message; poll: NonNullable<Message['poll']> }) {
  const most = Math.max(1, ...poll.options.map((option) => option.votes));
  const choose = (index: number) => {
    const own = new Set(poll.own_votes);
    if (own.has(index)) own.delete(index);
    else {
      if (!poll.multiple) own.clear();
      own.add(index);
    }
    vote(message, [...own]);
  };
  return (
    <div class="poll">
      <strong class="text" dir="auto">
        {poll.question}
      </strong>
      <span class="poll-about">{poll.closed ? 'Closed' : poll.multiple ? 'Choose one or more' : 'Choose one'}</span>
      {poll.options.map((option, index) => (
        <button type="button" class="poll-option" disabled={poll.closed} aria-pressed={poll.own_votes.includes(index)} onClick={() => choose(index)}>
          <span class="poll-line">
            <span dir="auto">{option.text}</span>
            <span>{option.votes}</span>
          </span>
          <progress class="poll-bar" max={most} value={option.votes} aria-hidden="true" />
        </button>
      ))}
      <span class="poll-about">
        {poll.voters} {poll.voters === 1 ? 'person has' : 'people have'} voted
      </span>
    </div>
  );
}

function Content({ message }: { message: Message }) {
  if (message.poll) return <Poll message={message} poll={message.poll} />;
  if (message.location)
    return (
      <span class="text" dir="auto">
        {message.location.name ?? message.location.address ?? 'Place'}: {message.location.latitude.toFixed(4)}, {message.location.longitude.toFixed(4)}
      </span>
    );
  if (message.contact)
    return (
      <span class="text" dir="auto">
        {message.contact.name} · {message.contact.phones.join(', ')}
      </span>
    );
  return (
    <span class="text" dir="auto">
      {message.content === null ? excerpt(null, message.type) : <Linked text={message.content} />}
    </span>
  );
}

const LINK = /(https?:\/\/[^\s<>"]+[^\s<>".,;:!?)\]}'])/g;

function Linked({ text }: { text: string }) {
  return (
    <>
      {text.split(LINK).map((part, index) =>
        index % 2 === 1 ? (
          <a href={part} target="_blank" rel="noopener noreferrer nofollow">
            {part}
          </a>
        ) : (
          part
        ),
      )}
    </>
  );
}

function Quote({ message }: { message: Message | null }) {
  return (
    <button class="quote" type="button" onClick={() => message && void show(message.conversation_id, message.seq)} disabled={message === null}>
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
        <span class="text" dir="auto">
          {entry.message.content ?? excerpt(null, entry.message.type)}
        </span>
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

const POLL_OPTIONS_MAX = 10;

function NewPoll({ conversation, onClose }: { conversation: string; onClose: () => void }) {
  const [question, setQuestion] = useState('');
  const [options, setOptions] = useState(['', '']);
  const [multiple, setMultiple] = useState(false);
  const filled = options.map((option) => option.trim()).filter(Boolean);
  const create = async () => {
    onClose();
    await attempt(() => echo.send({ conversation_id: conversation, type: 'poll', poll: { question: question.trim(), options: filled, multiple } }));
  };
  const change = (index: number, text: string) => {
    const next = options.map((option, at) => (at === index ? text : option));
    if (next.at(-1) !== '' && next.length < POLL_OPTIONS_MAX) next.push('');
    setOptions(next);
  };
  return (
    <Dialog title="New poll" onClose={onClose}>
      <form class="form" onSubmit={(event) => (event.preventDefault(), void create())}>
        <Field label="Question" value={question} onInput={setQuestion} maxLength={300} autofocus />
        {options.map((option, index) => (
          <Field key={index} label={`Answer ${index + 1}`} value={option} onInput={(text) => change(index, text)} maxLength={100} />
        ))}
        <label class="checkbox">
          <input type="checkbox" checked={multiple} onChange={(event) => setMultiple(event.currentTarget.checked)} />
          More than one answer may be chosen
        </label>
        <div class="dialog-acts">
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="primary" type="submit" disabled={question.trim() === '' || filled.length < 2}>
            Send
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

/** While somebody types, the others learn it this often. */
const TYPING_EVERY_MS = 4_000;
const TEXT_CHARS_MAX = 10_000;

function Composer({ conversation, replyTo, setReplyTo, editing, setEditing }: { conversation: Talk } & Writing) {
  const { id } = conversation;
  const [edited, setEdited] = useState('');
  const text = editing ? edited : (drafts.value.get(id) ?? '');
  const setText = (value: string) => (editing ? setEdited(value) : setDraft(id, value));
  const [unblocking, setUnblocking] = useState(false);
  const [polling, setPolling] = useState(false);
  const box = useRef<HTMLTextAreaElement>(null);
  const typedAt = useRef(0);
  const partner = other(conversation);

  useEffect(() => {
    if (editing) setEdited(editing.content ?? '');
    if (editing || replyTo) box.current?.focus();
  }, [editing, replyTo]);
  useEffect(() => {
    // On a phone this would bring up the keyboard at once.
    if (matchMedia('(pointer: fine)').matches) box.current?.focus();
    return () => {
      if (typedAt.current > 0) echo.typing(id, false);
    };
  }, []);
  useLayoutEffect(() => {
    const area = box.current;
    if (area === null) return;
    area.style.height = 'auto';
    area.style.height = `${Math.min(area.scrollHeight, innerHeight * 0.35)}px`;
  }, [text]);

  const typed = (value: string) => {
    setText(value);
    if (editing) return;
    if (value.trim() === '') return stopped();
    if (Date.now() - typedAt.current < TYPING_EVERY_MS) return;
    typedAt.current = Date.now();
    echo.typing(id, true);
  };
  const stopped = () => {
    if (typedAt.current > 0) echo.typing(id, false);
    typedAt.current = 0;
  };
  const cancel = () => {
    setEditing(null);
    setReplyTo(null);
  };
  const submit = async () => {
    const content = text.trim();
    if (content === '') return;
    if (editing) {
      if (content === editing.content || (await edit(editing, content))) cancel();
      return;
    }
    setText('');
    void loadNewest(id);
    stopped();
    setReplyTo(null);
    await say(id, content, replyTo?.id ?? null);
  };
  const keys = (event: KeyboardEvent) => {
    if (event.key === 'Escape' && (editing || replyTo)) {
      event.preventDefault();
      cancel();
    }
    if (event.key === 'ArrowUp' && text === '' && !editing) {
      const own = thread(id).peek().messages.findLast((message) => message.sender_id === me() && message.type === 'text' && !message.deleted_at);
      if (own) {
        event.preventDefault();
        setEditing(own);
      }
    }
    // A phone's Enter is a new line: it has a button beside it.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing || !matchMedia('(pointer: fine)').matches) return;
    event.preventDefault();
    void submit();
  };

  if (partner !== null && blocked.value.has(partner))
    return (
      <footer class="composer composer-note">
        <span>You have blocked {nameOf(partner)}.</span>
        <Button onClick={() => setUnblocking(true)}>Unblock</Button>
        {unblocking && (
          <Confirm
            title={`Unblock ${nameOf(partner)}?`}
            text="They can write to you again."
            act="Unblock"
            onAct={() => attempt(() => setBlocked(partner, false))}
            onClose={() => setUnblocking(false)}
          />
        )}
      </footer>
    );
  const about = editing ?? replyTo;
  return (
    <footer class="composer">
      {polling && <NewPoll conversation={id} onClose={() => setPolling(false)} />}
      {about && (
        <div class="composer-about">
          <Icon name={editing ? 'edit' : 'reply'} />
          <span class="composer-about-text">
            <strong>{editing ? 'Edit message' : `Reply to ${nameOf(about.sender_id)}`}</strong>
            <span dir="auto">{excerpt(about.content, about.type)}</span>
          </span>
          <IconButton name="close" label={editing ? 'Cancel the edit' : 'Cancel the reply'} onClick={cancel} />
        </div>
      )}
      <form class="composer-line" onSubmit={(event) => (event.preventDefault(), void submit())}>
        {has('PUT /api/v1/messages/{id}/vote') && !editing && <IconButton name="poll" label="New poll" onClick={() => setPolling(true)} />}
        <textarea
          ref={box}
          class="composer-input"
          aria-label={editing ? 'New text of the message' : 'Message'}
          placeholder="Write a message"
          rows={1}
          dir="auto"
          maxLength={TEXT_CHARS_MAX}
          value={text}
          onInput={(event) => typed(event.currentTarget.value)}
          onKeyDown={keys}
          onBlur={stopped}
        />
        <button class="send" type="submit" aria-label={editing ? 'Save the edit' : 'Send'} title={editing ? 'Save' : 'Send'} disabled={text.trim() === ''}>
          <Icon name={editing ? 'sent' : 'send'} />
        </button>
      </form>
    </footer>
  );
}

