//! A program at a terminal, and what a person would see and type there.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

use crate::seconds;

/// How long anything at a terminal may take, unless the test says otherwise.
const LIMIT: Duration = seconds(30);

/// What the grid shell's prompt ends with.
const PROMPT: &str = "(grid)% ";

/// Leads the terminal's session, as a shell would: when a leader ends, the kernel throws away what was printed and not read yet. It tells
/// who the program is, and how it ended, in titles that no program sets.
const LEADER: &str = r#"trap : INT QUIT TERM
sh -c 'printf "\033]777;pid=%s\007" $$; exec "$@"' sh "$@"
printf '\033]777;code=%s\007' $?
cd / && exec env -i sleep infinity"#;

/// A program at a terminal: of 50 lines and 200 columns, unless the test says otherwise.
pub struct Terminal {
    leader: Box<dyn Child + Send + Sync>,
    // Held: the terminal hangs up when it is dropped.
    pty: Box<dyn MasterPty + Send>,
    keyboard: Box<dyn Write + Send>,
    seen: Arc<(Mutex<Screen>, Condvar)>,
    /// Line and byte up to which the test has looked.
    mark: (usize, usize),
    limit: Duration,
}

impl Terminal {
    pub(crate) fn start(mut command: CommandBuilder, (rows, cols): (u16, u16)) -> Terminal {
        let words = ["sh", "-c", LEADER, "leader"].map(OsString::from);
        command.get_argv_mut().splice(..0, words);
        let size = PtySize { rows, cols, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).expect("a pseudo-terminal");
        let leader = pair.slave.spawn_command(command).expect("the program starts");
        drop(pair.slave);
        let mut output = pair.master.try_clone_reader().expect("a second handle of the terminal");
        let seen = Arc::new((Mutex::new(Screen::new(rows, cols)), Condvar::new()));
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let got = output.read(&mut buffer).unwrap_or(0);
                let (screen, changed) = &*shared;
                let mut screen = screen.lock().expect("no one panics holding it");
                let bytes = buffer.get(..got).unwrap_or_default();
                bytes.iter().for_each(|byte| screen.put(*byte));
                screen.window.process(bytes);
                screen.closed |= got == 0;
                changed.notify_all();
                if got == 0 {
                    return;
                }
            }
        });
        let keyboard = pair.master.take_writer().expect("the terminal's only writer");
        Terminal { leader, pty: pair.master, keyboard, seen, mark: (0, 0), limit: LIMIT }
    }

    /// Changes how long what follows may take.
    pub fn within(&mut self, limit: Duration) -> &mut Self {
        self.limit = limit;
        self
    }

    /// Waits for `text`, which must be on one line; returns what came before it.
    pub fn expect(&mut self, text: &str) -> String {
        self.wait(&format!("{text:?}"), |screen, mark| screen.find(mark, text))
    }

    /// Waits for the first of `texts` to appear; returns what came before it, and which it was.
    pub fn expect_any(&mut self, texts: &[&str]) -> (String, usize) {
        let before = self.wait(&format!("one of {texts:?}"), |screen, mark| {
            texts.iter().filter_map(|text| screen.find(mark, text)).min()
        });
        let (row, end) = self.mark;
        let screen = self.seen.0.lock().expect("no one panics holding it");
        let line = screen.lines.get(row).and_then(|line| line.get(..end)).unwrap_or_default();
        let which = texts.iter().position(|text| line.ends_with(text.as_bytes()));
        (before, which.expect("the mark is behind one of them"))
    }

    /// Waits for the grid shell's prompt below the place looked at last; returns what is between.
    pub fn prompt(&mut self) -> String {
        self.prompt_of(PROMPT)
    }

    /// Waits for a line, below the place looked at last, that ends with `prompt` and the cursor; returns what is between.
    pub fn prompt_of(&mut self, prompt: &str) -> String {
        self.wait(&format!("the prompt {prompt:?}"), |screen, mark| {
            let line = screen.lines.get(screen.row)?;
            let new = screen.row > mark.0 || mark == (0, 0);
            let bare = line.ends_with(prompt.as_bytes()) && screen.column == line.len();
            (new && bare).then_some(((screen.row, 0), (screen.row, line.len())))
        })
    }

    /// Types a command and waits for the next prompt; returns what it printed.
    pub fn run(&mut self, command: &str) -> String {
        self.type_line(command);
        let printed = self.prompt();
        // The first line is the command itself.
        printed.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or_default()
    }

    /// Types a line and the Enter key.
    pub fn type_line(&mut self, line: &str) {
        self.send(format!("{line}\r").as_bytes());
    }

    /// Sends bytes as they are: `b"\x03"` is Ctrl-C.
    pub fn send(&mut self, bytes: &[u8]) {
        self.keyboard.write_all(bytes).and_then(|()| self.keyboard.flush()).expect("the terminal takes input");
    }

    /// Changes the size of the window.
    pub fn resize(&self, rows: u16, cols: u16) {
        let mut screen = self.seen.0.lock().expect("no one panics holding it");
        screen.window.screen_mut().set_size(nonzero(rows), nonzero(cols));
        screen.width = usize::from(cols);
        drop(screen);
        self.pty.resize(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }).expect("the terminal has a size");
    }

    /// Waits for the program's end and for the last of its output; returns its exit code, 128 and the number if a signal ended it.
    pub fn exit_code(&mut self) -> i32 {
        let limit = self.limit;
        let code = self.told(limit, |screen| screen.code);
        code.unwrap_or_else(|| {
            panic!("the program has not ended within {limit:?}; the terminal shows:\n{}", self.shown())
        })
    }

    /// Waits for a word of the leader.
    fn told(&self, limit: Duration, word: impl Fn(&Screen) -> Option<i32>) -> Option<i32> {
        let (screen, changed) = &*self.seen;
        let screen = screen.lock().expect("no one panics holding it");
        let (screen, _) = changed
            .wait_timeout_while(screen, limit, |screen| word(screen).is_none() && !screen.closed)
            .expect("no one panics holding it");
        word(&screen)
    }

    /// What the window shows now.
    pub fn picture(&self) -> Picture {
        Picture::of(&self.seen.0.lock().expect("no one panics holding it").window)
    }

    /// Waits until the window looks like this.
    pub fn wait_picture(&self, what: &str, like: impl Fn(&Picture) -> bool) -> Picture {
        let deadline = Instant::now() + self.limit;
        let (screen, changed) = &*self.seen;
        let mut screen = screen.lock().expect("no one panics holding it");
        loop {
            let picture = Picture::of(&screen.window);
            if like(&picture) {
                return picture;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !screen.closed, "waiting for {what}; the window shows:\n{}", picture.text);
            screen = changed.wait_timeout(screen, left).expect("no one panics holding it").0;
        }
    }

    /// The lines that have left the window at its top, and those in it.
    pub fn scroll(&self) -> String {
        let mut screen = self.seen.0.lock().expect("no one panics holding it");
        let model = screen.window.screen_mut();
        let (rows, cols) = (usize::from(model.size().0.get()), model.size().1.get());
        model.set_scrollback(usize::MAX);
        let mut above = model.scrollback();
        let mut lines: Vec<String> = Vec::new();
        while above > 0 {
            model.set_scrollback(above);
            lines.extend(model.rows(0, cols).take(rows.min(above)));
            above = above.saturating_sub(rows);
        }
        model.set_scrollback(0);
        lines.extend(model.rows(0, cols));
        lines.join("\n").trim_end().to_owned()
    }

    /// Is anything of the program's making still on in the terminal: another screen, a mouse, a hidden cursor, a colour?
    pub fn is_in_order(&self) -> bool {
        let screen = self.seen.0.lock().expect("no one panics holding it");
        let (screen, new) = (screen.window.screen(), vt100::Parser::default());
        !screen.alternate_screen()
            && !screen.hide_cursor()
            && screen.input_mode_formatted() == new.screen().input_mode_formatted()
            && screen.attributes_formatted() == new.screen().attributes_formatted()
    }

    /// Does the terminal echo what is typed, line by line, as a shell leaves it?
    pub fn is_cooked(&self) -> bool {
        use nix::sys::termios::{LocalFlags, tcgetattr};
        let raw = self.pty.as_raw_fd().expect("a terminal has a descriptor");
        // SAFETY: `self.pty` holds it open.
        let settings = tcgetattr(unsafe { BorrowedFd::borrow_raw(raw) }).expect("a terminal has settings");
        settings.local_flags.contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG)
    }

    /// Everything shown so far.
    pub fn shown(&self) -> String {
        self.seen.0.lock().expect("no one panics holding it").since((0, 0))
    }

    /// The program's process.
    pub fn pid(&self) -> i32 {
        self.told(LIMIT, |screen| screen.pid).expect("the program was started")
    }

    /// Waits until `look` finds a place, from and to; moves the mark behind it, and returns what was before it.
    fn wait(&mut self, what: &str, look: impl Fn(&Screen, Place) -> Option<(Place, Place)>) -> String {
        let deadline = Instant::now() + self.limit;
        let (screen, changed) = &*self.seen;
        let mut screen = screen.lock().expect("no one panics holding it");
        loop {
            if let Some((from, to)) = look(&screen, self.mark) {
                let before = screen.text(self.mark, from);
                self.mark = to;
                return before;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || screen.closed {
                let why = if screen.closed { "the program ended" } else { "it did not come in time" };
                panic!("waiting for {what}: {why}; the terminal shows:\n{}", screen.since((0, 0)));
            }
            screen = changed.wait_timeout(screen, left).expect("no one panics holding it").0;
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let (pid, code) = self.seen.0.lock().map_or((None, None), |screen| (screen.pid, screen.code));
        if let Some(pid) = pid.filter(|_| code.is_none()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
        let _ = self.leader.kill();
        let _ = self.leader.wait();
    }
}

/// What a window shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Its lines, without blanks at their ends.
    pub text: String,
    /// Row and column, from 0.
    pub cursor: (u16, u16),
    /// Is it the alternate screen?
    pub alternate: bool,
    /// The same with colours, and the modes that keys and mouse are in.
    pub whole: String,
}

impl Picture {
    fn of(window: &vt100::Parser) -> Picture {
        let screen = window.screen();
        let text = screen.rows(0, screen.size().1.get()).collect::<Vec<_>>().join("\n");
        Picture {
            text: text.trim_end().to_owned(),
            cursor: screen.cursor_position(),
            alternate: screen.alternate_screen(),
            whole: screen.state_formatted(),
        }
    }
}

fn nonzero(size: u16) -> NonZeroU16 {
    NonZeroU16::new(size).expect("a window has lines and columns")
}

/// A line and a byte in it.
type Place = (usize, usize);

/// All lines that were ever written: a terminal as high as it needs to be. What line editors and progress lines do with the
/// cursor is followed; what full-screen programs draw comes out as lines one below the other.
struct Screen {
    lines: Vec<Vec<u8>>,
    width: usize,
    row: usize,
    column: usize,
    escape: Escape,
    closed: bool,
    /// What the leader told: the program's process, and its exit code.
    pid: Option<i32>,
    code: Option<i32>,
    /// The same as an emulator shows it.
    window: vt100::Parser,
}

enum Escape {
    None,
    Begun,
    /// After `ESC [`.
    Control(Vec<u8>),
    /// After `ESC ]`: a title or the like, up to BEL or `ESC \`.
    Title(Vec<u8>),
    /// One more byte.
    Charset,
}

impl Screen {
    fn new(rows: u16, cols: u16) -> Screen {
        let window = vt100::Parser::new(nonzero(rows), nonzero(cols), 10_000);
        let (lines, width) = (vec![Vec::new()], usize::from(cols));
        Screen { lines, width, row: 0, column: 0, escape: Escape::None, closed: false, pid: None, code: None, window }
    }

    fn put(&mut self, byte: u8) {
        match (std::mem::replace(&mut self.escape, Escape::None), byte) {
            (Escape::None, 0x1b) => self.escape = Escape::Begun,
            (Escape::None, b'\r') => self.column = 0,
            (Escape::None, b'\n') => self.go(self.row + 1),
            (Escape::None, 8) => self.column = self.column.saturating_sub(1),
            (Escape::None, 0..0x20 | 0x7f) => {}
            (Escape::None, byte) => self.write(byte),
            (Escape::Begun, b'[') => self.escape = Escape::Control(Vec::new()),
            (Escape::Begun, b']') => self.escape = Escape::Title(Vec::new()),
            (Escape::Begun, b'(' | b')') => self.escape = Escape::Charset,
            (Escape::Title(title), 7) => self.hear(&title),
            (Escape::Begun | Escape::Charset, _) => {}
            (Escape::Title(_), 0x1b) => self.escape = Escape::Begun,
            (Escape::Title(mut title), byte) => {
                title.push(byte);
                self.escape = Escape::Title(title);
            }
            (Escape::Control(parameters), 0x40..) => self.control(&parameters, byte),
            (Escape::Control(mut parameters), byte) => {
                parameters.push(byte);
                self.escape = Escape::Control(parameters);
            }
        }
    }

    /// A title, perhaps a word of the leader.
    fn hear(&mut self, title: &[u8]) {
        let title = String::from_utf8_lossy(title);
        let word = |name| title.strip_prefix(name)?.parse().ok();
        self.pid = self.pid.or_else(|| word("777;pid="));
        self.code = self.code.or_else(|| word("777;code="));
        self.closed |= self.code.is_some();
    }

    fn write(&mut self, byte: u8) {
        // Bytes for columns: no line that wraps has others in these tests.
        if self.column >= self.width {
            self.go(self.row + 1);
            self.column = 0;
        }
        let column = self.column;
        let line = self.line();
        if line.len() <= column {
            line.resize(column + 1, b' ');
        }
        if let Some(place) = line.get_mut(column) {
            *place = byte;
        }
        self.column += 1;
    }

    fn control(&mut self, parameters: &[u8], end: u8) {
        let number = std::str::from_utf8(parameters).ok().and_then(|text| text.parse::<usize>().ok());
        let count = number.unwrap_or(1);
        match end {
            b'A' => self.row = self.row.saturating_sub(count),
            b'B' => self.go(self.row + count),
            b'C' => self.column += count,
            b'D' => self.column = self.column.saturating_sub(count),
            b'G' => self.column = count.saturating_sub(1),
            b'H' => {
                self.go(self.lines.len());
                self.column = 0;
            }
            b'J' if number.unwrap_or(0) == 0 => {
                self.lines.truncate(self.row + 1);
                self.cut();
            }
            b'K' if number.unwrap_or(0) == 0 => self.cut(),
            b'K' if number == Some(2) => self.line().clear(),
            _ => {}
        }
    }

    fn cut(&mut self) {
        let column = self.column;
        self.line().truncate(column);
    }

    fn go(&mut self, row: usize) {
        self.row = row;
        self.line();
    }

    fn line(&mut self) -> &mut Vec<u8> {
        if self.lines.len() <= self.row {
            self.lines.resize(self.row + 1, Vec::new());
        }
        self.lines.get_mut(self.row).expect("made above")
    }

    fn find(&self, mark: Place, text: &str) -> Option<(Place, Place)> {
        self.lines.iter().enumerate().skip(mark.0).find_map(|(row, line)| {
            let skip = if row == mark.0 { mark.1.min(line.len()) } else { 0 };
            let at = line.get(skip..)?.windows(text.len()).position(|window| window == text.as_bytes())? + skip;
            Some(((row, at), (row, at + text.len())))
        })
    }

    fn since(&self, mark: Place) -> String {
        let last = self.lines.len() - 1;
        self.text(mark, (last, self.lines.last().map_or(0, Vec::len)))
    }

    fn text(&self, from: Place, to: Place) -> String {
        let mut text = Vec::new();
        for (row, line) in self.lines.iter().enumerate().take(to.0 + 1).skip(from.0) {
            let start = if row == from.0 { from.1.min(line.len()) } else { 0 };
            let end = if row == to.0 { to.1.min(line.len()) } else { line.len() };
            text.extend_from_slice(line.get(start..end).unwrap_or_default());
            if row < to.0 {
                text.push(b'\n');
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(input: &str, expected: &str) {
        let mut screen = Screen::new(50, 200);
        input.bytes().for_each(|byte| screen.put(byte));
        assert_eq!(screen.since((0, 0)), expected, "of {input:?}");
    }

    #[test]
    fn the_screen_follows_line_editors_and_progress_lines() {
        shows("a\r\nb", "a\nb");
        shows("10%\r100%", "100%");
        shows("h% s\r\x1b[Kh% st\x1b[5G", "h% st");
        shows("abc\x08\x08\x1b[K", "a");
        shows("\x1b]0;a title\x07x\x1b[1;31mred\x1b[0m\x1b(B", "xred");
        shows("one\r\ntwo\x1b[A\r\x1b[JONE", "ONE");
        shows("\x1b[?2004hé", "é");
        const COLUMNS: usize = 200;
        let blank = " ".repeat(COLUMNS);
        shows(&format!("\r{blank}\r\x1b[Kon"), "on");
        shows(
            &format!("out{blank}\r\x1b[Kon").replace(' ', "_").replace(&"_".repeat(COLUMNS), &blank),
            &format!("out{}\non", " ".repeat(COLUMNS - 3)),
        );
    }
}
