//! The device that a request comes from.

use std::net::{IpAddr, Ipv6Addr};

use fechatter_core::http::network;

/// The client's address and its user agent.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) address: IpAddr,
    pub(crate) user_agent: Option<String>,
}

impl Device {
    /// Returns the part of the address that identifies a client: for IPv6, the network of 64 bits.
    pub(crate) fn network(&self) -> IpAddr {
        network(self.address)
    }

    /// Returns the IPv6 network of 48 bits, because an organisation with such a network can use all
    /// of its 65,536 networks of 64 bits.
    pub(crate) fn site(&self) -> Option<Ipv6Addr> {
        match self.address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80))),
        }
    }
}
