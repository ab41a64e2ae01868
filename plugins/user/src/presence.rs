//! Who may see whose presence: whether somebody is there, and when they were there last. A blocked viewer sees nothing, as with any choice of
//! privacy. Knows nothing of who is there.

use std::collections::{HashMap, HashSet};

use echo_sdk::Error;
use echo_sdk::checks::Checks;

use crate::bindings::exports::echo::user::api::{PresenceAudience, PresenceAudiences, PresenceQuestion};
use crate::bounds::PRESENCE_PAIRS_MAX;
use crate::privacy::{admits, audience};
use crate::registration::heal_all;
use crate::store::{self, Sight};

pub fn audiences(questions: Vec<PresenceQuestion>) -> Result<PresenceAudiences, Error> {
    let pairs: Vec<(&str, &str)> = questions
        .iter()
        .flat_map(|question| question.viewer_ids.iter().map(|viewer| (question.user_id.as_str(), viewer.as_str())))
        .collect();
    Checks::new().count("items", pairs.len(), 0..=PRESENCE_PAIRS_MAX).finish()?;
    let mut sights = store::sights_of(&pairs)?;
    // The event of a registration may not have arrived yet.
    let known: HashSet<&str> = sights.iter().map(|sight| sight.user_id.as_str()).collect();
    let mut missing: Vec<String> = pairs.iter().map(|(user, _)| *user).filter(|user| !known.contains(user)).map(str::to_owned).collect();
    missing.sort_unstable();
    missing.dedup();
    let healed = heal_all(&missing)?;
    if !healed.is_empty() {
        let pairs: Vec<_> = pairs.iter().filter(|(user, _)| healed.iter().any(|healed| healed == user)).copied().collect();
        sights.extend(store::sights_of(&pairs)?);
    }
    let sights: HashMap<(&str, &str), &Sight> =
        sights.iter().map(|sight| ((sight.user_id.as_str(), sight.viewer_id.as_str()), sight)).collect();
    let items = questions.iter().map(|question| {
        let seen = question.viewer_ids.iter().filter_map(|viewer| sights.get(&(question.user_id.as_str(), viewer.as_str())).copied());
        audience_of(&question.user_id, seen)
    });
    Ok(PresenceAudiences { items: items.collect() })
}

fn audience_of<'a>(user_id: &str, viewers: impl Iterator<Item = &'a Sight> + Clone) -> PresenceAudience {
    let among = |visible: fn(&Sight) -> &str| {
        let admitted = viewers.clone().filter(|sight| admits(audience(visible(sight)), sight.viewer_is_contact, sight.viewer_is_blocked));
        admitted.map(|sight| sight.viewer_id.clone()).collect()
    };
    PresenceAudience {
        user_id: user_id.to_owned(),
        presence: among(|sight| &sight.presence_visible),
        last_seen: among(|sight| &sight.last_seen_visible),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(viewer: &str, presence: &str, last_seen: &str, viewer_is_contact: bool, viewer_is_blocked: bool) -> Sight {
        Sight {
            user_id: "owner".into(),
            viewer_id: viewer.into(),
            presence_visible: presence.into(),
            last_seen_visible: last_seen.into(),
            viewer_is_contact,
            viewer_is_blocked,
        }
    }

    #[test]
    fn each_choice_of_privacy_has_its_audience_and_a_block_is_in_none() {
        let names = ["stranger", "contact", "blocked"];
        for (presence, last_seen, expect_presence, expect_last_seen) in [
            ("everyone", "everyone", &["stranger", "contact"][..], &["stranger", "contact"][..]),
            ("contacts", "everyone", &["contact"], &["stranger", "contact"]),
            ("nobody", "contacts", &[], &["contact"]),
            ("everyone", "nobody", &["stranger", "contact"], &[]),
        ] {
            let sights = names.map(|name| sight(name, presence, last_seen, name != "stranger", name == "blocked"));
            let audience = audience_of("owner", sights.iter());
            assert_eq!(audience.presence, expect_presence, "{presence}");
            assert_eq!(audience.last_seen, expect_last_seen, "{last_seen}");
        }
    }
}
