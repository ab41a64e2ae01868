import { render } from 'preact';
import { start } from './state/start.js';
import './state/theme.js';
import { App } from './ui/app.js';

render(<App />, document.getElementById('app')!);
void start();
// Without it the page works too, but does not open without a network. Not while the sources are worked on: it would keep what was.
if (import.meta.env.PROD) navigator.serviceWorker?.register('/sw.js').catch(() => undefined);
