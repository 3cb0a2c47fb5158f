/** A network between client and server, with the faults that networks have. */

import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";

export class Proxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #held: (() => void)[] = [];
  /** Whether new connections are answered; the answers of the others are held. */
  answers = true;
  /** How many connections clients have made. */
  accepted = 0;

  private constructor(target: URL) {
    this.#server = createServer((client) => {
      this.accepted += 1;
      const server = connect(Number(target.port), target.hostname);
      for (const socket of [client, server]) {
        this.#sockets.add(socket);
        socket.on("error", () => socket.destroy());
        socket.on("close", () => this.#sockets.delete(socket));
      }
      client.on("close", () => server.destroy());
      server.on("close", () => client.destroy());
      client.pipe(server);
      if (this.answers) server.pipe(client);
      else this.#held.push(() => server.pipe(client));
    });
  }

  static async start(url: string, port = 0): Promise<Proxy> {
    const proxy = new Proxy(new URL(url));
    proxy.#server.listen(port, "127.0.0.1");
    await once(proxy.#server, "listening");
    return proxy;
  }

  /** The address, as seen through this network. */
  through(url: string): string {
    const seen = new URL(url);
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("the proxy has ended");
    seen.port = String(address.port);
    return seen.href;
  }

  /** Resolves once the newest connection has been closed by either side. */
  async untilClosed(): Promise<void> {
    const [newest] = [...this.#sockets].slice(-1);
    if (newest) await once(newest, "close");
  }

  /** Open connections stay so, but nothing comes through any more. New ones work. */
  fallSilent(): void {
    for (const socket of this.#sockets) {
      socket.unpipe();
      socket.pause();
    }
  }

  /** Sends the answers that were held. New connections are answered. */
  release(): void {
    this.answers = true;
    for (const send of this.#held) send();
    this.#held = [];
  }

  /** Cuts all connections. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    this.#server.close();
    this.cut();
    await once(this.#server, "close");
  }
}
