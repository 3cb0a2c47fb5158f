import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { memoryCursor } from "../src/index.js";
import { Fechatter } from "./fechatter.js";
import { Follower } from "./follower.js";

let fechatter: Fechatter;

before(async () => {
  fechatter = await Fechatter.start();
});
after(async () => fechatter.stop());

test("without a cursor the whole state comes first, then what follows it", async () => {
  const alice = await fechatter.signsUp("alice", "Fresh");
  const bob = await fechatter.signsUp("bob", "Fresh");
  const chat = await alice.chatsWith(bob);
  await alice.sends(chat, "in the state");
  const follower = new Follower(bob);
  await follower.untilOpen();
  await alice.sends(chat, "in the stream");
  await follower.until(() => follower.messages.length > 0);

  const [state] = follower.syncs;
  assert.equal(state?.me.id, bob.id);
  assert.equal(state?.chats[0]?.last_message?.content, "in the state");
  assert.deepEqual(state?.users?.map(({ fullname }) => fullname).sort(), ["alice", "bob"]);
  assert.deepEqual(follower.messages.map(({ content }) => content), ["in the stream"]);
});

test("a cursor that cannot be served leads to the whole state", async () => {
  const alice = await fechatter.signsUp("alice", "Nonsense");
  for (const cursor of ["nonsense", "00000001-999999"]) {
    const cursorStore = memoryCursor();
    void cursorStore.save(cursor);
    const follower = new Follower(alice, { cursorStore });
    await follower.untilOpen();

    assert.deepEqual(
      follower.states.map(({ name }) => name),
      ["connecting", "connecting", "syncing", "connecting", "open"],
    );
    assert.equal(await cursorStore.load(), follower.syncs[0]?.cursor);
  }
});

test("an event whose handler fails comes again, and none after it before", async () => {
  const alice = await fechatter.signsUp("alice", "Failing");
  const bob = await fechatter.signsUp("bob", "Failing");
  const chat = await alice.chatsWith(bob);
  const tried: string[] = [];
  const follower = new Follower(bob, {
    onEvent: (event) => {
      if (event.event !== "NewMessage") return;
      tried.push(event.content);
      if (event.content === "2" && tried.length < 4) throw new Error("the disk is full");
    },
  });
  await follower.untilOpen();
  const waiting = follower.untilWaiting();
  for (const content of ["1", "2", "3"]) await alice.sends(chat, content);
  await follower.until(() => follower.messages.length === 3);

  assert.equal((await waiting).error.message, "the disk is full");
  assert.deepEqual(tried, ["1", "2", "2", "2", "3"]);
});

test("a sync whose handler fails is made again", async () => {
  const alice = await fechatter.signsUp("alice", "FailingSync");
  let syncs = 0;
  const follower = new Follower(alice, {
    onSync: () => {
      syncs += 1;
      if (syncs === 1) throw new Error("the disk is full");
    },
  });
  await follower.untilOpen();
  assert.equal(syncs, 2);
});

test("the cursor is kept only after the event was handled", async () => {
  const alice = await fechatter.signsUp("alice", "Order");
  const story: string[] = [];
  let tellEnd = (): void => {};
  const end = new Promise<void>((resolve) => (tellEnd = resolve));
  const save = (cursor: string): void => {
    if (story.push(cursor) === 4) tellEnd();
  };
  const follower = new Follower(alice, {
    cursorStore: { load: () => null, save },
    onSync: async ({ cursor }) => {
      await Promise.resolve();
      story.push(`state of ${cursor}`);
    },
    onEvent: async ({ event }) => {
      await Promise.resolve();
      story.push(event);
    },
  });
  await follower.untilOpen();
  await alice.post("/api/chat", { name: "lunch", chat_type: "PublicChannel" });
  await end;

  const [state, first = "", event, second = ""] = story;
  assert.equal(state, `state of ${first}`);
  assert.equal(event, "NewChat");
  assert.match(second, /^[0-9a-f]{8}-\d+$/);
  assert.notEqual(second, first);
});

test("nothing is called or kept after stop, not even for what is being handled", async () => {
  const alice = await fechatter.signsUp("alice", "Stop");
  let handle = (): void => {};
  let tellBegin = (): void => {};
  const begin = new Promise<void>((resolve) => (tellBegin = resolve));
  const kept: string[] = [];
  const handled: string[] = [];
  const follower = new Follower(alice, {
    cursorStore: { load: () => null, save: (cursor) => void kept.push(cursor) },
    onEvent: ({ event }) => {
      handled.push(event);
      tellBegin();
      return new Promise<void>((resolve) => (handle = resolve));
    },
  });
  await follower.untilOpen();
  for (const name of ["lunch", "dinner"]) {
    await alice.post("/api/chat", { name, chat_type: "PublicChannel" });
  }
  await begin;
  follower.stream.stop();
  handle();
  await follower.until(() => follower.events.length === 1);
  // Everything that could still follow has had its turn.
  await new Promise((resolve) => setImmediate(resolve));

  assert.deepEqual(handled, ["NewChat"]);
  assert.deepEqual(kept, [follower.syncs[0]?.cursor]);
  assert.deepEqual(follower.states.at(-1), { name: "ended", reason: "stopped" });
});
