"""theirs.py read FILE...: prints a line for each event of the logs, as the example `eventlog` of vo-lang does.
theirs.py compare DIR: prints what the events of DIR/json say to DIR/ours, and what HTCondor reads of them in each form to DIR/theirs, with DIR/cases."""

import calendar
import json
import sys
import time

import htcondor2
import classad2

FORMS = ["text", "json", "xml"]


def events(path):
    with htcondor2.JobEventLog(path) as log:
        yield from log.events(stop_after=0)


def read(path):
    for event in events(path):
        cluster, proc = event.cluster, event.proc
        if int(event.type) == 8 and cluster <= 0:
            cluster = proc = "-"
        end = ""
        if int(event.type) == 5:
            end = f" exit {event['ReturnValue']}" if event["TerminatedNormally"] else f" signal {event['TerminatedBySignal']}"
        print(f"{int(event.type)} {cluster}.{proc} {event['EventTime'][:19].replace('T', ' ')}{end}")


def flat(value):
    if isinstance(value, str) and value.startswith("/Expr("):
        value = classad2.ExprTree(value[6:-2]).eval()
    if hasattr(value, "items"):
        return {key: flat(part) for key, part in value.items()}
    if isinstance(value, list):
        return [flat(part) for part in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def compare(dir):
    out = {name: open(f"{dir}/{name}", "w", encoding="utf-8") for name in ("cases", "ours", "theirs")}
    decoder, text, at = json.JSONDecoder(), open(f"{dir}/json", encoding="utf-8").read(), 0
    said = []
    while text[at:].strip():
        event, at = decoder.raw_decode(text, at + len(text[at:]) - len(text[at:].lstrip()))
        said.append(event)
    for form in FORMS:
        found = list(events(f"{dir}/{form}"))
        for place, event in enumerate(said):
            ours = dict(flat(event))
            theirs = dict(flat(found[place])) if place < len(found) else {"missing": True}
            if place < len(found):
                read = found[place]
                when = calendar.timegm(time.strptime(event["EventTime"][:19], "%Y-%m-%dT%H:%M:%S"))
                assert (int(read.type), read.cluster, read.proc) == (event["EventTypeNumber"], event["Cluster"], event.get("Proc", -1)), (form, place, read)
                assert read.timestamp == when, (form, place, read.timestamp, when)
            for one in (ours, theirs):
                one.pop("EventTime", None)
                # In text, notes with names stand where those for programs would.
                if form == "text" and "StructuredNotes" in one:
                    one.pop("LogNotes", None)
            # Written in it is the type of the event before it.
            if event["EventTypeNumber"] == 28:
                ours["MyType"] = theirs["MyType"] = "JobAdInformationEvent"
            # In text, nothing tells notes for people from those for programs if they are alone.
            if form == "text" and "UserNotes" in ours and not {"LogNotes", "StructuredNotes"} & ours.keys():
                ours["LogNotes"] = ours.pop("UserNotes")
            # HTCondor reads a usage from ads only where there is a request for it, though it writes others.
            if form != "text":
                for name in ("TimeExecute", "Memory", "Disk"):
                    if f"Request{name}" not in ours and event["EventTypeNumber"] == 5:
                        ours.pop(f"{name}Usage", None)
            line = lambda ad: "\t".join(f"{key}={ad[key]!r}" for key in sorted(ad))
            print(form, place, event["MyType"], file=out["cases"])
            print(line(ours), file=out["ours"])
            print(line(theirs), file=out["theirs"])
        if len(found) != len(said):
            sys.exit(f"{form}: {len(said)} events were written, {len(found)} read")


if sys.argv[1] == "read":
    for path in sys.argv[2:]:
        read(path)
else:
    compare(sys.argv[2])
