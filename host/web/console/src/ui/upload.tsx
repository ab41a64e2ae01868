// A packed file: what it would change and why it would be refused, then deployed. Nothing is kept before "Deploy".

import { useEffect, useRef, useState } from 'preact/hooks';
import { Problem, type Activation, type Plan, type Service, type Staged } from '../api.js';
import { call, can, notify, poll } from '../state.js';
import { Button, Check, Dialog, Field, Loading } from './parts.js';
import { Lines } from './service.js';

export function Upload({ service, onClose }: { service?: Service; onClose: () => void }) {
  const [name, setName] = useState(service?.name ?? '');
  const [file, setFile] = useState<File | null>(null);
  const [grants, setGrants] = useState('');
  const [allowed, setAllowed] = useState<ReadonlySet<string>>(new Set());
  const [staged, setStaged] = useState<Staged | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const [busy, setBusy] = useState('');
  const report = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (staged || problem) report.current?.focus();
  }, [staged, problem]);

  const path = `plugins/${encodeURIComponent(name)}`;
  const query = (more: [string, string][] = []) => {
    const options = new URLSearchParams([...more, ...[...allowed].map((name) => ['allow', name]), ...(grants.match(/[^\s,]+/g) ?? []).map((name) => ['grant', name])]);
    return options.size > 0 ? `?${options}` : '';
  };
  const work = async (what: string, run: () => Promise<void>) => {
    setBusy(what);
    setProblem(null);
    await run().catch((error: Problem) => setProblem(error));
    setBusy('');
  };
  const check = () => work('The host checks it, compiles it and tries its migrations', async () => {
    setStaged(null);
    setStaged(await call<Staged>('POST', `${path}/versions${query([['dry_run', 'true']])}`, file!));
  });
  const deploy = () => work('The host deploys it', async () => {
    const { version } = await call<Staged>('POST', `${path}/versions${query()}`, file!);
    const live = await call<Activation>('PUT', `${path}/active${query()}`, { version });
    notify('done', `${name} ${live.version} is live as generation ${live.generation}`);
    void poll();
    location.hash = `#/services/${name}`;
    onClose();
  });
  const choose = (chosen: File | null) => {
    setFile(chosen);
    setStaged(null);
    setProblem(null);
    setAllowed(new Set());
    // The usual name of a packed file.
    if (!service && chosen && !name) setName(chosen.name.replace(/\.wasm$/, ''));
  };
  const changes = staged?.plan.changes ?? [];
  const open = changes.filter((change) => !change.confirmed && !allowed.has(change.name));

  return (
    <Dialog title={service ? `A version of ${service.name}` : 'A service'} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void check();
        }}
      >
        {!service && <Field label="Service" value={name} onInput={setName} required hint="As its manifest names it." />}
        <div class="field">
          <label for="packed">Packed file</label>
          <input id="packed" class="input" type="file" accept=".wasm" required onChange={(event) => choose(event.currentTarget.files?.[0] ?? null)} />
        </div>
        {can('admin') && <Field label="Grant imports (optional)" value={grants} onInput={setGrants} hint="Packages or interfaces, such as echo:sql or echo:user/api, separated by commas." />}
        <div class="acts">
          <Button onClick={onClose}>Cancel</Button>
          <Button type="submit" kind={staged ? 'plain' : 'primary'} disabled={!file || !name || Boolean(busy)}>
            Check
          </Button>
        </div>
      </form>
      {busy && <Loading what={busy} />}
      <div ref={report} tabIndex={-1} class="report">
        {problem && <Refusal problem={problem} />}
        {staged && (
          <>
            <PlanView staged={staged} />
            {changes.length > 0 && (
              <fieldset>
                <legend>Changes that must be confirmed</legend>
                {changes.map((change) => (
                  <Check
                    label={
                      <>
                        <code>{change.name}</code> {change.detail}
                      </>
                    }
                    checked={change.confirmed || allowed.has(change.name)}
                    onChange={(on) => setAllowed(new Set(on ? [...allowed, change.name] : [...allowed].filter((name) => name !== change.name)))}
                  />
                ))}
              </fieldset>
            )}
            <div class="acts">
              <Button kind="primary" disabled={open.length > 0} busy={Boolean(busy)} onClick={() => void deploy()}>
                Deploy {staged.version}
              </Button>
            </div>
          </>
        )}
      </div>
    </Dialog>
  );
}

function Refusal({ problem }: { problem: Problem }) {
  return (
    <div class="failed" role="alert">
      <p>
        <b>Refused.</b> {problem.message}
      </p>
      {problem.errors.length > 0 && (
        <ul class="reasons">
          {problem.errors.map(({ field, detail }) => (
            <li>
              <b>{field}</b> {detail}
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

function PlanView({ staged }: { staged: Staged }) {
  const { plan } = staged;
  const parts: [keyof Plan, string][] = [
    ['migrations', 'Migrations'],
    ['backfills', 'Back-fills'],
    ['routes', 'Routes'],
    ['imports', 'Imports'],
    ['grants', 'Grants'],
    ['subscriptions', 'Subscriptions'],
    ['unused', 'Decisions that decide nothing'],
  ];
  return (
    <section aria-label="Plan">
      <p class="passes">
        <b>
          {staged.service} {staged.version}
        </b>{' '}
        passes the activation gate{plan.replaces ? ` and would replace ${plan.replaces}` : ''}.
      </p>
      {parts.map(([part, title]) => {
        const lines = (plan[part] ?? []) as string[];
        return (
          lines.length > 0 && (
            <details>
              <summary>
                {title} ({lines.length})
              </summary>
              <Lines of={lines} />
            </details>
          )
        );
      })}
    </section>
  );
}
