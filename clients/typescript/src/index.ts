export { createClient, type Client, type ClientOptions } from "./client.js";
export { memoryCursor, storageCursor, type CursorStore } from "./cursor.js";
export type * from "./event.js";
export { ApiError } from "./http.js";
export type * from "./schema.js";
export type { EventStreamOptions, StreamState } from "./options.js";
export { SseParser, type SseMessage } from "./sse.js";
export { EventStream } from "./stream.js";
export { AccessLost, Tokens, type LossReason, type TokensOptions } from "./tokens.js";
