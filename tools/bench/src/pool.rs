//! Connections that stay open, for whoever makes a call now and then.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Result, ensure};
use rig::{Cluster, KeepAlive};

/// As many connections to the server as there ever were calls at once.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    address: SocketAddr,
    idle: Arc<Mutex<Vec<KeepAlive>>>,
}

impl Pool {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        Self { address: cluster.servers[0].address(), idle: Arc::default() }
    }

    /// Makes a call that is to succeed.
    pub(crate) async fn call(&self, request: &str) -> Result<()> {
        let status = self.status(request).await?;
        ensure!((200..300).contains(&status), "a call was answered with {status}");
        Ok(())
    }

    /// Makes a call.
    pub(crate) async fn status(&self, request: &str) -> io::Result<u16> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => KeepAlive::connect(self.address).await?,
        };
        let answered = connection.call(request).await.map(|response| response.status);
        let status = if let Ok(status) = answered {
            status
        } else {
            // Servers close what has been idle for long; what is called here can all be called twice.
            connection = KeepAlive::connect(self.address).await?;
            connection.call(request).await?.status
        };
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(status)
    }
}
