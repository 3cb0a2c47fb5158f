//! Creates workspaces, people and chats in bulk. The rows and events are those that the servers
//! write, except that the accounts have no password hash, because hashing is slow.

use anyhow::{Context, Result};
use chrono::Utc;
use fechatter_core::{
    ChatId, SessionId, Timestamp, UserId, WorkspaceId,
    chat::{Chat, ChatType},
    event::Event,
    log::{Log, LogWriter},
    token::{Signer, Verifier},
    user::{Role, User, UserStatus},
};
use sqlx::{PgPool, query, query_scalar};
use uuid::Uuid;

use crate::{Person, Rest};

/// Writes workspaces, people and chats to the database, with their events in the log.
#[derive(Clone)]
pub struct Town {
    pub(crate) db: PgPool,
    pub(crate) log: Log,
    signer: Signer,
    rest: Rest,
}

/// A workspace and its people. The first of them is its owner.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Workspace {
    pub id: WorkspaceId,
    pub people: Vec<Person>,
}

impl Town {
    pub(crate) fn new(db: PgPool, keys: &[(String, String)], rest: Rest) -> Result<Self> {
        let key = |name: &str| {
            let found = keys.iter().find(|(key, _)| key.ends_with(name));
            found.map(|(_, value)| value.clone()).with_context(|| format!("no {name}"))
        };
        let verifier = Verifier::new(&[key("PUBLIC_KEYS")?])?;
        let signer = Signer::new(Some(&key("PRIVATE_KEY")?.into()), &verifier)?;
        Ok(Self { log: Log::new(db.clone()), db, signer, rest })
    }

    /// Creates a workspace with this number of people (at least one), and a session for each of
    /// them. Their access tokens are valid for 15 minutes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn workspace(&self, name: &str, people: usize) -> Result<Workspace> {
        let mut log = LogWriter::begin(&self.log).await?;
        let users = insert_users(&mut log, people.max(1)).await?;
        let id: WorkspaceId = query_scalar(
            "insert into workspaces (name, name_unique, name_skeleton, owner_id, join_policy)
             values ($1, lower($1), lower($1), $2, 'open')
             returning id",
        )
        .bind(name)
        .bind(users[0])
        .fetch_one(log.db())
        .await?;
        query(
            "insert into workspace_members (workspace_id, user_id, fullname, role)
             select $1, id, 'Person ' || id,
                    case when id = $3 then 'owner' else 'member' end
             from unnest($2) as id",
        )
        .bind(id)
        .bind(&users)
        .bind(users[0])
        .execute(log.db())
        .await?;
        log.create_log(id).await?;
        for user_id in &users {
            let event = Event::UserJoinedWorkspace(user(*user_id, id, users[0]));
            log.append(id, &event)?;
        }
        log.commit().await?;
        let people = users.iter().map(|user_id| user(*user_id, id, users[0])).collect::<Vec<_>>();
        Ok(Workspace { id, people: self.sign_in(&people).await? })
    }

    /// Creates another session for a person in their workspace.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sign_in_again(&self, person: &Person) -> Result<Person> {
        let user = user(person.id, person.workspace_id, UserId(0));
        let mut people = self.sign_in(&[user]).await?;
        people.pop().context("no person was signed in")
    }

    /// Creates a private channel with these members. The first of them is its owner.
    ///
    /// # Errors
    /// When the database fails, or there are no members.
    pub async fn channel(&self, name: &str, members: &[&Person]) -> Result<ChatId> {
        let owner = members.first().context("a chat needs a member")?;
        let workspace_id = owner.workspace_id;
        let users: Vec<_> = members.iter().map(|member| member.id).collect();
        let member_count = i32::try_from(users.len())?;
        let mut log = LogWriter::lock(&self.log, &[workspace_id]).await?;
        let id: ChatId = query_scalar(
            "insert into chats
                 (workspace_id, chat_type, name, name_key, name_unique, name_skeleton, owner_id,
                  creator_id, member_count)
             values ($1, 'PrivateChannel', $2, lower($2), lower($2), lower($2), $3, $3, $4)
             returning id",
        )
        .bind(workspace_id)
        .bind(name)
        .bind(owner.id)
        .bind(member_count)
        .fetch_one(log.db())
        .await?;
        let position = log.next_position(workspace_id)?;
        query(
            "insert into chat_members (workspace_id, chat_id, user_id, joined_position)
             select $1, $2, user_id, $4 from unnest($3) as user_id",
        )
        .bind(workspace_id)
        .bind(id)
        .bind(&users)
        .bind(position)
        .execute(log.db())
        .await?;
        let chat = channel(id, owner, name, users, member_count);
        log.append(workspace_id, &Event::NewChat(chat))?;
        log.commit().await?;
        Ok(id)
    }

    /// Returns an access token for the person's session that expires at this time, in Unix seconds.
    ///
    /// # Errors
    /// When signing fails.
    pub fn token_until(&self, person: &Person, expires_at: i64) -> Result<String> {
        let user = user(person.id, person.workspace_id, UserId(0));
        Ok(self.signer.sign_until(&user, person.session_id, expires_at)?)
    }

    async fn sign_in(&self, users: &[User]) -> Result<Vec<Person>> {
        let sessions: Vec<_> = users.iter().map(|_| SessionId(Uuid::now_v7())).collect();
        let ids: Vec<_> = users.iter().map(|user| user.id).collect();
        let workspaces: Vec<_> = users.iter().map(|user| user.workspace_id).collect();
        query(
            "insert into sessions (id, user_id, workspace_id, expires_at)
             select id, user_id, workspace_id, now() + interval '1 hour'
             from unnest($1, $2, $3) as new (id, user_id, workspace_id)",
        )
        .bind(&sessions)
        .bind(&ids)
        .bind(&workspaces)
        .execute(&self.db)
        .await?;
        let person = |(user, session_id): (&User, SessionId)| {
            Ok(Person {
                id: user.id,
                workspace_id: user.workspace_id,
                session_id,
                token: self.signer.sign(user, session_id)?.into(),
                server: usize::try_from(user.id.0)?,
                rest: self.rest.clone(),
            })
        };
        users.iter().zip(sessions).map(person).collect()
    }
}

impl std::fmt::Debug for Town {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Town")
    }
}

async fn insert_users(log: &mut LogWriter, count: usize) -> Result<Vec<UserId>> {
    let addresses: Vec<_> =
        (0..count).map(|_| format!("{}@rig.test", Uuid::new_v4().simple())).collect();
    let users = query_scalar(
        "insert into users (email, email_key, password_hash)
         select address, address, '' from unnest($1) as address
         returning id",
    )
    .bind(addresses)
    .fetch_all(log.db())
    .await?;
    Ok(users)
}

fn user(id: UserId, workspace_id: WorkspaceId, owner: UserId) -> User {
    User {
        id,
        fullname: format!("Person {id}"),
        email: format!("{id}@rig.test"),
        status: UserStatus::Active,
        created_at: Timestamp(Utc::now()),
        workspace_id,
        role: if id == owner { Role::Owner } else { Role::Member },
        title: None,
        avatar_url: None,
    }
}

fn channel(
    id: ChatId,
    owner: &Person,
    name: &str,
    chat_members: Vec<UserId>,
    member_count: i32,
) -> Chat {
    Chat {
        id,
        workspace_id: owner.workspace_id,
        name: name.to_owned(),
        chat_type: ChatType::PrivateChannel,
        chat_members: chat_members.into_iter().take(500).collect(),
        description: None,
        created_by: owner.id,
        created_at: Timestamp::now(),
        updated_at: Timestamp::now(),
        member_count,
        last_seq: fechatter_core::Seq(0),
        archived_at: None,
    }
}
