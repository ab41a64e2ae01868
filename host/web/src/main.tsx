import { render } from 'preact';
import { start } from './state/start.js';
import './state/theme.js';
import { App } from './ui/app.js';

render(<App />, document.getElementById('app')!);
void start();
