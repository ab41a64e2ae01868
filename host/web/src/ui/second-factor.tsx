// A second factor: codes of an app, beside the password (RFC 6238).

import { useState } from 'preact/hooks';
import { Problem } from '@echo/client';
import { encode } from 'uqr';
import { echo } from '../state/echo.js';
import { attempt, meaning } from '../state/notices.js';
import { Button, Field, IconButton } from './parts.js';

/** An address as a code that a camera reads. */
function QrCode({ text }: { text: string }) {
  const { data, size } = encode(text, { border: 0 });
  const path = data.flatMap((row, y) => row.map((dark, x) => (dark ? `M${x} ${y}h1v1h-1z` : ''))).join('');
  return (
    <svg class="qr" viewBox={`0 0 ${size} ${size}`} role="img" aria-label="The key as a code to scan">
      <path d={path} />
    </svg>
  );
}

const copy = (text: string) => void attempt(() => navigator.clipboard.writeText(text), 'Copied');

export function SecondFactor() {
  const [step, setStep] = useState<'choose' | 'confirm' | 'codes' | 'end'>('choose');
  const [password, setPassword] = useState('');
  const [code, setCode] = useState('');
  const [secret, setSecret] = useState<{ secret: string; uri: string } | null>(null);
  const [recovery, setRecovery] = useState<string[]>([]);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<unknown>(null);
  const run = (work: () => Promise<void>) => async (event: Event) => {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    await work().catch(setProblem);
    setBusy(false);
  };
  const begin = run(async () => {
    try {
      setSecret(await echo.rest.post('/api/v1/auth/totp', { body: { password } }));
      setStep('confirm');
    } catch (error) {
      if (!(error instanceof Problem) || error.code !== 'totp_active') throw error;
      setStep('end');
    }
    setPassword('');
  });
  const confirm = run(async () => {
    setRecovery((await echo.rest.post('/api/v1/auth/totp/confirm', { body: { code: code.trim() } })).recovery_codes);
    setCode('');
    setStep('codes');
  });
  const end = run(async () => {
    await echo.rest.delete('/api/v1/auth/totp', { query: { code: code.trim() } });
    setCode('');
    setStep('choose');
  });
  const failure = problem !== null && (
    <p class="failure" role="alert">
      {meaning(problem)}
    </p>
  );
  const codeField = <Field label="Code" value={code} onInput={setCode} inputMode="numeric" autocomplete="one-time-code" maxLength={32} autofocus required />;
  switch (step) {
    case 'confirm':
      return (
        <form class="form" onSubmit={confirm}>
          <p class="lead">Scan this with an app for sign-in codes, or type the key into it. Then write the code that it shows.</p>
          <QrCode text={secret!.uri} />
          <div class="code-line">
            <code dir="ltr">{secret!.secret}</code>
            <IconButton name="copy" label="Copy the key" onClick={() => copy(secret!.secret)} />
          </div>
          {failure}
          {codeField}
          <Button kind="primary" type="submit" busy={busy} disabled={code.trim().length < 6}>
            Turn it on
          </Button>
        </form>
      );
    case 'codes':
      return (
        <div class="form">
          <p class="lead">It is on. Keep these codes where you find them without this device: each signs you in once when you have lost the app. They are not shown again.</p>
          <ul class="recovery" aria-label="Recovery codes">
            {recovery.map((one) => (
              <li class="code-line" key={one}>
                <code dir="ltr">{one}</code>
              </li>
            ))}
          </ul>
          <div class="form-row">
            <Button onClick={() => copy(recovery.join('\n'))}>Copy all</Button>
            <Button kind="primary" onClick={() => setStep('choose')}>
              I have kept them
            </Button>
          </div>
        </div>
      );
    case 'end':
      return (
        <form class="form" onSubmit={end}>
          <p class="lead">Signing in asks for a code. Write one of the app, or a recovery code, to turn that off.</p>
          {failure}
          {codeField}
          <div class="form-row">
            <Button onClick={() => setStep('choose')}>Leave it on</Button>
            <Button kind="danger" type="submit" busy={busy} disabled={code.trim().length < 6}>
              Turn it off
            </Button>
          </div>
        </form>
      );
    default:
      return (
        <form class="form" onSubmit={begin}>
          <p class="lead">With a second factor, signing in asks for a code of an app on your phone too: whoever learns your password does not get in.</p>
          {failure}
          <Field label="Current password" type="password" autocomplete="current-password" value={password} onInput={setPassword} required />
          <Button kind="primary" type="submit" busy={busy} disabled={password === ''}>
            Set it up
          </Button>
          <Button kind="quiet" onClick={() => setStep('end')}>
            Turn it off
          </Button>
        </form>
      );
  }
}
