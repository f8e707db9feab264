/*
 * checkpoint_file.c: descriptors and durable files
 *
 * Copyright (C) 2026 The libvirt-checkpoint authors
 * SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The order that makes a file crash-safe is always the same: write a new file, sync it,
 * rename it over the old one, sync the directory, and only then answer.  After a power
 * cut the name shows the old contents or the new ones, never a part, and never the old
 * ones once we answered.  GLib's function ignores a directory that cannot be synced, so
 * it is not used: a sync that nobody checks costs as much as one that is.
 *
 * A crash in the middle leaves "NAME.XXXXXX" behind, which nobody reads; whoever owns
 * the folder removes it.
 *
 * Locks belong to the open file description (fcntl(2), Linux 3.15), so two threads that
 * each open the file exclude each other, and a lock dies with its holder.  As the file
 * may be unlinked by the previous holder, a lock counts only if the path still leads to
 * the file that was locked.
 */

#include "config.h"

#include "checkpoint_file.h"

#include "checkpoint_error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_STEP_MS 20

void
virCheckpointFdCleanup(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

int
virCheckpointFdSteal(int *fd)
{
    int stolen = *fd;

    *fd = -1;
    return stolen;
}

/* "verb 'path': reason" with the errno @err.  Returns: FALSE, for the caller to return.
 */
static gboolean
virCheckpointFileFail(const gchar *verb, const gchar *path, int err, GError **error)
{
    g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_OPERATION_FAILED, "%s '%s': %s",
                verb, path, g_strerror(err));
    return FALSE;
}

static gboolean
virCheckpointFileSyncDir(const gchar *dir, GError **error)
{
    VIR_CHECKPOINT_AUTOFD int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return virCheckpointFileFail("open", dir, errno, error);
    /* Some file systems have nothing to sync for a directory and say so. */
    if (fsync(fd) < 0 && errno != EINVAL && errno != EROFS)
        return virCheckpointFileFail("sync", dir, errno, error);
    return TRUE;
}

gboolean
virCheckpointFileSyncName(const gchar *path, GError **error)
{
    g_autofree gchar *dir = g_path_get_dirname(path);

    return virCheckpointFileSyncDir(dir, error);
}

/* All of @text is in the file, and durable but for its name. */
static gboolean
virCheckpointFileFill(int fd, const gchar *text)
{
    gsize left = strlen(text);

    while (left > 0) {
        ssize_t put = write(fd, text, left);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return FALSE;
        text += put;
        left -= (gsize)put;
    }
    return fsync(fd) == 0;
}

gboolean
virCheckpointFileWrite(const gchar *path, const gchar *text, GError **error)
{
    g_autofree gchar *temporary = NULL;
    VIR_CHECKPOINT_AUTOFD int fd = -1;
    int failed;

    g_assert(path && text);

    temporary = g_strconcat(path, ".XXXXXX", NULL);
    fd = g_mkstemp_full(temporary, O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 && virCheckpointFileFill(fd, text) && rename(temporary, path) == 0)
        return virCheckpointFileSyncName(path, error);
    failed = errno;
    if (fd >= 0)
        unlink(temporary);
    return virCheckpointFileFail("write", path, failed, error);
}

/* Reads from @fd until its end or until @maxBytes + 1 bytes are there. */
static GByteArray *
virCheckpointFileReadAll(int fd, const gchar *path, gsize maxBytes, GError **error)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    guint8 chunk[16 * 1024];

    while (bytes->len <= maxBytes) {
        ssize_t got = read(fd, chunk, sizeof(chunk));

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            virCheckpointFileFail("read", path, errno, error);
            return NULL;
        }
        if (got == 0)
            break;
        g_byte_array_append(bytes, chunk, (guint)got);
    }
    return g_steal_pointer(&bytes);
}

gchar *
virCheckpointFileRead(const gchar *path, gsize maxBytes, GError **error)
{
    VIR_CHECKPOINT_AUTOFD int fd = -1;
    g_autoptr(GByteArray) bytes = NULL;
    const gchar *reason = NULL;
    struct stat sb;

    /* Not blocking: a FIFO in place of the file must not stop us. */
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &sb) < 0) {
        virCheckpointFileFail("open", path, errno, error);
        return NULL;
    }
    if (S_ISREG(sb.st_mode)) {
        bytes = virCheckpointFileReadAll(fd, path, maxBytes, error);
        if (!bytes)
            return NULL;
        if (bytes->len > maxBytes)
            reason = "is too large";
        else if (memchr(bytes->data ? bytes->data : (guint8 *)"", 0, bytes->len))
            reason = "holds a zero byte";
    } else {
        reason = "is not a regular file";
    }
    if (reason) {
        g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_CONFIG_UNSUPPORTED,
                    "file '%s' %s", path, reason);
        return NULL;
    }
    g_byte_array_append(bytes, (const guint8 *)"", 1);
    return (gchar *)g_byte_array_free(g_steal_pointer(&bytes), FALSE);
}

static gboolean
virCheckpointFileSyncBy(int (*sync)(int), const gchar *path, GError **error)
{
    VIR_CHECKPOINT_AUTOFD int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return virCheckpointFileFail("open", path, errno, error);
    if (sync(fd) < 0)
        return virCheckpointFileFail("sync", path, errno, error);
    return TRUE;
}

gboolean
virCheckpointFileSyncData(const gchar *path, GError **error)
{
    return virCheckpointFileSyncBy(fdatasync, path, error);
}

gboolean
virCheckpointFileSyncTimes(const gchar *path, GError **error)
{
    return virCheckpointFileSyncBy(fsync, path, error);
}

gboolean
virCheckpointFileSync(const gchar *path, GError **error)
{
    return virCheckpointFileSyncData(path, error) &&
           virCheckpointFileSyncName(path, error);
}

gboolean
virCheckpointFileMove(const gchar *from, const gchar *to, GError **error)
{
    return rename(from, to) == 0 || virCheckpointFileFail("rename", from, errno, error);
}

gboolean
virCheckpointFileRename(const gchar *from, const gchar *to, GError **error)
{
    return virCheckpointFileMove(from, to, error) &&
           virCheckpointFileSyncName(to, error);
}

gboolean
virCheckpointFileRemove(const gchar *path, GError **error)
{
    if (unlink(path) < 0) {
        /* The directory may be missing, too: then there is nothing to sync. */
        if (errno == ENOENT)
            return TRUE;
        return virCheckpointFileFail("remove", path, errno, error);
    }
    return virCheckpointFileSyncName(path, error);
}

gboolean
virCheckpointFileMakeDirs(const gchar *path, gint mode, GError **error)
{
    g_autofree gchar *parent = NULL;

    g_assert(g_path_is_absolute(path));

    if (g_file_test(path, G_FILE_TEST_IS_DIR))
        return TRUE;
    parent = g_path_get_dirname(path);
    if (!g_str_equal(parent, path) && !virCheckpointFileMakeDirs(parent, mode, error))
        return FALSE;
    if (mkdir(path, (mode_t)mode) < 0) {
        if (errno != EEXIST || !g_file_test(path, G_FILE_TEST_IS_DIR))
            return virCheckpointFileFail("make directory", path, errno, error);
        return TRUE;
    }
    return virCheckpointFileSyncDir(parent, error);
}

/* Takes the lock on @fd.  Returns: TRUE, or FALSE with errno set. */
static gboolean
virCheckpointFileLockFd(int fd, gboolean wait)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int rc = 0;

    do
        rc = fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &lock);
    while (rc < 0 && errno == EINTR);
    return rc == 0;
}

int
virCheckpointFileLock(const gchar *path, gboolean wait, GError **error)
{
    for (;;) {
        VIR_CHECKPOINT_AUTOFD int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        struct stat locked;
        struct stat named;

        if (fd < 0) {
            virCheckpointFileFail("open", path, errno, error);
            return -1;
        }
        if (!virCheckpointFileLockFd(fd, wait)) {
            if (errno == EAGAIN || errno == EACCES)
                g_set_error(error, VIR_CHECKPOINT_ERROR, VIR_ERR_RESOURCE_BUSY,
                            "'%s' is held by another process", path);
            else
                virCheckpointFileFail("lock", path, errno, error);
            return -1;
        }
        if (fstat(fd, &locked) < 0) {
            virCheckpointFileFail("lock", path, errno, error);
            return -1;
        }
        /* The previous holder may have removed the file while we waited. */
        if (stat(path, &named) == 0 && named.st_dev == locked.st_dev &&
            named.st_ino == locked.st_ino)
            return virCheckpointFdSteal(&fd);
    }
}

int
virCheckpointFileLockSoon(const gchar *path, guint patienceMs, GError **error)
{
    guint waitedMs;

    for (waitedMs = 0;; waitedMs += LOCK_STEP_MS) {
        g_autoptr(GError) held = NULL;
        int fd = virCheckpointFileLock(path, FALSE, &held);

        if (fd >= 0)
            return fd;
        if (waitedMs >= patienceMs ||
            !g_error_matches(held, VIR_CHECKPOINT_ERROR, VIR_ERR_RESOURCE_BUSY)) {
            g_propagate_error(error, g_steal_pointer(&held));
            return -1;
        }
        g_usleep(LOCK_STEP_MS * 1000);
    }
}
