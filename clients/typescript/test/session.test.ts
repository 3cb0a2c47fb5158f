import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { AccessLost, Tokens, type AuthResponse } from "../src/index.js";
import { Fechatter } from "./fechatter.js";
import { Follower } from "./follower.js";

let fechatter: Fechatter;

before(async () => {
  fechatter = await Fechatter.start();
});
after(async () => fechatter.stop());

test("a token that is refused is replaced", async () => {
  const alice = await fechatter.signsUp("alice", "Garbage");
  for (const access_token of ["garbage", alice.tokenLasting(-60)]) {
    const renewed: AuthResponse[] = [];
    const auth = { ...alice.auth, access_token };
    const keep = (next: AuthResponse) => void renewed.push(next);
    const follower = new Follower(alice, { tokenOptions: { auth, onRefresh: keep } });
    await follower.untilOpen();

    assert.equal(renewed.length, 1);
    assert.equal(renewed[0]?.session_id, alice.auth.session_id);
    assert.ok(!follower.states.some(({ name }) => name === "waiting"), "without a wait");
    alice.auth.refresh_token = renewed[0]?.refresh_token ?? null;
  }
});

test("a stream whose token expires goes on with a new one", async () => {
  const alice = await fechatter.signsUp("alice", "Expiry");
  const bob = await fechatter.signsUp("bob", "Expiry");
  const chat = await alice.chatsWith(bob);
  const auth = { ...bob.auth, access_token: bob.tokenLasting(2) };
  const follower = new Follower(bob, { tokenOptions: { auth } });
  await follower.untilOpen();
  await alice.sends(chat, "before");
  await follower.until(() => follower.states.filter(({ name }) => name === "open").length === 2);
  await alice.sends(chat, "after");
  await follower.until(() => follower.messages.length === 2);

  assert.deepEqual(follower.messages.map(({ content }) => content), ["before", "after"]);
  assert.ok(!follower.states.some(({ name }) => name === "waiting"), "without a wait");
  assert.equal(follower.syncs.length, 1);
});

test("a token that is about to expire is renewed before it is used", async () => {
  const alice = await fechatter.signsUp("alice", "Ahead");
  let now = 0;
  const tokens = alice.tokens({ now: () => now });
  assert.equal(await tokens.access(), alice.auth.access_token);
  now = (alice.auth.expires_in - 31) * 1000;
  assert.equal(await tokens.access(), alice.auth.access_token);
  now += 1000;
  const renewed = await tokens.access();
  assert.notEqual(renewed, alice.auth.access_token);
  assert.equal(await tokens.access(), renewed);
});

test("however many ask for a new token, the server is asked once", async () => {
  const alice = await fechatter.signsUp("alice", "Tabs");
  let refreshes = 0;
  const tokens = alice.tokens({ onRefresh: () => void (refreshes += 1) });
  const refused = alice.auth.access_token;
  const renewed = await Promise.all(Array.from({ length: 20 }, () => tokens.refresh(refused)));
  assert.equal(new Set(renewed).size, 1);
  assert.equal(await tokens.refresh(refused), renewed[0], "nor for one that was replaced before");
  assert.equal(refreshes, 1);
});

test("each refresh uses the newest refresh token", async () => {
  const alice = await fechatter.signsUp("alice", "Rotation");
  const kept: (string | null)[] = [];
  const tokens = alice.tokens({ onRefresh: (auth) => void kept.push(auth.refresh_token) });
  // The server bears with the last but one, and ends the session at any older one.
  for (let round = 0; round < 4; round += 1) await tokens.refresh();
  assert.equal(new Set(kept).size, 4);
});

test("a server that refuses even new tokens is not asked without pause", async () => {
  const alice = await fechatter.signsUp("alice", "Refused");
  const stranger = await Fechatter.start();
  try {
    const follower = new Follower(alice, { eventsUrl: stranger.eventsUrl });
    const { error } = await follower.untilWaiting();
    assert.match(error.message, /renewed: .* answered 401/);
    const attempts = follower.states.filter(({ name }) => name === "connecting").length;
    assert.equal(attempts, 3, "to sync, with the first token, with the second");
  } finally {
    await stranger.stop();
  }
});

test("a refresh token that was kept is enough to begin with", async () => {
  const alice = await fechatter.signsUp("alice", "Kept");
  const elsewhere = await alice.post<{ id: number }>("/api/workspaces", { name: "Elsewhere" });
  await alice.post(`/api/workspaces/${elsewhere.id}/switch`);
  const { restUrl } = fechatter;
  const refreshToken = alice.auth.refresh_token ?? "";
  const workspaceId = alice.auth.workspace.id;
  const tokens = new Tokens({ restUrl, refreshBy: "bearer", refreshToken, workspaceId });
  const follower = new Follower(alice, { tokens });
  await follower.untilOpen();
  assert.equal(follower.syncs[0]?.workspace.name, "Kept", "not the workspace used last");
});

test("signing out ends the stream for good", async () => {
  const alice = await fechatter.signsUp("alice", "SignOut");
  const follower = new Follower(alice);
  await follower.untilOpen();
  await alice.logsOut();
  await follower.until(({ stream }) => stream.state.name === "ended");
  assert.deepEqual(follower.stream.state, { name: "ended", reason: "signed_out" });
  assert.ok(follower.events.some(({ event }) => event === "SessionRevoked"));
  await assert.rejects(follower.tokens.refresh(), AccessLost);
});

test("somebody who is suspended or removed is told so, then and later", async () => {
  const owner = await fechatter.signsUp("olivia", "Gone");
  const bob = await fechatter.signsUp("bob", "Gone");
  const carol = await fechatter.signsUp("carol", "Gone");
  const following = [new Follower(bob), new Follower(carol)];
  for (const follower of following) await follower.untilOpen();
  await owner.request("PATCH", `/api/users/${bob.id}`, { status: "Suspended" });
  await owner.request("DELETE", `/api/users/${carol.id}`);
  for (const [bobs, carols] of [following, [new Follower(bob), new Follower(carol)]] as const) {
    await bobs?.until(({ stream }) => stream.state.name === "ended");
    await carols?.until(({ stream }) => stream.state.name === "ended");
    assert.deepEqual(bobs?.stream.state, { name: "ended", reason: "suspended" });
    assert.deepEqual(carols?.stream.state, { name: "ended", reason: "removed" });
  }
});
