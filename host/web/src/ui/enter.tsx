// Signing up, signing in, and a new password.

import { useEffect, useState } from 'preact/hooks';
import { Problem, type Registration } from '@echo/client';
import { echo, thisDevice } from '../state/echo.js';
import { meaning } from '../state/notices.js';
import { go } from '../state/route.js';
import { Button, Field } from './parts.js';

/** Numbers as people write them, to E.164: spaces, brackets and dashes go, 00 is +. */
const phoneOf = (text: string) => text.replace(/[\s().\-/]/g, '').replace(/^00/, '+');

function phoneError(phone: string): string | null {
  return /^\+[1-9]\d{6,14}$/.test(phoneOf(phone)) ? null : 'Write the number with its country code, for instance +1 415 555 0101.';
}

/** What a form does when it is sent: one at a time, with what went wrong. */
function useSubmit() {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<unknown>(null);
  const submit = async (work: () => Promise<unknown>) => {
    if (busy) return;
    setBusy(true);
    setProblem(null);
    try {
      await work();
    } catch (error) {
      setProblem(error);
    } finally {
      setBusy(false);
    }
  };
  const field = (name: string) => (problem instanceof Problem ? problem.field(name) : null);
  return { busy, problem, submit, field };
}

function Failure({ problem, fields = [] }: { problem: unknown; fields?: string[] }) {
  if (problem === null) return null;
  const beside = problem instanceof Problem && problem.document.errors?.length && problem.document.errors.every((error) => fields.includes(error.field));
  return beside ? null : (
    <p class="failure" role="alert">
      {meaning(problem)}
    </p>
  );
}

export function Enter({ step }: { step: string }) {
  return (
    <main class="enter">
      <div class="enter-card">
        <img class="enter-logo" src="/icon.svg" alt="" width="56" height="56" />
        {step === 'sign-in' ? <SignIn /> : step === 'forgot' ? <Forgot /> : <SignUp />}
      </div>
      <p class="enter-foot">
        For developers: <a href="/docs" data-native>the interface</a>
      </p>
    </main>
  );
}

function SignUp() {
  const [phone, setPhone] = useState('');
  const [name, setName] = useState('');
  const [password, setPassword] = useState('');
  const [registration, setRegistration] = useState<Registration | null>(null);
  const [tried, setTried] = useState(false);
  const { busy, problem, submit, field } = useSubmit();
  const send = () => {
    setTried(true);
    if (phoneError(phone) !== null) return;
    void submit(async () => setRegistration(await echo.register({ phone: phoneOf(phone), password, ...(name.trim() ? { name: name.trim() } : {}) })));
  };
  if (registration !== null) return <Code phone={phoneOf(phone)} registration={registration} onBack={() => setRegistration(null)} />;
  return (
    <form class="form" onSubmit={(event) => (event.preventDefault(), send())} noValidate>
      <h1>Welcome to Echo</h1>
      <p class="lead">Messages that arrive. Make an account with your phone number.</p>
      <Failure problem={problem} fields={['phone', 'name', 'password']} />
      <Field label="Your name" value={name} onInput={setName} autocomplete="name" maxLength={100} error={field('name')} />
      <Field
        label="Phone number"
        type="tel"
        inputMode="tel"
        autocomplete="tel"
        placeholder="+1 415 555 0101"
        value={phone}
        onInput={setPhone}
        error={(tried && phoneError(phone)) || field('phone')}
        required
      />
      <Field label="Password" type="password" autocomplete="new-password" value={password} onInput={setPassword} hint="At least 8 characters, and not a common one." error={field('password')} required />
      <Button kind="primary" type="submit" busy={busy}>
        Send me a code
      </Button>
      <p class="form-foot">
        Already here? <a href="/sign-in">Sign in</a>
      </p>
    </form>
  );
}

/** In development no text message leaves: the host shows the code. */
function useDevelopmentCode(phone: string, active: boolean): string | null {
  const [code, setCode] = useState<string | null>(null);
  useEffect(() => {
    if (!active) return;
    let on = true;
    const look = async () => {
      try {
        const { items } = await echo.rest.call<{ items: { to: string; code?: string }[] }>('GET', '/dev/outbox');
        const found = items.find((item) => item.to === phone && item.code);
        if (on && found) setCode(found.code!);
        if (on) setTimeout(() => void look(), found ? 3_000 : 700);
      } catch {
        // Not in development.
      }
    };
    void look();
    return () => void (on = false);
  }, [phone, active]);
  return code;
}

function Code({ phone, registration, onBack }: { phone: string; registration: Registration; onBack: () => void }) {
  const [otp, setOtp] = useState('');
  const [resendAt, setResendAt] = useState(Date.now() + registration.resend_after * 1000);
  const [seconds, setSeconds] = useState(registration.resend_after);
  const development = useDevelopmentCode(phone, true);
  const { busy, problem, submit, field } = useSubmit();
  useEffect(() => {
    const tick = () => setSeconds(Math.max(0, Math.ceil((resendAt - Date.now()) / 1000)));
    tick();
    const timer = setInterval(tick, 500);
    return () => clearInterval(timer);
  }, [resendAt]);
  const verify = (code: string) => void submit(() => echo.verify({ registration_id: registration.registration_id, phone, otp: code, device: thisDevice() }));
  const resend = () =>
    void submit(async () => {
      const { resend_after } = await echo.rest.post('/api/v1/auth/resend-otp', { body: { registration_id: registration.registration_id, phone } });
      setResendAt(Date.now() + resend_after * 1000);
    });
  return (
    <form class="form" onSubmit={(event) => (event.preventDefault(), verify(otp.trim()))} noValidate>
      <h1>Enter the code</h1>
      <p class="lead">
        We sent a text message to <bdi dir="ltr">{phone}</bdi>.
      </p>
      <Failure problem={problem} fields={['otp']} />
      <Field label="Code" value={otp} onInput={setOtp} inputMode="numeric" autocomplete="one-time-code" maxLength={10} error={field('otp')} autofocus required />
      {development && (
        <p class="dev-code">
          <span>
            Development: the code is <strong data-testid="dev-code">{development}</strong>
          </span>
          <Button kind="quiet" onClick={() => (setOtp(development), verify(development))}>
            Use it
          </Button>
        </p>
      )}
      <Button kind="primary" type="submit" busy={busy} disabled={otp.trim().length < 4}>
        Confirm
      </Button>
      <div class="form-row">
        <Button kind="quiet" onClick={onBack}>
          Change number
        </Button>
        <Button kind="quiet" onClick={resend} disabled={seconds > 0}>
          {seconds > 0 ? `New code in ${seconds} s` : 'Send a new code'}
        </Button>
      </div>
    </form>
  );
}

function SignIn() {
  const [phone, setPhone] = useState('');
  const [password, setPassword] = useState('');
  const [totp, setTotp] = useState<string | null>(null);
  const [tried, setTried] = useState(false);
  const { busy, problem, submit, field } = useSubmit();
  const send = () => {
    setTried(true);
    if (phoneError(phone) !== null) return;
    void submit(async () => {
      try {
        await echo.signIn({ phone: phoneOf(phone), password, device: thisDevice(), ...(totp ? { totp: totp.trim() } : {}) });
      } catch (error) {
        if (!(error instanceof Problem) || error.code !== 'totp_required') throw error;
        setTotp('');
      }
    });
  };
  return (
    <form class="form" onSubmit={(event) => (event.preventDefault(), send())} noValidate>
      <h1>Welcome back</h1>
      <Failure problem={problem} fields={['phone', 'password']} />
      <Field
        label="Phone number"
        type="tel"
        inputMode="tel"
        autocomplete="tel"
        placeholder="+1 415 555 0101"
        value={phone}
        onInput={setPhone}
        error={(tried && phoneError(phone)) || field('phone')}
        required
      />
      <Field label="Password" type="password" autocomplete="current-password" value={password} onInput={setPassword} error={field('password')} required />
      {totp !== null && (
        <Field label="Code" value={totp} onInput={setTotp} hint="Of the app that shows your sign-in codes, or one of your recovery codes." autocomplete="one-time-code" maxLength={32} autofocus required />
      )}
      <Button kind="primary" type="submit" busy={busy} disabled={password === '' || totp === ''}>
        Sign in
      </Button>
      <p class="form-foot">
        <a href="/forgot">Forgot the password?</a> · <a href="/">Make an account</a>
      </p>
    </form>
  );
}

function Forgot() {
  const [phone, setPhone] = useState('');
  const [reset, setReset] = useState<string | null>(null);
  const [otp, setOtp] = useState('');
  const [password, setPassword] = useState('');
  const [tried, setTried] = useState(false);
  const development = useDevelopmentCode(phoneOf(phone), reset !== null);
  const { busy, problem, submit, field } = useSubmit();
  const ask = () => {
    setTried(true);
    if (phoneError(phone) !== null) return;
    void submit(async () => setReset((await echo.rest.post('/api/v1/auth/password/forgot', { body: { phone: phoneOf(phone) } })).reset_id));
  };
  const set = () =>
    void submit(async () => {
      const body = { phone: phoneOf(phone), otp: otp.trim(), new_password: password, ...(reset ? { reset_id: reset } : {}) };
      await echo.rest.post('/api/v1/auth/password/reset', { body });
      await echo.signIn({ phone: phoneOf(phone), password, device: thisDevice() });
      go('/', true);
    });
  if (reset === null)
    return (
      <form class="form" onSubmit={(event) => (event.preventDefault(), ask())} noValidate>
        <h1>A new password</h1>
        <p class="lead">If the number has an account, we send it a code.</p>
        <Failure problem={problem} fields={['phone']} />
        <Field label="Phone number" type="tel" inputMode="tel" autocomplete="tel" placeholder="+1 415 555 0101" value={phone} onInput={setPhone} error={(tried && phoneError(phone)) || field('phone')} required />
        <Button kind="primary" type="submit" busy={busy}>
          Send me a code
        </Button>
        <p class="form-foot">
          <a href="/sign-in">Back to signing in</a>
        </p>
      </form>
    );
  return (
    <form class="form" onSubmit={(event) => (event.preventDefault(), set())} noValidate>
      <h1>A new password</h1>
      <Failure problem={problem} fields={['otp', 'new_password']} />
      <Field label="Code" value={otp} onInput={setOtp} inputMode="numeric" autocomplete="one-time-code" maxLength={10} error={field('otp')} autofocus required />
      {development && (
        <p class="dev-code">
          <span>
            Development: the code is <strong data-testid="dev-code">{development}</strong>
          </span>
          <Button kind="quiet" onClick={() => setOtp(development)}>
            Use it
          </Button>
        </p>
      )}
      <Field label="New password" type="password" autocomplete="new-password" value={password} onInput={setPassword} hint="At least 8 characters, none of your last five. Other devices are signed out." error={field('new_password')} required />
      <Button kind="primary" type="submit" busy={busy}>
        Set it and sign in
      </Button>
    </form>
  );
}
