/** Both real servers, and the people who use them. */

import { execFileSync } from "node:child_process";
import { createPrivateKey, sign } from "node:crypto";

import {
  Tokens,
  createClient,
  type AuthResponse,
  type Chat,
  type Client,
  type Message,
  type TokensOptions,
} from "../src/index.js";
import { Server, freePort } from "./server.js";

/** The password of every person. */
export const PASSWORD = "correct horse battery";

/** Both servers on the database that the environment names. */
export class Fechatter {
  readonly restUrl: string;
  readonly eventsUrl: string;
  readonly rest: Server;
  readonly notify: Server;
  /** PKCS#8 in base64: what the servers' access tokens are signed with. */
  readonly privateKey: string;

  private constructor(ports: Ports, programs: Programs, settings: Record<string, string>) {
    this.restUrl = `http://127.0.0.1:${ports.rest}`;
    this.eventsUrl = `http://127.0.0.1:${ports.events}/events`;
    this.rest = new Server(programs.rest, settings, ports.restOperations);
    this.notify = new Server(programs.notify, settings, ports.eventsOperations);
    this.privateKey = settings["FECHATTER__AUTH__PRIVATE_KEY"] ?? "";
  }

  static async start(extra: Record<string, string> = {}): Promise<Fechatter> {
    const programs = { rest: given("FECHATTER_SERVER_BIN"), notify: given("NOTIFY_SERVER_BIN") };
    const ports = {
      rest: await freePort(),
      restOperations: await freePort(),
      events: await freePort(),
      eventsOperations: await freePort(),
    };
    const settings = { ...defaults(ports), ...keys(programs.rest), ...extra };
    const fechatter = new Fechatter(ports, programs, settings);
    // One after the other: the first one migrates.
    await fechatter.rest.start();
    await fechatter.notify.start();
    return fechatter;
  }

  async stop(): Promise<void> {
    await Promise.all([this.rest.kill(), this.notify.kill()]);
  }

  /** In a workspace that is open to whoever names it. */
  async signsUp(name: string, workspace: string): Promise<Person> {
    const email = `${name}.${workspace}@acme.test`.toLowerCase();
    const response = await fetch(`${this.restUrl}/api/signup`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ fullname: name, email, password: PASSWORD, workspace }),
    });
    return new Person(this, await answer<AuthResponse>(response));
  }
}

export class Person {
  readonly fechatter: Fechatter;
  readonly auth: AuthResponse;

  constructor(fechatter: Fechatter, auth: AuthResponse) {
    this.fechatter = fechatter;
    this.auth = auth;
  }

  get id(): number {
    return this.auth.user.id;
  }

  /** Makes new tokens from the answer to the sign-up. */
  tokens(options: Partial<TokensOptions> = {}): Tokens {
    const { restUrl } = this.fechatter;
    return new Tokens({ restUrl, refreshBy: "bearer", auth: this.auth, ...options });
  }

  client(options: Partial<TokensOptions> = {}): Client {
    return createClient({ restUrl: this.fechatter.restUrl, tokens: this.tokens(options) });
  }

  /** Signs an access token as the server does, with an expiry in so many seconds. */
  tokenLasting(seconds: number): string {
    const [header = "", payload = ""] = this.auth.access_token.split(".");
    const claims = JSON.parse(Buffer.from(payload, "base64url").toString()) as { exp: number };
    claims.exp = Math.floor(Date.now() / 1000) + seconds;
    const changed = `${header}.${Buffer.from(JSON.stringify(claims)).toString("base64url")}`;
    const key = Buffer.from(this.fechatter.privateKey, "base64");
    const privateKey = createPrivateKey({ key, format: "der", type: "pkcs8" });
    return `${changed}.${sign(null, Buffer.from(changed), privateKey).toString("base64url")}`;
  }

  async request<T>(method: string, path: string, body?: unknown): Promise<T> {
    const headers = { authorization: `Bearer ${this.auth.access_token}` };
    const json = { ...headers, "content-type": "application/json" };
    const content = body === undefined ? { headers } : { headers: json, body: JSON.stringify(body) };
    return answer<T>(await fetch(`${this.fechatter.restUrl}${path}`, { method, ...content }));
  }

  async post<T>(path: string, body?: unknown): Promise<T> {
    return this.request("POST", path, body);
  }

  async chatsWith(other: Person): Promise<Chat> {
    return this.post("/api/chat", { name: "", chat_type: "Single", members: [other.id] });
  }

  async sends(chat: Chat, content: string): Promise<Message> {
    return this.post(`/api/chat/${chat.id}/messages`, { content });
  }

  async logsOut(): Promise<void> {
    await this.post("/api/logout");
  }
}

interface Programs {
  rest: string;
  notify: string;
}

type Ports = Record<"rest" | "restOperations" | "events" | "eventsOperations", number>;

function defaults(ports: Ports): Record<string, string> {
  return {
    DATABASE_URL: given("DATABASE_URL"),
    FECHATTER_CONFIG: given("FECHATTER_CONFIG"),
    FECHATTER__SERVER__LISTEN: `127.0.0.1:${ports.rest}`,
    FECHATTER__SERVER__OPERATIONS_LISTEN: `127.0.0.1:${ports.restOperations}`,
    FECHATTER__NOTIFY__LISTEN: `127.0.0.1:${ports.events}`,
    FECHATTER__NOTIFY__PUBLIC_URL: `http://127.0.0.1:${ports.events}`,
    FECHATTER__NOTIFY__OPERATIONS_LISTEN: `127.0.0.1:${ports.eventsOperations}`,
    FECHATTER__ACCOUNTS__WORKSPACE_CREATION: "anyone",
    FECHATTER__ACCOUNTS__JOIN_POLICY: "open",
    FECHATTER__ACCOUNTS__ATTEMPTS_PER_MINUTE: "6000",
    FECHATTER__ACCOUNTS__ATTEMPTS_PER_MINUTE_OVERALL: "60000",
    FECHATTER__HTTP__REQUESTS_PER_SECOND: "100000",
    FECHATTER__HTTP__BURST: "100000",
    FECHATTER__LOG__FILTER: "error",
  };
}

function keys(program: string): Record<string, string> {
  const environment = { FECHATTER_CONFIG: given("FECHATTER_CONFIG") };
  const lines = execFileSync(program, ["keygen"], { env: environment, encoding: "utf8" }).trim();
  return Object.fromEntries(lines.split("\n").map((line) => line.split(/=(.*)/, 2)));
}

function given(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: \`cargo xtask test\` runs these tests`);
  return value;
}

async function answer<T>(response: Response): Promise<T> {
  const text = await response.text();
  if (!response.ok) throw new Error(`${response.url} answered ${response.status}: ${text}`);
  return (text === "" ? undefined : JSON.parse(text)) as T;
}
