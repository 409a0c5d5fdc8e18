"""Evaluates cases with HTCondor's classad2: "MY<tab>TARGET<tab>EXPRESSION" a line, either ad may be missing; prints the expression as it is written,
its value, and the expression as it is written in the old syntax, with tabs between. What can't be read gives "unreadable", and what HTCondor doesn't survive, "crashed"."""

import subprocess
import sys


def run(line):
    import classad2

    my, target, text = line.split("\t")
    # The module reads an expression within the brackets of an ad, which may end early, or be lost in a comment.
    try:
        classad2.ExprTree(f"({text}\n)")
        expression = classad2.ExprTree(f"{text}\n")
    except classad2.ClassAdException:
        return "unreadable\tunreadable\tunreadable"
    try:
        ads = [classad2.ClassAd(ad) if ad else None for ad in (my, target)]
    except classad2.ClassAdException:
        return "unreadable ad\tunreadable ad\tunreadable ad"
    try:
        value = repr(expression.simplify(*ads))
    except classad2.ClassAdException:
        value = "error"
    try:
        old = classad2.ClassAd({"x": expression}).printOld()[len("x = ") : -1]
    except UnicodeDecodeError:
        old = "no UTF-8"
    return f"{expression!r}\t{value}\t" + old.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")


def work():
    import htcondor2  # noqa: F401, it registers functions

    for line in sys.stdin:
        print(run(line.rstrip("\n")), flush=True)


def main():
    lines = sys.stdin.read().split("\n")[:-1]
    while lines:
        text = "\n".join(lines) + "\n"
        worker = subprocess.run([sys.executable, __file__, "work"], input=text, stdout=subprocess.PIPE, text=True)
        results = worker.stdout.split("\n")[:-1]
        sys.stdout.write(worker.stdout[: worker.stdout.rfind("\n") + 1])
        lines = lines[len(results) :]
        if worker.returncode > 0:
            sys.exit("this program failed")
        if lines:
            print("crashed")
            lines = lines[1:]


work() if sys.argv[1:] == ["work"] else main()
