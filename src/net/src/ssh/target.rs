//! What the user's SSH configuration says of a host, as `ssh -G` resolves it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::SshError;

/// How long `ssh -G` may take: a `Match exec` in the configuration runs the user's own commands.
const RESOLVE_TIME: Duration = Duration::from_secs(30);
/// How long `klist` may take.
const TICKET_TIME: Duration = Duration::from_secs(5);
/// Most hops of a ProxyJump chain, through the configurations of its hosts: a configuration can make a loop.
const MOST_JUMPS: usize = 8;

/// Which host, and what overrides the user's configuration.
#[derive(Clone, Debug)]
pub struct TargetQuery {
    /// Any name that `~/.ssh/config` knows, or a host name or address.
    pub host: String,
    /// Remote user.
    pub user: Option<String>,
    /// TCP port.
    pub port: Option<u16>,
    /// Configuration file to read instead of the user's and the system's (`ssh -F`).
    pub config: Option<PathBuf>,
    /// The system's client, looked up in PATH when it has no `/`. `None` does without one.
    pub program: Option<PathBuf>,
}

impl TargetQuery {
    /// A host by its name alone. The environment variable `VO_SSH_CONFIG`, if set, names the configuration file.
    pub fn new(host: &str) -> TargetQuery {
        TargetQuery {
            host: host.to_owned(),
            user: None,
            port: None,
            config: std::env::var_os("VO_SSH_CONFIG").filter(|file| !file.is_empty()).map(PathBuf::from),
            program: Some(PathBuf::from("ssh")),
        }
    }
}

/// Who serves a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// russh, in this process.
    Builtin,
    /// The system's `ssh`.
    System {
        /// What the configuration needs that russh lacks, such as `ProxyCommand`.
        reason: String,
    },
}

/// `StrictHostKeyChecking`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrictHostKeys {
    /// Ask about unknown keys.
    Ask,
    /// Refuse unknown keys.
    Yes,
    /// Accept unknown keys, refuse changed ones. `no` and `off` mean this too: a changed key is never accepted.
    AcceptNew,
}

/// The options that the built-in client honours, expanded; see ssh_config(5) for each.
#[derive(Clone, Debug)]
pub struct Settings {
    /// IdentityFile, in order; those that don't exist included.
    pub identity_files: Vec<PathBuf>,
    /// CertificateFile.
    pub certificate_files: Vec<PathBuf>,
    /// IdentitiesOnly.
    pub identities_only: bool,
    /// Socket of the agent: IdentityAgent, else `SSH_AUTH_SOCK`.
    pub agent: Option<PathBuf>,
    /// UserKnownHostsFile.
    pub user_known_hosts: Vec<PathBuf>,
    /// GlobalKnownHostsFile.
    pub global_known_hosts: Vec<PathBuf>,
    /// StrictHostKeyChecking.
    pub strict_host_keys: StrictHostKeys,
    /// HashKnownHosts.
    pub hash_known_hosts: bool,
    /// HostKeyAlias.
    pub host_key_alias: Option<String>,
    /// HostKeyAlgorithms; empty for the client's own.
    pub host_key_algorithms: Vec<String>,
    /// KexAlgorithms; empty for the client's own.
    pub kex_algorithms: Vec<String>,
    /// Ciphers; empty for the client's own.
    pub ciphers: Vec<String>,
    /// MACs; empty for the client's own.
    pub macs: Vec<String>,
    /// PreferredAuthentications without what PubkeyAuthentication and its like turn off.
    pub authentications: Vec<String>,
    /// NumberOfPasswordPrompts.
    pub password_prompts: u32,
    /// ServerAliveInterval, 15 s unless configured.
    pub alive_interval: Duration,
    /// ServerAliveCountMax, 4 unless an interval is configured.
    pub alive_count: u32,
    /// ConnectTimeout for each address, 15 s unless configured.
    pub connect_timeout: Duration,
    /// AddressFamily: `Some(true)` for IPv6 only, `Some(false)` for IPv4 only.
    pub ipv6: Option<bool>,
    /// ControlPath of the user's own, which a master of theirs may listen on.
    pub control_path: Option<PathBuf>,
}

/// A host, resolved.
#[derive(Clone, Debug)]
pub struct Target {
    /// As the user named it.
    pub host: String,
    /// HostName: what to connect to.
    pub hostname: String,
    /// Remote user.
    pub user: String,
    /// TCP port.
    pub port: u16,
    /// Who serves it.
    pub backend: Backend,
    /// Hosts to go through, nearest first.
    pub jumps: Vec<Target>,
    /// All other options.
    pub settings: Settings,
    /// What was asked, for the system's `ssh`.
    pub query: TargetQuery,
}

impl Target {
    /// Asks `ssh -G` about a host, and about the jump hosts on the way. Without an `ssh` program (none wanted, or none
    /// installed) the defaults of OpenSSH hold, and no configuration file is read.
    pub async fn resolve(query: &TargetQuery) -> Result<Target, SshError> {
        Box::pin(resolve(query, MOST_JUMPS)).await
    }

    /// The host as `ssh -G` tells of it: lines of a keyword and its value. Hosts to go through are not looked at.
    ///
    /// # Errors
    /// What it tells can't be used.
    pub fn read(query: &TargetQuery, said: &str) -> Result<Target, SshError> {
        interpret(query, &Options::read(said))
    }

    /// Why a connection to this host should use the system's `ssh`, if it should.
    pub fn needs_system(&self) -> Option<&str> {
        match &self.backend {
            Backend::Builtin => None,
            Backend::System { reason } => Some(reason),
        }
    }
}

async fn resolve(query: &TargetQuery, jumps_left: usize) -> Result<Target, SshError> {
    let bad = |why: &str| SshError::Config { host: query.host.clone(), why: why.to_owned() };
    let suspect =
        |text: &str| text.is_empty() || text.starts_with('-') || text.contains(|c: char| c.is_control() || c == ' ');
    if suspect(&query.host) {
        return Err(bad("this is no host name"));
    }
    if query.user.as_deref().is_some_and(suspect) {
        return Err(bad("this is no user name"));
    }
    let options = Options::ask(query).await?;
    let mut target = interpret(query, &options)?;
    if target.backend == Backend::Builtin && wants_kerberos(&options) && has_ticket().await {
        target.backend = Backend::System { reason: "GSSAPIAuthentication, with a Kerberos ticket".to_owned() };
    }
    let jump = options.one("proxyjump").filter(|jump| !jump.eq_ignore_ascii_case("none"));
    for hop in jump.iter().flat_map(|jump| jump.split(',')) {
        if target.jumps.len() >= jumps_left {
            return Err(bad(&format!("ProxyJump goes through more than {MOST_JUMPS} hosts")));
        }
        let mut hop = parse_hop(hop, query).ok_or_else(|| bad("ProxyJump can't be read"))?;
        hop.config = query.config.clone();
        let first = target.jumps.is_empty();
        let mut via = Box::pin(resolve(&hop, jumps_left - target.jumps.len() - 1)).await?;
        // Only the first hop is reached by its own configuration's ways: the others are reached through it.
        if first {
            target.jumps.append(&mut via.jumps);
        }
        via.jumps.clear();
        if let (Backend::Builtin, Some(reason)) = (&target.backend, via.needs_system()) {
            target.backend = Backend::System { reason: format!("{reason} of {}", via.host) };
        }
        target.jumps.push(via);
    }
    Ok(target)
}

/// `[user@]host[:port]` or `ssh://[user@]host[:port]`, with brackets around an IPv6 address.
fn parse_hop(text: &str, query: &TargetQuery) -> Option<TargetQuery> {
    let text = text.trim();
    let text = text.strip_prefix("ssh://").map_or(text, |rest| rest.trim_end_matches('/'));
    let (user, place) = text.rsplit_once('@').map_or((None, text), |(user, place)| (Some(user.to_owned()), place));
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':')?)),
        None => match place.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (place, None),
        },
    };
    let port = port.map(str::parse).transpose().ok()?;
    Some(TargetQuery { host: host.to_owned(), user, port, ..query.clone() })
}

/// The lines of `ssh -G`: lower-case keyword, then values.
#[derive(Default)]
struct Options(HashMap<String, Vec<String>>);

impl Options {
    async fn ask(query: &TargetQuery) -> Result<Options, SshError> {
        let Some(program) = &query.program else {
            return Ok(Options::default());
        };
        let mut command = tokio::process::Command::new(program);
        command.arg("-G").stdin(Stdio::null()).kill_on_drop(true);
        command.args(client_args(query)).arg("--").arg(&query.host);
        let output = match tokio::time::timeout(RESOLVE_TIME, command.output()).await {
            Err(_) => {
                let why = format!("`ssh -G` took more than {} s", RESOLVE_TIME.as_secs());
                return Err(SshError::Config { host: query.host.clone(), why });
            }
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Options::default()),
            Ok(Err(source)) => {
                return Err(SshError::Program { program: program.clone(), source });
            }
            Ok(Ok(output)) => output,
        };
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(SshError::Config { host: query.host.clone(), why });
        }
        Ok(Options::read(&String::from_utf8_lossy(&output.stdout)))
    }

    fn read(text: &str) -> Options {
        let mut options = Options::default();
        for (key, value) in text.lines().filter_map(|line| line.trim().split_once(' ')) {
            options.0.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        options
    }

    fn one(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|values| values.first()).map(String::as_str)
    }

    fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.get(key).into_iter().flatten().map(String::as_str)
    }

    /// A value that is set to something other than `none`.
    fn set(&self, key: &str) -> Option<&str> {
        self.one(key).filter(|value| !value.eq_ignore_ascii_case("none") && !value.is_empty())
    }

    fn no(&self, key: &str) -> bool {
        matches!(self.one(key), Some("no" | "false"))
    }

    fn yes(&self, key: &str) -> bool {
        matches!(self.one(key), Some("yes" | "true"))
    }

    fn list(&self, key: &str) -> Vec<String> {
        self.one(key).map(|value| value.split(',').map(str::to_owned).collect()).unwrap_or_default()
    }

    fn seconds(&self, key: &str) -> Option<Duration> {
        self.one(key).and_then(|value| value.parse().ok()).filter(|&s| s > 0).map(Duration::from_secs)
    }
}

/// Arguments that give the system's `ssh` what the query overrides.
pub(super) fn client_args(query: &TargetQuery) -> Vec<std::ffi::OsString> {
    let mut args = Vec::new();
    let mut push = |flag: &str, value: std::ffi::OsString| args.extend([flag.into(), value]);
    if let Some(config) = &query.config {
        push("-F", config.into());
    }
    if let Some(user) = &query.user {
        push("-l", user.into());
    }
    if let Some(port) = query.port {
        push("-p", port.to_string().into());
    }
    args
}

fn home() -> PathBuf {
    std::env::var_os("HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from)
        .or_else(|| nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.dir))
        .unwrap_or_else(|| PathBuf::from("/"))
}

fn local_user() -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name)
}

/// What the tokens of ssh_config(5), "TOKENS", stand for.
struct Tokens<'a> {
    host: &'a str,
    hostname: &'a str,
    port: u16,
    user: &'a str,
    alias: Option<&'a str>,
}

impl Tokens<'_> {
    /// Expands `~/`, `%h` and its like, and `${NAME}`. `None` if something in it can't be expanded.
    fn expand(&self, text: &str) -> Option<PathBuf> {
        let text = text.trim().trim_matches('"');
        let mut out = String::new();
        let mut rest = match text.strip_prefix("~/") {
            Some(rest) => {
                out.push_str(home().to_str()?);
                out.push('/');
                rest
            }
            None => text,
        };
        while let Some(at) = rest.find(['%', '$']) {
            let (before, token) = rest.split_at(at);
            out.push_str(before);
            if let Some(name) = token.strip_prefix("${") {
                let (name, after) = name.split_once('}')?;
                out.push_str(&std::env::var(name).ok()?);
                rest = after;
                continue;
            }
            let mut chars = token.chars();
            if chars.next() == Some('$') {
                out.push('$');
                rest = chars.as_str();
                continue;
            }
            match chars.next() {
                Some('%') => out.push('%'),
                Some('d') => out.push_str(home().to_str()?),
                Some('h') => out.push_str(self.hostname),
                Some('n') => out.push_str(self.host),
                Some('k') => out.push_str(self.alias.unwrap_or(self.host)),
                Some('p') => out.push_str(&self.port.to_string()),
                Some('r') => out.push_str(self.user),
                Some('i') => out.push_str(&nix::unistd::getuid().to_string()),
                Some('u') => out.push_str(&local_user()?),
                Some('l') => out.push_str(nix::unistd::gethostname().ok()?.to_str()?),
                Some('L') => out.push_str(nix::unistd::gethostname().ok()?.to_str()?.split('.').next()?),
                _ => return None,
            }
            rest = chars.as_str();
        }
        out.push_str(rest);
        Some(PathBuf::from(out))
    }
}

fn interpret(query: &TargetQuery, options: &Options) -> Result<Target, SshError> {
    let hostname = options.one("hostname").unwrap_or(&query.host).to_owned();
    let user = options.one("user").map(str::to_owned).or_else(|| query.user.clone()).or_else(local_user);
    let user = user.ok_or_else(|| SshError::Config { host: query.host.clone(), why: "no user name".to_owned() })?;
    let port = options.one("port").and_then(|port| port.parse().ok()).or(query.port).unwrap_or(22);
    let alias = options.set("hostkeyalias");
    let tokens = Tokens { host: &query.host, hostname: &hostname, port, user: &user, alias };

    let paths = |key: &str, default: &[&str]| -> Vec<PathBuf> {
        match options.one(key) {
            None => default.iter().filter_map(|path| tokens.expand(path)).collect(),
            Some("none") => Vec::new(),
            Some(_) => options.all(key).filter_map(|path| tokens.expand(path)).collect(),
        }
    };
    let split = |key: &str, default: &str| -> Vec<PathBuf> {
        let files = options.one(key).unwrap_or(default);
        files
            .split(' ')
            .filter(|file| !file.is_empty() && *file != "none")
            .filter_map(|file| tokens.expand(file))
            .collect()
    };
    let identity_defaults = ["~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa"];
    let identity_files = paths("identityfile", &identity_defaults);
    let agent = match options.one("identityagent") {
        Some("none") => None,
        None | Some("SSH_AUTH_SOCK") => std::env::var_os("SSH_AUTH_SOCK").filter(|s| !s.is_empty()).map(PathBuf::from),
        Some(variable) if variable.starts_with('$') && !variable.starts_with("${") => {
            variable.get(1..).and_then(std::env::var_os).map(PathBuf::from)
        }
        Some(path) => tokens.expand(path),
    };
    let mut authentications = options.list("preferredauthentications");
    if authentications.is_empty() {
        authentications = ["publickey", "keyboard-interactive", "password"].map(str::to_owned).to_vec();
    }
    let off = [
        ("publickey", "pubkeyauthentication"),
        ("keyboard-interactive", "kbdinteractiveauthentication"),
        ("password", "passwordauthentication"),
    ];
    authentications.retain(|method| !off.iter().any(|(name, key)| name == method && options.no(key)));

    let interval = options.seconds("serveraliveinterval");
    let count = options.one("serveralivecountmax").and_then(|count| count.parse().ok()).unwrap_or(3);
    let settings = Settings {
        certificate_files: paths("certificatefile", &[]),
        identities_only: options.yes("identitiesonly"),
        agent,
        user_known_hosts: split("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2"),
        global_known_hosts: split("globalknownhostsfile", "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"),
        strict_host_keys: match options.one("stricthostkeychecking") {
            Some("yes" | "true") => StrictHostKeys::Yes,
            Some("no" | "false" | "off" | "accept-new") => StrictHostKeys::AcceptNew,
            _ => StrictHostKeys::Ask,
        },
        hash_known_hosts: options.yes("hashknownhosts"),
        host_key_alias: alias.map(str::to_owned),
        host_key_algorithms: options.list("hostkeyalgorithms"),
        kex_algorithms: options.list("kexalgorithms"),
        ciphers: options.list("ciphers"),
        macs: options.list("macs"),
        password_prompts: options.one("numberofpasswordprompts").and_then(|n| n.parse().ok()).unwrap_or(3),
        alive_interval: interval.unwrap_or(Duration::from_secs(15)),
        alive_count: if interval.is_some() { count } else { 4 },
        connect_timeout: options.seconds("connecttimeout").unwrap_or(Duration::from_secs(15)),
        ipv6: match options.one("addressfamily") {
            Some("inet") => Some(false),
            Some("inet6") => Some(true),
            _ => None,
        },
        control_path: options.set("controlpath").map(PathBuf::from),
        authentications,
        identity_files,
    };
    let backend = match system_reason(options, &settings) {
        Some(reason) => Backend::System { reason },
        None => Backend::Builtin,
    };
    Ok(Target {
        host: query.host.clone(),
        hostname,
        user,
        port,
        backend,
        jumps: Vec::new(),
        settings,
        query: query.clone(),
    })
}

/// Does the configuration want Kerberos tried, if there is a ticket? `GSSAPIAuthentication yes` alone is no reason for the system's
/// `ssh`: Debian sets it for everyone.
fn wants_kerberos(options: &Options) -> bool {
    let methods = options.list("preferredauthentications");
    options.yes("gssapiauthentication") && (methods.is_empty() || methods.iter().any(|m| m == "gssapi-with-mic"))
}

/// Has the user a Kerberos ticket that is still valid? Without `klist` to ask, a cache of tickets is taken for one.
async fn has_ticket() -> bool {
    let mut klist = tokio::process::Command::new("klist");
    klist.arg("-s").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(TICKET_TIME, klist.status()).await {
        Ok(Ok(status)) => status.success(),
        // It hangs on a cache that is a service's.
        Err(_) => false,
        Ok(Err(_)) => match std::env::var("KRB5CCNAME") {
            Ok(name) => !name.is_empty(),
            Err(_) => Path::new(&format!("/tmp/krb5cc_{}", nix::unistd::getuid())).exists(),
        },
    }
}

/// What the configuration needs that the built-in client lacks.
fn system_reason(options: &Options, settings: &Settings) -> Option<String> {
    const LACKING: [(&str, &str); 6] = [
        ("proxycommand", "ProxyCommand"),
        ("controlpath", "ControlPath"),
        ("pkcs11provider", "PKCS11Provider"),
        ("knownhostscommand", "KnownHostsCommand"),
        ("bindaddress", "BindAddress"),
        ("bindinterface", "BindInterface"),
    ];
    if let Some((_, name)) = LACKING.iter().find(|(key, _)| options.set(key).is_some()) {
        return Some((*name).to_owned());
    }
    let served = |method: &String| super::auth::METHODS.contains(&method.as_str());
    if !settings.authentications.iter().any(served) {
        return Some(format!("PreferredAuthentications {}", settings.authentications.join(",")));
    }
    let mut keys = settings.identity_files.iter().filter(|file| file.exists()).peekable();
    if settings.agent.is_none() && keys.peek().is_some() && keys.all(|file| is_hardware_key(file)) {
        return Some("a hardware key".to_owned());
    }
    if let Some(name) = super::algorithms::unserved(settings) {
        return Some(name.to_owned());
    }
    None
}

/// Whether the key beside this private key file is a FIDO one, of which the file holds a handle only.
fn is_hardware_key(file: &Path) -> bool {
    let mut public = file.as_os_str().to_owned();
    public.push(".pub");
    std::fs::read_to_string(public).is_ok_and(|text| text.starts_with("sk-"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        let mut options = Options::default();
        for (key, value) in text.lines().filter_map(|line| line.trim().split_once(' ')) {
            options.0.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        options
    }

    fn parsed(text: &str) -> Target {
        let query = TargetQuery { host: "gw".into(), user: None, port: None, config: None, program: None };
        interpret(&query, &options(text)).unwrap()
    }

    #[test]
    fn hops_are_read_as_ssh_reads_them() {
        let query = TargetQuery::new("x");
        let hop = |text| parse_hop(text, &query).map(|hop| (hop.user, hop.host, hop.port));
        let user = Some("u".to_owned());
        assert_eq!(hop("b"), Some((None, "b".into(), None)));
        assert_eq!(hop(" u@b:23"), Some((user.clone(), "b".into(), Some(23))));
        assert_eq!(hop("ssh://u@b:23/"), Some((user.clone(), "b".into(), Some(23))));
        assert_eq!(hop("u@[::1]:23"), Some((user.clone(), "::1".into(), Some(23))));
        assert_eq!(hop("[::1]"), Some((None, "::1".into(), None)));
        assert_eq!(hop("::1"), Some((None, "::1".into(), None)));
        assert_eq!(hop("u@dom@b"), Some((Some("u@dom".into()), "b".into(), None)));
        assert_eq!(hop("b:x"), None);
        assert_eq!(hop("[::1]x"), None);
    }

    #[test]
    fn what_russh_lacks_goes_to_the_system() {
        let reason = |text| parsed(text).needs_system().map(str::to_owned);
        assert_eq!(reason(""), None);
        assert_eq!(reason("gssapiauthentication yes\ncontrolmaster false\nproxycommand none"), None);
        assert_eq!(reason("proxycommand nc %h %p").as_deref(), Some("ProxyCommand"));
        assert_eq!(reason("controlpath /tmp/x").as_deref(), Some("ControlPath"));
        let only = "preferredauthentications gssapi-with-mic";
        assert_eq!(reason(only).as_deref(), Some("PreferredAuthentications gssapi-with-mic"));
        assert_eq!(reason("preferredauthentications gssapi-with-mic,publickey"), None);
        let kerberos = |text: &str| wants_kerberos(&options(text));
        assert!(kerberos("gssapiauthentication yes"));
        assert!(kerberos("gssapiauthentication yes\npreferredauthentications gssapi-with-mic,publickey"));
        assert!(!kerberos("gssapiauthentication yes\npreferredauthentications publickey"));
        assert!(!kerberos("gssapiauthentication no") && !kerberos(""));
        assert_eq!(reason("ciphers 3des-cbc-of-tomorrow").as_deref(), Some("Ciphers"));
    }

    #[test]
    fn paths_are_expanded() {
        let target = parsed(
            "hostname gw.example.org\nuser ann\nport 2200\nidentityfile ~/k_%h_%r_%p%%\nidentityfile \"/a b/%n\"\n\
             identityfile /x/%C\nuserknownhostsfile /k1 ~/k2\nglobalknownhostsfile none\nserveraliveinterval 5",
        );
        let home = home();
        assert_eq!(target.settings.identity_files, [home.join("k_gw.example.org_ann_2200%"), "/a b/gw".into()]);
        assert_eq!(target.settings.user_known_hosts, [PathBuf::from("/k1"), home.join("k2")]);
        assert!(target.settings.global_known_hosts.is_empty());
        assert_eq!((target.settings.alive_interval.as_secs(), target.settings.alive_count), (5, 3));
        assert_eq!(parsed("").settings.alive_count, 4);
    }
}
