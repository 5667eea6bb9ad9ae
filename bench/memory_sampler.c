#include "memory_sampler.h"

#include "common.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PERIOD_MSEC = 50, MAX_SAMPLES = 60 * 60 * 20 };

struct memory_sample { /* all in KB */
    uint64_t at;
    long server_anonymous, server_shared, child_anonymous, machine;
};

struct memory_sampler {
    pid_t server;
    pthread_t thread;
    atomic_bool stop, want_pss;
    int statm_fd, children_fd, meminfo_fd;
    long
        file_pages; /* shared pages of the server that are files (its program and libraries), taken at the start */
    long pss;       /* KB, 0 when never asked for */
    struct memory_sample *samples;
    size_t count;
};

static int open_of(pid_t pid, const char *file)
{
    char path[96];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    return open(path, O_RDONLY | O_CLOEXEC);
}

/* Reads a /proc file from its beginning; the text is empty when it is gone. */
static void read_text(int fd, char *text, size_t size)
{
    ssize_t length = fd < 0 ? 0 : pread(fd, text, size - 1, 0);
    text[length > 0 ? length : 0] = '\0';
}

static long field_kb(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    return at ? strtol(at + strlen(name), NULL, 10) : 0;
}

static void read_statm(int fd, long *anonymous, long *shared)
{
    char text[128];
    long size, resident = 0, of_files_and_shmem = 0;
    read_text(fd, text, sizeof text);
    if (sscanf(text, "%ld %ld %ld", &size, &resident, &of_files_and_shmem) != 3)
        resident = of_files_and_shmem = 0;
    long page_kb = sysconf(_SC_PAGESIZE) / 1024;
    *anonymous = (resident - of_files_and_shmem) * page_kb;
    *shared = of_files_and_shmem * page_kb;
}

static pid_t child_of(const struct memory_sampler *sampler)
{
    char text[64];
    read_text(sampler->children_fd, text, sizeof text);
    return (pid_t)strtol(text, NULL, 10);
}

static void take_sample(struct memory_sampler *sampler)
{
    struct memory_sample *sample = &sampler->samples[sampler->count];
    char text[4096];
    long ignored;
    sample->at = clock_nsec();
    read_statm(sampler->statm_fd, &sample->server_anonymous, &sample->server_shared);
    pid_t child = child_of(sampler);
    sample->child_anonymous = 0;
    if (child > 0) {
        int fd = open_of(child, "statm");
        read_statm(fd, &sample->child_anonymous, &ignored);
        if (fd >= 0)
            close(fd);
    }
    read_text(sampler->meminfo_fd, text, sizeof text);
    sample->machine = field_kb(text, "AnonPages:") + field_kb(text, "Shmem:") +
                      field_kb(text, "PageTables:");
    sampler->count++;
}

static long pss_of(pid_t pid)
{
    char text[4096];
    int fd = open_of(pid, "smaps_rollup");
    read_text(fd, text, sizeof text);
    if (fd >= 0)
        close(fd);
    return field_kb(text, "\nPss:");
}

static void *run(void *argument)
{
    struct memory_sampler *sampler = argument;
    while (!atomic_load_explicit(&sampler->stop, memory_order_acquire) &&
           sampler->count < MAX_SAMPLES) {
        take_sample(sampler);
        if (atomic_exchange_explicit(&sampler->want_pss, false, memory_order_relaxed)) {
            pid_t child = child_of(sampler);
            sampler->pss = pss_of(sampler->server) + (child > 0 ? pss_of(child) : 0);
        }
        usleep(PERIOD_MSEC * 1000);
    }
    return NULL;
}

struct memory_sampler *memory_sampler_start(pid_t server)
{
    struct memory_sampler *sampler = calloc(1, sizeof *sampler);
    char children[64], status[4096];
    if (!sampler || !(sampler->samples = calloc(MAX_SAMPLES, sizeof *sampler->samples)))
        die("out of memory");
    sampler->server = server;
    snprintf(children, sizeof children, "task/%d/children", (int)server);
    sampler->statm_fd = open_of(server, "statm");
    sampler->children_fd = open_of(server, children);
    sampler->meminfo_fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    if (sampler->statm_fd < 0 || sampler->meminfo_fd < 0)
        die("no process %d to look at", (int)server);
    int fd = open_of(server, "status");
    read_text(fd, status, sizeof status);
    close(fd);
    sampler->file_pages = field_kb(status, "RssFile:");
    if (pthread_create(&sampler->thread, NULL, run, sampler) != 0)
        die("cannot start a thread");
    return sampler;
}

void memory_sampler_want_pss(struct memory_sampler *sampler)
{
    atomic_store_explicit(&sampler->want_pss, true, memory_order_relaxed);
}

void memory_sampler_stop(struct memory_sampler *sampler)
{
    atomic_store_explicit(&sampler->stop, true, memory_order_release);
    pthread_join(sampler->thread, NULL);
}

static long shmem_of(const struct memory_sampler *sampler,
                     const struct memory_sample *sample)
{
    return sample->server_shared - sampler->file_pages;
}

int memory_sampler_write(const struct memory_sampler *sampler, const char *path,
                         uint64_t zero)
{
    FILE *file = fopen(path, "w");
    if (!file)
        return -errno;
    fprintf(file, "msec,server_anon_kb,server_shmem_kb,child_anon_kb,machine_kb\n");
    for (size_t i = 0; i < sampler->count; i++) {
        const struct memory_sample *sample = &sampler->samples[i];
        fprintf(file, "%.1f,%ld,%ld,%ld,%ld\n",
                ((double)sample->at - (double)zero) / (double)NSEC_PER_MSEC,
                sample->server_anonymous, shmem_of(sampler, sample),
                sample->child_anonymous, sample->machine);
    }
    return fclose(file) == 0 ? 0 : -errno;
}

void memory_sampler_print(const struct memory_sampler *sampler, uint64_t start,
                          uint64_t end, FILE *out)
{
    const struct memory_sample *base = &sampler->samples[0];
    long machine = 0, shmem = 0, resident = 0;
    for (size_t i = 0; i < sampler->count; i++) {
        const struct memory_sample *sample = &sampler->samples[i];
        if (sample->at < start)
            base = sample;
        if (sample->at < start || sample->at > end)
            continue;
        if (sample->machine > machine)
            machine = sample->machine;
        if (shmem_of(sampler, sample) > shmem)
            shmem = shmem_of(sampler, sample);
        long own = sample->server_anonymous + shmem_of(sampler, sample);
        if (own > resident)
            resident = own;
    }
    fprintf(out, "memory.server_before_kb %ld\n",
            base->server_anonymous + shmem_of(sampler, base));
    fprintf(out, "memory.server_shmem_before_kb %ld\n", shmem_of(sampler, base));
    fprintf(out, "memory.server_peak_kb %ld\n", resident);
    fprintf(out, "memory.server_shmem_peak_kb %ld\n", shmem);
    fprintf(out, "memory.extra_kb %ld\n",
            machine > base->machine ? machine - base->machine : 0);
    if (sampler->pss)
        fprintf(out, "memory.pss_kb %ld\n", sampler->pss);
}

void memory_sampler_destroy(struct memory_sampler *sampler)
{
    close(sampler->statm_fd);
    close(sampler->meminfo_fd);
    if (sampler->children_fd >= 0)
        close(sampler->children_fd);
    free(sampler->samples);
    free(sampler);
}
