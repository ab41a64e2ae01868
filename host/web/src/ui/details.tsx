// About one conversation: who takes part, what is set for it, how one leaves.

import type { Conversation, Participant } from '@echo/client';
import { useEffect, useState } from 'preact/hooks';
import { echo, has, me } from '../state/echo.js';
import { attempt, notify } from '../state/notices.js';
import { aliases, blocked, contacts, nameOf, need, people, setAlias, setBlocked, setContact } from '../state/people.js';
import { go } from '../state/route.js';
import { isMuted, keep, loadConversation, markUnread, other } from '../state/talk.js';
import { Icon, type IconName } from './icons.js';
import { Invites } from './invites.js';
import { PersonRow, usePeopleSearch } from './new.js';
import { Button, Confirm, Dialog, Field, Loading, Menu, PersonAvatar, type MenuItem } from './parts.js';
import { ReportDialog } from './report.js';
import { ConversationAvatar, FoundMessages, titleOf } from './sidebar.js';

type Settings = { muted_until?: string; archived?: boolean; pinned?: boolean; disappearing_after?: number };

const EVER = '2999-01-01T00:00:00Z';
const NEVER = '1970-01-01T00:00:00Z';

function set(conversation: Conversation, body: Settings): Promise<boolean> {
  return attempt(async () => keep(await echo.rest.put('/api/v1/messages/conversations/{id}/settings', { path: { id: conversation.id }, body })));
}

export function Details({ conversation }: { conversation: Conversation }) {
  const partner = other(conversation);
  const person = partner ? people.value.get(partner) : undefined;
  return (
    <aside class="details" aria-label="Details">
      <header class="pane-head">
        <a class="icon-button" href={`/c/${conversation.id}`} aria-label="Close the details">
          <Icon name="close" />
        </a>
        <h2>Details</h2>
      </header>
      <div class="details-body">
        <div class="details-top">
          <ConversationAvatar conversation={conversation} size="large" />
          <h3 dir="auto">{titleOf(conversation)}</h3>
          {person?.status_text && <p dir="auto">{person.status_text}</p>}
          {person?.phone && <p dir="ltr">{person.phone}</p>}
          {(person?.bio ?? conversation.description) && (
            <p class="details-bio" dir="auto">
              {person?.bio ?? conversation.description}
            </p>
          )}
        </div>
        <SearchHere conversation={conversation} />
        <Switches conversation={conversation} />
        {partner === null && <People conversation={conversation} />}
        <Ends conversation={conversation} partner={partner} />
      </div>
    </aside>
  );
}

function SearchHere({ conversation }: { conversation: Conversation }) {
  const [query, setQuery] = useState('');
  if (!has('GET /api/v1/messages/search')) return null;
  return (
    <section class="search-here">
      <Field label="Search in this conversation" type="search" inputMode="search" value={query} onInput={setQuery} />
      {query.trim().length > 1 && <FoundMessages query={query.trim()} within={conversation.id} />}
    </section>
  );
}

function Alias({ person, onClose }: { person: string; onClose: () => void }) {
  const [alias, setName] = useState(aliases.peek().get(person) ?? '');
  const save = async () => {
    if (await attempt(() => setAlias(person, alias.trim()), 'Saved')) onClose();
  };
  return (
    <Dialog title="A name of your own" onClose={onClose}>
      <form class="form" onSubmit={(event) => (event.preventDefault(), void save())}>
        <Field label="Name" value={alias} onInput={setName} maxLength={100} hint="Only you see it. Leave it empty to see the name that they chose." autofocus />
        <div class="dialog-acts">
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="primary" type="submit">
            Save
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

function Switches({ conversation }: { conversation: Conversation }) {
  return (
    <section class="group" aria-label="Settings of this conversation">
      <Switch label="Mute" icon="mute" on={isMuted(conversation)} onChange={(on) => set(conversation, { muted_until: on ? EVER : NEVER })} />
      <Switch label="Pin to the top" icon="pin" on={conversation.pinned} onChange={(pinned) => set(conversation, { pinned })} />
      {has('PUT /api/v1/messages/conversations/{id}/unread') && (
        <Switch label="Marked as unread" icon="mark" on={Boolean(conversation.marked_unread)} onChange={(on) => markUnread(conversation.id, on)} />
      )}
      <Switch label="Archive" icon="archive" on={conversation.archived} onChange={(archived) => set(conversation, { archived })} />
      <label class="setting">
        <Icon name="clock" />
        <span>Messages disappear</span>
        <select
          class="select"
          value={String(conversation.disappearing_after ?? 0)}
          onChange={(event) => void set(conversation, { disappearing_after: Number(event.currentTarget.value) })}
        >
          <option value="0">never</option>
          <option value="3600">after an hour</option>
          <option value="86400">after a day</option>
          <option value="604800">after a week</option>
          {![null, 0, 3600, 86400, 604800].includes(conversation.disappearing_after) && (
            <option value={String(conversation.disappearing_after)}>after {conversation.disappearing_after} s</option>
          )}
        </select>
      </label>
    </section>
  );
}

export function Switch({ label, about, icon, on, onChange }: { label: string; about?: string; icon?: IconName; on: boolean; onChange: (on: boolean) => void }) {
  return (
    <button class="setting" type="button" role="switch" aria-checked={on} onClick={() => onChange(!on)}>
      {icon && <Icon name={icon} />}
      <span class="setting-text">
        <span>{label}</span>
        {about && <span class="setting-about">{about}</span>}
      </span>
      <span class={on ? 'switch switch-on' : 'switch'} aria-hidden="true" />
    </button>
  );
}

function People({ conversation }: { conversation: Conversation }) {
  const [items, setItems] = useState<Participant[] | null>(null);
  const [adding, setAdding] = useState(false);
  const [renaming, setRenaming] = useState(false);
  const [inviting, setInviting] = useState(false);
  const [removing, setRemoving] = useState<string | null>(null);
  const { id, role } = conversation;
  const manages = role === 'owner' || role === 'admin';
  const load = async () => {
    const { items } = await echo.rest.get('/api/v1/messages/conversations/{id}/participants', { path: { id }, query: { limit: 100 } });
    need(items.map((one) => one.user_id));
    setItems(items);
  };
  useEffect(() => void attempt(load), [conversation.participant_count, conversation.updated_at]);
  const promote = (user_id: string, role: Participant['role']) =>
    void attempt(async () => {
      await echo.rest.patch('/api/v1/messages/conversations/{id}/participants/{user_id}', { path: { id, user_id }, body: { role } });
      await Promise.all([load(), loadConversation(id)]);
    });
  const actsOn = (one: Participant): MenuItem[] => {
    if (one.user_id === me()) return [];
    const acts: MenuItem[] = [];
    if (role === 'owner' && one.role !== 'owner')
      acts.push({ icon: 'star', label: one.role === 'admin' ? 'Make a member' : 'Make an admin', act: () => promote(one.user_id, one.role === 'admin' ? 'member' : 'admin') });
    if (manages && one.role !== 'owner') acts.push({ icon: 'trash', label: 'Remove', danger: true, act: () => setRemoving(one.user_id) });
    return acts;
  };
  return (
    <section class="group">
      <header class="group-head">
        <h3>
          {conversation.participant_count} {conversation.participant_count === 1 ? 'person' : 'people'}
        </h3>
        {manages && (
          <span class="group-acts">
            <Button kind="quiet" onClick={() => setRenaming(true)}>
              Rename
            </Button>
            <Button kind="quiet" onClick={() => setAdding(true)}>
              Add
            </Button>
            {has('POST /api/v1/messages/conversations/{id}/invites') && (
              <Button kind="quiet" onClick={() => setInviting(true)}>
                Invite
              </Button>
            )}
          </span>
        )}
      </header>
      {items === null && <Loading what="Loading" />}
      <ul>
        {items?.map((one) => (
          <li class="participant" key={one.user_id}>
            <PersonAvatar id={one.user_id} size="small" />
            <span class="participant-name" dir="auto">
              {nameOf(one.user_id)}
            </span>
            {one.role !== 'member' && <span class="tag">{one.role}</span>}
            {actsOn(one).length > 0 && <Menu label={`What to do with ${nameOf(one.user_id)}`} items={() => actsOn(one)} />}
          </li>
        ))}
      </ul>
      {adding && <Add conversation={conversation} known={items?.map((one) => one.user_id) ?? []} onClose={() => (setAdding(false), void attempt(load))} />}
      {inviting && <Invites conversation={conversation} onClose={() => setInviting(false)} />}
      {renaming && <Rename conversation={conversation} onClose={() => setRenaming(false)} />}
      {removing && (
        <Confirm
          title={`Remove ${nameOf(removing)}?`}
          text="They keep what was written until now, and get nothing that follows."
          act="Remove"
          onAct={() =>
            attempt(async () => {
              await echo.rest.delete('/api/v1/messages/conversations/{id}/participants/{user_id}', { path: { id, user_id: removing } });
              await Promise.all([load(), loadConversation(id)]);
            })
          }
          onClose={() => setRemoving(null)}
        />
      )}
    </section>
  );
}

function Add({ conversation, known, onClose }: { conversation: Conversation; known: string[]; onClose: () => void }) {
  const [query, setQuery] = useState('');
  const { found } = usePeopleSearch(query);
  const add = (user_id: string) =>
    attempt(async () => {
      const { not_added } = await echo.rest.post('/api/v1/messages/conversations/{id}/participants', { path: { id: conversation.id }, body: { user_ids: [user_id] } });
      if (not_added.length > 0) notify(`${nameOf(user_id)} lets only certain people add them to groups.`, 'error');
      await loadConversation(conversation.id);
      onClose();
    });
  return (
    <Dialog title="Add people" onClose={onClose}>
      <Field label="Find people" type="search" value={query} onInput={setQuery} placeholder="Name or phone number" autofocus />
      <ul class="dialog-list">
        {found
          ?.filter((one) => !known.includes(one.id))
          .map((one) => (
            <li key={one.id}>
              <PersonRow person={one} onChoose={() => void add(one.id)} />
            </li>
          ))}
      </ul>
    </Dialog>
  );
}

function Rename({ conversation, onClose }: { conversation: Conversation; onClose: () => void }) {
  const [title, setTitle] = useState(conversation.title ?? '');
  const [description, setDescription] = useState(conversation.description ?? '');
  const save = () =>
    attempt(async () => {
      keep(await echo.rest.patch('/api/v1/messages/conversations/{id}', { path: { id: conversation.id }, body: { title: title.trim(), description } }));
      onClose();
    });
  return (
    <Dialog title="Name and description" onClose={onClose}>
      <form class="form" onSubmit={(event) => (event.preventDefault(), void save())}>
        <Field label="Name" value={title} onInput={setTitle} maxLength={200} autofocus />
        <Field label="Description" value={description} onInput={setDescription} maxLength={2000} rows={3} />
        <div class="dialog-acts">
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="primary" type="submit" disabled={title.trim() === ''}>
            Save
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

function Ends({ conversation, partner }: { conversation: Conversation; partner: string | null }) {
  const [asking, setAsking] = useState<'block' | 'leave' | 'report' | 'alias' | null>(null);
  const { id } = conversation;
  const isBlocked = partner !== null && blocked.value.has(partner);
  const block = () => attempt(() => setBlocked(partner!, !isBlocked), isBlocked ? 'Unblocked' : 'Blocked');
  const leave = () =>
    attempt(async () => {
      await echo.rest.delete('/api/v1/messages/conversations/{id}/participants/{user_id}', { path: { id, user_id: me() } });
      go('/', true);
    });
  return (
    <section class="group" aria-label="Leave">
      {partner !== null && partner !== me() && !isBlocked && (
        <button class="setting" type="button" onClick={() => void attempt(() => setContact(partner, !contacts.value.has(partner)), contacts.value.has(partner) ? 'Removed from your contacts' : 'Added to your contacts')}>
          <Icon name="person" />
          <span>{contacts.value.has(partner) ? 'Remove from contacts' : 'Add to contacts'}</span>
        </button>
      )}
      {partner !== null && contacts.value.has(partner) && (
        <button class="setting" type="button" onClick={() => setAsking('alias')}>
          <Icon name="edit" />
          <span>Name them yourself</span>
        </button>
      )}
      {partner !== null && partner !== me() && (
        <button class="setting danger" type="button" onClick={() => setAsking('block')}>
          <Icon name="block" />
          <span>{isBlocked ? `Unblock ${nameOf(partner)}` : `Block ${nameOf(partner)}`}</span>
        </button>
      )}
      {partner !== null && partner !== me() && has('POST /api/v1/users/reports') && (
        <button class="setting danger" type="button" onClick={() => setAsking('report')}>
          <Icon name="flag" />
          <span>Report {nameOf(partner)}</span>
        </button>
      )}
      {partner === null && (
        <button class="setting danger" type="button" onClick={() => setAsking('leave')}>
          <Icon name="leave" />
          <span>Leave the {conversation.type}</span>
        </button>
      )}
      {asking === 'block' && (
        <Confirm
          title={isBlocked ? `Unblock ${nameOf(partner!)}?` : `Block ${nameOf(partner!)}?`}
          text={isBlocked ? 'They can write to you again.' : 'They cannot write to you, nor see when you are online. They do not learn of it.'}
          act={isBlocked ? 'Unblock' : 'Block'}
          onAct={block}
          onClose={() => setAsking(null)}
        />
      )}
      {asking === 'alias' && <Alias person={partner!} onClose={() => setAsking(null)} />}
      {asking === 'report' && <ReportDialog about={{ user_id: partner! }} who={nameOf(partner!)} onClose={() => setAsking(null)} />}
      {asking === 'leave' && (
        <Confirm title={`Leave the ${conversation.type}?`} text="You get nothing more from it. Only somebody who is in it can add you again." act="Leave" onAct={leave} onClose={() => setAsking(null)} />
      )}
    </section>
  );
}
