// Which page is shown: the address of the page is the state.

import { computed, signal } from '@preact/signals';

export const path = signal(location.pathname);

export type Route =
  | { page: 'home' }
  | { page: 'conversation'; id: string; details: boolean }
  | { page: 'new' }
  | { page: 'settings'; section: string }
  | { page: 'join'; code: string }
  | { page: 'enter'; step: string };

export const route = computed<Route>(() => {
  const [first = '', second = '', third = ''] = path.value.split('/').filter(Boolean);
  switch (first) {
    case 'c':
      return second ? { page: 'conversation', id: second, details: third === 'details' } : { page: 'home' };
    case 'join':
      return second ? { page: 'join', code: second } : { page: 'home' };
    case 'new':
      return { page: 'new' };
    case 'settings':
      return { page: 'settings', section: second };
    case 'sign-in':
    case 'forgot':
      return { page: 'enter', step: first };
    default:
      return { page: 'home' };
  }
});

export function go(to: string, replace = false): void {
  if (to === path.peek()) return;
  history[replace ? 'replaceState' : 'pushState'](null, '', to);
  path.value = to;
}

addEventListener('popstate', () => (path.value = location.pathname));

/** Links within the page change the address without loading it anew. */
export function follow(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = (event.target as Element | null)?.closest?.('a');
  if (!link || link.target || link.origin !== location.origin || link.hasAttribute('download') || link.dataset['native'] !== undefined) return;
  event.preventDefault();
  go(link.pathname);
}

const KEY = 'echo:after';

/** Where to go on once somebody has signed in. */
export function keepForLater(): void {
  if (path.peek().startsWith('/join/')) sessionStorage.setItem(KEY, path.peek());
}

export function goOn(): void {
  const kept = sessionStorage.getItem(KEY);
  sessionStorage.removeItem(KEY);
  if (kept !== null) go(kept, true);
  else if (!/^\/(c|join)\//.test(path.peek())) go('/', true);
}
