/** A chat in a terminal: shows and follows it, and sends the lines that are typed. */

import { clearLine, createInterface, cursorTo } from "node:readline";
import { parseArgs } from "node:util";

import {
  ApiError,
  EventStream,
  Tokens,
  createClient,
  type AuthResponse,
  type ChatDraft,
  type Client,
  type StreamState,
} from "fechatter-client";

import { Chat } from "./chat.js";
import { printable } from "./printable.js";

const USAGE = `node dist/examples/terminal.js --email ADDRESS --chat CHAT [options]

  --email ADDRESS
  --chat CHAT           id or name of a chat, or name or e-mail address of a person
  --server URL          the REST API; by default http://localhost:6688
  --workspace NAME      by default the workspace that you used last
  --signup "FULL NAME"  creates the account, in the workspace, if it does not exist

Each option can also be an environment variable, such as FECHATTER_EMAIL. The password is always the
variable FECHATTER_PASSWORD, because other users of the computer can see the options of a process.`;

const { values } = parseArgs({
  options: {
    email: { type: "string" },
    chat: { type: "string" },
    server: { type: "string" },
    workspace: { type: "string" },
    signup: { type: "string" },
  },
});
const restUrl = optional("server") ?? "http://localhost:6688";
const email = required("email");
const password = required("password");
const wanted = required("chat");

const quit = new AbortController();
const { signal } = quit;
const isTerminal = process.stdin.isTTY && process.stdout.isTTY;

process.once("SIGINT", () => quit.abort());
process.once("SIGTERM", () => quit.abort());

await run().catch((error: unknown) => {
  if (signal.aborted) return;
  console.error(reason(error));
  process.exitCode = 1;
});

async function run(): Promise<void> {
  const anonymous = createClient({ restUrl });
  const { events_url } = (await anonymous.GET("/api/server", { signal })).data;
  const auth = await signIn(anonymous);
  const tokens = new Tokens({ restUrl, refreshBy: "bearer", auth });
  const client = createClient({ restUrl, tokens });
  try {
    const chatId = await findChat(client);
    const { user, workspace } = auth;
    console.log(printable(`(${user.fullname} in ${workspace.name}; "/" shows the commands)`));
    await converse(client, tokens, events_url, chatId);
  } finally {
    // The session is not needed any more, because its refresh token is not kept.
    await client.POST("/api/logout", { signal: AbortSignal.timeout(2000) }).catch(() => {});
  }
}

async function signIn(anonymous: Client): Promise<AuthResponse> {
  const workspace = optional("workspace") ?? null;
  const credentials = { email, password, workspace };
  const fullname = optional("signup");
  try {
    return (await anonymous.POST("/api/signin", { body: credentials, signal })).data;
  } catch (error) {
    const isUnknown = error instanceof ApiError && error.type === "invalid_credentials";
    if (!isUnknown || fullname === undefined) throw error;
  }
  return (await anonymous.POST("/api/signup", { body: { ...credentials, fullname }, signal })).data;
}

/** Returns the chat with the wanted id or name, else the Single with the person of this name. */
async function findChat(client: Client): Promise<number> {
  const isWanted = (name: string) => name.toLowerCase() === wanted.toLowerCase();
  const chats = (await client.GET("/api/chat", { signal })).data;
  const named = chats.filter(({ name }) => isWanted(name));
  const chat = chats.find(({ id }) => String(id) === wanted) ?? only(named);
  if (chat) return chat.id;
  const users = (await client.GET("/api/users", { signal })).data;
  const person = only(users.filter((user) => isWanted(user.email) || isWanted(user.fullname)));
  if (!person) throw new Error(`there is no chat and no person "${wanted}"`);
  const body: ChatDraft = { chat_type: "Single", members: [person.id] };
  return (await client.POST("/api/chat", { body, signal })).data.id;
}

function only<T extends { id: number }>(found: T[]): T | undefined {
  const ids = found.map(({ id }) => id).join(", ");
  if (found.length > 1) throw new Error(`"${wanted}" is not unique: it is the name of ${ids}`);
  return found[0];
}

async function converse(
  client: Client,
  tokens: Tokens,
  eventsUrl: string,
  chatId: number,
): Promise<void> {
  const { stdin: input, stdout: output } = process;
  const prompt = isTerminal ? "> " : "";
  const lines = createInterface({ input, output, terminal: isTerminal, prompt, signal });
  let isOpen = true;
  lines.on("SIGINT", () => quit.abort());
  lines.once("close", () => (isOpen = false));

  // Prints above the line that is being typed.
  const print = (text: string) => {
    if (isTerminal) {
      clearLine(output, 0);
      cursorTo(output, 0);
    }
    output.write(`${text}\n`);
    if (isOpen) lines.prompt(true);
  };
  const onState = (state: StreamState) => {
    if (state.name === "waiting") print(`(no connection: ${reason(state.error)})`);
    if (state.name !== "ended" || state.reason === "stopped") return;
    print(`(the end: ${state.reason})`);
    quit.abort();
  };
  const chat = new Chat(client, chatId, print, signal);
  const stream = new EventStream({
    restUrl,
    eventsUrl,
    tokens,
    onSync: (state) => chat.sync(state),
    onEvent: (event) => chat.apply(event),
    onState,
  });
  stream.start();
  for await (const line of lines) {
    if (signal.aborted || line.trim() === "/quit") break;
    await chat.enter(line).catch((error: unknown) => {
      if (!signal.aborted) print(`(${reason(error)})`);
    });
    if (isOpen) lines.prompt();
  }
  lines.close();
  if (isTerminal) output.write("\n");
  stream.stop();
}

function optional(name: keyof typeof values): string | undefined {
  return values[name] ?? process.env[`FECHATTER_${name.toUpperCase()}`];
}

function required(name: "email" | "chat" | "password"): string {
  const value = name === "password" ? process.env["FECHATTER_PASSWORD"] : optional(name);
  if (value !== undefined) return value;
  console.error(`${name} is missing\n\n${USAGE}`);
  process.exit(2);
}

function reason(error: unknown): string {
  if (!(error instanceof Error)) return printable(String(error));
  const cause = error.cause instanceof Error ? `: ${error.cause.message}` : "";
  return printable(error.message + cause);
}
