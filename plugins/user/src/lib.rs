//! The user service: profiles, contacts, blocks and privacy. Here only the bindings and which function is answered where; the rules are
//! in the topic files, SQL in `store.rs`. Knows no HTTP and nothing of conversations.

mod blocks;
mod bounds;
mod contacts;
mod exports;
mod fold;
mod numbers;
mod presence;
mod privacy;
mod profiles;
mod registration;
mod reports;
mod search;
mod store;

#[allow(clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "echo:services/user",
        with: {
            "echo:types/types@0.1.0": echo_sdk::wit::types,
            "echo:context/context@0.1.0": echo_sdk::wit::context,
            "echo:sql/sql@0.1.0": echo_sdk::wit::sql,
            "echo:passwords/passwords@0.1.0": echo_sdk::wit::passwords,
            "echo:config/config@0.1.0": echo_sdk::wit::config,
            "echo:log/log@0.1.0": echo_sdk::wit::log,
            "wasi:clocks/wall-clock@0.2.6": echo_sdk::wit::wall_clock,
            "wasi:random/random@0.2.6": echo_sdk::wit::random,
        },
        generate_all,
    });
}

use bindings::exports::echo::account_export::events as export_events;
use bindings::exports::echo::user::{api, events};
use echo_sdk::Error;

struct User;

// Only in the component: the native build of the tests has no use for the exports.
#[cfg(target_arch = "wasm32")]
bindings::export!(User with_types_in bindings);

impl api::Guest for User {
    fn me() -> Result<api::Profile, Error> {
        profiles::me()
    }

    fn update_me(request: api::UpdateMeRequest) -> Result<api::Profile, Error> {
        profiles::update_me(request)
    }

    fn get(request: api::UserRequest) -> Result<api::Profile, Error> {
        profiles::get(&request.id)
    }

    fn batch(request: api::BatchRequest) -> Result<api::Profiles, Error> {
        profiles::batch(&request.ids)
    }

    fn known(request: api::KnownRequest) -> Result<api::KnownUsers, Error> {
        profiles::known(request.ids)
    }

    fn who_may_be_added(request: api::KnownRequest) -> Result<api::AddableUsers, Error> {
        privacy::who_may_be_added(request.ids)
    }

    fn read_receipts_for(request: api::ReceiptsRequest) -> Result<api::ReceiptAudience, Error> {
        privacy::read_receipts_for(request.ids)
    }

    fn who_sees_presence(request: api::PresenceAudienceRequest) -> Result<api::PresenceAudiences, Error> {
        presence::audiences(request.items)
    }

    fn search(request: api::SearchRequest) -> Result<api::Profiles, Error> {
        search::search(request)
    }

    fn get_privacy() -> Result<api::Privacy, Error> {
        privacy::get()
    }

    fn update_privacy(request: api::UpdatePrivacyRequest) -> Result<api::Privacy, Error> {
        privacy::update(&request)
    }

    fn list_contacts(request: api::PageRequest) -> Result<api::Contacts, Error> {
        contacts::list(request)
    }

    fn add_contact(request: api::AddContactRequest) -> Result<api::Contact, Error> {
        contacts::add(request)
    }

    fn update_contact(request: api::UpdateContactRequest) -> Result<api::Contact, Error> {
        contacts::update(request)
    }

    fn remove_contact(request: api::ContactRequest) -> Result<(), Error> {
        contacts::remove(&request.user_id)
    }

    fn match_contacts(request: api::MatchRequest) -> Result<api::Matches, Error> {
        contacts::match_phones(request.phones)
    }

    fn list_blocked(request: api::PageRequest) -> Result<api::Blocks, Error> {
        blocks::list(request)
    }

    fn get_block(request: api::ContactRequest) -> Result<api::Block, Error> {
        blocks::get(&request.user_id)
    }

    fn block_user(request: api::ContactRequest) -> Result<(), Error> {
        blocks::block(&request.user_id)
    }

    fn unblock_user(request: api::ContactRequest) -> Result<(), Error> {
        blocks::unblock(&request.user_id)
    }

    fn export_data(request: api::PageRequest) -> Result<api::ExportedData, Error> {
        exports::data(&request)
    }

    fn report_user(request: api::ReportRequest) -> Result<api::Report, Error> {
        reports::report(request)
    }
}

impl export_events::Guest for User {
    fn requested(_key: String, event: export_events::Request) -> Result<(), Error> {
        exports::requested(event)
    }

    /// Not subscribed to.
    fn prepared(_key: String, _event: export_events::PreparedPart) -> Result<(), Error> {
        Ok(())
    }
}

impl events::Guest for User {
    fn registered(_key: String, event: events::Registration) -> Result<(), Error> {
        registration::registered(event)
    }

    fn deleted(_key: String, event: events::Deletion) -> Result<(), Error> {
        registration::deleted(&event.user_id)
    }

    fn state_changed(_key: String, event: events::StateChange) -> Result<(), Error> {
        registration::state_changed(&event)
    }

    /// Published by this service itself; not subscribed to.
    fn blocked(_key: String, _event: events::BlockChange) -> Result<(), Error> {
        Ok(())
    }

    /// Published by this service itself; not subscribed to.
    fn unblocked(_key: String, _event: events::BlockChange) -> Result<(), Error> {
        Ok(())
    }

    /// Published by this service itself; not subscribed to.
    fn audience_changed(_key: String, _event: events::AudienceChange) -> Result<(), Error> {
        Ok(())
    }
}
