// What belongs to the account: profile, privacy, blocked people, devices, password, appearance.

import type { Message, Presence, Privacy, Session } from '@echo/client';
import type { ComponentChildren } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { echo, has, me } from '../state/echo.js';
import { attempt, meaning } from '../state/notices.js';
import { blocked, loadBlocked, nameOf, presence, refreshPresence, setBlocked, watchPresence } from '../state/people.js';
import { loadPrivacy, loadProfile, privacy, profile, saveProfile, savePrivacy } from '../state/profile.js';
import { setStarred } from '../state/extras.js';
import { jump } from '../state/talk.js';
import { theme, type Theme } from '../state/theme.js';
import { AccountSection } from './account.js';
import { Icon, type IconName } from './icons.js';
import { MENTIONS, Mentions } from './mentions.js';
import { NotificationSettings } from './notification-settings.js';
import { Avatar, Button, Confirm, Empty, Field, Loading, PersonAvatar } from './parts.js';
import { SecondFactor } from './second-factor.js';
import { excerpt } from './sidebar.js';
import { ago } from './times.js';

const SECTIONS: { id: string; title: string; icon: IconName; about: string; view: () => preact.JSX.Element; needs?: string }[] = [
  { id: 'profile', title: 'Profile', icon: 'person', about: 'Your name and what others see', view: ProfileForm },
  { id: 'privacy', title: 'Privacy', icon: 'lock', about: 'Who sees what of you', view: PrivacyForm },
  { id: 'starred', title: 'Starred messages', icon: 'star', about: 'What you want to find again', view: Starred, needs: 'GET /api/v1/messages/starred' },
  { id: 'mentions', title: 'Mentions', icon: 'chat', about: 'Where somebody means you', view: Mentions, needs: MENTIONS },
  { id: 'blocked', title: 'Blocked people', icon: 'block', about: 'Who cannot write to you', view: BlockedList },
  { id: 'devices', title: 'Devices', icon: 'device', about: 'Where you are signed in', view: Devices },
  { id: 'notifications', title: 'Notifications', icon: 'bell', about: 'Of what, and when not', view: NotificationSettings },
  { id: 'second-factor', title: 'Second factor', icon: 'shield', about: 'Codes of an app when you sign in', view: SecondFactor, needs: 'POST /api/v1/auth/totp' },
  { id: 'password', title: 'Password', icon: 'key', about: 'Choose another one', view: Password },
  { id: 'appearance', title: 'Appearance', icon: 'sun', about: 'Light or dark', view: Appearance },
  { id: 'account', title: 'Account', icon: 'person', about: 'Who signed in, and its end', view: AccountSection, needs: 'GET /api/v1/auth/login-history' },
];

export function Settings({ section }: { section: string }) {
  const chosen = SECTIONS.find((one) => one.id === section);
  const View = chosen?.view;
  return (
    <main class="pane">
      <header class="pane-head">
        <a class="icon-button" href={chosen ? '/settings' : '/'} aria-label={chosen ? 'Back to the settings' : 'Back to the conversations'}>
          <Icon name="back" />
        </a>
        <h1 tabIndex={-1}>{chosen?.title ?? 'Settings'}</h1>
      </header>
      <div class="pane-body narrow">{View ? <View /> : <Overview />}</div>
    </main>
  );
}

function Overview() {
  const [leaving, setLeaving] = useState(false);
  const own = profile.value;
  return (
    <>
      <div class="details-top">
        <Avatar id={me()} name={own?.display_name ?? ''} size="large" />
        <h2 dir="auto">{own?.display_name ?? ''}</h2>
        {own?.phone && <p dir="ltr">{own.phone}</p>}
      </div>
      <ShownAs />
      <ul class="group">
        {SECTIONS.filter((one) => !one.needs || has(one.needs)).map((one) => (
          <li key={one.id}>
            <a class="setting" href={`/settings/${one.id}`}>
              <Icon name={one.icon} />
              <span class="setting-text">
                <span>{one.title}</span>
                <span class="setting-about">{one.about}</span>
              </span>
            </a>
          </li>
        ))}
      </ul>
      <div class="group">
        <button class="setting danger" type="button" onClick={() => setLeaving(true)}>
          <Icon name="leave" />
          <span>Sign out of this device</span>
        </button>
      </div>
      {leaving && (
        <Confirm
          title="Sign out?"
          text="Your conversations stay on the server. Messages of this device that were not sent yet are lost."
          act="Sign out"
          onAct={() => echo.signOut()}
          onClose={() => setLeaving(false)}
        />
      )}
    </>
  );
}

/** How others see one: as the devices say, or as one chooses. */
function ShownAs() {
  const now = presence.value.get(me())?.status ?? 'online';
  useEffect(() => watchPresence([me()]), []);
  const choose = (status: Presence['status']) =>
    void attempt(async () => {
      await echo.rest.put('/api/v1/presence', { body: { status } });
      await refreshPresence();
    }, 'Saved');
  return (
    <div class="group">
      <label class="setting">
        <span>Others see me as</span>
        <select class="select" value={now} onChange={(event) => choose(event.currentTarget.value as Presence['status'])}>
          <option value="online">there when I am</option>
          <option value="away">away</option>
          <option value="busy">busy</option>
          <option value="offline">not there</option>
        </select>
      </label>
    </div>
  );
}

/** Loads what a section needs, and shows that it is loading or why it failed. */
function Loaded({ load, ready, children }: { load: () => Promise<unknown>; ready: boolean; children: () => ComponentChildren }) {
  const [error, setError] = useState<unknown>(null);
  const run = () => {
    setError(null);
    load().catch(setError);
  };
  useEffect(run, []);
  if (error !== null && !ready)
    return (
      <Empty icon="warn" title="Not loaded">
        <p>{meaning(error)}</p>
        <Button onClick={run}>Try again</Button>
      </Empty>
    );
  return ready ? <>{children()}</> : <Loading what="Loading" />;
}

function ProfileForm() {
  return (
    <Loaded load={loadProfile} ready={profile.value !== null}>
      {() => <ProfileFields />}
    </Loaded>
  );
}

function ProfileFields() {
  const own = profile.value!;
  const [name, setName] = useState(own.display_name);
  const [status, setStatus] = useState(own.status_text ?? '');
  const [bio, setBio] = useState(own.bio ?? '');
  const [busy, setBusy] = useState(false);
  const changed = name !== own.display_name || status !== (own.status_text ?? '') || bio !== (own.bio ?? '');
  const save = async () => {
    setBusy(true);
    await attempt(() => saveProfile({ display_name: name.trim(), status_text: status, bio }), 'Saved');
    setBusy(false);
  };
  return (
    <form class="form" onSubmit={(event) => (event.preventDefault(), void save())}>
      <div class="details-top">
        <Avatar id={me()} name={name} size="large" />
      </div>
      <Field label="Name" value={name} onInput={setName} maxLength={100} autocomplete="name" required />
      <Field label="Status" value={status} onInput={setStatus} maxLength={140} placeholder="At work, on holiday …" />
      <Field label="About you" value={bio} onInput={setBio} maxLength={500} rows={4} />
      <Button kind="primary" type="submit" busy={busy} disabled={!changed || name.trim() === ''}>
        Save
      </Button>
    </form>
  );
}

const PRIVACY: { key: keyof Privacy; title: string; about: string }[] = [
  { key: 'phone_visible', title: 'Phone number', about: 'Who sees it, and finds you by it' },
  { key: 'profile_visible', title: 'Profile', about: 'Who sees your status and what you say about yourself' },
  { key: 'presence_visible', title: 'Online', about: 'Who sees that you are there' },
  { key: 'last_seen_visible', title: 'Last seen', about: 'Who sees when you were there last' },
  { key: 'read_receipts', title: 'Read receipts', about: 'Who learns that you have read their messages' },
  { key: 'groups', title: 'Groups', about: 'Who may add you to groups' },
];

function PrivacyForm() {
  return (
    <Loaded load={loadPrivacy} ready={privacy.value !== null}>
      {() => (
        <div class="group">
          {PRIVACY.map(({ key, title, about }) => (
            <label class="setting" key={key}>
              <span class="setting-text">
                <span>{title}</span>
                <span class="setting-about">{about}</span>
              </span>
              <select class="select" value={privacy.value![key]} onChange={(event) => void attempt(() => savePrivacy({ [key]: event.currentTarget.value as Privacy[typeof key] }), 'Saved')}>
                <option value="everyone">everyone</option>
                <option value="contacts">my contacts</option>
                <option value="nobody">nobody</option>
              </select>
            </label>
          ))}
        </div>
      )}
    </Loaded>
  );
}

function Starred() {
  const [items, setItems] = useState<Message[] | null>(null);
  const load = async () => setItems((await echo.rest.get('/api/v1/messages/starred', { query: { limit: 100 } })).items);
  return (
    <Loaded load={load} ready={items !== null}>
      {() =>
        items!.length === 0 ? (
          <Empty icon="star" title="Nothing starred">
            <p>Choose “Star” in the menu of a message, and it is found here again. Only you see it.</p>
          </Empty>
        ) : (
          <ul class="group">
            {items!.map((message) => (
              <li class="participant" key={message.id}>
                <a class="row-text plain" href={`/c/${message.conversation_id}`} onClick={() => (jump.value = { conversation: message.conversation_id, seq: message.seq })}>
                  <span class="setting-about" dir="auto">
                    {nameOf(message.sender_id)} · {ago(message.created_at)}
                  </span>
                  <span dir="auto">{excerpt(message.content, message.type)}</span>
                </a>
                <Button onClick={() => void setStarred(message.id, false).then((done) => (done ? load() : undefined))}>Remove</Button>
              </li>
            ))}
          </ul>
        )
      }
    </Loaded>
  );
}

function BlockedList() {
  const [ready, setReady] = useState(false);
  return (
    <Loaded load={() => loadBlocked().then(() => setReady(true))} ready={ready}>
      {() =>
        blocked.value.size === 0 ? (
          <Empty icon="block" title="Nobody is blocked">
            <p>Somebody whom you block cannot write to you nor see when you are online. They do not learn of it.</p>
          </Empty>
        ) : (
          <ul class="group">
            {[...blocked.value].map((id) => (
              <li class="participant" key={id}>
                <PersonAvatar id={id} size="small" />
                <span class="participant-name" dir="auto">
                  {nameOf(id)}
                </span>
                <Button onClick={() => void attempt(() => setBlocked(id, false), 'Unblocked')}>Unblock</Button>
              </li>
            ))}
          </ul>
        )
      }
    </Loaded>
  );
}

function Devices() {
  const [items, setItems] = useState<Session[] | null>(null);
  const [ending, setEnding] = useState<Session | null>(null);
  const [endingAll, setEndingAll] = useState(false);
  const load = async () => setItems((await echo.rest.get('/api/v1/auth/sessions', {})).items);
  const nameOfDevice = (session: Session) => session.device.name ?? session.device.model ?? session.device.platform ?? session.device.id;
  return (
    <Loaded load={load} ready={items !== null}>
      {() => (
        <>
          <ul class="group">
            {[...items!]
              .sort((a, b) => Number(b.current) - Number(a.current))
              .map((session) => (
                <li class="participant" key={session.id} data-testid="device">
                  <Icon name="device" />
                  <span class="setting-text">
                    <span dir="auto">{nameOfDevice(session)}</span>
                    <span class="setting-about">{[session.current ? 'this device' : `used ${ago(session.last_used_at)}`, session.place ?? session.address].filter(Boolean).join(' · ')}</span>
                  </span>
                  {session.current ? <span class="tag">current</span> : <Button onClick={() => setEnding(session)}>Sign out</Button>}
                </li>
              ))}
          </ul>
          <div class="group">
            <button class="setting danger" type="button" onClick={() => setEndingAll(true)}>
              <Icon name="leave" />
              <span>Sign out of all devices</span>
            </button>
          </div>
          {ending && (
            <Confirm
              title={`Sign out ${nameOfDevice(ending)}?`}
              text="Whoever uses that device has to sign in again."
              act="Sign out"
              onAct={() =>
                attempt(async () => {
                  await echo.rest.delete('/api/v1/auth/sessions/{id}', { path: { id: ending.id } });
                  await load();
                }, 'Signed out')
              }
              onClose={() => setEnding(null)}
            />
          )}
          {endingAll && (
            <Confirm
              title="Sign out of all devices?"
              text="This one too. You have to sign in again everywhere."
              act="Sign out everywhere"
              onAct={() => attempt(() => echo.rest.post('/api/v1/auth/logout-all', {}).then(() => echo.signOut()))}
              onClose={() => setEndingAll(false)}
            />
          )}
        </>
      )}
    </Loaded>
  );
}

function Password() {
  const [current, setCurrent] = useState('');
  const [next, setNext] = useState('');
  const [busy, setBusy] = useState(false);
  const save = async () => {
    setBusy(true);
    const body = { current_password: current, new_password: next };
    const done = await attempt(() => echo.rest.post('/api/v1/auth/password/change', { body }), 'Changed. Your other devices are signed out.');
    if (done) {
      setCurrent('');
      setNext('');
    }
    setBusy(false);
  };
  return (
    <form class="form" onSubmit={(event) => (event.preventDefault(), void save())}>
      <Field label="Current password" type="password" autocomplete="current-password" value={current} onInput={setCurrent} required />
      <Field label="New password" type="password" autocomplete="new-password" value={next} onInput={setNext} hint="At least 8 characters, none of your last five. Other devices are signed out." required />
      <Button kind="primary" type="submit" busy={busy} disabled={current === '' || next.length < 8}>
        Change it
      </Button>
    </form>
  );
}

function Appearance() {
  const choices: [Theme, string][] = [
    ['system', 'As the system has it'],
    ['light', 'Light'],
    ['dark', 'Dark'],
  ];
  return (
    <fieldset class="group">
      <legend class="hidden">Colours</legend>
      {choices.map(([value, title]) => (
        <label class="setting" key={value}>
          <span>{title}</span>
          <input type="radio" name="theme" value={value} checked={theme.value === value} onChange={() => (theme.value = value)} />
        </label>
      ))}
    </fieldset>
  );
}
