import assert from "node:assert/strict";
import { test } from "node:test";

import { SseParser, type SseMessage } from "../src/sse.js";

const utf8 = new TextEncoder();

/** What comes of a text, however it is cut. */
function parse(text: string): SseMessage[] {
  return new SseParser().push(utf8.encode(text));
}

function message(data: string, event = "message", lastEventId = ""): SseMessage {
  return { event, data, lastEventId };
}

test("a frame has an id, an event and data", () => {
  const [first, ...rest] = parse('id: a-7\nevent: NewChat\ndata: {"event":"NewChat"}\n\n');
  assert.deepEqual(first, message('{"event":"NewChat"}', "NewChat", "a-7"));
  assert.deepEqual(rest, []);
});

test("lines end at CR, LF or CRLF", () => {
  const both = [message("1"), message("2")];
  for (const end of ["\r", "\n", "\r\n"]) {
    assert.deepEqual(parse(["data: 1", "", "data: 2", "", ""].join(end)), both);
  }
  assert.deepEqual(parse("data: 1\r\n\rdata: 2\n\r\n"), both);
});

test("data of several lines is joined by line feeds", () => {
  assert.deepEqual(parse("data: YHOO\ndata: +2\ndata: 10\n\n"), [message("YHOO\n+2\n10")]);
  assert.deepEqual(parse("data\n\ndata\ndata\n\ndata:"), [message(""), message("\n")]);
});

test("one space after the colon goes, no more", () => {
  assert.deepEqual(parse("data:test\n\ndata: test\n\ndata:  test\n\n"), [
    message("test"),
    message("test"),
    message(" test"),
  ]);
});

test("comments, unknown fields and events without data are passed over", () => {
  assert.deepEqual(parse(": test\n:\ncolour: red\nevent: lost\n\ndata: 1\n\n"), [message("1")]);
});

test("an id lasts until another one comes; one with NUL is ignored", () => {
  assert.deepEqual(parse("id: 1\ndata: a\n\ndata: b\n\nid: 2\0\ndata: c\n\nid\ndata: d\n\n"), [
    message("a", "message", "1"),
    message("b", "message", "1"),
    message("c", "message", "1"),
    message("d"),
  ]);
  assert.deepEqual(parse("id: 1\n\ndata: a\n\n"), [message("a", "message", "1")]);
  const resumed = new SseParser("0").push(utf8.encode("data: a\n\n"));
  assert.deepEqual(resumed, [message("a", "message", "0")]);
});

test("retry is a number of milliseconds, or nothing", () => {
  const parser = new SseParser();
  for (const [line, expected] of [
    ["retry: soon", undefined],
    ["retry: 1500", 1500],
    ["retry: 2e3", 1500],
    ["retry:", 1500],
  ] as const) {
    parser.push(utf8.encode(`${line}\n`));
    assert.equal(parser.retryMs, expected);
  }
});

test("one byte order mark at the start is removed", () => {
  assert.deepEqual(parse("\uFEFFdata: a\n\n"), [message("a")]);
  assert.deepEqual(parse("\uFEFF\uFEFFdata: a\n\ndata: b\n\n"), [message("b")]);
  assert.deepEqual(parse("data: \uFEFFa\n\n"), [message("\uFEFFa")]);
});

test("an event that is cut off by the end is not dispatched", () => {
  assert.deepEqual(parse("data: a\n\ndata: b\n"), [message("a")]);
});

test("chunks may end anywhere, within a character too", () => {
  const random = numbers(20_261_124);
  const pieces = ["data: ", "data:", "id: é-", "event: 🍜", "retry: 5", ": ", "\0", "x", "ß", "🍜"];
  const ends = ["\r", "\n", "\r\n", "\n\n", "\r\r", "\r\n\r\n"];
  const pick = (from: string[]): string => from[Math.floor(random() * from.length)] ?? "";
  for (let round = 0; round < 300; round += 1) {
    let text = random() < 0.5 ? "\uFEFF" : "";
    for (let i = 0; i < 40; i += 1) text += random() < 0.5 ? pick(pieces) : pick(ends);
    const bytes = utf8.encode(text);
    const parser = new SseParser();
    const messages: SseMessage[] = [];
    for (let at = 0; at < bytes.length; ) {
      const end = at + Math.floor(random() * 5);
      messages.push(...parser.push(bytes.subarray(at, end)));
      at = end;
    }
    assert.deepEqual(messages, parse(text), JSON.stringify(text));
  }
});

/** The same numbers from 0 to 1 for the same seed (mulberry32). */
function numbers(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
