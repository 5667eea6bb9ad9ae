#include "doctor_checks.h"

#include <stdio.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "history.h"
#include "kernel/memory_room.h"
#include "snapshot/settings.h"

#define TMPFS_MAGIC 0x01021994

static unsigned long long mb(uint64_t bytes)
{
    return (bytes + (1 << 20) - 1) >> 20;
}

static void say_spool_is_fine(struct examination *on, const char *shown,
                              uint64_t free_bytes)
{
    char speed[80] = "";
    if (on->now->spooled_per_second)
        snprintf(speed, sizeof(speed), "; %llu MB/s in the last save that spooled",
                 mb(on->now->spooled_per_second * PAGE_BYTES));
    doctor_say(on, DOCTOR_OK, "%.120s has %llu MB free for a heap of %llu MB%s", shown,
               mb(free_bytes), mb(on->now->heap_bytes), speed);
}

void doctor_check_spool(struct examination *on)
{
    const struct doctor_case *now = on->now;
    const char *directory = now->settings->spool_directory;
    const char *path = *directory ? directory : ".";
    const char *shown = *directory ? directory : "the server's directory";
    struct statvfs space;
    struct statfs kind;
    if (now->settings->buffer_policy != BUFFER_SPOOL) {
        doctor_say(on, DOCTOR_OK, "not in use with this buffer-policy");
        return;
    }
    if (access(path, W_OK | X_OK) != 0 || statvfs(path, &space) != 0) {
        doctor_say(on, DOCTOR_FAIL, "cannot create files in %.160s: every save %s", shown,
                   doctor_falls_back(on));
        doctor_advise(on,
                      "CONFIG SET uffd.spool-dir to a directory that user %s may write",
                      on->process.user_name);
        return;
    }
    uint64_t free_bytes = (uint64_t)space.f_bavail * space.f_frsize;
    bool in_memory = statfs(path, &kind) == 0 && kind.f_type == TMPFS_MAGIC;
    if (in_memory) {
        doctor_say(on, DOCTOR_WARN,
                   "%.120s is memory (tmpfs): what is spooled there is not saved "
                   "memory",
                   shown);
        doctor_advise(on, "CONFIG SET uffd.spool-dir to a directory on a disk");
    } else if (free_bytes < now->heap_bytes) {
        doctor_say(on, DOCTOR_WARN,
                   "%.120s has %llu MB free; a save may need up to %llu MB if "
                   "all of the heap is rewritten meanwhile",
                   shown, mb(free_bytes), mb(now->heap_bytes));
        doctor_advise(on,
                      "make room there, set uffd.spool-dir, or raise uffd.buffer-limit");
    } else if (now->spooled_per_second &&
               now->spooled_per_second < now->written_per_second) {
        doctor_say(on, DOCTOR_WARN,
                   "%.120s took %llu pages a second in the last save that spooled, and "
                   "UFFD.DIRTYRATE saw %llu written: writers wait at the limit",
                   shown, (unsigned long long)now->spooled_per_second,
                   (unsigned long long)now->written_per_second);
        doctor_advise(on,
                      "raise uffd.buffer-limit, or set uffd.spool-dir to a faster disk");
    } else
        say_spool_is_fine(on, shown, free_bytes);
}

void doctor_check_buffer(struct examination *on)
{
    const struct doctor_case *now = on->now;
    if (now->limit < now->least_limit) {
        doctor_say(
            on, DOCTOR_FAIL,
            "%llu MB are too few for the index of a heap of %llu MB: every save %s",
            mb(now->limit), mb(now->heap_bytes), doctor_falls_back(on));
        doctor_advise(on, "CONFIG SET uffd.buffer-limit %llumb or more",
                      2 * mb(now->least_limit));
    } else if (now->predicted_bytes > now->limit) {
        doctor_say(on, DOCTOR_WARN,
                   "%llu MB, but by the last UFFD.DIRTYRATE a save needs %llu MB",
                   mb(now->limit), mb(now->predicted_bytes));
        doctor_advise(on, "CONFIG SET uffd.buffer-limit %llumb",
                      mb(now->predicted_bytes + now->predicted_bytes / 4));
    } else if (now->last && now->last->writer_waits) {
        doctor_say(on, DOCTOR_WARN, "%llu MB: writers waited %llu times in the last save",
                   mb(now->limit), (unsigned long long)now->last->writer_waits);
        doctor_advise(on, "raise uffd.buffer-limit; UFFD.DIRTYRATE says how far");
    } else
        doctor_say(on, DOCTOR_OK, "%llu MB for a heap of %llu MB%s", mb(now->limit),
                   mb(now->heap_bytes),
                   now->predicted_bytes ? "; enough by the last UFFD.DIRTYRATE" : "");
}

/* What the buffer and the server's new values may take before the group's limit. */
void doctor_check_container(struct examination *on)
{
    struct memory_room room = {0};
    memory_room_find("", UINT64_MAX / 2, &room);
    if (!room.limit) {
        doctor_say(on, DOCTOR_OK, "no control group limits memory");
        return;
    }
    const char *what = room.high ? "memory.high" : "the memory limit";
    uint64_t reserve = memory_room_reserve(room.limit);
    uint64_t usable = room.left > reserve ? room.left - reserve : 0;
    if (usable >= on->now->limit) {
        doctor_say(on, DOCTOR_OK, "%llu MB are left of %s of %llu MB", mb(room.left),
                   what, mb(room.limit));
        return;
    }
    doctor_say(
        on, DOCTOR_WARN,
        "%llu MB are left of %s of %llu MB: a save keeps %llu MB in memory instead of "
        "buffer-limit's %llu, and spools the rest",
        mb(room.left), what, mb(room.limit), mb(usable), mb(on->now->limit));
    doctor_advise(on,
                  "raise it to %llu MB or more, lower maxmemory, or CONFIG SET "
                  "uffd.buffer-limit to what may be taken",
                  mb(room.used + reserve + on->now->limit));
}
