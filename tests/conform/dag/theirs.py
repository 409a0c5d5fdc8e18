"""theirs.py ROOT DIRS <CASES: makes a directory below DIRS of each case, numbered, and prints what condor_dag_checker of ROOT says of its main.dag.

A case is a line of JSON: names of files and their texts."""

import glob
import json
import os
import shutil
import subprocess
import sys

root, dirs = sys.argv[1:]
root = os.path.abspath(root)
shutil.rmtree(dirs, ignore_errors=True)
lib = f"{root}/usr/lib/x86_64-linux-gnu"
utils = os.path.dirname(glob.glob(f"{root}/**/libcondor_utils_*.so", recursive=True)[0])
command = [f"{lib}/ld-linux-x86-64.so.2", "--library-path", f"{lib}:{utils}", f"{root}/usr/bin/condor_dag_checker", "-json", "main.dag"]
for number, line in enumerate(sys.stdin):
    home = f"{dirs}/{number:06}"
    os.makedirs(home)
    for name, text in json.loads(line).items():
        os.makedirs(os.path.dirname(f"{home}/{name}"), exist_ok=True)
        with open(f"{home}/{name}", "w", encoding="utf-8", newline="") as file:
            file.write(text)
    run = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=60, env={"CONDOR_CONFIG": "ONLY_ENV", "PATH": "/usr/bin:/bin"})
    if run.returncode < 0:
        print("crashed")
        continue
    said = json.loads(run.stdout)[0]
    if said.get("Errors") or said.get("IsCyclic"):
        print("invalid")
    else:
        of = lambda key: said.get(key, 0)
        # Joins within splices are not told apart from other nodes there.
        print(f"valid: {of('TotalNodes')} nodes with joins, {of('NumArcs')} arcs, {of('NumSplices')} splices")
