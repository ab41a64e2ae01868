// Of what one is notified, and when not.

import { useEffect, useState } from 'preact/hooks';
import { alerts, canAlert, loadPreferences, preferences, PREFERENCES, savePreferences, setAlerts, type Preferences } from '../state/alerts.js';
import { has } from '../state/echo.js';
import { attempt, meaning, notify } from '../state/notices.js';
import { loadPush, NoPush, push, setPush } from '../state/push.js';
import { Switch } from './details.js';

const save = (change: Partial<Preferences>) => void attempt(() => savePreferences(change), 'Saved');

export function NotificationSettings() {
  const served = has(`GET ${PREFERENCES}`);
  const now = preferences.value;
  useEffect(() => {
    if (served) void attempt(loadPreferences);
    void loadPush().catch(() => undefined);
  }, [served]);
  const quiet = now?.quiet_hours ?? null;
  const timezone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const toggle = async (on: boolean) => {
    if (!(await setAlerts(on))) notify('Allow notifications for this page in the settings of the browser.', 'error');
  };
  const [busy, setBusy] = useState(false);
  const togglePush = async (on: boolean) => {
    if (busy) return;
    setBusy(true);
    await setPush(on).catch((error: unknown) => notify(error instanceof NoPush ? error.message : meaning(error), 'error'));
    setBusy(false);
  };
  return (
    <>
      {canAlert() && (
        <>
          <h2 class="section">This browser</h2>
          <section class="group" aria-label="This browser">
            <Switch label="Show new messages" about="While Echo is open, and you look at something else" icon="bell" on={alerts.value} onChange={(on) => void toggle(on)} />
            {push.value !== null && (
              <Switch
                label="Also while Echo is closed"
                about="Through the push service of this browser, encrypted for it"
                icon="device"
                on={push.value === 'on'}
                onChange={(on) => void togglePush(on)}
              />
            )}
            {Notification.permission === 'denied' && <p class="setting setting-about">This browser does not let Echo show notifications. Its settings for this page change that.</p>}
          </section>
        </>
      )}
      {now && (
        <>
          <h2 class="section">All your devices</h2>
          <section class="group" aria-label="All your devices">
            <label class="setting">
              <span class="setting-text">
                <span>Notify me of</span>
                <span class="setting-about">Conversations that are muted stay so</span>
              </span>
              <select class="select" value={now.messages} onChange={(event) => save({ messages: event.currentTarget.value as Preferences['messages'] })}>
                <option value="all">all messages</option>
                <option value="mentions">mentions of me</option>
                <option value="none">nothing</option>
              </select>
            </label>
            <Switch label="Show what messages say" on={now.previews} onChange={(previews) => save({ previews })} />
            <Switch label="Quiet hours" icon="mute" on={quiet !== null} onChange={(on) => save({ quiet_hours: on ? { start: '22:00', end: '07:00', timezone } : null })} />
            {quiet && (
              <>
                <label class="setting">
                  <span>From</span>
                  <input class="select" type="time" value={quiet.start} onChange={(event) => event.currentTarget.value && save({ quiet_hours: { ...quiet, start: event.currentTarget.value } })} />
                </label>
                <label class="setting">
                  <span>Until</span>
                  <input class="select" type="time" value={quiet.end} onChange={(event) => event.currentTarget.value && save({ quiet_hours: { ...quiet, end: event.currentTarget.value } })} />
                </label>
                <p class="setting setting-about">
                  In the time of {quiet.timezone}
                  {quiet.timezone !== timezone && (
                    <button class="link" type="button" onClick={() => save({ quiet_hours: { ...quiet, timezone } })}>
                      Use {timezone}
                    </button>
                  )}
                </p>
              </>
            )}
          </section>
        </>
      )}
    </>
  );
}
