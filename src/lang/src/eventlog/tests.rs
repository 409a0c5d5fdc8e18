#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::classad::{Context, Expr, Value};

const FORMS: [Form; 3] = [Form::Text, Form::Json, Form::Xml];

fn events() -> Vec<Event> {
    let has = Resources { cpus: 2, memory_mb: Some(64), gpus: 0, disk_kib: Some(10_240) };
    let used = Used { cpus: 1.5, memory_mb: 3, disk_kib: Some(1_234_567_890), seconds: 90 };
    let usage = Usage { user: 3661, system: 90_061 };
    let spent = Spent { usage, sent_bytes: 43, received_bytes: 1668, asked: has, used: Some(used) };
    let some = |text: &str| Some(text.to_owned());
    let body = |place: usize| match place {
        0 => Body::Submitted {
            host: "<127.0.0.1:0>".into(),
            batch_name: some("a \"night\" \\ run"),
            dag_node: some("A<&>"),
            notes: some("noted"),
            user_notes: some("by\n...\nme"),
        },
        1 => Body::Executing { host: "<n1>".into(), slot: "slot1@n1".into(), has },
        2 => Body::ImageSize { resident_kib: 2049 },
        3 => Body::Evicted { reason: "gone...".into(), end: None, spent: Spent::default() },
        4 => Body::Evicted { reason: "again".into(), end: Some(End::Exited(1)), spent },
        5 => Body::Terminated { end: End::Exited(3), spent },
        6 => Body::Terminated { end: End::Signaled(9), spent: Spent { used: None, ..spent } },
        7 => Body::Aborted { reason: "via rm".into() },
        8 => Body::Held { reason: "no\u{1}such\r\nfile".into(), code: 12, subcode: -2 },
        9 => Body::Released { reason: "via release".into() },
        10 => Body::Disconnected { reason: "cut".into(), slot: "slot1@n1".into(), host: "<n1>".into() },
        11 => Body::Reconnected { slot: "slot1@n1".into(), host: "<n1>".into() },
        12 => Body::ReconnectFailed { reason: "dead".into(), slot: "slot1@n1".into() },
        13 => Body::Moved { files: Files::InputsBegan, host: "<n1>".into() },
        14 => Body::Moved { files: Files::OutputsCame, host: "<n1>".into() },
        15 => Body::ClusterSubmitted { host: "<127.0.0.1:0>".into() },
        16 => Body::ClusterRemoved { jobs: 4, items: 2 },
        _ => {
            let of = Box::new(Body::Held { reason: "a \"b\" \\ é".into(), code: 3, subcode: 0 });
            let list = Expr::parse("{ 1, \"<x>\" }").unwrap();
            let list = Context::new(None, None, 0).evaluate(&list);
            let attributes = [("JobPrio", Value::Integer(7)), ("List", list), ("cluster", Value::Integer(0))];
            Body::Information { of, attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into() }
        }
    };
    let event = |place: usize| {
        let proc = (!matches!(place, 15 | 16)).then_some(place as u32);
        Event { cluster: 7, proc, time: "2026-11-25 20:14:37.247".into(), body: body(place) }
    };
    (0..18).map(event).collect()
}

fn read_all(bytes: &[u8], piece: usize) -> Vec<Result<(Head, Vec<u8>), Fault>> {
    let (mut reader, mut all) = (Reader::default(), Vec::new());
    for piece in bytes.chunks(piece) {
        reader.feed(piece);
        while let Some(event) = reader.next_event() {
            all.push(event.map(|(head, text)| (head, text.to_vec())));
        }
    }
    all
}

#[test]
fn what_is_written_is_read_in_every_form_and_in_any_pieces() {
    let events = events();
    let mut log = String::new();
    for (place, event) in events.iter().chain(&events).chain(&events).enumerate() {
        log += &event.write(FORMS[place % 3]);
    }
    for piece in [1, 2, 7, 100, log.len()] {
        let read = read_all(log.as_bytes(), piece);
        assert_eq!(read.len(), 3 * events.len());
        for (place, (read, event)) in read.into_iter().zip(events.iter().chain(&events).chain(&events)).enumerate() {
            let (head, text) = read.unwrap();
            let form = FORMS[place % 3];
            let end = match &event.body {
                Body::Terminated { end, .. } => Some(*end),
                _ => None,
            };
            let time = if form == Form::Text { &event.time[..19] } else { &event.time };
            // In text, a cluster's own events have a number there.
            let none = (form == Form::Text).then_some(-1);
            let (cluster, proc) = (Some(7), event.proc.map(i64::from).or(none));
            assert_eq!(head, Head { number: event.body.number(), cluster, proc, time: time.into(), end });
            assert_eq!(String::from_utf8(text).unwrap().trim(), event.write(form).trim());
        }
    }
}

#[test]
fn the_text_is_htcondors() {
    let events = events();
    let text = |place: usize| events[place].write(Form::Text);
    assert_eq!(
        text(0),
        "000 (007.000.000) 2026-11-25 20:14:37 Job submitted from host: <127.0.0.1:0>\n    [ DAGNodeName = \"A<&>\"; \
         JobBatchName = \"a \\\"night\\\" \\\\ run\" ]\n    by ... me\n...\n"
    );
    assert_eq!(
        text(1),
        "001 (007.001.000) 2026-11-25 20:14:37 Job executing on host: <n1>\n\tSlotName: slot1@n1\n\tCpus = 2\n\tGPUs = 0\n\tMemory = 64\n...\n"
    );
    let terminated = text(5);
    for line in [
        "\t(1) Normal termination (return value 3)",
        "\t\tUsr 0 01:01:01, Sys 1 01:01:01  -  Run Remote Usage",
        "\t43  -  Run Bytes Sent By Job",
        "\t1668  -  Total Bytes Received By Job",
        "\tPartitionable Resources :      Usage  Request Allocated ",
        "\t   Cpus                 :        1.5        2         2 ",
        "\t   Disk (KB)            : 1234567890    10240     10240 ",
        "\t   Memory (MB)          :          3       64        64 ",
        "\t   TimeExecute (s)      :         90                    ",
    ] {
        assert!(terminated.lines().any(|seen| seen == line), "{line}\n{terminated}");
    }
    let moved =
        "040 (007.013.000) 2026-11-25 20:14:37 Started transferring input files\n\tTransferring to host: <n1>\n...\n";
    assert_eq!(text(13), moved);
    assert_eq!(text(14), "040 (007.014.000) 2026-11-25 20:14:37 Finished transferring output files\n...\n");
    let submitted = "035 (007.-01.000) 2026-11-25 20:14:37 Cluster submitted from host: <127.0.0.1:0>\n...\n";
    assert_eq!(text(15), submitted);
    let removed =
        "036 (007.-01.000) 2026-11-25 20:14:37 Cluster removed\n\tMaterialized 4 jobs from 2 items.\tComplete\n...\n";
    assert_eq!(text(16), removed);
    assert_eq!(
        text(17),
        "028 (007.017.000) 2026-11-25 20:14:37 Job ad information event triggered.\nCluster = 7\nEventTime = \"2026-11-25T20:14:37.247\"\n\
         EventTypeNumber = 28\nHoldReason = \"a \\\"b\\\" \\ é\"\nHoldReasonCode = 3\nHoldReasonSubCode = 0\nJobPrio = 7\n\
         List = { 1,\"<x>\" }\nMyType = \"JobHeldEvent\"\nProc = 17\nSubproc = 0\nTriggerEventTypeName = \"ULOG_JOB_HELD\"\n\
         TriggerEventTypeNumber = 12\n...\n"
    );
    assert!(events[17].write(Form::Json).contains("\"List\": \"/Expr({ 1,\\\"<x>\\\" })/\""));
    assert!(events[17].write(Form::Xml).contains("<a n=\"List\"><e>{ 1,\"&lt;x&gt;\" }</e></a>"));
    assert!(text(8).contains("\tno such file\n\tCode 12 Subcode -2\n"));
    for event in &events {
        assert_eq!(event.write(Form::Text).lines().filter(|line| *line == "...").count(), 1);
        for form in FORMS {
            assert!(event.write(form).ends_with(&format!("\n{}", form.last_line())));
            assert_eq!(event.write(form).matches(&format!("\n{}", form.last_line())).count(), 1);
        }
    }
}

#[test]
fn logs_of_other_versions_are_read() {
    let log = b"<?xml version=\"1.0\"?>\n<!DOCTYPE classads SYSTEM \"classads.dtd\">\n<classads>\n<c>\n<a n=\"EventTypeNumber\"><i>0</i></a>\n\
        <a n=\"StructuredNotes\"><c><a n=\"Cluster\"><i>9</i></a></c></a>\n<a n=\"Cluster\"><i>1</i></a><a n=\"Proc\"><i>2</i></a></c>\n</classads>\n\
        000 (172.000.000) 10/23 10:56:54 Job submitted from host: <128.105.165.12:32779>\r\n...\r\n\
        001 (172.000.000) 2026-10-23T10:56:57Z Job executing on host: <128.105.165.131:32779>\n...\n\
        036 (015.-01.000) 2026-11-25 20:25:02 Cluster removed\n\tMaterialized 4 jobs from 0 items.\tComplete\n...\n\
        {\"Info\":\"a \\\"}\\\\\",\"EventTypeNumber\":8,\"List\":[{\"Cluster\":7},1]}\n";
    let read = read_all(log, 1000);
    assert!([1, 2, 3, 50].into_iter().all(|piece| read_all(log, piece) == read), "pieces make no difference");
    let read: Vec<Head> = read.into_iter().map(|event| event.unwrap().0).collect();
    let seen: Vec<_> = read.iter().map(|head| (head.number, head.cluster, head.proc, head.time.as_str())).collect();
    assert_eq!(
        seen,
        [
            (0, Some(1), Some(2), ""),
            (0, Some(172), Some(0), "10/23 10:56:54"),
            (1, Some(172), Some(0), "2026-10-23 10:56:57Z"),
            (36, Some(15), Some(-1), "2026-11-25 20:25:02"),
            (8, None, None, ""),
        ]
    );
}

#[test]
fn what_is_no_event_is_told_and_passed_over() {
    let log = b"words\nof mine\n...\n{\"Cluster\": 1}\n<a>\n<c><a n=\"x\"><i>1</i></a></c>\n009 (1.0.0) 2026-01-01 00:00:00 Job was aborted.\n...\n009 (1.0";
    let read = read_all(log, 3);
    let offsets: Vec<u64> = read.iter().filter_map(|event| event.as_ref().err()).map(|fault| fault.offset).collect();
    assert_eq!(offsets, [0, 18, 33, 37]);
    assert_eq!(read.last().unwrap().as_ref().unwrap().0.number, 9);
    let mut reader = Reader::default();
    reader.feed(log);
    while reader.next_event().is_some() {}
    assert!(!reader.is_between());
}

#[test]
fn an_endless_event_takes_bounded_memory() {
    for start in ["000 (1.0.0) ", "{\"a\": \"", "<c><a n=\"", "<!"] {
        let mut reader = Reader::default();
        reader.feed(start.as_bytes());
        let mut faults = 0;
        for _ in 0..64 {
            reader.feed(&[b'x'; 1 << 16]);
            while let Some(event) = reader.next_event() {
                faults += usize::from(event.is_err());
            }
            assert!(reader.held() <= MAX_EVENT + (1 << 17), "{start}");
        }
        assert!(faults > 0, "{start}");
    }
}

#[test]
fn logs_that_htcondor_wrote_are_read() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/eventlog/htcondor-25.14");
    for (name, events, submitted, ended) in
        [("text", 61, 11, 6), ("xml", 61, 11, 6), ("json", 156, 28, 16), ("dag.text", 6, 2, 2)]
    {
        let log = std::fs::read(format!("{dir}.{name}")).unwrap();
        let read: Vec<Head> = read_all(&log, 4096).into_iter().map(|event| event.unwrap().0).collect();
        let count = |number: u16| read.iter().filter(|head| head.number == number).count();
        assert_eq!((read.len(), count(0), count(5)), (events, submitted, ended), "{name}");
        assert!(read.iter().all(|head| head.time.starts_with("2026-11-25 20:")), "{name}");
        assert!(read.iter().all(|head| (head.number == 5) == head.end.is_some()), "{name}");
    }
}
