use super::*;
use proptest::prelude::*;

const BATCHES: &[&str] = &["slurm", "sge", "fork"];

fn parse(text: &str) -> Result<Conf, Vec<Diagnostic>> {
    Conf::parse("vo.conf", text.as_bytes(), BATCHES)
}

#[test]
fn the_plain_form_is_a_gateway_a_line() {
    let check = |line: &str, expected: Option<(&str, Option<&str>, &str, Option<u16>)>| {
        let conf = parse(line).ok();
        let site = conf.as_ref().and_then(|c| c.sites.first());
        let seen = site.map(|s| (s.name.as_str(), s.user.as_deref(), s.gateway.as_str(), s.port));
        assert_eq!(seen, expected, "{line:?}");
    };
    check("tg-login.ncsa.example.org", Some(("tg-login", None, "tg-login.ncsa.example.org", None)));
    check("  ada@abe:2222  # the old one\r\n", Some(("abe", Some("ada"), "abe", Some(2222))));
    check("a.b@c@abe", None);
    check("10.77.1.2", Some(("10.77.1.2", None, "10.77.1.2", None)));
    check("[::1]:22", Some(("--1", None, "::1", Some(22))));
    check("fe80::1", Some(("fe80--1", None, "fe80::1", None)));
    for bad in [
        "-oProxyCommand=x",
        "-v",
        "host name",
        "a@",
        "@a",
        "-u@host",
        "host:",
        "host:0",
        "host:65536",
        "host:ssh",
        "a\u{7}b",
        "h;ls",
        "h`ls`",
        "$(ls)",
        "[::1",
        "[x]:1",
        ".a",
        "a/b",
    ] {
        check(bad, None);
    }
}

#[test]
fn names_are_unique() {
    let names = |text: &str| parse(text).map(|c| c.sites.into_iter().map(|s| s.name).collect::<Vec<_>>());
    let expected = vec!["login.a.org".to_owned(), "login.b.org".to_owned(), "tg".to_owned()];
    assert_eq!(names("# two\nlogin.a.org\nlogin.b.org\n\ntg.c.org\n"), Ok(expected));
    assert_eq!(names(""), Ok(vec![]));
    let errors = names("a.org\nb.org\na.org\n").unwrap_err();
    assert_eq!(
        errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["vo.conf:3:1: error: site `a.org` is there already, in line 1\n  3 | a.org\n    | ^\n\
          hint: two sites on one gateway need a `name` each"]
    );
}

#[test]
fn the_full_form_sets_everything() {
    let conf = parse(
        r#"
[session]
heartbeat = "90m"
missed_heartbeats = 5
on_missed = "reallocate"
idle = "10m"
lease = "1h"
listen_ports = "40000-40100"
max_output = "2G"
detach_keys = "ctrl-a  ctrl-D"
shares = { survey = 3, "a.b" = 1 }
policy_interval = "5m"
log_format = "json"
mail = "msmtp -t"
limits = { Licence = 5, "sw.x" = 0 }

[[site]]
gateway = "ewalker@tg-login.ncsa.example.org:2200"
batch = "slurm"
proxies = "4:16"
nodes = 2
walltime = "10h"
queue = "normal"
account = "TG-123"
directives = ["--constraint=ib"]
memory = "32G"
max_queued = 3
scratch = "$TMPDIR/vo"
system_ssh = true

[[site]]
gateway = "ranger"
name = "texas"
user = "walker"
port = 22
walltime = 600
parallel_environment = "smp"
listen_ports = "5000"
max_core_hours = 5_000
attributes = { Project = "a \"b\"", Fast = true, Level = -1_000, Speed = 1.5 }
resources = { Fpgas = 4, licenses = 1 }
"#,
    );
    let mut ncsa = SiteConf::new("tg-login", "tg-login.ncsa.example.org");
    (ncsa.user, ncsa.port) = (Some("ewalker".into()), Some(2200));
    ncsa.batch = Some("slurm".into());
    ncsa.proxies = Some(Proxies { count: 4, cpus: 16 });
    ncsa.nodes = 2;
    ncsa.walltime = Some(Duration::from_secs(36_000));
    (ncsa.queue, ncsa.account) = (Some("normal".into()), Some("TG-123".into()));
    ncsa.directives = vec!["--constraint=ib".into()];
    (ncsa.memory, ncsa.max_queued) = (Some(32 << 30), Some(3));
    (ncsa.scratch, ncsa.system_ssh) = (Some("$TMPDIR/vo".into()), true);
    let mut texas = SiteConf::new("texas", "ranger");
    (texas.user, texas.port) = (Some("walker".into()), Some(22));
    texas.walltime = Some(Duration::from_secs(36_000));
    texas.parallel_environment = Some("smp".into());
    texas.listen_ports = Some(Ports { first: 5000, last: 5000 });
    texas.max_core_hours = Some(5000.0);
    let attributes = [("Fast", "true"), ("Level", "-1000"), ("Project", r#""a \"b\"""#), ("Speed", "1.5")];
    texas.attributes = attributes.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    texas.resources = vec![("Fpgas".into(), 4), ("licenses".into(), 1)];
    let session = SessionConf {
        heartbeat: Duration::from_secs(5_400),
        missed_heartbeats: 5,
        on_missed: OnMissed::Reallocate,
        idle: Duration::from_secs(600),
        lease: Duration::from_secs(3_600),
        listen_ports: Some(Ports { first: 40_000, last: 40_100 }),
        max_output: Some(2 << 30),
        detach_keys: vec![1, 4],
        shares: [("survey".to_owned(), 3), ("a.b".to_owned(), 1)].into(),
        policy_interval: Duration::from_secs(300),
        log_format: Form::Json,
        mail: Some("msmtp -t".into()),
        limits: [("licence".to_owned(), 5), ("sw.x".to_owned(), 0)].into(),
    };
    let conf = conf.unwrap();
    assert_eq!((&conf.session, conf.sites.as_slice()), (&session, [ncsa, texas].as_slice()));
    let warnings: Vec<_> = conf.warnings.iter().map(|d| d.message.as_str()).collect();
    assert_eq!(warnings, ["`max_core_hours` has no effect yet"]);
}

#[test]
fn every_error_has_its_place() {
    let check = |text: &str, expected: &[&str]| {
        let seen: Vec<String> = match parse(text) {
            Ok(conf) => conf.sites.iter().map(|s| format!("{s:?}")).collect(),
            Err(found) => found
                .iter()
                .map(|d| {
                    let tail = d.expected.iter().map(|e| format!(", expected {e}"));
                    let tail = tail.chain(d.hint.iter().map(|h| format!("; {h}"))).collect::<String>();
                    format!("{}:{} {}{tail}", d.line, d.column, d.message)
                })
                .collect(),
        };
        assert_eq!(seen, expected, "{text}");
    };
    let site = "[[site]]\ngateway = \"a\"\n";
    let with = |line: &str| format!("{site}{line}\n");
    check(&with("wall_time = \"1h\""), &["3:1 unknown key `wall_time`; did you mean `walltime`?"]);
    check(&with("zebra = 1"), &["3:1 unknown key `zebra`"]);
    check(&with("idle = \"1h\""), &["3:1 unknown key `idle`; it belongs into a `[session]` table"]);
    check(
        "queue = \"q\"",
        &["1:1 unknown key `queue`, expected `[session]` and `[[site]]` tables; it belongs into a `[[site]]` table"],
    );
    check("[sites]\n", &["1:2 unknown key `sites`, expected `[session]` and `[[site]]` tables; did you mean `site`?"]);
    check("[site]\ngateway = \"a\"", &["1:2 `site` is not a list of tables, expected `[[site]]`"]);
    check("[[site]]\nuser = \"a\"", &["1:1 site without a gateway, expected `gateway = \"HOST\"`"]);
    check(
        "[[site]]\ngateway = \"-oX\"",
        &["2:11 `-oX` can't be used here, expected HOST, USER@HOST or USER@HOST:PORT"],
    );
    check(
        &with("port = 70000\nnodes = \"2\""),
        &[
            "3:8 bad number, expected a whole number from 1 to 65535",
            "4:9 bad number, expected a whole number from 1 to 100000",
        ],
    );
    check(&with("batch = \"slrum\""), &["3:9 `slrum` can't be used here, expected one of slurm, sge, fork"]);
    check(
        &with("proxies = \"4x16\""),
        &["3:11 `4x16` can't be used here, expected NUMBER:CPUS such as 4:16, each from 1 to 100000"],
    );
    check(
        &with("queue = \"a b\"\naccount = \"-x\""),
        &[
            "3:9 `a b` can't be used here, expected one word that doesn't begin with a dash",
            "4:11 `-x` can't be used here, expected one word that doesn't begin with a dash",
        ],
    );
    check(
        &with("attributes = { \"a b\" = 1 }"),
        &["3:16 `a b` can't be an attribute's name, expected letters, digits and `_`, the first no digit"],
    );
    check(
        &with("attributes = { a = [1] }"),
        &["3:20 an array stands here, expected a string, a number, true or false"],
    );
    check(
        &with("resources = { gpus = 1 }"),
        &["3:15 `GPUs` is told by the nodes, expected the name of a resource of the site's own"],
    );
    check(&with("resources = { fpgas = 0 }"), &["3:23 bad number, expected a whole number from 1 to 100000"]);
    check("[session]\nlog_format = \"XML\"", &["2:14 `XML` can't be used here, expected `text`, `json` or `xml`"]);
    check("[session]\nshares = { a = 0 }", &["2:16 bad number, expected a whole number from 1 to 1000000"]);
    check(
        &with("directives = [\"ok\", \"a\\nb\"]"),
        &["3:21 `a·b` can't be used here, expected one option of the batch system, on one line"],
    );
    check(
        &with("scratch = \"$(rm x)\""),
        &[
            "3:11 `$(rm x)` can't be used here, expected an absolute path, or one that begins with a variable such as $TMPDIR",
        ],
    );
    check(&with("system_ssh = 1"), &["3:14 an integer stands here, expected true or false"]);
    check(&with("memory = 32"), &["3:10 an integer stands here, expected a size such as 512M, 2G or 1.5T"]);
    check(
        "[session]\nheartbeat = 600\nidle = \"0s\"",
        &[
            "2:13 an integer stands here, expected a duration such as 2h30m, 90s, 1d or 1-12:00:00",
            "3:8 `0s` can't be used here, expected a duration such as 2h30m, 90s, 1d or 1-12:00:00",
        ],
    );
    check(
        &format!("{site}{site}"),
        &["4:11 site `a` is there already, in line 2; two sites on one gateway need a `name` each"],
    );
    check("host\nkey = value", &["1:5 key with no value, expected `=`"]);
    check("a\u{fffd}b c", &["1:1 `a\u{fffd}b c` is no gateway, expected HOST, USER@HOST or USER@HOST:PORT"]);
    let found = Conf::parse("v", b"ok\n\xff", BATCHES).unwrap_err();
    assert_eq!((found[0].line, found[0].column, found[0].message.as_str()), (2, 1, "text is not UTF-8"));
}

#[test]
fn the_command_line_wins() {
    let mut conf = parse("[[site]]\ngateway = \"a\"\nproxies = \"1:1\"\nwalltime = \"1h\"\n").unwrap();
    conf.apply(&Overrides::default());
    assert_eq!(conf.sites[0].proxies, Some(Proxies { count: 1, cpus: 1 }));
    let proxies = parse_proxies("4:16").unwrap();
    conf.apply(&Overrides { proxies: Some(proxies), walltime: Some(Duration::from_secs(60)), system_ssh: true });
    let site = &conf.sites[0];
    assert_eq!((site.proxies, site.walltime, site.system_ssh), (Some(proxies), Some(Duration::from_secs(60)), true));
}

#[test]
fn keys_that_detach() {
    let check = |text: &str, keys: &[u8]| assert_eq!(parse_detach_keys(text).as_deref(), Ok(keys), "{text}");
    check("none", b"");
    check("ctrl-^ d", &SessionConf::default().detach_keys);
    check(" ctrl-space  ctrl-q ", b"\0\x11");
    check("ctrl-A ctrl-a D ]", b"\x01\x01D]");
    check("ctrl-\\", b"\x1c");
    // The first key without Ctrl, an escape, no key, too many.
    let bad =
        ["", "d", "d ctrl-a", "ctrl-[ d", "ctrl-a ctrl-[", "ctrl-", "ctrl-é", "ctrl-1", "^a", "ctrl-a b c d e", "None"];
    bad.iter().for_each(|text| assert!(parse_detach_keys(text).is_err(), "{text}"));
}

#[test]
fn proxies_and_ports() {
    for good in ["4:16", "1:1", "100000:100000"] {
        assert_eq!(parse_proxies(good).map(|p| p.to_string()).as_deref(), Ok(good));
    }
    assert_eq!(parse_proxies("3"), Ok(Proxies { count: 3, cpus: 1 }));
    for bad in ["", ":", "4:", ":4", "0:1", "1:0", "+1:1", "100001:1", "4:16:1", "a"] {
        assert!(parse_proxies(bad).is_err(), "{bad}");
    }
    for bad in ["", "0", "5-4", "-", "1-", "70000", "+1"] {
        assert!(parse_ports(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn any_bytes_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Conf::parse("f", &bytes, BATCHES);
    }

    #[test]
    fn anything_like_a_conf_has_an_answer(
        lines in prop::collection::vec("(\\[\\[site\\]\\]|\\[session\\]|gateway|idle|port|memory|directives)?( = )?(\"[^\"]{0,6}\"|[0-9.-]{0,9}|\\[\\]|\\PC{0,4})", 0..8),
    ) {
        let _ = parse(&lines.join("\n"));
    }
}
