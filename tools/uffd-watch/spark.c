#include "spark.h"

#include <langinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define COLUMNS_DEFAULT 80
#define HEIGHTS         8

struct screen screen_look(void)
{
    struct winsize size;
    const char *terminal = getenv("TERM"), *no_colour = getenv("NO_COLOR");
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    return (struct screen){
        .columns = known ? size.ws_col : COLUMNS_DEFAULT,
        .unicode = strcmp(nl_langinfo(CODESET), "UTF-8") == 0,
        .colour = terminal && strcmp(terminal, "dumb") != 0 && !(no_colour && *no_colour),
    };
}

void looks_add(struct looks *looks, double value)
{
    memmove(looks->values + 1, looks->values,
            (LOOKS_KEPT - 1) * sizeof(looks->values[0]));
    looks->values[0] = value;
    if (looks->count < LOOKS_KEPT)
        looks->count++;
}

/* 0: nothing; a little is seen as such. */
static int height_of(double value, double most)
{
    if (!(value > 0))
        return 0;
    int height = 1 + (int)(value / most * (HEIGHTS - 1) + 0.5);
    return height < HEIGHTS ? height : HEIGHTS;
}

double spark_show(const struct looks *looks, double most, int columns, bool unicode)
{
    static const char *const blocks[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    static const char letters[] = " .:-=+*#@";
    int shown = looks->count < columns ? looks->count : columns;
    double largest = 0;
    for (int i = 0; i < shown; i++)
        largest = looks->values[i] > largest ? looks->values[i] : largest;
    most = most > largest ? most : largest;
    for (int i = shown; i < columns; i++)
        putchar(' ');
    for (int i = shown - 1; i >= 0; i--) {
        int height = height_of(looks->values[i], most);
        if (unicode)
            fputs(blocks[height], stdout);
        else
            putchar(letters[height]);
    }
    return largest;
}
