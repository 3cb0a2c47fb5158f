import assert from "node:assert/strict";
import { test } from "node:test";

import { parseEvent } from "../src/event.js";

test("events that are known come as they are, newer fields included", () => {
  const event = { event: "ChatDeleted", id: 7, reason: "spring cleaning" };
  assert.deepEqual(parseEvent(JSON.stringify(event)), event);
});

test("an event of another name says so", () => {
  for (const name of ["PollOpened", "toString", "Unknown"]) {
    const data = { event: name, id: 7 };
    assert.deepEqual(parseEvent(JSON.stringify(data)), { event: "Unknown", name, data });
  }
});

test("what is no event is not passed over in silence", () => {
  for (const data of ["", "null", "7", "[]", "{}", '{"event":7}', '{"event":"NewCh']) {
    assert.throws(() => parseEvent(data), Error, data);
  }
});
