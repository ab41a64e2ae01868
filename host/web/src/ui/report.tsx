// Telling the operator about somebody or something.

import { useState } from 'preact/hooks';
import { echo } from '../state/echo.js';
import { attempt } from '../state/notices.js';
import { Button, Dialog, Field } from './parts.js';

export function ReportDialog({ about, who, onClose }: { about: { user_id: string } | { message_id: string }; who: string; onClose: () => void }) {
  const [reason, setReason] = useState('');
  const [busy, setBusy] = useState(false);
  const send = async () => {
    setBusy(true);
    const done = await attempt(() => echo.rest.post('/api/v1/users/reports', { body: { ...about, reason: reason.trim() } }), 'Reported. Thank you.');
    setBusy(false);
    if (done) onClose();
  };
  return (
    <Dialog title={`Report ${who}?`} onClose={onClose}>
      <form class="form" onSubmit={(event) => (event.preventDefault(), void send())}>
        <Field label="What is wrong" value={reason} onInput={setReason} rows={4} maxLength={1000} hint="Those who run this service read it. Nobody else learns of it." autofocus required />
        <div class="dialog-acts">
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="danger" type="submit" busy={busy} disabled={reason.trim() === ''}>
            Report
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
