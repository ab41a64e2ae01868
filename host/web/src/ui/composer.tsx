// Where one writes: text with mentions, files, voice messages, polls, now or later.

import type { Conversation as Talk, Message } from '@echo/client';
import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { drafts, setDraft } from '../state/drafts.js';
import { echo, has, me } from '../state/echo.js';
import { bytesText, kindOf, sendFile } from '../state/media.js';
import { attempt, notify } from '../state/notices.js';
import { blocked, nameOf, people, setBlocked } from '../state/people.js';
import { schedule } from '../state/scheduled.js';
import { edit, loadNewest, other, say, thread } from '../state/talk.js';
import { Icon } from './icons.js';
import { Later, ScheduledLine } from './later.js';
import { Button, Confirm, Dialog, Field, IconButton, Menu, PersonAvatar, type MenuItem } from './parts.js';
import { NewPoll } from './poll.js';
import { Recorder, canRecord } from './recorder.js';
import { excerpt } from './sidebar.js';

/** While somebody types, the others learn it this often. */
const TYPING_EVERY_MS = 4_000;
const TEXT_CHARS_MAX = 10_000;

export interface Writing {
  replyTo: Message | null;
  setReplyTo: (message: Message | null) => void;
  editing: Message | null;
  setEditing: (message: Message | null) => void;
  /** Files that were chosen, pasted or dropped, and are looked at before they are sent. */
  files: File[];
  setFiles: (files: File[]) => void;
}

const SUGGESTIONS_MAX = 6;

/** What is being written after an @, up to the cursor; null where it is no name. */
function mentionAt(text: string, cursor: number): string | null {
  return /(?:^|[\s(])@([^\s@]{0,40})$/u.exec(text.slice(0, cursor))?.[1] ?? null;
}

export function Composer({ conversation, replyTo, setReplyTo, editing, setEditing, files, setFiles }: { conversation: Talk } & Writing) {
  const { id } = conversation;
  const [edited, setEdited] = useState('');
  const text = editing ? edited : (drafts.value.get(id) ?? '');
  const setText = (value: string) => (editing ? setEdited(value) : setDraft(id, value));
  const [unblocking, setUnblocking] = useState(false);
  const [polling, setPolling] = useState(false);
  const [recording, setRecording] = useState(false);
  const [later, setLater] = useState(false);
  const [naming, setNaming] = useState<string | null>(null);
  const [at, setAt] = useState(0);
  const chooser = useRef<HTMLInputElement>(null);
  const pictures = useRef<HTMLInputElement>(null);
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

  const group = conversation.type !== 'direct';
  const suggestions =
    naming === null
      ? []
      : conversation.participant_ids
          .filter((one) => one !== me() && people.value.get(one)?.display_name.toLocaleLowerCase().split(' ').some((word) => word.startsWith(naming.toLocaleLowerCase())))
          .slice(0, SUGGESTIONS_MAX);
  const mention = (one: string) => {
    const cursor = box.current!.selectionStart;
    const begin = cursor - naming!.length;
    const name = `${people.value.get(one)!.display_name} `;
    setText(text.slice(0, begin) + name + text.slice(cursor));
    setNaming(null);
    requestAnimationFrame(() => {
      box.current?.focus();
      box.current?.setSelectionRange(begin + name.length, begin + name.length);
    });
  };
  const mentionsIn = (content: string) => (group ? conversation.participant_ids.filter((one) => one !== me() && content.includes(`@${people.peek().get(one)?.display_name}`)) : []);

  const typed = (value: string) => {
    setText(value);
    setNaming(group ? mentionAt(value, box.current?.selectionStart ?? value.length) : null);
    setAt(0);
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
    await say(id, content, replyTo?.id ?? null, mentionsIn(content));
  };
  const sendLater = async (send_at: string) => {
    const content = text.trim();
    setLater(false);
    if (!(await schedule(id, content, send_at, replyTo?.id ?? null, mentionsIn(content)))) return;
    setText('');
    stopped();
    setReplyTo(null);
  };
  const choose = (list: FileList | null) => {
    if (list?.length) setFiles([...list]);
  };
  const canSend = text.trim() !== '';
  const more: MenuItem[] = [];
  if (has('POST /api/v1/media')) {
    more.push({ icon: 'image', label: 'Photo or video', act: () => pictures.current?.click() });
    more.push({ icon: 'file', label: 'File', act: () => chooser.current?.click() });
  }
  if (has('PUT /api/v1/messages/{id}/vote')) more.push({ icon: 'poll', label: 'New poll', act: () => setPolling(true) });
  if (has('POST /api/v1/messages/scheduled')) more.push({ icon: 'clock', label: 'Send later', act: () => (canSend ? setLater(true) : notify('Write the message first, then choose when it is sent.')) });
  const keys = (event: KeyboardEvent) => {
    if (suggestions.length > 0 && !event.isComposing) {
      const move = event.key === 'ArrowDown' ? 1 : event.key === 'ArrowUp' ? -1 : 0;
      if (move !== 0) setAt((at + move + suggestions.length) % suggestions.length);
      else if (event.key === 'Enter' || event.key === 'Tab') mention(suggestions[at]!);
      else if (event.key === 'Escape') setNaming(null);
      if (move !== 0 || ['Enter', 'Tab', 'Escape'].includes(event.key)) return event.preventDefault();
    }
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
  if (conversation.type === 'channel' && conversation.role === 'member')
    return (
      <footer class="composer composer-note">
        <span>Only the admins of this channel write here.</span>
      </footer>
    );
  const about = editing ?? replyTo;
  return (
    <footer class="composer">
      {polling && <NewPoll conversation={id} onClose={() => setPolling(false)} />}
      {later && <Later act="Send then" onAct={(send_at) => void sendLater(send_at)} onClose={() => setLater(false)} />}
      {files.length > 0 && (
        <FilesDialog
          files={files}
          onClose={() => setFiles([])}
          onSend={(caption) => {
            setFiles([]);
            setReplyTo(null);
            void loadNewest(id);
            void (async () => {
              for (const [index, file] of files.entries()) await sendFile(id, file, file.name, index === 0 ? { content: caption, reply_to: replyTo?.id ?? null } : {});
            })();
          }}
        />
      )}
      <input ref={pictures} type="file" accept="image/*,video/*" multiple hidden data-testid="pictures" onChange={(event) => (choose(event.currentTarget.files), (event.currentTarget.value = ''))} />
      <input ref={chooser} type="file" multiple hidden data-testid="files" onChange={(event) => (choose(event.currentTarget.files), (event.currentTarget.value = ''))} />
      <ScheduledLine conversation={id} />
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
      {suggestions.length > 0 && (
        <ul class="suggestions" role="listbox" id="mention-suggestions" aria-label="People in this group">
          {suggestions.map((one, index) => (
            <li key={one} id={`mention-${one}`} role="option" aria-selected={index === at} class={index === at ? 'suggestion suggestion-on' : 'suggestion'} onPointerDown={(event) => (event.preventDefault(), mention(one))}>
              <PersonAvatar id={one} size="small" />
              <bdi>{people.value.get(one)?.display_name}</bdi>
            </li>
          ))}
        </ul>
      )}
      {recording ? (
        <Recorder
          onEnd={() => setRecording(false)}
          onDone={(sound, name, duration_ms) => {
            setReplyTo(null);
            void loadNewest(id);
            void sendFile(id, sound, name, { duration_ms, voice: true, reply_to: replyTo?.id ?? null });
          }}
        />
      ) : (
        <form class="composer-line" onSubmit={(event) => (event.preventDefault(), void submit())}>
          {more.length > 0 && !editing && <Menu label="Add to the conversation" icon="plus" items={() => more} />}
          <textarea
            ref={box}
            class="composer-input"
            aria-label={editing ? 'New text of the message' : 'Message'}
            aria-autocomplete={group ? 'list' : undefined}
            aria-controls={suggestions.length > 0 ? 'mention-suggestions' : undefined}
            aria-activedescendant={suggestions.length > 0 ? `mention-${suggestions[at]}` : undefined}
            placeholder="Write a message"
            rows={1}
            dir="auto"
            maxLength={TEXT_CHARS_MAX}
            value={text}
            onInput={(event) => typed(event.currentTarget.value)}
            onKeyDown={keys}
            onBlur={() => (stopped(), setNaming(null))}
            onPaste={(event) => {
              const pasted = event.clipboardData?.files;
              if (!pasted?.length || more[0]?.icon !== 'image') return;
              event.preventDefault();
              choose(pasted);
            }}
          />
          {!canSend && !editing && canRecord() && has('POST /api/v1/media') && <IconButton name="microphone" label="Record a voice message" onClick={() => setRecording(true)} />}
          <button class="send" type="submit" aria-label={editing ? 'Save the edit' : 'Send'} title={editing ? 'Save' : 'Send'} disabled={!canSend}>
            <Icon name={editing ? 'sent' : 'send'} />
          </button>
        </form>
      )}
    </footer>
  );
}

/** What is about to be sent, with a line of text to it. */
function FilesDialog({ files, onSend, onClose }: { files: File[]; onSend: (caption: string) => void; onClose: () => void }) {
  const [caption, setCaption] = useState('');
  return (
    <Dialog title={files.length === 1 ? 'Send this file?' : `Send ${files.length} files?`} onClose={onClose}>
      <form class="form" onSubmit={(event) => (event.preventDefault(), onSend(caption.trim()))}>
        <ul class="chosen-files">
          {files.map((file) => (
            <ChosenFile key={`${file.name}-${file.size}-${file.lastModified}`} file={file} />
          ))}
        </ul>
        <Field label="Text to it" value={caption} onInput={setCaption} maxLength={1000} autofocus />
        <div class="dialog-acts">
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="primary" type="submit">
            Send
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

function ChosenFile({ file }: { file: File }) {
  const [address, setAddress] = useState<string | null>(null);
  useEffect(() => {
    if (kindOf(file) !== 'image') return;
    const made = URL.createObjectURL(file);
    setAddress(made);
    return () => URL.revokeObjectURL(made);
  }, []);
  return (
    <li class="file">
      {address ? <img class="chosen-picture" src={address} alt="" /> : <span class="file-icon"><Icon name="file" /></span>}
      <span class="file-text">
        <bdi>{file.name}</bdi>
        <span class="setting-about">{bytesText(file.size)}</span>
      </span>
    </li>
  );
}
