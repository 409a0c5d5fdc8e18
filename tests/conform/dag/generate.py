"""generate.py SEED COUNT: random DAGs, a line of JSON each: names of files and their texts. A third of them have a fault."""

import json
import random
import sys


def any_case(r, word):
    return r.choice([word, word.lower(), word.capitalize()])


def modifier(r, node):
    return r.choice([
        f"RETRY {node} {r.randint(0, 9)}", f"RETRY {node} 3 UNLESS-EXIT 2", f'VARS {node} a="1" b = "x \\"y\\""', f'VARS {node} APPEND +A="1"',
        f"SCRIPT PRE {node} x.sh $JOB", f"SCRIPT DEFER 1 2 POST {node} x.sh", f"SCRIPT DEBUG f ALL HOLD {node} x.sh", f"PRIORITY {node} {r.randint(-5, 5)}",
        f"CATEGORY {node} c", "MAXJOBS c 3", f"PRE_SKIP {node} 1", f"ABORT-DAG-ON {node} 3 RETURN 1", f"TOLERANCE {node} 5%", "# c", "// c", "ENV GET A B",
        "SET_JOB_ATTR x = 1", "DOT x.dot UPDATE", "NODE_STATUS_FILE s 3", "JOBSTATE_LOG j", f"RETRY \\\n# c\n {node} 2",
    ])


FAULTS = """BOGUS x|RETRY NOPE 3|PARENT N0 CHILD NOPE|JOB N0 x|JOB|JOB Q|PARENT N0|PARENT CHILD N0|RETRY N0 -1|RETRY N0 x|VARS N0|VARS N0 a|VARS N0 a="x
VARS N0 queue="x"|SCRIPT N0 x|SCRIPT PRE N0|SCRIPT DEFER PRE N0 x|ABORT-DAG-ON N0|ABORT-DAG-ON N0 1 RETURN 300|ABORT-DAG-ON N0 1 FOO|CATEGORY N0
CATEGORY N0 c d|MAXJOBS c|MAXJOBS c -1|PRIORITY N0|PRIORITY N0 x|PRE_SKIP N0|DONE|DONE NOPE|DONE ALL_NODES|SPLICE S9|SPLICE S9 nofile|INCLUDE
INCLUDE nofile|REJECT|REJECT x|SUBDAG N9 x|FINAL F2 x~FINAL F3 x|JOB A+B x|JOB PARENT x|JOB Z x FOO|JOB Z x DIR|JOB Z {~foo|JOB Z @=~foo|CONNECT S0
PIN_IN N0|PIN_IN N0 0|PIN_OUT N0 x|ENV|ENV PUT x|ENV SET|DOT|DOT x FOO|NODE_STATUS_FILE|NODE_STATUS_FILE s x|JOBSTATE_LOG|SET_JOB_ATTR
SAVE_POINT_FILE ALL_NODES|SAVE_POINT_FILE|WEAK N0 CHILD N0|TOLERANCE N0|TOLERANCE N0 %|TOLERANCE N0 1 FOO|RETRY N0 1 FOO|RETRY N0 1 UNLESS-EXIT
PARENT N0 CHILD N0|SUBMIT-DESCRIPTION d|SUBMIT-DESCRIPTION d x|SCRIPT DEBUG f FOO PRE N0 x""".replace("\n", "|").split("|")


def dag(r, files, depth):
    names = [f"N{i}" for i in range(r.randint(1, 7))]
    lines, splices = [], []
    for name in names:
        lines.append(r.choices([
            f"{any_case(r, 'JOB')} {name} s.sub" + r.choice(["", "", " NOOP", " DONE", " DIR d", ' dir "d" noop done']),
            f"JOB {name} {{\n executable=/bin/true\n # x\n}}" + r.choice(["", " NOOP"]),
            f"SUBDAG EXTERNAL {name} in.dag",
            f"JOB {name} @=E\nqueue\n@E",
        ], [7, 1, 1, 1])[0])
    for i in range(r.choice([0, 0, 1, 2]) if depth < 2 else 0):
        file = f"f{len(files)}.dag"
        files[file] = ""
        files[file] = dag(r, files, depth + 1)
        splices.append(f"S{i}")
        lines.append(f"SPLICE S{i} {file}")
    if depth == 0:
        lines += [line for line, chance in [("FINAL F f.sub", .3), ("SERVICE V f.sub", .2), ("PROVISIONER P f.sub", .2)] if r.random() < chance]
    used = set()
    pool = names + splices
    for _ in range(r.randint(0, 5)):
        parents = [pool[i] for i in sorted(r.sample(range(len(pool)), min(len(pool), r.randint(1, 3))))]
        last = max(pool.index(parent) for parent in parents)
        children = [x for x in pool if x not in parents and (r.random() < .02 or pool.index(x) > last)]
        children = r.sample(children, min(len(children), r.randint(1, 3)))
        # The checker sees a splice's ends only the first time that they are used; DAGMan itself, and we, always do.
        ends = {("parent", x) for x in parents if x in splices} | {("child", x) for x in children if x in splices}
        if children and not ends & used:
            used |= ends
            weak = "WEAK " if r.random() < .1 else ""
            lines.append(f"{weak}{any_case(r, 'PARENT')} {' '.join(parents)} {any_case(r, 'CHILD')} {' '.join(children)}")
    lines += [modifier(r, r.choice(names + ["ALL_NODES", "all_nodes"])) for _ in range(r.randint(0, 6))]
    if r.random() < .4:
        r.shuffle(lines)
    if r.random() < .35:
        lines.append(r.choice(FAULTS).replace("~", "\n"))
    return "\n".join(lines) + "\n"


ODD = [text for line in open(__file__.replace("generate.py", "odd.txt"), encoding="utf-8") if not line.startswith("# What") for text in line.rstrip("\n").split("|")]
ODD_FILES = {
    "i.dag": "JOB I i\n",
    "s.dag": "JOB X x\nJOB Y y\nPARENT X CHILD Y\n",
    "s2.dag": "SPLICE T s.dag\nJOB Z z\nPARENT T CHILD Z\n",
    "s3.dag": "FINAL F f\nJOB X x\n",
    "s4.dag": "SPLICE Q s4.dag\n",
    "e.dag": "",
    "p.dag": "JOB X x\nJOB Y y\nPIN_IN X 1\nPIN_OUT Y 1\n",
    "sub/d.dag": "JOB X x\nINCLUDE j.dag\n",
    "sub/j.dag": "JOB J j\n",
    "c": "DAGMAN_MAX_JOBS_IDLE = 5\n",
    "d": "",
}


def odd(r):
    """Lines that nobody would write, after two nodes, or before them."""
    lines = [r.choice(ODD).replace("~", "\n").replace("\\r", "\r").replace("\\v", "\v") for _ in range(r.choice([1, 1, 2]))]
    lines.insert(r.choice([0, 0, 0, len(lines)]), "JOB A a.sub\nJOB B b.sub")
    return {"main.dag": "\n".join(lines) + "\n", **ODD_FILES}


seed, count = map(int, sys.argv[1:])
for number in range(count):
    r = random.Random(f"{seed} {number}")
    files = {}
    if r.random() < 0.25:
        print(json.dumps(odd(r)))
        continue
    files["main.dag"] = dag(r, files, 0)
    print(json.dumps(files))
