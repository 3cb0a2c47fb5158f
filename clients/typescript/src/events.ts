/** Everything that a stream carries, told apart by `event`. */

import type { Chat, ChatMember, Message, NotifyLevel, User, Workspace } from "./objects.js";

type Named<Name extends string, Fields> = { event: Name } & Fields;
type LeaveReason = "left" | "removed";

/** Kept in the workspace's log: comes once and in order, or again after a crash. Apply it as an upsert. */
export type DurableEvent =
  | Named<"NewChat", Chat>
  | Named<"ChatUpdated", Chat>
  | Named<"ChatDeleted", { id: number }>
  /** `chat` comes with `chat_members` left empty. */
  | Named<"UserJoinedChat", ChatMember & { actor_id: number; chat: Chat }>
  | Named<"UserLeftChat", Omit<ChatMember, "role"> & { actor_id: number; reason: LeaveReason }>
  | Named<"MemberUpdated", ChatMember>
  | Named<"NewMessage", Message>
  | Named<"MessageUpdated", Message>
  | Named<"MessageDeleted", { chat_id: number; id: number; seq: number; sender_id: number }>
  | Named<"ReactionAdded", ReactionChange>
  | Named<"ReactionRemoved", ReactionChange>
  | Named<"ReadStateUpdated", ReadState>
  | Named<"ChatPreferencesUpdated", ChatPreferences>
  | Named<"UserUpdated", User>
  | Named<"UserJoinedWorkspace", User>
  | Named<"UserLeftWorkspace", { user_id: number; reason: LeaveReason }>
  | Named<"WorkspaceUpdated", Workspace>
  | Named<"SessionRevoked", { session_id: string }>;

/** Past the log: may be lost, never comes again. */
export type EphemeralEvent =
  | Named<"DuplicateMessageAttempted", DuplicateMessage>
  | Named<"Typing", { chat_id: number; user_id: number; expires_in: number }>;

/** Of a name that this version does not know. */
export interface UnknownEvent {
  event: "Unknown";
  name: string;
  data: Record<string, unknown>;
}

/** What applications get to see. */
export type FechatterEvent = DurableEvent | EphemeralEvent | UnknownEvent;

/** About the stream itself: `EventStream` deals with these. */
export type ControlEvent =
  | Named<"Ready", { cursor: string; resumed: boolean; server_time: string }>
  | Named<"Heartbeat", { cursor: string; server_time: string }>
  | Named<"Reset", { reason: ResetReason; cursor: string }>
  | Named<"Goodbye", { reason: GoodbyeReason; retry_ms: number }>;

export type ResetReason =
  | "cursor_invalid"
  | "cursor_unknown"
  | "cursor_expired"
  | "too_far_behind";

export type GoodbyeReason =
  | "token_expired"
  | "session_revoked"
  | "suspended"
  | "removed"
  | "slow_consumer"
  | "draining";

export interface ReactionChange {
  chat_id: number;
  message_id: number;
  user_id: number;
  emoji: string;
  count: number;
}

export interface ReadState {
  chat_id: number;
  last_read_seq: number;
  unread_count: number;
  mention_count: number;
}

export interface ChatPreferences {
  chat_id: number;
  notify_level: NotifyLevel;
  muted_until: string | null;
  pinned_at: string | null;
}

export interface DuplicateMessage {
  idempotency_key: string;
  chat_id: number;
  sender_id: number;
  message_id: number;
}

type KnownEvent = DurableEvent | EphemeralEvent | ControlEvent;

// An object, so that the compiler insists on every name.
const KNOWN: Record<KnownEvent["event"], true> = {
  NewChat: true,
  ChatUpdated: true,
  ChatDeleted: true,
  UserJoinedChat: true,
  UserLeftChat: true,
  MemberUpdated: true,
  NewMessage: true,
  MessageUpdated: true,
  MessageDeleted: true,
  ReactionAdded: true,
  ReactionRemoved: true,
  ReadStateUpdated: true,
  ChatPreferencesUpdated: true,
  UserUpdated: true,
  UserJoinedWorkspace: true,
  UserLeftWorkspace: true,
  WorkspaceUpdated: true,
  SessionRevoked: true,
  DuplicateMessageAttempted: true,
  Typing: true,
  Ready: true,
  Heartbeat: true,
  Reset: true,
  Goodbye: true,
};

/** A frame's data. The server's word for the fields is taken; the contract only ever adds to them. */
export function parseEvent(data: string): FechatterEvent | ControlEvent {
  const event = JSON.parse(data) as { event?: unknown } | null;
  if (typeof event !== "object" || typeof event?.event !== "string") {
    throw new Error("the server sent something that is no event");
  }
  if (Object.hasOwn(KNOWN, event.event)) return event as KnownEvent;
  return { event: "Unknown", name: event.event, data: event as Record<string, unknown> };
}
