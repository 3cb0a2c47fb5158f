//! Where a request comes from.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use axum::extract::FromRequestParts;
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use fechatter_core::http::{Peer, network};

use crate::AppState;

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

impl FromRequestParts<AppState> for Device {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<Peer>();
        let peer = peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |Peer(address)| address.ip());
        let forwarded: Vec<_> = parts
            .headers
            .get_all("x-forwarded-for")
            .iter()
            .map(|value| value.to_str().unwrap_or_default())
            .collect();
        let user_agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
        Ok(Self {
            address: state.config.http.client_address(peer, &forwarded),
            user_agent: user_agent.map(|text| text.chars().take(256).collect()),
        })
    }
}
