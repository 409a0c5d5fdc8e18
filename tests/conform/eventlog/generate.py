"""generate.py SEED COUNT: prints descriptions of events, one a line, for the example `eventlog` of vo-lang."""

import random
import sys

seed, count = int(sys.argv[1]), int(sys.argv[2])
dice = random.Random(seed)

WORDS = """job disk is full node1 Code 3 Subcode -1 (1) Normal termination (return value 0) ... .... 005 (001.000.000) exited with 7 "quoted" back\\slash <tag> a&b &lt; ]]> [ ] {
} ; = naïve 日本 tab\\t 100% $(x) 'single' Reason: Usr 0 SlotName: Partitionable Resources : <127.0.0.1:9618> , - ~ \x01 \x7f \x1e...\x1e \x1e \x1e\x1e""".split(" ")


def words(most=8):
    return " ".join(dice.choice(WORDS).replace("\n", "\x1e") for _ in range(dice.randint(1, most))).strip(" \x1e\x01\x7f") or "why"


def maybe(text):
    return text if dice.random() < 0.6 else ""


def host():
    return f"<{dice.choice(['n1', 'node-3.cluster.example.org', '10.0.0.7', '127.0.0.1:9618?addrs=127.0.0.1-9618&alias=a'])}>"


def slot():
    return f"slot{dice.randint(1, 9999)}@{dice.choice(['n1', 'node-3.cluster.example.org'])}"


def resources():
    return [dice.randint(1, 256), dice.choice([0, 1, 64, 4096, 1 << 20]), dice.choice([0, 0, 1, 8])]


def spent():
    usage = [dice.choice([0, 1, 59, 3661, 86_400, 10**7]), dice.choice([0, 7, 90_061])]
    moved = [dice.choice([0, 43, 3145728]), dice.choice([0, 1668, 10**10])]
    disk = [dice.choice([0, 1, 2250, 10**9]), dice.choice([0, 10240])]
    return usage + moved + resources() + [dice.randint(0, 5000), dice.randint(0, 99_999), dice.randint(0, 10**6)] + disk


def event():
    number = dice.choice([0, 1, 4, 5, 5, 6, 9, 12, 13, 22, 23, 24, 28, 35, 36, 40])
    if number == 0:
        rest = [host(), maybe(words()), maybe(words(2)), maybe(words()), maybe(words())]
    elif number == 1:
        rest = resources() + [host(), slot()]
    elif number == 4:
        rest = [dice.choice([0, 0, 1, 2]), dice.randint(1, 31)] + spent() + [words()]
    elif number == 5:
        how = dice.choice([1, 1, 2])
        rest = [how, dice.randint(0, 255) if how == 1 else dice.randint(1, 64)] + spent()
    elif number == 6:
        rest = [dice.choice([1, 2336, 10**9])]
    elif number == 28:
        rest = [dice.randint(0, 20), dice.randint(0, 1), dice.choice(["{1,2}", "{}", '{"a",{2.5}}', "[a=1;b=\"x\"]", "1.5"]), words(), words()]
    elif number == 35:
        rest = [host()]
    elif number == 36:
        rest = [dice.choice([1, 4, 10**6]), dice.choice([0, 3])]
    elif number == 40:
        rest = [dice.randint(0, 3), host()]
    elif number == 12:
        rest = [dice.randint(0, 50), dice.randint(0, 300), words()]
    elif number in (9, 13):
        rest = [words()]
    elif number == 22:
        rest = [words(), slot(), host()]
    elif number == 23:
        rest = [slot(), host()]
    else:
        rest = [words(), slot()]
    time = f"20{dice.randint(10, 37)}-{dice.randint(1, 12):02}-{dice.randint(1, 28):02} {dice.randint(0, 23):02}:{dice.randint(0, 59):02}:{dice.randint(0, 59):02}.{dice.randint(0, 999):03}"
    head = [dice.choice([1, 7, 999, 1000, 123456, 2**31 - 1]), dice.choice([0, 3, 999, 1000, 1_000_000]), time, number]
    return "\t".join(str(part) for part in head + rest)


for _ in range(count):
    print(event())
