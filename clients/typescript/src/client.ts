/** Calls of the REST API, typed by its OpenAPI document. */

import createFetchClient, {
  type Client as FetchClient,
  type ClientPathsWithMethod,
  type FetchResponse,
  type MaybeOptionalInit,
} from "openapi-fetch";

import { ApiError, within } from "./http.js";
import type { paths } from "./schema.js";
import type { Tokens } from "./tokens.js";

export interface ClientOptions {
  /** The address of `fechatter_server`, such as `https://chat.example`. */
  restUrl: string;
  /** Provides the access tokens. Without it, calls have no token: for sign-up and sign-in. */
  tokens?: Tokens;
  /**
   * With `include`, the browser also stores the refresh cookie if the page has another origin than
   * `restUrl`. `same-origin` unless given.
   */
  credentials?: RequestCredentials;
  /** Time for a call and its whole answer. 20 s unless given; the server answers 408 after 10 s. */
  timeoutMs?: number;
}

type Method = "get" | "put" | "post" | "patch" | "delete";
type Path<M extends Method> = ClientPathsWithMethod<FetchClient<paths>, M>;
type Init<P extends Path<M>, M extends Method> = Omit<
  NonNullable<MaybeOptionalInit<paths[P], M>>,
  "parseAs"
>;
type Success<P extends Path<M>, M extends Method> = Extract<
  FetchResponse<NonNullable<paths[P][M]>, object, "application/json">,
  { data: unknown }
>;

/**
 * Resolves to the `data` and the `response` of a successful answer. Rejects with `ApiError` for any
 * other answer, with `AccessLost` if the session has no access any more, with the reason of the
 * signal, or with the error of the network.
 */
type Call<M extends Method> = <P extends Path<M>>(
  path: P,
  ...init: object extends Init<P, M> ? [init?: Init<P, M>] : [init: Init<P, M>]
) => Promise<Success<P, M>>;

interface Abortable {
  signal?: AbortSignal | null | undefined;
}

/** An openapi-fetch client whose calls reject instead of resolving to `{ error }`. */
export type Client = { readonly [M in Method as Uppercase<M>]: Call<M> };

/** If the server refuses the access token of a call, the call is made once more with a new one. */
export function createClient(options: ClientOptions): Client {
  const { restUrl, tokens, credentials = "same-origin", timeoutMs = 20_000 } = options;
  const client = createFetchClient<paths>({
    baseUrl: new URL(restUrl).href,
    credentials,
    fetch: tokens ? (request) => sendWithToken(request, tokens) : send,
  });
  const call =
    (method: Method) =>
    async (path: string, init: Abortable = {}) => {
      const turn = new AbortController();
      const abort = () => turn.abort(init.signal?.reason);
      init.signal?.addEventListener("abort", abort);
      if (init.signal?.aborted) abort();
      // The type `Client` checks the arguments and describes the answer.
      const answer = client.request(
        method,
        path as never,
        { ...init, signal: turn.signal } as never,
      );
      return within(timeoutMs, turn, answer as Promise<never>).finally(() => {
        init.signal?.removeEventListener("abort", abort);
      });
    };
  return {
    GET: call("get"),
    PUT: call("put"),
    POST: call("post"),
    PATCH: call("patch"),
    DELETE: call("delete"),
  };
}

async function send(request: Request): Promise<Response> {
  const response = await fetch(request);
  if (!response.ok) throw await ApiError.from(response);
  return response;
}

async function sendWithToken(request: Request, tokens: Tokens): Promise<Response> {
  const token = await tokens.access();
  // A request can be sent only once, because its body is a stream.
  const repetition = request.clone();
  request.headers.set("authorization", `Bearer ${token}`);
  try {
    return await send(request);
  } catch (error) {
    if (!isTokenRefused(error)) throw error;
  }
  repetition.headers.set("authorization", `Bearer ${await tokens.refresh(token)}`);
  return send(repetition);
}

function isTokenRefused(error: unknown): boolean {
  if (!(error instanceof ApiError)) return false;
  return error.type === "token_expired" || error.type === "unauthenticated";
}
