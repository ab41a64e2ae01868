// What a message says: text with links and names, polls, places, files, and the reactions to it.

import type { Message } from '@echo/client';
import { me } from '../state/echo.js';
import { reactionsTo, toggleReaction, vote } from '../state/extras.js';
import { nameOf, people } from '../state/people.js';
import { FileContent } from './files.js';
import { excerpt } from './sidebar.js';

export function Reactions({ message }: { message: Message }) {
  const of = reactionsTo(message.id).value;
  if (of.size === 0) return null;
  return (
    <span class="reactions">
      {[...of].map(([canonical, { emoji, users }]) => (
        <button
          key={canonical}
          type="button"
          class="reaction"
          aria-pressed={users.has(me())}
          aria-label={`${emoji} ${[...users].map(nameOf).join(', ')}`}
          title={[...users].map(nameOf).join(', ')}
          onClick={() => toggleReaction(message, emoji)}
        >
          <span aria-hidden="true">{emoji}</span>
          {users.size > 1 && <span aria-hidden="true">{users.size}</span>}
        </button>
      ))}
    </span>
  );
}

function Poll({ message, poll }: { message: Message; poll: NonNullable<Message['poll']> }) {
  const most = Math.max(1, ...poll.options.map((option) => option.votes));
  const choose = (index: number) => {
    const own = new Set(poll.own_votes);
    if (own.has(index)) own.delete(index);
    else {
      if (!poll.multiple) own.clear();
      own.add(index);
    }
    vote(message, [...own]);
  };
  return (
    <div class="poll">
      <strong class="text" dir="auto">
        {poll.question}
      </strong>
      <span class="poll-about">{poll.closed ? 'Closed' : poll.multiple ? 'Choose one or more' : 'Choose one'}</span>
      {poll.options.map((option, index) => (
        <button type="button" class="poll-option" disabled={poll.closed} aria-pressed={poll.own_votes.includes(index)} onClick={() => choose(index)}>
          <span class="poll-line">
            <span dir="auto">{option.text}</span>
            <span>{option.votes}</span>
          </span>
          <progress class="poll-bar" max={most} value={option.votes} aria-hidden="true" />
        </button>
      ))}
      <span class="poll-about">
        {poll.voters} {poll.voters === 1 ? 'person has' : 'people have'} voted
      </span>
    </div>
  );
}

export function Content({ message }: { message: Message }) {
  if (message.poll) return <Poll message={message} poll={message.poll} />;
  if (message.location)
    return (
      <span class="text" dir="auto">
        {message.location.name ?? message.location.address ?? 'Place'}: {message.location.latitude.toFixed(4)}, {message.location.longitude.toFixed(4)}
      </span>
    );
  if (message.contact)
    return (
      <span class="text" dir="auto">
        {message.contact.name} · {message.contact.phones.join(', ')}
      </span>
    );
  const text = message.content === null ? null : <Linked text={message.content} mentions={message.mentions} />;
  if (message.media_id)
    return (
      <>
        <FileContent message={message} />
        {text && (
          <span class="text" dir="auto">
            {text}
          </span>
        )}
      </>
    );
  return (
    <span class="text" dir="auto">
      {text ?? excerpt(null, message.type)}
    </span>
  );
}

const LINK = /(https?:\/\/[^\s<>"]+[^\s<>".,;:!?)\]}'])/g;

/** Links can be followed, and who is mentioned stands out. */
function Linked({ text, mentions }: { text: string; mentions: string[] }) {
  const names = mentions.map((id) => ({ id, text: `@${people.value.get(id)?.display_name ?? ''}` })).filter((one) => one.text.length > 1);
  return (
    <>
      {text.split(LINK).map((part, index) =>
        index % 2 === 1 ? (
          <a href={part} target="_blank" rel="noopener noreferrer nofollow">
            {part}
          </a>
        ) : (
          <Named text={part} names={names} />
        ),
      )}
    </>
  );
}

function Named({ text, names }: { text: string; names: { id: string; text: string }[] }) {
  const found = names.map((one) => ({ ...one, at: text.indexOf(one.text) })).filter((one) => one.at >= 0).sort((a, b) => a.at - b.at || b.text.length - a.text.length)[0];
  if (found === undefined) return <>{text}</>;
  return (
    <>
      {text.slice(0, found.at)}
      <strong class={found.id === me() ? 'mention mention-me' : 'mention'}>{found.text}</strong>
      <Named text={text.slice(found.at + found.text.length)} names={names} />
    </>
  );
}
