//! The message service: conversations, messages, receipts. Here only the bindings and which function is answered where; the rules are in
//! the topic files, SQL in `store`. Knows no HTTP, no sockets, and no profile beyond "this id is a user".

mod blocks;
mod bounds;
mod changes;
mod conversations;
mod disappearing;
mod emoji;
mod erasure;
mod exports;
mod history;
mod invites;
mod names;
mod participants;
mod payload;
mod pins;
mod polls;
mod private_marks;
mod reactions;
mod receipts;
mod rules;
mod scheduled;
mod search;
mod send_request;
mod sending;
mod stars;
mod store;
mod words;

#[allow(clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "echo:services/message",
        with: {
            "echo:types/types@0.1.0": echo_sdk::wit::types,
            "echo:context/context@0.1.0": echo_sdk::wit::context,
            "echo:sql/sql@0.1.0": echo_sdk::wit::sql,
            "echo:cache/cache@0.1.0": echo_sdk::wit::cache,
            "echo:hub/hub@0.1.0": echo_sdk::wit::hub,
            "echo:config/config@0.1.0": echo_sdk::wit::config,
            "echo:log/log@0.1.0": echo_sdk::wit::log,
            "wasi:clocks/wall-clock@0.2.6": echo_sdk::wit::wall_clock,
            "wasi:random/random@0.2.6": echo_sdk::wit::random,
        },
        generate_all,
    });
}

use bindings::exports::echo::account_export::events as export_events;
use bindings::exports::echo::hub::events as hub_events;
use bindings::exports::echo::message::api;
use bindings::exports::echo::user::events as user_events;
use echo_sdk::Error;

struct Message;

// Only in the component: the native build of the tests has no use for the exports.
#[cfg(target_arch = "wasm32")]
bindings::export!(Message with_types_in bindings);

impl api::Guest for Message {
    fn open_conversation(request: api::OpenConversationRequest) -> Result<api::OpenedConversation, Error> {
        conversations::open(request)
    }

    fn list_conversations(request: api::PageRequest) -> Result<api::Conversations, Error> {
        conversations::list(&request)
    }

    fn get_conversation(request: api::ConversationRequest) -> Result<api::Conversation, Error> {
        conversations::get(&request.id)
    }

    fn update_conversation(request: api::UpdateConversationRequest) -> Result<api::Conversation, Error> {
        conversations::update(&request)
    }

    fn delete_conversation(request: api::ConversationRequest) -> Result<(), Error> {
        conversations::delete(&request.id)
    }

    fn update_settings(request: api::UpdateSettingsRequest) -> Result<api::Conversation, Error> {
        conversations::update_settings(&request)
    }

    fn list_participants(request: api::ListParticipantsRequest) -> Result<api::Participants, Error> {
        participants::list(&request)
    }

    fn add_participants(request: api::AddParticipantsRequest) -> Result<api::AddedParticipants, Error> {
        participants::add(request)
    }

    fn update_participant(request: api::UpdateParticipantRequest) -> Result<api::Participant, Error> {
        participants::update(&request)
    }

    fn remove_participant(request: api::ParticipantRequest) -> Result<(), Error> {
        participants::remove(&request)
    }

    fn send(request: api::SendRequest) -> Result<api::Message, Error> {
        sending::send(request)
    }

    fn schedule_message(request: api::ScheduleRequest) -> Result<api::ScheduledMessage, Error> {
        scheduled::schedule(request)
    }

    fn list_scheduled(request: api::PageRequest) -> Result<api::ScheduledMessages, Error> {
        scheduled::list(&request)
    }

    fn update_scheduled(request: api::UpdateScheduledRequest) -> Result<api::ScheduledMessage, Error> {
        scheduled::update(&request)
    }

    fn cancel_scheduled(request: api::MessageRequest) -> Result<(), Error> {
        scheduled::cancel(&request.id)
    }

    fn send_scheduled() -> Result<(), Error> {
        scheduled::send_due()
    }

    fn create_invite(request: api::InviteRequest) -> Result<api::Invite, Error> {
        invites::create(&request)
    }

    fn list_invites(request: api::ConversationRequest) -> Result<api::Invites, Error> {
        invites::list(&request.id)
    }

    fn delete_invite(request: api::DeleteInviteRequest) -> Result<(), Error> {
        invites::delete(&request)
    }

    fn join(request: api::JoinRequest) -> Result<api::Conversation, Error> {
        invites::join(&request.code)
    }

    fn typing(request: api::TypingRequest) -> Result<(), Error> {
        sending::typing(&request)
    }

    fn list_messages(request: api::ListMessagesRequest) -> Result<api::Messages, Error> {
        history::list(&request)
    }

    fn get_message(request: api::MessageRequest) -> Result<api::Message, Error> {
        history::get(&request.id)
    }

    fn list_edits(request: api::MessageRequest) -> Result<api::Edits, Error> {
        history::edits(&request.id)
    }

    fn search_messages(request: api::SearchRequest) -> Result<api::Messages, Error> {
        search::search(&request)
    }

    fn index_messages() -> Result<(), Error> {
        search::index()
    }

    fn list_thread(request: api::ThreadRequest) -> Result<api::Messages, Error> {
        history::thread(&request)
    }

    fn pin_message(request: api::MessageRequest) -> Result<(), Error> {
        pins::pin(&request.id)
    }

    fn unpin_message(request: api::MessageRequest) -> Result<(), Error> {
        pins::unpin(&request.id)
    }

    fn edit_message(request: api::EditRequest) -> Result<api::Message, Error> {
        changes::edit(&request)
    }

    fn delete_message(request: api::DeleteRequest) -> Result<(), Error> {
        changes::delete(&request)
    }

    fn media_use(request: api::MediaUseRequest) -> Result<api::MediaUsage, Error> {
        history::media_use(&request.media_id)
    }

    fn export_data(request: api::PageRequest) -> Result<api::ExportedData, Error> {
        exports::data(&request)
    }

    fn preview_messages(request: api::PreviewsRequest) -> Result<api::Previews, Error> {
        history::previews(&request)
    }

    fn check_membership(request: api::MembershipRequest) -> Result<api::Membership, Error> {
        participants::membership(&request)
    }

    fn expire_messages() -> Result<(), Error> {
        disappearing::expire()
    }

    fn clear_away() -> Result<(), Error> {
        receipts::clear_away()
    }

    fn get_status(request: api::MessageRequest) -> Result<api::Statuses, Error> {
        receipts::statuses(&request.id)
    }

    fn mark_read(request: api::ReadRequest) -> Result<api::ReadState, Error> {
        receipts::mark_read(&request)
    }

    fn vote(request: api::VoteRequest) -> Result<api::Message, Error> {
        polls::vote(&request)
    }

    fn close_poll(request: api::MessageRequest) -> Result<api::Message, Error> {
        polls::close(&request.id)
    }

    fn add_reaction(request: api::ReactionRequest) -> Result<(), Error> {
        reactions::add(&request)
    }

    fn remove_reaction(request: api::ReactionRequest) -> Result<(), Error> {
        reactions::remove(&request)
    }

    fn list_reactions(request: api::ReactionsRequest) -> Result<api::Reactions, Error> {
        reactions::list(&request)
    }

    fn star_message(request: api::MessageRequest) -> Result<(), Error> {
        stars::star(&request.id)
    }

    fn unstar_message(request: api::MessageRequest) -> Result<(), Error> {
        stars::unstar(&request.id)
    }

    fn list_starred(request: api::PageRequest) -> Result<api::Messages, Error> {
        stars::list(&request)
    }

    fn get_draft(request: api::ConversationRequest) -> Result<api::Draft, Error> {
        private_marks::draft(&request.id)
    }

    fn set_draft(request: api::SetDraftRequest) -> Result<api::Draft, Error> {
        private_marks::set_draft(request)
    }

    fn delete_draft(request: api::ConversationRequest) -> Result<(), Error> {
        private_marks::delete_draft(&request.id)
    }

    fn set_unread(request: api::SetUnreadRequest) -> Result<(), Error> {
        private_marks::set_unread(&request)
    }

    fn mark_delivered(request: api::ReadRequest) -> Result<(), Error> {
        receipts::mark_delivered(&request)
    }
}

impl user_events::Guest for Message {
    fn blocked(_key: String, event: user_events::BlockChange) -> Result<(), Error> {
        blocks::record(&event, true)
    }

    fn unblocked(_key: String, event: user_events::BlockChange) -> Result<(), Error> {
        blocks::record(&event, false)
    }

    fn deleted(_key: String, event: user_events::Deletion) -> Result<(), Error> {
        erasure::erase(&event.user_id)
    }

    fn state_changed(_key: String, event: user_events::StateChange) -> Result<(), Error> {
        erasure::state_changed(&event)
    }

    /// Not subscribed to.
    fn audience_changed(_key: String, _event: user_events::AudienceChange) -> Result<(), Error> {
        Ok(())
    }

    /// Not subscribed to.
    fn registered(_key: String, _event: user_events::Registration) -> Result<(), Error> {
        Ok(())
    }
}

impl export_events::Guest for Message {
    fn requested(_key: String, event: export_events::Request) -> Result<(), Error> {
        exports::requested(event)
    }

    /// Not subscribed to.
    fn prepared(_key: String, _event: export_events::PreparedPart) -> Result<(), Error> {
        Ok(())
    }
}

impl hub_events::Guest for Message {
    fn acknowledged(_key: String, event: hub_events::Acknowledgements) -> Result<(), Error> {
        receipts::acknowledged(&event)
    }

    /// Not subscribed to.
    fn connected(_key: String, _event: hub_events::Connection) -> Result<(), Error> {
        Ok(())
    }

    /// Not subscribed to.
    fn disconnected(_key: String, _event: hub_events::Connection) -> Result<(), Error> {
        Ok(())
    }
}
