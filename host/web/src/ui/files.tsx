// Pictures, videos, sounds and files as they are shown in a message.

import type { Message, OutboxEntry } from '@echo/client';
import { useEffect, useRef, useState } from 'preact/hooks';
import { bytesText, factsOf, fileAddress, mediaOf, minutes, saveFile, thumbnailAddress, uploads } from '../state/media.js';
import { Icon } from './icons.js';
import { Button, Dialog, IconButton, Loading } from './parts.js';

const WIDEST_PX = 320;
const HIGHEST_PX = 360;

/** Loads an address, and says whether that failed. */
function useAddress(load: () => Promise<string>, key: string, wanted = true): { address: string | null; failed: boolean; again: () => void } {
  const [state, setState] = useState<{ address: string | null; failed: boolean }>({ address: null, failed: false });
  const [tries, setTries] = useState(0);
  useEffect(() => {
    if (!wanted) return;
    let on = true;
    load().then(
      (address) => on && setState({ address, failed: false }),
      () => on && setState({ address: null, failed: true }),
    );
    return () => void (on = false);
  }, [key, wanted, tries]);
  return { ...state, again: () => (setState({ address: null, failed: false }), setTries(tries + 1)) };
}

/** Its place is taken before it is loaded, so that nothing jumps. */
function sized({ width = 4, height = 3 }: { width?: number; height?: number }): { width: string; aspectRatio: string } {
  const scale = Math.min(WIDEST_PX / width, HIGHEST_PX / height);
  return { width: `${Math.max(120, Math.round(width * scale))}px`, aspectRatio: `${width} / ${Math.min(height, width * 3)}` };
}

export function FileContent({ message }: { message: Message }) {
  const id = message.media_id;
  if (id === null) return null;
  switch (message.type) {
    case 'image':
      return <Picture message={message} id={id} />;
    case 'video':
      return <Video message={message} id={id} />;
    case 'audio':
      return <Sound id={id} duration_ms={factsOf(message.metadata).duration_ms ?? null} />;
    default:
      return <Document message={message} id={id} />;
  }
}

function Picture({ message, id }: { message: Message; id: string }) {
  const facts = factsOf(message.metadata);
  const [open, setOpen] = useState(false);
  const { address, failed, again } = useAddress(() => thumbnailAddress(id, facts.size ?? null), id);
  const name = message.content ?? facts.name ?? '';
  return (
    <>
      <button class="picture" type="button" aria-label={`Photo ${name}`.trim()} style={sized(facts)} onClick={() => (failed ? again() : setOpen(true))}>
        {address && <img src={address} alt="" />}
        {!address && (failed ? <span class="picture-note"><Icon name="image" /> Show</span> : <span class="picture-note"><span class="spinner" /></span>)}
      </button>
      {open && <PictureDialog id={id} name={facts.name ?? 'photo'} caption={message.content} onClose={() => setOpen(false)} />}
    </>
  );
}

function PictureDialog({ id, name, caption, onClose }: { id: string; name: string; caption: string | null; onClose: () => void }) {
  const { address, failed, again } = useAddress(() => fileAddress(id), id);
  return (
    <Dialog title={caption ?? name} onClose={onClose} wide>
      <div class="picture-whole">
        {address ? <img src={address} alt={caption ?? name} /> : failed ? <Button onClick={again}>Try again</Button> : <Loading what="Loading the photo" />}
      </div>
      <div class="dialog-acts">
        <Button onClick={() => void saveFile(id, name)}>Save</Button>
      </div>
    </Dialog>
  );
}

function Video({ message, id }: { message: Message; id: string }) {
  const facts = factsOf(message.metadata);
  const [playing, setPlaying] = useState(false);
  // By a signed address, so that it plays while it is loaded; without one, once it is loaded.
  const { address, failed, again } = useAddress(async () => (await mediaOf(id)).content_url ?? (await fileAddress(id)), id, playing);
  return (
    <div class="picture" style={sized(facts.width ? facts : { width: 16, height: 9 })}>
      {address ? (
        <video src={address} controls autoplay />
      ) : (
        <button class="picture-note" type="button" onClick={() => (failed ? again() : setPlaying(true))}>
          {playing && !failed ? <span class="spinner" /> : <Icon name="play" />}
          {failed ? 'Not loaded. Try again' : `Video${facts.size ? `, ${bytesText(facts.size)}` : ''}`}
        </button>
      )}
    </div>
  );
}

/** A voice message, or any other sound. */
export function Sound({ id, duration_ms, address: given }: { id: string; duration_ms: number | null; address?: string }) {
  const [wanted, setWanted] = useState(false);
  const { address, failed, again } = useAddress(async () => given ?? fileAddress(id), id, wanted);
  const [playing, setPlaying] = useState(false);
  const [at, setAt] = useState(0);
  const [length, setLength] = useState(duration_ms ?? 0);
  const sound = useRef<HTMLAudioElement>(null);
  useEffect(() => {
    if (address) void sound.current?.play().catch(() => setPlaying(false));
  }, [address]);
  const toggle = () => {
    if (failed) again();
    setWanted(true);
    if (!address) return;
    if (playing) sound.current!.pause();
    else void sound.current!.play().catch(() => undefined);
  };
  return (
    <div class="sound">
      <IconButton name={playing ? 'pause' : 'play'} label={playing ? 'Pause' : failed ? 'Not loaded: try again' : 'Play'} onClick={toggle} kind="accent" />
      <input
        class="sound-line"
        type="range"
        min={0}
        max={Math.max(1, length)}
        value={at}
        aria-label="Position"
        aria-valuetext={`${minutes(at)} of ${minutes(length)}`}
        onInput={(event) => {
          if (sound.current) sound.current.currentTime = Number(event.currentTarget.value) / 1000;
          setAt(Number(event.currentTarget.value));
        }}
      />
      <span class="sound-time">{minutes(playing || at > 0 ? at : length)}</span>
      {wanted && (
        <audio
          ref={sound}
          src={address ?? undefined}
          onPlay={() => setPlaying(true)}
          onPause={() => setPlaying(false)}
          onEnded={() => setAt(0)}
          onTimeUpdate={(event) => setAt(event.currentTarget.currentTime * 1000)}
          onDurationChange={(event) => Number.isFinite(event.currentTarget.duration) && setLength(event.currentTarget.duration * 1000)}
        />
      )}
    </div>
  );
}

function Document({ message, id }: { message: Message; id: string }) {
  const { name = 'File', size } = factsOf(message.metadata);
  const [busy, setBusy] = useState(false);
  const save = async () => {
    setBusy(true);
    await saveFile(id, name);
    setBusy(false);
  };
  return (
    <button class="file" type="button" onClick={() => void save()} aria-busy={busy}>
      <span class="file-icon">{busy ? <span class="spinner" /> : <Icon name="file" />}</span>
      <span class="file-text">
        <span>
          <span class="hidden">Save </span>
          <bdi>{name}</bdi>
        </span>
        <span class="setting-about">{size === undefined ? 'Save' : bytesText(size)}</span>
      </span>
    </button>
  );
}

/** One's own file that has not been sent yet. */
export function WaitingFile({ entry }: { entry: OutboxEntry }) {
  const { attachment, message } = entry;
  const facts = factsOf(message.metadata);
  const [address, setAddress] = useState<string | null>(null);
  const file = attachment?.file;
  useEffect(() => {
    if (!file || message.type !== 'image') return;
    const made = URL.createObjectURL(file);
    setAddress(made);
    return () => URL.revokeObjectURL(made);
  }, [file?.size, message.type]);
  if (!attachment) return null;
  const going = uploads.value.get(entry.client_message_id);
  const percent = going ? Math.round((100 * going.sent) / Math.max(1, going.total)) : message.media_id ? 100 : 0;
  return (
    <div class="waiting-file">
      {address ? (
        <span class="picture" style={sized(facts)}>
          <img src={address} alt="" />
        </span>
      ) : (
        <span class="file">
          <span class="file-icon">
            <Icon name={message.type === 'audio' ? 'microphone' : 'file'} />
          </span>
          <span class="file-text">
            <bdi>{facts.voice ? 'Voice message' : attachment.name}</bdi>
            <span class="setting-about">{bytesText(attachment.file.size)}</span>
          </span>
        </span>
      )}
      {!entry.problem && (
        <progress class="poll-bar" max={100} value={percent} aria-label={`Uploading ${attachment.name}`}>
          {percent} %
        </progress>
      )}
    </div>
  );
}
