//! Devices' hosts in PostgreSQL, beside the feeds: whoever is told of a device by an event sees it in the table.

use async_trait::async_trait;
use sqlx::Row;
use sqlx::postgres::{PgArguments, PgRow};
use uuid::Uuid;

use super::{PostgresFeed, now_us};
use crate::events::Event;
use crate::hub::FeedError;
use crate::hub::{Announced, CONNECTED, ClaimError, Claimed, ClaimedPage, DISCONNECTED, DeviceHosts, DeviceSocket};
use crate::sql::SqlError;
use crate::sql::postgres::rows::{add, identifier, number, signed, string, unreadable, unreadable_because, unsigned};
use echo_base::limits;

#[cfg(test)]
mod tests;

pub(super) const TABLES: &str = "
    CREATE SEQUENCE IF NOT EXISTS device_host_epoch;
    CREATE TABLE IF NOT EXISTS device_host (user_id UUID NOT NULL, device TEXT NOT NULL, node TEXT NOT NULL, epoch BIGINT NOT NULL, connection UUID NOT NULL,
        session UUID NOT NULL, PRIMARY KEY (user_id, device));
    CREATE INDEX IF NOT EXISTS device_host_of_node ON device_host (node, user_id)";

#[async_trait]
impl DeviceHosts for PostgresFeed {
    async fn claim(&self, socket: &DeviceSocket, devices_max: usize, announced: Announced) -> Result<Claimed, ClaimError> {
        let mut connection = self.begin().await.map_err(FeedError::from)?;
        let claiming = async {
            let user = socket.user_id.to_string();
            // A user's claims one after another: two devices are counted right, and two hosts that want one do not both find nobody there.
            let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 7))::text";
            connection.rows(lock, vec![user.as_str().into()]).await?;
            let sql = "WITH before AS (SELECT node FROM device_host WHERE user_id = $1::text::uuid AND device = $2),
                put AS (INSERT INTO device_host AS known (user_id, device, node, epoch, connection, session)
                    VALUES ($1::text::uuid, $2, $3, nextval('device_host_epoch'), $4::text::uuid, $5::text::uuid)
                    ON CONFLICT (user_id, device) DO UPDATE SET node = excluded.node, epoch = excluded.epoch, connection = excluded.connection,
                        session = excluded.session
                    RETURNING epoch)
                SELECT put.epoch, (SELECT node FROM before), (SELECT count(*) FROM device_host WHERE user_id = $1::text::uuid AND device <> $2) FROM put";
            let mut given = PgArguments::default();
            self.add_socket(&mut given, socket)?;
            let rows = connection.rows_with(sql, given).await?;
            let row = rows.first().ok_or_else(unreadable)?;
            let before: Option<String> = row.try_get(1).map_err(unreadable_because)?;
            Ok::<_, SqlError>((unsigned(row, 0)?, before, number(row, 2)?))
        };
        let (epoch, before, others) = claiming.await.map_err(FeedError::from)?;
        if before.is_none() && others >= i64::try_from(devices_max).unwrap_or(i64::MAX) {
            connection.rollback().await.map_err(FeedError::from)?;
            return Err(ClaimError::TooManyDevices);
        }
        let is_new = before.is_none() && announced.connected;
        let events = is_new.then(|| socket.event(CONNECTED, Uuid::now_v7(), now_us())).into_iter().collect();
        self.publish_and_commit(connection, events).await.map_err(FeedError::from)?;
        Ok(Claimed { epoch, replaced: before.filter(|node| *node != self.shared.node) })
    }

    async fn claim_again(&self, socket: &DeviceSocket, announced: Announced) -> Result<Option<u64>, FeedError> {
        let mut connection = self.begin().await?;
        let sql = "INSERT INTO device_host (user_id, device, node, epoch, connection, session)
            VALUES ($1::text::uuid, $2, $3, nextval('device_host_epoch'), $4::text::uuid, $5::text::uuid) ON CONFLICT (user_id, device) DO NOTHING
            RETURNING epoch";
        let mut given = PgArguments::default();
        self.add_socket(&mut given, socket)?;
        let rows = connection.rows_with(sql, given).await?;
        let Some(epoch) = rows.first().map(|row| unsigned(row, 0)).transpose()? else {
            connection.rollback().await?;
            return Ok(None);
        };
        let events = announced.connected.then(|| socket.event(CONNECTED, Uuid::now_v7(), now_us())).into_iter().collect();
        self.publish_and_commit(connection, events).await?;
        Ok(Some(epoch))
    }

    async fn release_devices(&self, sockets: &[(DeviceSocket, u64)], announced: Announced) -> Result<(), FeedError> {
        let mut given = PgArguments::default();
        add(&mut given, sockets.iter().map(|(socket, _)| socket.user_id.to_string()).collect::<Vec<_>>())?;
        add(&mut given, sockets.iter().map(|(socket, _)| socket.device_id.clone()).collect::<Vec<_>>())?;
        add(&mut given, sockets.iter().map(|(_, epoch)| signed(*epoch)).collect::<Vec<_>>())?;
        add(&mut given, self.shared.node.clone())?;
        // Locked in the order of the key, as there are others who do this.
        let sql = "WITH gone AS (SELECT known.user_id, known.device FROM device_host AS known
                JOIN unnest($1::text[], $2::text[], $3::bigint[]) AS given(user_id, device, epoch)
                    ON known.user_id = given.user_id::uuid AND known.device = given.device AND known.epoch = given.epoch
                WHERE known.node = $4 ORDER BY known.user_id, known.device FOR UPDATE OF known)
            DELETE FROM device_host AS known USING gone WHERE known.user_id = gone.user_id AND known.device = gone.device
            RETURNING known.user_id::text, known.device, known.connection::text, known.session::text";
        self.remove(sql, given, announced).await.map(drop)
    }

    async fn release_own(&self, announced: Announced) -> Result<u64, FeedError> {
        let mut given = PgArguments::default();
        add(&mut given, self.shared.node.clone())?;
        let sql = "DELETE FROM device_host WHERE node = $1 RETURNING user_id::text, device, connection::text, session::text";
        self.remove(sql, given, announced).await
    }

    async fn release_of_lost_hosts(&self, announced: Announced) -> Result<u64, FeedError> {
        let mut given = PgArguments::default();
        add(&mut given, self.shared.node.clone())?;
        add(&mut given, limits::DEVICE_HOSTS_RELEASED_AT_ONCE as i64)?;
        add(&mut given, limits::DEVICE_HOSTS_LOST_MS as f64 / 1_000.0)?;
        // From host to host by the index: most devices are those of hosts that are there, and are not read.
        let sql = "WITH RECURSIVE host AS (SELECT min(node) AS name FROM device_host
                UNION ALL SELECT (SELECT min(node) FROM device_host WHERE node > host.name) FROM host WHERE host.name IS NOT NULL),
            lost AS (SELECT name FROM host WHERE name <> $1 AND NOT EXISTS
                (SELECT 1 FROM node WHERE node.name = host.name AND node.seen_at > clock_timestamp() - make_interval(secs => $3))),
            gone AS (SELECT known.user_id, known.device FROM device_host AS known WHERE known.node IN (SELECT name FROM lost)
                ORDER BY known.user_id, known.device LIMIT $2 FOR UPDATE OF known)
            DELETE FROM device_host AS known USING gone WHERE known.user_id = gone.user_id AND known.device = gone.device
            RETURNING known.user_id::text, known.device, known.connection::text, known.session::text";
        self.remove(sql, given, announced).await
    }

    async fn locate(&self, users: &[Uuid]) -> Result<Vec<(Uuid, String)>, FeedError> {
        let sql = "SELECT DISTINCT user_id::text, node FROM device_host WHERE user_id = ANY($1::text[]::uuid[]) AND node <> $2";
        let mut given = PgArguments::default();
        add(&mut given, texts(users))?;
        add(&mut given, self.shared.node.clone())?;
        let rows = self.shared.host.take().await?.rows_with(sql, given).await?;
        Ok(rows.iter().map(|row| Ok((identifier(row, 0)?, string(row, 1)?))).collect::<Result<_, SqlError>>()?)
    }

    async fn online(&self, users: &[Uuid]) -> Result<Vec<Uuid>, FeedError> {
        let sql = "SELECT DISTINCT user_id::text FROM device_host WHERE user_id = ANY($1::text[]::uuid[])";
        let mut given = PgArguments::default();
        add(&mut given, texts(users))?;
        let rows = self.shared.host.take().await?.rows_with(sql, given).await?;
        Ok(rows.iter().map(|row| identifier(row, 0)).collect::<Result<_, SqlError>>()?)
    }

    async fn claimed(&self, after: Uuid, limit: usize) -> Result<ClaimedPage, FeedError> {
        // More than one user has.
        let limit = limit.max(limits::DEVICES_PER_USER_MAX + 1);
        let mut given = PgArguments::default();
        add(&mut given, self.shared.node.clone())?;
        add(&mut given, after.to_string())?;
        add(&mut given, limit as i64)?;
        let sql =
            "SELECT user_id::text, device, epoch FROM device_host WHERE node = $1 AND user_id > $2::text::uuid ORDER BY user_id LIMIT $3";
        let rows = self.shared.host.take().await?.rows_with(sql, given).await?;
        let devices = rows.iter().map(|row| Ok((identifier(row, 0)?, string(row, 1)?, unsigned(row, 2)?)));
        Ok(ClaimedPage::of(devices.collect::<Result<_, SqlError>>()?, limit))
    }

    async fn heads(&self, users: &[Uuid]) -> Result<Vec<(Uuid, u64)>, FeedError> {
        let mut given = PgArguments::default();
        add(&mut given, texts(users))?;
        let sql = "SELECT id::text, head FROM feed_user WHERE id = ANY($1::text[]::uuid[])";
        let rows = self.shared.host.take().await?.rows_with(sql, given).await?;
        Ok(rows.iter().map(|row| Ok((identifier(row, 0)?, unsigned(row, 1)?))).collect::<Result<_, SqlError>>()?)
    }
}

impl PostgresFeed {
    fn add_socket(&self, given: &mut PgArguments, socket: &DeviceSocket) -> Result<(), SqlError> {
        add(given, socket.user_id.to_string())?;
        add(given, socket.device_id.clone())?;
        add(given, self.shared.node.clone())?;
        add(given, socket.connection_id.to_string())?;
        add(given, socket.session_id.to_string())
    }

    /// `sql` removes devices and returns them.
    async fn remove(&self, sql: &'static str, given: PgArguments, announced: Announced) -> Result<u64, FeedError> {
        let mut connection = self.begin().await?;
        let rows = connection.rows_with(sql, given).await?;
        let gone = rows.iter().map(socket_of).collect::<Result<Vec<_>, _>>()?;
        let at_us = now_us();
        let event = |socket: &DeviceSocket| -> Event { socket.event(DISCONNECTED, Uuid::now_v7(), at_us) };
        let events = if announced.disconnected { gone.iter().map(event).collect() } else { Vec::new() };
        self.publish_and_commit(connection, events).await?;
        Ok(gone.len() as u64)
    }
}

fn socket_of(row: &PgRow) -> Result<DeviceSocket, SqlError> {
    Ok(DeviceSocket {
        user_id: identifier(row, 0)?,
        device_id: string(row, 1)?,
        connection_id: identifier(row, 2)?,
        session_id: identifier(row, 3)?,
    })
}

fn texts(users: &[Uuid]) -> Vec<String> {
    users.iter().map(Uuid::to_string).collect()
}
