use super::*;

/// What can be seen of a screen, and felt in its keys.
fn seen(screen: &Screen) -> (String, (u16, u16), String, bool) {
    let model = screen.parser.screen();
    (model.contents_formatted(), model.cursor_position(), model.input_mode_formatted(), model.alternate_screen())
}

fn screen(rows: u16, cols: u16, printed: &str) -> Screen {
    let mut screen = Screen::new(Size::new(rows, cols));
    screen.take(printed.as_bytes());
    screen
}

/// Shows `screen` at a terminal on which something else was before.
fn shown(screen: &Screen, notice: Option<&str>) -> Screen {
    let mut terminal = Screen::new(screen.size);
    terminal.take(b"$ ls\r\nfile\r\n$ vo-login -r\r\n");
    terminal.take(&screen.show(notice));
    terminal
}

#[test]
fn a_screen_comes_back_as_it_was_and_goes_on_as_it_would_have() {
    let check = |printed: &str, more: &str| {
        let mut screen = screen(6, 20, printed);
        let mut terminal = shown(&screen, None);
        assert_eq!(seen(&terminal), seen(&screen), "after {printed:?}");
        for side in [&mut screen, &mut terminal] {
            side.take(more.as_bytes());
        }
        assert_eq!(seen(&terminal), seen(&screen), "after {printed:?} and {more:?}");
        assert_eq!(terminal.modes.undo(), screen.modes.undo(), "after {printed:?} and {more:?}");
    };
    check("", "host(grid)% ");
    check("one\r\ntwo\r\n\x1b[1;31mred", " and red\x1b[m not");
    check(&"0123456789".repeat(20), "x");
    check(
        "tundra(grid)% vim x\r\n\x1b[?1049h\x1b[H\x1b[2J\x1b[?1h\x1b=~\r\n~\x1b[6;1H\x1b[7mx\x1b[m",
        "\x1b[?1049l\x1b[?1l\x1b>",
    );
    check("\x1b[?1049h\x1b[2;4r\x1b[3;1Htext\x1b[4;1H", "\na\nb\n\x1b[r\x1b[?1049l");
    check("\x1b[?2004h\x1b[?1002;1006h\x1b[?1004h\x1b[?25l\x1b[4 q", "\x1b[?1002l\x1b[?25h");
    check("\x1b[?1047hunder", "\x1b[?1047lover");
    // In line drawing, between the bytes of a character, in a colour, in a title.
    check("\x1b(0lqk", "xx\x1b(Bxx");
    check("\x1b)0a\x0eqq", "qq\x0fqq");
    check("a\x1b[3", "1mred");
    check("a\x1b", "[31mred");
    check("a\x1b]0;half a ti", "tle\x07b");
    check("a\x1bP1;2", "|x\x1b\\b");
}

#[test]
fn a_character_that_is_cut_is_whole_at_a_new_terminal() {
    for cut in 1..=3 {
        let bytes = "a𝄞b".as_bytes();
        let mut screen = Screen::new(Size::new(3, 10));
        bytes[..=cut].iter().for_each(|byte| screen.take(&[*byte]));
        let mut terminal = shown(&screen, None);
        terminal.take(&bytes[cut + 1..]);
        assert_eq!(terminal.parser.screen().contents(), "a𝄞b");
    }
}

#[test]
fn whatever_is_printed_and_wherever_one_attaches() {
    const PIECES: [&str; 28] = [
        "text",
        "é",
        "漢",
        "𝄞",
        "\r\n",
        "\n",
        "\r",
        "\x08",
        "\t",
        "0123456789 0123456789 0123456789",
        "\x1b[H",
        "\x1b[2J",
        "\x1b[K",
        "\x1b[3;5H",
        "\x1b[A",
        "\x1b[2;4r",
        "\x1b[r",
        "\x1b[1;4;38;5;99m",
        "\x1b[m",
        "\x1b(0qqx\x1b(B",
        "\x1b[?1049h",
        "\x1b[?1049l",
        "\x1b]0;title\x07",
        "\x1b[?2004h",
        "\x1b[?1000;1006h",
        "\x1b[2L",
        "\x1b7",
        "\x1b8",
    ];
    let mut random = 1_u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(random >> 33).unwrap() % below
    };
    for round in 0..2000 {
        let printed: String = (0..40).map(|_| PIECES[next(PIECES.len())]).collect();
        let (before, after) = printed.as_bytes().split_at(next(printed.len()));
        let mut screen = Screen::new(Size::new(7, 18));
        screen.take(before);
        let mut terminal = shown(&screen, Some("notice").filter(|_| round % 2 == 0));
        // A notice goes at any time later.
        let (between, after) = after.split_at(next(after.len()));
        for side in [&mut screen, &mut terminal] {
            side.take(between);
        }
        terminal.take(&screen.refresh());
        assert_eq!(seen(&terminal), seen(&screen), "round {round} of {printed:?}");
        for side in [&mut screen, &mut terminal] {
            side.take(after);
        }
        assert_eq!(seen(&terminal).1, seen(&screen).1, "round {round} of {printed:?}");
        assert_eq!(
            terminal.parser.screen().contents(),
            screen.parser.screen().contents(),
            "round {round} of {printed:?}"
        );
        // A client that missed some of it.
        let mut late = shown(&Screen::new(screen.size), None);
        late.take(before);
        let modes = late.modes.clone();
        late.take(&screen.redraw(&modes));
        assert_eq!(seen(&late), seen(&screen), "round {round} of {printed:?}");
    }
}

#[test]
fn lines_above_the_screen_are_shown_again() {
    let lines: String = (1..=1500).map(|n| format!("line \x1b[3{}m{n}\x1b[m\r\n", n % 8)).collect();
    for alternate in ["", "\x1b[?1049hvim"] {
        let screen = screen(10, 40, &format!("{lines}{alternate}"));
        let text = String::from_utf8(screen.show(None)).unwrap();
        assert!(!text.contains("m491\x1b") && text.contains("m492\x1b") && text.contains("m1500\r"), "{alternate}");
        assert_eq!(text.matches("m1491\x1b").count(), 1, "nothing twice");
    }
    // What the other terminal showed goes above it.
    let terminal = shown(&screen(10, 40, "x"), None);
    let mut above = terminal.primary();
    above.screen_mut().set_scrollback(10);
    assert!(above.screen().contents().starts_with("$ ls\nfile\n$ vo-login -r\n"), "{:?}", above.screen().contents());
}

#[test]
fn a_visit_from_a_narrow_terminal_loses_nothing() {
    let printed = "long ".repeat(12) + "end\r\n" + &"x".repeat(40) + "\r\nhost(grid)% echo half a lin";
    let mut screen = screen(8, 40, &printed);
    let before = screen.parser.screen().contents();
    screen.take(b"\x1b[?2004h");
    screen.resize(Size::new(20, 13));
    assert_eq!(screen.parser.screen().contents().replace('\n', ""), before.replace('\n', ""));
    let (row, col) = screen.parser.screen().cursor_position();
    assert_eq!((row, col), (11, 1), "at the end of the line, which takes three rows now");
    assert!(screen.parser.screen().bracketed_paste());
    screen.resize(Size::new(8, 40));
    assert_eq!(screen.parser.screen().contents(), before);
    assert_eq!(screen.parser.screen().cursor_position(), (3, 27));
    // Within a line, and with lines below.
    let mut screen = self::screen(8, 40, "ab\r\ncdef\r\ngh\x1b[2;3H");
    screen.resize(Size::new(8, 30));
    assert_eq!(screen.parser.screen().cursor_position(), (1, 2));
    // In the alternate screen, what is below it flows.
    let mut screen = self::screen(8, 40, "0123456789abcdef\r\n\x1b[?1049hvim");
    screen.resize(Size::new(8, 10));
    assert!(screen.parser.screen().alternate_screen());
    assert_eq!(screen.parser.screen().contents(), "vim");
    screen.take(b"\x1b[?1049l");
    assert_eq!(screen.parser.screen().contents(), "0123456789abcdef");
}

#[test]
fn a_terminal_is_left_as_a_new_one() {
    let mut modes = Modes::default();
    assert_eq!(modes.undo(), b"\x1b[m");
    modes.follow(b"\x1b[?1049;2004;1h\x1b[?25;7l\x1b=\x1b[2;5r\x1b[>4;2m\x1b[>1u\x1b[>5u\x1b[5 q\x1b(0\x0e\x1b[?1002;1006;1004h\x1b[?2026h");
    let mut after = modes.clone();
    after.follow(&modes.undo());
    assert_eq!(after.undo(), b"\x1b[m", "{}", String::from_utf8_lossy(&modes.undo()));
    // One that has left the alternate screen is not made to leave it again: that would move the cursor.
    modes.follow(b"\x1b[?1049l");
    assert!(!modes.undo().windows(5).any(|bytes| bytes == b"?1049"));
    // Reset by the program.
    modes.follow(b"\x1bc");
    assert_eq!(modes.undo(), b"\x1b[m");
    modes.follow(b"\x1b[?25l\x1b[?1h\x1b[2;3r\x1b[!p");
    assert_eq!(modes.undo(), b"\x1b[m");
    // Cut within a title.
    modes.follow(b"\x1b]0;tit");
    assert_eq!(modes.undo(), b"\x18\x1b\\\x1b[m");
}

#[test]
fn nothing_that_is_printed_makes_it_grow_or_fail() {
    let size = Size::new(u16::MAX, 0);
    assert_eq!((size.rows, size.cols), (LARGEST, 1));
    let mut screen = Screen::new(Size::new(5, 20));
    let endless = ["\x1b]0;", "\x1bP", "\x1b[", "\x1b[?1;", "\x1b(", "\x1b[38;5;"];
    for lead in endless {
        screen.take(lead.as_bytes());
        for _ in 0..256 {
            screen.take(&[b'1'; 4096]);
            assert!(screen.modes.begun.len() <= 80, "{lead:?}");
        }
        screen.take(b"\x07\x18m\x1b\\\x1b[m");
    }
    for _ in 0..20 {
        screen.take(&b"\x1b[>1u".repeat(1000));
        screen.take(&b"line\r\n".repeat(1000));
        screen.take(b"\x1b[65535b\x1b[65535S\x1b[65535T\x1b[65535L\x1b[65535P\x1b[65535@\x1b[65535;65535H\x1b[65535;1r\x1b[0;0r");
    }
    assert_eq!(screen.parser.screen().scrollback_len(), KEPT_LINES);
    screen.take(b"\x1bc\x1b[mfine");
    assert_eq!(screen.parser.screen().contents(), "fine");
    // Noise.
    let mut random = 7_u32;
    for _ in 0..2000 {
        let noise: Vec<u8> = (0..64)
            .map(|_| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                [0x1b, b'[', b'?', b';', b'h', b'1', (random >> 24) as u8, (random >> 16) as u8]
                    [(random >> 8) as usize % 8]
            })
            .collect();
        screen.take(&noise);
        screen.resize(Size::new((random >> 20) as u16 % 60, (random >> 10) as u16 % 200));
        shown(&screen, Some("notice"));
    }
}

/// The parser that we build has bounds of its own; with its feature `std` it would keep all of a title.
#[test]
fn a_title_is_bounded_where_it_is_parsed() {
    #[derive(Default)]
    struct Longest(usize);
    impl vt100::Callbacks for Longest {
        fn set_window_title(&mut self, _: &mut vt100::Screen, title: &[u8]) {
            self.0 = self.0.max(title.len());
        }
    }
    let (rows, cols) = (NonZeroU16::MIN, NonZeroU16::MIN);
    let mut parser = vt100::Parser::new_with_callbacks(rows, cols, 0, Longest::default());
    parser.process(b"\x1b]2;");
    parser.process(&[b'x'; 1 << 20]);
    parser.process(b"\x07");
    assert!(parser.callbacks().0 <= 1024, "{}", parser.callbacks().0);
}
