//! The device that a request comes from.

use std::net::{IpAddr, Ipv6Addr};

use fechatter_core::http::network;

/// The client's address, and what it calls itself.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) address: IpAddr,
    pub(crate) user_agent: Option<String>,
}

impl Device {
    /// The address as far as it names one client: of IPv6, its network of 64 bits.
    pub(crate) fn network(&self) -> IpAddr {
        network(self.address)
    }

    /// The IPv6 network of 48 bits that one organisation has: whoever has one may choose among
    /// 65,536 of 64 bits.
    pub(crate) fn site(&self) -> Option<Ipv6Addr> {
        match self.address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80))),
        }
    }
}
