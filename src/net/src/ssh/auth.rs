//! Logging in: keys from the agent and from files, certificates, keyboard-interactive, password, and several of them in turn.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use russh::client::{AuthResult, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode as _;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{Certificate, HashAlg, PrivateKey, PublicKey, decode_secret_key};
use russh::{AgentAuthError, MethodSet, SendError, Signer};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, watch};

use super::builtin::{Handle, clock};
use super::gateway::ConnectOptions;
use super::prompt::printable;
use super::{Prompt, PromptKind, Prompter, SshError, Target};

/// Methods that the built-in client has.
pub(super) const METHODS: [&str; 3] = ["publickey", "keyboard-interactive", "password"];
/// End of a `tried` line about what was left out for want of someone to ask.
pub(super) const NEEDS_ANSWER: &str = "needs an answer";
/// Longest wait for the server's answer to one step: some servers wait for a tap on a telephone.
const STEP_TIME: Duration = Duration::from_secs(120);
/// Longest wait for the agent, which may itself ask the user to confirm.
const AGENT_TIME: Duration = Duration::from_secs(10);
/// Questions in a row from one keyboard-interactive attempt.
const MOST_ROUNDS: usize = 32;
/// Partial successes in a row: servers ask two or three methods of a user.
const MOST_FACTORS: usize = 8;
/// Times that a passphrase is asked.
const PASSPHRASE_TRIES: usize = 3;

/// Private keys unlocked so far, shared by the connections of one session. While a passphrase is asked, others who would ask for one
/// wait, so that each passphrase is asked once; those who ask nothing don't.
#[derive(Clone, Default)]
pub struct KeyRing {
    keys: Arc<Mutex<HashMap<PathBuf, Arc<PrivateKey>>>>,
    asking: Arc<Mutex<()>>,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyRing")
    }
}

/// How one method, or one key of it, ended.
enum Step {
    Success,
    Refused { remaining: MethodSet, partial: bool },
}

impl From<AuthResult> for Step {
    fn from(result: AuthResult) -> Step {
        match result {
            AuthResult::Success => Step::Success,
            AuthResult::Failure { remaining_methods, partial_success } => {
                Step::Refused { remaining: remaining_methods, partial: partial_success }
            }
        }
    }
}

/// Logs in on a fresh connection.
pub(super) async fn login(
    handle: &mut Handle,
    lost: &watch::Receiver<Option<String>>,
    target: &Target,
    options: &ConnectOptions,
    prompter: &dyn Prompter,
) -> Result<(), SshError> {
    let mut login = Login {
        handle,
        lost,
        target,
        keys: &options.keys,
        prompter,
        tried: Vec::new(),
        spent: HashSet::new(),
        wrong_passphrase: None,
    };
    login.run().await
}

struct Login<'a> {
    handle: &'a mut Handle,
    lost: &'a watch::Receiver<Option<String>>,
    target: &'a Target,
    keys: &'a KeyRing,
    prompter: &'a dyn Prompter,
    tried: Vec<String>,
    /// Keys that have had their turn, by their public part or certificate.
    spent: HashSet<Vec<u8>>,
    wrong_passphrase: Option<PathBuf>,
}

/// A key that the server may be asked about.
struct Candidate {
    label: String,
    public: PublicKey,
    certificate: Option<Certificate>,
    /// The file of the private key; `None` for one of the agent's.
    file: Option<PathBuf>,
}

impl Login<'_> {
    async fn run(&mut self) -> Result<(), SshError> {
        let user = self.target.user.clone();
        let none = tokio::time::timeout(STEP_TIME, self.handle.authenticate_none(user)).await;
        let mut remaining = match self.answer(none)?.into() {
            Step::Success => return Ok(()),
            Step::Refused { remaining, .. } => remaining,
        };
        let mut done: Vec<&str> = Vec::new();
        for _ in 0..MOST_FACTORS {
            // One factor: methods in the user's order, until one brings success or partial success.
            loop {
                let offered = names(&remaining);
                let usable =
                    |method: &&str| offered.contains(method) && METHODS.contains(method) && !done.contains(method);
                let Some(method) = self.target.settings.authentications.iter().map(String::as_str).find(usable) else {
                    return Err(self.refused(&remaining));
                };
                let step = match method {
                    "publickey" => self.public_key(&remaining).await?,
                    "keyboard-interactive" => self.keyboard_interactive(&remaining).await?,
                    _ => self.password(&remaining).await?,
                };
                match step {
                    Step::Success => return Ok(()),
                    Step::Refused { remaining: now, partial } => {
                        remaining = now;
                        if partial {
                            done.clear();
                            break;
                        }
                        done.push(method);
                    }
                }
            }
        }
        Err(self.refused(&remaining))
    }

    fn refused(&mut self, remaining: &MethodSet) -> SshError {
        let host = self.target.host.clone();
        if let Some(why) = self.lost.borrow().as_deref().filter(|why| !why.is_empty()) {
            self.tried.push(why.to_owned());
        }
        match self.wrong_passphrase.take() {
            Some(key) => SshError::Passphrase { host, key },
            None => SshError::AuthRefused {
                host,
                user: self.target.user.clone(),
                tried: std::mem::take(&mut self.tried),
                offered: names(remaining).into_iter().map(str::to_owned).collect(),
            },
        }
    }

    fn closed(&self, e: &dyn std::fmt::Display) -> SshError {
        let why = self.lost.borrow().clone().unwrap_or_else(|| e.to_string());
        SshError::Closed { host: self.target.host.clone(), why }
    }

    fn cancelled(&self) -> SshError {
        SshError::Cancelled { host: self.target.host.clone() }
    }

    /// The outcome of one step with the server.
    fn answer<T>(&self, step: Result<Result<T, russh::Error>, tokio::time::error::Elapsed>) -> Result<T, SshError> {
        match step {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) => Err(self.closed(&e)),
            Err(_) => Err(SshError::TimedOut { host: self.target.host.clone(), after: STEP_TIME }),
        }
    }

    async fn ask(&self, kind: PromptKind, instruction: String, text: String, echo: bool) -> Result<String, SshError> {
        let prompt = Prompt { host: self.target.host.clone(), kind, instruction, text, echo };
        self.prompter.ask(prompt).await.ok_or_else(|| self.cancelled())
    }

    async fn public_key(&mut self, before: &MethodSet) -> Result<Step, SshError> {
        let mut agent = self.agent().await;
        let candidates = self.candidates(agent.as_mut()).await;
        let mut remaining = before.clone();
        if candidates.is_empty() {
            self.tried.push("publickey: no key".to_owned());
        }
        for candidate in candidates {
            let identity = match &candidate.certificate {
                Some(certificate) => certificate.to_bytes(),
                None => candidate.public.to_bytes(),
            };
            let Ok(identity) = identity else { continue };
            if !self.spent.insert(identity) {
                continue;
            }
            let hash = match candidate.public.algorithm().is_rsa() {
                false => None,
                true => match self.handle.best_supported_rsa_hash().await.map_err(|e| self.closed(&e))? {
                    Some(Some(hash)) => Some(hash),
                    None => Some(HashAlg::Sha512),
                    Some(None) => {
                        self.tried
                            .push(format!("publickey {}: the server takes SHA-1 signatures only", candidate.label));
                        continue;
                    }
                },
            };
            let user = self.target.user.clone();
            let (asking, asked) = watch::channel(false);
            let attempt = async {
                match (&candidate.file, agent.as_mut()) {
                    (Some(file), _) => {
                        let mut signer = FileSigner {
                            file: file.clone(),
                            keys: self.keys,
                            host: &self.target.host,
                            prompter: self.prompter,
                            asking: &asking,
                            failure: None,
                        };
                        let result = offer(self.handle, user, &candidate, hash, &mut signer).await;
                        result.map_err(|e| signer.failure.unwrap_or(Unsigned::Closed(e.to_string())))
                    }
                    (None, Some(agent)) => {
                        let result = offer(self.handle, user, &candidate, hash, agent).await;
                        result.map_err(|e| match e {
                            AgentAuthError::Send(e) => Unsigned::Closed(e.to_string()),
                            AgentAuthError::Key(e) => Unsigned::Key(format!("the agent does not sign: {e}")),
                        })
                    }
                    (None, None) => Err(Unsigned::Key("the agent is gone".to_owned())),
                }
            };
            let outcome = tokio::select! {
                outcome = attempt => outcome,
                () = clock(asked, STEP_TIME) => {
                    return Err(SshError::TimedOut { host: self.target.host.clone(), after: STEP_TIME });
                }
            };
            let words = match outcome.map(Step::from) {
                Ok(Step::Success) => return Ok(Step::Success),
                Ok(Step::Refused { remaining: now, partial }) => {
                    remaining = now;
                    if partial {
                        self.tried.push(format!("publickey {}: accepted, but not enough", candidate.label));
                        return Ok(Step::Refused { remaining, partial });
                    }
                    "refused".to_owned()
                }
                Err(Unsigned::Cancelled) => return Err(self.cancelled()),
                Err(Unsigned::Closed(why)) => return Err(self.closed(&why)),
                Err(Unsigned::NotAsked) => format!("its passphrase {NEEDS_ANSWER}"),
                Err(Unsigned::WrongPassphrase) => {
                    self.wrong_passphrase = candidate.file;
                    "wrong passphrase".to_owned()
                }
                Err(Unsigned::Key(why)) => why,
            };
            self.tried.push(format!("publickey {}: {words}", candidate.label));
            if self.handle.is_closed() {
                return Err(self.refused(&remaining));
            }
        }
        Ok(Step::Refused { remaining, partial: false })
    }

    async fn agent(&mut self) -> Option<AgentClient<UnixStream>> {
        let socket = self.target.settings.agent.as_ref()?;
        let mut agent = match tokio::time::timeout(AGENT_TIME, AgentClient::connect_uds(socket)).await {
            Ok(Ok(agent)) => agent,
            Ok(Err(e)) => {
                self.tried.push(format!("ssh-agent: {e}"));
                return None;
            }
            Err(_) => {
                self.tried.push("ssh-agent: no answer".to_owned());
                return None;
            }
        };
        // For keys that the user has bound to destinations; agents that know nothing of it say no.
        if let Some(binding) = self.handle.agent_session_binding() {
            let _ = tokio::time::timeout(AGENT_TIME, agent.bind_session(binding, false)).await;
        }
        Some(agent)
    }

    /// What to offer, in OpenSSH's order: the agent's keys that the configuration names, the agent's others, then files,
    /// those without a passphrase first; each certificate before its key.
    async fn candidates(&mut self, agent: Option<&mut AgentClient<UnixStream>>) -> Vec<Candidate> {
        let settings = &self.target.settings;
        let mut files = Vec::new();
        for file in settings.identity_files.iter().filter(|file| file.exists()) {
            match public_part(file) {
                Ok((public, encrypted)) => files.push((file.clone(), public, encrypted)),
                Err(why) => self.tried.push(format!("publickey {}: {why}", tilde(file))),
            }
        }
        let mut certificates: Vec<Certificate> = Vec::new();
        let beside = settings.identity_files.iter().map(|file| with_suffix(file, "-cert.pub"));
        for file in settings.certificate_files.iter().cloned().chain(beside) {
            let Ok(text) = std::fs::read_to_string(&file) else {
                continue;
            };
            match Certificate::from_openssh(text.trim()) {
                Ok(certificate) => certificates.push(certificate),
                Err(e) => self.tried.push(format!("certificate {}: {e}", tilde(&file))),
            }
        }

        let mut held = Vec::new();
        if let Some(agent) = agent {
            match tokio::time::timeout(AGENT_TIME, agent.request_identities()).await {
                Ok(Ok(identities)) => held = identities,
                Ok(Err(e)) => self.tried.push(format!("ssh-agent: {e}")),
                Err(_) => self.tried.push("ssh-agent: no answer".to_owned()),
            }
        }
        let named = |public: &PublicKey| {
            files.iter().any(|(_, key, _)| key.key_data() == public.key_data())
                || certificates.iter().any(|certificate| certificate.public_key() == public.key_data())
        };
        let mut offers = Vec::new();
        for identity in held {
            let (public, certificate, comment) = match identity {
                AgentIdentity::PublicKey { key, comment } => (key, None, comment),
                AgentIdentity::Certificate { certificate, comment } => {
                    (PublicKey::from(certificate.public_key().clone()), Some(certificate), comment)
                }
            };
            let label = format!("{} (ssh-agent)", printable(&comment));
            offers.push(Candidate { label, public, certificate, file: None });
        }
        // Stable sorts: within each kind the agent's and the configuration's orders stay.
        offers.sort_by_key(|offer| !named(&offer.public));
        if settings.identities_only {
            offers.retain(|offer| named(&offer.public));
        }
        let with_agent: Vec<PublicKey> = offers.iter().map(|offer| offer.public.clone()).collect();
        files.sort_by_key(|(_, _, encrypted)| *encrypted);
        let from_files = files
            .into_iter()
            .filter(|(_, public, _)| !with_agent.iter().any(|held| held.key_data() == public.key_data()));
        for (file, public, _) in from_files {
            offers.push(Candidate { label: tilde(&file), public, certificate: None, file: Some(file) });
        }
        let mut candidates = Vec::new();
        for offer in offers {
            if offer.certificate.is_none() {
                for certificate in certificates.iter().filter(|c| c.public_key() == offer.public.key_data()) {
                    candidates.push(Candidate {
                        label: format!("{} with certificate {}", offer.label, printable(certificate.key_id())),
                        public: offer.public.clone(),
                        certificate: Some(certificate.clone()),
                        file: offer.file.clone(),
                    });
                }
            }
            candidates.push(offer);
        }
        candidates
    }

    async fn keyboard_interactive(&mut self, before: &MethodSet) -> Result<Step, SshError> {
        let mut remaining = before.clone();
        if !self.prompter.interactive() {
            self.tried.push(format!("keyboard-interactive: it {NEEDS_ANSWER}"));
            return Ok(Step::Refused { remaining, partial: false });
        }
        for attempt in 0..self.target.settings.password_prompts.max(1) {
            let user = self.target.user.clone();
            let start = self.handle.authenticate_keyboard_interactive_start(user, None);
            let start = tokio::time::timeout(STEP_TIME, start).await;
            let mut response = self.answer(start)?;
            let mut asked = false;
            for round in 0.. {
                let (name, instructions, prompts) = match response {
                    KeyboardInteractiveAuthResponse::Success => return Ok(Step::Success),
                    KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success } => {
                        remaining = remaining_methods;
                        if partial_success {
                            self.tried.push("keyboard-interactive: accepted, but not enough".to_owned());
                            return Ok(Step::Refused { remaining, partial: true });
                        }
                        break;
                    }
                    KeyboardInteractiveAuthResponse::InfoRequest { name, instructions, prompts } => {
                        (name, instructions, prompts)
                    }
                };
                if round >= MOST_ROUNDS {
                    self.tried.push("keyboard-interactive: questions without end".to_owned());
                    return Ok(Step::Refused { remaining, partial: false });
                }
                let mut instruction = [name, instructions].map(|text| printable(&text)).join("\n").trim().to_owned();
                if attempt > 0 && round == 0 {
                    instruction = format!("Refused, please try again.\n{instruction}").trim_end().to_owned();
                }
                if prompts.is_empty() && !instruction.is_empty() {
                    self.prompter.info(&self.target.host, &instruction);
                }
                let mut answers = Vec::with_capacity(prompts.len());
                for prompt in prompts {
                    asked = true;
                    let text = one_line(&prompt.prompt);
                    let instruction = std::mem::take(&mut instruction);
                    answers.push(self.ask(PromptKind::KeyboardInteractive, instruction, text, prompt.echo).await?);
                }
                let respond = self.handle.authenticate_keyboard_interactive_respond(answers);
                let respond = tokio::time::timeout(STEP_TIME, respond).await;
                response = self.answer(respond)?;
            }
            self.tried.push("keyboard-interactive: refused".to_owned());
            if self.handle.is_closed() {
                return Err(self.refused(&remaining));
            }
            if !asked || !names(&remaining).contains(&"keyboard-interactive") {
                break;
            }
        }
        Ok(Step::Refused { remaining, partial: false })
    }

    async fn password(&mut self, before: &MethodSet) -> Result<Step, SshError> {
        let mut remaining = before.clone();
        if !self.prompter.interactive() {
            self.tried.push(format!("password: it {NEEDS_ANSWER}"));
            return Ok(Step::Refused { remaining, partial: false });
        }
        for attempt in 0..self.target.settings.password_prompts.max(1) {
            let instruction =
                if attempt > 0 { "Permission denied, please try again.".to_owned() } else { String::new() };
            let text = format!("{}@{}'s password: ", self.target.user, self.target.host);
            let password = self.ask(PromptKind::Password, instruction, text, false).await?;
            let step = self.handle.authenticate_password(self.target.user.clone(), password);
            let step = tokio::time::timeout(STEP_TIME, step).await;
            match self.answer(step)?.into() {
                Step::Success => return Ok(Step::Success),
                Step::Refused { remaining: now, partial } => {
                    remaining = now;
                    if partial {
                        self.tried.push("password: accepted, but not enough".to_owned());
                        return Ok(Step::Refused { remaining, partial });
                    }
                    self.tried.push("password: refused".to_owned());
                    if self.handle.is_closed() {
                        return Err(self.refused(&remaining));
                    }
                    if !names(&remaining).contains(&"password") {
                        break;
                    }
                }
            }
        }
        Ok(Step::Refused { remaining, partial: false })
    }
}

/// Offers one key or certificate, and has it signed if the server would accept it.
async fn offer<S: Signer>(
    handle: &mut Handle,
    user: String,
    candidate: &Candidate,
    hash: Option<HashAlg>,
    signer: &mut S,
) -> Result<AuthResult, S::Error> {
    match &candidate.certificate {
        Some(certificate) => handle.authenticate_certificate_with(user, certificate.clone(), hash, signer).await,
        None => handle.authenticate_publickey_with(user, candidate.public.clone(), hash, signer).await,
    }
}

fn names(methods: &MethodSet) -> Vec<&'static str> {
    methods.iter().map(<&'static str>::from).collect()
}

/// A server's question on one line, with the space after it that terminals want.
fn one_line(text: &str) -> String {
    let line = printable(text).replace('\n', " ");
    format!("{} ", line.trim_end())
}

/// A path as people write it.
fn tilde(path: &Path) -> String {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    match home.and_then(|home| path.strip_prefix(home).ok().map(Path::to_owned)) {
        Some(rest) => format!("~/{}", rest.display()),
        None => path.display().to_string(),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The public half of a key file, and whether the private one needs a passphrase. Old formats hide it in the encrypted part:
/// then it is read from the `.pub` file.
fn public_part(file: &Path) -> Result<(PublicKey, bool), String> {
    let text = std::fs::read_to_string(file).map_err(|e| e.to_string())?;
    if let Ok(key) = PrivateKey::from_openssh(&text) {
        return Ok((key.public_key().clone(), key.is_encrypted()));
    }
    match decode_secret_key(&text, None) {
        Ok(key) => Ok((key.public_key().clone(), false)),
        Err(e) => match std::fs::read_to_string(with_suffix(file, ".pub")) {
            Ok(public) => PublicKey::from_openssh(public.trim()).map(|key| (key, true)).map_err(|e| e.to_string()),
            Err(_) => Err(format!("unreadable without its .pub file: {e}")),
        },
    }
}

/// Why there is no signature.
enum Unsigned {
    Closed(String),
    Cancelled,
    NotAsked,
    WrongPassphrase,
    Key(String),
}

/// Signs with a key from a file. The passphrase is asked only here: after the server said that it would accept the key.
struct FileSigner<'a> {
    file: PathBuf,
    keys: &'a KeyRing,
    host: &'a str,
    prompter: &'a dyn Prompter,
    /// Set while the user, or another connection that asks the user, is waited for.
    asking: &'a watch::Sender<bool>,
    /// The reason, when there is no signature.
    failure: Option<Unsigned>,
}

/// The reason is in the signer; russh only learns that there is none.
#[derive(Debug, thiserror::Error)]
#[error("no signature")]
struct NoSignature;

impl From<SendError> for NoSignature {
    fn from(_: SendError) -> Self {
        NoSignature
    }
}

impl Signer for FileSigner<'_> {
    type Error = NoSignature;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        hash: Option<HashAlg>,
        mut data: Vec<u8>,
    ) -> Result<Vec<u8>, NoSignature> {
        self.asking.send_replace(true);
        let key = self.key().await;
        self.asking.send_replace(false);
        let signed = match key {
            Ok(key) => sign(&key, hash, &mut data).map_err(|e| Unsigned::Key(e.to_string())),
            Err(failure) => Err(failure),
        };
        match signed {
            Ok(()) => Ok(data),
            Err(failure) => {
                self.failure = Some(failure);
                Err(NoSignature)
            }
        }
    }
}

/// Appends a signature of the data to the data, as the server wants to see it.
fn sign(key: &PrivateKey, hash: Option<HashAlg>, data: &mut Vec<u8>) -> Result<(), russh::keys::ssh_key::Error> {
    let signature = match key.key_data() {
        KeypairData::Rsa(rsa) => (rsa, hash).try_sign(data)?,
        _ => key.try_sign(data)?,
    };
    let mut encoded = Vec::new();
    signature.encode(&mut encoded)?;
    encoded.encode(data)?;
    Ok(())
}

impl FileSigner<'_> {
    async fn key(&self) -> Result<Arc<PrivateKey>, Unsigned> {
        let unreadable = |e: &dyn std::fmt::Display| Unsigned::Key(e.to_string());
        let held = async || self.keys.keys.lock().await.get(&self.file).cloned();
        if let Some(key) = held().await {
            return Ok(key);
        }
        let text: Arc<str> = std::fs::read_to_string(&self.file).map_err(|e| unreadable(&e))?.into();
        let mut instruction = String::new();
        let mut opened = decode_secret_key(&text, None).ok();
        let mut asking = None;
        if opened.is_none() && self.prompter.interactive() {
            asking = Some(self.keys.asking.lock().await);
            if let Some(key) = held().await {
                return Ok(key);
            }
        }
        for _ in 0..PASSPHRASE_TRIES {
            if opened.is_some() {
                break;
            }
            if !self.prompter.interactive() {
                return Err(Unsigned::NotAsked);
            }
            let prompt = Prompt {
                host: self.host.to_owned(),
                kind: PromptKind::Passphrase,
                instruction: std::mem::replace(&mut instruction, "Bad passphrase, try again.".to_owned()),
                text: format!("Enter passphrase for key {}: ", tilde(&self.file)),
                echo: false,
            };
            let passphrase = self.prompter.ask(prompt).await.ok_or(Unsigned::Cancelled)?;
            let text = Arc::clone(&text);
            // Slow on purpose, by the key's own rounds: not on the thread that serves the other connections.
            let open = tokio::task::spawn_blocking(move || decode_secret_key(&text, Some(&passphrase)).ok());
            opened = open.await.map_err(|e| unreadable(&e))?;
        }
        let key = Arc::new(opened.ok_or(Unsigned::WrongPassphrase)?);
        self.keys.keys.lock().await.insert(self.file.clone(), Arc::clone(&key));
        drop(asking);
        Ok(key)
    }
}
