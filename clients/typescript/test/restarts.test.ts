import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { memoryCursor, type Chat, type Message } from "../src/index.js";
import { Fechatter, type Person } from "./fechatter.js";
import { Follower } from "./follower.js";
import { PATIENCE_MS } from "./server.js";

let fechatter: Fechatter;

before(async () => {
  fechatter = await Fechatter.start();
});
after(async () => fechatter.stop());

test("200 messages come once each and in order while both servers are killed", async () => {
  const alice = await fechatter.signsUp("alice", "Kills");
  const bob = await fechatter.signsUp("bob", "Kills");
  const chat = await alice.chatsWith(bob);
  const follower = new Follower(bob);
  await follower.untilOpen();

  const faults = new Map([
    [30, fechatter.notify],
    [70, fechatter.rest],
    [100, fechatter.notify],
    [130, fechatter.rest],
    [131, fechatter.notify],
    [180, fechatter.notify],
  ]);
  const restarts: Promise<void>[] = [];
  for (let number = 1; number <= 200; number += 1) {
    const server = faults.get(number);
    if (server) restarts.push(server.kill().then(() => server.start()));
    await sendsUntilAnswered(alice, chat, String(number));
  }
  await Promise.all(restarts);
  await follower.until(() => follower.messages.at(-1)?.content === "200");

  const received = new Map(follower.messages.map((message) => [message.id, message]));
  const numbers = Array.from({ length: 200 }, (_, index) => index + 1);
  assert.deepEqual([...received.values()].map(({ seq }) => seq), numbers);
  assert.deepEqual([...received.values()].map(({ content }) => content), numbers.map(String));
  assert.equal(follower.messages.length, 200, "nothing was handed over twice either");
  assert.equal(follower.syncs.length, 1, "nothing had to be read anew");
});

test("a stream comes back after the server has said goodbye", async () => {
  const alice = await fechatter.signsUp("alice", "Draining");
  const bob = await fechatter.signsUp("bob", "Draining");
  const chat = await alice.chatsWith(bob);
  const follower = new Follower(bob);
  await follower.untilOpen();

  const waiting = follower.untilWaiting();
  await fechatter.notify.terminate();
  assert.match((await waiting).error.message, /goodbye: draining/);
  await alice.sends(chat, "while it was away");
  await fechatter.notify.start();
  await follower.until(() => follower.messages.length > 0);

  assert.equal(follower.messages[0]?.content, "while it was away");
});

test("a client that starts again goes on where it was", async () => {
  const alice = await fechatter.signsUp("alice", "Again");
  const bob = await fechatter.signsUp("bob", "Again");
  const chat = await alice.chatsWith(bob);
  const cursorStore = memoryCursor();
  const first = new Follower(bob, { cursorStore });
  await first.untilOpen();
  await alice.sends(chat, "1");
  await alice.sends(chat, "2");
  await first.until(() => first.messages.length === 2);
  first.stream.stop();

  await alice.sends(chat, "3");
  const second = new Follower(bob, { cursorStore });
  await second.until(() => second.messages.length > 0);

  assert.deepEqual(second.messages.map(({ content }) => content), ["3"]);
  assert.deepEqual(second.syncs, []);
});

/** As a careful client does: again and again under one key, until there is an answer. */
async function sendsUntilAnswered(person: Person, chat: Chat, content: string): Promise<Message> {
  const draft = { content, idempotency_key: crypto.randomUUID() };
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await person.post<Message>(`/api/chat/${chat.id}/messages`, draft);
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
