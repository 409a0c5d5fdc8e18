//! Values that are one word, in files and on the command line.

use super::*;
use std::net::IpAddr;

/// Reads `N:CPUS`, or `N` for proxies of one processor each.
///
/// # Errors
/// What was expected.
pub fn parse_proxies(text: &str) -> Result<Proxies, &'static str> {
    const EXPECTED: &str = "NUMBER:CPUS such as 4:16, each from 1 to 100000";
    let number = |text: &str| match text.parse::<u32>() {
        Ok(n @ 1..=MAX_COUNT) if !text.starts_with('+') => Ok(n),
        _ => Err(EXPECTED),
    };
    let (count, cpus) = text.trim().split_once(':').unwrap_or((text.trim(), "1"));
    Ok(Proxies { count: number(count)?, cpus: number(cpus)? })
}

/// Reads `FIRST-LAST`, or one port.
///
/// # Errors
/// What was expected.
pub fn parse_ports(text: &str) -> Result<Ports, &'static str> {
    let number = |text: &str| match text.parse::<u16>() {
        Ok(n @ 1..) if !text.starts_with('+') => Some(n),
        _ => None,
    };
    let (first, last) = text.trim().split_once('-').unwrap_or((text.trim(), text.trim()));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(Ports { first, last }),
        _ => Err("ports such as 40000-40100"),
    }
}

/// Reads keys such as `ctrl-^ d` as the bytes that a terminal sends for them; `none` is none. The first one is typed with Ctrl, since
/// it is held back until the next one shows what it means.
///
/// # Errors
/// What was expected.
pub fn parse_detach_keys(text: &str) -> Result<Vec<u8>, &'static str> {
    const EXPECTED: &str = "`none`, or up to 4 keys such as `ctrl-^ d`, the first of them with ctrl-";
    const ESCAPE: u8 = 0x1b;
    if text.trim() == "none" {
        return Ok(Vec::new());
    }
    let key = |word: &str| {
        let byte = match (word.strip_prefix("ctrl-").unwrap_or(word), word.starts_with("ctrl-")) {
            ("space", true) => 0,
            (key, ctrl) => match key.as_bytes() {
                [letter @ (b'@'..=b'_' | b'a'..=b'z')] if ctrl => letter & 0x1f,
                [key @ b'!'..=b'~'] if !ctrl => *key,
                _ => return Err(EXPECTED),
            },
        };
        // Cursor keys begin with it.
        if byte == ESCAPE { Err(EXPECTED) } else { Ok(byte) }
    };
    let keys = text.split_whitespace().map(key).collect::<Result<Vec<u8>, _>>()?;
    match keys.first() {
        Some(0..b' ') if keys.len() <= MAX_KEYS => Ok(keys),
        _ => Err(EXPECTED),
    }
}

pub(super) fn log_format(text: &str) -> Result<Form, &'static str> {
    let known = Form::NAMES.into_iter().find(|(name, _)| *name == text);
    known.map(|(_, form)| form).ok_or("`text`, `json` or `xml`")
}

/// A command that sends mails, or `none`.
pub(super) fn mail(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "none" => Ok(String::new()),
        command if command.is_empty() || command.contains('\0') => {
            Err("a command that sends what it reads, such as \"sendmail -t\", or \"none\"")
        }
        command => Ok(command.to_owned()),
    }
}

/// `[user@]host[:port]`, with an IPv6 address in brackets when a port follows.
pub(super) fn address(text: &str) -> Result<SiteConf, &'static str> {
    const EXPECTED: &str = "HOST, USER@HOST or USER@HOST:PORT";
    let (login, place) = match text.rsplit_once('@') {
        Some((login, place)) => (Some(user(login).map_err(|_| EXPECTED)?), place),
        None => (None, text),
    };
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(EXPECTED)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| EXPECTED)?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(EXPECTED),
            }
        }
        None if place.parse::<IpAddr>().is_ok() => (place, None),
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(port @ 1..)) => Some(port),
        Some(_) => return Err("a port from 1 to 65535"),
    };
    let is_address = host.parse::<IpAddr>().is_ok();
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    if host.is_empty()
        || host.len() > MAX_WORD
        || host.starts_with(['-', '.'])
        || !(is_address || host.chars().all(allowed))
    {
        return Err(EXPECTED);
    }
    let label = if is_address { host } else { host.split('.').next().unwrap_or(host) };
    let mut site = SiteConf::new(label.replace([':', '+'], "-"), host);
    (site.user, site.port) = (login, port);
    Ok(site)
}

pub(super) fn user(text: &str) -> Result<String, &'static str> {
    let bad = |c: char| {
        c.is_whitespace() || c.is_control() || matches!(c, '@' | '/' | '\'' | '"' | '`' | '$' | ';' | '|' | '&')
    };
    match text.is_empty() || text.len() > MAX_WORD || text.starts_with('-') || text.contains(bad) {
        true => Err("a user name"),
        false => Ok(text.to_owned()),
    }
}

pub(super) fn site_name(text: &str) -> Result<String, &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match !text.is_empty() && text.len() <= 64 && !text.starts_with(['-', '.']) && text.chars().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err("letters, digits, `.`, `_` and `-`, at most 64, the first no dash or dot"),
    }
}

/// One word of a batch system's command line, which can't be taken for an option.
pub(super) fn word(text: &str) -> Result<String, &'static str> {
    let bad = |c: char| c.is_whitespace() || c.is_control();
    match text.is_empty() || text.len() > MAX_WORD || text.starts_with('-') || text.contains(bad) {
        true => Err("one word that doesn't begin with a dash"),
        false => Ok(text.to_owned()),
    }
}

/// A path that a shell may expand: a variable in front is all that it finds to expand.
pub(super) fn directory(text: &str) -> Result<String, &'static str> {
    let bad = |c: char| c.is_control() || "$`'\"\\;&|<>()*?[]{}!#~".contains(c);
    let plain = !text.get(1..).unwrap_or_default().contains(bad);
    match text.starts_with(['/', '$']) && text.len() <= 4096 && plain {
        true => Ok(text.to_owned()),
        false => Err("an absolute path, or one that begins with a variable such as $TMPDIR"),
    }
}
