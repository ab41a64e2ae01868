// The names that programs use for what the contracts define.

import type { components as Sockets } from './generated/asyncapi.js';
import type { components as Rest } from './generated/openapi.js';

type Schemas = Rest['schemas'];
export type Tokens = Schemas['AuthTokens'];
export type Registration = Schemas['AuthRegistration'];
export type Session = Schemas['AuthSession'];
export type Device = Schemas['AuthDeviceInput'];
export type Message = Schemas['MessageMessage'];
export type MessageToSend = Schemas['MessageSendRequest'];
export type Conversation = Schemas['MessageConversation'];
export type Participant = Schemas['MessageParticipant'];
export type RecipientStatus = Schemas['MessageRecipientStatus'];
export type Profile = Schemas['UserProfile'];
export type Media = Schemas['MediaMedia'];
export type Invite = Schemas['MessageInvite'];
export type ScheduledMessage = Schemas['MessageScheduledMessage'];
export type Privacy = Schemas['UserPrivacy'];
export type Presence = Schemas['PresencePresence'];
export type ProblemDocument = Schemas['Problem'];

type Frames = Sockets['schemas'];
export type ServerFrame = Frames['ServerFrames'][keyof Frames['ServerFrames']];
export type ClientFrames = Frames['ClientFrames'];

/** What the feed keeps and numbers: each has a `seq`, one above the last. */
export type FeedEvent = Extract<ServerFrame, { seq: number }>;
/** What only those see who are connected. */
export type PassingEvent = Exclude<ServerFrame, { seq: number } | { type: 'connection_ack' | 'error' | 'goodbye' | 'pong' }>;

/** Where the one socket of this device stands. */
export type Connection = 'offline' | 'connecting' | 'online';

/** A file that goes with a message: kept with it, uploaded before it is sent. */
export interface Attachment {
  file: Blob;
  name: string;
  /** Of the upload that was begun, so that it is gone on with. */
  upload_id: string | null;
}

/** A message that has not been answered yet, or that was refused for good (`problem`). */
export interface OutboxEntry {
  client_message_id: string;
  /** Grows with each entry of this device. */
  order: number;
  created_at: string;
  message: MessageToSend;
  attachment?: Attachment;
  problem?: ProblemDocument;
}

/** What the library itself says. */
export type LocalEvent =
  | { type: 'connection'; connection: Connection; retry_at: number | null }
  | { type: 'outbox'; entries: OutboxEntry[] }
  | { type: 'sent'; client_message_id: string; message: Message }
  | { type: 'upload'; client_message_id: string; sent: number; total: number }
  | { type: 'signed_in'; user_id: string; device_id: string }
  | { type: 'signed_out'; reason: string };

export type Event = FeedEvent | PassingEvent | LocalEvent;
