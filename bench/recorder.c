#include "recorder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct recorder *recorder_create(uint64_t origin)
{
    struct recorder *recorder = calloc(1, sizeof *recorder);
    if (recorder)
        recorder->origin = origin;
    return recorder;
}

void recorder_destroy(struct recorder *recorder)
{
    free(recorder->windows);
    free(recorder);
}

void recorder_save_started(struct recorder *recorder, uint64_t now)
{
    if (recorder->saves == MAX_SAVES)
        die("more than %d saves", MAX_SAVES);
    recorder->save_start[recorder->saves++] = now;
}

void recorder_save_ended(struct recorder *recorder, uint64_t now)
{
    recorder->save_end[recorder->saves - 1] = now;
}

/* The save that a reply arriving now belongs to, or -1. Every save in the list has begun, so a command that was due
 * before one began and is answered only now has waited for it. */
static int save_of(const struct recorder *recorder, uint64_t due)
{
    for (int i = (int)recorder->saves - 1; i >= 0; i--) {
        uint64_t end = recorder->save_end[i];
        if (end && due >= end)
            return -1;
        if (due >= recorder->save_start[i] || i == 0 || due >= recorder->save_end[i - 1])
            return i;
    }
    return -1;
}

static void timeline_add(struct recorder *recorder, uint64_t due, uint64_t latency)
{
    size_t index = (due - recorder->origin) / (WINDOW_MSEC * NSEC_PER_MSEC);
    if (index >= recorder->window_capacity) {
        size_t capacity = (index + 1) * 2;
        struct window *windows = realloc(recorder->windows, capacity * sizeof *windows);
        if (!windows)
            die("out of memory");
        memset(windows + recorder->window_capacity, 0,
               (capacity - recorder->window_capacity) * sizeof *windows);
        recorder->windows = windows;
        recorder->window_capacity = capacity;
    }
    if (index >= recorder->window_count)
        recorder->window_count = index + 1;
    struct window *window = &recorder->windows[index];
    window->count++;
    window->sum += latency;
    if (latency > window->max)
        window->max = latency;
}

void recorder_reply(struct recorder *recorder, uint64_t due, uint64_t now)
{
    uint64_t latency = now - due;
    int save = save_of(recorder, due);
    timeline_add(recorder, due, latency);
    if (save >= 0) {
        histogram_record(&recorder->phase[PHASE_SAVE], latency);
        histogram_record(&recorder->save[save], latency);
    } else {
        histogram_record(&recorder->phase[recorder->saves ? PHASE_AFTER : PHASE_BEFORE],
                         latency);
    }
}

uint64_t recorder_replies(const struct recorder *recorder)
{
    uint64_t count = 0;
    for (int i = 0; i < PHASES; i++)
        count += recorder->phase[i].count;
    return count;
}

static double msec(uint64_t nsec)
{
    return (double)nsec / (double)NSEC_PER_MSEC;
}

static double usec(uint64_t nsec)
{
    return (double)nsec / (double)NSEC_PER_USEC;
}

int recorder_write_timeline(const struct recorder *recorder, const char *path)
{
    FILE *file = fopen(path, "w");
    if (!file)
        return -errno;
    double zero = recorder->saves ? msec(recorder->save_start[0] - recorder->origin) : 0;
    fprintf(file, "msec,replies,max_usec,mean_usec\n");
    for (size_t i = 0; i < recorder->window_count; i++) {
        const struct window *window = &recorder->windows[i];
        if (!window->count)
            continue;
        fprintf(file, "%.1f,%llu,%.1f,%.1f\n", (double)(i * WINDOW_MSEC) - zero,
                (unsigned long long)window->count, usec(window->max),
                usec(window->sum / window->count));
    }
    return fclose(file) == 0 ? 0 : -errno;
}

static void print_histogram(FILE *out, const char *name,
                            const struct histogram *histogram)
{
    static const struct {
        const char *name;
        double percent;
    } points[] = {
        {"p50", 50}, {"p90", 90}, {"p99", 99}, {"p99.9", 99.9}, {"p99.99", 99.99}};
    fprintf(out, "%s.count %llu\n", name, (unsigned long long)histogram->count);
    if (!histogram->count)
        return;
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        fprintf(out, "%s.%s_usec %.1f\n", name, points[i].name,
                usec(histogram_percentile(histogram, points[i].percent)));
    fprintf(out, "%s.max_usec %.1f\n", name, usec(histogram->max));
}

/* How long replies stayed bad after the first save began: the number of windows with a reply over 10 ms, as time, and
 * when the last of them was. A queue that never drains shows here and not in the maximum. */
static void print_disturbance(FILE *out, const struct recorder *recorder)
{
    uint64_t first =
        (recorder->save_start[0] - recorder->origin) / (WINDOW_MSEC * NSEC_PER_MSEC);
    uint64_t bad = 0, last = first;
    for (size_t i = first; i < recorder->window_count; i++) {
        if (recorder->windows[i].max < 10 * NSEC_PER_MSEC)
            continue;
        bad++;
        last = i + 1;
    }
    fprintf(out, "save.over_10ms_msec %llu\n", (unsigned long long)(bad * WINDOW_MSEC));
    fprintf(out, "save.last_over_10ms_msec %llu\n",
            (unsigned long long)((last - first) * WINDOW_MSEC));
}

void recorder_print(const struct recorder *recorder, FILE *out)
{
    static const char *const names[PHASES] = {"before", "save", "after"};
    char name[32];
    for (int i = 0; i < PHASES; i++)
        print_histogram(out, names[i], &recorder->phase[i]);
    for (unsigned i = 0; i < recorder->saves; i++) {
        snprintf(name, sizeof name, "save.%u", i + 1);
        print_histogram(out, name, &recorder->save[i]);
        fprintf(out, "%s.start_msec %.1f\n", name,
                msec(recorder->save_start[i] - recorder->origin));
        fprintf(out, "%s.msec %.1f\n", name,
                msec(recorder->save_end[i] - recorder->save_start[i]));
    }
    if (recorder->saves)
        print_disturbance(out, recorder);
    print_histogram(out, "lateness", &recorder->lateness);
}
