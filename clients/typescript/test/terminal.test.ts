import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Fechatter } from "./fechatter.js";
import { PATIENCE_MS } from "./server.js";
import { Terminal } from "./terminal.js";

let fechatter: Fechatter;

before(async () => {
  fechatter = await Fechatter.start();
});
after(async () => fechatter.stop());

test("two people chat in two terminals", async () => {
  const bobsAccount = await fechatter.signsUp("Bob", "Terminals");
  const alice = new Terminal(fechatter, {
    email: "alice@terminals.test",
    workspace: "Terminals",
    chat: "bob.terminals@acme.test",
    signup: "Alice",
  });
  alice.types("noodles?");
  await alice.untilShows("#1 Alice: noodles?\n");
  alice.types("/reply 1 at noon");
  await alice.untilShows("#2 Alice to #1: at noon\n");
  const bob = new Terminal(fechatter, { email: "bob.terminals@acme.test", chat: "alice" });
  await bob.untilShows("#1 Alice: noodles?\n#2 Alice to #1: at noon\n");

  bob.types("rice!", "/react 1 👍🏽", "\x1b[2J", "\u202eeveryone");
  await bob.untilShows("must not contain control characters");
  await alice.untilShows("#3 Bob: rice!\n");
  await alice.untilShows("(Bob reacted with 👍🏽 at #1)\n");
  await alice.untilShows("#4 Bob: \\u{202e}everyone\n");
  alice.types(
    "/edit 2 at one",
    "/delete 1",
    "/edit 3 bread!",
    "/edit 99 nothing",
    "see you",
    "/quit",
  );
  await bob.untilShows("#2 Alice to #1 (edited): at one\n(Alice deleted #1)\n#5 Alice: see you\n");
  assert.equal(await alice.untilEnded(), 0);
  assert.match(alice.output, /answered 403/);
  assert.match(alice.output, /\(\/reply N TEXT/);

  const client = bobsAccount.client();
  const deadline = Date.now() + PATIENCE_MS;
  while ((await client.GET("/api/unread")).data.total > 0) {
    assert.ok(Date.now() < deadline, "what was shown is not read");
  }
  bob.types("the last words");
  bob.process.stdin.end();
  assert.equal(await bob.untilEnded(), 0);
  const chats = await client.GET("/api/chat");
  assert.equal(chats.data[0]?.last_message?.content, "the last words");
  const sessions = await client.GET("/api/sessions");
  assert.equal(sessions.data.items.length, 1, "the terminal has signed out");
});

test("changes of the chat are shown", async () => {
  const alice = await fechatter.signsUp("Alice", "Notices");
  const bob = await fechatter.signsUp("Bob", "Notices");
  const carol = await fechatter.signsUp("Carol", "Notices");
  const client = alice.client();
  const { data: chat } = await client.POST("/api/chat", {
    body: { name: "lunch", chat_type: "PrivateChannel", members: [bob.id] },
  });
  const terminal = new Terminal(fechatter, { email: bob.auth.user.email, chat: "Lunch" });
  await terminal.untilShows("(Bob in Notices");
  const params = { path: { id: chat.id } };
  await client.POST("/api/chat/{id}/members", { params, body: [carol.id] });
  await client.PATCH("/api/chat/{id}", { params, body: { name: "dinner" } });
  await terminal.untilShows("(Alice added Carol)\n(Alice renamed dinner)\n");
});

test("Ctrl-C ends it, even while a message cannot be sent", async () => {
  const alice = await fechatter.signsUp("Alice", "Interrupt");
  await fechatter.signsUp("Bob", "Interrupt");
  const terminal = new Terminal(fechatter, { email: alice.auth.user.email, chat: "Bob" });
  terminal.types("noodles?");
  await terminal.untilShows("#1 Alice: noodles?\n");
  await fechatter.rest.kill();
  try {
    terminal.types("rice?");
    await terminal.untilShows("(not sent yet: ");
    terminal.process.kill("SIGINT");
    assert.equal(await terminal.untilEnded(), 0);
    assert.doesNotMatch(terminal.output, /Error/);
  } finally {
    await fechatter.rest.start();
  }
});

test("a wrong password and an unknown person are reported", async () => {
  const alice = await fechatter.signsUp("Alice", "Wrong");
  const email = alice.auth.user.email;
  const stranger = new Terminal(fechatter, { email: `x${email}`, chat: "Bob" });
  assert.equal(await stranger.untilEnded(), 1);
  assert.match(stranger.output, /^\/api\/signin answered 403/);
  const lonely = new Terminal(fechatter, { email, chat: "Bob" });
  assert.equal(await lonely.untilEnded(), 1);
  assert.equal(lonely.output, 'there is no chat and no person "Bob"\n');
});
