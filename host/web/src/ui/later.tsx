// Messages that are sent later: choosing when, and changing one's mind.

import type { ScheduledMessage } from '@echo/client';
import { useState } from 'preact/hooks';
import { reschedule, scheduledIn, unschedule } from '../state/scheduled.js';
import { Icon } from './icons.js';
import { Button, Dialog, Field } from './parts.js';
import { moment } from './times.js';

const HOUR_MS = 3_600_000;

/** As the field of a date and a time has it: local, without seconds. */
const local = (at: Date) => new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);

function tomorrowAt(hour: number): Date {
  const at = new Date();
  at.setDate(at.getDate() + 1);
  at.setHours(hour, 0, 0, 0);
  return at;
}

export function Later({ at, act, onAct, onClose }: { at?: string; act: string; onAct: (send_at: string) => void; onClose: () => void }) {
  const [when, setWhen] = useState(local(at ? new Date(at) : new Date(Date.now() + HOUR_MS)));
  const chosen = new Date(when);
  const past = !(chosen.getTime() > Date.now());
  const choices: [string, Date][] = [
    ['In an hour', new Date(Date.now() + HOUR_MS)],
    ['Tomorrow at 9', tomorrowAt(9)],
    ['Tomorrow at 18', tomorrowAt(18)],
  ];
  return (
    <Dialog title="Send later" onClose={onClose}>
      <form class="form" onSubmit={(event) => (event.preventDefault(), past || onAct(chosen.toISOString()))}>
        <div class="form-row wrap">
          {choices.map(([title, date]) => (
            <Button key={title} onClick={() => setWhen(local(date))}>
              {title}
            </Button>
          ))}
        </div>
        <Field label="Day and time" type="datetime-local" value={when} onInput={setWhen} error={past ? 'Choose a time that is to come.' : null} required />
        <p class="hint">The server sends it then, whether this device is on or not.</p>
        <div class="dialog-acts">
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="primary" type="submit" disabled={past}>
            {act}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

/** Above the place to write: what waits to be sent in this conversation. */
export function ScheduledLine({ conversation }: { conversation: string }) {
  const [open, setOpen] = useState(false);
  const [moving, setMoving] = useState<ScheduledMessage | null>(null);
  const items = scheduledIn(conversation);
  if (items.length === 0) return null;
  return (
    <>
      <button class="scheduled-line" type="button" onClick={() => setOpen(true)}>
        <Icon name="clock" />
        <span>{items.length === 1 ? '1 message is sent later' : `${items.length} messages are sent later`}</span>
      </button>
      {open && !moving && (
        <Dialog title="To be sent later" onClose={() => setOpen(false)}>
          <ul class="scheduled">
            {items.map((one) => (
              <li key={one.id}>
                <p class="setting-about">
                  <time dateTime={one.send_at}>{moment(one.send_at)}</time>
                </p>
                <p dir="auto">{one.content ?? one.type}</p>
                {one.failure && <p class="field-error">It could not be sent ({one.failure}). Choose another time to try again.</p>}
                <div class="form-row">
                  <Button onClick={() => setMoving(one)}>Change the time</Button>
                  <Button kind="danger" onClick={() => void unschedule(one.id)}>
                    Do not send
                  </Button>
                </div>
              </li>
            ))}
          </ul>
        </Dialog>
      )}
      {moving && (
        <Later
          at={moving.send_at}
          act="Change"
          onClose={() => setMoving(null)}
          onAct={(send_at) => {
            void reschedule(moving.id, { send_at });
            setMoving(null);
          }}
        />
      )}
    </>
  );
}
