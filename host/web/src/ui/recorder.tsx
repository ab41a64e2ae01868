// A voice message, while it is spoken.

import { useEffect, useRef, useState } from 'preact/hooks';
import { minutes } from '../state/media.js';
import { notify } from '../state/notices.js';
import { Icon } from './icons.js';
import { IconButton } from './parts.js';

const TYPES = ['audio/webm;codecs=opus', 'audio/ogg;codecs=opus', 'audio/mp4'];
/** What is longer is sent as it is by then. */
const LONGEST_MS = 15 * 60_000;

export const canRecord = (): boolean => typeof MediaRecorder !== 'undefined' && Boolean(navigator.mediaDevices?.getUserMedia);

export function Recorder({ onDone, onEnd }: { onDone: (sound: Blob, name: string, duration_ms: number) => void; onEnd: () => void }) {
  const [began, setBegan] = useState<number | null>(null);
  const [now, setNow] = useState(0);
  const recorder = useRef<MediaRecorder | null>(null);
  const kept = useRef(false);

  useEffect(() => {
    let on = true;
    const parts: Blob[] = [];
    let start = 0;
    const listen = async () => {
      let stream: MediaStream;
      try {
        stream = await navigator.mediaDevices.getUserMedia({ audio: true });
      } catch {
        notify('The microphone cannot be used. Allow it for this page in the settings of the browser.', 'error');
        return onEnd();
      }
      const close = () => stream.getTracks().forEach((track) => track.stop());
      if (!on) return close();
      const type = TYPES.find((one) => MediaRecorder.isTypeSupported(one));
      const made = new MediaRecorder(stream, type ? { mimeType: type } : {});
      recorder.current = made;
      made.ondataavailable = ({ data }) => parts.push(data);
      made.onstop = () => {
        close();
        if (!kept.current) return;
        const mime = made.mimeType.split(';')[0] || 'audio/webm';
        onDone(new Blob(parts, { type: mime }), `voice.${mime.split('/')[1]}`, Math.round(performance.now() - start));
      };
      made.start(1_000);
      start = performance.now();
      setBegan(start);
    };
    void listen();
    return () => {
      on = false;
      if (recorder.current?.state === 'recording') recorder.current.stop();
    };
  }, []);

  const finish = (keep: boolean) => {
    kept.current = keep;
    if (recorder.current?.state === 'recording') recorder.current.stop();
    onEnd();
  };
  useEffect(() => {
    if (began === null) return;
    const timer = setInterval(() => {
      setNow(performance.now() - began);
      if (performance.now() - began > LONGEST_MS) finish(true);
    }, 250);
    return () => clearInterval(timer);
  }, [began]);

  return (
    <div class="recorder" role="group" aria-label="Voice message">
      <IconButton name="trash" label="Discard the recording" onClick={() => finish(false)} />
      <span class="recorder-dot" aria-hidden="true" />
      <span class="recorder-text" role="status">
        {began === null ? 'Waiting for the microphone…' : 'Recording'}
      </span>
      <span class="sound-time" aria-hidden="true">
        {minutes(now)}
      </span>
      <button class="send" type="button" aria-label="Send the recording" title="Send" disabled={began === null} onClick={() => finish(true)}>
        <Icon name="send" />
      </button>
    </div>
  );
}
