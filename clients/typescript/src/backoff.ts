/** How long to wait before trying again: at random, from a range that doubles with each attempt. */

export class Backoff {
  /** The first range, in milliseconds; the server says it. */
  baseMs = 1000;
  readonly #capMs: number;
  #attempts = 0;

  constructor(capMs: number) {
    this.#capMs = capMs;
  }

  /**
   * Somewhere in the upper half of the range ("equal jitter"): clients that were cut off together
   * come back apart, and none before half of what the server asked for.
   */
  next(): number {
    const range = Math.min(this.#capMs, this.baseMs * 2 ** this.#attempts);
    this.#attempts += 1;
    return (range / 2) * (1 + Math.random());
  }

  reset(): void {
    this.#attempts = 0;
  }
}
