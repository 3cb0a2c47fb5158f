/** Text of other people, made safe for a terminal. */

/**
 * Replaces characters that control the terminal or the direction of text by their codes. Indents all
 * lines after the first one, so that none of them looks like another message.
 */
export function printable(text: string): string {
  return text
    .split("\n")
    .map((line) => line.replace(/[\p{Cc}\p{Bidi_Control}\p{Zl}\p{Zp}]/gu, code))
    .join("\n      ");
}

function code(character: string): string {
  return `\\u{${character.codePointAt(0)?.toString(16)}}`;
}
