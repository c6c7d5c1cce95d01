//! Which certificates a connection trusts. libpq's `sslmode`: <https://www.postgresql.org/docs/current/libpq-ssl.html>

use std::sync::Arc;

use hydrant_core::capture::{Connection, Failure, SslMode};
use hydrant_core::clock::Clock;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::ServerError;

/// How a connection encrypts; `None` for plaintext. Reads the machine's own authorities if the
/// connection names none, on a thread that may block.
pub(super) async fn client(
    connection: &Connection,
    clock: Arc<dyn Clock>,
) -> Result<Option<Arc<ClientConfig>>, ServerError> {
    let given = connection.ssl_authority.as_deref();
    let provider = Arc::new(ring::default_provider());
    let lenient = |chain| Arc::new(Lenient { chain, provider: provider.clone() });
    let verifier: Arc<dyn ServerCertVerifier> = match (connection.ssl_mode, given) {
        (SslMode::Disable, None) => return Ok(None),
        (SslMode::Disable, Some(_)) => {
            return Err(refused(
                "SSL MODE 'disable' encrypts nothing, so SSL CERTIFICATE AUTHORITY \
                                has no use: leave it out or choose 'verify-full'",
            ));
        }
        // As libpq does: an authority that is given is used.
        (SslMode::Require, None) => lenient(None),
        (SslMode::Require | SslMode::VerifyCa, _) => lenient(Some(chain(given, &provider).await?)),
        (SslMode::VerifyFull, _) => chain(given, &provider).await?,
    };
    let config = ClientConfig::builder_with_details(provider, Arc::new(Now(clock)))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(&error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Some(Arc::new(config)))
}

fn refused(text: &str) -> ServerError {
    ServerError::failed(Failure::Tls, text)
}

/// Looks whether a chain of certificates leads to a given or a public authority, and to the host.
async fn chain(
    given: Option<&str>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, ServerError> {
    let roots = match given {
        Some(pem) => given_roots(pem)?,
        None => public_roots().await?,
    };
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| refused(&format!("no authority can be used: {error}")))
}

fn given_roots(pem: &str) -> Result<RootCertStore, ServerError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let added = certificate.ok().and_then(|der| roots.add(der).ok());
        added.ok_or_else(|| {
            refused("SSL CERTIFICATE AUTHORITY holds a certificate that cannot be read")
        })?;
    }
    if roots.is_empty() {
        return Err(refused(
            "SSL CERTIFICATE AUTHORITY holds no certificate: a PEM block CERTIFICATE is needed",
        ));
    }
    Ok(roots)
}

async fn public_roots() -> Result<RootCertStore, ServerError> {
    let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
    let found = found.map_err(|error| refused(&error.to_string()))?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(refused(
            "this machine has no list of public certificate authorities: install ca-certificates, \
             or give the connection SSL CERTIFICATE AUTHORITY",
        ));
    }
    Ok(roots)
}

struct Now(Arc<dyn Clock>);

impl std::fmt::Debug for Now {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Now")
    }
}

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        let since_epoch = std::time::Duration::from_secs(self.0.now().as_secs());
        Some(UnixTime::since_unix_epoch(since_epoch))
    }
}

/// Trusts more than `verify-full` does: with a chain to look at, whoever has a certificate of the
/// authority, whatever its name (`verify-ca`); without one, whoever owns the key of the certificate that
/// is shown (`require`).
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        // The chain is verified before the name, so a complaint about the name means a good chain.
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
