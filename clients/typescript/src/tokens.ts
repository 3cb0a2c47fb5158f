/** A session's access token, renewed in time. */

import { ApiError } from "./http.js";
import type { AuthResponse } from "./schema.js";

export interface TokensOptions {
  /** Where `fechatter_server` is, such as `https://chat.example`. */
  restUrl: string;
  /**
   * `cookie`: the browser keeps the refresh token, and this never looks at it.
   * `bearer`: it is sent from here, as programs without cookies do.
   */
  refreshBy: "cookie" | "bearer";
  /** What signing up or in answered. Without it, the first access token comes from a refresh. */
  auth?: AuthResponse;
  /** With `bearer` and without `auth`: the refresh token that was kept. */
  refreshToken?: string;
  /** Without `auth`: the workspace to speak for; else the session's last one. */
  workspaceId?: number;
  /**
   * Keep the new refresh token here: it is waited for before the new access token is used. Do not
   * keep the workspace here: it can be the one before `adopt`.
   */
  onRefresh?: (auth: AuthResponse) => void | Promise<void>;
  /** How long before its end an access token is renewed. 30 s unless given. */
  refreshAheadMs?: number;
  /** 10 s unless given. */
  timeoutMs?: number;
  /** The clock: milliseconds that only their differences matter of. */
  now?: () => number;
}

/** Why nothing more can be had without the person or an administrator doing something. */
export type LossReason = "signed_out" | "suspended" | "removed" | "workspace_closed";

/** The session has ended, or its person may no longer use the workspace. */
export class AccessLost extends Error {
  override readonly name = "AccessLost";
  readonly reason: LossReason;

  constructor(reason: LossReason, cause?: unknown) {
    super(`access was lost: ${reason}`, { cause });
    this.reason = reason;
  }
}

/** Share one between everything that speaks for the same session and workspace. */
export class Tokens {
  readonly #options: TokensOptions;
  #access: { token: string; expiresAt: number } | undefined;
  #refreshToken: string | undefined;
  #workspaceId: number | undefined;
  /** Resolves to the new access token, or to undefined if `adopt` was called in between. */
  #renewal: Promise<string | undefined> | undefined;
  /** The number of calls of `adopt`: it tells a refresh whether its answer comes too late. */
  #adoptions = 0;
  /** Settles when `onRefresh` has kept the newest refresh token. */
  #kept: Promise<void> = Promise.resolve();

  constructor(options: TokensOptions) {
    this.#options = options;
    this.#refreshToken = options.auth?.refresh_token ?? options.refreshToken;
    this.#workspaceId = options.workspaceId;
    if (options.auth) this.#use(options.auth);
  }

  /** An access token that is good for a while. Rejects with `AccessLost` when there can be none. */
  async access(): Promise<string> {
    const ahead = this.#options.refreshAheadMs ?? 30_000;
    const isFresh = this.#access && this.#access.expiresAt - ahead > this.#now();
    return this.#access && isFresh ? this.#access.token : this.refresh();
  }

  /**
   * A new access token. However many ask at once, the server is asked once: using a refresh token
   * twice ends the session.
   *
   * @param refused the token that a server refused: if it has been replaced since, the new one will do
   */
  async refresh(refused = this.#access?.token): Promise<string> {
    for (;;) {
      const current = this.#access?.token;
      if (current !== undefined && current !== refused) return current;
      const renewed = await (this.#renewal ?? this.#share(this.#refresh()));
      if (renewed !== undefined) return renewed;
    }
  }

  /**
   * Replaces the tokens and the workspace by those of another answer: of a switch of the workspace, of
   * a new sign-in, or of a sign-in in another tab. The answer to a refresh in flight does not replace
   * them.
   *
   * After a switch, `auth` has no refresh token and is of the same session. The session's refresh token
   * stays, or is the one that a refresh in flight brings. If `auth` has a refresh token, `onRefresh` is
   * called with it before the access token is used, and an error of `onRefresh` rejects.
   */
  async adopt(auth: AuthResponse): Promise<void> {
    this.#adoptions += 1;
    if (auth.refresh_token === null) return this.#use(auth);
    this.#access = undefined;
    this.#workspaceId = auth.workspace.id;
    await this.#share(this.#keep(auth, this.#adoptions));
  }

  /** Lets all callers that need a new access token wait for this one. */
  #share(renewal: Promise<string | undefined>): Promise<string | undefined> {
    const shared = renewal.finally(() => {
      if (this.#renewal === shared) this.#renewal = undefined;
    });
    this.#renewal = shared;
    return shared;
  }

  async #refresh(): Promise<string | undefined> {
    const adoptions = this.#adoptions;
    const used = this.#refreshToken;
    try {
      const auth = await this.#post();
      if (this.#refreshToken !== used) return undefined;
      return await this.#keep(auth, adoptions);
    } catch (error) {
      if (this.#adoptions === adoptions) throw error;
      return undefined;
    }
  }

  async #post(): Promise<AuthResponse> {
    const { restUrl, refreshBy, timeoutMs } = this.#options;
    const url = new URL("/api/refresh", restUrl);
    // Another tab may have the session speak for another workspace.
    if (this.#workspaceId !== undefined) {
      url.searchParams.set("workspace_id", String(this.#workspaceId));
    }
    const isBearer = refreshBy === "bearer";
    const response = await fetch(url, {
      method: "POST",
      credentials: isBearer ? "omit" : "include",
      headers: isBearer ? { authorization: `Bearer ${this.#refreshToken ?? ""}` } : {},
      // Nothing else cuts this short: an answer that is not read is a refresh token that is lost.
      signal: AbortSignal.timeout(timeoutMs ?? 10_000),
    });
    if (!response.ok) throw lossOr(await ApiError.from(response));
    return (await response.json()) as AuthResponse;
  }

  /** Keeps the new refresh token, then uses the new access token unless another one was adopted. */
  async #keep(auth: AuthResponse, adoptions: number): Promise<string | undefined> {
    // The old one is used up, whatever becomes of the rest.
    this.#refreshToken = auth.refresh_token ?? this.#refreshToken;
    const { onRefresh } = this.#options;
    this.#kept = this.#kept.catch(() => {}).then(() => onRefresh?.(auth));
    await this.#kept;
    if (this.#adoptions !== adoptions) return undefined;
    this.#use(auth);
    return auth.access_token;
  }

  #use(auth: AuthResponse): void {
    const expiresAt = this.#now() + auth.expires_in * 1000;
    this.#access = { token: auth.access_token, expiresAt };
    this.#workspaceId = auth.workspace.id;
  }

  #now(): number {
    return (this.#options.now ?? Date.now)();
  }
}

/** What a refused refresh means. Only Fechatter's own words count, not those of a proxy in between. */
function lossOr(error: ApiError): Error {
  switch (error.type) {
    case "refresh_missing":
    case "refresh_invalid":
    case "refresh_reused":
      return new AccessLost("signed_out", error);
    case "suspended":
      return new AccessLost("suspended", error);
    case "workspace_suspended":
      return new AccessLost("workspace_closed", error);
    case "not_found":
      return new AccessLost("removed", error);
    default:
      return error;
  }
}
