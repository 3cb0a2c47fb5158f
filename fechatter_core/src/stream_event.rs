//! All events that a stream can send: those of the log, those that are not in the log, and those about
//! the stream itself.

use serde::Serialize;
use utoipa::openapi::schema::{AllOf, Discriminator, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::Timestamp;
use crate::event::{EphemeralEvent, Event, MESSAGE_EVENTS, NEW_MESSAGE};
use crate::log::Cursor;
use crate::message::{Message, Parent};

/// An event about the stream itself.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(tag = "event")]
pub enum Control {
    /// The first event.
    Ready {
        /// The place where the stream starts: the client's own cursor when it resumes.
        cursor: Cursor,
        /// True if the client sent a cursor.
        resumed: bool,
        /// The server's time.
        server_time: Timestamp,
    },
    /// No more events at or below the cursor follow.
    Heartbeat {
        /// The newest event's place.
        cursor: Cursor,
        /// The server's time.
        server_time: Timestamp,
    },
    /// The stream cannot continue from the client's cursor. This is the last event of the stream, and
    /// the only one if the cursor at its start is refused.
    Reset {
        /// The reason.
        reason: ResetReason,
        /// The place from which `GET /api/sync` continues.
        cursor: Cursor,
    },
    /// The last event.
    Goodbye {
        /// The reason.
        reason: GoodbyeReason,
        /// The delay before a reconnect, in milliseconds.
        #[schema(minimum = 0)]
        retry_ms: u64,
    },
}

/// Declares an enum of reasons, each with its name in frames and metrics.
macro_rules! reasons {
    ($(#[$doc:meta])* $reason:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $name:tt,)*
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
        pub enum $reason {
            $($(#[$variant_doc])* #[serde(rename = $name)] $variant,)*
        }

        impl $reason {
            /// The names of all reasons.
            pub const NAMES: &[&str] = &[$($name),*];

            /// Returns its name in frames and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

reasons! {
    /// The reason why a stream cannot continue from a cursor.
    ResetReason {
        /// The text is not a cursor.
        CursorInvalid = "cursor_invalid",
        /// The log has no event at the cursor's position, or another one.
        CursorUnknown = "cursor_unknown",
        /// The events after the cursor are no longer stored, or the person has left the workspace
        /// since then.
        CursorExpired = "cursor_expired",
        /// A snapshot is cheaper than replaying all events after the cursor.
        TooFarBehind = "too_far_behind",
    }
}

reasons! {
    /// The reason why a stream ends.
    GoodbyeReason {
        /// The access token has expired; refresh it and resume.
        TokenExpired = "token_expired",
        /// The session has ended.
        SessionRevoked = "session_revoked",
        /// The person was suspended in the workspace.
        Suspended = "suspended",
        /// The person has left the workspace, or was removed.
        Removed = "removed",
        /// The operator has suspended or deleted the workspace.
        WorkspaceClosed = "workspace_closed",
        /// The client did not read fast enough.
        SlowConsumer = "slow_consumer",
        /// The server stops, or loads the workspace anew.
        Draining = "draining",
    }
}

impl Control {
    /// The event's name in frames.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Ready { .. } => "Ready",
            Self::Heartbeat { .. } => "Heartbeat",
            Self::Reset { .. } => "Reset",
            Self::Goodbye { .. } => "Goodbye",
        }
    }
}

/// The schema of any event's `data`. Each event has a schema of its own, `<name>Event`, because
/// generators of clients name their types after schemas.
#[derive(Debug)]
pub struct StreamEvent;

impl PartialSchema for StreamEvent {
    fn schema() -> RefOr<Schema> {
        let mut all = OneOfBuilder::new();
        let mut discriminator = Discriminator::new("event");
        for (name, _) in events() {
            let event = Ref::from_schema_name(schema_name(&name));
            discriminator.mapping.insert(name, event.ref_location.clone());
            all = all.item(event);
        }
        let description = "The `data` of one event; its `event` says which it is. Clients ignore \
                           events and fields that they do not know.";
        let all = all.discriminator(Some(discriminator)).description(Some(description));
        RefOr::T(all.build().into())
    }
}

impl ToSchema for StreamEvent {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Message::name().into(), Message::schema()));
        Message::schemas(schemas);
        schemas.push((Parent::name().into(), Parent::schema()));
        Control::schemas(schemas);
        Event::schemas(schemas);
        EphemeralEvent::schemas(schemas);
        schemas.extend(events().map(|(name, schema)| (schema_name(&name), schema)));
    }
}

fn schema_name(event: &str) -> String {
    format!("{event}Event")
}

/// Returns the names and schemas of all events.
fn events() -> impl Iterator<Item = (String, RefOr<Schema>)> {
    let declared = [Control::schema(), Event::schema(), EphemeralEvent::schema()];
    let declared = declared.into_iter().flat_map(|schema| match schema {
        RefOr::T(Schema::OneOf(one)) => one.items,
        _ => Vec::new(),
    });
    let declared = declared.filter_map(|schema| Some((event_name(&schema)?, schema)));
    declared.chain(MESSAGE_EVENTS.map(|name| (name.to_owned(), message_event(name))))
}

/// Returns the only value of the property `event`.
fn event_name(schema: &RefOr<Schema>) -> Option<String> {
    match schema {
        RefOr::T(Schema::AllOf(all)) => all.items.iter().find_map(event_name),
        RefOr::T(Schema::Object(object)) => match object.properties.get("event")? {
            RefOr::T(Schema::Object(event)) => {
                event.enum_values.as_ref()?.first()?.as_str().map(ToOwned::to_owned)
            }
            _ => None,
        },
        _ => None,
    }
}

fn message_event(name: &str) -> RefOr<Schema> {
    let event = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([name]));
    let mut tag = ObjectBuilder::new().property("event", event).required("event");
    if name == NEW_MESSAGE {
        tag = tag.property("parent", Ref::from_schema_name(Parent::name()));
    }
    let message = Ref::from_schema_name(Message::name());
    RefOr::T(AllOf::builder().item(message).item(tag).build().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_a_schema_under_its_name() {
        let names: Vec<_> = events().map(|(name, _)| name).collect();
        for name in ["Ready", "Goodbye", "NewChat", "UserUpdated", "NewMessage"] {
            assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
        }
        let mut schemas = Vec::new();
        StreamEvent::schemas(&mut schemas);
        for name in names {
            assert!(schemas.iter().any(|(schema, _)| *schema == format!("{name}Event")), "{name}");
        }
    }
}
