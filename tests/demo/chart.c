#include "chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MOST_COLUMNS 200
#define HEIGHTS      8 /* parts of a row */

/* The rows' lower ends, ms. */
static const double scale[] = {0.1, 0.2, 0.5, 1,   2,    5,    10,  20,
                               50,  100, 200, 500, 1000, 2000, 5000};
#define SCALES ((int)(sizeof scale / sizeof scale[0]))

struct style {
    const char *heights[HEIGHTS + 1];
    const char *axis, *corner, *line, *tick, *ended;
};
static const struct style blocks = {
    {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"}, "│", "└", "─", "┴", "┤"};
static const struct style letters = {
    {" ", " ", ".", ".", ":", ":", "|", "|", "#"}, "|", "+", "-", "+", "|"};

static int column_of(const struct chart_frame *frame, double seconds)
{
    double part = (seconds + frame->before) / (frame->before + frame->after);
    return (int)floor(part * frame->columns);
}

static void find_worst(const struct chart_frame *frame, const struct load_sample *samples,
                       size_t count, double begin, double *worst)
{
    for (size_t i = 0; i < count; i++) {
        int column = column_of(frame, samples[i].seconds - begin);
        if (column >= 0 && column < frame->columns && samples[i].msec > worst[column])
            worst[column] = samples[i].msec;
    }
}

/* How much of the row is filled, in eighths. */
static int height_in(int row, double msec)
{
    if (msec <= scale[row])
        return 0;
    double upper = row + 1 < SCALES ? scale[row + 1] : scale[row] * 2;
    double part = log(msec / scale[row]) / log(upper / scale[row]);
    return part >= 1 ? HEIGHTS : (int)(part * HEIGHTS);
}

static void print_row(const struct chart_frame *frame, const struct style *style, int row,
                      const double *worst, const char *unit)
{
    printf("  %5g %-2s %s", scale[row], unit, style->axis);
    for (int i = 0; i < frame->columns; i++)
        fputs(style->heights[height_in(row, worst[i])], stdout);
    putchar('\n');
}

/* Whole seconds, few enough to be read. */
static double tick_seconds(const struct chart_frame *frame)
{
    double step = 1;
    while ((frame->before + frame->after) / step > 8)
        step *= 2;
    return step;
}

static void print_axis(const struct chart_frame *frame, const struct style *style,
                       double ended)
{
    char labels[MOST_COLUMNS + 16];
    double step = tick_seconds(frame);
    memset(labels, ' ', sizeof labels);
    printf("%11s%s", "", style->corner);
    double next = 0;
    for (int i = 0; i < frame->columns; i++) {
        bool tick = next < frame->after && i == column_of(frame, next);
        if (tick) {
            char text[16];
            int length = snprintf(text, sizeof text, next > 0 ? "%g s" : "%g", next);
            memcpy(labels + i, text, (size_t)length);
            next += step;
        }
        fputs(i == column_of(frame, ended) ? style->ended
              : tick                       ? style->tick
                                           : style->line,
              stdout);
    }
    labels[frame->columns + 3] = '\0';
    printf("\n%12s%s\n", "", labels);
}

void chart_print(const struct chart_frame *frame, const struct load_sample *samples,
                 size_t count, double begin, double end)
{
    double worst[MOST_COLUMNS] = {0};
    const struct style *style = frame->unicode ? &blocks : &letters;
    CHECK(frame->columns > 0 && frame->columns <= MOST_COLUMNS, "%d columns",
          frame->columns);
    find_worst(frame, samples, count, begin, worst);
    int rows = 1;
    while (rows < SCALES && scale[rows] < frame->most_msec)
        rows++;
    for (int row = rows - 1; row >= 0; row--)
        print_row(frame, style, row, worst, row == rows - 1 ? "ms" : "");
    print_axis(frame, style, end - begin);
}
