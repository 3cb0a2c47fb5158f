/** The example as a child process, which is killed when the test ends. */

import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import { once } from "node:events";
import { afterEach } from "node:test";
import { fileURLToPath } from "node:url";

import { PASSWORD, type Fechatter } from "./fechatter.js";
import { PATIENCE_MS } from "./server.js";

const PROGRAM = fileURLToPath(new URL("../examples/terminal.js", import.meta.url));

const running = new Set<Terminal>();

afterEach(() => {
  for (const terminal of running) terminal.process.kill("SIGKILL");
  running.clear();
});

export class Terminal {
  readonly process: ChildProcessWithoutNullStreams;
  output = "";
  readonly #ended: Promise<number | string>;
  readonly #watchers = new Set<() => void>();

  constructor(fechatter: Fechatter, options: Record<string, string>) {
    const settings = { server: fechatter.restUrl, ...options };
    const words = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value]);
    this.process = spawn(process.execPath, [PROGRAM, ...words], {
      env: { FECHATTER_PASSWORD: PASSWORD },
    });
    running.add(this);
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        this.output += text;
        for (const watch of this.#watchers) watch();
      });
    }
    this.#ended = once(this.process, "close").then(([code, signal]) => code ?? signal);
  }

  types(...lines: string[]): void {
    for (const line of lines) this.process.stdin.write(`${line}\n`);
  }

  async untilShows(text: string): Promise<void> {
    let watch = (): void => {};
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve, reject) => {
      watch = () => this.output.includes(text) && resolve();
      const missing = () => reject(new Error(`"${text}" is not in:\n${this.output}`));
      timer = setTimeout(missing, PATIENCE_MS);
      this.#watchers.add(watch);
      watch();
    }).finally(() => {
      clearTimeout(timer);
      this.#watchers.delete(watch);
    });
  }

  /** Resolves to the exit code, or to the signal that ended the process. */
  async untilEnded(): Promise<number | string> {
    return this.#ended;
  }
}
