// Small parts that every page uses.

import type { ComponentChildren } from 'preact';
import { useEffect, useId, useRef, useState } from 'preact/hooks';
import { can, dismiss, notices } from '../state.js';
import type { Scope } from '../api.js';

interface ButtonProps {
  children: ComponentChildren;
  kind?: 'primary' | 'plain' | 'danger';
  type?: 'button' | 'submit';
  busy?: boolean;
  disabled?: boolean;
  /** What the token must reach for it; without that it is shown and cannot be used. */
  wants?: Scope;
  label?: string;
  onClick?: () => void;
}

export function Button({ children, kind = 'plain', type = 'button', busy, disabled, wants, label, onClick }: ButtonProps) {
  const may = !wants || can(wants);
  return (
    <button class={`button button-${kind}`} type={type} disabled={disabled || busy || !may} aria-busy={busy} aria-label={label} title={may ? undefined : `Wants a token of scope ${wants}`} onClick={onClick}>
      {busy && <span class="spinner" aria-hidden="true" />}
      {children}
    </button>
  );
}

export function State({ of }: { of: string }) {
  const good = ['live', 'closed', 'serving'].includes(of);
  const bad = ['failing', 'open', 'away'].includes(of);
  return <span class={`state ${good ? 'state-good' : bad ? 'state-bad' : of === 'ended' ? 'state-ended' : 'state-other'}`}>{of}</span>;
}

export interface Column<T> {
  name: string;
  of: (item: T) => ComponentChildren;
  number?: boolean;
}

/** Scrolls by itself where it is too wide, by the keyboard too. The first column names the row. */
export function Table<T>({ title, columns, items, keyOf, none }: { title: string; columns: Column<T>[]; items: T[]; keyOf: (item: T) => string; none: string }) {
  if (items.length === 0) return <p class="none">{none}</p>;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={title}>
      <table>
        <thead>
          <tr>
            {columns.map(({ name, number }) => (
              <th scope="col" class={number ? 'number' : undefined}>
                {name || <span class="unseen">Actions</span>}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {items.map((item) => (
            <tr key={keyOf(item)}>
              {columns.map(({ of, number }, index) => (index === 0 ? <th scope="row">{of(item)}</th> : <td class={number ? 'number' : undefined}>{of(item)}</td>))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Section({ title, acts, children }: { title: string; acts?: ComponentChildren; children: ComponentChildren }) {
  const id = useId();
  return (
    <section class="section" aria-labelledby={id}>
      <header class="section-head">
        <h2 id={id}>{title}</h2>
        {acts && <div class="acts">{acts}</div>}
      </header>
      {children}
    </section>
  );
}

/** A modal dialog: the browser keeps the focus inside, and Escape closes it. */
export function Dialog({ title, onClose, children }: { title: string; onClose: () => void; children: ComponentChildren }) {
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    element.current?.showModal();
  }, []);
  return (
    <dialog ref={element} class="dialog" aria-labelledby={id} onClose={onClose}>
      <h2 id={id}>{title}</h2>
      {children}
    </dialog>
  );
}

export function Confirm({ title, act, children, onAct, onClose }: { title: string; act: string; children: ComponentChildren; onAct: () => Promise<unknown>; onClose: () => void }) {
  const [busy, setBusy] = useState(false);
  const run = async () => {
    setBusy(true);
    await onAct();
    onClose();
  };
  return (
    <Dialog title={title} onClose={onClose}>
      <div class="dialog-text">{children}</div>
      <div class="acts">
        <Button onClick={onClose}>Cancel</Button>
        <Button kind="danger" busy={busy} onClick={() => void run()}>
          {act}
        </Button>
      </div>
    </Dialog>
  );
}

export function Field({ label, hint, type = 'text', ...input }: { label: string; hint?: string; value: string; onInput: (value: string) => void; type?: 'text' | 'password' | 'number'; autocomplete?: string; required?: boolean; min?: number }) {
  const id = useId();
  const { onInput, ...rest } = input;
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input id={id} class="input" type={type as 'text'} {...rest} aria-describedby={hint ? `${id}-hint` : undefined} onInput={(event) => onInput(event.currentTarget.value)} />
      {hint && (
        <p class="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
    </div>
  );
}

export function Check({ label, checked, onChange }: { label: ComponentChildren; checked: boolean; onChange: (checked: boolean) => void }) {
  return (
    <label class="check">
      <input type="checkbox" checked={checked} onChange={(event) => onChange(event.currentTarget.checked)} />
      <span>{label}</span>
    </label>
  );
}

export function Loading({ what }: { what: string }) {
  return (
    <p class="none" role="status">
      <span class="spinner" aria-hidden="true" /> {what}
    </p>
  );
}

export function Notices() {
  return (
    <div class="notices" aria-live="polite">
      {notices.value.map(({ id, kind, text }) => (
        <div key={id} class={`notice notice-${kind}`} role={kind === 'failed' ? 'alert' : 'status'}>
          <span>{text}</span>
          <button type="button" class="plain" aria-label="Dismiss" onClick={() => dismiss(id)}>
            ×
          </button>
        </div>
      ))}
    </div>
  );
}
