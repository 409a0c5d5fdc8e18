//! What `known_hosts` files say of a host: a pure function over their text, which decides as OpenSSH's client does.
//!
//! The format is in sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT". Understood: several names a line, wildcards and negation, hashed
//! names, `[host]:port`, the markers `@revoked` and `@cert-authority`, several keys a host, tabs, comments, CRLF. Lines that
//! can't be read are skipped, as OpenSSH skips them. Where OpenSSH surprises, it is followed:
//!
//! - a host with a known key of another type only, which does not show that key, has [changed](Verdict::Changed);
//! - a key that is known for the host without a port is accepted on any port, but never makes it changed there.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;

/// What the files say of a key that a host shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This very key, or for a certificate its authority, is trusted for the host.
    Known,
    /// Nothing is known of the host.
    Unknown,
    /// Other keys are known for the host, and not this one.
    Changed {
        /// File with the last of them.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// The key, or its certificate's authority, must not be trusted.
    Revoked {
        /// File that says so.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    None,
    Authority,
    Revoked,
}

/// One readable line.
#[derive(Debug)]
struct Line {
    file: usize,
    number: usize,
    marker: Marker,
    names: String,
    key_type: String,
    blob: Vec<u8>,
}

/// The lines of all files that count for a connection.
#[derive(Debug, Default)]
pub struct KnownHosts {
    files: Vec<PathBuf>,
    lines: Vec<Line>,
}

/// The name under which a host is looked up: `host`, or `[host]:port` for another port than 22; in lower case.
pub fn lookup_name(host: &str, port: u16) -> String {
    let host = host.to_ascii_lowercase();
    if port == 22 { host } else { format!("[{host}]:{port}") }
}

/// A line for a new key, with its newline. `salt` makes it a hashed one.
pub fn new_line(name: &str, key_type: &str, blob: &[u8], salt: Option<&[u8; 20]>) -> String {
    let name = match salt {
        Some(salt) => {
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt), name.as_bytes());
            format!("|1|{}|{}", BASE64_STANDARD.encode(salt), BASE64_STANDARD.encode(tag))
        }
        None => name.to_owned(),
    };
    format!("{name} {key_type} {}\n", BASE64_STANDARD.encode(blob))
}

impl KnownHosts {
    /// Reads one more file's text. `path` is for messages only.
    pub fn add(&mut self, path: &Path, text: &str) {
        let file = self.files.len();
        self.files.push(path.to_owned());
        let parsed = text.lines().enumerate().filter_map(|(index, line)| parse(line, file, index + 1));
        self.lines.extend(parsed);
    }

    /// Judges a plain key. `name` is from [`lookup_name`], or a `HostKeyAlias` as it is; `portless` is the host's name
    /// without its port, where that differs and there is no alias.
    pub fn check(&self, name: &str, portless: Option<&str>, blob: &[u8]) -> Verdict {
        match self.judge(name, Marker::None, blob, &[blob]) {
            Verdict::Unknown => match portless.map(|host| self.judge(host, Marker::None, blob, &[blob])) {
                Some(Verdict::Known) => Verdict::Known,
                Some(revoked @ Verdict::Revoked { .. }) => revoked,
                _ => Verdict::Unknown,
            },
            verdict => verdict,
        }
    }

    /// Judges the authority of a host certificate for the plain key `blob`: [`Verdict::Known`], [`Verdict::Revoked`], or
    /// [`Verdict::Unknown`]. Whether the certificate is valid for the host and time is for the caller.
    pub fn check_authority(&self, name: &str, portless: Option<&str>, blob: &[u8], authority: &[u8]) -> Verdict {
        let mut verdict = Verdict::Unknown;
        for name in [Some(name), portless].into_iter().flatten() {
            match self.judge(name, Marker::Authority, authority, &[blob, authority]) {
                Verdict::Changed { .. } | Verdict::Unknown => (),
                Verdict::Known => verdict = Verdict::Known,
                revoked @ Verdict::Revoked { .. } => return revoked,
            }
        }
        verdict
    }

    /// Types of the keys known for a host, in the files' order: to be preferred when the key type is negotiated.
    pub fn key_types(&self, name: &str, portless: Option<&str>) -> Vec<&str> {
        self.types(name, portless, Marker::None)
    }

    /// Whether some authority may vouch for the host, so that certificates are worth asking for.
    pub fn has_authority(&self, name: &str, portless: Option<&str>) -> bool {
        !self.types(name, portless, Marker::Authority).is_empty()
    }

    fn types(&self, name: &str, portless: Option<&str>, marker: Marker) -> Vec<&str> {
        let mut types: Vec<&str> = Vec::new();
        for name in [Some(name), portless].into_iter().flatten() {
            for line in self.lines.iter().filter(|line| line.marker == marker && matches_list(&line.names, name)) {
                if !types.contains(&line.key_type.as_str()) {
                    types.push(&line.key_type);
                }
            }
        }
        types
    }

    fn judge(&self, name: &str, marker: Marker, wanted: &[u8], revocable: &[&[u8]]) -> Verdict {
        let mut verdict = Verdict::Unknown;
        for line in self.lines.iter().filter(|line| matches_list(&line.names, name)) {
            let at = || (self.files.get(line.file).cloned().unwrap_or_default(), line.number);
            if line.marker == Marker::Revoked && revocable.contains(&line.blob.as_slice()) {
                let (file, line) = at();
                return Verdict::Revoked { file, line };
            }
            if line.marker == marker && line.blob == wanted {
                verdict = Verdict::Known;
            } else if line.marker == marker && verdict != Verdict::Known {
                let (file, line) = at();
                verdict = Verdict::Changed { file, line };
            }
        }
        verdict
    }
}

fn parse(line: &str, file: usize, number: usize) -> Option<Line> {
    let mut fields = line.split([' ', '\t', '\r']).filter(|field| !field.is_empty());
    let mut names = fields.next()?;
    let marker = match names {
        "@cert-authority" => Marker::Authority,
        "@revoked" => Marker::Revoked,
        _ if names.starts_with(['@', '#']) => return None,
        _ => Marker::None,
    };
    if marker != Marker::None {
        names = fields.next()?;
    }
    let key_type = fields.next()?;
    let blob = BASE64_STANDARD.decode(fields.next()?).ok()?;
    // The type in the text must be that in the key, as OpenSSH demands.
    let length = usize::try_from(u32::from_be_bytes(*blob.first_chunk()?)).ok()?;
    if blob.get(4..)?.get(..length)? != key_type.as_bytes() || key_type.contains("-cert-") {
        return None;
    }
    russh::keys::PublicKey::from_bytes(&blob).ok()?;
    Some(Line { file, number, marker, names: names.to_owned(), key_type: key_type.to_owned(), blob })
}

/// Whether a line's names cover a host: a hashed name, or a list in which a negated match excludes.
fn matches_list(names: &str, host: &str) -> bool {
    if names.starts_with('|') {
        return matches_hash(names, host).unwrap_or(false);
    }
    let mut found = false;
    for pattern in names.split(',') {
        match pattern.strip_prefix('!') {
            Some(negated) if matches_pattern(negated, host) => return false,
            Some(_) => (),
            None => found |= matches_pattern(pattern, host),
        }
    }
    found
}

fn matches_hash(names: &str, host: &str) -> Option<bool> {
    let (salt, tag) = names.strip_prefix("|1|")?.split_once('|')?;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &BASE64_STANDARD.decode(salt).ok()?);
    Some(hmac::verify(&key, host.as_bytes(), &BASE64_STANDARD.decode(tag).ok()?).is_ok())
}

/// Whether a pattern with `*` and `?` covers all of a text, without regard to ASCII case.
fn matches_pattern(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    // On a mismatch, the last `*` takes one byte more; earlier ones never need to.
    let (mut p, mut t, mut retry) = (0, 0, None);
    loop {
        match (pattern.get(p), text.get(t)) {
            (Some(b'*'), _) => {
                retry = Some((p + 1, t));
                p += 1;
            }
            (Some(&a), Some(b)) if a == b'?' || a.eq_ignore_ascii_case(b) => (p, t) = (p + 1, t + 1),
            (None, None) => return true,
            _ => match retry {
                Some((after, from)) if from < text.len() => {
                    retry = Some((after, from + 1));
                    (p, t) = (after, from + 1);
                }
                _ => return false,
            },
        }
    }
}
