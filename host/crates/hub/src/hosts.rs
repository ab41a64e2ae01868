//! The sockets of several hosts that share a database. What is delivered goes to the sockets here and, over the bus, to the hosts where the users' other devices
//! are. The bus may lose it: messages from one host to another are numbered, and where a number is missing, the bus was interrupted or is away, a host
//! compares how far its sockets are with the heads of the feeds, and the sockets read what they lack. Knows no protocol.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use uuid::Uuid;

use self::message::{Item, Message};
use super::close::Close;
use super::connection::Connection;
use super::registry::{Change, Registry};
use echo_base::backoff::Backoff;
use echo_base::limits;
use echo_capabilities::bus::{Delivery, HubBus};
use echo_capabilities::events::Queue;
use echo_capabilities::hub::{Announced, CONNECTED, ClaimError, DISCONNECTED, DeviceHosts, DeviceSocket};
use echo_capabilities::hub::{FeedEntry, FeedError, Push, Sockets};
use futures_util::StreamExt;

mod message;
#[cfg(test)]
mod tests;

/// All hosts.
const EVERY_HOST: &str = "hosts";

pub struct Hosts {
    node: String,
    /// Which start of this host it is: numbers begin again with each.
    boot: Uuid,
    registry: Arc<Registry>,
    store: Arc<dyn DeviceHosts>,
    bus: Arc<dyn HubBus>,
    queue: Arc<dyn Queue>,
    batches: mpsc::Sender<Batch>,
    waiting: tokio::sync::Mutex<mpsc::Receiver<Batch>>,
    /// A batch was not sent: the next message to each host leaves out a number.
    has_missed: AtomicBool,
    departures: Arc<Departures>,
    /// Heads are to be compared at once.
    compare: Notify,
}

/// What other hosts are to be sent, where they have the users' devices.
enum Batch {
    Durable(Vec<FeedEntry>),
    Ephemeral(Push),
}

/// Devices that have gone and are not released yet.
#[derive(Default)]
struct Departures {
    gone: Mutex<Vec<(DeviceSocket, u64)>>,
    wake: Notify,
    /// One writer at a time.
    writing: tokio::sync::Mutex<()>,
}

impl Hosts {
    /// `node`: the name under which `store` claims.
    pub fn new(node: &str, store: Arc<dyn DeviceHosts>, bus: Arc<dyn HubBus>, queue: Arc<dyn Queue>) -> Arc<Self> {
        let departures = Arc::new(Departures::default());
        let noted = departures.clone();
        let registry = Registry::new(Some(Box::new(move |change, epoch| {
            // Whoever comes is claimed by the handshake; a socket that was refused before has no claim.
            if let Change::Disconnected(socket) = change
                && epoch > 0
            {
                noted.gone.lock().push((socket, epoch));
                noted.wake.notify_one();
            }
        })));
        let (batches, waiting) = mpsc::channel(limits::HOSTS_BATCHES_WAITING_MAX);
        Arc::new(Self {
            node: node.to_owned(),
            boot: Uuid::new_v4(),
            registry,
            store,
            bus,
            queue,
            batches,
            waiting: tokio::sync::Mutex::new(waiting),
            has_missed: AtomicBool::new(false),
            departures,
            compare: Notify::new(),
        })
    }

    /// The sockets of this host.
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.clone()
    }

    /// Releases what this host had claimed before it was started. To be called before its first socket opens.
    pub async fn begin(&self) -> Result<(), FeedError> {
        let released = self.store.release_own(self.announced().await).await?;
        if released > 0 {
            tracing::info!(devices = released, "this host had ended without a word; its devices are released");
        }
        Ok(())
    }

    /// Everything that goes on by itself, for ever.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(self.send(), self.receive(), self.compare_heads(), self.release(), self.sweep());
    }

    /// This device is here from now on: wherever it was, its socket closes. Before its feed is read, so that nothing is delivered past it.
    pub(super) async fn claim(&self, connection: &Connection, devices_max: usize) -> Result<(), ClaimError> {
        let socket = connection.socket();
        let claimed = self.store.claim(&socket, devices_max, self.announced().await).await?;
        connection.epoch.store(claimed.epoch, Ordering::SeqCst);
        if let Some(node) = claimed.replaced {
            let item = Item::Replaced { user: socket.user_id, device: socket.device_id, epoch: claimed.epoch };
            // Lost, the other host finds out by itself (`sweep`).
            let _ = self.bus.publish(&subject_of(&node), Message { from: self.boot, number: 0, items: vec![item] }.bytes()).await;
        }
        Ok(())
    }

    /// Releases all that has gone so far.
    pub async fn flush(&self) -> Result<(), FeedError> {
        let _writing = self.departures.writing.lock().await;
        loop {
            let gone: Vec<_> = self.departures.gone.lock().iter().take(limits::DEVICE_HOSTS_RELEASED_AT_ONCE).cloned().collect();
            if gone.is_empty() {
                return Ok(());
            }
            self.store.release_devices(&gone, self.announced().await).await?;
            self.departures.gone.lock().drain(..gone.len());
        }
    }

    /// Where that is not known, they are written.
    async fn announced(&self) -> Announced {
        Announced {
            connected: self.queue.has_subscribers(CONNECTED).await.unwrap_or(true),
            disconnected: self.queue.has_subscribers(DISCONNECTED).await.unwrap_or(true),
        }
    }

    fn pass_on(&self, batch: Batch) {
        if self.batches.try_send(batch).is_err() {
            metrics::counter!("echo_hub_batches_not_sent_total").increment(1);
            self.has_missed.store(true, Ordering::SeqCst);
        }
    }

    // --- To other hosts -----------------------------------------------------------------------------------------------------------

    async fn send(&self) {
        let mut waiting = self.waiting.lock().await;
        let mut numbers: HashMap<String, u64> = HashMap::new();
        let mut batches = Vec::new();
        while waiting.recv_many(&mut batches, limits::RELAY_BATCH).await > 0 {
            if let Err(error) = self.send_some(&batches, &mut numbers).await {
                tracing::debug!(%error, "other hosts are left to find in the feeds what is new");
                self.has_missed.store(true, Ordering::SeqCst);
            }
            batches.clear();
        }
    }

    async fn send_some(&self, batches: &[Batch], numbers: &mut HashMap<String, u64>) -> Result<(), FeedError> {
        if self.has_missed.swap(false, Ordering::SeqCst) {
            numbers.values_mut().for_each(|number| *number += 1);
        }
        let mut users: Vec<Uuid> = Vec::new();
        for batch in batches {
            match batch {
                Batch::Durable(entries) => users.extend(entries.iter().map(|entry| entry.user)),
                Batch::Ephemeral(push) => users.extend(&push.users),
            }
        }
        users.sort_unstable();
        users.dedup();
        let mut located: HashMap<Uuid, Vec<String>> = HashMap::new();
        for (user, node) in self.store.locate(&users).await? {
            located.entry(user).or_default().push(node);
        }
        for (node, items) in message::by_host(batches, &located) {
            let number = numbers.entry(node.clone()).or_default();
            for items in message::within_bound(items) {
                *number += 1;
                if items.is_empty() {
                    continue;
                }
                // Lost, the number is missing there.
                if let Err(error) = self.bus.publish(&subject_of(&node), Message { from: self.boot, number: *number, items }.bytes()).await
                {
                    tracing::debug!(%error, node, "not sent");
                }
            }
        }
        Ok(())
    }

    // --- From other hosts ---------------------------------------------------------------------------------------------------------

    async fn receive(&self) {
        let own = subject_of(&self.node);
        let mut deliveries = self.bus.subscribe(&[EVERY_HOST, &own]).await;
        let mut last: BTreeMap<Uuid, u64> = BTreeMap::new();
        while let Some(delivery) = deliveries.next().await {
            let message = match delivery {
                Delivery::Interrupted => {
                    self.compare.notify_one();
                    continue;
                }
                Delivery::Message(bytes) => Message::read(&bytes),
            };
            match message {
                Some(message) if message.from == self.boot => {}
                Some(message) => {
                    if message.number > 0 && last.insert(message.from, message.number).unwrap_or(0) + 1 != message.number {
                        metrics::counter!("echo_hub_bus_gaps_total").increment(1);
                        self.compare.notify_one();
                    }
                    // Those of hosts that have been started again since.
                    if last.len() > limits::BUS_MESSAGES_WAITING_MAX {
                        last.pop_first();
                    }
                    self.take(message);
                }
                None => tracing::warn!("a message on the bus between hosts cannot be read; do they run the same version?"),
            }
        }
    }

    fn take(&self, message: Message) {
        for item in message.items {
            match item {
                Item::Durable { event, payload, at_us, to } => {
                    let payload: Arc<str> = payload.into();
                    let entry = |(user, seq)| FeedEntry { user, seq, event: event.clone(), payload: payload.clone(), at_us };
                    self.registry.deliver(&to.into_iter().map(entry).collect::<Vec<_>>());
                }
                Item::Ephemeral(push) => self.registry.deliver_ephemeral(&push),
                Item::Replaced { user, device, epoch } => {
                    if let Some(connection) = self.registry.connection_of(user, &device)
                        && connection.epoch.load(Ordering::SeqCst) < epoch
                    {
                        connection.close(Close::Replaced);
                    }
                }
                Item::DisconnectSession(session) => self.registry.disconnect_session(session),
                Item::DisconnectUser(user) => self.registry.disconnect_user(user),
            }
        }
    }

    /// Heads are looked at when something may be missing; all the time while the bus is away; and now and then, against what nobody noticed: those of the
    /// last time, as what is newer may be on its way.
    async fn compare_heads(&self) {
        let mut before: Vec<(Uuid, u64)> = Vec::new();
        let mut compared_at = Instant::now();
        loop {
            let pause = tokio::time::sleep(Duration::from_millis(limits::HEADS_COMPARED_AWAY_MS));
            let is_asked = tokio::select! {
                () = self.compare.notified() => true,
                () = pause => self.bus.ping().await.is_err(),
            };
            if !is_asked && compared_at.elapsed() < Duration::from_millis(limits::HEADS_COMPARED_MS) {
                continue;
            }
            compared_at = Instant::now();
            let Some(heads) = self.heads_of_all(is_asked).await else { continue };
            for (user, head) in if is_asked { &heads } else { &before } {
                self.registry.note_head(*user, *head);
            }
            before = heads;
        }
    }

    /// Of all who are here. None: there is something new to hurry for, and it begins again.
    async fn heads_of_all(&self, is_asked: bool) -> Option<Vec<(Uuid, u64)>> {
        let mut heads = Vec::new();
        for (page, users) in self.registry.users().chunks(limits::HEADS_READ_AT_ONCE).enumerate() {
            let pause = Duration::from_millis(limits::HOSTS_PAGES_PAUSE_MS);
            if page > 0 && !is_asked && tokio::time::timeout(pause, self.compare.notified()).await.is_ok() {
                self.compare.notify_one();
                return None;
            }
            match self.store.heads(users).await {
                Ok(some) => heads.extend(some),
                Err(error) => tracing::debug!(%error, "heads cannot be compared now"),
            }
        }
        Some(heads)
    }

    // --- Who is where -------------------------------------------------------------------------------------------------------------

    async fn release(&self) {
        loop {
            self.departures.wake.notified().await;
            tokio::time::sleep(Duration::from_millis(limits::DEVICE_HOSTS_GATHER_MS)).await;
            let mut backoff = Backoff::from_ms(limits::FEED_RETRY_FIRST_MS, limits::FEED_RETRY_LAST_MS);
            while let Err(error) = self.flush().await {
                if backoff.is_fresh() {
                    tracing::warn!(%error, "devices that have gone cannot be released yet");
                }
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }

    async fn sweep(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(limits::DEVICE_HOSTS_SWEEP_MS)).await;
            let swept = async {
                let announced = self.announced().await;
                while self.store.release_of_lost_hosts(announced).await? == limits::DEVICE_HOSTS_RELEASED_AT_ONCE as u64 {}
                self.mend(announced).await
            };
            if let Err(error) = swept.await {
                tracing::debug!(%error, "devices' hosts cannot be looked over now");
            }
        }
    }

    /// What this host has and what it has claimed become the same again: after it was taken for lost, and after messages that were.
    async fn mend(&self, announced: Announced) -> Result<(), FeedError> {
        // Before it is asked what is claimed: what comes meanwhile is claimed already and no concern of this.
        let mut here = self.registry.all();
        here.sort_unstable_by_key(|connection| connection.user);
        let (mut here, mut after) = (here.as_slice(), Uuid::nil());
        loop {
            let page = self.store.claimed(after, limits::HEADS_READ_AT_ONCE).await?;
            let (of_page, rest) =
                here.split_at(page.up_to.map_or(here.len(), |up_to| here.partition_point(|connection| connection.user <= up_to)));
            self.mend_some(of_page, page.devices, announced).await?;
            let Some(up_to) = page.up_to else { return Ok(()) };
            (here, after) = (rest, up_to);
            tokio::time::sleep(Duration::from_millis(limits::HOSTS_PAGES_PAUSE_MS)).await;
        }
    }

    /// `claimed`: all of the same users.
    async fn mend_some(&self, here: &[Arc<Connection>], claimed: Vec<(Uuid, String, u64)>, announced: Announced) -> Result<(), FeedError> {
        let claimed: HashMap<(Uuid, String), u64> = claimed.into_iter().map(|(user, device, epoch)| ((user, device), epoch)).collect();
        for connection in here {
            let epoch = connection.epoch.load(Ordering::SeqCst);
            let socket = connection.socket();
            let is_claimed = claimed.contains_key(&(socket.user_id, socket.device_id.clone()));
            let is_current =
                || self.registry.connection_of(socket.user_id, &socket.device_id).is_some_and(|now| Arc::ptr_eq(&now, connection));
            if epoch == 0 || is_claimed || !is_current() {
                continue;
            }
            match self.store.claim_again(&socket, announced).await? {
                Some(epoch) => connection.epoch.store(epoch, Ordering::SeqCst),
                None => connection.close(Close::Replaced),
            }
        }
        let is_gone = |((user, device), _): &(&(Uuid, String), &u64)| self.registry.connection_of(*user, device).is_none();
        let socket = |((user, device), epoch): (&(Uuid, String), &u64)| {
            let (connection_id, session_id) = (Uuid::nil(), Uuid::nil());
            (DeviceSocket { connection_id, user_id: *user, device_id: device.clone(), session_id }, *epoch)
        };
        let gone: Vec<_> = claimed.iter().filter(is_gone).map(socket).collect();
        for some in gone.chunks(limits::DEVICE_HOSTS_RELEASED_AT_ONCE) {
            self.store.release_devices(some, announced).await?;
        }
        Ok(())
    }

    fn tell_every_host(&self, item: Item) {
        let (bus, message) = (self.bus.clone(), Message { from: self.boot, number: 0, items: vec![item] });
        // A revocation reaches every host by itself; this one is for speed.
        tokio::spawn(async move { bus.publish(EVERY_HOST, message.bytes()).await });
    }
}

#[async_trait]
impl Sockets for Hosts {
    fn deliver(&self, entries: &[FeedEntry]) {
        if !entries.is_empty() {
            self.registry.deliver(entries);
            self.pass_on(Batch::Durable(entries.to_vec()));
        }
    }

    fn deliver_ephemeral(&self, push: &Push) {
        self.registry.deliver_ephemeral(push);
        self.pass_on(Batch::Ephemeral(push.clone()));
    }

    async fn online(&self, users: &[Uuid]) -> Result<Vec<Uuid>, FeedError> {
        self.store.online(users).await
    }

    fn disconnect_session(&self, session: Uuid) {
        self.registry.disconnect_session(session);
        self.tell_every_host(Item::DisconnectSession(session));
    }

    fn disconnect_user(&self, user: Uuid) {
        self.registry.disconnect_user(user);
        self.tell_every_host(Item::DisconnectUser(user));
    }
}

/// The subject of what is for one host. A name's dots and other characters would mean something there.
fn subject_of(node: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let encode = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("={byte:02X}") };
    format!("host.{}", node.bytes().map(encode).collect::<String>())
}
