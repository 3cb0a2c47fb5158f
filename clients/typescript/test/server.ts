/** A real server process, on a port that it keeps across restarts. */

import { spawn, type ChildProcess } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** Nothing here takes this long unless it never comes. */
export const PATIENCE_MS = 30_000;

/**
 * Stands between us and a server: ends it by the signal that it reads, and by KILL when the pipe
 * closes, as it does however we end. The spare copy of standard error (4) keeps the shell's remarks
 * about killed jobs off the terminal.
 */
const LEASH = `
exec 3<&0 4>&2 2>/dev/null
"$@" </dev/null 2>&4 3<&- 4>&- &
read -r signal <&3
kill -s "\${signal:-KILL}" $!
wait $!
`;

export class Server {
  readonly #program: string;
  readonly #environment: NodeJS.ProcessEnv;
  readonly #readyUrl: string;
  #leash: ChildProcess | undefined;

  constructor(program: string, environment: NodeJS.ProcessEnv, operationsPort: number) {
    this.#program = program;
    this.#environment = environment;
    this.#readyUrl = `http://127.0.0.1:${operationsPort}/readyz`;
  }

  async start(): Promise<void> {
    this.#leash = spawn("/bin/sh", ["-c", LEASH, "leash", this.#program], {
      env: this.#environment,
      stdio: ["pipe", "ignore", "inherit"],
    });
    const deadline = Date.now() + PATIENCE_MS;
    while (!(await this.#isReady())) {
      if (Date.now() > deadline) throw new Error(`${this.#program} is never ready`);
      await sleep(20);
    }
  }

  /** Kills it with −9. */
  async kill(): Promise<void> {
    await this.#end("");
  }

  /** Asks it to end, and waits until it has. */
  async terminate(): Promise<void> {
    await this.#end("TERM\n");
  }

  async #end(word: string): Promise<void> {
    const leash = this.#leash;
    if (!leash) return;
    this.#leash = undefined;
    const ended = once(leash, "exit");
    leash.stdin?.end(word);
    await ended;
  }

  async #isReady(): Promise<boolean> {
    const answer = await fetch(this.#readyUrl).catch(() => undefined);
    return answer?.status === 204;
  }
}

/**
 * A port that nobody listens on. Linux does not take ports below 32768 for outgoing connections, so that
 * it stays free until the server starts, and while the server restarts.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(10_000, 32_768);
    const server = createServer().listen(port, "127.0.0.1");
    const isFree = await once(server, "listening").then(() => true, () => false);
    if (!isFree) continue;
    server.close();
    await once(server, "close");
    return port;
  }
}
