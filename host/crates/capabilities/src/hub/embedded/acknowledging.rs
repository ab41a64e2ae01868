//! Acknowledgements: which events newly reached a user, the cursors of their devices, and the events that say so.

use std::collections::HashMap;

use super::{EmbeddedFeed, User, each, integer, now_us};
use crate::hub::Acknowledgement;
use crate::hub::acknowledged::{Step, acknowledged};
use crate::hub::reached::Span;
use crate::sql::sqlite::values;
use crate::sql::{SqlError, Value};

impl EmbeddedFeed {
    pub(super) async fn acknowledge_some(&self, acknowledgements: &[Acknowledgement]) -> Result<(), SqlError> {
        let mut memory = self.memory.lock().await;
        let memory = &mut *memory;
        self.make_valid(memory).await?;
        self.recall(memory, acknowledgements.iter().map(|acknowledgement| acknowledgement.user)).await?;
        let (mut users, mut cursors) = (Vec::new(), Vec::new());
        let mut steps: HashMap<i64, Step> = HashMap::new();
        memory.is_valid = false;
        let now = Value::Timestamp(now_us());
        for Acknowledgement { user, device, above, seq } in acknowledgements {
            let next_user = &mut memory.next_user;
            let known = memory.users.entry(*user).or_insert_with(|| {
                *next_user += 1;
                User::new(*next_user - 1)
            });
            if known.head == 0 {
                users.push(values::bind([known.id.into(), Value::Uuid(*user)])?);
            }
            let (above, seq) = ((*above).min(known.head), (*seq).min(known.head));
            cursors.push(values::bind([known.id.into(), device.as_str().into(), integer(seq), integer(above), now.clone()])?);
            let step = steps.entry(known.id).or_insert_with(|| Step {
                user: *user,
                device: device.clone(),
                to: 0,
                reached: known.reached.clone(),
                fresh: Vec::new(),
                receipts: Vec::new(),
            });
            step.reached.add(Span { above, up_to: seq }, &mut step.fresh);
            if seq > step.to {
                (step.to, step.device) = (seq, device.clone());
            }
        }
        // All on the writer: a reader would have to fetch again the pages that every commit takes from it.
        let mut writer = self.file.writer().await?;
        writer.begin()?;
        for (id, step) in &mut steps {
            step.fresh.sort_unstable_by_key(|span| span.above);
            for span in &step.fresh {
                each(&mut writer, &self.scripts.receipts, vec![(*id).into(), integer(span.above), integer(span.up_to)], |row| {
                    step.receipts.push(values::text(row, 0)?);
                    Ok(true)
                })
                .await?;
            }
        }
        writer.run_rows(&self.scripts.put_user, &users).await?;
        writer.run_rows(&self.scripts.put_cursor, &cursors).await?;
        for (id, step) in &steps {
            let before = memory.users.get(&step.user).map(|user| &user.reached.gaps);
            if before.is_none_or(|gaps| *gaps != step.reached.gaps) {
                writer.run(&self.scripts.drop_gaps, values::bind([(*id).into()])?).await?;
                for gap in &step.reached.gaps {
                    writer.run(&self.scripts.put_gap, values::bind([(*id).into(), integer(gap.above), integer(gap.up_to)])?).await?;
                }
            }
        }
        self.publish_and_commit(writer, acknowledged(steps.values())).await?;
        for step in steps.into_values() {
            if let Some(user) = memory.users.get_mut(&step.user) {
                user.reached = step.reached;
            }
        }
        memory.is_valid = true;
        Ok(())
    }
}
