/** What an `EventStream` is given, and what it tells. */

import type { CursorStore } from "./cursor.js";
import type { FechatterEvent } from "./event.js";
import type { Sync } from "./schema.js";
import type { LossReason, Tokens } from "./tokens.js";

export interface EventStreamOptions {
  /** Where `fechatter_server` is, such as `https://chat.example`. */
  restUrl: string;
  /** The stream itself, such as `https://chat.example/events`: `events_url` of `GET /api/server`. */
  eventsUrl: string;
  tokens: Tokens;
  /** In memory unless given. */
  cursorStore?: CursorStore;
  /**
   * Applies one event, as an upsert. It is waited for; the cursor moves after it. If it throws, the
   * stream comes back with the same event.
   */
  onEvent: (event: FechatterEvent) => void | Promise<void>;
  /** Replaces the whole state: at the start without a cursor, and when a cursor cannot be served. */
  onSync: (state: Sync) => void | Promise<void>;
  onState?: (state: StreamState) => void;
  /** Time for an answer to begin. 10 s unless given. */
  connectTimeoutMs?: number;
  /** Time without a byte, after which the connection counts as dead. 40 s unless given; the server sends every 15 s. */
  silenceTimeoutMs?: number;
  /** The longest wait between attempts. 30 s unless given. */
  maxBackoffMs?: number;
}

export type StreamState =
  | { name: "idle" }
  | { name: "connecting" }
  /** Reading the whole state. */
  | { name: "syncing" }
  /** Events come as they happen. */
  | { name: "open" }
  /** Something went wrong; it will be tried again. */
  | { name: "waiting"; delayMs: number; error: Error }
  /** For good: `stop()` was called, or only the person or an administrator can help. */
  | { name: "ended"; reason: LossReason | "stopped" };
