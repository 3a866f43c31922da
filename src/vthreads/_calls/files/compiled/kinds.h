/* The status of a file, by descriptor or name. */

#include <sys/stat.h>

/* The device of the file at `path`, or at `fd` if that is NULL; -1 if it is not a regular file or not there. */
static long long vt_device_of_regular(int fd, const char *path) {
    struct stat status;
    int failed = path != NULL ? stat(path, &status) : fstat(fd, &status);
    return failed || !S_ISREG(status.st_mode) ? -1 : (long long)status.st_dev;
}
