//! The terminal in which the grid shell runs. It belongs to the master, so it outlives the person's own terminal; at most one client
//! is attached to it.
//!
//! A thread of its own reads what programs print, keeps the screen, and sends to whoever is attached: a flood of output costs the
//! master's task nothing.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc as blocking;
use std::sync::{Arc, mpsc::TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use tokio::sync::mpsc;
use vo_wire::control::{Attach, Place, TtyClosed, TtyData};
use vo_wire::frame::write_message;

use crate::control::Outbox;
use crate::screen::{Modes, Screen, Size};

/// Input that waits for a program that doesn't read: bounded, or a client could fill our memory.
const INPUT_PIECES: usize = 256;
/// Attachments that wait for the terminal's thread.
const WAITING_CLIENTS: usize = 16;
/// A terminal in the kernel holds no more.
const READ_BYTES: usize = 4096;
/// A screen goes to a client in messages of this size, so that its progress is seen.
const MESSAGE_BYTES: usize = 16 << 10;
/// Output on its way to a client; with more, programs wait for it, as they do for any terminal. Ctrl-C is felt after so much.
const WINDOW_BYTES: usize = 64 << 10;
/// A client that takes nothing for so long is waited for no longer: programs run on, and it gets the screen when it reads again.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a notice is seen.
const NOTICE: Duration = Duration::from_secs(4);
/// Longest words of a client about its terminal.
const LONGEST_PLACE: usize = 100;

/// Wakes the terminal's thread.
#[derive(Debug)]
struct Wake(UnixStream);

impl Wake {
    fn wake(&self) {
        // One that is full wakes, too.
        let _ = (&self.0).write(&[0]);
    }
}

/// What is on its way to a client.
#[derive(Debug)]
struct Unsent {
    bytes: AtomicUsize,
    /// Does the thread wait for less?
    waited_for: AtomicBool,
    wake: Arc<Wake>,
}

/// Bytes of output on their way.
#[derive(Debug)]
pub(crate) struct Credit {
    unsent: Arc<Unsent>,
    bytes: usize,
}

impl Drop for Credit {
    fn drop(&mut self) {
        self.unsent.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
        if self.unsent.waited_for.swap(false, Ordering::SeqCst) {
            self.unsent.wake.wake();
        }
    }
}

/// Whoever is attached.
struct Attached {
    client: u64,
    outbox: Outbox,
    place: Option<Place>,
    since_ms: u64,
    /// Cleared when it is detached.
    alive: Arc<AtomicBool>,
}

/// The terminal and its shell.
pub(crate) struct Terminal {
    pty: Box<dyn MasterPty + Send>,
    input: blocking::SyncSender<Vec<u8>>,
    attaching: blocking::SyncSender<Sink>,
    wake: Arc<Wake>,
    size: Arc<AtomicU32>,
    device: Option<u64>,
    attached: Option<Attached>,
}

fn packed(size: Size) -> u32 {
    u32::from(size.rows) << 16 | u32::from(size.cols)
}

fn unpacked(size: u32) -> Size {
    Size::new((size >> 16) as u16, size as u16)
}

fn pty_size(size: Size) -> PtySize {
    PtySize { rows: size.rows, cols: size.cols, pixel_width: 0, pixel_height: 0 }
}

impl Terminal {
    /// Starts the shell, with this client attached. Its exit code is told when it has ended.
    pub(crate) fn start(
        program: &Path,
        session: &str,
        dir: &Path,
        (client, outbox): (u64, Outbox),
        attach: &Attach,
        now_ms: u64,
        ended: mpsc::Sender<i32>,
    ) -> Result<Terminal, String> {
        let failed = |what: &str, e: &dyn std::fmt::Display| format!("cannot {what}: {e}");
        let size = Size::new(attach.rows, attach.cols);
        let pair = native_pty_system().openpty(pty_size(size)).map_err(|e| failed("open a terminal", &e))?;
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
        let device = pair.master.tty_name().and_then(|path| Some(std::fs::metadata(path).ok()?.rdev()));
        let child = pair.slave.spawn_command(command).map_err(|e| failed("start the grid shell", &e))?;
        let output = own_handle(pair.master.as_ref()).map_err(|e| failed("read the terminal", &e))?;
        let mut writer = pair.master.take_writer().map_err(|e| failed("write to the terminal", &e))?;
        // The slave's last copies are the shell's own: reading ends when they are closed.
        drop(pair.slave);
        let (wake, woken) = UnixStream::pair().map_err(|e| failed("make a pipe", &e))?;
        for end in [&wake, &woken] {
            end.set_nonblocking(true).map_err(|e| failed("make a pipe", &e))?;
        }
        let wake = Arc::new(Wake(wake));
        let (input, inbox) = blocking::sync_channel::<Vec<u8>>(INPUT_PIECES);
        let (attaching, coming) = blocking::sync_channel(WAITING_CLIENTS);
        let shared = Arc::new(AtomicU32::new(packed(size)));
        let mut terminal =
            Terminal { pty: pair.master, input, attaching, wake, size: Arc::clone(&shared), device, attached: None };
        let thread = Thread { output, woken, coming, size: shared, screen: Screen::new(size), sink: None };
        // Before there is any output.
        terminal.attach(client, outbox, attach, now_ms, false)?;
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
        spawn("tty-out", Box::new(move || thread.run(child, &ended)))?;
        Ok(terminal)
    }

    /// Connects a client, and shows it what is on the screen if it comes `back`; whoever was attached is told by whom it is followed.
    pub(crate) fn attach(
        &mut self,
        client: u64,
        outbox: Outbox,
        attach: &Attach,
        now_ms: u64,
        back: bool,
    ) -> Result<(), String> {
        let place =
            attach.from.clone().map(|from| Place { name: from.name.chars().take(LONGEST_PLACE).collect(), ..from });
        let by = place.as_ref().map_or_else(|| "another terminal".to_owned(), |place| place.name.clone());
        let before = self.close(None, &format!("attached from {by}"));
        let alive = Arc::new(AtomicBool::new(true));
        let size = Size::new(attach.rows, attach.cols);
        let unsent =
            Unsent { bytes: AtomicUsize::new(0), waited_for: AtomicBool::new(false), wake: Arc::clone(&self.wake) };
        let sink = Sink {
            outbox: outbox.clone(),
            alive: Arc::clone(&alive),
            unsent: Arc::new(unsent),
            back,
            notice: before.map(|before| format!(" Attached here instead of at {before}, which was told. ")),
            notice_until: None,
            progress: (0, Instant::now()),
            behind: None,
        };
        self.size.store(packed(size), Ordering::SeqCst);
        self.attaching.try_send(sink).map_err(|_| "the session's terminal is busy".to_owned())?;
        self.wake.wake();
        self.resize(attach.rows, attach.cols);
        self.attached = Some(Attached { client, outbox, place, since_ms: now_ms, alive });
        Ok(())
    }

    /// The client is gone.
    pub(crate) fn detach(&mut self, client: u64) {
        if self.is_attached(client)
            && let Some(attached) = self.attached.take()
        {
            attached.alive.store(false, Ordering::SeqCst);
            self.wake.wake();
        }
    }

    pub(crate) fn is_attached(&self, client: u64) -> bool {
        self.attached.as_ref().is_some_and(|attached| attached.client == client)
    }

    /// Where someone is attached, and since when.
    pub(crate) fn attached(&self) -> Option<(Place, u64)> {
        let attached = self.attached.as_ref()?;
        let unknown = || Place { name: "a terminal".into(), device: 0 };
        Some((attached.place.clone().unwrap_or_else(unknown), attached.since_ms))
    }

    /// The device number of the shell's end.
    pub(crate) fn device(&self) -> Option<u64> {
        self.device
    }

    /// Keys. What the program doesn't read in time is dropped, as a terminal's own buffer would.
    pub(crate) fn type_in(&self, bytes: Vec<u8>) {
        let _ = self.input.try_send(bytes);
    }

    pub(crate) fn resize(&self, rows: u16, cols: u16) {
        let size = Size::new(rows, cols);
        // First the model, as programs draw at once.
        self.size.store(packed(size), Ordering::SeqCst);
        let _ = self.pty.resize(pty_size(size));
    }

    /// Tells whoever is attached that it no longer is; where that was.
    pub(crate) fn close(&mut self, code: Option<i32>, why: &str) -> Option<String> {
        let (place, _) = self.attached()?;
        let attached = self.attached.take()?;
        attached.alive.store(false, Ordering::SeqCst);
        self.wake.wake();
        let mut bytes = Vec::new();
        write_message(0, &TtyClosed { code, why: why.into() }, &mut bytes);
        attached.outbox.send(bytes);
        Some(place.name)
    }
}

/// A second handle of the master's end: what reads it can be polled.
fn own_handle(pty: &(dyn MasterPty + Send)) -> std::io::Result<File> {
    let raw = pty.as_raw_fd().ok_or(std::io::ErrorKind::Unsupported)?;
    // SAFETY: `pty` holds it open for the time of this borrow.
    let fd = unsafe { BorrowedFd::borrow_raw(raw) };
    Ok(fd.try_clone_to_owned()?.into())
}

/// The way to the client that is attached.
struct Sink {
    outbox: Outbox,
    alive: Arc<AtomicBool>,
    unsent: Arc<Unsent>,
    back: bool,
    notice: Option<String>,
    notice_until: Option<Instant>,
    /// What was on its way when it last became less, and when that was.
    progress: (usize, Instant),
    /// It was not waited for: the modes of its terminal after what it was sent last.
    behind: Option<Modes>,
}

impl Sink {
    /// Is more output welcome?
    fn takes(&self) -> bool {
        self.behind.is_some() || self.unsent.bytes.load(Ordering::SeqCst) < WINDOW_BYTES
    }

    /// False if the client has gone.
    fn send(&mut self, data: &[u8]) -> bool {
        data.chunks(MESSAGE_BYTES).all(|data| {
            let mut bytes = Vec::new();
            write_message(0, &TtyData { data: data.to_vec() }, &mut bytes);
            let count = self.unsent.bytes.fetch_add(bytes.len(), Ordering::SeqCst) + bytes.len();
            self.progress = (count, Instant::now());
            let credit = Credit { unsent: Arc::clone(&self.unsent), bytes: bytes.len() };
            self.outbox.show(bytes, credit)
        })
    }

    /// Waits for a slow client a while; false if it has gone.
    fn attend(&mut self, screen: &Screen) -> bool {
        let unsent = self.unsent.bytes.load(Ordering::SeqCst);
        if unsent < self.progress.0 {
            self.progress = (unsent, Instant::now());
        }
        if !self.takes() && self.progress.1.elapsed() >= PATIENCE {
            self.behind = Some(screen.modes().clone());
        }
        if unsent == 0
            && let Some(modes) = self.behind.take()
        {
            self.notice_until = None;
            return self.send(&screen.redraw(&modes));
        }
        if self.behind.is_none() && self.notice_until.is_some_and(|until| until <= Instant::now()) {
            self.notice_until = None;
            return self.send(&screen.refresh());
        }
        true
    }

    /// When it has to be attended to, whatever happens.
    fn deadline(&self) -> Option<Instant> {
        let stalled = (!self.takes()).then(|| self.progress.1 + PATIENCE);
        [stalled, self.notice_until.filter(|_| self.behind.is_none())].into_iter().flatten().min()
    }
}

struct Thread {
    output: File,
    woken: UnixStream,
    coming: blocking::Receiver<Sink>,
    size: Arc<AtomicU32>,
    screen: Screen,
    sink: Option<Sink>,
}

impl Thread {
    fn run(mut self, mut child: Box<dyn Child + Send + Sync>, ended: &mpsc::Sender<i32>) {
        // What programs print is not ours to trust the session with: should the screen's model fail at it, it starts afresh.
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.turn())) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    tracing::error!("the model of the screen failed; it starts afresh");
                    self.screen = Screen::new(unpacked(self.size.load(Ordering::SeqCst)));
                }
            }
        }
        let code = child.wait().map_or(-1, |status| i32::try_from(status.exit_code()).unwrap_or(-1));
        let _ = ended.blocking_send(code);
    }

    /// False at the end of the output, or if the master has let go of the terminal.
    fn turn(&mut self) -> bool {
        self.screen.resize(unpacked(self.size.load(Ordering::SeqCst)));
        match self.coming.try_recv() {
            Ok(mut sink) => {
                let shown = !sink.back || sink.send(&self.screen.show(sink.notice.as_deref()));
                sink.notice_until = sink.notice.take().map(|_| Instant::now() + NOTICE);
                self.sink = Some(sink).filter(|_| shown);
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return false,
        }
        let screen = &self.screen;
        self.sink = self.sink.take().filter(|sink| sink.alive.load(Ordering::SeqCst)).and_then(|mut sink| {
            let stays = sink.attend(screen);
            // Set before it is looked at again below, so that no credit that comes back is missed.
            sink.unsent.waited_for.store(!sink.takes() || sink.behind.is_some(), Ordering::SeqCst);
            stays.then_some(sink)
        });
        let reading = self.sink.as_ref().is_none_or(Sink::takes);
        let caught_up =
            self.sink.as_ref().is_some_and(|s| s.behind.is_some() && s.unsent.bytes.load(Ordering::SeqCst) == 0);
        let left = self.sink.as_ref().and_then(Sink::deadline).map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = match left {
            _ if caught_up => PollTimeout::ZERO,
            // Rounded up, or the last millisecond would be spent spinning.
            Some(left) => PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX),
            None => PollTimeout::NONE,
        };
        let mut fds = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        if reading {
            fds.push(PollFd::new(self.output.as_fd(), PollFlags::POLLIN));
        }
        if poll(&mut fds, timeout).is_err() {
            return true;
        }
        let ready = |at: usize| fds.get(at).is_some_and(|fd| fd.any().unwrap_or(false));
        let (woken, output) = (ready(0), ready(1));
        if woken {
            let _ = (&self.woken).read(&mut [0; 64]);
        }
        !output || self.read()
    }

    /// Takes what programs printed; false at the end.
    fn read(&mut self) -> bool {
        let mut buffer = [0; READ_BYTES];
        let bytes = match self.output.read(&mut buffer) {
            Ok(count @ 1..) => buffer.get(..count).unwrap_or_default(),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => return true,
            // EIO: the last program that had it open has ended.
            Ok(_) | Err(_) => return false,
        };
        // Programs that were told of a new size draw in it.
        self.screen.resize(unpacked(self.size.load(Ordering::SeqCst)));
        if let Some(sink) = &mut self.sink
            && sink.behind.is_none()
            && sink.notice_until.is_some()
            && self.screen.may_scroll(bytes)
        {
            sink.notice_until = None;
            let _ = sink.send(&self.screen.refresh());
        }
        if let Some(sink) = &mut self.sink
            && sink.behind.is_none()
            && !sink.send(bytes)
        {
            self.sink = None;
        }
        self.screen.take(bytes);
        true
    }
}

fn os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use vo_wire::FrameReader;

    use super::*;
    use crate::control::Piece;

    /// The text in what a client was sent so far, which it takes; how many bytes these were.
    fn taken(sent: &mut mpsc::UnboundedReceiver<Piece>) -> (String, usize) {
        let (mut reader, mut count) = (FrameReader::new(), 0);
        while let Ok(piece) = sent.try_recv() {
            assert!(piece.bytes.len() < 2 * MESSAGE_BYTES);
            count += piece.bytes.len();
            reader.buffer().extend_from_slice(&piece.bytes);
        }
        let frames = std::iter::from_fn(|| reader.next_frame().unwrap());
        let data: Vec<u8> = frames.flat_map(|frame| frame.read::<TtyData>().unwrap().data).collect();
        (String::from_utf8_lossy(&data).into_owned(), count)
    }

    /// Polls until `condition` holds.
    fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition() {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_client_that_takes_nothing_is_passed_over_and_then_shown_the_screen() {
        let dir = std::env::temp_dir().join(format!("vo-terminal-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let shell = dir.join("shell.sh");
        std::fs::write(&shell, "#!/bin/sh\nseq 300000\n: > \"$VO_SESSION_DIR/done\"\nread word\nexit 7\n").unwrap();
        std::fs::set_permissions(&shell, std::fs::Permissions::from_mode(0o700)).unwrap();
        let (outbox, mut sent) = Outbox::new();
        let (ended, mut end) = mpsc::channel(1);
        let directory = std::os::unix::ffi::OsStrExt::as_bytes(dir.as_os_str()).to_vec();
        let attach = Attach { rows: 24, cols: 80, environment: Vec::new(), directory, from: None };
        let terminal = Terminal::start(&shell, "t", &dir, (1, outbox), &attach, 0, ended).unwrap();
        wait_for("the program runs on", || dir.join("done").exists());
        let (text, count) = taken(&mut sent);
        assert!((WINDOW_BYTES..WINDOW_BYTES + 2 * MESSAGE_BYTES).contains(&count), "{count}");
        assert!(text.starts_with("1\r\n2\r\n"), "{text}");
        let mut text = String::new();
        wait_for("the screen as it is", || {
            text += &taken(&mut sent).0;
            text.contains("\r\n299999\r\n300000")
        });
        // And what the kernel still held of 2 MB.
        assert!(text.contains("\x1b[H\x1b[J") && text.len() < WINDOW_BYTES, "the screen and little more: {text}");
        terminal.type_in(b"word\r".to_vec());
        assert_eq!(end.blocking_recv(), Some(7));
        std::fs::remove_dir_all(dir).unwrap();
    }
}
