// Finding people, and beginning a conversation or a group.

import type { Profile } from '@echo/client';
import { useEffect, useState } from 'preact/hooks';
import { echo, me } from '../state/echo.js';
import { meaning } from '../state/notices.js';
import { contacts, nameOf, people, remember } from '../state/people.js';
import { openDirect, openGroup } from '../state/talk.js';
import { Icon } from './icons.js';
import { Button, Empty, Field, Loading, PersonAvatar } from './parts.js';

const SEARCH_AFTER_MS = 250;

/** People whose name fits, or whose phone number it is. */
export function usePeopleSearch(query: string): { found: Profile[] | null; error: unknown; busy: boolean } {
  const [state, setState] = useState<{ found: Profile[] | null; error: unknown; busy: boolean }>({ found: null, error: null, busy: false });
  const wanted = query.trim();
  useEffect(() => {
    if (wanted.length < 2) return setState({ found: null, error: null, busy: false });
    let on = true;
    setState((before) => ({ ...before, busy: true }));
    const timer = setTimeout(async () => {
      try {
        const q = /^[+\d][\d\s().-]{6,}$/.test(wanted) ? wanted.replace(/[\s().-]/g, '') : wanted;
        const { items } = await echo.rest.get('/api/v1/users/search', { query: { q, limit: 30 } });
        remember(items);
        if (on) setState({ found: items.filter((one) => one.id !== me()), error: null, busy: false });
      } catch (error) {
        if (on) setState({ found: null, error, busy: false });
      }
    }, SEARCH_AFTER_MS);
    return () => {
      on = false;
      clearTimeout(timer);
    };
  }, [wanted]);
  return state;
}

export function PersonRow({ person, chosen, onChoose, role = 'button' }: { person: Profile; chosen?: boolean; onChoose: () => void; role?: 'button' | 'checkbox' }) {
  return (
    <button class="row person" type="button" role={role} aria-checked={role === 'checkbox' ? Boolean(chosen) : undefined} onClick={onChoose}>
      <PersonAvatar id={person.id} />
      <span class="row-text">
        <span class="row-title" dir="auto">
          {nameOf(person.id)}
        </span>
        <span class="row-preview" dir="auto">
          {person.status_text ?? person.bio ?? person.phone ?? ''}
        </span>
      </span>
      {role === 'checkbox' && <span class={chosen ? 'check check-on' : 'check'}>{chosen && <Icon name="sent" />}</span>}
    </button>
  );
}

export function NewConversation() {
  const [query, setQuery] = useState('');
  const [kind, setKind] = useState<'direct' | 'group' | 'channel'>('direct');
  const group = kind !== 'direct';
  const [title, setTitle] = useState('');
  const [chosen, setChosen] = useState<string[]>([]);
  const [busy, setBusy] = useState(false);
  const { found, error, busy: searching } = usePeopleSearch(query);
  const known = [...contacts.value].map((id) => people.value.get(id)).filter((one): one is Profile => one !== undefined);
  const shown = found ?? known;
  const choose = async (id: string) => {
    if (group) return setChosen(chosen.includes(id) ? chosen.filter((one) => one !== id) : [...chosen, id]);
    setBusy(true);
    await openDirect(id);
    setBusy(false);
  };
  const create = async () => {
    setBusy(true);
    await openGroup(kind === 'channel' ? 'channel' : 'group', title.trim(), chosen);
    setBusy(false);
  };
  return (
    <main class="pane">
      <header class="pane-head">
        <a class="icon-button" href="/" aria-label="Back to the conversations">
          <Icon name="back" />
        </a>
        <h1 tabIndex={-1}>{group ? `New ${kind}` : 'New conversation'}</h1>
      </header>
      <div class="pane-body narrow">
        <div class="tabs" role="group" aria-label="Kind">
          <button type="button" class="tab" aria-pressed={!group} onClick={() => setKind('direct')}>
            <Icon name="person" /> Person
          </button>
          <button type="button" class="tab" aria-pressed={kind === 'group'} onClick={() => setKind('group')}>
            <Icon name="people" /> Group
          </button>
          <button type="button" class="tab" aria-pressed={kind === 'channel'} onClick={() => setKind('channel')}>
            <Icon name="bell" /> Channel
          </button>
        </div>
        {kind === 'channel' && <p class="hint">In a channel you and those whom you make admins write; the others read.</p>}
        {group && <Field label={`Name of the ${kind}`} value={title} onInput={setTitle} maxLength={200} />}
        {group && chosen.length > 0 && (
          <ul class="chips" aria-label="Chosen">
            {chosen.map((id) => (
              <li>
                <button class="chip" type="button" aria-label={`Remove ${nameOf(id)}`} onClick={() => setChosen(chosen.filter((one) => one !== id))}>
                  <bdi>{nameOf(id)}</bdi>
                  <Icon name="close" />
                </button>
              </li>
            ))}
          </ul>
        )}
        <Field label="Find people" type="search" value={query} onInput={setQuery} inputMode="search" placeholder="Name, or phone number with country code" autofocus />
        <div class="results" aria-live="polite" aria-busy={searching}>
          {searching && found === null && <Loading what="Searching" />}
          {error !== null && <p class="failure">{meaning(error)}</p>}
          {found !== null && found.length === 0 && (
            <Empty icon="search" title="Nobody found">
              <p>Check the spelling. A phone number finds somebody only if they allow it.</p>
            </Empty>
          )}
          {found === null && !searching && error === null && known.length === 0 && (
            <Empty icon="people" title="Who do you want to talk to?">
              <p>Type at least two letters of a name, or a whole phone number.</p>
            </Empty>
          )}
          {found === null && known.length > 0 && !searching && <h2 class="section">Your contacts</h2>}
          <ul>
            {shown.map((person) => (
              <li key={person.id}>
                <PersonRow person={person} chosen={chosen.includes(person.id)} role={group ? 'checkbox' : 'button'} onChoose={() => void choose(person.id)} />
              </li>
            ))}
          </ul>
        </div>
      </div>
      {group && (
        <footer class="pane-foot">
          <Button kind="primary" busy={busy} disabled={chosen.length === 0 || title.trim() === ''} onClick={() => void create()}>
            {chosen.length === 0 ? 'Choose people' : title.trim() === '' ? `Name the ${kind}` : `Create with ${chosen.length === 1 ? '1 person' : `${chosen.length} people`}`}
          </Button>
        </footer>
      )}
    </main>
  );
}
