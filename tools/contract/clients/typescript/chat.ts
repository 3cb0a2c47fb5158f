/** Chats through the generated TypeScript client: node chat.js <REST address> */

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";

import { createClient } from "./generated/client/index.js";
import { createChat, listMessages, sendMessage, signUp } from "./generated/sdk.gen.js";

const baseUrl = process.argv[2] ?? "";
const stranger = createClient({ baseUrl, throwOnError: true });
const { data: signedUp } = await signUp({
  client: stranger,
  throwOnError: true,
  body: {
    fullname: "Generated",
    email: `${randomUUID()}@typescript.test`,
    password: "correct horse battery staple",
    workspace: "Generated TypeScript",
  },
});

const client = createClient({ baseUrl, auth: signedUp.access_token, throwOnError: true });
const { data: chat } = await createChat({
  client,
  throwOnError: true,
  body: { chat_type: "PublicChannel", name: `typescript ${randomUUID()}` },
});

const path = { id: chat.id };
const body = { content: "Hello", idempotency_key: randomUUID() };
const { data: sent } = await sendMessage({ client, throwOnError: true, path, body });
const { data: again } = await sendMessage({ client, throwOnError: true, path, body });
assert.deepEqual(again, sent);

const { data: page } = await listMessages({ client, throwOnError: true, path, query: { limit: 10 } });
assert.deepEqual(page, [sent]);
