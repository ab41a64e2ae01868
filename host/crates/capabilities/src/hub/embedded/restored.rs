//! Feeds of the past, put back: their next numbers may have been seen already.

use super::{ACKED, EmbeddedFeed, HEAD, integer, reached};
use crate::hub::FeedError;
use crate::sql::sqlite::script::Script;
use crate::sql::sqlite::values;

impl EmbeddedFeed {
    /// Everybody's next number is above this one, and nothing of what was before is given out: each device loads its state anew. For a file of the
    /// past, whose next numbers devices may have seen already.
    pub async fn continue_above(&self, number: u64) -> Result<(), FeedError> {
        let mut memory = self.memory.lock().await;
        memory.is_valid = false;
        let skip = Script::all([
            format!("UPDATE feed_user AS person SET head = max({HEAD} + 1, $1), acked = {ACKED}, reached = {}", reached()).as_str(),
            "DELETE FROM feed_entry",
            "DELETE FROM feed_cursor",
            "DELETE FROM feed_gap",
        ]);
        self.file.write(&skip, values::bind([integer(number)])?).await?;
        Ok(())
    }
}
