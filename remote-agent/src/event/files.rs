//! The session's files: tags, exit files, the starters' file; and their removal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use minicbor::Encode;
use vo_core::ids::ProxyId;
use vo_core::proxy::Exit;

use crate::launch::SiteDir;

/// Bytes of a batch job's output that a note quotes.
const TAIL: usize = 1000;

/// Writes a file of ours, 0600, whole or not at all.
pub(super) fn write_file<T: Encode<()>>(path: &Path, content: &T) -> io::Result<()> {
    let bytes = minicbor::to_vec(content).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))?;
    let aside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(&bytes)?;
    fs::rename(&aside, path)
}

/// Makes the tags of a proxy's next life. The exit file of an earlier one would tell that this one has ended.
pub(super) fn make_tags(dir: &SiteDir, proxy: ProxyId, nodes: u32) -> io::Result<()> {
    absent_is_fine(fs::remove_file(dir.exit_file(proxy)))?;
    for node in 0..nodes {
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(dir.tag(proxy, node))?;
    }
    // Tags that a crash of the file server took along would tell of a proxy that has ended.
    File::open(dir.0.join("tags"))?.sync_all()
}

pub(super) type Tags = (BTreeSet<(ProxyId, u32)>, BTreeMap<ProxyId, Exit>);

pub(super) fn read_tags(dir: &SiteDir, proxies: &[ProxyId]) -> io::Result<Tags> {
    let mut tags = BTreeSet::new();
    // A file server's clients remember for a while that a file was missing, but not what a directory lists.
    for entry in fs::read_dir(dir.0.join("tags"))? {
        let name = entry?.file_name();
        let tag = name.to_str().and_then(|name| name.split_once('.'));
        if let Some((proxy, node)) = tag.and_then(|(proxy, node)| Some((proxy.parse().ok()?, node.parse().ok()?))) {
            tags.insert((ProxyId(proxy), node));
        }
    }
    let mut exits = BTreeMap::new();
    for &proxy in proxies {
        match fs::read_to_string(dir.exit_file(proxy)) {
            Ok(text) => drop(exits.insert(proxy, exit(&text))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok((tags, exits))
}

/// Code and restarts, as the script writes them.
fn exit(text: &str) -> Exit {
    let mut words = text.split_whitespace();
    let code = words.next().unwrap_or_default().chars().take(20).collect();
    Exit { code, restarts: words.next().and_then(|word| word.parse().ok()).unwrap_or(u32::MAX) }
}

/// Removes the tags and the secrets of a proxy that ended.
pub(super) fn clean(dir: &SiteDir, proxy: ProxyId) -> io::Result<()> {
    let begin = format!("{proxy}.");
    for entry in fs::read_dir(dir.0.join("tags"))? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(&begin)) {
            absent_is_fine(fs::remove_file(entry.path()))?;
        }
    }
    absent_is_fine(fs::remove_file(dir.launch(proxy)))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::remove_dir_all(path))
}

pub(super) fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL as u64)))?;
    let mut bytes = Vec::new();
    file.take(TAIL as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes)
        .chars()
        .map(|c| {
            if c == '\n' {
                '|'
            } else if c.is_control() {
                ' '
            } else {
                c
            }
        })
        .collect())
}

/// Removes the session's files; with those of the last session, the programs too.
pub(super) fn remove_session(root: &Path, dir: &Path) -> io::Result<()> {
    remove_tree(dir)?;
    for entry in fs::read_dir(root)? {
        if entry?.file_name() != "bin" {
            return Ok(());
        }
    }
    remove_tree(&root.join("bin"))?;
    // Another session may have begun meanwhile.
    match fs::remove_dir(root) {
        Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => absent_is_fine(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_is_submitted_again_has_not_ended() -> io::Result<()> {
        let home = tempfile::tempdir()?;
        let (dir, proxy) = (SiteDir(home.path().to_owned()), ProxyId(5));
        fs::create_dir_all(dir.0.join("tags"))?;
        fs::create_dir_all(dir.proxy(proxy))?;
        fs::write(dir.exit_file(proxy), "130 2\n")?;
        let exits = read_tags(&dir, &[proxy])?.1;
        assert_eq!(exits, [(proxy, Exit { code: "130".into(), restarts: 2 })].into());
        make_tags(&dir, proxy, 2)?;
        let (tags, exits) = read_tags(&dir, &[proxy])?;
        assert_eq!((tags.len(), exits.len()), (2, 0));
        Ok(())
    }
}
