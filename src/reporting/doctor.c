#include "doctor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "history.h"
#include "host/module_values.h"
#include "host/server.h"
#include "kernel/ability.h"
#include "kernel/fault_points.h"
#include "kernel/mark_probe.h"
#include "kernel/memory_room.h"
#include "kernel/merging.h"
#include "kernel/process.h"
#include "kernel/thread.h"
#include "kernel/userfaultfd.h"
#include "snapshot/callbacks.h"
#include "snapshot/settings.h"

#define TMPFS_MAGIC 0x01021994

typedef unsigned long long number;

/* Everything a check may look at, found out once. */
struct examination {
    const struct doctor_case *now;
    struct process_facts process;
    struct ability ability;
    struct doctor_finding *finding; /* the one that is being written */
};

const char *doctor_status_name(enum doctor_status status)
{
    static const char *const names[] = {"OK", "WARN", "FAIL"};
    return names[status];
}

__attribute__((format(printf, 3, 4))) static void
say(struct examination *on, enum doctor_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(on->finding->text, sizeof(on->finding->text), format, arguments);
    va_end(arguments);
    on->finding->status = status;
}

__attribute__((format(printf, 2, 3))) static void advise(struct examination *on,
                                                         const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(on->finding->remedy, sizeof(on->finding->remedy), format, arguments);
    va_end(arguments);
}

static number mb(uint64_t bytes)
{
    return (bytes + (1 << 20) - 1) >> 20;
}

/* ---- the server ------------------------------------------------------------------ */

static void check_server(struct examination *on)
{
    const struct doctor_case *now = on->now;
    if (!now->layout_reason[0]) {
        say(on, DOCTOR_OK, "%s %s, its layout is known and proved",
            now->host->server_name, now->host->server_version);
        return;
    }
    say(on, DOCTOR_FAIL, "%s", now->layout_reason);
    advise(on,
           "use a build of a server version that this module knows, or a module "
           "that knows this one, or give it a layout-file; until then saves use fork");
}

static void check_allocator(struct examination *on)
{
    if (!on->now->has_allocator) {
        say(on, DOCTOR_FAIL, "the server does not use jemalloc");
        advise(on, "use a build of the server with jemalloc (make MALLOC=jemalloc)");
    } else if (on->now->guard_reason[0]) {
        say(on, DOCTOR_FAIL, "jemalloc, but %.200s", on->now->guard_reason);
        advise(on,
               "use a build of the server whose calls go through its symbol table, as "
               "Debian's do (linked dynamically); until then saves use fork");
    } else if (on->now->supported && on->now->frees_reason[0]) {
        say(on, DOCTOR_WARN,
            "jemalloc, but its free() cannot be replaced: %s; values that are "
            "overwritten cost more faults, and large ones are not evicted",
            on->now->frees_reason);
        advise(
            on,
            "load the module by loadmodule in the server's configuration, before other "
            "modules; code may have to be changed then, once (systemd: "
            "MemoryDenyWriteExecute=no; SELinux: execmod); or use a server whose "
            "jemalloc is a library, as Debian's is");
    } else
        say(on, DOCTOR_OK, "jemalloc");
}

static bool get_setting(const struct examination *on, const char *name, char *value,
                        size_t size)
{
    const struct doctor_server *server = on->now->server;
    return server->setting(server->context, name, value, size);
}

static bool is_set(const struct examination *on, const char *name, const char *value)
{
    char found[64];
    return get_setting(on, name, found, sizeof(found)) && strcmp(found, value) == 0;
}

/* What becomes of a save that cannot be served. */
static const char *falls_back(const struct examination *on)
{
    return on->now->settings->fallback ? "falls back to fork"
                                       : "is refused (fallback no)";
}

/* Saves are not served at all: of their kinds there is nothing to say. */
static bool serves_none(struct examination *on)
{
    if (on->now->supported && on->now->settings->enabled)
        return false;
    say(on, DOCTOR_OK, "no save is served: see fallback");
    return true;
}

/* The rewrite that only a fork can do: known before it happens. */
static void check_rewrites(struct examination *on)
{
    if (serves_none(on))
        return;
    if (!is_set(on, "aof-use-rdb-preamble", "no"))
        say(on, DOCTOR_OK, "rewrites begin with an RDB (aof-use-rdb-preamble yes)");
    else if (!is_set(on, "appendonly", "yes"))
        say(on, DOCTOR_OK,
            "not in use; a BGREWRITEAOF by hand %s: it writes commands "
            "(aof-use-rdb-preamble no)",
            falls_back(on));
    else {
        say(on, DOCTOR_WARN,
            "every rewrite %s: its commands are written by a fork only "
            "(aof-use-rdb-preamble no)",
            falls_back(on));
        advise(on, "CONFIG SET aof-use-rdb-preamble yes");
    }
}

/* The setting by which replicas get their data straight to their sockets. */
static const char *direct_transfers(const struct examination *on)
{
    static const char *const names[] = {"repl-rdb-channel",
                                        "dual-channel-replication-enabled"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (is_set(on, names[i], "yes"))
            return names[i];
    return NULL;
}

static bool has_tls(const struct examination *on)
{
    char port[64];
    return get_setting(on, "tls-port", port, sizeof(port)) && strcmp(port, "0") != 0;
}

static void check_replication(struct examination *on)
{
    if (serves_none(on))
        return;
    const char *direct = direct_transfers(on);
    if (!direct)
        say(on, DOCTOR_OK, "replicas are served without fork, by file or through a pipe");
    else if (!has_tls(on))
        say(on, DOCTOR_OK,
            "replicas are served without fork, straight to their sockets (%s yes) if "
            "they are not more than 16 at once",
            direct);
    else {
        say(on, DOCTOR_WARN,
            "the sync of a replica that connects by TLS %s: only a fork writes straight "
            "to such a socket (%s yes)",
            falls_back(on), direct);
        advise(on, "CONFIG SET %s no: then they are served through a pipe, without fork",
               direct);
    }
}

static void check_cluster(struct examination *on)
{
    char unused[64];
    if (serves_none(on))
        return;
    if (!is_set(on, "cluster-enabled", "yes"))
        say(on, DOCTOR_OK, "not in cluster mode");
    else if (get_setting(on, "cluster-slot-migration-log-max-len", unused,
                         sizeof(unused)))
        say(on, DOCTOR_OK,
            "slots are saved, and imported, without fork; as the source of CLUSTER "
            "MIGRATESLOTS this node forks");
    else
        say(on, DOCTOR_OK, "slots are saved without fork");
}

static void say_of_every_save(struct examination *on, enum doctor_status status,
                              const char *why)
{
    say(on, status, "every save %s: %.160s", falls_back(on), why);
}

static void check_fallbacks(struct examination *on)
{
    const struct doctor_case *now = on->now;
    char reason[256];
    if (!now->settings->enabled) {
        say(on, DOCTOR_WARN,
            "the module is switched off (uffd.enabled no): every save "
            "is the server's own fork");
        advise(on, "CONFIG SET uffd.enabled yes");
    } else if (!now->supported) {
        say_of_every_save(on, DOCTOR_WARN, "it cannot be served here");
        advise(on, "see what is FAIL here");
    } else if (now->doubt[0]) {
        say_of_every_save(on, DOCTOR_FAIL, now->doubt);
        advise(on,
               "report it with the log; to try again, CONFIG SET uffd.enabled no, then "
               "yes");
    } else if (module_values_find(reason, sizeof(reason)) != 0) {
        say_of_every_save(on, DOCTOR_WARN, reason);
        advise(on, "unload that module if its types are not in use");
    } else if (now->fallbacks) {
        say(on, DOCTOR_WARN, "%llu saves %s, the last one because: %.160s",
            (number)now->fallbacks,
            now->settings->fallback ? "fell back to fork" : "were refused",
            now->last_fallback_reason);
        advise(on, "UFFD.HISTORY lists them; UFFD.RESETSTAT sets the count to 0");
    } else
        say(on, DOCTOR_OK, "no save needed fork; what cannot be served %s",
            falls_back(on));
}

/* ---- the kernel ------------------------------------------------------------------ */

/* Whether userfaultfd can be opened at all: the features are known only then. */
static bool can_open(const struct examination *on)
{
    return on->ability.features != 0;
}

static void check_kernel(struct examination *on)
{
    struct utsname name;
    uname(&name);
    if (!can_open(on)) {
        say(on, DOCTOR_WARN,
            "Linux %.64s: what userfaultfd can do here is not known, it "
            "cannot be opened",
            name.release);
        advise(on, "see privilege");
    } else if (on->ability.error) {
        say(on, DOCTOR_FAIL, "Linux %.64s: %.180s", name.release, on->ability.reason);
        advise(on, "run a kernel from 6.4 on with CONFIG_USERFAULTFD and "
                   "CONFIG_PTE_MARKER_UFFD_WP");
    } else if (mark_probe_split(&on->ability) == 0) {
        say(on, DOCTOR_WARN,
            "Linux %.64s forgets the protection of zeros when it splits a huge page, as "
            "it "
            "does when memory is short: a save to which that happens fails, and those "
            "after it fork",
            name.release);
        advise(on, "run a kernel with the fix: 6.12.54, 6.17.4, 6.18 or newer; or CONFIG "
                   "SET uffd.huge-pages no");
    } else
        say(on, DOCTOR_OK,
            "Linux %.64s: write protection, also of memory never touched%s", name.release,
            on->ability.reports_thread ? "; thread ids" : "");
}

static void check_dirty_tracking(struct examination *on)
{
    if (!can_open(on)) {
        say(on, DOCTOR_WARN, "not known: userfaultfd cannot be opened");
        advise(on, "see privilege");
    } else if (on->ability.tracks_asynchronously)
        say(on, DOCTOR_OK, "asynchronous write protection: UFFD.DIRTYRATE can measure");
    else {
        say(on, DOCTOR_WARN,
            "this kernel has no asynchronous write protection "
            "(UFFD_FEATURE_WP_ASYNC): UFFD.DIRTYRATE cannot measure");
        advise(on, "run a kernel from 6.7 on; saves do not need it");
    }
}

static const char *how_granted(const struct process_facts *process)
{
    if (process->may_trace)
        return "CAP_SYS_PTRACE";
    if (process->unprivileged == 1)
        return "vm.unprivileged_userfaultfd=1";
    return "/dev/userfaultfd";
}

/* The way that fits: the narrowest one that this kernel and this service have. */
static void advise_grant(struct examination *on)
{
    const struct process_facts *process = &on->process;
    switch (process->device) {
    case DEVICE_DENIED:
        advise(on,
               "chgrp %s /dev/userfaultfd && chmod 0660 /dev/userfaultfd, and for the "
               "next boot a udev rule: KERNEL==\"userfaultfd\", GROUP=\"%s\", "
               "MODE=\"0660\"; then restart the server",
               process->group_name, process->group_name);
        break;
    case DEVICE_HIDDEN:
    case DEVICE_BARRED:
        if (process->in_container)
            advise(on, "start the container with --device /dev/userfaultfd, and let the "
                       "server's user read and write it");
        else
            advise(on,
                   "the service is kept from it: a systemd drop-in with "
                   "PrivateDevices=no and DeviceAllow=/dev/userfaultfd rw, and the "
                   "device's group set to %s",
                   process->group_name);
        break;
    case DEVICE_UNKNOWN_TO_KERNEL:
    case DEVICE_OPENS:
        advise(on, "AmbientCapabilities=CAP_SYS_PTRACE in the server's systemd unit, or "
                   "for all users sysctl vm.unprivileged_userfaultfd=1");
        break;
    }
}

static void check_privilege(struct examination *on)
{
    const struct process_facts *process = &on->process;
    const char *user = process->user_name;
    if (can_open(on) && !on->now->supported && !on->ability.error &&
        !on->now->layout_reason[0] && on->now->has_allocator &&
        !on->now->guard_reason[0]) {
        say(on, DOCTOR_WARN,
            "granted to user %s by now, but not when the module was "
            "loaded",
            user);
        advise(on, "restart the server, or MODULE UNLOAD uffd and load it again");
    } else if (can_open(on))
        say(on, DOCTOR_OK, "user %s may use userfaultfd: %s", user, how_granted(process));
    else if (on->ability.error == -ENOSYS) {
        say(on, DOCTOR_FAIL, "this kernel, or a seccomp filter, has no userfaultfd");
        advise(on, "see seccomp; else a kernel with CONFIG_USERFAULTFD");
    } else {
        static const char *const devices[] = {
            [DEVICE_UNKNOWN_TO_KERNEL] = "this kernel has no /dev/userfaultfd",
            [DEVICE_HIDDEN] = "/dev/userfaultfd is hidden from it",
            [DEVICE_DENIED] = "/dev/userfaultfd is closed to it: ",
            [DEVICE_BARRED] = "/dev/userfaultfd is barred, whatever its mode: ",
            [DEVICE_OPENS] = "/dev/userfaultfd does not help: ",
        };
        say(on, DOCTOR_FAIL,
            "no permission for userfaultfd: user %s has no "
            "CAP_SYS_PTRACE, and %s%s",
            user, devices[process->device], process->device_mode);
        advise_grant(on);
    }
}

/* A filter cannot be read; what it does to the one call can be seen. */
static void check_seccomp(struct examination *on)
{
    const struct process_facts *process = &on->process;
    const char *where = process->in_container ? "the container's" : "the service's";
    bool privileged = process->may_trace || process->unprivileged == 1;
    if (process->seccomp <= 0)
        say(on, DOCTOR_OK, "no filter");
    else if (can_open(on) && !thread_may_place()) {
        say(on, DOCTOR_WARN,
            "%s seccomp filter lets userfaultfd pass, but not sched_setaffinity, "
            "sched_setscheduler, setpriority: faults are served more slowly",
            where);
        advise(on, "allow them in %s",
               process->in_container ? "the profile (--security-opt seccomp=…)"
                                     : "SystemCallFilter= of the unit (@resources)");
    } else if (can_open(on))
        say(on, DOCTOR_OK, "%s filter lets userfaultfd pass", where);
    else if (!privileged && on->ability.error != -ENOSYS) {
        say(on, DOCTOR_WARN,
            "not known whether %s filter lets userfaultfd pass: without the privilege it "
            "is refused in any case",
            where);
        advise(on, "see privilege; then ask again");
    } else {
        say(on, DOCTOR_FAIL, "%s seccomp filter refuses userfaultfd", where);
        advise(on, "allow the system call userfaultfd in %s",
               process->in_container ? "the profile (--security-opt seccomp=…)"
                                     : "SystemCallFilter= of the unit");
    }
}

static void check_huge_pages(struct examination *on)
{
    enum huge_page_mode mode = process_huge_page_mode();
    if (!on->now->settings->huge_pages) {
        say(on, DOCTOR_WARN,
            "switched off (huge-pages no): a freeze takes about ten times "
            "as long");
        advise(on, "CONFIG SET uffd.huge-pages yes");
    } else if (mode == HUGE_PAGES_NEVER || mode == HUGE_PAGES_UNKNOWN) {
        say(on, DOCTOR_WARN,
            "the kernel gives none (transparent_hugepage: %s): a freeze "
            "takes about ten times as long",
            mode == HUGE_PAGES_NEVER ? "never" : "not there");
        advise(on, "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled");
    } else if (process_refuses_huge_pages() > 0) {
        say(on, DOCTOR_WARN,
            "this process is kept from them (PR_SET_THP_DISABLE): a freeze takes about "
            "ten times as long");
        advise(on, "%s",
               on->now->supported && on->now->settings->enabled
                   ? "CONFIG SET uffd.huge-pages no, then yes: the module lifts that"
                   : "the module lifts that as soon as saves need no fork");
    } else
        say(on, DOCTOR_OK, "asked for by the module (transparent_hugepage: %s)",
            mode == HUGE_PAGES_ALWAYS ? "always" : "madvise");
}

static void check_merging(struct examination *on)
{
    enum merging merging = merging_find();
    if (merging == MERGING_NONE) {
        say(on, DOCTOR_OK, "off for this process%s",
            on->now->merging_lifted ? " (switched off by the module)" : "");
        return;
    }
    say(on, DOCTOR_WARN,
        "the kernel merges equal pages of %s, which then lose their protection: every "
        "save %s",
        merging == MERGING_PROCESS ? "this process" : "mappings of this process",
        falls_back(on));
    advise(on, "%s",
           merging == MERGING_PROCESS
               ? "MemoryKSM=no in the server's systemd unit, and restart it; or load the "
                 "module again, which switches it off as long as little is merged"
               : "unload the module that offers them (MADV_MERGEABLE); or, for the whole "
                 "machine, echo 2 > /sys/kernel/mm/ksm/run");
}

/* ---- room ------------------------------------------------------------------------ */

static void say_spool_is_fine(struct examination *on, const char *shown,
                              uint64_t free_bytes)
{
    char speed[80] = "";
    if (on->now->spooled_per_second)
        snprintf(speed, sizeof(speed), "; %llu MB/s in the last save that spooled",
                 mb(on->now->spooled_per_second * PAGE_BYTES));
    say(on, DOCTOR_OK, "%.120s has %llu MB free for a heap of %llu MB%s", shown,
        mb(free_bytes), mb(on->now->heap_bytes), speed);
}

static void check_spool(struct examination *on)
{
    const struct doctor_case *now = on->now;
    const char *directory = now->settings->spool_directory;
    const char *path = *directory ? directory : ".";
    const char *shown = *directory ? directory : "the server's directory";
    struct statvfs space;
    struct statfs kind;
    if (now->settings->buffer_policy != BUFFER_SPOOL) {
        say(on, DOCTOR_OK, "not in use with this buffer-policy");
        return;
    }
    if (access(path, W_OK | X_OK) != 0 || statvfs(path, &space) != 0) {
        say(on, DOCTOR_FAIL, "cannot create files in %.160s: every save %s", shown,
            falls_back(on));
        advise(on, "CONFIG SET uffd.spool-dir to a directory that user %s may write",
               on->process.user_name);
        return;
    }
    uint64_t free_bytes = (uint64_t)space.f_bavail * space.f_frsize;
    bool in_memory = statfs(path, &kind) == 0 && kind.f_type == TMPFS_MAGIC;
    if (in_memory) {
        say(on, DOCTOR_WARN,
            "%.120s is memory (tmpfs): what is spooled there is not saved "
            "memory",
            shown);
        advise(on, "CONFIG SET uffd.spool-dir to a directory on a disk");
    } else if (free_bytes < now->heap_bytes) {
        say(on, DOCTOR_WARN,
            "%.120s has %llu MB free; a save may need up to %llu MB if "
            "all of the heap is rewritten meanwhile",
            shown, mb(free_bytes), mb(now->heap_bytes));
        advise(on, "make room there, set uffd.spool-dir, or raise uffd.buffer-limit");
    } else if (now->spooled_per_second &&
               now->spooled_per_second < now->written_per_second) {
        say(on, DOCTOR_WARN,
            "%.120s took %llu pages a second in the last save that spooled, and "
            "UFFD.DIRTYRATE saw %llu written: writers wait at the limit",
            shown, (unsigned long long)now->spooled_per_second,
            (unsigned long long)now->written_per_second);
        advise(on, "raise uffd.buffer-limit, or set uffd.spool-dir to a faster disk");
    } else
        say_spool_is_fine(on, shown, free_bytes);
}

static void check_buffer(struct examination *on)
{
    const struct doctor_case *now = on->now;
    if (now->limit < now->least_limit) {
        say(on, DOCTOR_FAIL,
            "%llu MB are too few for the index of a heap of %llu MB: every save %s",
            mb(now->limit), mb(now->heap_bytes), falls_back(on));
        advise(on, "CONFIG SET uffd.buffer-limit %llumb or more",
               2 * mb(now->least_limit));
    } else if (now->predicted_bytes > now->limit) {
        say(on, DOCTOR_WARN,
            "%llu MB, but by the last UFFD.DIRTYRATE a save needs %llu MB",
            mb(now->limit), mb(now->predicted_bytes));
        advise(on, "CONFIG SET uffd.buffer-limit %llumb",
               mb(now->predicted_bytes + now->predicted_bytes / 4));
    } else if (now->last && now->last->writer_waits) {
        say(on, DOCTOR_WARN, "%llu MB: writers waited %llu times in the last save",
            mb(now->limit), (number)now->last->writer_waits);
        advise(on, "raise uffd.buffer-limit; UFFD.DIRTYRATE says how far");
    } else
        say(on, DOCTOR_OK, "%llu MB for a heap of %llu MB%s", mb(now->limit),
            mb(now->heap_bytes),
            now->predicted_bytes ? "; enough by the last UFFD.DIRTYRATE" : "");
}

/* What the buffer and the server's new values may take before the group's limit. */
static void check_container(struct examination *on)
{
    struct memory_room room = {0};
    memory_room_find("", UINT64_MAX / 2, &room);
    if (!room.limit) {
        say(on, DOCTOR_OK, "no control group limits memory");
        return;
    }
    const char *what = room.high ? "memory.high" : "the memory limit";
    uint64_t reserve = memory_room_reserve(room.limit);
    uint64_t usable = room.left > reserve ? room.left - reserve : 0;
    if (usable >= on->now->limit) {
        say(on, DOCTOR_OK, "%llu MB are left of %s of %llu MB", mb(room.left), what,
            mb(room.limit));
        return;
    }
    say(on, DOCTOR_WARN,
        "%llu MB are left of %s of %llu MB: a save keeps %llu MB in memory instead of "
        "buffer-limit's %llu, and spools the rest",
        mb(room.left), what, mb(room.limit), mb(usable), mb(on->now->limit));
    advise(on,
           "raise it to %llu MB or more, lower maxmemory, or CONFIG SET "
           "uffd.buffer-limit to what may be taken",
           mb(room.used + reserve + on->now->limit));
}

/* ---- all of them ----------------------------------------------------------------- */

static const struct {
    const char *name;
    void (*check)(struct examination *on);
} checks[] = {
    /* What others follow from comes first. */
    {"server", check_server},         {"allocator", check_allocator},
    {"privilege", check_privilege},   {"seccomp", check_seccomp},
    {"kernel", check_kernel},         {"dirty-tracking", check_dirty_tracking},
    {"huge-pages", check_huge_pages}, {"buffer-limit", check_buffer},
    {"page-merging", check_merging},  {"spool-dir", check_spool},
    {"append-only", check_rewrites},  {"replication", check_replication},
    {"cluster", check_cluster},       {"fallback", check_fallbacks},
    {"container", check_container},
};
#define CHECKS (sizeof(checks) / sizeof(checks[0]))
_Static_assert(CHECKS <= DOCTOR_FINDINGS, "more findings than there is room for");

size_t doctor_examine(const struct doctor_case *now,
                      struct doctor_finding findings[DOCTOR_FINDINGS])
{
    struct examination on = {.now = now};
    process_get_facts(&on.process);
    ability_probe(&on.ability);
    if (fault_point(FAULT_NO_USERFAULTFD)) {
        memset(&on.ability, 0, sizeof(on.ability));
        on.ability.error = -EPERM;
        on.process.may_trace = false;
        on.process.device = DEVICE_DENIED;
    }
    for (size_t i = 0; i < CHECKS; i++) {
        memset(&findings[i], 0, sizeof(findings[i]));
        findings[i].name = checks[i].name;
        on.finding = &findings[i];
        checks[i].check(&on);
    }
    return CHECKS;
}
