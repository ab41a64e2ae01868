// The account itself: who has signed in to it, and its end.

import { useEffect, useState } from 'preact/hooks';
import { echo, has } from '../state/echo.js';
import { attempt } from '../state/notices.js';
import { Icon } from './icons.js';
import { Confirm, Loading } from './parts.js';
import { moment } from './times.js';

const OUTCOMES = {
  succeeded: 'Signed in',
  wrong_password: 'Wrong password',
  locked: 'Refused: too many wrong passwords',
  unverified: 'Refused: number not confirmed',
  totp_required: 'Right password, no code yet',
  wrong_totp: 'Right password, wrong code',
};

export function AccountSection() {
  const [items, setItems] = useState<{ at: string; outcome: keyof typeof OUTCOMES; address: string | null }[] | null>(null);
  const [deleting, setDeleting] = useState(false);
  useEffect(() => {
    void attempt(async () => setItems((await echo.rest.get('/api/v1/auth/login-history', { query: { limit: 20 } })).items));
  }, []);
  return (
    <>
      <h2 class="section">Sign-ins</h2>
      {items === null && <Loading what="Loading" />}
      {items?.length === 0 && <p class="hint">None since you signed up.</p>}
      <ul class={items?.length ? 'group' : 'hidden'}>
        {items?.map((one, index) => (
          <li class="participant" key={index}>
            <Icon name={one.outcome === 'succeeded' ? 'sent' : 'warn'} />
            <span class="setting-text">
              <span>{OUTCOMES[one.outcome] ?? one.outcome}</span>
              <span class="setting-about">{[moment(one.at), one.address].filter(Boolean).join(' · ')}</span>
            </span>
          </li>
        ))}
      </ul>
      {has('DELETE /api/v1/auth/account') && (
        <div class="group">
          <button class="setting danger" type="button" onClick={() => setDeleting(true)}>
            <Icon name="trash" />
            <span>Delete the account</span>
          </button>
        </div>
      )}
      {deleting && (
        <Confirm
          title="Delete your account?"
          text="You are signed out everywhere at once. For some days you can have it back by signing in; after that everything of it is erased, and nobody can bring it back."
          act="Delete the account"
          onAct={() =>
            attempt(async () => {
              await echo.rest.delete('/api/v1/auth/account');
              await echo.signOut();
            })
          }
          onClose={() => setDeleting(false)}
        />
      )}
    </>
  );
}
