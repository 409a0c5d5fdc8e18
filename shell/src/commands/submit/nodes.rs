//! A `submit` that a master keeps for the nodes of a DAG: one submission after another, for as long as they come.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::memfd::{MFdFlags, memfd_create};
use vo_wire::control::Submitted;
use vo_wire::dag::{NodeSubmitted, SubmitNode};

use super::{Asking, assignment, of_a_dag, prepare, read, send};
use crate::client::Master;
use crate::error::{Error, ExitCode, Result};

pub(super) fn serve(asking: &Asking) -> Result<ExitCode> {
    let failed = |e: io::Error| Error::system("cannot take nodes", e);
    let mut requests = File::from(io::stdin().as_fd().try_clone_to_owned().map_err(failed)?);
    let mut answers = File::from(io::stdout().as_fd().try_clone_to_owned().map_err(failed)?);
    // What is said of a node goes with its answer; programs that a description runs have no part in the conversation.
    let mut said = File::from(memfd_create("said", MFdFlags::MFD_CLOEXEC).map_err(|e| failed(e.into()))?);
    nix::unistd::dup2_stdin(File::open("/dev/null").map_err(failed)?).map_err(|e| failed(e.into()))?;
    nix::unistd::dup2_stdout(&said).map_err(|e| failed(e.into()))?;
    nix::unistd::dup2_stderr(&said).map_err(|e| failed(e.into()))?;
    let mut master = None;
    while let Some(request) = next(&mut requests).map_err(failed)? {
        let submitted = submit(asking, &mut master, &request);
        if let Err(error) = &submitted {
            eprintln!("{error}");
            master = None;
        }
        let cluster = submitted.ok().map(|submitted| (submitted.cluster, submitted.jobs));
        let answer = NodeSubmitted { cluster, said: take(&mut said).map_err(failed)? };
        let body = minicbor::to_vec(&answer).map_err(|e| failed(io::Error::other(e)))?;
        let length = u32::try_from(body.len()).map_err(|e| failed(io::Error::other(e)))?;
        answers.write_all(&[&length.to_be_bytes(), &body[..]].concat()).map_err(failed)?;
    }
    Ok(ExitCode::Success)
}

/// The next request; none at the end.
fn next(requests: &mut File) -> io::Result<Option<SubmitNode>> {
    let mut length = [0; 4];
    match requests.read_exact(&mut length) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    requests.read_exact(&mut body)?;
    minicbor::decode(&body).map(Some).map_err(io::Error::other)
}

/// What was said since the last time.
fn take(said: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    said.rewind()?;
    said.read_to_end(&mut bytes)?;
    if !bytes.is_empty() {
        said.set_len(0)?;
        said.seek(SeekFrom::Start(0))?;
    }
    Ok(String::from_utf8_lossy(bytes.trim_ascii()).into_owned())
}

fn submit(asking: &Asking, master: &mut Option<Master>, node: &SubmitNode) -> Result<Submitted> {
    let directory = Path::new(OsStr::from_bytes(&node.directory));
    std::env::set_current_dir(directory)
        .map_err(|e| Error::system(format!("there is no directory {}", directory.display()), e))?;
    let (file, text) = match &node.text {
        Some(text) => (OsString::from("-"), text.0.clone()),
        None => (OsString::from(&node.file), read(OsStr::new(&node.file))?),
    };
    let text = of_a_dag(&node.before, &text);
    let overrides: Vec<_> = node.append.iter().filter_map(|word| assignment(OsStr::new(word))).collect();
    let mut request = prepare(&file, &text, node.before.len(), &overrides, None, directory)?;
    if let Some(first) = request.groups.first_mut() {
        first.tag = Some(node.tag.clone());
    }
    let master = match master {
        Some(master) => master,
        none => none.insert(asking.connect()?),
    };
    send(master, &request)
}
