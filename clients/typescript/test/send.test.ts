import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { ApiError, createClient, sendMessage, type SendOptions } from "../src/index.js";
import { Fechatter } from "./fechatter.js";
import { Follower } from "./follower.js";
import { Proxy } from "./proxy.js";

let fechatter: Fechatter;
/** Ends the attempts that a failed test leaves behind. */
let ending: AbortController;

before(async () => {
  fechatter = await Fechatter.start();
});
after(async () => fechatter.stop());
beforeEach(() => {
  ending = new AbortController();
});
afterEach(() => ending.abort());

test("a message whose answer is cut off is sent again with the same key and stored once", async () => {
  const alice = await fechatter.signsUp("alice", "SendCut");
  const bob = await fechatter.signsUp("bob", "SendCut");
  const chat = await alice.chatsWith(bob);
  const follower = new Follower(bob);
  await follower.untilOpen();
  const proxy = await Proxy.start(fechatter.restUrl);
  try {
    const restUrl = proxy.through(fechatter.restUrl);
    const client = createClient({ restUrl, tokens: alice.tokens() });
    const retries = new Retries();
    for (const key of [undefined, crypto.randomUUID()]) {
      const seen = follower.messages.length;
      proxy.answers = false;
      const draft = { content: "noodles?", idempotency_key: key ?? null };
      const sending = sendMessage(client, chat.id, draft, retries.options);
      await follower.until(() => follower.messages.length === seen + 1);
      proxy.answers = true;
      proxy.cut();
      const sent = await sending;

      assert.equal(sent.id, follower.messages.at(-1)?.id);
      if (key) assert.equal(sent.idempotency_key, key);
    }
    assert.equal(retries.errors.length, 2);
    const { id } = await alice.sends(chat, "the end");
    await follower.until(() => follower.messages.at(-1)?.id === id);
    assert.equal(follower.messages.length, 3);
  } finally {
    await proxy.stop();
  }
});

test("a message waits while the server is down", async () => {
  const alice = await fechatter.signsUp("alice", "SendAway");
  const bob = await fechatter.signsUp("bob", "SendAway");
  const chat = await alice.chatsWith(bob);
  const client = alice.client();
  const retries = new Retries((errors) => errors.length === 2);
  await fechatter.rest.kill();
  const sending = sendMessage(client, chat.id, { content: "noodles?" }, retries.options);
  await retries.enough;
  await fechatter.rest.start();
  assert.equal((await sending).seq, 1);
});

test("a message waits while the server has too many connections", async () => {
  const strict = await Fechatter.start({ FECHATTER__LIMITS__CONNECTIONS: "20" });
  const proxy = await Proxy.start(strict.restUrl);
  try {
    const alice = await strict.signsUp("alice", "SendCrowd");
    const bob = await strict.signsUp("bob", "SendCrowd");
    const chat = await alice.chatsWith(bob);
    const client = createClient({ restUrl: proxy.through(strict.restUrl), tokens: alice.tokens() });
    const crowd = Array.from({ length: 20 }, () => {
      return connect(Number(new URL(strict.restUrl).port), "127.0.0.1").on("error", () => {});
    });
    await Promise.all(crowd.map((guest) => once(guest, "connect")));
    const retries = new Retries((errors) => errors.some((error) => isAnswer(error, 503)));
    const sending = sendMessage(client, chat.id, { content: "noodles?" }, retries.options);
    await retries.enough;
    for (const guest of crowd) guest.destroy();
    assert.equal((await sending).seq, 1);
  } finally {
    await proxy.stop();
    await strict.stop();
  }
});

test("messages above the rate limit wait as long as the server asks", async () => {
  const strict = await Fechatter.start({
    FECHATTER__HTTP__REQUESTS_PER_SECOND: "5",
    FECHATTER__HTTP__BURST: "5",
  });
  try {
    const alice = await strict.signsUp("alice", "SendLimit");
    const bob = await strict.signsUp("bob", "SendLimit");
    const chat = await alice.chatsWith(bob);
    const client = alice.client();
    const retries = new Retries();
    const contents = Array.from({ length: 7 }, (_, number) => String(number));
    const sent = await Promise.all(
      contents.map((content) => sendMessage(client, chat.id, { content }, retries.options)),
    );
    assert.deepEqual(
      sent.map(({ content }) => content),
      contents,
    );
    assert.deepEqual(sent.map(({ seq }) => seq).sort(), [1, 2, 3, 4, 5, 6, 7]);
    assert.ok(retries.errors.length > 0);
    for (const [index, error] of retries.errors.entries()) {
      assert.ok(isAnswer(error, 429) && error.retryAfterMs > 0);
      assert.ok((retries.delaysMs[index] ?? 0) >= error.retryAfterMs);
    }
  } finally {
    await strict.stop();
  }
});

test("a refused message is not sent again", async () => {
  const alice = await fechatter.signsUp("alice", "SendFinal");
  const bob = await fechatter.signsUp("bob", "SendFinal");
  const chat = await alice.chatsWith(bob);
  const client = alice.client();
  const retries = new Retries();
  const sends = (chatId: number, content: string) =>
    sendMessage(client, chatId, { content }, retries.options);
  await assert.rejects(sends(chat.id, " "), { name: "ApiError", type: "empty_message" });
  await assert.rejects(sends(chat.id, "x".repeat(10_001)), { name: "ApiError", type: "too_large" });
  await assert.rejects(sends(4711, "noodles?"), { name: "ApiError", type: "not_found" });
  await alice.logsOut();
  await assert.rejects(sends(chat.id, "noodles?"), { name: "AccessLost", reason: "signed_out" });
  assert.deepEqual(retries.errors, []);
});

test("the signal ends an attempt and the wait for the next one", async () => {
  const alice = await fechatter.signsUp("alice", "SendAbort");
  const bob = await fechatter.signsUp("bob", "SendAbort");
  const chat = await alice.chatsWith(bob);
  const proxy = await Proxy.start(fechatter.restUrl);
  const restUrl = proxy.through(fechatter.restUrl);
  const client = createClient({ restUrl, tokens: alice.tokens() });
  const reason = new Error("the window was closed");
  proxy.answers = false;
  const attempt = new AbortController();
  const unanswered = sendMessage(client, chat.id, { content: "1" }, { signal: attempt.signal });
  attempt.abort(reason);
  await assert.rejects(unanswered, reason);
  await assert.rejects(
    sendMessage(client, chat.id, { content: "2" }, { signal: attempt.signal }),
    reason,
  );
  await proxy.stop();
  const wait = new AbortController();
  const waiting = sendMessage(
    client,
    chat.id,
    { content: "3" },
    {
      signal: wait.signal,
      onRetry: () => wait.abort(reason),
    },
  );
  await assert.rejects(waiting, reason);
});

function isAnswer(error: Error, status: number): error is ApiError {
  return error instanceof ApiError && error.status === status;
}

/** Records the calls of `onRetry`, and makes the waits short. */
class Retries {
  readonly errors: Error[] = [];
  readonly delaysMs: number[] = [];
  readonly options: SendOptions;
  /** Resolves when the errors are those that a test waits for. */
  readonly enough: Promise<void>;

  constructor(areEnough: (errors: Error[]) => boolean = () => true) {
    let tell = (): void => {};
    this.enough = new Promise((resolve) => (tell = resolve));
    this.options = {
      signal: ending.signal,
      maxBackoffMs: 100,
      onRetry: (error, delayMs) => {
        this.errors.push(error);
        this.delaysMs.push(delayMs);
        if (areEnough(this.errors)) tell();
      },
    };
  }
}
