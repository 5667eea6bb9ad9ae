#include "doctor_checks.h"

#include <errno.h>
#include <sys/utsname.h>

#include "kernel/mark_probe.h"
#include "kernel/merging.h"
#include "kernel/thread.h"
#include "memory/pages.h"
#include "snapshot/settings.h"

/* Whether userfaultfd can be opened at all: the features are known only then. */
static bool can_open(const struct examination *on)
{
    return on->ability.features != 0;
}

void doctor_check_kernel(struct examination *on)
{
    struct utsname name;
    uname(&name);
    if (on->ability.page_bytes != PAGE_BYTES) {
        doctor_say(on, DOCTOR_FAIL, "Linux %.64s on %.32s has pages of %ld bytes",
                   name.release, name.machine, on->ability.page_bytes);
        doctor_advise(on, "run a kernel with pages of 4096 bytes (CONFIG_ARM64_4K_PAGES; "
                          "some systems for arm64 have one as another package)");
    } else if (!can_open(on)) {
        doctor_say(on, DOCTOR_WARN,
                   "Linux %.64s: what userfaultfd can do here is not known, it "
                   "cannot be opened",
                   name.release);
        doctor_advise(on, "see privilege");
    } else if (on->ability.error) {
        doctor_say(on, DOCTOR_FAIL, "Linux %.64s: %.180s", name.release,
                   on->ability.reason);
        doctor_advise(on, "run a kernel from 6.4 on with CONFIG_USERFAULTFD and "
                          "CONFIG_PTE_MARKER_UFFD_WP");
    } else if (mark_probe_split(&on->ability) == 0) {
        doctor_say(
            on, DOCTOR_WARN,
            "Linux %.64s forgets the protection of zeros when it splits a huge page, as "
            "it "
            "does when memory is short: a save to which that happens fails, and those "
            "after it fork",
            name.release);
        doctor_advise(
            on, "run a kernel with the fix: 6.12.54, 6.17.4, 6.18 or newer; or CONFIG "
                "SET uffd.huge-pages no");
    } else
        doctor_say(on, DOCTOR_OK,
                   "Linux %.64s: write protection, also of memory never touched%s",
                   name.release, on->ability.reports_thread ? "; thread ids" : "");
}

void doctor_check_dirty_tracking(struct examination *on)
{
    if (!can_open(on)) {
        doctor_say(on, DOCTOR_WARN, "not known: userfaultfd cannot be opened");
        doctor_advise(on, "see privilege");
    } else if (on->ability.tracks_asynchronously)
        doctor_say(on, DOCTOR_OK,
                   "asynchronous write protection: UFFD.DIRTYRATE can measure");
    else {
        doctor_say(on, DOCTOR_WARN,
                   "this kernel has no asynchronous write protection "
                   "(UFFD_FEATURE_WP_ASYNC): UFFD.DIRTYRATE cannot measure");
        doctor_advise(on, "run a kernel from 6.7 on; saves do not need it");
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
        doctor_advise(
            on,
            "chgrp %s /dev/userfaultfd && chmod 0660 /dev/userfaultfd, and for the "
            "next boot a udev rule: KERNEL==\"userfaultfd\", GROUP=\"%s\", "
            "MODE=\"0660\"; then restart the server",
            process->group_name, process->group_name);
        break;
    case DEVICE_HIDDEN:
    case DEVICE_BARRED:
        if (process->in_container)
            doctor_advise(
                on, "start the container with --device /dev/userfaultfd, and let the "
                    "server's user read and write it");
        else
            doctor_advise(
                on,
                "the service is kept from it: a systemd drop-in with "
                "PrivateDevices=no and DeviceAllow=/dev/userfaultfd rw, and the "
                "device's group set to %s",
                process->group_name);
        break;
    case DEVICE_UNKNOWN_TO_KERNEL:
    case DEVICE_OPENS:
        doctor_advise(
            on, "AmbientCapabilities=CAP_SYS_PTRACE in the server's systemd unit, or "
                "for all users sysctl vm.unprivileged_userfaultfd=1");
        break;
    }
}

void doctor_check_privilege(struct examination *on)
{
    const struct process_facts *process = &on->process;
    const char *user = process->user_name;
    if (can_open(on) && !on->now->supported && !on->ability.error &&
        !on->now->layout_reason[0] && on->now->has_allocator &&
        !on->now->guard_reason[0]) {
        doctor_say(on, DOCTOR_WARN,
                   "granted to user %s by now, but not when the module was "
                   "loaded",
                   user);
        doctor_advise(on, "restart the server, or MODULE UNLOAD uffd and load it again");
    } else if (can_open(on))
        doctor_say(on, DOCTOR_OK, "user %s may use userfaultfd: %s", user,
                   how_granted(process));
    else if (on->ability.error == -ENOSYS) {
        doctor_say(on, DOCTOR_FAIL,
                   "this kernel, or a seccomp filter, has no userfaultfd");
        doctor_advise(on, "see seccomp; else a kernel with CONFIG_USERFAULTFD");
    } else {
        static const char *const devices[] = {
            [DEVICE_UNKNOWN_TO_KERNEL] = "this kernel has no /dev/userfaultfd",
            [DEVICE_HIDDEN] = "/dev/userfaultfd is hidden from it",
            [DEVICE_DENIED] = "/dev/userfaultfd is closed to it: ",
            [DEVICE_BARRED] = "/dev/userfaultfd is barred, whatever its mode: ",
            [DEVICE_OPENS] = "/dev/userfaultfd does not help: ",
        };
        doctor_say(on, DOCTOR_FAIL,
                   "no permission for userfaultfd: user %s has no "
                   "CAP_SYS_PTRACE, and %s%s",
                   user, devices[process->device], process->device_mode);
        advise_grant(on);
    }
}

/* A filter cannot be read; what it does to the one call can be seen. */
void doctor_check_seccomp(struct examination *on)
{
    const struct process_facts *process = &on->process;
    const char *where = process->in_container ? "the container's" : "the service's";
    bool privileged = process->may_trace || process->unprivileged == 1;
    if (process->seccomp <= 0)
        doctor_say(on, DOCTOR_OK, "no filter");
    else if (can_open(on) && !thread_may_place()) {
        doctor_say(on, DOCTOR_WARN,
                   "%s seccomp filter lets userfaultfd pass, but not sched_setaffinity, "
                   "sched_setscheduler, setpriority: faults are served more slowly",
                   where);
        doctor_advise(on, "allow them in %s",
                      process->in_container
                          ? "the profile (--security-opt seccomp=…)"
                          : "SystemCallFilter= of the unit (@resources)");
    } else if (can_open(on))
        doctor_say(on, DOCTOR_OK, "%s filter lets userfaultfd pass", where);
    else if (!privileged && on->ability.error != -ENOSYS) {
        doctor_say(
            on, DOCTOR_WARN,
            "not known whether %s filter lets userfaultfd pass: without the privilege it "
            "is refused in any case",
            where);
        doctor_advise(on, "see privilege; then ask again");
    } else {
        doctor_say(on, DOCTOR_FAIL, "%s seccomp filter refuses userfaultfd", where);
        doctor_advise(on, "allow the system call userfaultfd in %s",
                      process->in_container ? "the profile (--security-opt seccomp=…)"
                                            : "SystemCallFilter= of the unit");
    }
}

void doctor_check_huge_pages(struct examination *on)
{
    enum huge_page_mode mode = process_huge_page_mode();
    if (!on->now->settings->huge_pages) {
        doctor_say(on, DOCTOR_WARN,
                   "switched off (huge-pages no): a freeze takes about ten times "
                   "as long");
        doctor_advise(on, "CONFIG SET uffd.huge-pages yes");
    } else if (mode == HUGE_PAGES_NEVER || mode == HUGE_PAGES_UNKNOWN) {
        doctor_say(on, DOCTOR_WARN,
                   "the kernel gives none (transparent_hugepage: %s): a freeze "
                   "takes about ten times as long",
                   mode == HUGE_PAGES_NEVER ? "never" : "not there");
        doctor_advise(on, "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled");
    } else if (process_refuses_huge_pages() > 0) {
        doctor_say(
            on, DOCTOR_WARN,
            "this process is kept from them (PR_SET_THP_DISABLE): a freeze takes about "
            "ten times as long");
        doctor_advise(
            on, "%s",
            on->now->supported && on->now->settings->enabled
                ? "CONFIG SET uffd.huge-pages no, then yes: the module lifts that"
                : "the module lifts that as soon as saves need no fork");
    } else
        doctor_say(on, DOCTOR_OK, "asked for by the module (transparent_hugepage: %s)%s",
                   mode == HUGE_PAGES_ALWAYS ? "always" : "madvise",
                   on->now->reads_are_slow
                       ? "; what saves find written is split, this machine being slow to "
                         "read parts of huge pages"
                       : "");
}

void doctor_check_merging(struct examination *on)
{
    enum merging merging = merging_find();
    if (merging == MERGING_NONE) {
        doctor_say(on, DOCTOR_OK, "off for this process%s",
                   on->now->merging_lifted ? " (switched off by the module)" : "");
        return;
    }
    doctor_say(
        on, DOCTOR_WARN,
        "the kernel merges equal pages of %s, which then lose their protection: every "
        "save %s",
        merging == MERGING_PROCESS ? "this process" : "mappings of this process",
        doctor_falls_back(on));
    doctor_advise(
        on, "%s",
        merging == MERGING_PROCESS
            ? "MemoryKSM=no in the server's systemd unit, and restart it; or load the "
              "module again, which switches it off as long as little is merged"
            : "unload the module that offers them (MADV_MERGEABLE); or, for the whole "
              "machine, echo 2 > /sys/kernel/mm/ksm/run");
}
