//! Counts and limits the open connections of a port, in total and per client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::metrics::{counter, gauge};
use axum::http::StatusCode;
use ipnet::IpNet;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::address::network;
use super::error::ApiError;
use crate::config::DEFAULT_KEEP_ALIVE;
use crate::metrics;

/// The connection limits of one port.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Names the port in the metrics.
    pub port: &'static str,
    /// The limit in total.
    pub total: usize,
    /// The limit per client: an IPv4 address, or an IPv6 network of 64 bits.
    pub per_address: usize,
    /// Networks of proxies, which connect for many clients: only the total limit applies to them.
    pub exempt: Vec<IpNet>,
    /// The time that an idle connection may wait for its next request.
    pub idle: Duration,
}

impl ConnectionLimits {
    /// Returns the limits of an operations port.
    #[must_use]
    pub fn operations() -> Self {
        const TOTAL: usize = 1_000;
        let idle = Duration::from_secs(DEFAULT_KEEP_ALIVE.into());
        Self { port: "operations", total: TOTAL, per_address: TOTAL, exempt: Vec::new(), idle }
    }
}

/// The open connections of a port.
#[derive(Debug)]
pub(super) struct Connections {
    limits: ConnectionLimits,
    counts: Mutex<OpenCounts>,
}

/// The numbers of open connections.
#[derive(Debug, Default)]
struct OpenCounts {
    total: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// The reason why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The limit of the client is reached.
    Address,
    /// The limit of the port is reached.
    Total,
}

/// The slot of one open connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    connections: Arc<Connections>,
    client: IpAddr,
}

/// A connection that counts as open, and that the shutdown waits for, until this is dropped.
#[derive(Debug)]
pub struct OpenConnection {
    _slot: Slot,
    _token: TaskTrackerToken,
}

impl Connections {
    pub(super) fn new(limits: ConnectionLimits) -> Arc<Self> {
        // Creates the metrics with the value 0, so that they are exported before the first refusal.
        for reason in [Refusal::Address, Refusal::Total] {
            record_refusals(&limits, reason, 0);
        }
        gauge!(metrics::CONNECTIONS_OPEN, "port" => limits.port).increment(0);
        Arc::new(Self { limits, counts: Mutex::default() })
    }

    /// Counts a connection from this address, or refuses it if a limit is reached.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Slot, Refusal> {
        let address = address.to_canonical();
        let client = network(address);
        let admitted = self.lock_counts().admit(&self.limits, address, client);
        if let Err(refusal) = admitted {
            record_refusals(&self.limits, refusal, 1);
            return Err(refusal);
        }
        gauge!(metrics::CONNECTIONS_OPEN, "port" => self.limits.port).increment(1);
        Ok(Slot { connections: Arc::clone(self), client })
    }

    fn lock_counts(&self) -> MutexGuard<'_, OpenCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenCounts {
    fn admit(
        &mut self,
        limits: &ConnectionLimits,
        address: IpAddr,
        client: IpAddr,
    ) -> Result<(), Refusal> {
        let of_client = self.by_client.get(&client).copied().unwrap_or_default();
        let is_exempt = || limits.exempt.iter().any(|proxies| proxies.contains(&address));
        if of_client >= limits.per_address && !is_exempt() {
            return Err(Refusal::Address);
        }
        if self.total >= limits.total {
            return Err(Refusal::Total);
        }
        self.total += 1;
        self.by_client.insert(client, of_client + 1);
        Ok(())
    }

    fn forget(&mut self, client: IpAddr) {
        self.total -= 1;
        if let Some(of_client) = self.by_client.get_mut(&client) {
            *of_client -= 1;
            if *of_client == 0 {
                self.by_client.remove(&client);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connections.lock_counts().forget(self.client);
        gauge!(metrics::CONNECTIONS_OPEN, "port" => self.connections.limits.port).decrement(1);
    }
}

impl OpenConnection {
    pub(super) fn new(slot: Slot, token: TaskTrackerToken) -> Self {
        Self { _slot: slot, _token: token }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Address => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limited",
                "too many connections from this address",
            )
            .retry_after(Duration::from_secs(5)),
            Refusal::Total => Self::unavailable("too many connections to this server"),
        }
    }
}

/// Adds refused connections to the metric. The label `all` is the limit in total, not a sum.
fn record_refusals(limits: &ConnectionLimits, refusal: Refusal, connections: u64) {
    let reason = match refusal {
        Refusal::Address => "address",
        Refusal::Total => "all",
    };
    counter!(metrics::CONNECTIONS_REFUSED, "port" => limits.port, "reason" => reason)
        .increment(connections);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(total: usize, per_address: usize) -> Arc<Connections> {
        Connections::new(ConnectionLimits {
            port: "public",
            total,
            per_address,
            exempt: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            idle: Duration::from_secs(1),
        })
    }

    fn ip(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn a_client_cannot_have_more_by_changing_its_address_within_its_network() {
        let connections = connections(100, 2);
        let _one = connections.admit(ip("2001:db8::1")).unwrap();
        let two = connections.admit(ip("2001:db8::ffff:1")).unwrap();

        assert_eq!(connections.admit(ip("2001:db8::2")).unwrap_err(), Refusal::Address);
        assert!(connections.admit(ip("2001:db8:0:1::2")).is_ok(), "another network");
        drop(two);
        assert!(connections.admit(ip("2001:db8::2")).is_ok());
    }

    #[test]
    fn an_ipv4_address_is_the_same_when_it_comes_as_ipv6() {
        let connections = connections(100, 1);
        let _one = connections.admit(ip("192.0.2.1")).unwrap();

        assert_eq!(connections.admit(ip("::ffff:192.0.2.1")).unwrap_err(), Refusal::Address);
    }

    #[test]
    fn a_proxy_may_have_all_connections_that_there_are() {
        let connections = connections(5, 1);
        let proxies = ["10.0.0.1", "10.0.0.1", "::ffff:10.0.0.1", "fd00::1", "fd00::1"];
        let _open = proxies.map(|proxy| connections.admit(ip(proxy)).unwrap());

        assert_eq!(connections.admit(ip("10.0.0.1")).unwrap_err(), Refusal::Total);
        assert_eq!(connections.admit(ip("192.0.2.1")).unwrap_err(), Refusal::Total);
    }

    #[test]
    fn clients_that_have_gone_are_forgotten() {
        let connections = connections(100, 1);
        for client in 0..1_000_u32 {
            connections.admit(std::net::Ipv4Addr::from_bits(client).into()).unwrap();
        }
        let counts = connections.lock_counts();
        assert_eq!((counts.total, counts.by_client.len()), (0, 0));
    }
}
