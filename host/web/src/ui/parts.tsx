// Small parts that every page uses.

import type { ComponentChildren } from 'preact';
import { useEffect, useId, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { dismiss, notices } from '../state/notices.js';
import { people, presence } from '../state/people.js';
import { Icon, type IconName } from './icons.js';

const HUES = 8;

function hueOf(text: string): number {
  let sum = 0;
  for (const char of text) sum = (sum * 31 + char.codePointAt(0)!) % 9973;
  return sum % HUES;
}

/** The first letters of the first two words. */
function initials(name: string): string {
  const words = name.trim().split(/\s+/u).filter(Boolean);
  const letters = words.length > 1 ? [words[0]!, words[1]!] : words;
  return letters.map((word) => [...word].find((char) => /[\p{L}\p{N}]/u.test(char)) ?? '').join('').toUpperCase() || '?';
}

export function Avatar({ id, name, group, size = 'middle', online }: { id: string; name: string; group?: boolean; size?: 'small' | 'middle' | 'large'; online?: boolean }) {
  return (
    <span class={`avatar avatar-${size} hue-${hueOf(id)}`} aria-hidden="true">
      {group ? <Icon name="people" /> : initials(name)}
      {online && <span class="avatar-online" />}
    </span>
  );
}

export function PersonAvatar({ id, size }: { id: string; size?: 'small' | 'middle' | 'large' }) {
  const name = people.value.get(id)?.display_name ?? '';
  const online = presence.value.get(id)?.status === 'online';
  return <Avatar id={id} name={name} online={online} {...(size ? { size } : {})} />;
}

interface ButtonProps {
  children: ComponentChildren;
  kind?: 'primary' | 'plain' | 'danger' | 'quiet';
  type?: 'button' | 'submit';
  busy?: boolean;
  disabled?: boolean;
  onClick?: () => void;
}

export function Button({ children, kind = 'plain', type = 'button', busy, disabled, onClick }: ButtonProps) {
  return (
    <button class={`button button-${kind}`} type={type} disabled={disabled || busy} aria-busy={busy} onClick={onClick}>
      {busy && <Spinner />}
      {children}
    </button>
  );
}

export function IconButton({ name, label, onClick, pressed, kind = '' }: { name: IconName; label: string; onClick?: (event: MouseEvent) => void; pressed?: boolean; kind?: string }) {
  return (
    <button class={`icon-button ${kind}`} type="button" aria-label={label} title={label} aria-pressed={pressed} onClick={onClick}>
      <Icon name={name} />
    </button>
  );
}

export const Spinner = () => <span class="spinner" aria-hidden="true" />;

export function Loading({ what }: { what: string }) {
  return (
    <div class="loading" role="status">
      <Spinner />
      <span>{what}</span>
    </div>
  );
}

export function Empty({ icon, title, children }: { icon: IconName; title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <span class="empty-icon">
        <Icon name={icon} />
      </span>
      <h2>{title}</h2>
      {children}
    </div>
  );
}

interface FieldProps {
  label: string;
  value: string;
  onInput: (value: string) => void;
  type?: string;
  hint?: string;
  error?: string | null | undefined;
  autocomplete?: string;
  inputMode?: 'numeric' | 'tel' | 'text' | 'search';
  placeholder?: string;
  maxLength?: number;
  required?: boolean;
  autofocus?: boolean;
  rows?: number;
}

export function Field({ label, value, onInput, type = 'text', hint, error, autocomplete, inputMode, placeholder, maxLength, required, autofocus, rows }: FieldProps) {
  const id = useId();
  const input = useRef<HTMLInputElement & HTMLTextAreaElement>(null);
  useEffect(() => {
    if (autofocus) input.current?.focus();
  }, []);
  useEffect(() => {
    if (error) input.current?.focus();
  }, [error]);
  const described = [hint && `${id}-hint`, error && `${id}-error`].filter(Boolean).join(' ') || undefined;
  const shared = {
    id,
    ref: input,
    class: 'input',
    value,
    maxLength,
    placeholder,
    required,
    dir: type === 'text' ? ('auto' as const) : undefined,
    'aria-invalid': Boolean(error),
    'aria-describedby': described,
    onInput: (event: { currentTarget: { value: string } }) => onInput(event.currentTarget.value),
  };
  return (
    <div class="field">
      <label for={id}>{label}</label>
      {rows ? <textarea {...shared} rows={rows} /> : <input {...shared} type={type as 'text'} autocomplete={autocomplete} inputMode={inputMode} />}
      {hint && (
        <p class="hint" id={`${id}-hint`}>
          {hint}
        </p>
      )}
      {error && (
        <p class="field-error" id={`${id}-error`} role="alert">
          {error}
        </p>
      )}
    </div>
  );
}

/** A modal dialog: the browser keeps the focus inside, and Escape closes it. */
export function Dialog({ title, onClose, children, wide }: { title: string; onClose: () => void; children: ComponentChildren; wide?: boolean }) {
  const element = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    element.current?.showModal();
  }, []);
  const outside = (event: MouseEvent) => event.target === element.current && onClose();
  return (
    <dialog ref={element} class={wide ? 'dialog dialog-wide' : 'dialog'} aria-labelledby={id} onClose={onClose} onClick={outside}>
      <div class="dialog-body">
        <header class="dialog-head">
          <h2 id={id} dir="auto">
            {title}
          </h2>
          <IconButton name="close" label="Close" onClick={onClose} />
        </header>
        {children}
      </div>
    </dialog>
  );
}

export function Confirm({ title, text, act, onAct, onClose }: { title: string; text: string; act: string; onAct: () => Promise<unknown>; onClose: () => void }) {
  const [busy, setBusy] = useState(false);
  const run = async () => {
    setBusy(true);
    await onAct();
    onClose();
  };
  return (
    <Dialog title={title} onClose={onClose}>
      <p class="dialog-text">{text}</p>
      <div class="dialog-acts">
        <Button onClick={onClose}>Cancel</Button>
        <Button kind="danger" busy={busy} onClick={() => void run()}>
          {act}
        </Button>
      </div>
    </Dialog>
  );
}

export interface MenuItem {
  icon: IconName;
  label: string;
  danger?: boolean;
  act: () => void;
}

/** A button that opens a menu: arrows move, Escape closes, focus goes back. What is in it is asked for when it opens. */
export function Menu({ label, items, icon = 'more', kind = '' }: { label: string; items: () => MenuItem[]; icon?: IconName; kind?: string }) {
  const [open, setOpen] = useState(false);
  const root = useRef<HTMLDivElement>(null);
  const list = useRef<HTMLDivElement>(null);
  const opener = () => root.current?.querySelector('button');
  useLayoutEffect(() => {
    if (!open) return;
    // In the top layer, where nothing covers or cuts it off; below its button where there is room, else above.
    const element = list.current!;
    element.showPopover?.();
    const button = opener()!.getBoundingClientRect();
    const { width, height } = element.getBoundingClientRect();
    const below = button.bottom + height < innerHeight - 8 || button.top < height + 8;
    element.style.top = `${below ? button.bottom + 2 : button.top - height - 2}px`;
    element.style.left = `${Math.max(8, Math.min(button.left + width < innerWidth - 8 ? button.left : button.right - width, innerWidth - width - 8))}px`;
    element.querySelector('button')?.focus();
    const outside = (event: Event) => root.current?.contains(event.target as Node) || setOpen(false);
    const away = () => setOpen(false);
    document.addEventListener('pointerdown', outside);
    document.addEventListener('scroll', away, true);
    addEventListener('resize', away);
    return () => {
      document.removeEventListener('pointerdown', outside);
      document.removeEventListener('scroll', away, true);
      removeEventListener('resize', away);
    };
  }, [open]);
  const close = () => {
    setOpen(false);
    opener()?.focus();
  };
  const keys = (event: KeyboardEvent) => {
    const all = [...(list.current?.querySelectorAll('button') ?? [])];
    const at = all.indexOf(document.activeElement as HTMLButtonElement);
    const move = (to: number) => (event.preventDefault(), all[(to + all.length) % all.length]?.focus());
    if (event.key === 'ArrowDown') move(at + 1);
    else if (event.key === 'ArrowUp') move(at - 1);
    else if (event.key === 'Home') move(0);
    else if (event.key === 'End') move(-1);
    else if (event.key === 'Tab') setOpen(false);
    else if (event.key === 'Escape') {
      event.stopPropagation();
      close();
    }
  };
  return (
    <div class={`menu ${kind}`} ref={root}>
      <button class="icon-button" type="button" aria-label={label} title={label} aria-haspopup="menu" aria-expanded={open} onClick={() => setOpen(!open)}>
        <Icon name={icon} />
      </button>
      {open && (
        <div class="menu-list" popover="manual" role="menu" aria-label={label} ref={list} onKeyDown={keys}>
          {items().map((item) => (
            <button
              type="button"
              role="menuitem"
              tabIndex={-1}
              class={item.danger ? 'menu-item danger' : 'menu-item'}
              onClick={() => {
                close();
                item.act();
              }}
            >
              <Icon name={item.icon} />
              {item.label}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}

export function Notices() {
  return (
    <div class="notices" aria-live="polite">
      {notices.value.map((notice) => (
        <div key={notice.id} class={`notice notice-${notice.kind}`} role={notice.kind === 'error' ? 'alert' : 'status'}>
          <span>{notice.text}</span>
          <IconButton name="close" label="Dismiss" onClick={() => dismiss(notice.id)} />
        </div>
      ))}
    </div>
  );
}
