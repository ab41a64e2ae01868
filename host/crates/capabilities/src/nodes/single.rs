//! One host alone, with data of its own.

use std::time::Instant;

use async_trait::async_trait;
use parking_lot::Mutex;
use uuid::Uuid;

use super::{Node, NodeIdentity, NodeReport, NodeState, Nodes, NodesError};
use echo_base::clock::now_us;

pub struct SingleNode {
    identity: NodeIdentity,
    boot: Uuid,
    started_at_us: u64,
    said: Mutex<Option<(Instant, NodeState, NodeReport)>>,
}

impl SingleNode {
    pub fn new(identity: NodeIdentity) -> Self {
        let started_at_us = now_us();
        Self {
            identity,
            boot: Uuid::new_v4(),
            started_at_us,
            said: Mutex::new(Some((Instant::now(), NodeState::Starting, NodeReport::default()))),
        }
    }
}

#[async_trait]
impl Nodes for SingleNode {
    fn name(&self) -> &str {
        &self.identity.name
    }

    async fn beat(&self, state: NodeState, report: &NodeReport) -> Result<(), NodesError> {
        *self.said.lock() = Some((Instant::now(), state, report.clone()));
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Node>, NodesError> {
        let NodeIdentity { name, advertise, version, engines } = self.identity.clone();
        let said = self.said.lock().clone();
        let node = said.map(|(at, state, report)| Node {
            name,
            boot: self.boot,
            advertise,
            version,
            engines,
            // Whoever asks asks this host: it is not away, however long ago it said something.
            state,
            started_at_us: self.started_at_us,
            seen_ms_ago: at.elapsed().as_millis() as u64,
            report,
            leases: Vec::new(),
        });
        Ok(node.into_iter().collect())
    }

    async fn leave(&self) -> Result<(), NodesError> {
        *self.said.lock() = None;
        Ok(())
    }
}
