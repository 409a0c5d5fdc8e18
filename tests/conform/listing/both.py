"""both.py ROOT VO_LOGIN OUT: runs the options in OUT/cases, a line each, through q in a session of its own and through ROOT's condor_q, which reads the
ads that q --long shows; with "history" before them, through history and condor_history in the same way. Writes what they print, a line of JSON each, to
OUT/ours and OUT/theirs."""

import glob
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile

root, program, out = (os.path.abspath(path) for path in sys.argv[1:])
lib = f"{root}/usr/lib/x86_64-linux-gnu"
utils = os.path.dirname(glob.glob(f"{root}/**/libcondor_utils_*.so", recursive=True)[0])
loader = [f"{lib}/ld-linux-x86-64.so.2", "--library-path", f"{lib}:{utils}"]

DESCRIPTIONS = [
    "executable = /bin/sleep\narguments = 6$(Process)\noutput = out.$(Process)\nlog = $(Cluster).log\nrequirements = Nowhere && Memory > 1\nqueue 3\n",
    "executable = /bin/sh\nbatch_name = mybatch\nrequirements = Nowhere\npriority = 5\nrank = Memory * 1.5\n+Project = \"a\\\"b\"\n+Sample = \"$(word)\"\n"
    "queue word in (one two)\n",
    "executable = /bin/true\nqueue 3\n",
    "executable = /bin/true\nrequirements = Nowhere\nqueue 2\n",
]


def shown(text):
    """Without what says where and when, and how wide the columns of the batch view are."""
    if text.startswith("[\n"):
        return json.dumps(json.loads(text), sort_keys=True)
    if text.startswith('{"'):
        return json.dumps([json.loads(line) for line in text.splitlines()], sort_keys=True)
    if text.startswith("<?xml"):
        return json.dumps("\n".join(line for line in text.split("\n") if line))
    lines = [line.rstrip() for line in text.split("\n") if not line.startswith(("-- ", "Total for all users"))]
    if any(line.startswith("OWNER") for line in lines):
        lines = [" ".join(line.split()) for line in lines]
    return json.dumps("\n".join(lines).strip())


def banners(ads):
    """A history file of job ads, the oldest first."""
    text, begin = "", 0
    for ad in ads.split("\n\n"):
        of = dict(re.findall(r"^(ClusterId|ProcId|Owner|CompletionDate) = (.*)$", ad, re.MULTILINE))
        if of:
            named = " ".join(f"{name} = {of.get(name, 0)}" for name in ("ClusterId", "ProcId", "Owner", "CompletionDate"))
            text, begin = f"{text}{ad}\n*** Offset = {begin} {named}\n", len(text)
    return text


with tempfile.TemporaryDirectory() as home:
    env = {"HOME": home, "XDG_STATE_HOME": f"{home}/state", "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "TZ": "UTC", "LC_ALL": "C.UTF-8"}

    def session(line):
        run = subprocess.run([program, "-s", "c", "--keep", "-c", line], cwd=home, env=env, capture_output=True, text=True, timeout=120)
        return run.stdout if run.returncode == 0 else f"exit {run.returncode}: {run.stderr}"

    for number, text in enumerate(DESCRIPTIONS):
        with open(f"{home}/{number}.sub", "w", encoding="utf-8") as file:
            file.write(text)
    try:
        session("submit 0.sub 1.sub 2.sub; hold 2.1 1.2 > /dev/null; wait 3; submit 3.sub; rm 4")
        with open(f"{home}/ads", "w", encoding="utf-8") as file:
            file.write(session("q --long"))
        with open(f"{home}/history", "w", encoding="utf-8") as file:
            file.write(banners(session("history --long --forwards")))
        with open(f"{out}/cases", encoding="utf-8") as cases, open(f"{out}/ours", "w") as ours, open(f"{out}/theirs", "w") as theirs:
            for case in cases:
                words = case.split()
                past = words[:1] == ["history"]
                words = words[1:] if past else words
                tool, read = ("condor_history", "-file") if past else ("condor_q", "-jobads")
                print(shown(session(" ".join([tool, *map(shlex.quote, words)]))), file=ours)
                condor_env = {"CONDOR_CONFIG": "ONLY_ENV", "PATH": "/usr/bin:/bin", "TZ": "UTC"}
                file = f"{home}/history" if past else f"{home}/ads"
                run = subprocess.run([*loader, f"{root}/usr/bin/{tool}", read, file, *words], env=condor_env, capture_output=True, text=True, timeout=60)
                print("crashed" if run.returncode < 0 else shown(run.stdout), file=theirs)
    finally:
        session("exit --force")
