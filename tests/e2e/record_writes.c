/* Records what a process does to the files of one folder, for `power_cut.py` to replay.
 *
 * Preloaded (LD_PRELOAD), it stands in front of the C library's calls that change files. Each call
 * that succeeded becomes one record of the file RECORD_LOG, in the order in which they ended:
 *
 *     kind (1 byte), length of name, offset, length of data (8 bytes each), name, data
 *
 * Only names below RECORD_FOLDER count. A sync stands where it began: what another thread writes
 * while it runs is not what it made durable.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES 1024

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *names[FILES]; /* by descriptor */
static int log_file = -1;

#define REAL(name) ((__typeof__(&name)) real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL) abort();
    return found;
}

/* The name below the folder, "" for the folder itself, NULL for any other. */
static const char *inside(const char *path) {
    const char *folder = getenv("RECORD_FOLDER");
    size_t length;
    if (folder == NULL || path == NULL) return NULL;
    length = strlen(folder);
    if (strncmp(path, folder, length) != 0) return NULL;
    if (path[length] == '\0') return path + length;
    return path[length] == '/' ? path + length + 1 : NULL;
}

static const char *name_of(int descriptor) {
    return descriptor >= 0 && descriptor < FILES ? names[descriptor] : NULL;
}

/* Only called with the lock held. */
static void record(char kind, const char *name, uint64_t offset, const void *data, size_t size) {
    uint64_t sizes[3] = {strlen(name), offset, size};
    struct iovec parts[4] = {
        {&kind, 1}, {sizes, sizeof sizes}, {(void *) name, sizes[0]}, {(void *) data, size}};
    if (log_file < 0) {
        log_file = REAL(open)(getenv("RECORD_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    }
    if (writev(log_file, parts, 4) != (ssize_t) (1 + sizeof sizes + sizes[0] + size)) abort();
}

static int open_any(const char *path, int flags, mode_t mode) {
    const char *name = inside(path);
    int descriptor, is_new;
    if (name == NULL) return REAL(open)(path, flags, mode);
    pthread_mutex_lock(&lock);
    is_new = (flags & O_CREAT) && access(path, F_OK) != 0;
    descriptor = REAL(open)(path, flags, mode);
    if (descriptor >= FILES) abort();
    if (descriptor >= 0) {
        names[descriptor] = strdup(name);
        if (is_new) record('c', name, 0, NULL, 0);
        if (flags & O_TRUNC) record('t', name, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return descriptor;
}

#define OPEN(function)                                                   \
    int function(const char *path, int flags, ...) {                     \
        va_list rest;                                                    \
        mode_t mode;                                                     \
        va_start(rest, flags);                                           \
        mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                    \
        return open_any(path, flags, mode);                              \
    }
OPEN(open)
OPEN(open64)

int close(int descriptor) {
    int result;
    if (name_of(descriptor) == NULL) return REAL(close)(descriptor);
    pthread_mutex_lock(&lock);
    free(names[descriptor]);
    names[descriptor] = NULL;
    result = REAL(close)(descriptor);
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t write(int descriptor, const void *data, size_t size) {
    ssize_t written;
    if (name_of(descriptor) == NULL) return REAL(write)(descriptor, data, size);
    pthread_mutex_lock(&lock);
    written = REAL(write)(descriptor, data, size);
    if (written > 0) {
        off_t end = lseek(descriptor, 0, SEEK_CUR);
        record('w', names[descriptor], (uint64_t) (end - written), data, (size_t) written);
    }
    pthread_mutex_unlock(&lock);
    return written;
}

static ssize_t pwrite_any(int descriptor, const void *data, size_t size, off_t offset) {
    ssize_t written;
    if (name_of(descriptor) == NULL) return REAL(pwrite)(descriptor, data, size, offset);
    pthread_mutex_lock(&lock);
    written = REAL(pwrite)(descriptor, data, size, offset);
    if (written > 0) {
        record('w', names[descriptor], (uint64_t) offset, data, (size_t) written);
    }
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    return pwrite_any(descriptor, data, size, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
    return pwrite_any(descriptor, data, size, offset);
}

static int truncate_any(int descriptor, off_t size) {
    int result;
    if (name_of(descriptor) == NULL) return REAL(ftruncate)(descriptor, size);
    pthread_mutex_lock(&lock);
    result = REAL(ftruncate)(descriptor, size);
    if (result == 0) record('t', names[descriptor], (uint64_t) size, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int descriptor, off_t size) {
    return truncate_any(descriptor, size);
}

int ftruncate64(int descriptor, off64_t size) {
    return truncate_any(descriptor, size);
}

/* The disk isn't waited for: it is what was asked of it that counts. */
static int sync_any(int descriptor, int (*real_sync)(int)) {
    if (name_of(descriptor) == NULL) return real_sync(descriptor);
    pthread_mutex_lock(&lock);
    record('s', names[descriptor], 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int descriptor) {
    return sync_any(descriptor, REAL(fsync));
}

int fdatasync(int descriptor) {
    return sync_any(descriptor, REAL(fdatasync));
}

int unlink(const char *path) {
    const char *name = inside(path);
    int result;
    if (name == NULL) return REAL(unlink)(path);
    pthread_mutex_lock(&lock);
    result = REAL(unlink)(path);
    if (result == 0) record('u', name, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int rename(const char *from, const char *to) {
    /* SQLite renames nothing; if that changes, the replay has to learn it. */
    if (inside(from) != NULL || inside(to) != NULL) abort();
    return REAL(rename)(from, to);
}
