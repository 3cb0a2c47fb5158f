//! A certificate for the proxies, which signs itself and is trusted by this program alone.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use crate::route::HOST_NAME;

/// The files for the proxies, and what trusts them.
#[derive(Clone)]
pub(crate) struct Certificate {
    pub(crate) public: PathBuf,
    pub(crate) key: PathBuf,
    /// Certificate and key in one file.
    pub(crate) both: PathBuf,
    roots: Arc<RootCertStore>,
}

impl Certificate {
    /// Makes one with `openssl`.
    pub(crate) fn make(folder: &Path) -> Result<Self> {
        let file = |name: &str| folder.join(name);
        let [public, key, both] = ["chat.pem", "chat.key", "chat.both.pem"].map(file);
        let output = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-nodes", "-days", "2", "-subj", &format!("/CN={HOST_NAME}")])
            .args(["-addext", &format!("subjectAltName=DNS:{HOST_NAME}")])
            // rustls accepts no authority's certificate as a server's own.
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-out")
            .arg(&public)
            .arg("-keyout")
            .arg(&key)
            .output()
            .context("openssl is not installed (apt-get install openssl)")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "openssl makes no certificate: {said}");
        fs::write(&both, [fs::read(&public)?, fs::read(&key)?].concat())?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&public)?)?;
        Ok(Self { public, key, both, roots: Arc::new(roots) })
    }

    /// Begins TLS, and offers this protocol alone.
    pub(crate) async fn connect(
        &self,
        socket: TcpStream,
        protocol: &[u8],
    ) -> Result<TlsStream<TcpStream>> {
        let roots = Arc::clone(&self.roots);
        let mut config =
            ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        let name = ServerName::try_from(HOST_NAME)?;
        TlsConnector::from(Arc::new(config)).connect(name, socket).await.context("beginning TLS")
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}
