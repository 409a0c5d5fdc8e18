//! Real handshakes between starters and agents: who is admitted, and who is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vo_net::tls::{self, Domain, Identity, SessionCa, SiteAuthority, TlsError};

fn site(session: &SessionCa, name: &str) -> SiteAuthority {
    session.site_intermediate(name).unwrap()
}

/// Both ends' outcome of a handshake, of `expect_starter` for proxy 17, and of a round trip.
async fn meet(
    agent: &Identity,
    client: Arc<ClientConfig>,
    domain: &Domain,
) -> (Result<(), TlsError>, Result<(), TlsError>) {
    let server = tls::server_config(agent).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serve = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = tls::accept_starter(&server, tcp).await?;
        tls::expect_starter(stream.get_ref().1.peer_certificates(), agent.domain(), 17)?;
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.unwrap();
        stream.write_all(&word).await.unwrap();
        stream.shutdown().await.unwrap();
        Ok(())
    };
    let start = async {
        let tcp = tokio::net::TcpStream::connect(addr).await.unwrap();
        let mut stream = tls::connect_agent(&client, domain, tcp).await?;
        let failed = |source| TlsError::Handshake { name: "first read".to_owned(), source };
        stream.write_all(b"ping").await.map_err(failed)?;
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.map_err(failed)?;
        assert_eq!(&word, b"ping");
        Ok(())
    };
    tokio::join!(serve, start)
}

async fn admitted(agent: &Identity, starter: &Identity) {
    let client = tls::client_config(starter).unwrap();
    let (served, started) = meet(agent, client, starter.domain()).await;
    served.unwrap();
    started.unwrap();
}

/// The chain of reasons an error gives.
fn reasons(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn refused_by_agent(agent: &Identity, client: Arc<ClientConfig>, why: &str) {
    let (served, started) = meet(agent, client, agent.domain()).await;
    let said = reasons(&served.unwrap_err());
    assert!(said.contains(why), "{said:?} should say {why:?}");
    started.unwrap_err();
}

#[tokio::test]
async fn a_starter_meets_its_agent() {
    let session = SessionCa::create("7f3a").unwrap();
    let tundra = site(&session, "tundra");
    admitted(&tundra.issue_agent().unwrap(), &tundra.issue_starter(17).unwrap()).await;
}

#[tokio::test]
async fn everything_survives_being_written_and_read() {
    let session = SessionCa::from_pem(&SessionCa::create("My session!").unwrap().to_pem()).unwrap();
    let tundra = SiteAuthority::from_pem(&site(&session, "Tundra/α").to_pem()).unwrap();
    let agent = Identity::from_pem(&tundra.issue_agent().unwrap().to_pem()).unwrap();
    let starter = Identity::from_pem(&tundra.issue_starter(17).unwrap().to_pem()).unwrap();
    assert_eq!(agent.domain(), &Domain::new("Tundra/α", "My session!"));
    admitted(&agent, &starter).await;
    // A site whose agent got a new authority keeps the starters of the old one.
    let again = SiteAuthority::from_pem(&site(&session, "Tundra/α").to_pem()).unwrap();
    admitted(&again.issue_agent().unwrap(), &starter).await;
}

#[tokio::test]
async fn strangers_are_refused_by_the_agent() {
    let session = SessionCa::create("7f3a").unwrap();
    let tundra = site(&session, "tundra");
    let agent = tundra.issue_agent().unwrap();
    let client = |identity: &Identity| tls::client_config(identity).unwrap();

    // Same names, another session's root.
    let impostor = site(&SessionCa::create("7f3a").unwrap(), "tundra").issue_starter(17).unwrap();
    refuse_blind(&agent, &impostor, "BadSignature").await;
    let other_site = site(&session, "mesa").issue_starter(17).unwrap();
    refuse_blind(&agent, &other_site, "not valid for name").await;
    refused_by_agent(&agent, client(&tundra.issue_starter(18).unwrap()), "not p17.starter.tundra.7f3a.vo.invalid")
        .await;
    // An agent may not act as a starter.
    refused_by_agent(&agent, client(&agent), "extended key usage").await;
}

/// A client with the agent's root in its trust, so that only the agent can be the one that refuses.
fn trusting(agent: &Identity) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(certs(agent).pop().unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
}

fn certs(identity: &Identity) -> Vec<CertificateDer<'static>> {
    let blocks = pem::parse_many(identity.to_pem()).unwrap();
    blocks.into_iter().filter(|b| b.tag() == "CERTIFICATE").map(|b| b.into_contents().into()).collect()
}

fn key(identity: &Identity) -> PrivatePkcs8KeyDer<'static> {
    let blocks = pem::parse_many(identity.to_pem()).unwrap();
    blocks.into_iter().find(|b| b.tag() == "PRIVATE KEY").unwrap().into_contents().into()
}

async fn refuse_blind(agent: &Identity, starter: &Identity, why: &str) {
    let mut chain = certs(starter);
    chain.pop();
    let client = trusting(agent).with_client_auth_cert(chain, key(starter).into()).unwrap();
    refused_by_agent(agent, Arc::new(client), why).await;
}

#[tokio::test]
async fn no_certificate_and_a_self_signed_one_are_refused() {
    let agent = site(&SessionCa::create("7f3a").unwrap(), "tundra").issue_agent().unwrap();
    refused_by_agent(&agent, Arc::new(trusting(&agent).with_no_client_auth()), "peer sent no certificates").await;

    let domain = agent.domain();
    let own = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let cert = rcgen::CertificateParams::new(vec![domain.starter(17), domain.starters()]).unwrap().self_signed(&own);
    let der = PrivatePkcs8KeyDer::from(own.serialize_der());
    let client = trusting(&agent).with_client_auth_cert(vec![cert.unwrap().der().clone()], der.into()).unwrap();
    refused_by_agent(&agent, Arc::new(client), "UnknownIssuer").await;
}

#[tokio::test]
async fn name_constraints_hold_a_stolen_site_authority() {
    let session = SessionCa::create("7f3a").unwrap();
    let tundra = site(&session, "tundra");
    let mesa = site(&session, "mesa");
    // Relabelled, mesa's authority signs tundra's names, under the subject that its certificate has.
    let key = pem::parse_many(mesa.to_pem()).unwrap().pop().unwrap().into_contents();
    let key = rcgen::KeyPair::try_from(key.as_slice()).unwrap();
    let mut subject = rcgen::CertificateParams::default();
    subject.distinguished_name = rcgen::DistinguishedName::new();
    subject.distinguished_name.push(rcgen::DnType::CommonName, mesa.domain().to_string());
    subject.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let thief = rcgen::Issuer::new(subject, key);
    let mut chain = certs(&mesa.issue_agent().unwrap());
    let forge = |names: Vec<String>, usage| {
        let own = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut leaf = rcgen::CertificateParams::new(names).unwrap();
        leaf.extended_key_usages = vec![usage];
        (leaf.signed_by(&own, &thief).unwrap().der().clone(), PrivatePkcs8KeyDer::from(own.serialize_der()))
    };
    let root = chain.pop().unwrap();

    let domain = tundra.domain();
    let agent = tundra.issue_agent().unwrap();
    let client_auth = rcgen::ExtendedKeyUsagePurpose::ClientAuth;
    let with = |(leaf, key): (CertificateDer<'static>, PrivatePkcs8KeyDer<'static>)| {
        let chain = vec![leaf, chain[1].clone()];
        Arc::new(trusting(&agent).with_client_auth_cert(chain, key.into()).unwrap())
    };
    refused_by_agent(
        &agent,
        with(forge(vec![domain.starter(17), domain.starters()], client_auth.clone())),
        "NameConstraintViolation",
    )
    .await;
    // The forgery itself is sound: for mesa's own names it is admitted.
    let mesa_agent = mesa.issue_agent().unwrap();
    let (served, started) = meet(
        &mesa_agent,
        with(forge(vec![mesa.domain().starter(17), mesa.domain().starters()], client_auth)),
        mesa.domain(),
    )
    .await;
    served.unwrap();
    started.unwrap();

    // And no further authority below it: its path length is 0.
    let (sub_key, leaf_key) = (generate(), generate());
    let mut sub = rcgen::CertificateParams::default();
    sub.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let sub_cert = sub.signed_by(&sub_key, &thief).unwrap().der().clone();
    let names = vec![mesa.domain().starter(17), mesa.domain().starters()];
    let leaf = rcgen::CertificateParams::new(names).unwrap();
    let leaf = leaf.signed_by(&leaf_key, &rcgen::Issuer::new(sub, sub_key)).unwrap().der().clone();
    let der = PrivatePkcs8KeyDer::from(leaf_key.serialize_der());
    let client =
        trusting(&mesa_agent).with_client_auth_cert(vec![leaf, sub_cert, chain[1].clone()], der.into()).unwrap();
    refused_by_agent(&mesa_agent, Arc::new(client), "PathLenConstraintViolated").await;
    drop(root);
}

fn generate() -> rcgen::KeyPair {
    rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()
}

#[tokio::test]
async fn starters_refuse_false_agents() {
    let session = SessionCa::create("7f3a").unwrap();
    let tundra = site(&session, "tundra");
    let starter = tundra.issue_starter(17).unwrap();
    let client = tls::client_config(&starter).unwrap();
    let false_agents = [
        ("another site's agent", site(&session, "mesa").issue_agent().unwrap(), "not valid for name"),
        (
            "another session's",
            site(&SessionCa::create("7f3a").unwrap(), "tundra").issue_agent().unwrap(),
            "BadSignature",
        ),
        ("a starter", tundra.issue_starter(18).unwrap(), "extended key usage"),
    ];
    for (who, agent, why) in false_agents {
        let (served, started) = meet(&agent, Arc::clone(&client), starter.domain()).await;
        let said = reasons(&started.unwrap_err());
        assert!(said.contains(why), "{who}: {said:?} should say {why:?}");
        served.unwrap_err();
    }
}

#[test]
fn labels_never_collide_and_are_labels() {
    for plain in ["tundra", "a-b", "7f3a", "x"] {
        assert_eq!(tls::dns_label(plain), plain);
    }
    let long = "x".repeat(400);
    let odd = ["", "-", "a--b", "Tundra", "tundra.example.org", "a_b", "a.b", "-a", "α", "*", "a\nb", "tundra ", &long];
    let mut seen = std::collections::BTreeSet::new();
    for text in odd {
        let label = tls::dns_label(text);
        assert!(label.len() <= 63 && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
        assert!(!label.starts_with('-') && !label.ends_with('-'), "{label}");
        assert!(seen.insert(label.clone()), "{label} twice");
        assert!(label.contains("--"));
    }
}

#[test]
fn damaged_text_is_an_error() {
    let session = SessionCa::create("7f3a").unwrap();
    let identity = site(&session, "tundra").issue_starter(1).unwrap().to_pem();
    let without = |from: &str| identity.replace(from, "");
    for text in [
        String::new(),
        "x".to_owned(),
        without("session: 7f3a\n"),
        without("site: tundra\n"),
        identity.replace("site: tundra", "site: tun.dra"),
        identity.replace("site: tundra", "site: "),
        identity.replace("PRIVATE KEY", "SECRET"),
        identity.split("-----BEGIN PRIVATE").next().unwrap().to_owned(),
        session.to_pem(),
    ] {
        assert!(matches!(Identity::from_pem(&text), Err(TlsError::Damaged { .. })), "{text}");
    }
    let broken = identity.replace("-----BEGIN PRIVATE KEY-----\n", "-----BEGIN PRIVATE KEY-----\nAAAA");
    let identity = Identity::from_pem(&broken).unwrap();
    assert!(matches!(tls::server_config(&identity), Err(TlsError::Unusable { .. })));
    assert!(!format!("{identity:?}{session:?}").contains("BEGIN"));
}
