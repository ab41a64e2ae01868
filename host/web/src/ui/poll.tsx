// A new poll.

import { useState } from 'preact/hooks';
import { echo } from '../state/echo.js';
import { attempt } from '../state/notices.js';
import { Button, Dialog, Field } from './parts.js';

const POLL_OPTIONS_MAX = 10;

export function NewPoll({ conversation, onClose }: { conversation: string; onClose: () => void }) {
  const [question, setQuestion] = useState('');
  const [options, setOptions] = useState(['', '']);
  const [multiple, setMultiple] = useState(false);
  const filled = options.map((option) => option.trim()).filter(Boolean);
  const create = async () => {
    onClose();
    await attempt(() => echo.send({ conversation_id: conversation, type: 'poll', poll: { question: question.trim(), options: filled, multiple } }));
  };
  const change = (index: number, text: string) => {
    const next = options.map((option, at) => (at === index ? text : option));
    if (next.at(-1) !== '' && next.length < POLL_OPTIONS_MAX) next.push('');
    setOptions(next);
  };
  return (
    <Dialog title="New poll" onClose={onClose}>
      <form class="form" onSubmit={(event) => (event.preventDefault(), void create())}>
        <Field label="Question" value={question} onInput={setQuestion} maxLength={300} autofocus />
        {options.map((option, index) => (
          <Field key={index} label={`Answer ${index + 1}`} value={option} onInput={(text) => change(index, text)} maxLength={100} />
        ))}
        <label class="checkbox">
          <input type="checkbox" checked={multiple} onChange={(event) => setMultiple(event.currentTarget.checked)} />
          More than one answer may be chosen
        </label>
        <div class="dialog-acts">
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="primary" type="submit" disabled={question.trim() === '' || filled.length < 2}>
            Send
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
