"""both.py ROOT VO_LOGIN OUT: runs condor_submit_dag -no_submit with the options in OUT/cases, a line each, ours and ROOT's; writes which are taken, a line
each, to OUT/ours and OUT/theirs."""

import glob
import os
import shlex
import subprocess
import sys
import tempfile

root, program, out = (os.path.abspath(path) for path in sys.argv[1:])
lib = f"{root}/usr/lib/x86_64-linux-gnu"
utils = os.path.dirname(glob.glob(f"{root}/**/libcondor_utils_*.so", recursive=True)[0])
theirs = [f"{lib}/ld-linux-x86-64.so.2", "--library-path", f"{lib}:{utils}", f"{root}/usr/bin/condor_submit_dag", "-dagman", "/bin/true"]
FILES = {
    "x.dag": "JOB A a.sub\n",
    "a.sub": "executable = /bin/true\nqueue\n",
    "own.sub": "+A = 1\n",
    "config": "DAGMAN_MAX_JOBS_IDLE = 5\n",
    "mine": "DONE A\n",
    "x.dag.rescue001": "DONE A\n",
    "save_files/s": "DONE A\n",
}


def taken(command, words, extra):
    with tempfile.TemporaryDirectory() as home:
        for name, text in FILES.items():
            os.makedirs(os.path.dirname(f"{home}/{name}"), exist_ok=True)
            with open(f"{home}/{name}", "w", encoding="utf-8") as file:
                file.write(text)
        env = {"HOME": home, "XDG_STATE_HOME": f"{home}/state", "PATH": "/usr/bin:/bin", **extra}
        run = subprocess.run([*command, "-no_submit", *words, "x.dag"], cwd=home, env=env, capture_output=True, text=True, timeout=60)
        return "crashed" if run.returncode < 0 else "taken" if run.returncode == 0 else "refused"


with tempfile.TemporaryDirectory() as links:
    ours = f"{links}/condor_submit_dag"
    os.symlink(program, ours)
    with open(f"{out}/cases", encoding="utf-8") as cases, open(f"{out}/ours", "w") as mine, open(f"{out}/theirs", "w") as others:
        for case in cases:
            words = shlex.split(case)
            print(taken([ours], words, {}), file=mine)
            print(taken(theirs, words, {"CONDOR_CONFIG": "ONLY_ENV"}), file=others)
