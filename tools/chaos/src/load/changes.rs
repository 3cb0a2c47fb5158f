//! Changes of what was sent: edits, deletions, reactions, reading, and chats that are archived for a moment.

use std::{sync::Arc, time::Duration};

use fechatter_core::{ChatId, MessageId, Seq};
use rand::{
    Rng,
    rngs::StdRng,
    seq::{IndexedRandom, IteratorRandom},
};
use reqwest::Method;
use rig::Person;
use serde_json::json;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Call, Seat, Shared, lock, settle, text};
use crate::history::{Change, ChangeKind, Conclusion};

const EMOJIS: [&str; 4] = ["👍", "🎉", "👩‍💻", "❤️"];

/// The time between two archivings, on average, and the longest that a chat stays archived.
const BETWEEN_ARCHIVINGS: Duration = Duration::from_secs(2);
const ARCHIVED: Duration = Duration::from_millis(300);

/// A message that may be changed.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) id: MessageId,
    pub(super) chat: ChatId,
    pub(super) seq: Seq,
    pub(super) sender: Person,
}

/// Lets somebody change something.
pub(super) async fn change(shared: &Shared, rng: &mut StdRng) {
    let Some(message) = take(shared, rng, |_| true) else { return };
    let seat =
        lock(&shared.seats).iter().filter(|seat| seat.chat == message.chat).choose(rng).cloned();
    match (rng.random_range(0..10), seat) {
        (0..3, _) => edit(shared, message, rng).await,
        (3, _) => delete(shared, message, rng).await,
        (4..7, Some(seat)) => react(shared, &seat.person, message, rng).await,
        (_, Some(seat)) => {
            let upto = message.seq;
            // Others may change the message meanwhile.
            lock(&shared.sent).push(message);
            read(shared, &seat, upto, rng).await;
        }
        (_, None) => lock(&shared.sent).push(message),
    }
}

/// Lets somebody edit or delete a message of theirs, or react to one of their chat.
pub(super) async fn use_rights(shared: &Shared, seat: &Seat, rng: &mut StdRng) {
    let is_own = |message: &Sent| message.chat == seat.chat && message.sender.id == seat.person.id;
    match take(shared, rng, is_own) {
        Some(message) if rng.random() => edit(shared, message, rng).await,
        Some(message) if rng.random() => delete(shared, message, rng).await,
        Some(message) => react(shared, &seat.person, message, rng).await,
        None => {
            if let Some(message) = take(shared, rng, |message| message.chat == seat.chat) {
                react(shared, &seat.person, message, rng).await;
            }
        }
    }
}

/// Takes a message, so that nobody else changes it at the same time.
fn take(shared: &Shared, rng: &mut StdRng, suits: impl Fn(&Sent) -> bool) -> Option<Sent> {
    let mut messages = lock(&shared.sent);
    let chosen = (0..messages.len()).filter(|index| suits(&messages[*index])).choose(rng)?;
    Some(messages.swap_remove(chosen))
}

async fn edit(shared: &Shared, message: Sent, rng: &mut StdRng) {
    let content = text(Uuid::from_u128(rng.random()), 50, rng);
    let body = Some(json!({ "content": content }));
    let call = Call { method: Method::PATCH, path: path(&message), body };
    let kind = ChangeKind::Edit(message.id, content);
    let sender = message.sender.clone();
    if call_until_known(shared, &sender, message.chat, kind, call, rng).await != Conclusion::Unknown
    {
        lock(&shared.sent).push(message);
    }
}

async fn delete(shared: &Shared, message: Sent, rng: &mut StdRng) {
    let call = Call { method: Method::DELETE, path: path(&message), body: None };
    let sender = message.sender.clone();
    let kind = ChangeKind::Delete(message.id);
    if call_until_known(shared, &sender, message.chat, kind, call, rng).await == Conclusion::Refused
    {
        lock(&shared.sent).push(message);
    }
}

async fn react(shared: &Shared, person: &Person, message: Sent, rng: &mut StdRng) {
    let emoji = *EMOJIS.choose(rng).unwrap_or(&EMOJIS[0]);
    let is_added = rng.random_ratio(2, 3);
    let method = if is_added { Method::PUT } else { Method::DELETE };
    let call = Call { method, path: format!("{}/reactions/{emoji}", path(&message)), body: None };
    let kind = ChangeKind::React { message: message.id, emoji, is_added };
    if call_until_known(shared, person, message.chat, kind, call, rng).await != Conclusion::Unknown
    {
        lock(&shared.sent).push(message);
    }
}

async fn read(shared: &Shared, seat: &Seat, upto: Seq, rng: &mut StdRng) {
    let path = format!("/api/chat/{}/read", seat.chat);
    let call = Call { method: Method::POST, path, body: Some(json!({ "seq": upto })) };
    call_until_known(shared, &seat.person, seat.chat, ChangeKind::Read(upto), call, rng).await;
}

/// Lets owners archive a chat of theirs now and then, one at a time, and unarchive it after a moment.
pub(super) async fn archive_now_and_then(
    shared: Arc<Shared>,
    owners: Vec<Seat>,
    mut rng: StdRng,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = sleep(BETWEEN_ARCHIVINGS.mul_f64(rng.random_range(0.5..1.5))) => {}
            () = stop.cancelled() => return,
        }
        let Some(Seat { person, chat, .. }) = owners.choose(&mut rng) else { return };
        for (is_archived, call) in [(true, "archive"), (false, "unarchive")] {
            let path = format!("/api/chat/{chat}/{call}");
            let call = Call { method: Method::POST, path, body: None };
            let kind = ChangeKind::Archive(is_archived);
            call_until_known(&shared, person, *chat, kind, call, &mut rng).await;
            sleep(ARCHIVED.mul_f64(rng.random())).await;
        }
    }
}

async fn call_until_known(
    shared: &Shared,
    person: &Person,
    chat: ChatId,
    kind: ChangeKind,
    call: Call,
    rng: &mut StdRng,
) -> Conclusion {
    let attempts = settle(person, rng, &call, |_| Some(())).await;
    let change = Change { chat, person: person.id, session: person.session_id, kind, attempts };
    let conclusion = change.conclusion();
    shared.note_change(change);
    conclusion
}

fn path(message: &Sent) -> String {
    format!("/api/chat/{}/messages/{}", message.chat, message.id)
}
