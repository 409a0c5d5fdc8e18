//! Whether a host is the one it should be: its key against `known_hosts`, its certificate, the user's word.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey, PublicKeyOrCertificate};
use tokio::sync::watch;

use super::known_hosts::{KnownHosts, Verdict, lookup_name, new_line};
use super::{HostKeyQuestion, Prompter, ShownKey, SshError, StrictHostKeys, Target};

/// What decides about one host's key.
pub(super) struct Trust {
    /// The host as the user named it.
    pub(super) host: String,
    hostname: String,
    /// Its name in `known_hosts`.
    pub(super) name: String,
    /// The name without its port, where a key known for that counts too.
    pub(super) portless: Option<String>,
    strict: StrictHostKeys,
    /// Where a new key goes, if anywhere.
    file: Option<PathBuf>,
    hash: bool,
    pub(super) known: KnownHosts,
}

impl Trust {
    pub(super) fn load(target: &Target) -> Result<Trust, SshError> {
        let settings = &target.settings;
        let mut known = KnownHosts::default();
        for file in settings.user_known_hosts.iter().chain(&settings.global_known_hosts) {
            match std::fs::read(file) {
                Ok(bytes) => known.add(file, &String::from_utf8_lossy(&bytes)),
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => (),
                Err(source) => {
                    return Err(SshError::KnownHosts { file: file.clone(), source });
                }
            }
        }
        let alias = settings.host_key_alias.clone();
        let portless = (alias.is_none() && target.port != 22).then(|| target.hostname.to_ascii_lowercase());
        Ok(Trust {
            host: target.host.clone(),
            name: alias.clone().unwrap_or_else(|| lookup_name(&target.hostname, target.port)),
            hostname: alias.unwrap_or_else(|| target.hostname.clone()),
            portless,
            strict: settings.strict_host_keys,
            file: settings.user_known_hosts.first().cloned(),
            hash: settings.hash_known_hosts,
            known,
        })
    }

    fn judge(&self, shown: &PublicKeyOrCertificate, blob: &[u8]) -> Verdict {
        let (name, portless) = (self.name.as_str(), self.portless.as_deref());
        if let Some(certificate) = shown.certificate()
            && let Ok(authority) = PublicKey::from(certificate.signature_key().clone()).to_bytes()
        {
            match self.known.check_authority(name, portless, blob, &authority) {
                Verdict::Known if vouches(certificate, &self.hostname, SystemTime::now()) => return Verdict::Known,
                revoked @ Verdict::Revoked { .. } => return revoked,
                // As OpenSSH does, fall back on what is known of the plain key.
                _ => (),
            }
        }
        self.known.check(name, portless, blob)
    }

    /// Accepts a key or says why not; asks the user where that is theirs to say. `asking` is set meanwhile.
    pub(super) async fn decide(
        &self,
        shown: &PublicKeyOrCertificate,
        prompter: &dyn Prompter,
        asking: &watch::Sender<bool>,
    ) -> Result<(), SshError> {
        let key = shown.public_key();
        let host = self.host.clone();
        let protocol =
            |e: russh::keys::ssh_key::Error| SshError::Protocol { host: self.host.clone(), why: e.to_string() };
        let blob = key.to_bytes().map_err(protocol)?;
        let key_type = match key.algorithm() {
            Algorithm::Rsa { .. } => "ssh-rsa".to_owned(),
            algorithm => algorithm.to_string(),
        };
        let shown_key =
            ShownKey { name: self.name.clone(), key_type, fingerprint: key.fingerprint(HashAlg::Sha256).to_string() };
        let boxed = || Box::new(shown_key.clone());
        match self.judge(shown, &blob) {
            Verdict::Known => Ok(()),
            Verdict::Revoked { file, line } => Err(SshError::HostKeyRevoked { host, key: boxed(), file, line }),
            Verdict::Changed { file, line } => Err(SshError::HostKeyChanged { host, key: boxed(), file, line }),
            Verdict::Unknown => {
                let accepted = match self.strict {
                    StrictHostKeys::Yes => false,
                    StrictHostKeys::AcceptNew => true,
                    StrictHostKeys::Ask if !prompter.interactive() => false,
                    StrictHostKeys::Ask => {
                        let question =
                            HostKeyQuestion { host: host.clone(), key: shown_key.clone(), file: self.file.clone() };
                        asking.send_replace(true);
                        let accepted = prompter.confirm_host_key(question).await;
                        asking.send_replace(false);
                        accepted
                    }
                };
                if !accepted {
                    return Err(SshError::HostKeyUnknown { host, key: boxed() });
                }
                if let Some(file) = &self.file {
                    self.remember(file, &shown_key.key_type, &blob)
                        .map_err(|source| SshError::KnownHosts { file: file.clone(), source })?;
                    let text = format!("Added {} ({shown_key}) to {}", self.name, file.display());
                    prompter.info(&self.host, &text);
                }
                Ok(())
            }
        }
    }

    /// Appends a line in one write, so that others who append at the same time don't mix with it.
    fn remember(&self, file: &Path, key_type: &str, blob: &[u8]) -> io::Result<()> {
        if let Some(dir) = file.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::DirBuilder::new().mode(0o700).recursive(true).create(dir)?;
        }
        let salt = match self.hash {
            true => {
                let mut salt = [0; 20];
                ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut salt)
                    .map_err(|_| io::Error::other("no random numbers"))?;
                Some(salt)
            }
            false => None,
        };
        let mut line = new_line(&self.name, key_type, blob, salt.as_ref());
        if std::fs::read(file).is_ok_and(|text| text.last().is_some_and(|&last| last != b'\n')) {
            line.insert(0, '\n');
        }
        let mut file = std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(file)?;
        file.write_all(line.as_bytes())
    }
}

/// Whether a host certificate is itself in order, for this host and time. That its authority is trusted is not checked here.
fn vouches(certificate: &Certificate, hostname: &str, now: SystemTime) -> bool {
    let principals = certificate.valid_principals();
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
    certificate.cert_type().is_host()
        && certificate.critical_options().is_empty()
        && certificate.signature().algorithm() != (Algorithm::Rsa { hash: None })
        && (principals.is_empty() || principals.iter().any(|principal| principal.eq_ignore_ascii_case(hostname)))
        && certificate.validate_at(now, [&authority]).is_ok()
}
