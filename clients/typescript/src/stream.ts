/** One person's events in one workspace, for as long as they are wanted. */

import { Backoff } from "./backoff.js";
import { memoryCursor, type CursorStore } from "./cursor.js";
import { parseEvent, type ControlEvent } from "./event.js";
import { ApiError, pause, within } from "./http.js";
import type { Sync } from "./schema.js";
import type { EventStreamOptions, StreamState } from "./options.js";
import { SseParser, type SseMessage } from "./sse.js";
import { AccessLost, type LossReason } from "./tokens.js";

/**
 * Follows `GET /events` across restarts, lost networks, sleep and expired tokens. Every event reaches
 * `onEvent` in order and at least once. It is started once; make another one to begin again.
 */
export class EventStream {
  readonly #options: EventStreamOptions;
  readonly #cursorStore: CursorStore;
  readonly #backoff: Backoff;
  #state: StreamState = { name: "idle" };
  /** What is being done or waited for; aborted, the next attempt begins. */
  #turn = new AbortController();
  /** Undefined until loaded; null if the whole state is to be read. */
  #cursor: string | null | undefined;
  /** Whether an attempt without wait has been made since anything last arrived. */
  #hurried = false;

  constructor(options: EventStreamOptions) {
    this.#options = options;
    this.#cursorStore = options.cursorStore ?? memoryCursor();
    this.#backoff = new Backoff(options.maxBackoffMs ?? 30_000);
  }

  get state(): StreamState {
    return this.#state;
  }

  start(): void {
    if (this.#state.name !== "idle") throw new Error("a stream is started once; make another one");
    void this.#run();
  }

  /** At once and for good: no handler is called after this, and nothing is saved. */
  stop(): void {
    this.#end("stopped");
  }

  /**
   * Drops the connection or the wait and connects now. For when you know better: the network is
   * back, the machine has woken up.
   */
  reconnectNow(): void {
    this.#backoff.reset();
    this.#hurried = false;
    this.#turn.abort(new Interruption("asked to reconnect", "soon"));
  }

  async #run(): Promise<void> {
    while (!this.#isOver) {
      this.#turn = new AbortController();
      this.#tell({ name: "connecting" });
      const error = await this.#follow().catch((thrown: unknown) => this.#cause(thrown));
      if (error instanceof AccessLost) return this.#end(error.reason);
      await this.#wait(error);
    }
  }

  /** One attempt, from the cursor to whatever ends it. */
  async #follow(): Promise<never> {
    if (this.#cursor === undefined) this.#cursor = (await this.#cursorStore.load()) || null;
    const cursor = this.#cursor ?? (await this.#sync());
    const headers = { accept: "text/event-stream", "last-event-id": cursor };
    const { response, token } = await this.#get(this.#options.eventsUrl, headers);
    // A network that wants one to sign in first answers anything with its own page.
    if (!response.headers.get("content-type")?.startsWith("text/event-stream")) {
      throw new Error("what answers is no event stream");
    }
    const parser = new SseParser(cursor);
    for await (const chunk of this.#chunks(response)) {
      const messages = parser.push(chunk);
      this.#backoff.baseMs = parser.retryMs ?? this.#backoff.baseMs;
      for (const message of messages) await this.#receive(message, token);
    }
    throw new Interruption("the stream ended", "later");
  }

  /** Reads the whole state. Gives the cursor from which it is to be continued. */
  async #sync(): Promise<string> {
    this.#tell({ name: "syncing" });
    const { restUrl, onSync } = this.#options;
    const { response } = await this.#get(new URL("/api/sync", restUrl).href, { accept: "application/json" });
    const decoder = new TextDecoder();
    let text = "";
    for await (const chunk of this.#chunks(response)) text += decoder.decode(chunk, { stream: true });
    const state = JSON.parse(text) as Sync;
    this.#turn.signal.throwIfAborted();
    await onSync(state);
    await this.#keep(state.cursor);
    this.#tell({ name: "connecting" });
    return state.cursor;
  }

  async #get(url: string, headers: Record<string, string>) {
    const { tokens, connectTimeoutMs = 10_000 } = this.#options;
    const token = await within(connectTimeoutMs, this.#turn, tokens.access());
    const answer = fetch(url, {
      headers: { ...headers, authorization: `Bearer ${token}` },
      cache: "no-store",
      signal: this.#turn.signal,
    });
    const response = await within(connectTimeoutMs, this.#turn, answer);
    if (response.ok) return { response, token };
    const error = await within(connectTimeoutMs, this.#turn, ApiError.from(response));
    if (error.type === "suspended") throw new AccessLost("suspended", error);
    if (error.type === "workspace_suspended") throw new AccessLost("workspace_closed", error);
    if (error.status === 401) await this.#renew(token, error);
    throw error;
  }

  /** A body, for as long as more of it keeps coming: a large answer may take long, silence may not. */
  async *#chunks(response: Response): AsyncGenerator<Uint8Array> {
    const { silenceTimeoutMs = 40_000 } = this.#options;
    if (!response.body) throw new Error("an answer without a body");
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await within(silenceTimeoutMs, this.#turn, reader.read());
      if (done) return;
      yield value;
    }
  }

  async #receive(message: SseMessage, token: string): Promise<void> {
    // Whoever watches states or applied the event before may have stopped us.
    this.#turn.signal.throwIfAborted();
    const event = parseEvent(message.data);
    switch (event.event) {
      case "Ready":
        return this.#tell({ name: "open" });
      case "Reset":
        this.#cursor = null;
        throw new Interruption(`the cursor cannot be served: ${event.reason}`, "soon");
      case "Goodbye":
        return this.#leave(event, token);
      case "Heartbeat":
        break;
      default:
        await this.#options.onEvent(event);
    }
    await this.#keep(message.lastEventId);
    this.#backoff.reset();
    this.#hurried = false;
  }

  /** Moves the cursor, now that everything up to it has been applied. */
  async #keep(cursor: string): Promise<void> {
    this.#turn.signal.throwIfAborted();
    if (cursor === "" || cursor === this.#cursor) return;
    await this.#cursorStore.save(cursor);
    this.#cursor = cursor;
  }

  async #leave(goodbye: ControlEvent & { event: "Goodbye" }, token: string): Promise<never> {
    const { reason, retry_ms } = goodbye;
    const error = new Interruption(`the server said goodbye: ${reason}`, "later");
    this.#backoff.baseMs = retry_ms;
    if (reason === "suspended" || reason === "removed" || reason === "workspace_closed") {
      throw new AccessLost(reason, error);
    }
    if (reason === "token_expired" || reason === "session_revoked") await this.#renew(token, error);
    throw error;
  }

  /** Has the refused token replaced, if the session still stands. */
  async #renew(token: string, cause: Error): Promise<never> {
    const { tokens, connectTimeoutMs = 10_000 } = this.#options;
    await within(connectTimeoutMs, this.#turn, tokens.refresh(token));
    throw new Interruption(`the access token was renewed: ${cause.message}`, "soon");
  }

  /** Why an attempt ended. What was aborted says it in other words. */
  #cause(thrown: unknown): Error {
    const cause: unknown = this.#turn.signal.aborted ? this.#turn.signal.reason : thrown;
    // Closes what is still open.
    this.#turn.abort();
    return cause instanceof Error ? cause : new Error(String(cause), { cause });
  }

  async #wait(error: Error): Promise<void> {
    if (this.#isOver) return;
    if (error instanceof Interruption && error.when === "soon" && !this.#hurried) {
      this.#hurried = true;
      return;
    }
    const asked = error instanceof ApiError ? error.retryAfterMs : 0;
    const delayMs = asked + this.#backoff.next();
    this.#turn = new AbortController();
    this.#tell({ name: "waiting", delayMs, error });
    await pause(delayMs, this.#turn.signal);
  }

  #end(reason: LossReason | "stopped"): void {
    if (this.#isOver) return;
    this.#tell({ name: "ended", reason });
    this.#turn.abort();
  }

  get #isOver(): boolean {
    return this.#state.name === "ended";
  }

  #tell(state: StreamState): void {
    if (this.#isOver) return;
    this.#state = state;
    try {
      this.#options.onState?.(state);
    } catch (error) {
      // Somebody who only watches must not stop the stream.
      console.error("onState failed:", error);
    }
  }
}

/** An ending that is no fault. */
class Interruption extends Error {
  override readonly name = "Interruption";
  /** Whether it is worth trying at once. */
  readonly when: "soon" | "later";

  constructor(message: string, when: "soon" | "later") {
    super(message);
    this.when = when;
  }
}
