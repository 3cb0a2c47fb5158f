/** Server-sent events from bytes, as the HTML standard interprets them. */

/** A dispatched event. */
export interface SseMessage {
  /** What `event:` said, else `message`. */
  event: string;
  data: string;
  /** The newest `id:` so far, of this event or an earlier one. */
  lastEventId: string;
}

/** Takes the chunks of one response, split anywhere, and gives the messages that they complete. */
export class SseParser {
  /** What `retry:` said last, in milliseconds. */
  retryMs: number | undefined;

  // Removes a byte order mark, and keeps the first bytes of a character until the others come.
  readonly #decoder = new TextDecoder();
  #line = "";
  #afterCr = false;
  #event = "";
  #data: string[] = [];
  #lastEventId: string;

  /** @param lastEventId where the response resumes */
  constructor(lastEventId = "") {
    this.#lastEventId = lastEventId;
  }

  push(chunk: Uint8Array): SseMessage[] {
    const messages: SseMessage[] = [];
    for (const line of this.#lines(this.#decoder.decode(chunk, { stream: true }))) {
      if (line !== "") {
        this.#field(line);
        continue;
      }
      const message = this.#dispatch();
      if (message) messages.push(message);
    }
    return messages;
  }

  /** The lines that end in this text: at CR, LF or CRLF, which may come in two chunks. */
  #lines(text: string): string[] {
    if (text === "") return [];
    const rest = this.#afterCr && text.startsWith("\n") ? text.slice(1) : text;
    this.#afterCr = rest.endsWith("\r");
    const lines = rest.split(/\r\n|\r|\n/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop() ?? "";
    return lines;
  }

  #field(line: string): void {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    // A comment has the empty name.
    switch (name) {
      case "event":
        this.#event = value;
        break;
      case "data":
        this.#data.push(value);
        break;
      case "id":
        if (!value.includes("\0")) this.#lastEventId = value;
        break;
      case "retry":
        if (/^[0-9]+$/.test(value)) this.retryMs = Number(value);
        break;
    }
  }

  #dispatch(): SseMessage | undefined {
    const event = this.#event || "message";
    const data = this.#data;
    this.#event = "";
    this.#data = [];
    if (data.length === 0) return undefined;
    return { event, data: data.join("\n"), lastEventId: this.#lastEventId };
  }
}
