"""generate.py SEED COUNT: random submit descriptions, one a line, with the control character 0x1e for the ends of lines."""

import random
import sys

seed, count = int(sys.argv[1]), int(sys.argv[2])
dice = random.Random(seed)
pick = dice.choice


def some(*values):
    return lambda: pick(values)


def word():
    return pick(["a", "b c", "x$(v)", "$(v)", "$(w:def)", "$(u)", "data/$(v).txt", "$(Process)", "$(Cluster).$(ProcId)", "$Fn(v)", "$Fnx(p)", "$INT(n,%03d)"])


def name():
    return pick(["out", "out.$(Process)", "$(v).out", "run/o.$(Cluster).$(Step)", "/abs/$(w:x)", "$Fp(p)o"])


def expression():
    return pick(["true", "false", "JobStatus == 2", "(ExitCode =!= 0)", "NumJobStarts > $(n)", "time() - QDate > 3600 && JobStatus == 1", "ExitBySignal == true || ExitCode != 0"])


def requirements():
    one = ["Memory > $(n)", "OpSys == \"LINUX\"", "(Arch == \"X86_64\")", "TARGET.HasFileTransfer", "Machine =!= \"bad\"", "TARGET.Cpus >= 2", "Disk > 100",
           "regexp(\"a+\", Machine)", "(OpSysAndVer =?= \"Debian12\")", "TARGET.TimeToLive > 3600", "HasSingularity", "TARGET.FileSystemDomain == \"x\""]
    return pick([" && ", " || ", " && "]).join(dice.sample(one, dice.randint(1, 3)))


def arguments():
    old = " ".join(word() for _ in range(dice.randint(0, 4)))
    new = '"' + " ".join(pick(["%s", "'%s'", "%s"]) % word() for _ in range(dice.randint(0, 4))) + '"'
    return pick([old, new])


def environment():
    pairs = [f"{n}={word()}" for n in dice.sample(["A", "B", "LONG_NAME", "c"], dice.randint(1, 3))]
    return pick(['"' + " ".join(p if " " not in p else p.split("=")[0] + "='" + p.split("=", 1)[1] + "'" for p in pairs) + '"', ";".join(pairs)])


COMMANDS = {
    "arguments": arguments,
    "environment": environment,
    "input": name,
    "output": name,
    "error": name,
    "log": some("l", "log.$(Cluster)"),
    "initialdir": some("run", "."),
    "request_cpus": some("1", "4", "$(n)", "undefined", "$(n) * 2", "ifThenElse(1 > 0, 3, 4)"),
    "request_memory": some("1", "100", "2GB", "1.5 G", "$(n)000", "undefined", "512M", "0", "1024 * $(n)", "ifThenElse(isUndefined(MemoryUsage), 1000, 2 * MemoryUsage)", "2 * 512 + 0.5"),
    "request_disk": some("1000", "2GB", "1M", "0", "undefined", "$(n) * 1024 * 1024"),
    "retry_request_disk": some("2GB", "2GB, 4GB", "RequestDisk * $(n)"),
    "request_gpus": some("0", "1", "$(n)"),
    "request_widgets": some("0", "2", "$(n)", '"abc"', "true", "$(n) + 1"),
    "requirements": requirements,
    "rank": some("Memory", "Memory * 2 + Cpus", "0", "TARGET.Mips"),
    "priority": some("0", "5", "-10", "$(n)", "2 + 3"),
    "universe": some("vanilla", "Vanilla", "5", "local"),
    "should_transfer_files": some("YES", "NO", "if_needed", "true"),
    "universe": some("vanilla", "Vanilla", "5"),
    "should_transfer_files": some("YES", "NO", "if_needed", "true", "Always", "never"),
    "when_to_transfer_output": some("ON_EXIT", "on_exit_or_evict", "ON_SUCCESS"),
    "transfer_executable": some("true", "false"),
    "transfer_input_files": some("a", "a, b/c ,d", "osdf:///x/y, https://h/$(v)", "$(v), in.$(Process)", "dir/"),
    "transfer_output_files": some("a", "a,b", "out.$(v)", "d/"),
    "transfer_output_remaps": some('"a = b"', '"a=b; c = d/$(Process)"', '"a = file:///x/$(v); b = https://h/$(Cluster)"', "a = osdf:///x/$(Process)"),
    "output_destination": some("https://h/d/", "osdf:///x/$(v)/$(Process)", "file:///s/$(w:x)", "x+pelican://h/y"),
    "preserve_relative_paths": some("true", "false"),
    "checkpoint_exit_code": some("85", "$(n)", "80 + 5"),
    "transfer_checkpoint_files": some("a", "a, b/c", "s.$(Process)", "$(v)"),
    "erase_output_and_error_on_restart": some("true", "false"),
    "on_exit_hold": expression,
    "on_exit_remove": expression,
    "periodic_hold": expression,
    "periodic_release": expression,
    "periodic_remove": expression,
    "periodic_hold_reason": some('"too long"', 'strcat("a", "b")'),
    "max_retries": some("0", "3", "$(n)"),
    "success_exit_code": some("0", "2"),
    "retry_until": some("5", "ExitCode > 3", "ExitCode == 1 || ExitBySignal"),
    "leave_in_queue": expression,
    "notification": some("never", "Always", "ERROR", "complete"),
    "notify_user": some("ada@example.org"),
    "accounting_group": some("g", "g.sub"),
    "accounting_group_user": some("u"),
    "deferral_time": some("7777777777", "QDate + 60", "(CurrentTime + 60 * $(n))", "$(n)", "-1", "5.0", "undefined", '"x"'),
    "deferral_window": some("0", "30", "$(n) * 60", "-2"),
    "deferral_prep_time": some("60", "10 * 6"),
    "cron_minute": some("*", "0,30", "*/$(n)", "5-50/5, 59"),
    "cron_hour": some("3", "0-11"),
    "cron_day_of_week": some("0", "1-5", "7"),
    "cron_window": some("90", "abc", "-3"),
    "cron_prep_time": some("20"),
    "noop_job": expression,
    "noop_job_exit_code": some("0", "$(n)", '"x"'),
    "noop_job_exit_signal": some("9", "$(n) + 1"),
    "job_lease_duration": some("600", "60 * 60"),
    "kill_sig": some("SIGINT", "9", "sigusr1"),
    "want_graceful_removal": some("true"),
    "job_max_vacate_time": some("60", "60 * $(n)"),
    "allowed_execute_duration": some("3600"),
    "allowed_job_duration": some("3600 + 1"),
    "batch_name": some("b", '"two words"', "b$(v)"),
    "description": some("hello world"),
    "hold": some("true", "false"),
    "concurrency_limits": some("a", "A, b:2"),
    "container_image": some("docker://debian:12", "osdf:///a/b.sif", "a/b.sif", "images/box/", "oras://ghcr.io/a:1"),
    "docker_image": some("debian:12", "docker://debian"),
    "getenv": some("true", "false", "HOME", "H*,!HOME"),
    "transfer_input": some("false"),
    "stream_output": some("true", "false"),
    "require_gpus": some("Capability > 4", "ECCEnabled || DriverVersion > 3", "GlobalMemoryMb > $(n)"),
    "gpus_minimum_capability": some("7.5", "$(n)"),
    "gpus_maximum_capability": some("9.0"),
    "gpus_minimum_memory": some("4GB", "2000", "1000 * $(n)"),
    "gpus_minimum_runtime": some("12.1", "11", "12010"),
    "docker_network_type": some("host", "none"),
    "docker_pull_policy": some("always", "missing"),
    "remote_initialdir": some("/tmp"),
    "shell": some("echo $(v); ls 'a b'", "true"),
    "core_size": some("0"),
    "image_size": some("1", "2 GB", "512M", "$(n)000"),
    "disk_usage": some("10", "1.5", "2k"),
    "PeriodicHold": expression,
    "OnExitRemove": expression,
    "JobMaxRetries": some("1", "$(n)"),
    "StreamErr": some("true"),
    "encrypt_execute_directory": some("true", "false"),
    "+Project": some('"TACC"', "3", "$(n) + 1", "true"),
    "MY.Wanted": some('"x$(v)"', "undefined"),
}

MACROS = {
    "v": some("1", "two", "x.y.z", "a/b.c", ""),
    "w": some("w", "$(v)$(v)", ""),
    "u": some("u u", "$(w)-$(v)"),
    "n": some("2", "7", "10"),
    "p": some("/a/b/c.txt", "rel/d.e", "plain"),
}

QUEUES = [
    "queue",
    "queue 2",
    "queue $(n)",
    "queue v in (1 b, c.d)",
    "queue 2 v in (1, b)",
    "queue v,w from (\x1e1 2\x1eb, x y\x1e)",
    "queue v from items",
    "queue v, w from items",
    "queue v matching *.dat",
    "queue v matching files *.dat",
    "queue v in [1:] (1 2 3)",
    "queue v from seq 3 |",
    "queue arguments from items",
    "queue 2 arguments in (x, $(v))",
    "queue input, output from (\x1ei 1,o1\x1ei2 o2\x1e)",
    "queue executable,request_memory from (\x1e/bin/a 5\x1e/bin/b 1GB\x1e)",
    "queue transfer_input_files from items",
    "queue MY.Kind, arguments from items",
]

BLOCKS = [
    "if defined w\x1ek = yes\x1eelse\x1ek = no\x1eendif",
    "if version >= 8.1.6\x1ek = new\x1eendif",
    "if $(z)\x1ek = 1\x1eelif true\x1ek = 2\x1eendif",
    "include : more.inc",
    "k @=end\x1efirst\x1esecond\x1e@end",
    "k = $(k:0)1\x1ek = $(k)2",
]

ODD_MACROS, ODD_USES, ODD_CONDITIONS, ODD_BLOCKS, ODD_QUEUES = (
    [each for line in part.splitlines() if not line.startswith("# ") for each in line.split("¦")]
    for part in open(__file__.replace("generate.py", "odd.txt"), encoding="utf-8").read().split("\n\n")
)


def raw(text):
    return text.replace("\\\\", "\\").replace("\\t", "\t").replace("\\r", "\r").replace("\\x1f", "\x1f").replace("~", "\x1e")


def odd():
    lines = [] if dice.random() < 0.02 else ["executable = /bin/echo"]
    lines += [pick(["i = 3", "i = 2"]), pick(["s = str", "s = a b"]), "f = " + pick(["/a/b/c.d", "x/y.tar.gz"]), "m = items", "r = 2.5", "l = p,q,r"][: dice.choice([0, 3, 6, 6])]
    lines += [raw(pick(ODD_MACROS)) for _ in range(dice.choice([0, 0, 1, 2]))]
    for _ in range(dice.choice([0, 0, 1, 1, 2])):
        block = pick(ODD_BLOCKS)
        while "%c" in block:
            block = block.replace("%c", pick(ODD_CONDITIONS), 1)
        lines.append(raw(block))
    use = pick(["arguments = %s", "arguments = %s $(x) $(y)", '+Use = "%s"', "output = o.%s.e", "environment = \"U='%s'\"", "batch_name = b%s.", 'My.Use = "%s"', "transfer_input_files = a, %s"])
    lines.append(use % pick([" ", " ", ""]).join(raw(pick(ODD_USES)) for _ in range(dice.choice([0, 1, 1, 2]))))
    if dice.random() < 0.4:
        lines.append("arguments = <$(s)> <$(x)> <$(y)> $(Process) $(ItemIndex) $(Step) $(Row)")
    if dice.random() < 0.1:
        dice.shuffle(lines)
    lines.append(raw(pick(ODD_QUEUES)) if dice.random() < 0.4 else pick(["queue", "queue 2", "queue x in (a b)"]))
    line = "\x1e".join(lines)
    if dice.random() < 0.02:
        line = line.replace("\x1e", "\r\x1e")
    return line


for _ in range(count):
    if dice.random() < 0.5:
        print(odd())
        continue
    lines = ["executable = " + pick(["/bin/echo", "/bin/echo", "prog", "bin/$(v).sh"])]
    for macro, value in MACROS.items():
        if macro == "n" or dice.random() < 0.6:
            lines.append(f"{macro} = {value()}")
    for command in dice.sample(list(COMMANDS), dice.randint(1, 6)):
        lines.append(f"{command} = {COMMANDS[command]()}")
    if dice.random() < 0.3:
        lines.append(pick(BLOCKS))
        lines.append("arguments = $(k) $(n)")
    lines.append(pick(QUEUES))
    print("\x1e".join(lines))
