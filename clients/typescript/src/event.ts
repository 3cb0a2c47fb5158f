/** Everything that a stream carries, told apart by `event`. */

import type {
  GoodbyeEvent,
  HeartbeatEvent,
  ReadyEvent,
  ResetEvent,
  StreamEvent,
} from "./schema.js";

/** About the stream itself: `EventStream` deals with these. */
export type ControlEvent = ReadyEvent | HeartbeatEvent | ResetEvent | GoodbyeEvent;

/** An event of a name that this version does not know. */
export interface UnknownEvent {
  event: "Unknown";
  name: string;
  data: Record<string, unknown>;
}

/** What applications get to see: all but the events about the stream itself. */
export type FechatterEvent =
  | Exclude<StreamEvent, { event: ControlEvent["event"] }>
  | UnknownEvent;

// An object, so that the compiler insists on every name of the contract, and on no other.
const KNOWN: Record<StreamEvent["event"], true> = {
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
  ChatPreferencesUpdated: true,
  PreferencesUpdated: true,
  UserUpdated: true,
  MessagesBlanked: true,
  UserJoinedWorkspace: true,
  UserLeftWorkspace: true,
  WorkspaceUpdated: true,
  SessionRevoked: true,
  ReadStateUpdated: true,
  Typing: true,
  DuplicateMessageAttempted: true,
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
  if (Object.hasOwn(KNOWN, event.event)) return event as StreamEvent;
  return { event: "Unknown", name: event.event, data: event as Record<string, unknown> };
}
