import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { AccessLost, ApiError, Tokens, createClient, type AuthResponse } from "../src/index.js";
import { Fechatter, PASSWORD } from "./fechatter.js";
import { Proxy } from "./proxy.js";

let fechatter: Fechatter;

before(async () => {
  fechatter = await Fechatter.start();
});
after(async () => fechatter.stop());

test("sign-up and sign-in need no token, and other calls send one", async () => {
  const { restUrl } = fechatter;
  const anonymous = createClient({ restUrl });
  const credentials = { email: "alice.calltyped@acme.test", password: PASSWORD };
  const signUp = { ...credentials, fullname: "Alice", workspace: "CallTyped" };
  const signedUp = await anonymous.POST("/api/signup", { body: signUp });
  const signedIn = await anonymous.POST("/api/signin", { body: credentials });
  assert.equal(signedUp.response.status, 201);
  assert.equal(signedIn.data.user.id, signedUp.data.user.id);

  const tokens = new Tokens({ restUrl, refreshBy: "bearer", auth: signedIn.data });
  const client = createClient({ restUrl, tokens });
  const me = await client.GET("/api/me");
  assert.equal(me.data.fullname, "Alice");
  const draft = { name: "lunch", chat_type: "PublicChannel" } as const;
  const { data: chat } = await client.POST("/api/chat", { body: draft });
  const params = { path: { id: chat.id } };
  for (const content of ["noodles?", "rice!"]) {
    await client.POST("/api/chat/{id}/messages", { params, body: { content } });
  }
  const page = await client.GET("/api/chat/{id}/messages", {
    params: { ...params, query: { limit: 1 } },
  });
  assert.deepEqual(
    page.data.map(({ content }) => content),
    ["rice!"],
  );
  assert.equal(page.response.headers.get("x-has-older"), "true");
  const deleted = await client.DELETE("/api/chat/{id}", { params });
  assert.equal(deleted.response.status, 204);
  assert.equal(deleted.data, undefined);
});

test("emojis are encoded in the path", async () => {
  const alice = await fechatter.signsUp("alice", "CallEmoji");
  const bob = await fechatter.signsUp("bob", "CallEmoji");
  const chat = await alice.chatsWith(bob);
  const message = await alice.sends(chat, "noodles?");
  const client = bob.client();
  const path = { id: chat.id, mid: message.id };
  const emojis = ["👍🏽", "❤️", "#️⃣", "*️⃣", "👩‍💻"];
  for (const emoji of emojis) {
    const params = { path: { ...path, emoji } };
    await client.PUT("/api/chat/{id}/messages/{mid}/reactions/{emoji}", { params });
  }
  const { data } = await client.GET("/api/chat/{id}/messages/{mid}", { params: { path } });
  assert.deepEqual(
    data.reactions.map(({ emoji }) => emoji),
    emojis,
  );
});

test("the compiler refuses arguments that the server refuses", async () => {
  const client = (await fechatter.signsUp("alice", "CallTypes")).client();
  const refused = { name: "ApiError", type: "invalid_input" };
  // @ts-expect-error there is no such field
  await assert.rejects(client.POST("/api/workspaces", { body: { name: "x", colour: 1 } }), refused);
  // @ts-expect-error there is no such parameter
  await assert.rejects(client.GET("/api/chat", { params: { query: { archive: true } } }), refused);
  // @ts-expect-error the body is missing
  await assert.rejects(client.POST("/api/workspaces"), { name: "ApiError", status: 422 });
});

test("an answer that is no success rejects", async () => {
  const alice = await fechatter.signsUp("alice", "CallRefusals");
  const params = { path: { id: 4711 } };
  const absent = await failure(alice.client().GET("/api/chat/{id}", { params }));
  assert.ok(absent instanceof ApiError);
  assert.deepEqual([absent.status, absent.type], [404, "not_found"]);
  const anonymous = createClient({ restUrl: fechatter.restUrl });
  const refused = await failure(anonymous.GET("/api/me"));
  assert.ok(refused instanceof ApiError);
  assert.deepEqual([refused.status, refused.type], [401, "unauthenticated"]);
});

test("a call whose token is refused is repeated with a new one, body included", async () => {
  const alice = await fechatter.signsUp("alice", "CallRepeated");
  const bob = await fechatter.signsUp("bob", "CallRepeated");
  const chat = await alice.chatsWith(bob);
  const params = { path: { id: chat.id } };
  let auth = { ...alice.auth };
  for (const access_token of ["garbage", alice.tokenLasting(-60)]) {
    const renewed: AuthResponse[] = [];
    const onRefresh = (next: AuthResponse) => void renewed.push(next);
    const client = alice.client({ auth: { ...auth, access_token }, onRefresh });
    const contents = Array.from({ length: 10 }, (_, number) => `${access_token} ${number}`);
    const sent = await Promise.all(
      contents.map((content) =>
        client.POST("/api/chat/{id}/messages", { params, body: { content } }),
      ),
    );
    assert.deepEqual(
      sent.map(({ data }) => data.content),
      contents,
    );
    assert.equal(renewed.length, 1);
    auth = { ...auth, ...renewed[0] };
  }
  const { data } = await bob.client().GET("/api/chat/{id}/messages", { params });
  assert.equal(data.length, 20);
});

test("a call is repeated only once, and not if the session has ended", async () => {
  const alice = await fechatter.signsUp("alice", "CallTwice");
  const stranger = await Fechatter.start();
  try {
    let refreshes = 0;
    const onRefresh = () => void (refreshes += 1);
    const tokens = alice.tokens({ onRefresh });
    const refused = await failure(
      createClient({ restUrl: stranger.restUrl, tokens }).GET("/api/me"),
    );
    assert.ok(refused instanceof ApiError && refused.status === 401);
    assert.equal(refreshes, 1);
  } finally {
    await stranger.stop();
  }
  const client = (await fechatter.signsUp("bob", "CallTwice")).client();
  await client.POST("/api/logout");
  const lost = await failure(client.GET("/api/me"));
  assert.ok(lost instanceof AccessLost && lost.reason === "signed_out");
});

test("a call without an answer ends at its signal, or when its time is over", async () => {
  const alice = await fechatter.signsUp("alice", "CallUnanswered");
  const proxy = await Proxy.start(fechatter.restUrl);
  try {
    proxy.answers = false;
    const restUrl = proxy.through(fechatter.restUrl);
    const tokens = alice.tokens();
    const aborting = new AbortController();
    const { signal } = aborting;
    const call = failure(createClient({ restUrl, tokens }).GET("/api/me", { signal }));
    aborting.abort(new Error("not interested any more"));
    assert.equal((await call).message, "not interested any more");
    assert.equal(
      (await failure(createClient({ restUrl, tokens }).GET("/api/me", { signal }))).message,
      "not interested any more",
    );
    const hurried = createClient({ restUrl, tokens, timeoutMs: 100 });
    assert.match((await failure(hurried.GET("/api/me"))).message, /nothing was heard for 100 ms/);
  } finally {
    await proxy.stop();
  }
});

test("an address without a scheme is an error at once", () => {
  assert.throws(() => createClient({ restUrl: "chat.example" }), /Invalid URL/);
});

async function failure(call: Promise<unknown>): Promise<Error> {
  const error = await call.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof Error, "the call succeeds");
  return error;
}
