import { render } from 'preact';
import { start } from './state.js';
import './theme.js';
import { App } from './ui/app.js';

render(<App />, document.getElementById('app')!);
void start();
