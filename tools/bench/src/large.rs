//! A workspace with 500 chats in which much has been said.

use anyhow::{Context, Result};
use fechatter_core::ChatId;
use rig::{Cluster, Person};
use sqlx::query;

use crate::stage::Stage;

const CHATS: usize = 500;
const MEMBERS: usize = 10;
/// What the reader has yet to read, and in how many of the chats.
const UNREAD: i64 = 20;
const UNREAD_CHATS: usize = 50;

/// The workspace, and its servers.
#[derive(Debug)]
pub(crate) struct Large {
    pub(crate) cluster: Cluster,
    /// In all chats; has read everything but the newest 20 messages of 50 of them, in each of which two
    /// mention them.
    pub(crate) reader: Person,
    /// In all chats; has read nothing.
    pub(crate) absentee: Person,
    /// The other members of each chat.
    pub(crate) chats: Vec<(ChatId, Vec<Person>)>,
}

impl Large {
    /// So many people, and messages in each chat; none of them is an event any more.
    pub(crate) async fn new(stage: &Stage, users: usize, messages_each: usize) -> Result<Self> {
        let cluster = stage.start(&[]).await?;
        let people = cluster.town.workspace("large", users).await?.people;
        let [reader, absentee, others @ ..] = &*people else { anyhow::bail!("too few people") };
        let mut chats = Vec::new();
        for number in 0..stage.count(CHATS) {
            let others: Vec<_> =
                others.iter().cycle().skip(number * MEMBERS).take(MEMBERS - 2).collect();
            let members = [&[reader, absentee], &*others].concat();
            let chat = cluster.town.channel(&format!("chat {number}"), &members).await?;
            chats.push((chat, others.into_iter().cloned().collect::<Vec<_>>()));
        }
        let senders = chats.iter().map(|(chat, others)| (*chat, others[0].clone()));
        cluster.town.ancient_history(&senders.collect::<Vec<_>>(), messages_each).await?;

        let newest = i64::try_from(messages_each)?;
        let ids: Vec<_> = chats.iter().map(|(chat, _)| *chat).collect();
        for (chats, read) in [(&ids[..], newest), (&ids[..UNREAD_CHATS], newest - UNREAD)] {
            query(
                "insert into read_marks as mark (workspace_id, user_id, chat_id, seq, set_at_seq)
                 select m.workspace_id, m.user_id, m.chat_id, $3, $3
                 from chat_members as m
                 where m.chat_id = any($1) and m.user_id = $2
                 on conflict (workspace_id, user_id, chat_id) do update
                 set seq = excluded.seq, set_at_seq = excluded.set_at_seq",
            )
            .bind(chats)
            .bind(reader.id)
            .bind(read.max(0))
            .execute(&cluster.db)
            .await?;
        }
        // In each chat where something is unread, a message mentions the reader, and one everybody; a fifth of
        // the chats have preferences, some a pin.
        for statement in [
            "insert into message_mentions (chat_id, seq, user_id, sender_id)
             select m.chat_id, m.seq, case when m.seq = $3 then $2::bigint end, m.sender_id
             from messages as m
             where m.chat_id = any($1) and m.seq between $3 - 1 and $3",
            "update messages set parts = parts | 4
             where chat_id = any($1) and seq between $3 - 1 and $3 and $2::bigint > 0",
            "insert into chat_preferences (workspace_id, user_id, chat_id, notify_level, pinned_at)
             select workspace_id, $2, id, 'mentions', case when id % 10 = 0 then now() end
             from chats
             where id % 5 = 0 and $3::bigint > 0 and id >= any($1)",
        ] {
            query(statement)
                .bind(&ids[..UNREAD_CHATS])
                .bind(reader.id)
                .bind(newest)
                .execute(&cluster.db)
                .await?;
        }
        settle(&cluster).await?;
        let (reader, absentee) = (reader.clone(), absentee.clone());
        Ok(Self { cluster, reader, absentee, chats })
    }

    /// Seats in 50 of the chats for so many senders.
    pub(crate) fn seats(&self, senders: usize) -> Result<Vec<(Person, ChatId)>> {
        let seat = |number: usize| {
            let (chat, others) = &self.chats[number % UNREAD_CHATS];
            let person = others.get(number / UNREAD_CHATS).context("a seat for each sender")?;
            Ok((person.clone(), *chat))
        };
        (0..senders).map(seat).collect()
    }
}

/// Leaves the database as if everything had been there for longer.
pub(crate) async fn settle(cluster: &Cluster) -> Result<()> {
    for statement in ["vacuum (analyze)", "checkpoint"] {
        query(statement).execute(&cluster.db).await?;
    }
    Ok(())
}
