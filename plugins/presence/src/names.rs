//! How statuses and activities are called outside.

use crate::bindings::exports::echo::presence::api::{Activity, Status};

pub fn of_status(status: Status) -> &'static str {
    match status {
        Status::Online => "online",
        Status::Away => "away",
        Status::Busy => "busy",
        Status::Offline => "offline",
    }
}

pub fn of_activity(activity: Activity) -> &'static str {
    match activity {
        Activity::Typing => "typing",
        Activity::Recording => "recording",
    }
}
