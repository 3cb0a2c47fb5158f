/** The objects of Fechatter's API. Servers may add fields; times are RFC 3339 in UTC. */

export type Role = "owner" | "admin" | "member";
export type UserStatus = "Active" | "Suspended" | "Left";
export type ChatType = "Single" | "Group" | "PrivateChannel" | "PublicChannel";
export type JoinPolicy = "invite" | "open";
export type NotifyLevel = "all" | "mentions" | "nothing";

export interface User {
  id: number;
  fullname: string;
  email: string;
  status: UserStatus;
  created_at: string;
  workspace_id: number;
  role: Role;
  title: string | null;
  avatar_url: string | null;
}

export interface Workspace {
  id: number;
  name: string;
  owner_id: number;
  created_at: string;
  join_policy: JoinPolicy;
}

/** What signing up, signing in and refreshing answer. */
export interface AuthResponse {
  access_token: string;
  /** Seconds. */
  expires_in: number;
  /** Null after switching workspaces: the one you have stays good. */
  refresh_token: string | null;
  user: User;
  workspace: Workspace;
  session_id: string;
}

export interface Chat {
  id: number;
  workspace_id: number;
  name: string;
  chat_type: ChatType;
  /** The longest-standing members, at most 500. */
  chat_members: number[];
  description: string | null;
  /** The current owner. */
  created_by: number;
  created_at: string;
  updated_at: string;
  member_count: number;
  last_seq: number;
  archived_at: string | null;
}

export interface ChatMember {
  chat_id: number;
  user_id: number;
  joined_at: string;
  role: Role;
}

/** A chat as one person's list of chats shows it. */
export interface ChatSidebar {
  id: number;
  name: string;
  chat_type: ChatType;
  last_message: LastMessage | null;
  is_creator: boolean;
  /** The other person of a Single. */
  peer_id: number | null;
  member_count: number;
  last_seq: number;
  last_read_seq: number;
  /** 0 to 100. */
  unread_count: number;
  unread_capped: boolean;
  mention_count: number;
  notify_level: NotifyLevel;
  muted_until: string | null;
  pinned_at: string | null;
  archived_at: string | null;
  updated_at: string;
}

export interface LastMessage {
  id: number;
  content: string;
  sender_name: string;
  created_at: string;
  has_files: boolean;
  sender_id: number;
  seq: number;
  kind: MessageKind;
  deleted_at: string | null;
}

export type MessageKind = "user" | "system";

/** A message as it is now; a deleted one keeps its ids and seq, without content and files. */
export interface Message {
  id: number;
  chat_id: number;
  sender_id: number;
  content: string;
  files: string[];
  created_at: string;
  idempotency_key: string;
  /** 1, 2, 3, … in its chat, without gaps. */
  seq: number;
  kind: MessageKind;
  reply_to_id: number | null;
  mentions: { user_ids: number[]; all: boolean };
  reactions: Reaction[];
  attachments: File[];
  edited_at: string | null;
  deleted_at: string | null;
  /** Of system messages only. */
  system?: { type: string; user_ids: number[]; name: string | null };
}

export interface Reaction {
  emoji: string;
  count: number;
  /** At most 20. */
  user_ids: number[];
  /** Whether you are among them: in REST answers only. */
  me?: boolean;
}

export interface File {
  id: number;
  url: string;
  name: string;
  mime: string;
  size: number;
  created_at: string;
}

/** What `GET /api/sync` answers: everything, as it was at the cursor. */
export interface SyncState {
  cursor: string;
  server_time: string;
  me: User;
  workspace: Workspace;
  chats: ChatSidebar[];
  users: User[];
}
