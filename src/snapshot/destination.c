#include "destination.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/cached_lookup.h"
#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "rdb/lz4_frame.h"
#include "rdb/output.h"

/* So many names are tried: at random, so that only a mistake of ours takes as many. */
#define NAMES_TRIED      16
#define READER_LOOK_USEC 10000

static int refuse(struct snapshot *snapshot, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int refuse(struct snapshot *snapshot, int error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(snapshot->backup_refusal, sizeof(snapshot->backup_refusal), format,
              arguments);
    va_end(arguments);
    return error;
}

/* "": the server's own. */
static int open_directory(struct snapshot *snapshot)
{
    const char *path = snapshot->settings.backup_directory;
    return openat(snapshot->capture.directory, *path ? path : ".",
                  O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Without asking a disk. */
static bool are_same(int first, int second)
{
    struct statx one, other;
    return cached_look_at(first, &one) != 0 || cached_look_at(second, &other) != 0 ||
           (one.stx_ino == other.stx_ino && one.stx_dev_major == other.stx_dev_major &&
            one.stx_dev_minor == other.stx_dev_minor);
}

static bool is_servers_dump(struct snapshot *snapshot, int directory)
{
    return strcmp(snapshot->backup.name, snapshot->capture.file_name) == 0 &&
           are_same(snapshot->capture.directory, directory);
}

/* What it replaces shall be an older one, not the configuration of a server. */
static bool looks_like_dump(int directory, const char *name)
{
    static const char *const beginnings[] = {"REDIS", "VALKEY"};
    char found[LZ4_FRAME_HEAD_BYTES] = "";
    int file = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    ssize_t got = file < 0 ? -1 : read(file, found, sizeof(found));
    if (file >= 0)
        close(file);
    if (got != sizeof(found))
        return false;
    for (size_t i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++)
        if (strncmp(found, beginnings[i], strlen(beginnings[i])) == 0)
            return true;
    return memcmp(found, lz4_frame_head, sizeof(found)) == 0;
}

/* ---- a fifo ---------------------------------------------------------------------- */

static bool save_is_over(struct snapshot *snapshot)
{
    return snapshot_phase(snapshot) != PHASE_SAVING ||
           atomic_load_explicit(&snapshot->view.error, memory_order_acquire) != 0;
}

/* Opening it fails as long as nobody reads it. */
static int open_fifo(struct snapshot *snapshot, int directory)
{
    unsigned msec = fault_point(FAULT_NO_PATIENCE) ? 100 : BACKUP_READER_COMES_MSEC;
    uint64_t end = clock_usec() + (uint64_t)msec * 1000;
    int fifo, error;
    do {
        fifo = openat(directory, snapshot->backup.name,
                      O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
        error = fifo < 0 ? errno : 0;
        if (error == ENXIO)
            sleep_usec(READER_LOOK_USEC);
    } while (error == ENXIO && !save_is_over(snapshot) && clock_usec() < end);
    if (error && save_is_over(snapshot))
        return -ECANCELED;
    if (error == ENXIO)
        return refuse(snapshot, -ENXIO, "nobody has opened the fifo to read it");
    if (error)
        return refuse(snapshot, -error, "%s, opening the fifo", strerrordesc_np(error));
    return fifo;
}

static int lead_to_fifo(struct snapshot *snapshot, int directory)
{
    struct stat found;
    int fifo = open_fifo(snapshot, directory);
    if (fifo < 0)
        return fifo;
    if (fstat(fifo, &found) != 0 || !S_ISFIFO(found.st_mode)) {
        close(fifo);
        return refuse(snapshot, -ESTALE, "the fifo is something else by now");
    }
    rdb_output_lead_to_fifo(snapshot->output, fifo);
    return 0;
}

/* ---- a file ---------------------------------------------------------------------- */

int destination_create_file(struct snapshot *snapshot, int number,
                            void (*name_of)(int number, char name[CHILD_FILE_BYTES]),
                            char name[CHILD_FILE_BYTES])
{
    int error = -EEXIST;
    for (int tries = 0; error == -EEXIST && tries < NAMES_TRIED; tries++) {
        if (tries)
            number = child_files_number();
        name_of(number, name);
        error = rdb_output_create_file(snapshot->output, name);
    }
    return error ? error : number;
}

static void name_backup(int number, char name[CHILD_FILE_BYTES])
{
    snprintf(name, CHILD_FILE_BYTES, "temp-backup-%d.rdb", number);
}

static int lead_to_file(struct snapshot *snapshot, int directory)
{
    char name[CHILD_FILE_BYTES];
    int copy = fcntl(directory, F_DUPFD_CLOEXEC, 3);
    if (copy < 0)
        return -errno;
    rdb_output_lead_to_directory(snapshot->output, copy, snapshot->backup.name);
    int number = child_files_number();
    name_backup(number, name);
    if (rdb_output_create_nameless(snapshot->output, name) == 0)
        return 0;
    number = destination_create_file(snapshot, number, name_backup, name);
    return number < 0 ? number : 0;
}

/* What has this name: its mode, 0 for nothing. */
static int judge(struct snapshot *snapshot, int directory, mode_t mode)
{
    if (mode && !S_ISREG(mode) && !S_ISFIFO(mode))
        return refuse(snapshot, -EEXIST,
                      "what has this name is neither a file nor a fifo");
    if (S_ISFIFO(mode))
        return 0;
    if (is_servers_dump(snapshot, directory))
        return refuse(snapshot, -EEXIST, "that is the server's own dump");
    if (mode && !snapshot->backup.replace)
        return refuse(snapshot, -EEXIST, "there is a file of this name: REPLACE?");
    return 0;
}

static int refuse_directory(struct snapshot *snapshot, int error)
{
    return refuse(snapshot, error, "%s, opening the directory backup-dir",
                  strerrordesc_np(-error));
}

/* The mode of what has the name, as far as that is known: 0 for nothing; or -EAGAIN. */
static int known_mode(int directory, const char *name)
{
    struct statx what;
    int found = cached_lookup(directory, name, 0);
    if (found < 0)
        return found == -ENOENT ? 0 : -EAGAIN;
    int error = cached_look_at(found, &what);
    close(found);
    return error ? -EAGAIN : what.stx_mode;
}

int destination_foresee(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    const char *path = snapshot->settings.backup_directory;
    int directory =
        cached_lookup(snapshot->capture.directory, *path ? path : ".", O_DIRECTORY);
    if (directory == -ENOENT || directory == -ENOTDIR || directory == -EACCES)
        return refuse_directory(snapshot, directory);
    if (directory < 0)
        return 0;
    int mode = known_mode(directory, snapshot->backup.name);
    int error = mode < 0 ? 0 : judge(snapshot, directory, (mode_t)mode);
    close(directory);
    return error;
}

static int open_in(struct snapshot *snapshot, int directory, bool *is_file)
{
    struct stat found;
    bool there =
        fstatat(directory, snapshot->backup.name, &found, AT_SYMLINK_NOFOLLOW) == 0;
    if (!there && errno != ENOENT)
        return refuse(snapshot, -errno, "%s, looking for a file of this name",
                      strerrordesc_np(errno));
    int error = judge(snapshot, directory, there ? found.st_mode : 0);
    if (error)
        return error;
    *is_file = !there || S_ISREG(found.st_mode);
    if (!*is_file)
        return lead_to_fifo(snapshot, directory);
    if (there && !looks_like_dump(directory, snapshot->backup.name))
        return refuse(snapshot, -EEXIST, "the file of this name is no dump");
    return lead_to_file(snapshot, directory);
}

int destination_open(struct snapshot *snapshot, bool *is_file)
{
    DEMAND_THREAD(THREAD_SAVER);
    int directory = open_directory(snapshot);
    if (directory < 0)
        return refuse_directory(snapshot, -errno);
    int error = open_in(snapshot, directory, is_file);
    close(directory);
    return error;
}
