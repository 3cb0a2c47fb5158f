/** Sending a message with repeated attempts. */

import { Backoff } from "./backoff.js";
import type { Client } from "./client.js";
import { ApiError, pause } from "./http.js";
import type { ChatId, Message, MessageDraft } from "./schema.js";
import { AccessLost } from "./tokens.js";

export interface SendOptions {
  /** Ends the attempts. The server may have the message already. */
  signal?: AbortSignal;
  /** Called when an attempt has failed and there will be another one after `delayMs`. */
  onRetry?: (error: Error, delayMs: number) => void;
  /** The longest wait between attempts, in addition to `Retry-After`. 30 s unless given. */
  maxBackoffMs?: number;
}

/** Answers of the server, or of a proxy in front of it, that can be different later. */
const TEMPORARY = new Set([408, 429, 502, 503, 504]);

/**
 * Sends a message until the server has it. All attempts have the same idempotency key, so that it is
 * stored once. An application that stores drafts with their keys can continue after a restart; a draft
 * without a key gets a new one.
 *
 * Network errors, 408, 429, 502, 503 and 504 lead to another attempt, without a limit of number; for a
 * limit of time, use `AbortSignal.timeout`. Rejects with the reason of the signal, with `AccessLost`, or
 * with the `ApiError` of any other answer. Wait for one message before you send the next one: messages
 * that are sent at the same time can be stored in any order.
 */
export async function sendMessage(
  client: Client,
  chatId: ChatId,
  draft: MessageDraft,
  options: SendOptions = {},
): Promise<Message> {
  const { signal = new AbortController().signal, onRetry, maxBackoffMs = 30_000 } = options;
  const backoff = new Backoff(maxBackoffMs);
  const body = { ...draft, idempotency_key: draft.idempotency_key ?? crypto.randomUUID() };
  const params = { path: { id: chatId } };
  for (;;) {
    try {
      const { data } = await client.POST("/api/chat/{id}/messages", { params, body, signal });
      return data;
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof Error) || !isTemporary(error)) throw error;
      const asked = error instanceof ApiError ? error.retryAfterMs : 0;
      const delayMs = asked + backoff.next();
      onRetry?.(error, delayMs);
      await pause(delayMs, signal);
      signal.throwIfAborted();
    }
  }
}

/** An error that is not an answer of the server is an error of the network. */
function isTemporary(error: Error): boolean {
  return error instanceof ApiError ? TEMPORARY.has(error.status) : !(error instanceof AccessLost);
}
