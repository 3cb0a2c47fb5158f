import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { createClient, type AuthResponse } from "../src/index.js";
import { Fechatter, PASSWORD, Person } from "./fechatter.js";
import { Follower } from "./follower.js";
import { Proxy } from "./proxy.js";

let fechatter: Fechatter;
let proxy: Proxy;
/** The address of the REST API through the proxy. */
let restUrl: string;

before(async () => {
  fechatter = await Fechatter.start();
});
after(async () => fechatter.stop());
beforeEach(async () => {
  proxy = await Proxy.start(fechatter.restUrl);
  restUrl = proxy.through(fechatter.restUrl).replace(/\/$/, "");
});
afterEach(async () => proxy.stop());

test("after a switch, tokens are of the other workspace and the same session", async () => {
  const alice = await fechatter.signsUp("alice", "AdoptSwitch");
  const kept: AuthResponse[] = [];
  const tokens = alice.tokens({ onRefresh: (auth) => void kept.push(auth) });
  const switched = await switchesTo(alice, "AdoptSwitchElsewhere");
  await tokens.adopt(switched);
  assert.equal(await tokens.access(), switched.access_token);
  assert.equal(kept.length, 0, "there was no new refresh token");
  for (let round = 0; round < 3; round += 1) await tokens.refresh();
  assert.equal(kept.length, 3);
  for (const { workspace, session_id } of kept) {
    assert.equal(workspace.id, switched.workspace.id);
    assert.equal(session_id, alice.auth.session_id);
  }
});

test("a stream follows the switch to another workspace", async () => {
  const alice = await fechatter.signsUp("alice", "AdoptFollow");
  const follower = new Follower(alice);
  await follower.untilOpen();
  await follower.tokens.adopt(await switchesTo(alice, "AdoptFollowElsewhere"));
  follower.stream.reconnectNow();
  await follower.until(({ syncs }) => syncs.length === 2);
  assert.deepEqual(
    follower.syncs.map(({ workspace }) => workspace.name),
    ["AdoptFollow", "AdoptFollowElsewhere"],
  );
});

test("the refresh token of a new sign-in is kept before the access token is used", async () => {
  const alice = await fechatter.signsUp("alice", "AdoptSignIn");
  const auth = await signsIn(alice);
  const kept: AuthResponse[] = [];
  let keep = (): void => {};
  const disk = new Promise<void>((resolve) => (keep = resolve));
  const tokens = alice.tokens({
    onRefresh: async (next) => {
      kept.push(next);
      await disk;
    },
  });
  const adopted = tokens.adopt(auth);
  let used: string | undefined;
  const access = tokens.access().then((token) => (used = token));
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(used, undefined);
  keep();
  await adopted;
  assert.equal(await access, auth.access_token);
  await tokens.refresh();
  assert.deepEqual(
    kept.map(({ session_id }) => session_id),
    [auth.session_id, auth.session_id],
  );
  assert.equal(kept[0], auth);
});

test("an adopted session whose refresh token cannot be kept is refreshed", async () => {
  const alice = await fechatter.signsUp("alice", "AdoptDisk");
  const { data } = await alice.client().POST("/api/workspaces", { body: { name: "AdoptFull" } });
  const auth = await signsIn(alice, "AdoptFull");
  const tokens = alice.tokens({
    onRefresh: ({ access_token }) => {
      if (access_token === auth.access_token) throw new Error("the disk is full");
    },
  });
  await assert.rejects(tokens.adopt(auth), /the disk is full/);
  const renewed = await tokens.access();
  assert.notEqual(renewed, auth.access_token);
  assert.equal(claims(renewed).ws, data.id);
  assert.equal(claims(renewed).sid, auth.session_id);
});

test("a refresh in flight during a switch replaces only the refresh token", async () => {
  const alice = await fechatter.signsUp("alice", "AdoptFlight");
  const kept: (string | null)[] = [];
  const onRefresh = (auth: AuthResponse) => void kept.push(auth.refresh_token);
  const tokens = alice.tokens({ restUrl, onRefresh });
  const switched = await switchesTo(alice, "AdoptFlightElsewhere");
  proxy.answers = false;
  const refreshing = tokens.refresh();
  await tokens.adopt(switched);
  assert.equal(await tokens.access(), switched.access_token);
  assert.deepEqual(kept, []);
  proxy.release();
  assert.equal(await refreshing, switched.access_token);
  assert.equal(await tokens.access(), switched.access_token);
  assert.equal(kept.length, 1);

  const renewed = await tokens.refresh();
  assert.equal(claims(renewed).ws, switched.workspace.id);
  assert.equal(new Set(kept).size, 2);
});

test("an adopted token that is refused is replaced after the refresh in flight", async () => {
  const alice = await fechatter.signsUp("alice", "AdoptRefused");
  const kept: (string | null)[] = [];
  const onRefresh = (auth: AuthResponse) => void kept.push(auth.refresh_token);
  const tokens = alice.tokens({ restUrl, onRefresh });
  const switched = await switchesTo(alice, "AdoptRefusedElsewhere");
  proxy.answers = false;
  const refreshing = tokens.refresh();
  await tokens.adopt({ ...switched, access_token: "garbage" });
  const again = tokens.refresh("garbage");
  proxy.release();
  assert.equal(claims(await again).ws, switched.workspace.id);
  await refreshing;
  assert.equal(new Set(kept).size, 2);
});

test("a refresh in flight during a new sign-in changes nothing, even if it fails", async () => {
  for (const ends of [false, true]) {
    const alice = await fechatter.signsUp("alice", `AdoptLate${ends}`);
    const kept: AuthResponse[] = [];
    const tokens = alice.tokens({ restUrl, onRefresh: (auth) => void kept.push(auth) });
    const auth = await signsIn(alice);
    if (ends) await alice.logsOut();
    proxy.answers = false;
    const refreshing = tokens.refresh();
    await tokens.adopt(auth);
    assert.equal(await tokens.access(), auth.access_token);
    proxy.release();
    assert.equal(await refreshing, auth.access_token);
    await tokens.refresh();
    assert.deepEqual(
      kept.map(({ session_id }) => session_id),
      [auth.session_id, auth.session_id],
    );
  }
});

test("refresh tokens are kept one after the other, the adopted one last", async () => {
  const alice = await fechatter.signsUp("alice", "AdoptSerial");
  const auth = await signsIn(alice);
  const disk: string[] = [];
  let adopted: Promise<void> | undefined;
  const tokens = alice.tokens({
    onRefresh: async (next) => {
      // The sign-in is adopted while the refreshed token is being written.
      adopted ??= tokens.adopt(auth);
      await new Promise((resolve) => setTimeout(resolve, next === auth ? 0 : 20));
      disk.push(next.session_id);
    },
  });
  assert.equal(await tokens.refresh(), auth.access_token);
  await adopted;
  assert.deepEqual(disk, [alice.auth.session_id, auth.session_id]);
});

async function switchesTo(person: Person, name: string): Promise<AuthResponse> {
  const client = person.client();
  const { data } = await client.POST("/api/workspaces", { body: { name } });
  const params = { path: { id: data.id } };
  return (await client.POST("/api/workspaces/{id}/switch", { params })).data;
}

/** Signs in to another session, as another tab does. */
async function signsIn({ auth }: Person, workspace?: string): Promise<AuthResponse> {
  const body = { email: auth.user.email, password: PASSWORD, workspace: workspace ?? null };
  return (await createClient({ restUrl: fechatter.restUrl }).POST("/api/signin", { body })).data;
}

function claims(accessToken: string): { ws: number; sid: string } {
  const [, payload = ""] = accessToken.split(".");
  return JSON.parse(Buffer.from(payload, "base64url").toString()) as { ws: number; sid: string };
}
