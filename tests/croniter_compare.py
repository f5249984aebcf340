"""Compares the calendar's instants with croniter's. Run by croniter.sh.

Known differences, which the expressions below keep away from or which are taken out before comparing:

- Of a repeated hour, croniter runs spelled-out times twice. The calendar does so with fold=both, which is what is compared.
- A spelled-out time in a gap runs after the gap in both. croniter also makes up for it where minutes have a star or a step, and hours a
  step (`*/5 2 * * *`); the calendar follows such expressions as time passes. The end of the gap is not compared for these.
- What croniter makes up for keeps its second: 02:30:15 runs at 03:00:15, several of them several times. The calendar runs once, at 03:00:00.
  The first minute after a gap is not compared for expressions with seconds.
- croniter looks for the end of a gap in steps of a minute; Liberia's clocks went forward by 44 minutes and 30 seconds in 1972.
- Of the second pass through a repeated time, croniter forgets the very first second (02:00 when 03:00 becomes 02:00); most of it where
  not exactly an hour repeats, as on Lord Howe Island or at Troll, or where it begins within an hour, as on Chatham; and all of it if the next instant
  is in the months of the other clocks. Where one of these applies, the second pass is not compared.
- A gap of a whole day takes the times of that day with it; croniter runs them when the next day begins. Not compared either.
- `5-5` is one value; croniter takes it for the whole range. A step in a range that wraps around goes on over the end; croniter does
  not always keep it. `*/1` is a star to the calendar in the day fields, and a restriction to croniter.
- `5#2` and `15W` together with a restricted other day field: the calendar takes either, croniter takes both.
- `W` in a list, `#` next to plain days, `L-3` and `LW`: croniter has none of these. The last Friday is `5L` here, `L5` there.
- croniter's second is the sixth field unless told otherwise; its `H` and `R` come from other hashes and are not compared.
"""

import random
import subprocess
import sys
from datetime import datetime, timezone
from zoneinfo import ZoneInfo, available_timezones

from croniter import CroniterBadCronError, CroniterBadDateError, croniter

DAY = 86_400
BEGIN, END = 0, int(datetime(2038, 1, 1, tzinfo=timezone.utc).timestamp())
WINDOW = 36 * 3_600
INSTANTS_MAX = 24


def offset(zone, second):
    return int(datetime.fromtimestamp(second, zone).utcoffset().total_seconds())


def changes(zone):
    """Every change of the offset that lasts for ten days."""
    found = []
    second, before = BEGIN, offset(zone, BEGIN)
    while second < END:
        later = second + 10 * DAY
        after = offset(zone, later)
        if after != before:
            low, high = second, later
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(zone, middle) == before else (low, middle)
            found.append((high, after - before))
            second, before = high, offset(zone, high)
        else:
            second = later
    return found


def values(rng, least, most):
    """A field, and whether it has a star, a step or everything."""
    kind = rng.random()
    if kind < 0.3:
        return "*", True
    if kind < 0.6:
        return ",".join(str(value) for value in sorted(rng.sample(range(least, most + 1), rng.randint(1, 3)))), False
    low, high = sorted(rng.sample(range(least, most + 1), 2))
    if kind < 0.75:
        return f"{low}-{high}", (low, high) == (least, most)
    if kind < 0.8 and (low, high) != (least, most) and high - low > 1:
        return f"{high}-{low}", False
    step = rng.randint(2, most - least)
    return (f"*/{step}" if rng.random() < 0.5 else f"{low}-{high}/{step}"), True


def hours(rng):
    if rng.random() < 0.5:
        return ",".join(str(hour) for hour in sorted(rng.sample(range(0, 5), rng.randint(1, 3)))), False
    return values(rng, 0, 23)


def days(rng):
    """Day of month, month and day of week: for the calendar, and for croniter."""
    day, month, weekday = "*", "*", "*"
    theirs = None
    if rng.random() < 0.2:
        month = values(rng, 1, 12)[0]
    kind = rng.random()
    if kind < 0.1:
        day = values(rng, 1, 31)[0]
    elif kind < 0.2:
        weekday = values(rng, 0, 6)[0]
    elif kind < 0.3:
        day = ",".join(str(value) for value in rng.sample(range(1, 32), 2))
        weekday = str(rng.randint(0, 6))
    elif kind < 0.33:
        day = "L"
    elif kind < 0.36:
        day = f"{rng.randint(1, 28)}W"
    elif kind < 0.39:
        weekday = f"{rng.randint(0, 6)}#{rng.randint(1, 4)}"
    elif kind < 0.42:
        number = rng.randint(0, 6)
        weekday, theirs = f"{number}L", f"L{number}"
    elif kind < 0.45:
        day, weekday = "?", rng.choice(["MON-FRI", "SUN,SAT", "FRI-MON", "7", "mon"])
    return f"{day} {month} {weekday}", f"{day} {month} {theirs or weekday}"


def expression(rng):
    minute, minute_wild = values(rng, 0, 59)
    hour, hour_wild = hours(rng)
    ours, theirs = days(rng)
    second = ""
    if rng.random() < 0.15:
        second = values(rng, 0, 59)[0] + " "
    head = f"{second}{minute} {hour} "
    return head + ours, head + theirs, not (minute_wild or hour_wild), hour == "*"


def ask(theirs, zone, begin, end):
    start = datetime.fromtimestamp(begin - 1, zone)
    instants = croniter(theirs, start, second_at_beginning=True, max_years_between_matches=2)
    found = []
    try:
        while len(found) < INSTANTS_MAX:
            instant = int(instants.get_next(float))
            if instant >= end:
                break
            found.append(instant)
    except CroniterBadDateError:
        pass
    return found


def excused(case, after):
    """How many seconds after a change of the clocks are not compared."""
    _, at, by, _, _, ours, _, is_fixed, any_hour = case
    if by < 0:
        begins_within_hour = (at + after) % 3_600 != 0
        has_months = ours.split()[-2] != "*"
        return -by if by != -3_600 or begins_within_hour or has_months else 1
    if len(ours.split()) == 6 or by % 60 != 0:
        return 60
    return 1 if by >= DAY or (not is_fixed and not any_hour) else 0


def main():
    program, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)
    zones = {name: ZoneInfo(name) for name in sorted(available_timezones())}
    places = [(name, at, by) for name, zone in zones.items() for at, by in changes(zone)]
    print(f"{len(zones)} zones, {len(places)} changes of their clocks, {count} expressions, SEED={seed}", flush=True)
    rng.shuffle(places)
    asked, lines = [], []
    for index in range(count):
        name, at, by = places[index % len(places)]
        ours, theirs, is_fixed, any_hour = expression(rng)
        begin = max(0, at - rng.randint(0, WINDOW))
        asked.append((name, at, by, begin, at + WINDOW, ours, theirs, is_fixed, any_hour))
        lines.append(f"{name}\tboth\t{begin}\t{at + WINDOW}\t{INSTANTS_MAX}\t{ours}")
    answers = subprocess.run([program], input="\n".join(lines) + "\n", capture_output=True, text=True, check=True)
    compared = different = refused = instants = 0
    for line, case in zip(answers.stdout.splitlines(), asked, strict=True):
        name, at, by, begin, end, ours, theirs, is_fixed, any_hour = case
        try:
            expected = ask(theirs, zones[name], begin, end)
        except CroniterBadCronError as error:
            refused += 1
            if not line.startswith("error"):
                print(f"only croniter refuses {ours!r}: {error}")
                different += 1
            continue
        if line.startswith("error"):
            refused += 1
            # What never comes is refused when it is written; croniter finds out while it searches.
            if "no such day" not in line:
                print(f"only the calendar refuses {ours!r}: {line}")
                different += 1
            continue
        found = [int(instant) for instant in line.split()]
        if max(len(found), len(expected)) == INSTANTS_MAX:
            # One of them goes on.
            end = min(instants[-1] for instants in (found, expected) if len(instants) == INSTANTS_MAX)
        taken = excused(case, offset(zones[name], at))
        found, expected = (
            [instant for instant in instants if instant <= end and not at <= instant < at + taken]
            for instants in (found, expected)
        )
        compared += 1
        instants += len(found)
        if found != expected:
            different += 1
            if different <= 20:
                print(f"{name} at {at} by {by}: {ours!r} from {begin}\n  found    {found}\n  expected {expected}")
    print(f"{compared} compared, {instants} instants, {refused} refused by either, {different} different")
    sys.exit(1 if different else 0)


main()
