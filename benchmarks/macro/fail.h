/* The end of a program of the benchmarks whose system call has failed. */
#include <stdio.h>
#include <stdlib.h>

static void fail(const char *what)
{
    perror(what);
    exit(1);
}
