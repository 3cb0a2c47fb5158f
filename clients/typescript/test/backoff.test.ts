import assert from "node:assert/strict";
import { test } from "node:test";

import { Backoff } from "../src/backoff.js";

/** The least and the greatest of many clients' waits after so many failures. */
function waits(failures: number, backoff = () => new Backoff(30_000)): [number, number] {
  const all = Array.from({ length: 1000 }, () => {
    const one = backoff();
    for (let i = 0; i < failures; i += 1) one.next();
    return one.next();
  });
  return [Math.min(...all), Math.max(...all)];
}

test("waits are anywhere in the upper half of a range that doubles, up to the longest", () => {
  for (const [failures, range] of [
    [0, 1000],
    [1, 2000],
    [4, 16_000],
    [5, 30_000],
    [5000, 30_000],
  ] as const) {
    const [least, greatest] = waits(failures);
    assert.ok(least >= range * 0.5 && least < range * 0.55, `${least} after ${failures}`);
    assert.ok(greatest > range * 0.95 && greatest <= range, `${greatest} after ${failures}`);
  }
});

test("the server says where the range begins, and success begins anew", () => {
  const [, greatest] = waits(3, () => {
    const backoff = new Backoff(30_000);
    backoff.baseMs = 50;
    for (let i = 0; i < 10; i += 1) backoff.next();
    backoff.reset();
    return backoff;
  });
  assert.ok(greatest > 350 && greatest <= 400, String(greatest));
});
