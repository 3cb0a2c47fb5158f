import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { ApiError } from "../src/index.js";
import { Fechatter } from "./fechatter.js";
import { Follower } from "./follower.js";
import { Proxy } from "./proxy.js";

let fechatter: Fechatter;
let proxy: Proxy;

before(async () => {
  fechatter = await Fechatter.start({ FECHATTER__NOTIFY__STREAMS_PER_USER: "5" });
});
after(async () => fechatter.stop());
beforeEach(async () => {
  proxy = await Proxy.start(fechatter.eventsUrl);
});
afterEach(async () => proxy.stop());

test("a connection that has fallen silent is given up", async () => {
  const alice = await fechatter.signsUp("alice", "Silent");
  const follower = new Follower(alice, {
    eventsUrl: proxy.through(fechatter.eventsUrl),
    silenceTimeoutMs: 1000,
  });
  await follower.untilOpen();
  const waiting = follower.untilWaiting();
  proxy.fallSilent();
  await alice.post("/api/chat", { name: "lunch", chat_type: "PublicChannel" });
  assert.match((await waiting).error.message, /nothing was heard for 1000 ms/);
  await follower.until(({ events }) => events.some(({ event }) => event === "NewChat"));
});

test("a server that takes the connection but never answers is given up", async () => {
  const alice = await fechatter.signsUp("alice", "Mute");
  proxy.answers = false;
  const follower = new Follower(alice, {
    eventsUrl: proxy.through(fechatter.eventsUrl),
    connectTimeoutMs: 1000,
  });
  const { error } = await follower.untilWaiting();
  assert.match(error.message, /nothing was heard for 1000 ms/);
  proxy.answers = true;
  await follower.untilOpen();
});

test("cut connections lose and repeat nothing", async () => {
  const alice = await fechatter.signsUp("alice", "Cuts");
  const bob = await fechatter.signsUp("bob", "Cuts");
  const chat = await alice.chatsWith(bob);
  const follower = new Follower(bob, { eventsUrl: proxy.through(fechatter.eventsUrl) });
  await follower.untilOpen();
  for (let number = 1; number <= 100; number += 1) {
    await alice.sends(chat, String(number));
    if (number % 20 === 0) proxy.cut();
  }
  await follower.until(() => follower.messages.at(-1)?.content === "100");

  const numbers = Array.from({ length: 100 }, (_, index) => index + 1);
  assert.deepEqual(follower.messages.map(({ seq }) => seq), numbers);
  assert.ok(proxy.accepted > 1);
});

test("reconnectNow waits neither for the network to be missed nor for the backoff", async () => {
  const alice = await fechatter.signsUp("alice", "Awake");
  const follower = new Follower(alice, { eventsUrl: proxy.through(fechatter.eventsUrl) });
  await follower.untilOpen();
  proxy.fallSilent();
  follower.stream.reconnectNow();
  await follower.until(() => follower.states.filter(({ name }) => name === "open").length === 2);
  assert.ok(!follower.states.some(({ name }) => name === "waiting"));
});

test("a page that answers in place of the stream is not taken for it", async () => {
  const alice = await fechatter.signsUp("alice", "Portal");
  const { port } = new URL(proxy.through(fechatter.eventsUrl));
  await proxy.stop();
  const portal = createServer((_, response) => {
    response.setHeader("content-type", "text/html").end("<h1>Welcome to our hotel</h1>");
  });
  portal.listen(Number(port), "127.0.0.1");
  const follower = new Follower(alice, { eventsUrl: `http://127.0.0.1:${port}/events` });
  const { error } = await follower.untilWaiting();
  portal.close();
  portal.closeAllConnections();
  assert.equal(error.message, "what answers is no event stream");
  proxy = await Proxy.start(fechatter.eventsUrl, Number(port));
  await follower.untilOpen();
});

test("stop closes the connection", async () => {
  const alice = await fechatter.signsUp("alice", "Close");
  const follower = new Follower(alice, { eventsUrl: proxy.through(fechatter.eventsUrl) });
  await follower.untilOpen();
  const closed = proxy.untilClosed();
  follower.stream.stop();
  await closed;
});

test("a server that asks for patience gets it", async () => {
  const alice = await fechatter.signsUp("alice", "Patient");
  for (let open = 0; open < 5; open += 1) await new Follower(alice).untilOpen();
  const { delayMs, error } = await new Follower(alice).untilWaiting();
  assert.match(error.message, /answered 429/);
  assert.ok(error instanceof ApiError && error.retryAfterMs > 0);
  assert.ok(delayMs >= error.retryAfterMs, `${delayMs} ms`);
});
