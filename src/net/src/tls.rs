//! Mutual TLS 1.3 between starters and event agents, under a certificate authority of the session's own.
//!
//! The session's root key stays with the master ([`SessionCa`]). Each site gets an intermediate ([`SiteAuthority`]) whose
//! X.509 name constraints permit the site's own names only, so that a stolen one is worth nothing at another site. The
//! agent issues itself and each proxy an [`Identity`]. Names, all below [`Domain`]:
//!
//! ```text
//! SITE.SESSION.vo.invalid                 the domain of one site in one session
//! agent.SITE.SESSION.vo.invalid           its event agent: may only serve
//! starter.SITE.SESSION.vo.invalid         any starter of it: may only be a client
//! p17.starter.SITE.SESSION.vo.invalid     the starters of proxy 17
//! ```
//!
//! The agent is always the TLS server and the starter the TLS client, whoever opened the TCP connection: an agent that
//! dials a starter plays the server on the stream it opened ([`accept_starter`]). Both ends pin session and site during the
//! handshake; the agent then checks with [`expect_starter`] that the certificate is that of the proxy whose number the
//! starter stated. In TLS 1.3 a client may write before the server has judged it: a starter that is refused learns it from
//! its first read.
//!
//! Before TLS a starter says a *knock* ([`Identity::knock`]): anyone on the network may open a connection, and only one who knows the
//! session's root certificate, which never travels in the open, costs the agent a handshake. A knock keeps load away, and proves nothing.
//!
//! Certificates hold from 2000 to 2100, since no clock of a compute node can be trusted: a session ends by its keys'
//! deletion.

use std::fmt;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ED25519,
};
use ring::hmac;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName as RawName, RootCertStore, ServerConfig, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// What can go wrong with identities and TLS connections.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Text that should hold certificates and a key does not.
    #[error("{what} is damaged: {why}")]
    Damaged {
        /// `session authority`, `site authority` or `identity`.
        what: &'static str,
        /// What is missing or unreadable.
        why: String,
    },
    /// A key or certificate could not be made.
    #[error("cannot issue a certificate for {name}")]
    Issue {
        /// DNS name it was for.
        name: String,
        /// The certificate library's reason.
        source: rcgen::Error,
    },
    /// The identity is unusable for TLS.
    #[error("cannot use the identity of {domain}")]
    Unusable {
        /// Domain of the identity.
        domain: Domain,
        /// The TLS library's reason.
        source: rustls::Error,
    },
    /// The peer showed no certificate, or one that is not the expected starter's.
    #[error("the peer is not {name}")]
    NotThePeer {
        /// Name the peer should have had.
        name: String,
        /// The TLS library's reason; `None` without any certificate.
        source: Option<rustls::Error>,
    },
    /// The handshake failed: wrong session or site, or the connection broke.
    #[error("TLS handshake with {name} failed")]
    Handshake {
        /// Name of the expected peer, or of the group it should belong to.
        name: String,
        /// The TLS library's reason, or the socket's.
        source: std::io::Error,
    },
}

/// Bytes of a knock.
pub const KNOCK: usize = 32;

/// Turns any text into one DNS label (lower-case letters, digits and inner hyphens, 1 to 63 bytes).
///
/// A text that is such a label of at most 40 bytes without `--` stays as it is. Any other gets its hash appended, behind
/// `--`, so that different texts never share a label.
pub fn dns_label(text: &str) -> String {
    let at_edge = text.starts_with('-') || text.ends_with('-');
    if (1..=40).contains(&text.len()) && text.bytes().all(in_label) && !at_edge && !text.contains("--") {
        return text.to_owned();
    }
    let mut label: String = text
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        .take(40)
        .collect();
    if label.is_empty() {
        label.push('x');
    }
    label.push_str("--");
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    for byte in digest.as_ref().iter().take(8) {
        label.push_str(&format!("{byte:02x}"));
    }
    label
}

fn in_label(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

/// The DNS domain of one site in one session; `Display` gives `SITE.SESSION.vo.invalid`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Domain {
    site: String,
    session: String,
}

impl Domain {
    /// Of a site and a session by their names or ids, any text ([`dns_label`] is applied).
    pub fn new(site: &str, session: &str) -> Domain {
        Domain { site: dns_label(site), session: dns_label(session) }
    }

    /// Name of the site's event agent.
    pub fn agent(&self) -> String {
        format!("agent.{self}")
    }

    /// Name that every starter of the site has.
    pub fn starters(&self) -> String {
        format!("starter.{self}")
    }

    /// Name of the starters of one proxy.
    pub fn starter(&self, proxy: u64) -> String {
        format!("p{proxy}.starter.{self}")
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.vo.invalid", self.site, self.session)
    }
}

/// Certificates and their key as one text: lines `session: LABEL` and `site: LABEL` (none in a session's authority), then
/// PEM: the certificate, those above it up to the root, and the PKCS #8 private key.
#[derive(Clone)]
struct Bundle {
    session: String,
    site: Option<String>,
    certs: Vec<CertificateDer<'static>>,
    key: Vec<u8>,
}

impl Bundle {
    fn render(&self) -> String {
        let mut text = format!("session: {}\n", self.session);
        if let Some(site) = &self.site {
            text.push_str(&format!("site: {site}\n"));
        }
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        let certs = self.certs.iter().map(|cert| pem::Pem::new("CERTIFICATE", cert.to_vec()));
        let key = pem::Pem::new("PRIVATE KEY", self.key.clone());
        text.push_str(&pem::encode_many_config(&certs.chain([key]).collect::<Vec<_>>(), config));
        text
    }

    fn parse(what: &'static str, text: &str) -> Result<Bundle, TlsError> {
        let damaged = |why: &str| TlsError::Damaged { what, why: why.to_owned() };
        let line = |name: &str| {
            let mut head = text.lines().take_while(|line| !line.starts_with("-----"));
            head.find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
        };
        let label = |value: String| match (1..=63).contains(&value.len()) && value.bytes().all(in_label) {
            true => Ok(value),
            false => Err(damaged("a name is no DNS label")),
        };
        let mut certs = Vec::new();
        let mut key = None;
        for block in pem::parse_many(text).map_err(|e| damaged(&e.to_string()))? {
            match block.tag() {
                "CERTIFICATE" => certs.push(block.into_contents().into()),
                "PRIVATE KEY" => key = Some(block.into_contents()),
                tag => return Err(damaged(&format!("unexpected {tag}"))),
            }
        }
        if certs.is_empty() {
            return Err(damaged("no certificate"));
        }
        Ok(Bundle {
            session: line("session:").ok_or_else(|| damaged("no line `session:`")).and_then(label)?,
            site: line("site:").map(label).transpose()?,
            certs,
            key: key.ok_or_else(|| damaged("no private key"))?,
        })
    }
}

/// Parameters of a certificate whose subject is `name`, valid from 2000 to 2100.
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// Parameters of the root (`depth` 1) or of an intermediate (`depth` 0). An [`Issuer`] made from them is equal to the one
/// that the certificate came from, since it takes nothing but subject, usages and key; so nothing here parses X.509.
fn authority(name: &str, depth: u8) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(depth));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn generate(name: &str) -> Result<KeyPair, TlsError> {
    KeyPair::generate_for(&PKCS_ED25519).map_err(|source| TlsError::Issue { name: name.to_owned(), source })
}

fn restore_key(what: &'static str, key: &[u8]) -> Result<KeyPair, TlsError> {
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(key), &PKCS_ED25519)
        .map_err(|e| TlsError::Damaged { what, why: e.to_string() })
}

/// The session's root of trust. Made once by the master; the key never leaves it.
pub struct SessionCa {
    bundle: Bundle,
    issuer: Issuer<'static, KeyPair>,
}

impl SessionCa {
    /// Makes a new root for the session with this name or id.
    pub fn create(session: &str) -> Result<SessionCa, TlsError> {
        let session = dns_label(session);
        let name = Self::name(&session);
        let key = generate(&name)?;
        let params = authority(&name, 1);
        let cert = params.self_signed(&key).map_err(|source| TlsError::Issue { name, source })?;
        let bundle = Bundle { session, site: None, certs: vec![cert.der().clone()], key: key.serialize_der() };
        Ok(SessionCa { bundle, issuer: Issuer::new(params, key) })
    }

    /// Restores what [`SessionCa::to_pem`] wrote.
    pub fn from_pem(text: &str) -> Result<SessionCa, TlsError> {
        let bundle = Bundle::parse("session authority", text)?;
        let key = restore_key("session authority", &bundle.key)?;
        Ok(SessionCa { issuer: Issuer::new(authority(&Self::name(&bundle.session), 1), key), bundle })
    }

    /// Certificate and private key, as text. Secret: for a 0600 file of the master's.
    pub fn to_pem(&self) -> String {
        self.bundle.render()
    }

    /// Makes an authority for one site, with a new key. Starters with identities of an earlier one stay valid.
    pub fn site_intermediate(&self, site: &str) -> Result<SiteAuthority, TlsError> {
        let domain = Domain { site: dns_label(site), session: self.bundle.session.clone() };
        let name = domain.to_string();
        let key = generate(&name)?;
        let mut params = authority(&name, 0);
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(name.clone())],
            excluded_subtrees: Vec::new(),
        });
        let cert = params.signed_by(&key, &self.issuer).map_err(|source| TlsError::Issue { name, source })?;
        let certs = [cert.der().clone()].into_iter().chain(self.bundle.certs.iter().cloned()).collect();
        let bundle = Bundle {
            session: domain.session.clone(),
            site: Some(domain.site.clone()),
            certs,
            key: key.serialize_der(),
        };
        Ok(SiteAuthority { domain, issuer: Issuer::new(params, key), bundle })
    }

    fn name(session: &str) -> String {
        format!("{session}.vo.invalid")
    }
}

/// One site's authority: signs for names of its own domain only, and no further authorities. Goes to the site's agent.
pub struct SiteAuthority {
    domain: Domain,
    bundle: Bundle,
    issuer: Issuer<'static, KeyPair>,
}

impl SiteAuthority {
    /// Restores what [`SiteAuthority::to_pem`] wrote.
    pub fn from_pem(text: &str) -> Result<SiteAuthority, TlsError> {
        let what = "site authority";
        let bundle = Bundle::parse(what, text)?;
        let domain = bundle_domain(what, &bundle)?;
        let key = restore_key(what, &bundle.key)?;
        Ok(SiteAuthority { issuer: Issuer::new(authority(&domain.to_string(), 0), key), domain, bundle })
    }

    /// Certificates and private key, as text. Secret: for a 0600 file of the agent's.
    pub fn to_pem(&self) -> String {
        self.bundle.render()
    }

    /// The names this authority may sign for.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// A new identity for the event agent itself.
    pub fn issue_agent(&self) -> Result<Identity, TlsError> {
        self.issue(vec![self.domain.agent()], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A new identity for the starters of one proxy.
    pub fn issue_starter(&self, proxy: u64) -> Result<Identity, TlsError> {
        let names = vec![self.domain.starter(proxy), self.domain.starters()];
        self.issue(names, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, names: Vec<String>, usage: ExtendedKeyUsagePurpose) -> Result<Identity, TlsError> {
        let name = names.first().cloned().unwrap_or_default();
        let failed = |source| TlsError::Issue { name: name.clone(), source };
        let key = generate(&name)?;
        let mut leaf = CertificateParams::new(names).map_err(failed)?;
        let CertificateParams { not_before, not_after, distinguished_name, .. } = params(&name);
        (leaf.not_before, leaf.not_after, leaf.distinguished_name) = (not_before, not_after, distinguished_name);
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![usage];
        let cert = leaf.signed_by(&key, &self.issuer).map_err(failed)?;
        let certs = [cert.der().clone()].into_iter().chain(self.bundle.certs.iter().cloned()).collect();
        let bundle = Bundle { certs, key: key.serialize_der(), ..self.bundle.clone() };
        Ok(Identity { domain: self.domain.clone(), bundle })
    }
}

fn bundle_domain(what: &'static str, bundle: &Bundle) -> Result<Domain, TlsError> {
    let site = bundle.site.clone().ok_or_else(|| TlsError::Damaged { what, why: "no line `site:`".to_owned() })?;
    Ok(Domain { site, session: bundle.session.clone() })
}

/// What one end of a connection proves itself with: a certificate, those above it, its key; and the root that it trusts.
#[derive(Clone)]
pub struct Identity {
    domain: Domain,
    bundle: Bundle,
}

impl Identity {
    /// Restores what [`Identity::to_pem`] wrote.
    pub fn from_pem(text: &str) -> Result<Identity, TlsError> {
        let bundle = Bundle::parse("identity", text)?;
        if bundle.certs.len() < 2 {
            return Err(TlsError::Damaged { what: "identity", why: "no root certificate".to_owned() });
        }
        Ok(Identity { domain: bundle_domain("identity", &bundle)?, bundle })
    }

    /// Certificates and private key, as text. Secret: for a 0600 file.
    pub fn to_pem(&self) -> String {
        self.bundle.render()
    }

    /// The session and site this identity belongs to.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// What a starter of the session says on a new stream to the site's agent, before TLS begins.
    pub fn knock(&self) -> [u8; KNOCK] {
        let (key, name) = self.knocking();
        let mut knock = [0; KNOCK];
        knock.copy_from_slice(hmac::sign(&key, name.as_bytes()).as_ref());
        knock
    }

    /// Is it the knock of this session and site?
    pub fn is_knock(&self, said: &[u8; KNOCK]) -> bool {
        let (key, name) = self.knocking();
        hmac::verify(&key, name.as_bytes(), said).is_ok()
    }

    fn knocking(&self) -> (hmac::Key, String) {
        let root = self.bundle.certs.last().map_or(&[][..], |root| root);
        (hmac::Key::new(hmac::HMAC_SHA256, root), format!("knock {}", self.domain))
    }

    fn unusable(&self, source: rustls::Error) -> TlsError {
        TlsError::Unusable { domain: self.domain.clone(), source }
    }

    /// The certificates to show, the key, and the trusted root.
    fn parts(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, RootCertStore), TlsError> {
        let mut chain = self.bundle.certs.clone();
        let mut roots = RootCertStore::empty();
        if let Some(root) = chain.pop() {
            roots.add(root).map_err(|e| self.unusable(e))?;
        }
        Ok((chain, PrivatePkcs8KeyDer::from(self.bundle.key.clone()).into(), roots))
    }
}

macro_rules! secret_debug {
    ($($name:ident: $domain:expr;)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let domain: fn(&$name) -> String = $domain;
                f.debug_tuple(stringify!($name)).field(&domain(self)).finish()
            }
        }
    )*};
}

secret_debug! {
    SessionCa: |ca| ca.bundle.session.clone();
    SiteAuthority: |site| site.domain.to_string();
    Identity: |identity| identity.domain.to_string();
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The agent's side: TLS 1.3 only; admits starters of its own session and site only.
pub fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key, roots) = identity.parts()?;
    let chains = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|e| identity.unusable(rustls::Error::General(e.to_string())))?;
    let role = server_name(&identity.domain.starters()).map_err(|e| identity.unusable(e))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| identity.unusable(e))?
        .with_client_cert_verifier(Arc::new(StarterVerifier { chains, role }))
        .with_single_cert(chain, key)
        .map_err(|e| identity.unusable(e))?;
    // Resumption would save little and keep memory for every starter.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The starter's side: TLS 1.3 only; shows the starter's certificate.
pub fn client_config(identity: &Identity) -> Result<Arc<ClientConfig>, TlsError> {
    let (chain, key, roots) = identity.parts()?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| identity.unusable(e))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|e| identity.unusable(e))?;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

fn server_name(name: &str) -> Result<ServerName<'static>, rustls::Error> {
    ServerName::try_from(name.to_owned()).map_err(|e| rustls::Error::General(e.to_string()))
}

/// Plays the server on a stream, accepted or dialled, and admits any starter of the agent's session and site. Which proxy
/// it belongs to is for [`expect_starter`]. The caller bounds the time and the number of handshakes under way.
pub async fn accept_starter<S>(config: &Arc<ServerConfig>, stream: S) -> Result<server::TlsStream<S>, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    TlsAcceptor::from(Arc::clone(config))
        .accept(stream)
        .await
        .map_err(|source| TlsError::Handshake { name: "a starter".to_owned(), source })
}

/// Plays the client on a stream towards the agent of the identity's own session and site. The caller bounds the time.
pub async fn connect_agent<S>(
    config: &Arc<ClientConfig>,
    domain: &Domain,
    stream: S,
) -> Result<client::TlsStream<S>, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = domain.agent();
    let failed = |source| TlsError::Handshake { name: name.clone(), source };
    let server = server_name(&name).map_err(|e| failed(std::io::Error::other(e)))?;
    TlsConnector::from(Arc::clone(config)).connect(server, stream).await.map_err(failed)
}

/// Checks that the certificates a peer showed in a completed handshake are those of a starter of this very proxy.
pub fn expect_starter(shown: Option<&[CertificateDer<'_>]>, domain: &Domain, proxy: u64) -> Result<(), TlsError> {
    let name = domain.starter(proxy);
    let Some(leaf) = shown.and_then(<[_]>::first) else {
        return Err(TlsError::NotThePeer { name, source: None });
    };
    server_name(&name)
        .and_then(|expected| verify_server_name(&ParsedCertificate::try_from(leaf)?, &expected))
        .map_err(|source| TlsError::NotThePeer { name, source: Some(source) })
}

/// Checks the chain to the session's root as usual, then that the leaf has the name that all starters of the site share.
#[derive(Debug)]
struct StarterVerifier {
    chains: Arc<dyn ClientCertVerifier>,
    role: ServerName<'static>,
}

impl ClientCertVerifier for StarterVerifier {
    fn root_hint_subjects(&self) -> &[RawName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.chains.verify_client_cert(leaf, intermediates, now)?;
        verify_server_name(&ParsedCertificate::try_from(leaf)?, &self.role)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
