//! What a terminal shows, from what programs print: so that it can be shown again, at another terminal, or left in order. Pure:
//! bytes in, bytes out.

mod modes;

use std::num::NonZeroU16;

use vt100::capture::BasicFormattedCaptureRange::Full;

pub use modes::Modes;

/// Lines above the screen that are kept: a few screens of what one missed. With [`LARGEST`] columns of text they are 32 MB, with 80
/// they are 2.5 MB.
const KEPT_LINES: usize = 1000;
/// Most rows, and most columns: more than any window has. Two screens of this size are 64 MB.
const LARGEST: u16 = 1000;
/// Longest title that is kept, in characters.
const LONGEST_TITLE: usize = 256;

/// A terminal's size, within bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: u16,
    pub(crate) cols: u16,
}

impl Size {
    pub(crate) fn new(rows: u16, cols: u16) -> Size {
        Size { rows: rows.clamp(1, LARGEST), cols: cols.clamp(1, LARGEST) }
    }

    fn numbers(self) -> [NonZeroU16; 2] {
        [self.rows, self.cols].map(|n| NonZeroU16::new(n).unwrap_or(NonZeroU16::MIN))
    }

    fn parser(self, title: Title) -> vt100::Parser<Title> {
        let [rows, cols] = self.numbers();
        vt100::Parser::new_with_callbacks(rows, cols, KEPT_LINES, title)
    }
}

#[derive(Clone, Default)]
struct Title(String);

impl vt100::Callbacks for Title {
    fn set_window_title(&mut self, _: &mut vt100::Screen, title: &[u8]) {
        let words = String::from_utf8_lossy(title);
        self.0 = words.chars().filter(|c| !c.is_control()).take(LONGEST_TITLE).collect();
    }
}

/// A terminal's screen, the lines above it, and its modes.
pub(crate) struct Screen {
    size: Size,
    parser: vt100::Parser<Title>,
    modes: Modes,
}

impl Screen {
    pub(crate) fn new(size: Size) -> Screen {
        Screen { size, parser: size.parser(Title::default()), modes: Modes::default() }
    }

    pub(crate) fn modes(&self) -> &Modes {
        &self.modes
    }

    /// May this move lines up, out of the screen, with whatever lies over them?
    pub(crate) fn may_scroll(&self, bytes: &[u8]) -> bool {
        bytes.contains(&b'\n') && !self.parser.screen().alternate_screen()
    }

    /// Takes what a program printed.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        let Screen { parser, modes, .. } = self;
        modes.translate(bytes, &mut |text| parser.process(text));
    }

    /// The window has another size. Lines of the primary screen flow into the new width, so that nothing is lost by a visit from a
    /// narrow terminal; the alternate screen is cut, as programs that use it draw it anew by themselves.
    pub(crate) fn resize(&mut self, size: Size) {
        if size == self.size {
            return;
        }
        self.modes.resized();
        let screen = self.parser.screen();
        let (alternate, inputs) = (screen.alternate_screen(), screen.input_mode_formatted());
        let hidden = screen.hide_cursor();
        let attributes = screen.attributes_formatted();
        let mut parser = size.parser(self.parser.callbacks().clone());
        parser.process(&flow(&self.primary(), size));
        if alternate {
            let mut cut = self.copy();
            let [rows, cols] = size.numbers();
            cut.screen_mut().set_size(rows, cols);
            parser.process(format!("\x1b[m\x1b[?1049h{}", cut.screen().contents_formatted()).as_bytes());
        }
        parser.process(format!("{attributes}{inputs}").as_bytes());
        parser.process(if hidden { b"\x1b[?25l" } else { b"\x1b[?25h" });
        (self.size, self.parser) = (size, parser);
    }

    fn copy(&self) -> vt100::Parser {
        let mut parser = vt100::Parser::new(NonZeroU16::MIN, NonZeroU16::MIN, 0);
        *parser.screen_mut() = self.parser.screen().clone();
        parser
    }

    /// The primary screen, with the alternate one left if that is shown.
    fn primary(&self) -> vt100::Parser {
        let mut parser = self.copy();
        parser.process(b"\x1b[?47l");
        parser
    }

    /// What brings a terminal of this size, whose modes are those of a new one, to this screen, with a notice over it (for a while)
    /// and above it (to stay). What it showed before goes up.
    pub(crate) fn show(&self, notice: Option<&str>) -> Vec<u8> {
        let mut out = self.lines_above();
        if let Some(words) = notice {
            out += &format!("{}\r\n", plain(words));
        }
        // As many line feeds as bring all that is on the screen above it, and no empty line.
        out += &"\n".repeat(usize::from(self.size.rows) - 1);
        self.write_redraw(&mut out);
        if let Some(words) = notice {
            self.write_notice(&mut out, words);
        }
        self.finish(out)
    }

    /// The lines above the primary screen.
    fn lines_above(&self) -> String {
        let mut out = String::new();
        let mut model = self.primary();
        let mut left = model.screen().scrollback_len();
        while left > 0 {
            // As many as fit on a screen, from there on.
            model.screen_mut().set_scrollback(left);
            let view = model.screen();
            let count = left.min(usize::from(self.size.rows));
            for (row, line) in view.rows_formatted(0, self.size.cols).take(count).enumerate() {
                out += &line;
                // A line that went on in the next row does so by itself.
                let goes_on = row + 1 < count && view.row_wrapped(u16::try_from(row).unwrap_or(u16::MAX));
                out += if goes_on { "\x1b[m" } else { "\x1b[m\r\n" };
            }
            left -= count;
        }
        out
    }

    /// What brings a terminal in the modes `from` to this screen.
    pub(crate) fn redraw(&self, from: &Modes) -> Vec<u8> {
        let mut out = String::new();
        self.write_redraw(&mut out);
        [from.undo(), self.finish(out)].concat()
    }

    /// What takes away anything but the screen from a terminal that is in its modes.
    pub(crate) fn refresh(&self) -> Vec<u8> {
        let screen = self.parser.screen();
        let mut out = String::new();
        self.modes.write_pause(&mut out);
        if screen.alternate_screen() {
            // It may have been there first. These two leave the saved cursor alone.
            out += &format!("\x1b[?47l{}\x1b[?47h", self.primary().screen().contents_formatted());
        }
        out += &screen.contents_formatted();
        self.write_margins(&mut out);
        self.finish(out)
    }

    fn write_redraw(&self, out: &mut String) {
        let screen = self.parser.screen();
        if screen.alternate_screen() {
            *out += &self.primary().screen().contents_formatted();
            // This saves the cursor, for when the program leaves.
            *out += "\x1b[m\x1b[?1049h";
        }
        // What the program saved last, for when it goes back there.
        let mut saved = self.copy();
        saved.process(b"\x1b8");
        let saved = saved.screen();
        *out += &format!("\x1b[m{}{}\x1b7", saved.cursor_state_formatted(), saved.attributes_formatted());
        *out += &screen.state_formatted();
        self.modes.write_unmodelled(out);
        self.write_margins(out);
        let Title(title) = self.parser.callbacks();
        if !title.is_empty() {
            *out += &format!("\x1b]2;{title}\x07");
        }
    }

    /// A line over the top of the screen, or over its foot if the cursor is at the top.
    fn write_notice(&self, out: &mut String, words: &str) {
        let screen = self.parser.screen();
        let row = if screen.cursor_position().0 == 0 { self.size.rows } else { 1 };
        let words: String = plain(words).chars().take(usize::from(self.size.cols)).collect();
        *out += &format!("\x1b[{row};1H\x1b[0;7m{words}\x1b[m\x1b[K");
        self.write_cursor(out);
    }

    fn write_margins(&self, out: &mut String) {
        // They move the cursor.
        if self.modes.write_margins(out) {
            self.write_cursor(out);
        }
    }

    /// Where it is, and how it writes. To wait at the end of a full row it writes the character there once more.
    fn write_cursor(&self, out: &mut String) {
        let screen = self.parser.screen();
        *out += &format!("\x1b[m{}{}", screen.cursor_state_formatted(), screen.attributes_formatted());
    }

    fn finish(&self, out: String) -> Vec<u8> {
        let mut out = out.into_bytes();
        self.modes.write_last(&mut out);
        out
    }
}

fn plain(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).collect()
}

/// Lines above the screen and on it, a line feed after each but the last, colours within.
fn text<T: vt100::Callbacks>(parser: &vt100::Parser<T>) -> String {
    let mut text = String::new();
    // Writing to a String doesn't fail.
    let _ = parser.screen().write_contents_formatted_basic(&mut text, Full(&mut Default::default()));
    text
}

/// What makes this screen anew in another width.
fn flow(parser: &vt100::Parser, size: Size) -> Vec<u8> {
    let screen = parser.screen();
    let (rows, cols) = screen.size();
    let (row, col) = screen.cursor_position();
    let last = screen.rows(0, cols.get()).enumerate().filter(|(_, line)| !line.is_empty()).map(|(row, _)| row).last();
    let last = last.unwrap_or(0).max(usize::from(row));
    let mut text = text(parser);
    text.truncate(text.len().saturating_sub(usize::from(rows.get()) - 1 - last));
    let mut out = text.replace('\n', "\r\n");
    let below = last - usize::from(row);
    if below > 0 {
        out += &format!("\x1b[{below}A");
    }
    // The cursor's place in its line, however many rows that takes.
    let before = (0..row).rev().take_while(|row| screen.row_wrapped(*row)).count();
    let place = (before * usize::from(cols.get()) + usize::from(col)) % usize::from(size.cols);
    // At the end of a full row it waits for the next character where the text left it.
    if place > 0 || below > 0 || col == 0 {
        out += &format!("\x1b[{}G", place + 1);
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests;
