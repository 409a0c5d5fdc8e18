"""generate.py SEED COUNT: expressions of all operators, types and functions, most of them well typed, as "MY<tab>TARGET<tab>EXPRESSION" lines."""

import random
import sys

rng = random.Random(int(sys.argv[1]))
count = int(sys.argv[2])

INTS = ["0", "1", "2", "3", "-1", "-7", "10", "100", "2048", "86400", "3661", "-90061", "1500000000", "2147483647", "2147483648", "-2147483649", "9223372036854775807", "9223372036854775808", "-9223372036854775807"]
REALS = ["0.0", "-0.0", "1.0", "2.5", "-2.5", "3.7", "0.1", "1e10", "1.5E300", "1E-300", "-1e19", "123456.789", ".5", "-.25", "1e308", "3.999999999999"]
STRINGS = ["", "a", "A", "abc", "ABC", "aBc", "x y", "foo,bar", "foo, bar ,baz", "1,2,3", "1.5, 2 ,-3", "10", "2.5", "0x1A", " 12 ", "true", "FALSE", "1.2.3", "1.10.0", "1.9", "01.1", "10.0.2-rc1",
           "user@host", "slot1_2@node7", "@x", "a@", "a  b\\tc", "q\\\"q", "it's", "back\\\\slash", "new\\nline", "\\101\\7", "A=1 B=2", "A='x y' C=\\'\\'", "A=1;B=2", "|A=1|B=x y", "a 'b c' d''e", "1:02:03", "X86_64", "LINUX", "é", "1e5x", "\\303\\251\\377\\400\\38", "inf", "nan", "- 3", "+4"]
NAMES = ["a", "b", "c", "d", "e", "f", "g"]
PATTERNS = ["a", "^a.*c$", "b+", "[a-c]{2,}", "(a)(b)?", "x|y", "\\\\d+", "\\\\w+\\\\s", ".", "", "(", "[", "o{2}", "^$", "a\\\\.b", "(?i)abc", "[[:digit:]]+", "(?=b)", "(.)\\\\1", "\\\\bfoo\\\\b", "^\\\\s*", "[^,]+", "(f)(o)(o)", "a*", "\\\\x41", "(?<n>b)"]
FORMATS = ["%Y-%m-%d", "%c", "%H:%M:%S", "%j %U %W %V %G %g", "%A %B %d", "%a %b %e %I %p", "%D %F %T %R %r", "%y %C %u %w", "100%%", "%s %Z %z", "%k %l %P", "%-d %_H %05Y %^a", "%", "%Q", "plain", "%x %X %h %n%t", "%10Y|%3d"]
TIMES = ["2003-01-25T09:00:00-06:00", "2024-02-29T23:59:59Z", "1969-12-31T00:00:01+02:00", "2000-01-01", "20040229T120000", "1999/12/31 23:59:60Z", "2026", "2026-13-40Z", "1970-01-01T00:00:00+0130"]
SPANS = ["0", "5", "59", "1:00", "01:02:03", "1+00:00:00", "-2+03:04:05", "3.5", "1d2h3m4s", "90m", "-1:30", "1h"]
ZONES = ["0", "3600", "-21600", "5400.7", "relTime(7200)"]


def pick(options):
    return rng.choice(options)


def chance(p):
    return rng.random() < p


class Scope:
    """The names that an expression may use: of the ad it stands in, and whether what it evaluates may be evaluated in itself without end."""

    def __init__(self, names, safe, target):
        self.names, self.safe, self.target = names, safe, target


def literal(kind):
    if kind == "int":
        return pick(INTS) if chance(0.6) else str(rng.randint(-20, 50))
    if kind == "real":
        return pick(REALS) if chance(0.6) else repr(rng.uniform(-100, 100))
    if kind == "bool":
        return pick(["true", "false", "True", "FALSE"])
    if kind == "str":
        return '"' + pick(STRINGS) + '"' + (' "z"' if chance(0.02) else "")
    if kind == "abs":
        return f'absTime("{pick(TIMES)}")' if chance(0.6) else f"absTime({rng.randint(-10**9, 2 * 10**9)}, {pick(ZONES)})"
    if kind == "rel":
        return f'relTime("{pick(SPANS)}")' if chance(0.3) else f"relTime({rng.choice([rng.randint(-200000, 200000), round(rng.uniform(-5000, 5000), 2)])})"
    return pick(["undefined", "error"])


def attribute(scope):
    names = [name for name in NAMES if name in scope.names] if chance(0.85) else NAMES + ["nowhere", "'odd name'", "Memory"]
    name = pick(names or NAMES)
    if chance(0.2):
        name = name.upper()
    return pick([name, name, name, "MY." + name, "TARGET." + name, "self." + name, "parent." + name, "." + name, "other." + name if chance(0.3) else name])


def ad(scope, depth):
    scope = Scope(scope.names, False, scope.target)
    count = rng.choice([0, 1, 2, 2, 3])
    names = rng.sample(NAMES + (["'x y'", "is_it", "Capability"] if chance(0.2) else []), count)
    return "[ " + "; ".join(f"{name} = {expr('any', depth - 1, scope)}" for name in names) + pick([" ]", "; ]"])


def items(scope, depth, kind=None):
    return "{" + ", ".join(expr(kind or "any", depth - 1, scope) for _ in range(rng.choice([0, 1, 2, 2, 3, 4]))) + "}"


def ads(scope, depth):
    return "{" + ", ".join(ad(scope, depth - 1) if chance(0.9) else expr("any", depth - 1, scope) for _ in range(rng.choice([1, 2, 2, 3]))) + "}"


# Functions by what they give: names and the kinds of their arguments; "?" begins those that may be left out.
FUNCTIONS = {
    "bool": [
        ("isUndefined isError isString isInteger isReal isList isClassAd isBoolean isAbsTime isRelTime", "any"),
        ("bool", "any"),
        ("member identicalMember", "scalar list"),
        ("anyCompare allCompare", "op nums num"),
        ("anyCompare allCompare", "op list scalar"),
        ("versionLE versionLT versionGE versionGT versionEQ", "str str"),
        ("version_in_range", "str str str"),
        ("stringListMember stringListIMember stringListSubsetMatch stringListISubsetMatch stringListsIntersect", "str str ? sep"),
        ("regexp", "pattern str ? opts"),
        ("regexpMember", "pattern strs ? opts"),
        ("stringList_regexpMember", "pattern str ? sep opts"),
        ("unresolved", "attr pattern"),
    ],
    "int": [
        ("int", "any"),
        ("size", "any"),
        ("floor ceil ceiling round", "num"),
        ("pow quantize", "int int"),
        ("strcmp stricmp versioncmp", "str str"),
        ("stringListSize", "str ? sep"),
        ("sum min max", "ints"),
        ("getYear getMonth getDayOfYear getDayOfMonth getDayOfWeek getHours getMinutes getSeconds", "abs"),
        ("getDays getHours getMinutes getSeconds", "rel"),
        ("countMatches", "any ads"),
    ],
    "real": [
        ("real", "any"),
        ("sum avg min max", "nums"),
        ("pow quantize", "num num"),
        ("quantize", "num nums"),
        ("stringListSum stringListAvg stringListMin stringListMax", "str ? sep"),
    ],
    "str": [
        ("string", "any"),
        ("strcat", "scalar"),
        ("strcat", "scalar scalar scalar"),
        ("join", "str list"),
        ("join", "list"),
        ("join", "str scalar scalar"),
        ("toUpper toLower", "scalar"),
        ("substr", "str int ? int"),
        ("interval", "num"),
        ("formatTime", "time ? format"),
        ("regexps", "pattern str subst ? opts"),
        ("replace replaceAll", "pattern str subst ? opts"),
        ("envV1ToV2", "str"),
        ("mergeEnvironment", "str ? str str"),
        ("listToArgs", "strs ? version"),
        ("unparse", "attr"),
        ("unresolved", "attr"),
        ("userHome", "str ? str"),
        ("userMap", "str str ? str str"),
    ],
    "list": [
        ("split", "str ? sep"),
        ("splitUserName splitSlotName", "str"),
        ("argsToList", "str ? version"),
        ("evalInEachContext", "scalar ads"), ("evalInEachContext", "attr ads"),
    ],
    "abs": [("absTime", "num ? zone"), ("absTime", "abs")],
    "rel": [("relTime", "num"), ("relTime", "any")],
    "ad": [("splitTime", "time")],
    "any": [("ifThenElse", "bool any any"), ("eval", "text"), ("debug", "any"), ("nosuch", "any"), ("eval", "str")],
}
# These begin a new evaluation, which doesn't see that it is within itself.
UNSAFE = {"evalInEachContext", "countMatches", "formatTime"}


def argument(kind, scope, depth):
    if kind == "scalar":
        return expr(pick(["int", "real", "bool", "str", "str", "any"]), depth - 1, scope)
    if kind == "num":
        return expr(pick(["int", "real"]), depth - 1, scope)
    if kind == "time":
        return expr(pick(["abs", "abs", "int", "rel"] + (["ad"] if scope.safe else [])), depth - 1, scope)
    if kind == "op":
        return '"' + pick(["<", "<=", "!=", "==", ">", ">=", "is", "isnt", "=", "=?="]) + '"'
    if kind == "sep":
        return pick(['","', '" "', '";"', '", "', '""', '"@"', '"|"', '"ab"', "undefined"])
    if kind == "opts":
        return pick(['""', '"i"', '"f"', '"fg"', '"g"', '"I"', '"im"', '"s"', '"x"', '"ix"'])
    if kind == "pattern":
        return f'"{pick(PATTERNS)}"' if chance(0.95) else expr("any", depth - 1, scope)
    if kind == "subst":
        return pick(['""', '"x"', '"<\\\\0>"', '"\\\\1-\\\\2"', '"\\\\q"', '"\\\\\\\\"'])
    if kind == "version":
        return pick(["1", "2", "2", "3", "undefined"])
    if kind == "format":
        return f'"{pick(FORMATS)}"'
    if kind == "zone":
        return pick(ZONES)
    if kind == "attr":
        return attribute(scope)
    if kind == "ads":
        return ads(scope, depth - 1) if chance(0.8) else expr("any", depth - 1, scope)
    if kind == "strs":
        return items(scope, depth - 1, "str")
    if kind == "ints":
        return items(scope, depth - 1, "int")
    if kind == "nums":
        return items(scope, depth - 1, pick(["int", "real", "bool"])) if chance(0.5) else items(scope, depth - 1, "real")
    if kind == "text":
        text = expr("any", depth - 1, Scope(scope.names, scope.safe, scope.target))
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return expr(kind, depth - 1, scope)


def call(kind, scope, depth):
    while True:
        names, kinds = pick(FUNCTIONS.get(kind, FUNCTIONS["any"]))
        name = pick(names.split())
        if scope.safe or name not in UNSAFE:
            break
    needed, _, optional = kinds.partition("?")
    kinds = needed.split()
    for extra in optional.split():
        if chance(0.5):
            break
        kinds.append(extra)
    if chance(0.02):
        kinds = kinds[1:] if chance(0.5) else kinds + ["any"]
    if not kinds and name in ("absTime", "formatTime"):
        # The present time.
        name = "nosuch"
    if chance(0.1):
        name = pick([name.upper(), name.lower()])
    arguments = [argument(kind, scope, depth) for kind in kinds]
    return f"{name}({pick([', ', ',']).join(arguments)})"


def operand(kind, scope, depth):
    text = expr(kind, depth - 1, scope)
    return f"({text})" if chance(0.4) else text


def operation(kind, scope, depth):
    two = lambda left, operators, right: operand(left, scope, depth) + f" {pick(operators)} " + operand(right, scope, depth)
    if kind == "int":
        if chance(0.2):
            return pick(["-", "+", "~", "-", "- "]) + operand("int", scope, depth)
        if chance(0.3):
            return two("int", ["&", "|", "^", "<<", ">>", ">>>"], "int")
        return two(pick(["int", "int", "bool"]), ["+", "-", "*", "/", "%"], "int")
    if kind == "real":
        return two(pick(["real", "int"]), ["+", "-", "*", "/", "%"], pick(["real", "int", "bool"]))
    if kind == "bool":
        choice = rng.random()
        if choice < 0.15:
            return "!" + operand("bool", scope, depth)
        if choice < 0.5:
            return two("bool", ["&&", "||"], pick(["bool", "bool", "any"]))
        if choice < 0.65:
            return two("any", ["=?=", "=!=", "is", "isnt", "IS"], "any")
        side = pick(["int", "real", "str", "str", "abs", "rel", "bool"])
        other = side if chance(0.8) else pick(["int", "real", "bool", "str", "any"])
        return two(side, ["==", "!=", "<", "<=", ">", ">="], other)
    if kind == "abs":
        return two("abs", ["+", "-"], "rel") if chance(0.7) else two("rel", ["+"], "abs")
    if kind == "rel":
        return pick([lambda: two("rel", ["+", "-"], "rel"), lambda: two("abs", ["-"], "abs"), lambda: two("rel", ["*", "/"], pick(["int", "real"])), lambda: two(pick(["int", "real"]), ["*"], "rel"), lambda: "-" + operand("rel", scope, depth)])()
    if kind == "list":
        return f"({ads(scope, depth)}).{pick(NAMES)}"
    return two("any", ["+", "==", "&&", "<", "|", "?:", "*"], "any")


def expr(kind, depth, scope):
    if chance(0.07):
        kind = pick(["int", "real", "bool", "str", "abs", "rel", "list", "ad", "none"])
    if kind == "any":
        kind = pick(["int", "int", "real", "bool", "bool", "str", "str", "abs", "rel", "list", "ad", "none"])
    if depth <= 0 or chance(0.12):
        if chance(0.35):
            return attribute(scope)
        if kind == "list":
            return items(scope, 1)
        if kind == "ad":
            return ad(scope, 1)
        return literal(kind)
    choice = rng.random()
    if choice < 0.06:
        return f"{operand('bool', scope, depth)} ? {expr(kind, depth - 1, scope)} : {expr(kind, depth - 1, scope)}"
    if choice < 0.09:
        return f"{attribute(scope)} ?: {operand(kind, scope, depth)}"
    if choice < 0.13:
        return f"{items(scope, depth, kind)}[{expr('int', 1, scope)}]"
    if choice < 0.15:
        return f"({ad(scope, depth)}).{pick(NAMES)}"
    if choice < 0.17 and scope.safe:
        index = pick(['"a"', '"B"', 'toLower("C")', expr("str", 1, scope)])
        return f"({ad(scope, depth)})[{index}]"
    if choice < 0.20:
        return f"({expr(kind, depth - 1, scope)})"
    if kind == "list" and choice < 0.5:
        return items(scope, depth)
    if kind == "ad" and choice < 0.9:
        return ad(scope, depth)
    if choice < 0.6:
        return operation(kind, scope, depth)
    return call(kind, scope, depth)


def outer(other):
    """An ad for MY or TARGET. Names refer to later ones only, or to all without the functions that would not end."""
    names = rng.sample(NAMES, rng.choice([2, 3, 4, 5, 6]))
    if chance(0.3):
        scope = lambda i: Scope(names, False, other)
    else:
        # Names of the other ad must not lead back, so there are none.
        scope = lambda i: Scope(names[i + 1:], False, False)
    return "[" + "; ".join(f"{name} = {expr('any', rng.choice([0, 0, 1, 2]), scope(i))}" for i, name in enumerate(names)) + "]", names


ODD_FUNCTIONS, ODD_VALUES, ODD_TOKENS = (
    [line.split() for line in part.splitlines() if not line.startswith("# ")]
    for part in open(__file__.replace("generate.py", "odd.txt"), encoding="utf-8").read().split("\n\n")
)
ODD_FUNCTIONS, ODD_VALUES = sum(ODD_FUNCTIONS, []), sum(ODD_VALUES, [])
ODD_SCOPES = ["\t", '[a = 1; b = "x"; c = {1, [d = a]}]\t', '[a = b; b = 5; s = "a b"]\t[b = 2; a = TARGET.a; t = MY.b]']


def odd():
    """What nobody would write: any function with any arguments, any operands of operators, tokens side by side."""
    choice = rng.random()
    if choice < 0.25:
        name = pick(ODD_FUNCTIONS)
        # Without arguments, these ask the clock.
        least = int(name in ("absTime", "formatTime"))
        return f"{name}({', '.join(pick(ODD_VALUES) for _ in range(max(least, rng.choice([0, 1, 1, 2, 2, 3, 4]))))})"
    if choice < 0.65:
        names, kinds = pick(pick(list(FUNCTIONS.values())))
        needed, _, optional = kinds.partition("?")
        kinds = needed.split() + rng.choice([[], optional.split()])
        return f"{pick(names.split())}({', '.join(pick(ODD_VALUES) if chance(0.6) else argument(kind, Scope(NAMES, False, False), 1) for kind in kinds)})"
    if choice < 0.8:
        return f"{pick(ODD_VALUES)} {pick('+ - * / % & | ^ << >> >>> < <= == != >= > =?= =!= is isnt && || ?:'.split())} {pick(ODD_VALUES)}"
    if choice < 0.9:
        words = pick(ODD_TOKENS)
        start = rng.randrange(len(words))
        return pick([" ", "", " "]).join(words[start : start + rng.choice([1, 1, 2, 3])])
    return pick([" ", ""]).join(pick(pick(ODD_TOKENS)) for _ in range(rng.choice([2, 3])))


for _ in range(count):
    if chance(0.25):
        print(f"{pick(ODD_SCOPES)}\t{odd()}")
        continue
    my = target = ""
    names = []
    if chance(0.6):
        my, names = outer(False)
        if chance(0.6):
            target, more = outer(True)
            names = names + more
    # An expression that is evaluated can't be reached from the ads, so it may begin new evaluations.
    text = expr(pick(["any", "bool", "bool", "int", "real", "str", "abs", "rel", "list", "ad"]), rng.choice([1, 2, 2, 3, 3, 4]), Scope(names, True, bool(target)))
    if chance(0.01):
        place = rng.randrange(len(text) + 1)
        text = text[:place] + pick(list("()[{}.,?:=!<>\"'\\&|+-*%~^ 0x_$@#`")) + text[place:]
    print(f"{my}\t{target}\t{text}")
