/** One chat: prints its messages and what happens to them, and carries out commands. */

import {
  sendMessage,
  type Client,
  type FechatterEvent,
  type Message,
  type MessageDraft,
  type ReactionAddedEvent,
  type ReactionRemovedEvent,
  type SystemNotice,
  type Sync,
} from "fechatter-client";

import { printable } from "./printable.js";

const COMMANDS =
  "(/reply N TEXT, /edit N TEXT, /delete N, /react N EMOJI for message number N; or /quit)";

type ReactionEvent = ReactionAddedEvent | ReactionRemovedEvent;

export class Chat {
  readonly #client: Client;
  readonly #id: number;
  readonly #print: (line: string) => void;
  readonly #signal: AbortSignal;
  readonly #names = new Map<number, string>();
  /** The messages that were shown, by id. */
  readonly #messages = new Map<number, Message>();
  /** The `seq` of the newest message that was shown, and of the newest one that is marked as read. */
  #shown = 0;
  #read = 0;
  #isMarking = false;

  constructor(client: Client, id: number, print: (line: string) => void, signal: AbortSignal) {
    this.#client = client;
    this.#id = id;
    this.#print = print;
    this.#signal = signal;
  }

  /** Shows the newest messages, or those after the last one that was shown. */
  async sync({ users = [] }: Sync): Promise<void> {
    for (const { id, fullname } of users) this.#names.set(id, fullname);
    let hasNewer = true;
    while (hasNewer) {
      const query = this.#shown === 0 ? { limit: 20 } : { after_seq: this.#shown };
      const { data, response } = await this.#client.GET("/api/chat/{id}/messages", {
        params: { path: { id: this.#id }, query },
        signal: this.#signal,
      });
      for (const message of data.reverse()) this.#show(message);
      hasNewer = response.headers.get("x-has-newer") === "true";
    }
  }

  /** Shows what an event changes. The same event can come twice. */
  apply(event: FechatterEvent): void {
    switch (event.event) {
      case "UserJoinedWorkspace":
      case "UserUpdated":
        this.#names.set(event.id, event.fullname);
        break;
      case "NewMessage":
        if (event.chat_id === this.#id) this.#show(event);
        break;
      case "MessageUpdated":
        if (!this.#messages.has(event.id)) break;
        this.#messages.set(event.id, event);
        this.#print(`${this.#heading(event)} (edited): ${printable(event.content)}`);
        break;
      case "MessageDeleted":
        if (!this.#messages.delete(event.id)) break;
        this.#print(`(${this.#name(event.actor_id)} deleted #${event.seq})`);
        break;
      case "ReactionAdded":
        this.#showReaction(event, "reacted with");
        break;
      case "ReactionRemoved":
        this.#showReaction(event, "took back");
        break;
    }
  }

  /** Carries out a command, or sends the line. */
  async enter(line: string): Promise<void> {
    if (line.trim() === "") return;
    if (!line.startsWith("/")) return this.#send({ content: line });
    const [, command, number, text = ""] = /^\/(\w+) +#?(\d+) *(.*)$/.exec(line) ?? [];
    const message = [...this.#messages.values()].find(({ seq }) => seq === Number(number));
    if (!message) return this.#print(COMMANDS);
    const path = { id: this.#id, mid: message.id };
    const signal = this.#signal;
    switch (command) {
      case "reply":
        return this.#send({ content: text, reply_to_id: message.id });
      case "edit":
        await this.#client.PATCH("/api/chat/{id}/messages/{mid}", {
          params: { path },
          body: { content: text },
          signal,
        });
        break;
      case "delete":
        await this.#client.DELETE("/api/chat/{id}/messages/{mid}", { params: { path }, signal });
        break;
      case "react":
        await this.#client.PUT("/api/chat/{id}/messages/{mid}/reactions/{emoji}", {
          params: { path: { ...path, emoji: text.trim() } },
          signal,
        });
        break;
      default:
        this.#print(COMMANDS);
    }
  }

  async #send(draft: MessageDraft): Promise<void> {
    await sendMessage(this.#client, this.#id, draft, {
      signal: this.#signal,
      onRetry: (error, delayMs) => {
        const seconds = Math.ceil(delayMs / 1000);
        this.#print(`(not sent yet: ${printable(error.message)}; next attempt in ${seconds} s)`);
      },
    });
  }

  #show(message: Message): void {
    if (message.seq <= this.#shown) return;
    this.#shown = message.seq;
    if (message.system) {
      this.#print(`(${this.#name(message.sender_id)} ${this.#notice(message.system)})`);
    } else if (message.deleted_at === null) {
      this.#messages.set(message.id, message);
      const reactions = message.reactions.map(({ emoji, count }) => ` [${emoji} ${count}]`);
      const text = printable(message.content + reactions.join(""));
      this.#print(`${this.#heading(message)}: ${text}`);
    }
    void this.#markAsRead();
  }

  #notice({ type, name, user_ids }: SystemNotice): string {
    const people = user_ids.map((id) => this.#name(id)).join(", ");
    return `${type} ${people}${printable(name ?? "")}`.trimEnd();
  }

  #showReaction({ message_id, user_id, emoji }: ReactionEvent, action: string): void {
    const message = this.#messages.get(message_id);
    if (!message) return;
    this.#print(`(${this.#name(user_id)} ${action} ${printable(emoji)} at #${message.seq})`);
  }

  #heading({ seq, sender_id, reply_to_id }: Message): string {
    const parent = reply_to_id === null ? undefined : this.#messages.get(reply_to_id);
    return `#${seq} ${this.#name(sender_id)}${parent ? ` to #${parent.seq}` : ""}`;
  }

  #name(id: number): string {
    return printable(this.#names.get(id) ?? `person ${id}`);
  }

  /** Marks all shown messages, with one request at a time. */
  async #markAsRead(): Promise<void> {
    if (this.#isMarking) return;
    this.#isMarking = true;
    try {
      while (this.#read < this.#shown) {
        const seq = this.#shown;
        await this.#client.POST("/api/chat/{id}/read", {
          params: { path: { id: this.#id } },
          body: { seq },
          signal: this.#signal,
        });
        this.#read = seq;
      }
    } catch {
      // The next message marks this one, too.
    } finally {
      this.#isMarking = false;
    }
  }
}
