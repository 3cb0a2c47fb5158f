/** Somebody who follows their stream, and what became of it. They stop when the test ends. */

import { afterEach } from "node:test";

import {
  EventStream,
  Tokens,
  memoryCursor,
  type EventStreamOptions,
  type FechatterEvent,
  type Message,
  type StreamState,
  type Sync,
  type TokensOptions,
} from "../src/index.js";
import type { Person } from "./fechatter.js";
import { PATIENCE_MS } from "./server.js";

const following = new Set<Follower>();

afterEach(() => {
  for (const follower of following) follower.stream.stop();
  following.clear();
});

export type FollowOptions = Partial<EventStreamOptions> & { tokenOptions?: Partial<TokensOptions> };

export class Follower {
  readonly stream: EventStream;
  readonly tokens: Tokens;
  readonly events: FechatterEvent[] = [];
  readonly states: StreamState[] = [];
  readonly syncs: Sync[] = [];
  readonly #watchers = new Set<() => void>();

  /** Starts following, with everything as by default but for short waits. */
  constructor(person: Person, { tokenOptions, ...options }: FollowOptions = {}) {
    const { restUrl, eventsUrl } = person.fechatter;
    this.tokens = new Tokens({ restUrl, refreshBy: "bearer", auth: person.auth, ...tokenOptions });
    this.stream = new EventStream({
      restUrl,
      eventsUrl,
      tokens: this.tokens,
      cursorStore: memoryCursor(),
      maxBackoffMs: 100,
      ...options,
      onEvent: async (event) => {
        await options.onEvent?.(event);
        this.events.push(event);
        this.#changed();
      },
      onSync: async (state) => {
        await options.onSync?.(state);
        this.syncs.push(state);
        this.#changed();
      },
      onState: (state) => {
        this.states.push(state);
        options.onState?.(state);
        this.#changed();
      },
    });
    following.add(this);
    this.stream.start();
  }

  get messages(): Message[] {
    return this.events.filter((event) => event.event === "NewMessage");
  }

  /** Waits until this holds, looking whenever something has happened. */
  async until(holds: (follower: this) => boolean): Promise<void> {
    let watch = (): void => {};
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve, reject) => {
      watch = () => holds(this) && resolve();
      timer = setTimeout(() => reject(new Error(`in vain: ${this.#story()}`)), PATIENCE_MS);
      this.#watchers.add(watch);
      watch();
    }).finally(() => {
      clearTimeout(timer);
      this.#watchers.delete(watch);
    });
  }

  #changed(): void {
    for (const watch of this.#watchers) watch();
  }

  async untilOpen(): Promise<void> {
    await this.until(() => this.stream.state.name === "open");
  }

  /** Waits for the next wait, and gives its reason. */
  async untilWaiting(): Promise<StreamState & { name: "waiting" }> {
    const from = this.states.length;
    const isWaiting = (state: StreamState) => state.name === "waiting";
    await this.until(() => this.states.slice(from).some(isWaiting));
    return this.states.slice(from).find(isWaiting) as StreamState & { name: "waiting" };
  }

  #story(): string {
    const states = this.states.map((state) =>
      state.name === "waiting" ? `waiting (${state.error.message})` : state.name,
    );
    const newest = (words: string[]): string => words.slice(-20).join(", ") || "nothing";
    const events = this.events.map(({ event }) => event);
    return `${newest(states)}; ${newest(events)}; ${this.syncs.length} syncs`;
  }
}
