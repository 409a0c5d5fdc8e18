//! Tables of cases.

use proptest::prelude::*;

use super::*;

fn eval(text: &str) -> String {
    let expr = Expr::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
    Context::new(None, None, 0).evaluate(&expr).to_string()
}

#[test]
fn values_are_those_of_htcondor() {
    for (text, value) in [
        ("error && false", "error"),
        ("false && error", "false"),
        ("undefined && false", "false"),
        ("\"a\" == \"A\"", "true"),
        ("1 =!= 1.0", "true"),
        ("true + 1", "2"),
        ("1 / 0", "error"),
        ("round(2.5)", "2"),
        ("{1} =?= {1}", "error"),
        ("[a = 1; b = a + 1].b", "2"),
        ("[a = a].a", "undefined"),
        ("{[x = 1], [x = 2]}.x", "{ 1,2 }"),
        ("{10, 20}[1]", "20"),
        ("a ?: 5", "5"),
        ("1 << 70", "64"),
        ("strcat(1.5, true, {1})", "\"1.500000000000000E+00true{ 1 }\""),
    ] {
        assert_eq!(eval(text), value, "{text}");
    }
}

#[test]
fn two_ads_see_each_other() {
    let job = Ad::parse("[RequestMemory = 100; Requirements = TARGET.Memory >= RequestMemory && Cpus > 1]").unwrap();
    let machine = Ad::parse("[Memory = 200; Cpus = 2; Start = TARGET.RequestMemory < MY.Memory]").unwrap();
    assert_eq!(Context::new(Some(&job), Some(&machine), 0).attribute("requirements"), Value::Boolean(true));
    assert_eq!(Context::new(Some(&machine), Some(&job), 0).attribute("START"), Value::Boolean(true));
    assert_eq!(Context::new(Some(&job), None, 0).attribute("Requirements"), Value::Undefined);
}

#[test]
fn a_requirement_falls_into_clauses() {
    let expr = Expr::parse("(TARGET.Memory >= RequestMemory && (MY.X =?= 1 && b)) && (c || d)").unwrap();
    let clauses: Vec<_> = expr.clauses().iter().map(|clause| clause.old_syntax().to_string()).collect();
    assert_eq!(clauses, ["TARGET.Memory >= RequestMemory", "MY.X =?= 1", "b", "(c || d)"]);
    let names = |names: &[Text]| names.iter().map(|name| name.to_str_lossy().into_owned()).collect::<Vec<_>>();
    let references = expr.references();
    assert_eq!((names(&references.my), names(&references.target)), (vec!["X".to_owned()], vec!["Memory".to_owned()]));
    assert_eq!(names(&references.plain), ["b", "c", "d", "RequestMemory"]);
}

/// What HTCondor 25.14 makes of generated expressions, recorded by `tests/conform/run --record`.
#[test]
fn recorded_expressions_have_the_values_of_htcondor() {
    let recorded = include_str!("../../../../tests/fixtures/classad/expressions.tsv");
    assert!(recorded.lines().count() > 300);
    for line in recorded.lines() {
        let [my, target, text, written, value, old] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        let zone: Zone<'_> = &|_| 0;
        let Ok(expr) = Expr::parse_in(text, zone) else {
            assert_eq!((written, value), ("unreadable", "unreadable"), "{line}");
            continue;
        };
        assert_eq!(expr.to_string(), written, "{line}");
        assert_eq!(expr.old_syntax().to_string().replace('\n', "\\n").replace('\t', "\\t"), old, "{line}");
        let ads = [my, target].map(|ad| (!ad.is_empty()).then(|| Ad::parse_in(ad, zone)).transpose());
        let [Ok(my), Ok(target)] = ads else {
            panic!("{line}");
        };
        let found = match Context::new(my.as_ref(), target.as_ref(), 1_790_000_000).evaluate(&expr) {
            // HTCondor's module for Python shows whole seconds.
            Value::RelativeTime(seconds) => Value::RelativeTime(seconds.trunc()),
            found => found,
        };
        assert_eq!(found.to_string(), value, "{line}");
    }
}

#[test]
fn depth_has_a_bound() {
    let nested = |open: &str, close: &str, count: usize| format!("{}1{}", open.repeat(count), close.repeat(count));
    for (open, close) in [
        ("(", ")"),
        ("{", "}"),
        ("[a=", "]"),
        ("-", ""),
        ("!", ""),
        ("f(", ")"),
        ("1?:", ""),
        ("1?1:", ""),
        ("a[", "]"),
        ("eval(\"", "\")"),
        ("1+(", ")"),
    ] {
        for count in [100, 10_000] {
            if let Ok(expr) = Expr::parse(nested(open, close, count)) {
                let _ =
                    (Context::new(None, None, 0).evaluate(&expr), expr.to_string(), expr.references(), expr.clauses());
            }
        }
        assert!(Expr::parse(nested(open, close, 100_000)).is_err(), "{open}");
    }
    for chain in ["1+", "a&&", "a.", "\"\"==", "1<<"] {
        assert!(Expr::parse(format!("{}1", chain.repeat(1_000_000))).is_err(), "{chain}");
        let long = Expr::parse(format!("{}a", chain.repeat(900))).unwrap();
        let _ = (Context::new(None, None, 0).evaluate(&long), long.to_string(), long.clauses());
    }
    // What is nested through names: as deep as the stack allows, and not deeper.
    for (open, close) in [
        ("ifThenElse(true, ", ", 1)"),
        ("strcat(", ")"),
        ("member(1, {", "})"),
        ("(", ")"),
        ("debug(", ")"),
        ("size({", "}[0])"),
        ("evalInEachContext(", ", {[b = 1]})"),
        ("eval(string(", "))"),
        ("true && (", ")"),
        ("{[x = ", "]}.x"),
        ("[x = ", "].x"),
        ("[x = ", "][\"x\"]"),
        ("true ? ", " : 1"),
        ("join(\",\", ", ")"),
        ("unresolved(a0, string(", "))"),
    ] {
        let attribute = |number| format!("a{number} = {}a{}{}; ", open.repeat(20), number + 1, close.repeat(20));
        let ad = Ad::parse(format!("[{} a600 = 1]", (0..600).map(attribute).collect::<String>())).unwrap();
        let _ = Context::new(Some(&ad), None, 0).attribute("a0");
    }
}

fn any_value() -> impl Strategy<Value = Expr> {
    let text = || prop_oneof!["[a-zA-Z_]{1,8}".prop_map(String::into_bytes), prop::collection::vec(1..=255_u8, 1..12)];
    let leaf = prop_oneof![
        Just(Value::Undefined),
        Just(Value::Error),
        any::<bool>().prop_map(Value::Boolean),
        any::<i64>().prop_map(Value::Integer),
        any::<f64>().prop_filter("a number", |number| number.is_finite()).prop_map(Value::Real),
        prop::collection::vec(1..=255_u8, 0..12).prop_map(Value::from),
        (-30_000_000_000..250_000_000_000_i64, -1000..1000_i32).prop_map(|(secs, minutes)| AbsoluteTime {
            secs,
            offset: minutes * 60
        }
        .into()),
    ];
    leaf.prop_map(Expr::from).prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Expr::from),
            prop::collection::vec((text(), inner), 0..5).prop_map(|attributes| {
                let mut ad = Ad::new();
                attributes.into_iter().for_each(|(name, value)| ad.insert(name, value));
                ad.into()
            }),
        ]
    })
}

/// Reals are written with sixteen digits, of which not all are read back as the same number.
fn written(expr: &Expr) -> String {
    expr.to_string()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_bytes(&bytes);
    }

    #[test]
    fn anything_like_an_expression_has_an_answer(
        words in prop::collection::vec(prop::sample::select(WORDS), 0..30),
    ) {
        check_bytes(words.concat().as_bytes());
    }

    #[test]
    fn what_is_written_is_read_as_the_same(value in any_value()) {
        let read = Expr::parse(written(&value)).map_err(|fault| TestCaseError::fail(fault.to_string()))?;
        prop_assert_eq!(written(&read), written(&value));
        // And evaluates to itself.
        prop_assert_eq!(Context::new(None, None, 0).evaluate(&read).to_string(), written(&value));
    }
}

const WORDS: &[&str] = &[
    "a",
    "MY.",
    "TARGET.",
    ".b",
    "1",
    "-2.5",
    "1e9",
    "\"x\"",
    "\"",
    "true",
    "undefined",
    "error",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    ";",
    "=",
    "==",
    "=?=",
    " is ",
    "&&",
    "||",
    "!",
    "?",
    ":",
    "?:",
    "+",
    "-",
    "*",
    "/",
    "%",
    "&",
    "|",
    "^",
    "~",
    "<<",
    ">>>",
    "<",
    ">=",
    "strcat(",
    "regexp(\"(a|b)*c\", ",
    "split(",
    "eval(",
    "splitTime(",
    "evalInEachContext(",
    "absTime(",
    "formatTime(0, ",
    "join(",
    "member(",
    "replaceAll(\"\", ",
    "unresolved(",
    "a = ",
    "/*",
    "*/",
    "//",
    "\n",
    "'q r'",
    "\\",
    "\0",
];

/// Whatever the bytes are, they are read or refused, and what is read is evaluated, within bounds.
fn check_bytes(bytes: &[u8]) {
    let ad = Ad::parse("[a = b + 1; b = {1, a, [c = a]}; c = TARGET.a]").unwrap();
    for read in [Expr::parse(bytes), Expr::parse_old(bytes)] {
        match read {
            Ok(expr) => {
                let context = Context { fuel: 10_000, ..Context::new(Some(&ad), Some(&ad), 1_800_000_000) };
                let _ = (context.evaluate(&expr).to_string(), context.holds(&expr), expr.old_syntax().to_string());
                let _ = (expr.clauses().len(), expr.references_in(&ad));
            }
            Err(fault) => drop(fault.diagnostic("f", bytes, 0).to_string()),
        }
    }
    let _ = (Ad::parse(bytes), Ad::parse_old(bytes));
}

#[test]
fn an_evaluation_has_an_end() {
    // Each doubles the work, or the text, of the one after it.
    let doubled = |call: &str| {
        let attribute = |number| format!("a{number} = {}; ", call.replace('x', &format!("a{}", number + 1)));
        Ad::parse(format!("[{} a100 = \"abc\"]", (0..100).map(attribute).collect::<String>())).unwrap()
    };
    for call in [
        "strcat(x, x)",
        "x == x",
        "{x, x}[0] + {x, x}[1]",
        "join(\"\", {x, x})",
        "replaceAll(\"a\", x, x)",
        "size(split(x)) + size(split(x))",
        "evalInEachContext(x, {[q = 1], [q = 2]})",
    ] {
        let ad = doubled(call);
        let start = std::time::Instant::now();
        let _ = Context::new(Some(&ad), None, 0).attribute("a0");
        assert!(start.elapsed().as_secs() < 20, "{call}");
    }
}
