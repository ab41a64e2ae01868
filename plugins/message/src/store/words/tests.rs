//! Each store function by itself, in a module of its name, on a real database with the service's tables: which words stand in which messages.

use super::*;
use crate::store::fixtures::*;
use crate::store::messages::delete_for_everyone;

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// In the index, of a message.
fn indexed(message_id: &str) -> Vec<String> {
    let sql = "SELECT word FROM message_words WHERE message_id = $1 ORDER BY word";
    Database.rows::<(String,)>(sql, params![uuid(message_id)]).unwrap().into_iter().map(|(word,)| word).collect()
}

fn put(conversation: u32, seq: u64, words: &[&str]) {
    committed(|tx| insert(tx, &id(conversation), &message_id(conversation, seq), &texts(words)));
}

mod unindexed {
    use super::*;

    #[test]
    fn gives_conversations_that_have_newer_messages_than_the_index() {
        let _store = store();
        for conversation in [91, 92, 93] {
            group(conversation, [1]);
        }
        all_said(91, [1, 1]);
        all_said(92, [1]);
        let found = |limit| {
            let found = super::super::unindexed(limit).unwrap();
            let mut found: Vec<_> = found.into_iter().map(|one| (one.id, one.indexed_seq, one.last_seq)).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(found(9), [(id(91), 0, 2), (id(92), 0, 1)]);
        assert_eq!(found(1).len(), 1);
        committed(|tx| set_indexed(tx, &id(91), 0, 1));
        committed(|tx| set_indexed(tx, &id(92), 0, 1));
        assert_eq!(found(9), [(id(91), 1, 2)]);
        assert_eq!(unindexed(9).unwrap().len(), 1);
    }
}

mod lock_contents {
    use super::*;

    #[test]
    fn gives_what_is_there_to_read_between_the_two_by_seq() {
        let _store = store();
        group(91, [1]);
        group(92, [1]);
        let deleted = said(91, 1, 100, None);
        all_said(91, [1, 1, 1, 1]);
        all_said(92, [1, 1, 1]);
        edited(&text(91, 3, 1, 100), "another", 200, &[]);
        committed(|tx| delete_for_everyone(tx, &deleted.id, 300));
        let contents = |above, up_to| committed(|tx| lock_contents(tx, &id(91), above, up_to));
        let row = |seq, content: &str| (message_id(91, seq), seq, content.to_owned());
        assert_eq!(contents(0, 4), [row(2, "text 2"), row(3, "another"), row(4, "text 4")]);
        assert_eq!((contents(4, 9), contents(5, 9)), (vec![row(5, "text 5")], vec![]));
    }
}

mod insert {
    use super::*;

    #[test]
    fn keeps_each_word_once_and_takes_more_than_a_statement_does() {
        let _store = store();
        put(91, 1, &["one", "two"]);
        put(91, 1, &["two", "three"]);
        assert_eq!(indexed(&message_id(91, 1)), ["one", "three", "two"]);
        let many: Vec<String> = (0..WORD_ROWS_MAX + 1).map(|number| format!("w{number}")).collect();
        committed(|tx| insert(tx, &id(91), &message_id(91, 2), &many));
        assert_eq!(indexed(&message_id(91, 2)).len(), many.len());
        put(91, 3, &[]);
        assert!(indexed(&message_id(91, 3)).is_empty());
    }
}

mod delete {
    use super::*;

    #[test]
    fn takes_those_of_one_message() {
        let _store = store();
        for seq in [1, 2] {
            put(91, seq, &["one", "two"]);
        }
        committed(|tx| delete(tx, &message_id(91, 1)));
        assert_eq!((indexed(&message_id(91, 1)).len(), indexed(&message_id(91, 2)).len()), (0, 2));
    }
}

mod set_indexed {
    use super::*;

    #[test]
    fn moves_on_from_where_it_was_seen_alone() {
        let _store = store();
        group(91, [1]);
        all_said(91, [1, 1, 1]);
        for (from, to) in [(0, 2), (0, 1), (1, 3)] {
            committed(|tx| set_indexed(tx, &id(91), from, to));
        }
        assert_eq!(unindexed(9).unwrap()[0].indexed_seq, 2);
    }
}

mod candidates {
    use super::*;

    /// The seqs of those in 91, or of all.
    fn found(user: u32, conversation: Option<u32>, words: &[&str]) -> Vec<String> {
        candidates(&id(user), conversation.map(id).as_deref(), &texts(words), FIRST.1, 99).unwrap()
    }

    fn two() {
        group(91, [1, 2]);
        group(92, [2]);
        put(91, 1, &["bridge", "old", "the"]);
        put(91, 2, &["bride", "bridge", "new"]);
        put(92, 1, &["bridge", "ol"]);
    }

    #[test]
    fn gives_those_of_the_users_conversations_the_newest_first() {
        let _store = store();
        two();
        let [first, second, elsewhere] = [message_id(91, 1), message_id(91, 2), message_id(92, 1)];
        assert_eq!(found(2, None, &["brid"]), [elsewhere.clone(), second.clone(), first.clone()]);
        assert_eq!(found(1, None, &["brid"]), [second.clone(), first.clone()]);
        assert_eq!(found(2, Some(91), &["brid"]), [second.clone(), first.clone()]);
        assert_eq!((found(1, Some(92), &["brid"]), found(3, None, &["brid"])), (vec![], vec![]));
        let page = |before: &str, limit| candidates(&id(2), None, &texts(&["brid"]), before, limit).unwrap();
        assert_eq!((page(FIRST.1, 1), page(&elsewhere, 1), page(&first, 9)), (vec![elsewhere], vec![second], vec![]));
    }

    #[test]
    fn wants_a_beginning_of_each_word() {
        let _store = store();
        two();
        assert_eq!(found(1, None, &["bridge", "ol"]), [message_id(91, 1)]);
        assert_eq!(found(2, None, &["bridge", "ol"]), [message_id(92, 1), message_id(91, 1)]);
        assert_eq!(found(2, Some(92), &["bridge", "ol", "br"]), [message_id(92, 1)]);
        for words in [&["ridge"][..], &["bridges"], &["bridge", "none"], &["%"], &["b_idge"], &[]] {
            assert_eq!(found(2, None, words), [""; 0], "{words:?}");
        }
    }
}
