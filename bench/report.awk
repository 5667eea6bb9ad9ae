# Reads RESULTS/scenario/variant/round.summary files of "name value" lines and prints the tables.

function reset_path(    parts, count) {
    count = split(FILENAME, parts, "/")
    scenario = parts[count - 2]; variant = parts[count - 1]; round = parts[count] + 0
    if (round > rounds[scenario, variant]) rounds[scenario, variant] = round
}
FNR == 1 { reset_path() }
$2 ~ /^-?[0-9.]+$/ { value[scenario, variant, round, $1] = $2 }
{ if ($1 ~ /^save\.[0-9]+\.msec$/) { split($1, part, "."); if (part[2] > saves[scenario]) saves[scenario] = part[2] } }

function has(s, v, r, name) { return (s, v, r, name) in value }
function get(s, v, r, name) { return has(s, v, r, name) ? value[s, v, r, name] + 0 : 0 }

# What no single line says.
function derive(s, v, r,    i, late, first) {
    if (has(s, v, r, "save.max_usec"))
        value[s, v, r, "worst"] = get(s, v, r, "after.max_usec") > get(s, v, r, "save.max_usec") ? get(s, v, r, "after.max_usec") : get(s, v, r, "save.max_usec")
    if (get(s, v, r, "save.1.start_msec") > 0 && get(s, v, r, "before.count") > 0)
        value[s, v, r, "rate.before"] = get(s, v, r, "before.count") * 1000 / get(s, v, r, "save.1.start_msec")
    if (get(s, v, r, "save.1.count") > 0)
        value[s, v, r, "rate.save"] = get(s, v, r, "save.1.count") * 1000 / get(s, v, r, "save.1.msec")
    for (i = 2; i <= saves[s]; i++)
        if (get(s, v, r, "save." i ".latest_fork_usec") > late) late = get(s, v, r, "save." i ".latest_fork_usec")
    if (late) value[s, v, r, "freeze.later"] = late
    # Bytes of page for every byte that holds them, in memory or spooled.
    held = get(s, v, r, "save.1.uffd_buffer_peak_bytes") + get(s, v, r, "save.1.uffd_last_spool_peak_bytes")
    if (held) value[s, v, r, "pages.per_byte"] = get(s, v, r, "save.1.uffd_last_pages_preserved") * 4096 / held
}

# Fills the globals median, lowest, highest; 0 when nothing was measured. The median of an even number is the mean of
# the two in the middle.
function statistics(s, v, name,    r, n, i, j, t, list) {
    for (r = 1; r <= rounds[s, v]; r++) if (has(s, v, r, name)) list[++n] = get(s, v, r, name)
    if (!n) return 0
    for (i = 2; i <= n; i++)
        for (j = i; j > 1 && list[j] < list[j - 1]; j--) { t = list[j]; list[j] = list[j - 1]; list[j - 1] = t }
    median = (list[int((n + 1) / 2)] + list[int(n / 2) + 1]) / 2
    lowest = list[1]; highest = list[n]
    return n
}

function shown(number, scale, digits) { return sprintf("%." digits "f", number / scale) }

function cell(s, v, name, scale, digits,    n) {
    n = statistics(s, v, name)
    if (!n) return "–"
    if (n == 1) return shown(median, scale, digits)
    return shown(median, scale, digits) " (" shown(lowest, scale, digits) "–" shown(highest, scale, digits) ")"
}

# One line of a table, left out when no variant has the metric.
function row(s, label, name, scale, digits, with_ratio,    i, line, base, any, ratio) {
    line = "| " label " |"
    base = statistics(s, variant_of[s, 1], name) ? median : 0
    for (i = 1; i <= variants[s]; i++) {
        if (statistics(s, variant_of[s, i], name)) any = 1
        line = line " " cell(s, variant_of[s, i], name, scale, digits) " |"
    }
    for (i = 2; i <= variants[s]; i++) {
        ratio = (with_ratio && base > 0 && statistics(s, variant_of[s, i], name)) ? sprintf("%.2f", median / base) : ""
        if (with_ratio && base > 0 && ratio + 0 < 0.1 && ratio != "") ratio = sprintf("%.3f", median / base)
        line = line " " ratio " |"
    }
    if (any) print line
}

function header(s, first,    i, line, rule) {
    line = "| " first " |"; rule = "|---|"
    for (i = 1; i <= variants[s]; i++) { line = line " " variant_of[s, i] " |"; rule = rule "---|" }
    for (i = 2; i <= variants[s]; i++) { line = line " " variant_of[s, i] " / " variant_of[s, 1] " |"; rule = rule "---|" }
    print line; print rule
}

function saves_rows(s,    i, name) {
    if (saves[s] < 2) { row(s, "freeze, ms", "save.1.latest_fork_usec", 1000, 2, 1); row(s, "save time, s", "save.1.msec", 1000, 2, 1); return }
    for (i = 1; i <= saves[s]; i++) {
        name = "save." i
        row(s, "save " i ": freeze, ms", name ".latest_fork_usec", 1000, 2, 1)
        row(s, "save " i ": time, s", name ".msec", 1000, 2, 1)
        row(s, "save " i ": worst reply, ms", name ".max_usec", 1000, 1, 1)
    }
}

function scenario_table(s) {
    print "### " title[s] "\n"
    header(s, "median (lowest–highest)")
    saves_rows(s)
    if (s ~ /^saturated/) {
        row(s, "replies/s" (saves[s] ? ", before the save" : ""), saves[s] ? "rate.before" : "replies_per_sec", 1, 0, 1)
        row(s, "main thread's CPU for one command, us", "main_thread_usec_per_reply", 1, 2, 1)
        row(s, "cost in replies/s, each slice against its pair, %", "cost.replies_percent", 1, 1, 0)
        row(s, "cost in CPU, each slice against its pair, %", "cost.cpu_percent", 1, 1, 0)
        row(s, "replies/s, during the save", "rate.save", 1, 0, 1)
        row(s, "slowest batch during the save, ms", "save.max_usec", 1000, 1, 1)
    } else {
        row(s, "replies/s, during the save", "rate.save", 1, 0, 1)
        row(s, "p50 during the save, ms", "save.p50_usec", 1000, 2, 1)
        row(s, "p99 during the save, ms", "save.p99_usec", 1000, 2, 1)
        row(s, "p99.9 during the save, ms", "save.p99.9_usec", 1000, 2, 1)
        row(s, "p99.99 during the save, ms", "save.p99.99_usec", 1000, 2, 1)
        row(s, "worst reply, ms", "worst", 1000, 1, 1)
        row(s, "time with replies over 10 ms, ms", "save.over_10ms_msec", 1, 0, 1)
        row(s, "p99 before the save, ms", "before.p99_usec", 1000, 2, 0)
        row(s, "worst before the save, ms", "before.max_usec", 1000, 1, 0)
        row(s, "worst after the save, ms", "after.max_usec", 1000, 1, 0)
    }
    if (saves[s]) {
        row(s, "extra memory, MB", "memory.extra_kb", 1024, 0, 1)
        row(s, "growth of the server process, MB", "memory.server_growth_kb", 1024, 0, 0)
        row(s, "resident memory of the server afterwards, MB", "resident_after_kb", 1024, 0, 1)
        row(s, "copied pages, as the server says, MB", "save.1.rdb_last_cow_size", 1048576, 0, 1)
        row(s, "pages preserved", "save.1.uffd_last_pages_preserved", 1, 0, 0)
        row(s, "buffer peak, MB", "save.1.uffd_buffer_peak_bytes", 1048576, 1, 0)
        row(s, "spool peak, MB", "save.1.uffd_last_spool_peak_bytes", 1048576, 1, 0)
        row(s, "bytes of pages per byte of buffer and spool", "pages.per_byte", 1, 2, 0)
        row(s, "faults", "save.1.uffd_last_faults", 1, 0, 0)
        row(s, "un-protect calls", "save.1.uffd_last_unprotects", 1, 0, 0)
        if (s ~ /^module/) {
            row(s, "values saved in the child", "save.1.uffd_last_child_values", 1, 0, 0)
            row(s, "making it, ms of the freeze", "save.1.uffd_last_child_fork_usec", 1000, 2, 0)
            row(s, "pages given to it, MB", "save.1.uffd_last_child_pages", 256, 0, 0)
            row(s, "at most at once, MB", "save.1.uffd_last_child_peak_bytes", 1048576, 0, 0)
        }
        row(s, "writer waits", "save.1.uffd_writer_waits", 1, 0, 0)
        row(s, "writer waits, ms together", "save.1.uffd_writer_wait_usec", 1000, 1, 0)
    }
    row(s, "heap on huge pages, MB", "huge_pages_kb", 1024, 0, 0)
    row(s, "generator's lateness, p99, ms", "lateness.p99_usec", 1000, 2, 0)
    row(s, "generator's CPU, %", "generator_cpu_percent", 1, 0, 0)
    row(s, "steal, %", "steal_percent", 1, 1, 0)
    row(s, "machine in use just before, %", "busy_before_percent", 1, 0, 0)
    print ""
}

function measured(s, v, name) { return statistics(s, v, name) ? median : "" }

# limit > 0: the value may be at most that. limit 0: at most `factor` times fork's.
function target(label, s, v, name, scale, digits, limit, factor,    own, other, verdict, wanted) {
    own = measured(s, v, name)
    if (own == "") return
    other = measured(s, "fork", name)
    if (limit) wanted = "≤ " limit
    else if (other == "") return
    else wanted = (factor == 1) ? "≤ fork's" : "≤ " factor " of fork's"
    verdict = own / scale <= (limit ? limit : factor * other / scale) ? "yes" : "**no**"
    print "| " label " | " (other == "" ? "–" : shown(other, scale, digits)) " | " shown(own, scale, digits) " | " wanted " | " verdict " |"
}

# At least `factor` times fork's.
function at_least(label, s, v, name, scale, digits, factor,    own, other) {
    own = measured(s, v, name); other = measured(s, "fork", name)
    if (own == "" || other == "") return
    print "| " label " | " shown(other, scale, digits) " | " shown(own, scale, digits) " | ≥ " (factor == 1 ? "" : factor " of ") "fork's | " (own >= factor * other ? "yes" : "**no**") " (" shown(own, other, 3) ") |"
}

function targets_header() {
    print "## Targets\n\n| what (medians) | fork | module | wanted | met |\n|---|---|---|---|---|"
}

# What is not compared with fork: `own` may be at most `limit`.
function bound(label, own, digits, limit) {
    if (own != "") print "| " label " | – | " shown(own, 1, digits) " | ≤ " limit " | " (own <= limit ? "yes" : "**no**") " |"
}

function targets() {
    targets_header()
    target("freeze, first save, ms", "idle", "uffd", "save.1.latest_fork_usec", 1000, 2, 1.5)
    target("freeze, first save under writes, ms", "five-saves", "uffd", "save.1.latest_fork_usec", 1000, 2, 1.5)
    target("freeze, longest of the later saves in a row, ms", "five-saves", "uffd", "freeze.later", 1000, 2, 3)
    target("freeze, huge pages off, ms", "four-k", "uffd-4k", "save.1.latest_fork_usec", 1000, 2, 0, 1)
    target("20,000 SET/s: worst reply, ms", "set20k", "uffd", "worst", 1000, 1, 12)
    target("20,000 SET/s: p99, ms", "set20k", "uffd", "save.p99_usec", 1000, 2, 0, 1)
    target("20,000 SET/s Zipf: worst reply, ms", "zipf20k", "uffd", "worst", 1000, 1, 8)
    target("30,000/s, 90 % GET: worst reply, ms", "get90", "uffd", "worst", 1000, 1, 8)
    target("40,000 SET/s: worst reply, ms", "set40k", "uffd", "worst", 1000, 1, 0, 1)
    target("40,000 SET/s: last 10 ms with a reply over 10 ms, ms into the save", "set40k", "uffd", "save.last_over_10ms_msec", 1, 0, 0, 1)
    target("save time, idle, s", "idle", "uffd", "save.1.msec", 1000, 2, 0, 0.5)
    target("save time, 20,000 SET/s, s", "set20k", "uffd", "save.1.msec", 1000, 2, 0, 0.5)
    target("buffer for preserved pages, 20,000 SET/s, MB", "set20k", "uffd", "save.1.uffd_buffer_peak_bytes", 1048576, 1, 256)
    target("the same with buffer-limit 128mb, MB", "limit128", "uffd-128mb", "save.1.uffd_buffer_peak_bytes", 1048576, 1, 128)
    bound("ten saves in a row with buffer-limit 128mb: failed", measured("ten-saves", "uffd-128mb", "save.10.uffd_snapshots_failed"), 0, 0)
    at_least("throughput, module idle, replies/s", "saturated", "uffd", "replies_per_sec", 1, 0, 0.99)
    bound("UFFD.DIRTYRATE while it runs, saturated: main thread's CPU for a command, % more", measured("saturated-dirty-rate-10", "uffd-dirty-rate", "cost.cpu_percent"), 1, 2)
    target("heap of 8 GB: freeze, ms", "heap8g", "uffd", "save.1.latest_fork_usec", 1000, 2, 2)
    target("heap of 8 GB, 10,000 SET/s: worst reply, ms", "heap8g", "uffd", "worst", 1000, 1, 12)
    target("the same with buffer-limit 1gb: worst reply, ms", "heap8g-1gb", "uffd-1gb", "worst", 1000, 1, 12)
    print ""
}

# A row for each server; one's whole tables are below.
function server_table(    i, count, all, s) {
    count = split(scenarios, all, " ")
    print "## Summary\n\nA million keys, 20,000 SET/s: fork, then the module.\n"
    print "| server | freeze, ms | worst reply, ms | p99, ms | save, s | extra memory, MB |\n|---|---|---|---|---|---|"
    for (i = 1; i <= count; i++) {
        s = all[i]
        print "| " substr(title[s], 8, index(title[s], ":") - 8) " | " pair(s, "save.1.latest_fork_usec", 1000, 2) " | " pair(s, "worst", 1000, 1) \
            " | " pair(s, "save.p99_usec", 1000, 2) " | " pair(s, "save.1.msec", 1000, 2) " | " pair(s, "memory.extra_kb", 1024, 0) " |"
    }
    print ""
}

function pair(s, name, scale, digits,    own, other) {
    other = measured(s, "fork", name); own = measured(s, "uffd", name)
    return other == "" || own == "" ? "–" : shown(other, scale, digits) ", " shown(own, scale, digits)
}

# Where fork, or fork on huge pages, might be ahead: what is wanted is wanted of the machine that this was written on.
function pressure_targets() {
    targets_header()
    target("20,000 SET/s: p99, ms", "set20k", "uffd", "save.p99_usec", 1000, 2, 0, 1)
    target("20,000 SET/s: save time, s", "set20k", "uffd", "save.1.msec", 1000, 2, 0, 0.6)
    target("saturated, limit reached: save time, s", "saturated-save", "uffd", "save.1.msec", 1000, 2, 0, 1.5)
    target("saturated, limit reached: slowest batch, ms", "saturated-save", "uffd", "save.max_usec", 1000, 1, 0, 1)
    at_least("saturated, limit reached: replies/s", "saturated-save", "uffd", "rate.save", 1, 0, 1)
    target("busy machine: worst reply, ms", "busy", "uffd", "worst", 1000, 1, 100)
    target("busy machine: save time, s", "busy", "uffd", "save.1.msec", 1000, 2, 0, 1)
    target("first save, just filled: freeze, ms", "idle", "uffd", "save.1.latest_fork_usec", 1000, 2, 1)
    target("first save after loading a dump: freeze, ms", "restarted", "uffd", "save.1.latest_fork_usec", 1000, 2, 0, 0.1)
    target("first save after MODULE LOAD: freeze, ms", "loaded-late", "uffd-late", "save.1.latest_fork_usec", 1000, 2, 0, 0.1)
    target("a million keys: worst reply, ms", "on-installed", "uffd", "worst", 1000, 1, 0, 0.5)
    target("a million keys: p99, ms", "on-installed", "uffd", "save.p99_usec", 1000, 2, 0, 1)
    target("16 GB: freeze of the first save, ms", "heap16g", "uffd", "save.1.latest_fork_usec", 1000, 2, 2)
    target("16 GB: freeze, longest of two more, ms", "heap16g", "uffd", "freeze.later", 1000, 2, 2)
    target("8 GB: freeze right after a save with evictions, ms", "heap8g", "uffd", "save.2.latest_fork_usec", 1000, 2, 5)
    target("Zipf: worst reply, ms", "zipf20k", "uffd", "worst", 1000, 1, 6)
    target("io-threads 4, saturated: slowest batch, ms", "saturated-io-threads", "uffd", "save.max_usec", 1000, 1, 0, 0.5)
    target("small keys of every type: save time, s", "types", "uffd", "save.1.msec", 1000, 2, 0, 1)
    target("five saves: resident memory afterwards, MB", "five-saves", "uffd", "resident_after_kb", 1024, 0, 0, 1.1)
    target("50,000,000 keys, saturated with SET: slowest batch, ms", "saturated-50m-keys", "uffd", "save.max_usec", 1000, 1, 0, 1)
    target("50,000 lists: worst reply, ms", "lists", "uffd", "worst", 1000, 1, 0, 1)
    print ""
}

# Median over the saves of a run, which is what the curve is made of.
function freeze_of(s, v,    i, n, r) {
    for (i = 1; i <= saves[s]; i++) if (has(s, v, 1, "save." i ".latest_fork_usec")) { n++; value[s, v "#", n, "f"] = get(s, v, 1, "save." i ".latest_fork_usec") }
    rounds[s, v "#"] = n
    return statistics(s, v "#", "f") ? median : ""
}

function heap_table(    i, j, n, list, line, s, v, freeze) {
    n = split(heaps, list, " ")
    if (!n) return
    s = list[1]
    print "## Freeze and heap size\n\nIdle server, values of 1,000 bytes, median of three saves in a row, ms.\n"
    line = "| heap, MB |"
    for (j = 1; j <= variants[s]; j++) line = line " " variant_of[s, j] " |"
    print line
    gsub(/[^|]+/, "---", line); print line
    for (i = 1; i <= n; i++) {
        s = list[i]
        line = "| " substr(s, 6) " |"
        for (j = 1; j <= variants[s]; j++) {
            freeze = freeze_of(s, variant_of[s, j])
            line = line " " (freeze == "" ? "–" : shown(freeze, 1000, 2)) " |"
        }
        print line
    }
    print ""
}

function read_scenario(s,    line, i, n, list) {
    getline title[s] < (results "/" s "/title")
    getline line < (results "/" s "/variants")
    n = split(line, list, " ")
    for (i = 1; i <= n; i++) if ((s, list[i]) in rounds) variant_of[s, ++variants[s]] = list[i]
}

END {
    count = split(scenarios " " heaps, all, " ")
    for (i = 1; i <= count; i++) {
        read_scenario(all[i])
        for (j = 1; j <= variants[all[i]]; j++)
            for (r = 1; r <= rounds[all[i], variant_of[all[i], j]]; r++) derive(all[i], variant_of[all[i], j], r)
    }
    if (kind == "main" || kind == "brief") targets()
    if (kind == "pressure") pressure_targets()
    if (kind == "servers") server_table()
    print "## Results\n"
    count = split(scenarios, all, " ")
    for (i = 1; i <= count; i++) scenario_table(all[i])
    heap_table()
}
