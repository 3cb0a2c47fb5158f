/** REST answers, and waiting that can be cut short. */

/** Seconds. A slip in a proxy's configuration must not keep clients away for days. */
const LONGEST_RETRY_AFTER = 3600;

/** An answer that is no success. */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: number;
  /** The stable name of what is wrong, if it was Fechatter that answered. */
  readonly type: string | undefined;
  /** What `Retry-After` asks for. */
  readonly retryAfterMs: number;

  constructor(response: Response, body: { error?: unknown; type?: unknown }) {
    const reason = typeof body.error === "string" ? body.error : response.statusText;
    super(`${new URL(response.url).pathname} answered ${response.status}: ${reason}`);
    this.status = response.status;
    this.type = typeof body.type === "string" ? body.type : undefined;
    const seconds = Number(response.headers.get("retry-after"));
    this.retryAfterMs = seconds > 0 ? Math.min(seconds, LONGEST_RETRY_AFTER) * 1000 : 0;
  }

  static async from(response: Response): Promise<ApiError> {
    const body: unknown = await response.json().catch(() => undefined);
    return new ApiError(response, typeof body === "object" && body !== null ? body : {});
  }
}

/**
 * What `work` comes to. If that takes longer than `ms`, `turn` is aborted; and as soon as it is, for
 * whatever reason, this rejects with the reason and leaves the work to itself.
 */
export async function within<T>(ms: number, turn: AbortController, work: Promise<T>): Promise<T> {
  const { signal } = turn;
  let onAbort = (): void => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason as Error);
    signal.addEventListener("abort", onAbort);
    if (signal.aborted) onAbort();
  });
  const silence = () => turn.abort(new Error(`nothing was heard for ${ms} ms`));
  const timer = setTimeout(silence, ms);
  try {
    return await Promise.race([work, aborted]);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
  }
}

/** Resolves after `ms`, or as soon as the signal is aborted. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}
