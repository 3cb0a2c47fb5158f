//! The device that a request comes from.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use axum::extract::FromRequestParts;
use axum::http::header::USER_AGENT;
use axum::http::request::Parts;
use fechatter_core::http::Peer;

use crate::models::account::device::Device;
use crate::state::AppState;

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
