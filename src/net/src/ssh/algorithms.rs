//! Which algorithms to negotiate: the user's, as far as russh has them.

use std::borrow::Cow;

use russh::keys::Algorithm;
use russh::{Preferred, cipher, kex, mac};

use super::Settings;
use super::trust::Trust;

/// Algorithms in the user's order, as far as russh has them; its own defaults where nothing is configured.
pub(super) fn preferred(settings: &Settings, trust: &Trust) -> Preferred {
    let defaults = Preferred::DEFAULT;
    let (name, portless) = (trust.name.as_str(), trust.portless.as_deref());
    let known = trust.known.key_types(name, portless);
    let is_known = |algorithm: &Algorithm| match algorithm {
        Algorithm::Rsa { .. } => known.contains(&"ssh-rsa"),
        algorithm => known.contains(&algorithm.as_str()),
    };
    let mut keys = host_keys(settings);
    // A stable sort: the known types come first, else a second key of a known host would look like a changed one.
    keys.sort_by_key(|algorithm| !is_known(algorithm));
    let certificates = if trust.known.has_authority(name, portless) { keys.clone() } else { Vec::new() };
    let extensions = defaults.kex.iter().filter(|name| is_kex_extension(name)).copied();
    Preferred {
        kex: match kexes(settings) {
            chosen if chosen.is_empty() => defaults.kex.clone(),
            chosen => Cow::Owned(chosen.into_iter().chain(extensions).collect()),
        },
        key: Cow::Owned(keys),
        host_key_certificates: Cow::Owned(certificates),
        cipher: or_default(ciphers(settings), defaults.cipher),
        mac: or_default(macs(settings), defaults.mac),
        compression: defaults.compression,
    }
}

fn or_default<T: Clone>(chosen: Vec<T>, default: Cow<'static, [T]>) -> Cow<'static, [T]> {
    if chosen.is_empty() { default } else { Cow::Owned(chosen) }
}

fn is_kex_extension(name: &kex::Name) -> bool {
    [
        kex::EXTENSION_SUPPORT_AS_CLIENT,
        kex::EXTENSION_SUPPORT_AS_SERVER,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
    ]
    .contains(name)
}

fn host_keys(settings: &Settings) -> Vec<Algorithm> {
    let supported = &Preferred::DEFAULT.key;
    let listed = settings.host_key_algorithms.iter().filter_map(|name| Algorithm::new(name).ok());
    let chosen: Vec<_> = listed.filter(|algorithm| supported.contains(algorithm)).collect();
    if !settings.host_key_algorithms.is_empty() {
        return chosen;
    }
    // SHA-1 signatures only where the configuration asks for them.
    supported.iter().filter(|algorithm| **algorithm != Algorithm::Rsa { hash: None }).cloned().collect()
}

fn kexes(settings: &Settings) -> Vec<kex::Name> {
    let names = settings.kex_algorithms.iter().filter_map(|name| kex::Name::try_from(name.as_str()).ok());
    names.filter(|name| *name != kex::NONE && !is_kex_extension(name)).collect()
}

fn ciphers(settings: &Settings) -> Vec<cipher::Name> {
    let names = settings.ciphers.iter().filter_map(|name| cipher::Name::try_from(name.as_str()).ok());
    names.filter(|name| *name != cipher::NONE && *name != cipher::CLEAR).collect()
}

fn macs(settings: &Settings) -> Vec<mac::Name> {
    let names = settings.macs.iter().filter_map(|name| mac::Name::try_from(name.as_str()).ok());
    names.filter(|name| *name != mac::NONE).collect()
}

/// The option, if any, that names only algorithms which russh lacks.
pub(super) fn unserved(settings: &Settings) -> Option<&'static str> {
    let lacking = |wanted: &[String], served: bool| !wanted.is_empty() && !served;
    [
        ("HostKeyAlgorithms", lacking(&settings.host_key_algorithms, !host_keys(settings).is_empty())),
        ("KexAlgorithms", lacking(&settings.kex_algorithms, !kexes(settings).is_empty())),
        ("Ciphers", lacking(&settings.ciphers, !ciphers(settings).is_empty())),
        ("MACs", lacking(&settings.macs, !macs(settings).is_empty())),
    ]
    .into_iter()
    .find_map(|(name, lacking)| lacking.then_some(name))
}
