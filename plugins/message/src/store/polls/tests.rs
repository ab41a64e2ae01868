//! Each store function by itself, in a module of its name, on a real database with the service's tables: polls.

use echo_sdk::sql::Database;

use super::*;
use crate::store::fixtures::*;
use crate::store::messages::delete_for_everyone;

fn poll(viewer: u32, message: &Message, now: Timestamp) -> Option<Poll> {
    polls_among(&Database, &id(viewer), std::slice::from_ref(&message.id), now).unwrap().remove(&message.id)
}

fn votes(message: &Message) -> Vec<u32> {
    poll(1, message, 100).expect("a poll").options.into_iter().map(|option| option.votes).collect()
}

mod insert {
    use super::*;

    #[test]
    fn keeps_the_options_in_their_order() {
        let _store = store();
        group(91, [1]);
        let new = asked(91, 1, true, Some(500)).poll.expect("a poll");
        let message = said(91, 1, 100, None);
        committed(|tx| insert(tx, &message.id, &new));
        let kept = poll(1, &message, 100).unwrap();
        assert_eq!((kept.question.as_str(), kept.multiple, kept.closes_at), ("text 2", true, Some(500)), "the content is the question");
        assert_eq!(kept.options.iter().map(|option| option.text.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}

mod with_polls {
    use super::*;

    #[test]
    fn fills_in_polls_and_leaves_other_messages() {
        let _store = store();
        group(91, [1, 2]);
        let said = said(91, 1, 100, None);
        let [one, other] = [1, 2].map(|sender| asked(91, sender, false, None));
        voted(&other, 2, &[1]);
        committed(|tx| delete_for_everyone(tx, &one.id, 200));
        let bare = |message: &Message| Message { poll: None, ..message.clone() };
        let all = vec![bare(&said), Message { deleted_at: Some(200), ..bare(&one) }, bare(&other)];
        let filled = with_polls(&Database, &id(2), all, 300).unwrap();
        assert_eq!(filled.iter().map(|message| message.poll.is_some()).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(filled[2].poll.as_ref().unwrap().own_votes, [1]);
        assert!(with_polls(&Database, &id(2), vec![], 300).unwrap().is_empty());
    }
}

mod polls_among {
    use super::*;

    #[test]
    fn counts_what_is_chosen_and_says_what_the_viewer_chose() {
        let _store = store();
        group(91, [1, 2, 3]);
        let [message, other] = [1, 2].map(|sender| asked(91, sender, true, None));
        voted(&message, 1, &[0, 2]);
        voted(&message, 2, &[2]);
        voted(&other, 3, &[1]);
        let seen = |viewer| {
            let poll = poll(viewer, &message, 100).unwrap();
            (poll.options.iter().map(|option| option.votes).collect::<Vec<_>>(), poll.voters, poll.own_votes)
        };
        assert_eq!(seen(1), (vec![1, 0, 2], 2, vec![0, 2]));
        assert_eq!(seen(3), (vec![1, 0, 2], 2, vec![]));
        assert_eq!(polls_among(&Database, &id(1), &[message.id, other.id, id(7)], 100).unwrap().len(), 2);
        assert!(polls_among(&Database, &id(1), &[], 100).unwrap().is_empty());
    }

    #[test]
    fn says_that_one_is_closed_by_its_time_or_by_somebody() {
        let _store = store();
        group(91, [1]);
        let timed = asked(91, 1, false, Some(500));
        let open = asked(91, 1, false, None);
        let closed = |message, now| poll(1, message, now).unwrap().closed;
        assert_eq!([(&timed, 499), (&timed, 500), (&open, 900)].map(|(message, now)| closed(message, now)), [false, true, false]);
        assert!(committed(|tx| close(tx, &open.id, 400)));
        assert!(closed(&open, 100));
    }
}

mod lock {
    use super::*;

    #[test]
    fn says_whether_it_is_open() {
        let _store = store();
        group(91, [1]);
        let message = asked(91, 1, false, Some(500));
        let locked = |id: &str, now| committed(|tx| lock(tx, id, now));
        assert_eq!([(&message.id, 499), (&message.id, 500), (&id(7), 1)].map(|(id, now)| locked(id, now)), [Some(true), Some(false), None]);
        assert!(committed(|tx| close(tx, &message.id, 200)));
        assert_eq!(locked(&message.id, 300), Some(false));
    }
}

mod set_votes {
    use super::*;

    #[test]
    fn takes_the_place_of_what_was_chosen_before() {
        let _store = store();
        group(91, [1, 2]);
        let message = asked(91, 1, true, None);
        voted(&message, 1, &[0, 1]);
        voted(&message, 2, &[0]);
        assert_eq!(votes(&message), [2, 1, 0]);
        let set = |numbers: &[u32]| committed(|tx| set_votes(tx, &message.id, &id(1), numbers));
        assert_eq!(([set(&[0, 1]), set(&[2]), set(&[2])], votes(&message)), ([false, true, false], vec![1, 0, 1]));
        assert_eq!(([set(&[]), set(&[])], votes(&message)), ([true, false], vec![1, 0, 0]));
    }
}

mod close {
    use super::*;

    #[test]
    fn closes_once_and_not_after_its_time() {
        let _store = store();
        group(91, [1]);
        let message = asked(91, 1, false, Some(500));
        let other = asked(91, 1, false, None);
        let close = |id: &str, at| committed(|tx| close(tx, id, at));
        assert_eq!([(&message.id, 500), (&message.id, 400), (&message.id, 450)].map(|(id, at)| close(id, at)), [false, true, false]);
        assert_eq!((close(&id(7), 400), close(&other.id, 400)), (false, true));
    }
}
