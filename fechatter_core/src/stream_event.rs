//! All events that a stream can send: those of the log, those that are not in the log, and those about
//! the stream itself.

use serde::Serialize;
use utoipa::openapi::schema::{AllOf, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::Timestamp;
use crate::event::{EphemeralEvent, Event, MESSAGE_EVENTS};
use crate::log::Cursor;
use crate::message::Message;

/// An event about the stream itself.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(tag = "event")]
#[schema(as = ControlEvent)]
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
    /// The stream cannot continue from the client's cursor: the only event of its stream.
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

/// The schema of any event's `data`.
#[derive(Debug)]
pub struct StreamEvent;

impl PartialSchema for StreamEvent {
    fn schema() -> RefOr<Schema> {
        let message_event = |name: &str| {
            let event = ObjectBuilder::new().schema_type(Type::String).enum_values(Some([name]));
            let tag = ObjectBuilder::new().property("event", event).required("event");
            let message = Ref::from_schema_name(Message::name());
            Schema::from(AllOf::builder().item(message).item(tag).build())
        };
        let kinds = [Control::name(), Event::name(), EphemeralEvent::name()];
        let all = kinds
            .into_iter()
            .fold(OneOfBuilder::new(), |all, kind| all.item(Ref::from_schema_name(kind)));
        let all = MESSAGE_EVENTS.iter().fold(all, |all, name| all.item(message_event(name)));
        let description = "The `data` of one event; its `event` says which it is. Clients ignore \
                           events and fields that they do not know.";
        RefOr::T(all.description(Some(description)).build().into())
    }
}

impl ToSchema for StreamEvent {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        add::<Control>(schemas);
        add::<Event>(schemas);
        add::<EphemeralEvent>(schemas);
        add::<Message>(schemas);
    }
}

/// Adds a schema with all schemas that it refers to.
fn add<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into(), T::schema()));
    T::schemas(schemas);
}
