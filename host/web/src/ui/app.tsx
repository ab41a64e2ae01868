// The whole page: who is not signed in enters; who is sees the list beside what was chosen, on a phone one of the two.

import { useEffect } from 'preact/hooks';
import { account } from '../state/echo.js';
import { follow, route } from '../state/route.js';
import { Conversation } from './conversation.js';
import { Enter } from './enter.js';
import { Join } from './invites.js';
import { NewConversation } from './new.js';
import { Empty, Loading, Notices } from './parts.js';
import { Settings } from './settings.js';
import { Sidebar } from './sidebar.js';

export function App() {
  return (
    <div class="root" onClick={follow}>
      <Page />
      <Notices />
    </div>
  );
}

function Page() {
  const now = route.value;
  if (account.value === undefined) return <Loading what="Opening Echo" />;
  if (account.value === null) return <Enter step={now.page === 'enter' ? now.step : 'sign-up'} />;
  const page = now.page === 'enter' ? 'home' : now.page;
  return (
    <div class={`shell shell-${page} ${now.page === 'conversation' && now.details ? 'shell-details' : ''}`}>
      <Sidebar />
      <Main />
    </div>
  );
}

function Main() {
  const now = route.value;
  const id = now.page === 'conversation' ? now.id : now.page;
  useEffect(() => {
    // A new page begins at its beginning, for those who use a keyboard or a screen reader too.
    if (now.page === 'settings' || now.page === 'new') document.querySelector<HTMLElement>('.pane h1')?.focus();
  }, [id]);
  switch (now.page) {
    case 'conversation':
      return <Conversation key={now.id} id={now.id} details={now.details} />;
    case 'new':
      return <NewConversation />;
    case 'join':
      return <Join key={now.code} code={now.code} />;
    case 'settings':
      return <Settings section={now.section} />;
    default:
      return (
        <main class="pane pane-empty">
          <Empty icon="chat" title="Your conversations">
            <p>Choose one on the left, or begin a new one.</p>
            <a class="button button-primary" href="/new">
              New conversation
            </a>
          </Empty>
        </main>
      );
  }
}
