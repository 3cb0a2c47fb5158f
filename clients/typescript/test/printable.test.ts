import assert from "node:assert/strict";
import { test } from "node:test";

import { printable } from "../examples/printable.js";

test("text of other people does not control the terminal", () => {
  assert.equal(
    printable("\x1b]0;title\x07 \x9b2J \x7f \r"),
    "\\u{1b}]0;title\\u{7} \\u{9b}2J \\u{7f} \\u{d}",
  );
  assert.equal(
    printable("a\u202eb\u2066c\u200fd\u2028e"),
    "a\\u{202e}b\\u{2066}c\\u{200f}d\\u{2028}e",
  );
});

test("further lines do not look like another message, and other text is as it was", () => {
  assert.equal(printable("noodles\n#2 Bob: rice"), "noodles\n      #2 Bob: rice");
  assert.equal(printable("Grüße 👩‍💻 ❤️"), "Grüße 👩‍💻 ❤️");
});
