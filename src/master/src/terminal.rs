//! The terminal in which the grid shell runs. It belongs to the master, so it outlives the person's own terminal; at most one client
//! is attached to it.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc as blocking;
use std::thread;

use portable_pty::{CommandBuilder, MasterPty, PtySize, native_pty_system};
use tokio::sync::mpsc;
use vo_wire::control::{Attach, TtyClosed, TtyData};
use vo_wire::frame::write_message;

use crate::control::Outbox;

/// Input that waits for a program that doesn't read: bounded, or a client could fill our memory.
const INPUT_PIECES: usize = 256;

/// What the terminal tells.
pub(crate) enum Told {
    Output(Vec<u8>),
    Ended(i32),
}

/// The terminal and its shell.
pub(crate) struct Terminal {
    pty: Box<dyn MasterPty + Send>,
    input: blocking::SyncSender<Vec<u8>>,
    attached: Option<(u64, Outbox)>,
}

impl Terminal {
    /// Starts the shell.
    pub(crate) fn start(
        program: &Path,
        session: &str,
        dir: &Path,
        attach: &Attach,
        told: mpsc::Sender<Told>,
    ) -> Result<Terminal, String> {
        let failed = |what: &str, e: &dyn std::fmt::Display| format!("cannot {what}: {e}");
        let size = PtySize { rows: attach.rows.max(1), cols: attach.cols.max(1), pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).map_err(|e| failed("open a terminal", &e))?;
        let mut command = CommandBuilder::new(program);
        command.arg("shell");
        command.env_clear();
        for entry in &attach.environment {
            if let Some(at) = entry.0.iter().skip(1).position(|b| *b == b'=') {
                let (name, value) = (&entry.0[..=at], &entry.0[at + 2..]);
                command.env(os(name), os(value));
            }
        }
        command.env("VO_SESSION", session);
        command.env("VO_SESSION_DIR", dir);
        command.cwd(os(&attach.directory));
        let mut child = pair.slave.spawn_command(command).map_err(|e| failed("start the grid shell", &e))?;
        let mut reader = pair.master.try_clone_reader().map_err(|e| failed("read the terminal", &e))?;
        let mut writer = pair.master.take_writer().map_err(|e| failed("write to the terminal", &e))?;
        // The slave's last copies are the shell's own: reading ends when they are closed.
        drop(pair.slave);
        let (input, inbox) = blocking::sync_channel::<Vec<u8>>(INPUT_PIECES);
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            thread::Builder::new().name(name.into()).spawn(run).map_err(|e| failed("start a thread", &e))
        };
        spawn(
            "tty-in",
            Box::new(move || {
                while let Ok(bytes) = inbox.recv() {
                    if writer.write_all(&bytes).is_err() {
                        return;
                    }
                }
            }),
        )?;
        spawn(
            "tty-out",
            Box::new(move || {
                let mut buffer = vec![0; 16 << 10];
                while let Ok(n @ 1..) = reader.read(&mut buffer) {
                    if told.blocking_send(Told::Output(buffer[..n].to_vec())).is_err() {
                        return;
                    }
                }
                let code = child.wait().map_or(-1, |status| i32::try_from(status.exit_code()).unwrap_or(-1));
                let _ = told.blocking_send(Told::Ended(code));
            }),
        )?;
        Ok(Terminal { pty: pair.master, input, attached: None })
    }

    /// Connects a client; whoever was attached is told.
    pub(crate) fn attach(&mut self, client: u64, outbox: Outbox, attach: &Attach) {
        self.close(None, "attached from another terminal");
        self.resize(attach.rows, attach.cols);
        self.attached = Some((client, outbox));
    }

    /// The client is gone.
    pub(crate) fn detach(&mut self, client: u64) {
        if self.is_attached(client) {
            self.attached = None;
        }
    }

    pub(crate) fn is_attached(&self, client: u64) -> bool {
        self.attached.as_ref().is_some_and(|(attached, _)| *attached == client)
    }

    /// Keys. What the program doesn't read in time is dropped, as a terminal's own buffer would.
    pub(crate) fn type_in(&self, bytes: Vec<u8>) {
        let _ = self.input.try_send(bytes);
    }

    pub(crate) fn resize(&self, rows: u16, cols: u16) {
        let _ = self.pty.resize(PtySize { rows: rows.max(1), cols: cols.max(1), pixel_width: 0, pixel_height: 0 });
    }

    /// Output to whoever is attached.
    pub(crate) fn show(&self, data: Vec<u8>) {
        if let Some((_, outbox)) = &self.attached {
            let mut bytes = Vec::new();
            write_message(0, &TtyData { data }, &mut bytes);
            outbox.send(bytes);
        }
    }

    /// Tells whoever is attached that it no longer is.
    pub(crate) fn close(&mut self, code: Option<i32>, why: &str) {
        if let Some((_, outbox)) = self.attached.take() {
            let mut bytes = Vec::new();
            write_message(0, &TtyClosed { code, why: why.into() }, &mut bytes);
            outbox.send(bytes);
        }
    }
}

fn os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}
