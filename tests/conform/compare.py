"""compare.py NAME CASES OURS THEIRS KNOWN: counts the cases, one a line in each file, whose results agree, and shows the first that don't.

KNOWN lists differences that stay, in groups of lines: "# why", "case: CASE", "like: REGEX". The case of a group is among CASES and must differ; another
may where the regex matches it, a tab and our result. Where theirs is "crashed", there is nothing to compare. Exit code 1 if another case differs, or if a listed one agrees.
"""

import re
import sys

name, *paths = sys.argv[1:]
lines = [open(path, encoding="utf-8", errors="surrogateescape", newline="\n").read().split("\n")[:-1] for path in paths[:3]]
cases, ours, theirs = lines
if not len(cases) == len(ours) == len(theirs):
    sys.exit(f"{name}: {len(cases)} cases, but {len(ours)} results of ours and {len(theirs)} of theirs")

known = {}
likes = []
for line in open(paths[3], encoding="utf-8"):
    key, _, value = line.rstrip("\n").partition(": ")
    if key == "case":
        known[value] = False
    elif key == "like":
        likes.append(re.compile(value))

agreeing, listed, crashed, unlisted = 0, 0, 0, []
for case, our, their in zip(cases, ours, theirs):
    if our == their:
        agreeing += 1
    elif their == "crashed":
        crashed += 1
    elif case in known:
        known[case] = True
        listed += 1
    elif any(like.search(f"{case}\t{our}") for like in likes):
        listed += 1
    else:
        unlisted.append((case, our, their))

gone = [case for case, differs in known.items() if not differs]
shown = lambda text: text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
for case, our, their in unlisted[:20]:
    print(f"differs: {shown(case)}\n   ours: {shown(our)}\n theirs: {shown(their)}")
for case in gone:
    print(f"no longer differs: {shown(case)}")
print(f"{name}: {len(cases)} cases, {agreeing} agree, {crashed} crash HTCondor, {listed} differ as listed, {len(unlisted)} differ otherwise")
sys.exit(1 if unlisted or gone else 0)
